"""What a message to the workers holds and what comes back: docs/wire-format.md, version 1."""
from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Union

import msgpack
import numpy as np

Id = Union[int, str, bytes]

VERSION = 1
CORRELATION = "correlation-id"  # a header of ours; the workers hand every header on
# Bits come as bytes of eight.
KINDS = {"<f4": "<f4", "<f2": "<f2", "|i1": "|i1", "bits": "|u1"}
INPUT_KEYS = {"text", "texts", "id", "ids", "title", "titles", "prompt"}


class WireError(ValueError):
    """Bytes that are not an output of a worker, or one of a version that is not known here."""


class DeadLetter(Exception):
    """A message that the workers refused: `code` is stable, `reason` is for people."""

    def __init__(self, headers: Mapping[str, bytes], payload: Optional[bytes]) -> None:
        self.headers, self.payload = headers, payload
        self.code = headers.get("_code", b"unknown").decode("utf-8", "replace")
        self.reason = headers.get("_error", b"").decode("utf-8", "replace")
        super().__init__(f"{self.code}: {self.reason}")


@dataclass(frozen=True)
class Chunk:
    """Which piece of a long text an embedding is of: `text[start:end]` of the text `parent`."""

    parent: Id
    number: int  # from 0
    start: int
    end: int


@dataclass(frozen=True)
class Output:
    """What came out for one message; `vectors` has a row for each of `ids`, read-only."""

    id: Id
    ids: list[Id]
    vectors: np.ndarray
    tokens: list[int]
    truncated: list[bool]
    chunks: list[Optional[Chunk]]  # None: of a whole text
    model: str
    model_fingerprint: str
    prompt: str
    dim: int
    dtype: str
    source: Union[str, bytes]
    timestamp_ms: Optional[int]
    fields: dict[Any, Any]  # what the message held beside its texts
    extra: dict[str, Any]  # keys of the output that this version of the client does not know

    def unit(self) -> np.ndarray:
        """float32 rows of length 1, whatever the dtype; of bits only the signs are left."""
        return unit(self.vectors, self.dtype, self.dim)


@dataclass(frozen=True)
class Delivery:
    """An output or a dead letter as the broker gave it. `output()` says which it is."""

    payload: Optional[bytes]
    headers: dict[str, bytes]
    key: Optional[bytes]
    place: tuple[Any, ...]  # (stream, entry id) or (topic, partition, offset)
    is_dead: bool

    @property
    def correlation_id(self) -> Optional[str]:
        found = self.headers.get(CORRELATION)
        return None if found is None else found.decode("utf-8", "replace")

    def output(self) -> Optional[Output]:
        """None for a deletion, which names what is gone by `key` or the header `id`."""
        if self.is_dead:
            raise DeadLetter(self.headers, self.payload)
        return None if self.payload is None else decode(self.payload)


def encode(texts: Union[str, Sequence[str]], *, id: Union[int, str, None] = None,
           ids: Optional[Sequence[Union[int, str, None]]] = None, title: Optional[str] = None,
           titles: Optional[Sequence[Optional[str]]] = None, prompt: Optional[str] = None,
           fields: Optional[Mapping[str, Any]] = None) -> bytes:
    """One message. A str is a message with one text; `fields` come back with the output."""
    each = [texts] if isinstance(texts, str) else list(texts)
    many = None if isinstance(texts, str) else each
    if not each or not all(isinstance(text, str) and text for text in each):
        raise ValueError("a message needs texts: str, and none of them empty")
    for name, values in (("ids", ids), ("titles", titles)):
        if values is not None and (many is None or len(values) != len(many)):
            raise ValueError(f"{name}: one for each of many texts (a single text: id, title)")
    message = dict(fields or {})
    if INPUT_KEYS & message.keys():
        raise ValueError(f"fields must not be named {sorted(INPUT_KEYS & message.keys())}")
    message.update(id=id, prompt=prompt, title=title, titles=titles and list(titles),
                   ids=ids and list(ids))
    message["text" if many is None else "texts"] = texts if many is None else many
    packed: bytes = msgpack.packb({k: v for k, v in message.items() if v is not None})
    return packed


def decode(payload: bytes) -> Output:
    """An output of a worker, msgpack or JSON."""
    try:
        # Fields may hold anything that a message can: odd keys, and str that is not UTF-8.
        output = (json.loads(payload) if payload[:1] == b"{" else
                  msgpack.unpackb(payload, strict_map_key=False,
                                  unicode_errors="surrogateescape"))
        version = output.get("v")
    except (ValueError, AttributeError, TypeError, RecursionError,
            msgpack.UnpackException) as error:
        raise WireError(f"no output of a worker: {error!r}") from error
    if version != VERSION:
        raise WireError(f"this client knows version {VERSION} of the wire format, not {version}")
    try:
        many = "ids" in output
        ids, tokens, truncated = (output.pop(name) if many else [output.pop(name)]
                                  for name in ("ids" if many else "id", "tokens", "truncated"))
        dim, dtype = output.pop("dim"), output.pop("dtype")
        known = {name: output.pop(name) for name in ("model", "model_fingerprint", "prompt",
                                                     "source")}
        return Output(id=output.pop("id") if many else ids[0], ids=ids, tokens=tokens,
                      vectors=rows(output.pop("embedding"), dtype, dim, len(ids)),
                      truncated=truncated, chunks=chunks(output, many, len(ids)), dim=dim,
                      dtype=dtype,
                      timestamp_ms=output.pop("timestamp_ms", None),
                      fields=output.pop("fields", {}),
                      extra={k: v for k, v in output.items() if k != "v"}, **known)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise WireError(f"no output of a worker: {error!r}") from error


def chunks(output: dict[str, Any], many: bool, n: int) -> list[Optional[Chunk]]:
    found = [output.pop(name, None) for name in ("parent", "chunk", "start", "end")]
    if found[0] is None:
        return [None] * n
    columns = found if many else [[value] for value in found]
    if any(len(column) != n for column in columns):
        raise ValueError(f"{n} vectors, and chunks of other numbers")
    return [None if row[0] is None else Chunk(*row) for row in zip(*columns)]


def rows(embedding: Any, dtype: str, dim: int, n: int) -> np.ndarray:
    """[n][dim], or [n][dim / 8] bytes of bits: of raw bytes, or of numbers from JSON."""
    kind, width = KINDS[dtype], dim // 8 if dtype == "bits" else dim
    if width < 1:
        raise ValueError(f"dim is {dim}")
    found = (np.frombuffer(embedding, kind) if isinstance(embedding, bytes) else
             np.asarray(embedding, kind))
    return found.reshape(n, width)


def unit(vectors: np.ndarray, dtype: str, dim: int) -> np.ndarray:
    if dtype == "bits":
        vectors = np.unpackbits(vectors, axis=1, count=dim).astype(np.float32) * 2 - 1
    floats = vectors.astype(np.float32)
    if dtype == "<f4":
        return floats
    return np.asarray(floats / np.linalg.norm(floats, axis=1, keepdims=True), np.float32)


def with_correlation(headers: Optional[Mapping[str, Union[str, bytes]]]) -> dict[str, bytes]:
    """Headers as bytes, with a correlation id of our own unless there is one."""
    mixed: dict[str, Union[str, bytes]] = {CORRELATION: uuid.uuid4().hex, **(headers or {})}
    return {k: v.encode() if isinstance(v, str) else v for k, v in mixed.items()}
