#!/usr/bin/env python3
"""`embedmill embed` on the real model, as a user runs it, against the reference embeddings.

Usage: check_embed.py BINARY [--few]

Every kernel table that this CPU has, with one thread and with two: the vectors must agree with
those of a perfect engine with the same weights (precision fast: near those of the float32 model),
and must not depend on the number of threads by a single bit. --few takes four short texts and the
best table only, for builds with a sanitizer. Only the standard library is needed. Exit code 77 when
there is no model.
"""

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

DATA = Path(__file__).parent.parent / "data"
DIM = 768
MIN_COSINE = 0.9999
# Precision fast is judged by the float32 model itself, and so bears the error of the weights, too.
FAST_MIN_COSINE = 0.998
FAST_MEAN_COSINE = 0.9995
SECONDS = 600


def cache_folder():
    """Where scripts/get-model and scripts/get-minilm put their files."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "embedmill"


def find_model():
    if os.environ.get("EMBEDMILL_TEST_MODEL"):
        return os.environ["EMBEDMILL_TEST_MODEL"]
    return str(cache_folder() / "embeddinggemma-300m-q8_0.gguf")


def read_references(max_bytes, name="embeddings_q8.f32"):
    """(id, text, vector); these vectors are computed from the same Q8_0 weights in float32."""
    vectors = (DATA / name).read_bytes()
    lines = (DATA / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(vectors) == len(lines) * DIM * 4, "texts and embeddings do not belong together"
    for i, line in enumerate(lines):
        entry = json.loads(line)
        if entry["text"] and len(entry["text"].encode()) <= max_bytes:
            yield entry["id"], entry["text"], struct.unpack_from(f"<{DIM}f", vectors, i * DIM * 4)


def embed(binary, model, references, kernels, n_threads, precision="exact"):
    """{id: vector}, or None when this CPU lacks the kernels."""
    lines = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text, _ in references)
    # The reference was made from the texts alone.
    run = subprocess.run([binary, "embed", "--model", model, "--prompt", "none",
                          "--kernels", kernels, "--threads", str(n_threads),
                          "--precision", precision], input=lines,
                         text=True, capture_output=True, timeout=SECONDS, check=False)
    if run.returncode and kernels in run.stderr and not run.stdout:
        return None
    if run.returncode:
        sys.exit(f"{kernels}, {n_threads} threads: exit code {run.returncode}: {run.stderr}")
    records = [json.loads(line) for line in run.stdout.splitlines()]
    return {record["id"]: record["embedding"] for record in records}


def cosine(a, b):
    dot = math.fsum(x * y for x, y in zip(a, b))
    return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def check_fast(binary, model, every):
    """Failures of precision fast."""
    references = list(read_references(400, "embeddings.f32"))
    failures = 0
    for kernels in every[1:]:  # generic products have the same bits, and take minutes
        one = embed(binary, model, references, kernels, 1, "fast")
        if one is None:
            continue
        two = embed(binary, model, references, kernels, 2, "fast")
        cosines = [cosine(one[name], wanted) for name, _, wanted in references]
        mean = math.fsum(cosines) / len(cosines)
        print(f"{kernels}, fast: mean cosine {mean:.6f}, lowest {min(cosines):.6f}")
        if one != two or not (mean >= FAST_MEAN_COSINE and min(cosines) >= FAST_MIN_COSINE):
            print(f"{kernels}, fast: below, or other vectors with two threads")
            failures += 1
    return failures


def main():
    binary, few = sys.argv[1], "--few" in sys.argv[2:]
    model = find_model()
    if not os.path.exists(model):
        print(f"skipped: there is no model at {model}; scripts/get-model fetches it")
        sys.exit(77)
    references = list(read_references(400))
    if few:
        references = sorted(references, key=lambda r: len(r[1]))[20:24]
    failures = n_checked = 0
    every = ("generic", "avx2", "avxvnni", "avx512", "avx512-bf16", "neon", "neon-i8mm")
    for kernels in ("auto",) if few else every:
        one = embed(binary, model, references, kernels, 1)
        if one is None:
            print(f"{kernels}: not on this CPU or in this build")
            continue
        n_checked += 1
        two = embed(binary, model, references, kernels, 2)
        worst = 1.0
        for name, _, wanted in references:
            worst = min(worst, cosine(one[name], wanted))
            if two[name] != one[name]:
                print(f"{kernels}: text {name} has another vector with two threads")
                failures += 1
        print(f"{kernels}: {len(references)} texts, lowest cosine {worst:.7f}")
        if not worst >= MIN_COSINE:
            print(f"{kernels}: below {MIN_COSINE}")
            failures += 1
    if not few:
        failures += check_fast(binary, model, every)
    sys.exit(1 if failures or not n_checked else 0)


if __name__ == "__main__":
    main()
