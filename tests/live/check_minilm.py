#!/usr/bin/env python3
"""all-MiniLM-L6-v2 as a user runs it, with weights of each type, against the reference.

Usage: check_minilm.py BINARY DUMPER [--few]

Takes what scripts/get-minilm has put into the cache, of each type that is there; DUMPER is
the built test_tokenizer. Ids must be the reference's, vectors as near as the type allows, and the
same bytes with two threads as with one. --few is for builds with a sanitizer. Only the standard
library is needed. Exit code 77 when there is no such file.
"""

import json
import struct
import subprocess
import sys
from pathlib import Path

from check_embed import DATA, cache_folder, cosine, embed

DIM = 384
# The lowest cosine to float64 with float32 weights that a text may have.
TYPES = {"f32": 0.999999, "f16": 0.99999, "q8_0": 0.999, "q4_0": 0.89}


def read_lines(name):
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def check_tokens(dumper, model, texts, tokens):
    """Reads {u32 n; i32 ids[n]} a text, whole: only the first and last are cut in the reference."""
    data = b"".join(struct.pack("=I", len(text)) + text for text in texts)
    out = subprocess.run([dumper, "--dump", model], input=data, capture_output=True,
                         check=True).stdout
    at = failures = 0
    for text, wanted in zip(texts, tokens):
        n, = struct.unpack_from("=I", out, at)
        ids = list(struct.unpack_from(f"={n}i", out, at + 4))
        at += 4 + 4 * n
        if n > len(wanted["ids"]):
            ids = ids[:len(wanted["ids"]) - 1] + ids[-1:]
        if ids != wanted["ids"] or n != wanted["n_tokens_untruncated"]:
            print(f"text {wanted['id']} {text[:60]!r}: ids {ids[:40]}, not {wanted['ids'][:40]}")
            failures += 1
    assert at == len(out)
    return failures


def check_vectors(binary, model, references, kernels, least):
    """None when this CPU lacks the kernels."""
    one = embed(binary, model, references, kernels, 1)
    if one is None:
        print(f"{kernels}: not on this CPU or in this build")
        return None
    two = embed(binary, model, references, kernels, 2)
    failures = sum(two[name] != one[name] for name, _, _ in references)
    found = [cosine(one[name], wanted) for name, _, wanted in references]
    print(f"{Path(model).name}, {kernels}: {len(references)} texts, cosine "
          f"{sum(found) / len(found):.7f} on average, lowest {min(found):.7f} (at least {least}); "
          f"{failures} differ with two threads")
    return failures + (not min(found) >= least)


def read_references(texts):
    vectors = (DATA / "minilm.f32").read_bytes()
    assert len(vectors) == len(texts) * DIM * 4, "texts and vectors do not belong together"
    return [(entry["id"], entry["text"], struct.unpack_from(f"<{DIM}f", vectors, i * DIM * 4))
            for i, entry in enumerate(texts) if entry["text"]]


def main():
    binary, dumper, few = sys.argv[1], sys.argv[2], "--few" in sys.argv[3:]
    folder = cache_folder()
    texts, tokens = read_lines("texts.jsonl"), read_lines("minilm_tokens.jsonl")
    assert len(tokens) == len(texts)
    models = [(folder / f"all-minilm-l6-v2-{name}.gguf", least) for name, least in TYPES.items()]
    models = [(str(path), least) for path, least in models if path.is_file()]
    if not models:
        print(f"skipped: there is no all-minilm-l6-v2-*.gguf in {folder}; scripts/get-minilm "
              "q8_0 q4_0 f16 f32 fetches and converts it")
        sys.exit(77)
    failures = check_tokens(dumper, models[0][0], [entry["text"].encode() for entry in texts],
                            tokens)
    references = read_references(texts)
    short = [r for r in references if len(r[1].encode()) <= 400]
    for model, least in models:
        if few:
            failures += check_vectors(binary, model, short[::20], "auto", least)
            continue
        failures += check_vectors(binary, model, references, "auto", least)
        for kernels in ("generic", "avx2", "avxvnni", "avx512", "avx512-bf16", "neon", "neon-i8mm"):
            failures += check_vectors(binary, model, short[::4], kernels, least) or 0
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
