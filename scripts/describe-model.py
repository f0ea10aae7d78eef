#!/usr/bin/env python3
"""Show what a GGUF file holds, or check that it is EmbeddingGemma 300M as embedmill needs it.

Usage: describe-model.py FILE            keys and tensors, one a line
       describe-model.py --check FILE    every key, tensor name, type and shape against the model;
                                         prints what differs, exit code 1 when anything does
       describe-model.py --compare FOLDER FILE
                                         --check, and every value against the sentence-transformers
                                         folder it was converted from (needs numpy, safetensors)

Reads the file by the GGUF specification, version 3, with nothing but the standard library.
"""

import argparse
import math
import mmap
import os
import struct
import sys

F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8
TYPE_NAMES = {F32: "F32", F16: "F16", Q4_0: "Q4_0", Q8_0: "Q8_0"}
BLOCK_BYTES = {Q4_0: 18, Q8_0: 34} # of 32 values
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q",
           11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
N_VOCAB = 262144
N_LAYERS = 24

KEYS = {
    "general.architecture": "gemma-embedding",
    "gemma-embedding.block_count": N_LAYERS,
    "gemma-embedding.context_length": 2048,
    "gemma-embedding.embedding_length": 768,
    "gemma-embedding.feed_forward_length": 1152,
    "gemma-embedding.attention.head_count": 3,
    "gemma-embedding.attention.head_count_kv": 1,
    "gemma-embedding.attention.key_length": 256,
    "gemma-embedding.attention.value_length": 256,
    "gemma-embedding.attention.layer_norm_rms_epsilon": 1e-6,
    "gemma-embedding.attention.sliding_window": 512,
    "gemma-embedding.rope.freq_base": 1e6,
    "gemma-embedding.rope.freq_base_swa": 1e4,
    "gemma-embedding.pooling_type": 1,
    "gemma-embedding.dense_2_feat_in": 768,
    "gemma-embedding.dense_2_feat_out": 3072,
    "gemma-embedding.dense_3_feat_in": 3072,
    "gemma-embedding.dense_3_feat_out": 768,
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.eos_token_id": 1,
    "tokenizer.ggml.unknown_token_id": 3,
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.add_eos_token": True,
    "tokenizer.ggml.add_space_prefix": False,
}

BLOCK_TENSORS = {
    "attn_norm": (768,),
    "attn_q": (768, 768),
    "attn_k": (768, 256),
    "attn_v": (768, 256),
    "attn_output": (768, 768),
    "attn_q_norm": (256,),
    "attn_k_norm": (256,),
    "post_attention_norm": (768,),
    "ffn_norm": (768,),
    "ffn_gate": (768, 1152),
    "ffn_up": (768, 1152),
    "ffn_down": (1152, 768),
    "post_ffw_norm": (768,),
}

SOURCE_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}


class BadFile(Exception):
    pass


class Cursor:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, n):
        if n > len(self.data) - self.at:
            raise BadFile(f"the file ends at byte {len(self.data)}, inside its directory")
        self.at += n
        return self.data[self.at - n:self.at]

    def scalar(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def string(self):
        return bytes(self.take(self.scalar("<Q"))).decode("utf-8", "replace")

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            element, n = self.scalar("<I"), self.scalar("<Q")
            if n > len(self.data):
                raise BadFile(f"an array claims {n} elements, more than the file has bytes")
            if element in SCALARS:
                form = f"<{n}{SCALARS[element][1]}"
                return list(struct.unpack(form, self.take(struct.calcsize(form))))
            return [self.value(element) for _ in range(n)]
        if kind not in SCALARS:
            raise BadFile(f"value type {kind} is not one of GGUF version 3")
        return self.scalar(SCALARS[kind])


def tensor_size(kind, shape):
    n = math.prod(shape)
    if kind in BLOCK_BYTES:
        return n // 32 * BLOCK_BYTES[kind]
    return n * {F32: 4, F16: 2}[kind] if kind in (F32, F16) else None


def read_gguf(path):
    """(keys, {name: (type, shape, bytes of the data)}); shape[0] is contiguous."""
    with open(path, "rb") as f:
        if os.fstat(f.fileno()).st_size < 24:
            raise BadFile("shorter than a GGUF header")
        data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    cursor = Cursor(data)
    if bytes(cursor.take(4)) != b"GGUF":
        raise BadFile("it does not start with GGUF")
    version, n_tensors, n_keys = (cursor.scalar(f) for f in ("<I", "<Q", "<Q"))
    if version not in (2, 3):
        raise BadFile(f"GGUF version {version}, expected 3")
    keys = {}
    for _ in range(n_keys):
        name = cursor.string()
        keys[name] = cursor.value(cursor.scalar("<I"))
    directory = []
    for _ in range(n_tensors):
        name, n_dims = cursor.string(), cursor.scalar("<I")
        shape = tuple(cursor.scalar("<Q") for _ in range(n_dims))
        directory.append((name, shape, cursor.scalar("<I"), cursor.scalar("<Q")))
    alignment = keys.get("general.alignment", 32)
    start = -(-cursor.at // alignment) * alignment
    tensors = {}
    for name, shape, kind, offset in directory:
        size = tensor_size(kind, shape)
        if size is not None and start + offset + size > len(data):
            raise BadFile(f"the file ends at byte {len(data)}, inside {name}: it is incomplete")
        end = start + offset + (size or 0)
        tensors[name] = (kind, shape, data[start + offset:end])
    return keys, tensors


def expected_tensors():
    yield "token_embd.weight", (768, N_VOCAB)
    yield "output_norm.weight", (768,)
    for layer in range(N_LAYERS):
        for name, shape in BLOCK_TENSORS.items():
            yield f"blk.{layer}.{name}.weight", shape
    yield "dense_2.weight", (768, 3072)
    yield "dense_3.weight", (3072, 768)


def same(found, wanted):
    if isinstance(wanted, float):
        return isinstance(found, float) and math.isclose(found, wanted, rel_tol=1e-6)
    return type(found) is type(wanted) and found == wanted


def check_keys(keys):
    for name, wanted in KEYS.items():
        if name not in keys:
            yield f"key {name} is missing, expected {wanted!r}"
        elif not same(keys[name], wanted):
            yield f"key {name} is {keys[name]!r}, expected {wanted!r}"
    for name in ("tokens", "scores", "token_type"):
        n = len(keys.get(f"tokenizer.ggml.{name}", []))
        if n != N_VOCAB:
            yield f"key tokenizer.ggml.{name} has {n} elements, expected {N_VOCAB}"
    tokens = keys.get("tokenizer.ggml.tokens", [])
    for i, wanted in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]):
        if i < len(tokens) and tokens[i] != wanted:
            yield f"token {i} is {tokens[i]!r}, expected {wanted!r}"
    if len(set(tokens)) != len(tokens):
        yield "two tokens have the same text"


def check_tensors(tensors):
    expected = dict(expected_tensors())
    for name in tensors.keys() - expected.keys():
        yield f"tensor {name} is not one of the model's"
    for name, shape in expected.items():
        if name not in tensors:
            yield f"tensor {name} is missing"
            continue
        kind, found, _ = tensors[name]
        wanted = Q8_0 if len(shape) == 2 else F32
        if kind != wanted:
            yield f"tensor {name} has type {TYPE_NAMES.get(kind, kind)}, " \
                  f"expected {TYPE_NAMES[wanted]}"
        if found != shape:
            yield f"tensor {name} has shape {found}, expected {shape}"


def compare_tensor(name, stored, source, norm):
    """Q8_0 keeps each value to half a step of its block: the largest of 32 divided by 127."""
    import numpy as np
    kind, shape, data = stored
    if kind == F32:
        values = np.frombuffer(data, "<f4")
        if not np.array_equal(values, source + np.float32(1) if norm else source):
            yield f"tensor {name} differs from the source"
        return
    blocks = np.frombuffer(data, np.dtype([("scale", "<f2"), ("q", "i1", 32)]))
    wanted = source.reshape(-1, 32)
    largest = np.abs(wanted).max(axis=1)
    worst = 0.0
    for i in range(0, len(blocks), 1 << 18):
        part = blocks[i:i + (1 << 18)]
        values = part["scale"].astype(np.float32)[:, None] * part["q"]
        # Half a step of rounding; the half precision scale is off by 2^-11 of itself, or by
        # 2^-25 where it is denormal, times at most 127.
        top = largest[i:i + len(part)]
        bound = top / 127 * 0.5 + top * 2.0**-11 + 127 * 2.0**-25
        error = np.abs(values - wanted[i:i + len(part)]).max(axis=1)
        worst = max(worst, float((error / bound).max()))
    if not worst <= 1.0:
        yield f"tensor {name}: an error is {worst:.2f} times what Q8_0 allows"


def compare(folder, tensors):
    from safetensors import safe_open
    sources = {n: safe_open(os.path.join(folder, d, "model.safetensors"), framework="np")
               for n, d in (("", ""), ("dense_2", "2_Dense"), ("dense_3", "3_Dense"))}
    prefix = "model." if "model.norm.weight" in sources[""].keys() else ""
    for name, stored in tensors.items():
        stem = name.removesuffix(".weight")
        norm = stem.endswith("norm")
        if stem in sources:
            source = sources[stem].get_tensor("linear.weight")
        elif stem == "token_embd":
            source = sources[""].get_tensor(f"{prefix}embed_tokens.weight")[:N_VOCAB]
        elif stem == "output_norm":
            source = sources[""].get_tensor(f"{prefix}norm.weight")
        else:
            _, layer, part = stem.split(".")
            source = sources[""].get_tensor(f"{prefix}layers.{layer}.{SOURCE_NAMES[part]}.weight")
        if source.shape != tuple(reversed(stored[1])):
            yield f"tensor {name} has another shape than the source"
            continue
        yield from compare_tensor(name, stored, source, norm)


def describe(keys, tensors):
    for name, value in keys.items():
        if isinstance(value, list):
            value = f"[{len(value)} elements]"
        print(f"{name} = {value!r}" if not isinstance(value, str) else f"{name} = {value}")
    for name, (kind, shape, data) in tensors.items():
        print(f"{name}  {TYPE_NAMES.get(kind, kind)}  {' x '.join(map(str, shape))}  {len(data)}")


def main():
    parser = argparse.ArgumentParser(description="Show or check a GGUF file.")
    parser.add_argument("--check", action="store_true",
                        help="every key and tensor must be EmbeddingGemma 300M's")
    parser.add_argument("--compare", metavar="FOLDER",
                        help="--check, and every value against the folder it came from")
    parser.add_argument("file")
    arguments = parser.parse_args()
    try:
        keys, tensors = read_gguf(arguments.file)
    except (BadFile, OSError) as e:
        sys.exit(f"describe-model: {arguments.file}: {e}")
    if not arguments.check and not arguments.compare:
        describe(keys, tensors)
        return
    problems = [*check_keys(keys), *check_tensors(tensors)]
    if arguments.compare and not problems:
        problems += compare(arguments.compare, tensors)
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(1)
    print(f"{arguments.file}: {len(tensors)} tensors and {len(keys)} keys, as expected")


if __name__ == "__main__":
    main()
