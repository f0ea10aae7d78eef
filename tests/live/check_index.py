#!/usr/bin/env python3
"""`embedmill index`, what numpy makes of its .npy files, and `embedmill search`, on the real model.

Usage: check_index.py BINARY

Every dtype and a shorter dimension must agree with the float32 vectors of `embedmill embed`, by the
rules of docs/wire-format.md, from plain and from gzip input. Needs numpy. Exit code 77 when there
is no model.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TEXTS = ["The ferry leaves at seven.", "A boat goes in the evening.", "Bread is baked with yeast.",
         "Müller wohnt in Zürich.", "数学", "x"]


def find_model():
    if os.environ.get("EMBEDMILL_TEST_MODEL"):
        return os.environ["EMBEDMILL_TEST_MODEL"]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "embedmill", "embeddinggemma-300m-q8_0.gguf")


def run(*words, text=""):
    done = subprocess.run(words, input=text, text=True, capture_output=True, timeout=300,
                          check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}: {done.stderr}")
    return done.stdout


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def check_search(binary, model, index, vectors):
    """Scores and order against a product of matrices, for more queries than go at once."""
    queries = [f"{text} {i}" for i in range(4) for text in ("boats", "baking bread", "7")]
    records = run(binary, "embed", "--model", model, "--prompt", "query",
                  text="\n".join(queries)).splitlines()
    asked = np.array([json.loads(record)["embedding"] for record in records], np.float32)
    scores = unit(asked[:, :vectors.shape[1]]) @ unit(vectors).T
    found = run(binary, "search", str(index), "--model", model, "--top", "3",
                text="\n".join(queries) + "\n").splitlines()
    assert len(found) == len(queries)
    for query, line, row in zip(queries, found, scores):
        answer = json.loads(line)
        assert answer["query"] == query and len(answer["hits"]) == 3
        for hit, best in zip(answer["hits"], sorted(row, reverse=True)):
            assert abs(hit["score"] - best) < 1e-4, (index, answer, row)
            assert abs(row[int(hit["id"][1:])] - best) < 1e-4, (index, answer, row)
    one = run(binary, "search", str(index), queries[0], "--model", model, "--top", "1")
    assert one.split()[1] == f'"t{scores[0].argmax()}"', one


def check_nan(binary, model, folder):
    """A row of NaN, as NumPy makes of zeros, is the last, with one thread and with several."""
    rows = np.load(folder / "f4.npy")
    rows[0] = np.nan
    np.save(folder / "nan.npy", rows)
    (folder / "nan.npy.ids.jsonl").write_bytes((folder / "f4.npy.ids.jsonl").read_bytes())
    for threads in "1", "2":
        found = run(binary, "search", str(folder / "nan.npy"), "--model", model, "--threads",
                    threads, "--top", str(len(rows)), text="boats\n")
        hits = json.loads(found)["hits"]
        scores = [hit["score"] for hit in hits]
        assert len(hits) == len(rows) and scores == sorted(scores, reverse=True), scores
        assert hits[-1] == {"id": "t0", "score": -1}, hits[-1]


def check_cache(binary, model, corpus, folder, full):
    """The second time nothing is embedded, and the vectors are the same."""
    cache = folder / "vectors"

    def index(out):
        said = subprocess.run([binary, "index", str(corpus), "-o", str(folder / out), "--model",
                               model, "--cache", str(cache), "--log-format", "json"],
                              capture_output=True, text=True, timeout=300, check=True).stderr
        events = [json.loads(line) for line in said.splitlines()]
        assert np.array_equal(np.load(folder / out), full), f"{out}: a cache changes the vectors"
        return {event["msg"]: event for event in events}

    first, second = index("first.npy"), index("second.npy")
    assert first["cache is open"]["vectors"] == first["indexed"]["cached"] == 0, first
    assert second["cache is open"]["vectors"] == len(full), second
    assert second["indexed"]["cached"] == second["indexed"]["texts"] == len(full), second
    found = run(binary, "check", "--model", model, "--cache", str(cache))
    assert f"{cache}: {len(full)} vectors" in found, found
    os.truncate(cache / "data.mdb", 5000)
    for command in (["check"], ["index", str(corpus), "-o", str(folder / "third.npy")]):
        refused = subprocess.run([binary, *command, "--model", model, "--cache", str(cache)],
                                 capture_output=True, text=True, check=False)
        assert refused.returncode == 78, refused
        assert "damaged: remove it" in refused.stdout + refused.stderr, refused


def main():
    binary, model = sys.argv[1], find_model()
    if not os.path.exists(model):
        print(f"no model at {model}")
        sys.exit(77)
    lines = "".join(json.dumps({"id": f"t{i}", "text": text}) + "\n"
                    for i, text in enumerate(TEXTS))
    records = run(binary, "embed", "--model", model, text=lines).splitlines()
    full = np.array([json.loads(record)["embedding"] for record in records], "<f4")
    assert full.shape == (len(TEXTS), 768)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = folder / "corpus.jsonl"
        corpus.write_text(lines, encoding="utf-8")
        packed = folder / "corpus.jsonl.gz"
        packed.write_bytes(gzip.compress(lines.encode()))

        def index(source, out, *options):
            run(binary, "index", str(source), "-o", str(folder / out), "--model", model, *options)
            ids = (folder / f"{out}.ids.jsonl").read_text(encoding="utf-8").splitlines()
            assert [json.loads(i) for i in ids] == [f"t{i}" for i in range(len(TEXTS))]
            return np.load(folder / out)

        assert np.array_equal(index(corpus, "f4.npy"), full), "f4 is not what embed gives"
        assert np.array_equal(index(packed, "gz.npy"), full), "gzip changes the vectors"
        check_cache(binary, model, corpus, folder, full)
        half = index(corpus, "f2.npy", "--dtype", "f2")
        assert half.dtype == np.float16 and np.array_equal(half, full.astype(np.float16))
        small = index(corpus, "i1.npy", "--dtype", "i1")
        wanted = np.rint(full * (np.float32(127) / np.abs(full).max(1, keepdims=True)))
        assert small.dtype == np.int8 and np.abs(small - wanted).max() <= 1
        assert (unit(small.astype(np.float32)) * full).sum(1).min() > 0.999
        bits = index(corpus, "b1.npy", "--dtype", "b1")
        assert np.array_equal(bits, np.packbits(full > 0, axis=1))
        short = index(corpus, "short.npy", "--dim", "128")
        for field in ("--text-field", "--id-field"): # other texts, or other ids
            other = subprocess.run([binary, "index", str(corpus), "-o", str(folder / "short.npy"),
                                    "--model", model, "--dim", "128", field, "other"],
                                   capture_output=True, text=True, check=False)
            assert other.returncode == 78 and "was begun with" in other.stderr, other
        assert np.abs(short - unit(full[:, :128])).max() < 1e-6
        run(binary, "index", str(corpus), "-o", str(folder / "records.jsonl"), "--model", model)
        signs = np.where(full > 0, np.float32(1), np.float32(-1))
        check_search(binary, model, folder / "f4.npy", full)
        check_search(binary, model, folder / "f2.npy", half.astype(np.float32))
        check_search(binary, model, folder / "i1.npy", small.astype(np.float32))
        check_search(binary, model, folder / "b1.npy", signs)
        check_search(binary, model, folder / "short.npy", short)
        check_search(binary, model, folder / "records.jsonl", full)
        (folder / "b1.npy.index").unlink()  # as `pull` leaves it
        check_search(binary, model, folder / "b1.npy", signs)
        check_nan(binary, model, folder)
        said = subprocess.run([binary, "search", str(folder / "f4.npy"), "--model", model],
                              input=b'\xff "\x7f\n', capture_output=True, check=True).stdout
        assert json.loads(said.decode())["query"] == '\ufffd "\x7f', said
        (folder / "f4.npy.index").write_text("nonsense", encoding="utf-8")
        damaged = subprocess.run([binary, "search", str(folder / "f4.npy"), "x", "--model", model],
                                 capture_output=True, text=True, check=False)
        assert damaged.returncode == 65 and "f4.npy.index is damaged" in damaged.stderr, damaged
        mapped = np.load(folder / "f4.npy", mmap_mode="r")
        assert mapped.shape == full.shape
    print("numpy agrees")


if __name__ == "__main__":
    main()
