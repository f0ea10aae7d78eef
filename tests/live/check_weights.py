#!/usr/bin/env python3
"""Weights of every type that is read, alone and mixed in one file, against their definition.

Usage: check_weights.py BINARY

For each type a BERT of random blocks is written twice: as it is, and with its matrices as the
float32 values that the Python package gguf (ggml's own) reads out of the same blocks. BINARY must
give the same vectors for both. Needs gguf and numpy; scripts/test makes a virtual environment.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

SEED = 20261129
HIDDEN, FFN, LAYERS, HEADS, CONTEXT = 256, 512, 2, 4, 64
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [
    mark + letter for letter in "abcdefghijklmnopqrstuvwxyz" for mark in ("\u2581", "")]
TEXTS = ["a", "the quick brown fox jumps over the lazy dog", "weights of every type", "zz zz zz"]
TYPES = [Type.Q8_0, Type.Q4_0, Type.Q5_0, Type.IQ4_NL, Type.Q4_1, Type.Q5_1, Type.Q4_K, Type.Q5_K,
         Type.Q6_K, Type.F16, Type.BF16]
# As llama-quantize mixes them, and all of them in turn.
MIXES = {"all by turns": TYPES, "Q4_K_M": [Type.Q4_K, Type.Q6_K, Type.Q5_0, Type.Q8_0],
         "Q4_0 of llama-quantize": [Type.Q4_0, Type.Q6_K],
         "Q5_K_M": [Type.Q5_K, Type.Q6_K, Type.Q5_1, Type.Q8_0]}
LEAST = 0.9999995
# Where a block's halves are: the scale of its values, and an offset where there is one.
HALVES = {Type.Q6_K: (208, None), Type.Q4_1: (0, 2), Type.Q5_1: (0, 2), Type.Q4_K: (0, 2),
          Type.Q5_K: (0, 2)}
# The scale that makes values of about 1 / 16, the largest integers being so large.
LARGEST = {Type.Q8_0: 127, Type.Q4_0: 8, Type.Q5_0: 16, Type.IQ4_NL: 127, Type.Q4_1: 15,
           Type.Q5_1: 31, Type.Q4_K: 15 * 63, Type.Q5_K: 31 * 63, Type.Q6_K: 32 * 127}

MATRICES = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (HIDDEN, HIDDEN), "attn_v": (HIDDEN, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN), "ffn_up": (FFN, HIDDEN), "ffn_down": (HIDDEN, FFN)}


def blocks(rng, kind, rows, columns):
    """Random bytes, with sound scales, and the values they are."""
    if kind in (Type.F16, Type.BF16):
        values = (rng.standard_normal((rows, columns)) / 16).astype(np.float32)
        data = gguf.quants.quantize(values, kind)
        return data, gguf.quants.dequantize(data, kind)
    per_block, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    n = rows * columns // per_block
    data = rng.integers(0, 256, (n, n_bytes), np.uint8)
    scale, offset = HALVES.get(kind, (0, None))
    scales = (rng.uniform(0.5, 1.5, n) / 16 / LARGEST[kind]).astype("<f2")
    data[:, scale:scale + 2] = scales.view(np.uint8).reshape(n, 2)
    if offset is not None: # K types take it off, 63 of it at most; others add it
        offsets = rng.uniform(0.5, 1.5, n) / 32 / (63 if kind in (Type.Q4_K, Type.Q5_K) else -1)
        data[:, offset:offset + 2] = offsets.astype("<f2").view(np.uint8).reshape(n, 2)
    data = data.reshape(rows, -1)
    values = gguf.quants.dequantize(data, kind)
    assert values.shape == (rows, columns) and np.isfinite(values).all()
    return data, values


def add_keys(writer):
    writer.add_name("weights")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.NORMAL] *
                           (len(TOKENS) - 5))


def write(folder, kinds):
    """The file with blocks, and the one with their values."""
    rng, turn = np.random.default_rng(SEED), 0
    paths = [folder / "blocks.gguf", folder / "values.gguf"]
    writers = [gguf.GGUFWriter(path, "bert") for path in paths]
    for writer in writers:
        add_keys(writer)

    def matrix(name, shape):
        nonlocal turn
        kind = kinds[turn % len(kinds)]
        turn += 1
        data, values = blocks(rng, kind, *shape)
        writers[0].add_tensor(name, data, raw_dtype=kind)
        writers[1].add_tensor(name, values)

    def floats(name, shape, center=0.0):
        values = (center + 0.1 * rng.standard_normal(shape)).astype(np.float32)
        for writer in writers:
            writer.add_tensor(name, values)

    matrix("token_embd.weight", (len(TOKENS), HIDDEN))
    floats("token_types.weight", (2, HIDDEN))
    matrix("position_embd.weight", (CONTEXT, HIDDEN))
    floats("token_embd_norm.weight", HIDDEN, 1)
    floats("token_embd_norm.bias", HIDDEN)
    for layer in range(LAYERS):
        for name, shape in MATRICES.items():
            matrix(f"blk.{layer}.{name}.weight", shape)
            floats(f"blk.{layer}.{name}.bias", shape[0])
        for name in ("attn_output_norm", "layer_output_norm"):
            floats(f"blk.{layer}.{name}.weight", HIDDEN, 1)
            floats(f"blk.{layer}.{name}.bias", HIDDEN)
    for writer in writers:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


def embed(binary, model, kernels):
    """None when this CPU lacks the kernels."""
    lines = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(TEXTS))
    run = subprocess.run([binary, "embed", "--model", model, "--output-format", "json",
                          "--kernels", kernels],
                         input=lines, capture_output=True, text=True, check=False)
    if run.returncode == 64 and f"no '{kernels}'" in run.stderr:
        return None
    assert run.returncode == 0, run.stderr
    rows = sorted((json.loads(line) for line in run.stdout.splitlines()), key=lambda r: r["id"])
    return np.array([row["embedding"] for row in rows])


def main():
    failures, tables = 0, []
    cases = {kind.name: [kind] for kind in TYPES} | MIXES
    for name, kinds in cases.items():
        with tempfile.TemporaryDirectory() as work:
            paths = write(Path(work), kinds)
            lowest = {}
            for kernels in ("generic", "avx2", "avxvnni", "avx512", "avx512-bf16", "neon"):
                pair = [embed(sys.argv[1], path, kernels) for path in paths]
                if pair[0] is not None:
                    lowest[kernels] = float((pair[0] * pair[1]).sum(axis=1).min())
        tables = list(lowest)
        failures += sum(not cosine >= LEAST for cosine in lowest.values())
        print(f"{name}: lowest cosine {min(lowest.values()):.8f} (at least {LEAST})")
    print(f"kernels: {', '.join(tables)}; seed {SEED}; {failures} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
