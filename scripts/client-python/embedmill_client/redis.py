"""Texts to workers and embeddings from them by Redis Streams.

Clients are redis.Redis, or redis.RedisCluster with streams of one slot ("{texts}"), made without
decode_responses: what comes back is bytes. A call that fails by an error of the connection may be
made again; what it had sent may then be there twice, with the same ids.
"""
from __future__ import annotations

import time
import uuid
from typing import Any, Iterator, Mapping, Optional, Sequence, Union

import numpy as np
import redis

from .wire import (CORRELATION, Delivery, Id, Output, WireError, encode, rows, unit,
                   with_correlation)

BLOCK = 0.5  # seconds; shorter than any socket_timeout that a client may sensibly have
PAGE = 100


class RedisProducer:
    """Puts messages on the workers' input stream, and waits while too many are not yet done.

    There is no MAXLEN: on a stream that workers read it throws away what they have not had yet.
    `trim` removes what they are done with.
    """

    def __init__(self, client: Any, stream: str = "texts", *, workers: str = "embedmill",
                 max_waiting: int = 10_000, timeout: float = 60.0) -> None:
        self.client, self.stream, self.workers = binary(client), stream, workers
        self.max_waiting, self.timeout = max_waiting, timeout
        self._room = 0

    def send(self, texts: Union[str, Sequence[str]], *,
             headers: Optional[Mapping[str, Union[str, bytes]]] = None, **message: Any) -> str:
        """The correlation id of the message, which its output or dead letter will have, too.

        `message` is what encode takes. TimeoutError when there was no room for `timeout` seconds.
        """
        entry, body = with_correlation(headers), encode(texts, **message)
        if "body" in entry:
            raise ValueError("no header can be named body: that is the payload")
        self._wait_for_room()
        self.client.xadd(self.stream, {**entry, "body": body})
        return entry[CORRELATION].decode()

    def waiting(self) -> int:
        """Messages that the workers are not done with; above max_waiting perhaps more than told."""
        try:
            groups = self.client.xinfo_groups(self.stream)
        except redis.ResponseError as error:
            if "no such key" in str(error):
                return 0
            raise
        for group in groups:
            if group["name"] == self.workers.encode():
                lag = group.get("lag")
                if lag is None:  # unknown to Redis before 7, and at times after an XDEL
                    after = b"(" + group["last-delivered-id"]
                    lag = len(self.client.xrange(self.stream, after, "+", self.max_waiting))
                return int(lag + group["pending"])
        return int(self.client.xlen(self.stream))

    def _wait_for_room(self) -> None:
        deadline, pause = time.monotonic() + self.timeout, 0.01
        while self._room < 1:
            waiting = self.waiting()
            # Asked for anew after a tenth of it: others may send, too.
            self._room = min(self.max_waiting - waiting, max(1, self.max_waiting // 10))
            if self._room < 1:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{waiting} messages wait on {self.stream}: are there "
                                       f"workers in the group {self.workers}?")
                time.sleep(pause)
                pause = min(2 * pause, 1.0)
        self._room -= 1


class RedisConsumer:
    """Outputs and dead letters for a group of consumers, each at least once.

    What was received and not acked comes again: at once to a consumer of the same name that is
    made anew, and to any other after `claim_idle` seconds, within which the work must be done.
    `dead_letters` None leaves those to somebody else.
    """

    def __init__(self, client: Any, group: str, name: str, *, outputs: str = "texts:embeddings",
                 dead_letters: Optional[str] = "texts:dlq", claim_idle: float = 60.0) -> None:
        self.client, self.group, self.name = binary(client), group, name
        self.dead_letters, self.claim_idle = dead_letters, claim_idle
        self.streams = [outputs] + ([dead_letters] if dead_letters else [])
        for stream in self.streams:
            try:
                self.client.xgroup_create(stream, group, id="0", mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        self._begin()

    def _begin(self) -> None:
        """What is pending for this name comes first."""
        self._after: dict[str, Any] = dict.fromkeys(self.streams, "0")
        self._claim_at = 0.0

    def receive(self, timeout: float, count: int = PAGE) -> list[Delivery]:
        """As soon as there are any; none after the timeout."""
        deadline = time.monotonic() + timeout
        try:
            while True:
                is_new = all(after == ">" for after in self._after.values())
                found = is_new and self._claim(count) or self._read(count, deadline, is_new)
                if found or time.monotonic() >= deadline:
                    return found
        except redis.RedisError:
            self._begin()  # an answer that was lost is pending for this consumer
            raise

    def ack(self, *deliveries: Delivery) -> None:
        """They are done with and do not come again."""
        for stream in self.streams:
            ids = [d.place[1] for d in deliveries if d.place[0] == stream]
            if ids:
                self.client.xack(stream, self.group, *ids)

    def _read(self, count: int, deadline: float, is_new: bool) -> list[Delivery]:
        found = []
        left = min(BLOCK, max(0.001, deadline - time.monotonic()))  # BLOCK 0 waits without end
        answer = entries_of(self.client.xreadgroup(
            self.group, self.name, self._after, count=count,
            block=int(1000 * left) if is_new else None))
        for stream, after in self._after.items():
            entries = answer.get(stream, [])
            found += self._deliver(stream, entries)
            if after != ">":
                self._after[stream] = entries[-1][0] if entries else ">"
        return found

    def _claim(self, count: int) -> list[Delivery]:
        if time.monotonic() < self._claim_at:
            return []
        found = []
        for stream in self.streams:
            at: Any = "0-0"
            while True:
                answer = self.client.xautoclaim(stream, self.group, self.name,
                                                int(1000 * self.claim_idle), at, count=count)
                at = answer[0]
                found += self._deliver(stream, answer[1])
                if found or at == b"0-0":
                    break
        if not found:
            self._claim_at = time.monotonic() + self.claim_idle / 2
        return found

    def _deliver(self, stream: str, entries: Any) -> list[Delivery]:
        found = []
        for place, fields in entries:
            if fields:
                found.append(delivery(stream, place, fields, stream == self.dead_letters))
            elif place:  # pending, but removed from the stream
                self.client.xack(stream, self.group, place)
        return found


def embed(client: Any, texts: Sequence[str], *, titles: Optional[Sequence[Optional[str]]] = None,
          prompt: Optional[str] = None, timeout: float = 30.0, stream: str = "texts",
          outputs: Optional[str] = None, dead_letters: Optional[str] = None,
          per_message: int = 32) -> np.ndarray:
    """float32 unit vectors, a row for each text, from workers that write to a stream.

    Raises DeadLetter when a text was refused and TimeoutError when not all came in time. Every
    call reads all that comes out while it waits, its own and what others asked for; keep a stream
    for questions, with a --redis-maxlen for answers that nobody waits for any more. The input and
    output server must be the same.
    """
    if isinstance(texts, str) or not texts:
        raise ValueError("texts must be a sequence of at least one")
    outputs, dead_letters = outputs or f"{stream}:embeddings", dead_letters or f"{stream}:dlq"
    parts = [slice(i, i + per_message) for i in range(0, len(texts), per_message)]
    call, deadline = uuid.uuid4().hex, time.monotonic() + timeout
    bodies = [encode(texts[part], titles=titles and titles[part], prompt=prompt)
              for part in parts]
    after = {name: last_id(binary(client), name) for name in (outputs, dead_letters)}
    pipe = client.pipeline(transaction=False)
    for i, body in enumerate(bodies):
        pipe.xadd(stream, {CORRELATION: f"{call}/{i}", "body": body})
    sent = pipe.execute()
    found: dict[int, Output] = {}
    try:
        for name, place, fields in follow(client, after, deadline):
            answer = delivery(name, place, fields, name == dead_letters)
            of, _, number = (answer.correlation_id or "").partition("/")
            if of != call:
                continue
            output = answer.output()
            client.xdel(outputs, place)  # nobody else waits for it
            part = int(number)
            if output is None or len(output.ids) != len(texts[parts[part]]):
                raise WireError("not one vector for each text: do the workers split them?")
            found[part] = output
            if len(found) == len(parts):
                break
        else:
            raise TimeoutError(f"{len(found)} of {len(parts)} messages were answered in {timeout} "
                               f"s: is there a worker on {stream} that writes to {outputs}?")
    finally:
        client.xdel(stream, *sent)  # done, or nobody waits for it any more
    if len({(o.model_fingerprint, o.dim) for o in found.values()}) > 1:
        raise WireError(f"the workers on {stream} have different models or dims")
    return np.concatenate([found[i].unit() for i in range(len(parts))])


def follow(client: Any, after: dict[str, Any],
           deadline: float) -> Iterator[tuple[str, bytes, dict[bytes, bytes]]]:
    """(stream, id, fields) of the entries behind `after`, as they come, until the deadline."""
    while (left := deadline - time.monotonic()) > 0:
        answer = entries_of(client.xread(after, count=PAGE,
                                         block=int(1000 * max(0.001, min(BLOCK, left)))))
        for name, entries in answer.items():
            for place, fields in entries:
                after[name] = place
                yield name, place, fields


def fetch_hashes(client: Any, ids: Sequence[Id], *, prefix: str = "embedding:",
                 timeout: float = 0.0) -> np.ndarray:
    """float32 unit vectors, a row for each id, of workers with --redis-output hash.

    Waits for those that are not there yet; TimeoutError names the first that did not come.
    """
    names, deadline = ("embedding", "embedding-dtype", "embedding-dim"), time.monotonic() + timeout
    found: dict[Id, np.ndarray] = {}
    missing = list(ids)
    while True:
        for at in range(0, len(missing), PAGE):
            page = missing[at:at + PAGE]
            pipe = binary(client).pipeline(transaction=False)
            for id in page:
                pipe.hmget(prefix.encode() + (id if isinstance(id, bytes) else str(id).encode()),
                           *names)
            for id, (raw, dtype, dim) in zip(page, pipe.execute()):
                if raw is not None:
                    words = dtype.decode(), int(dim)
                    found[id] = unit(rows(raw, *words, 1), *words)
        missing = [id for id in missing if id not in found]
        if not missing:
            return np.concatenate([found[id] for id in ids])
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{len(missing)} of {len(ids)} have no embedding, first "
                               f"{missing[0]!r}: refused? (embedmill dlq list)")
        time.sleep(0.05)


def trim(client: Any, stream: str) -> int:
    """Remove the entries that every group of the stream is done with; how many there were."""
    # In this order: what a group is given in between is pending and stays.
    ends = []
    for group in client.xinfo_groups(stream):
        ends.append(group["last-delivered-id"])
        first = client.xpending(stream, group["name"])["min"]
        if first:
            ends.append(first)
    if not ends:
        return 0
    end = min(ends, key=lambda place: tuple(map(int, place.split(b"-"))))
    return int(client.xtrim(stream, minid=end, approximate=False))


def binary(client: Any) -> Any:
    of_cluster = getattr(client, "get_connection_kwargs", None)
    options = of_cluster() if of_cluster else client.connection_pool.connection_kwargs
    if options.get("decode_responses"):
        raise ValueError("make the client without decode_responses: vectors are bytes")
    return client


def entries_of(answer: Any) -> dict[str, Any]:
    """Of XREAD, by the name of the stream; RESP3 has a map where RESP2 has pairs."""
    if isinstance(answer, dict):
        return {name.decode(): [e for page in pages for e in page]
                for name, pages in answer.items()}
    return {name.decode(): entries for name, entries in answer}


def last_id(client: Any, stream: str) -> Any:
    found = client.xrevrange(stream, count=1)
    return found[0][0] if found else "0-0"


def delivery(stream: str, place: bytes, fields: dict[bytes, bytes], is_dead: bool) -> Delivery:
    headers = {k.decode("utf-8", "surrogateescape"): v for k, v in fields.items()}
    payload = headers.pop("body", None)
    return Delivery(payload, headers, None, (stream, place), is_dead)
