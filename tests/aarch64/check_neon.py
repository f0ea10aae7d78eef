#!/usr/bin/env python3
"""The inference for AArch64, under qemu-aarch64: kernels, tokens, vectors.

Usage: check_neon.py BUILD_FOLDER

On a CPU with the int8 matrix product, one with the dot product alone, and one with neither: the
tables it offers are the expected ones, and test_kernels passes. Then with the real model: all
reference texts give the reference's tokens, a few short ones its vectors, and both NEON tables
the same bytes. Exit code 77 when there is no model.
"""

import json
import os
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "live"))
from check_embed import DATA, DIM, cosine, find_model  # noqa: E402

MIN_COSINE = 0.99999
SECONDS = 300
# What each emulated CPU lacks, and what `auto` must choose there.
CPUS = {
    "max": (set(), "neon-i8mm"),
    "neoverse-n1": ({"neon-i8mm"}, "neon"),
    "cortex-a57": ({"neon-i8mm", "neon"}, "generic"),
}
# 3 to 11 tokens each, for emulation is slow.
TEXTS = (0, 9, 30, 33)
ONE_TEXT = (31,)  # the empty one


def emulate(cpu, program, *arguments, stdin=b""):
    run = subprocess.run(["qemu-aarch64", "-cpu", cpu, program, *arguments], input=stdin,
                         capture_output=True, timeout=SECONDS, check=False)
    if run.returncode:
        sys.exit(f"{Path(program).name} on {cpu}: exit code {run.returncode}\n"
                 f"{run.stdout[-500:]!r}\n{run.stderr.decode(errors='replace')}")
    return run.stdout


def check_kernels(folder, cpu):
    said = emulate(cpu, f"{folder}/test_kernels").decode()
    lacks = set(re.findall(r"no '(neon[\w-]*)' table", said))
    assert lacks == CPUS[cpu][0], f"{cpu} has other kernel tables than expected:\n{said}"
    assert said.count(": ok") >= 8, said
    emulate(cpu, f"{folder}/test_kernels_fast")
    emulate(cpu, f"{folder}/test_matrix")
    emulate(cpu, f"{folder}/test_models")
    print(f"{cpu}: test_kernels, test_kernels_fast, test_matrix and test_models passed, "
          f"without {', '.join(sorted(lacks)) or 'nothing'}")


def embed(folder, cpu, kernels, what, texts):
    """The name of the table used, and the rest of the output."""
    frames = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    out = emulate(cpu, f"{folder}/embed_frames", find_model(), kernels, what, stdin=frames)
    return out[:16].rstrip(b"\0").decode(), out[16:]


def check_tokens(folder, texts):
    _, out = embed(folder, "max", "auto", "ids", texts)
    at = 0
    for line in (DATA / "tokens.jsonl").read_text(encoding="utf-8").splitlines():
        wanted = json.loads(line)
        n, = struct.unpack_from("<I", out, at)
        assert list(struct.unpack_from(f"<{n}i", out, at + 4)) == wanted["ids"], wanted["id"]
        at += 4 + 4 * n
    assert at == len(out)
    print(f"tokens of {len(texts)} texts are the reference's")


def check_vectors(folder, cpu, kernels, table, texts, picked):
    used, out = embed(folder, cpu, kernels, "vectors", [texts[i] for i in picked])
    assert used == table, f"{cpu}: {kernels} gave {used}, not {table}"
    reference = (DATA / "embeddings_q8.f32").read_bytes()
    lowest = 1.0
    for row, i in enumerate(picked):
        got = struct.unpack_from(f"<{DIM}f", out, row * DIM * 4)
        lowest = min(lowest, cosine(got, struct.unpack_from(f"<{DIM}f", reference, i * DIM * 4)))
    assert lowest >= MIN_COSINE, f"{table} on {cpu}: lowest cosine {lowest}"
    print(f"{table} on {cpu}: {len(picked)} texts, lowest cosine {lowest:.8f}")
    return out


def main():
    folder = sys.argv[1]
    for cpu in CPUS:
        check_kernels(folder, cpu)
    if not os.path.exists(find_model()):
        print(f"skipped: there is no model at {find_model()}; scripts/get-model fetches it")
        sys.exit(77)
    lines = (DATA / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"].encode() for line in lines]
    check_tokens(folder, texts)
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(check_vectors, folder, *run, texts, picked) for run, picked in (
            (("neoverse-n1", "auto", "neon"), TEXTS),
            (("max", "auto", "neon-i8mm"), TEXTS),
            (("cortex-a57", "auto", "generic"), ONE_TEXT),
        )]
        dot, matrix, _ = [run.result() for run in runs]
    assert dot == matrix, "neon and neon-i8mm give different vectors"
    print("neon and neon-i8mm give the same bytes")


if __name__ == "__main__":
    main()
