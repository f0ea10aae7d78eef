#!/usr/bin/env python3
"""Long texts cut into chunks, on the real model: out of Redis in each of its forms, gathered by
`pull`, out of files, and found by `search`.

Everywhere a chunk must be the characters it says it is: its vector is, bit for bit, what
`embedmill embed` gives for those alone.

Usage: test_chunks_live.py EMBEDMILL
"""
import csv
import json
import subprocess
import sys
from pathlib import Path

import msgpack
import numpy as np

from redis_bench import Bench, wait_for

LONG = ("The ferry leaves at seven. 今天天气很好。It is 320 m tall 😀 and was built in 1889.\n\n"
        "Müller wohnt in Zürich. Bread is baked with yeast, water and flour; e.g. rye. " * 3 +
        "The last word.")
TEXTS = {"doc": LONG, "short": "A boat goes in the evening."}
OPTIONS = ("--too-long", "chunk", "--chunk-tokens", "40", "--chunk-overlap", "8")


def run(*words, text="", code=0):
    done = subprocess.run(words, input=text, text=True, capture_output=True, timeout=300,
                          check=False)
    assert done.returncode == code, f"{words}: {done.returncode}: {done.stderr}"
    return done.stdout


class Known:
    """What `embed` gives for a piece of text alone."""

    def __init__(self, bench):
        self.bench, self.vectors = bench, {}

    def learn(self, pieces):
        new = sorted(set(pieces) - set(self.vectors))
        lines = "".join(json.dumps({"text": piece}) + "\n" for piece in new)
        said = run(self.bench.binary, "embed", "--model", self.bench.model, "--prompt", "none",
                   text=lines).splitlines()
        for piece, line in zip(new, said, strict=True):
            record = json.loads(line)
            assert record["tokens"] <= 40, record["tokens"]
            self.vectors[piece] = np.array(record["embedding"], "<f4")

    def check(self, rows):
        """Of (id, parent, chunk, start, end, vector): those of doc in order, and the short text."""
        rows = sorted(rows, key=lambda row: row[2] or 0)
        cut = [row for row in rows if row[1] is not None]
        (whole,) = [row for row in rows if row[1] is None]
        assert whole[0] == "short", whole
        assert len(cut) > 4 and [row[2] for row in cut] == list(range(len(cut)))
        self.learn([LONG[row[3]:row[4]] for row in cut] + [TEXTS["short"]])
        for name, parent, number, start, end, vector in cut:
            assert (name, parent) == (f"doc#{number}", "doc"), (name, parent)
            assert np.array_equal(vector, self.vectors[LONG[start:end]]), LONG[start:end]
        assert np.array_equal(whole[5], self.vectors[TEXTS["short"]])
        assert cut[0][3] == 0 and cut[-1][4] == len(LONG)
        for before, after in zip(cut, cut[1:]):
            assert before[3] < after[3] and before[4] < after[4]
            assert not LONG[before[4]:after[3]].strip()


def rows_of(outputs):
    for output in outputs:
        assert output["v"] == 1 and not any(np.atleast_1d(output["truncated"]))
        vectors = output["embedding"]
        if isinstance(vectors, bytes):
            vectors = np.frombuffer(vectors, "<f4").reshape(-1, 768)
        vectors = np.array(vectors, "<f4").reshape(-1, 768)
        many = "ids" in output
        columns = [output.get(key, [None] * len(vectors) if many else None)
                   for key in ("parent", "chunk", "start", "end")]
        if many:
            yield from zip(output["ids"], *columns, vectors, strict=True)
        else:
            yield (output["id"], *columns, vectors[0])


def rows_of_npy(path):
    lines = Path(f"{path}.ids.jsonl").read_text(encoding="utf-8").splitlines()
    for line, vector in zip(lines, np.load(path), strict=True):
        row = json.loads(line)
        row = row if isinstance(row, dict) else {"id": row}
        yield (*(row.get(key) for key in ("id", "parent", "chunk", "start", "end")), vector)


def rows_of_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        for name, vector, fields in csv.reader(file):
            row = json.loads(fields or "{}")
            yield (name, *(row.get(key) for key in ("parent", "chunk", "start", "end")),
                   np.array(json.loads(vector), "<f4"))


def case_redis(bench, known):
    bench.start_server()
    for name, text in TEXTS.items():
        bench.client.xadd("texts", {"body": json.dumps({"id": name, "text": text})})
        bench.client.xadd("more", {"body": text, "id": name, "lang": "en"})
    worker = bench.start_worker(*OPTIONS)
    wait_for("two outputs", lambda: bench.client.xlen("texts:embeddings") == 2)
    bench.stop(worker)
    known.check(rows_of(msgpack.unpackb(fields[b"body"]) for _, fields in
                        bench.client.xrange("texts:embeddings")))

    for form, group in (("key", "g1"), ("hash", "g2")):
        bench.client.xgroup_create("more", group, "0")
        worker = bench.start_worker(*OPTIONS, "--redis-stream", "more", "--redis-group", group,
                                    "--redis-output", form, "--redis-output-prefix", f"{form}:")
        wait_for("the short one", lambda form=form: bench.client.exists(f"{form}:short"))
        wait_for("acks", lambda group=group: bench.client.xinfo_groups("more")[-1]["lag"] == 0 and
                 bench.client.xpending("more", group)["pending"] == 0)
        bench.stop(worker)
    known.check(rows_of(msgpack.unpackb(bench.client.get(key))
                        for key in bench.client.keys("key:*") if not key.endswith(b"#")))
    manifests = {key: bench.client.get(key) for key in bench.client.keys("*:*#")}
    assert manifests and all(manifest.endswith(b":") for manifest in manifests.values()), manifests
    hashes = []
    for key in bench.client.keys("hash:*"):
        if key in manifests:
            continue
        fields = {name.decode(): value for name, value in bench.client.hgetall(key).items()}
        assert fields["lang"] == b"en"
        numbers = [int(fields[name]) if name in fields else None
                   for name in ("chunk", "start", "end")]
        parent = fields["parent"].decode() if "parent" in fields else None
        hashes.append((key.decode().removeprefix("hash:"), parent, *numbers,
                       np.frombuffer(fields["embedding"], "<f4")))
    known.check(hashes)


def case_pull(bench, known):
    url = f"redis://127.0.0.1:{bench.port}/0"
    for name in ("pulled.npy", "pulled.jsonl", "pulled.csv", "pulled.msgpack"):
        path = f"{bench.folder}/{name}"
        run(bench.binary, "pull", "--from", url, "-o", path, "--redis-group", name, "--total", "2")
        if name.endswith(".npy"):
            known.check(rows_of_npy(path))
        elif name.endswith(".csv"):
            known.check(rows_of_csv(path))
        elif name.endswith(".jsonl"):
            known.check(rows_of(map(json.loads, Path(path).read_text("utf-8").splitlines())))
        else:
            known.check(rows_of(msgpack.Unpacker(open(path, "rb"))))


def case_files(bench, known):
    corpus = f"{bench.folder}/corpus.jsonl"
    Path(corpus).write_text("".join(json.dumps({"id": name, "text": text}) + "\n"
                                    for name, text in TEXTS.items()), encoding="utf-8")
    index = (bench.binary, "index", corpus, "--model", bench.model, "--prompt", "none", *OPTIONS)
    for name in ("out.npy", "out.jsonl", "out.csv"):
        run(*index, "-o", f"{bench.folder}/{name}")
    known.check(rows_of_npy(f"{bench.folder}/out.npy"))
    known.check(rows_of_csv(f"{bench.folder}/out.csv"))
    known.check(rows_of(map(json.loads,
                            Path(f"{bench.folder}/out.jsonl").read_text("utf-8").splitlines())))
    search = (bench.binary, "search", "--model", bench.model, "--prompt", "none", "--top", "1")
    query = "Bread is baked with yeast, water and flour."
    (hit,) = json.loads(run(*search, f"{bench.folder}/out.npy", text=query + "\n"))["hits"]
    assert hit["parent"] == "doc" and hit["id"] == f"doc#{hit['chunk']}", hit
    assert "yeast" in LONG[hit["start"]:hit["end"]], hit
    (same,) = json.loads(run(*search, f"{bench.folder}/out.jsonl", text=query + "\n"))["hits"]
    assert same["id"] == hit["id"] and abs(same["score"] - hit["score"]) < 1e-4, (same, hit)
    # A title goes with every piece, and takes its room.
    line = json.dumps({"id": "doc", "title": "Ferries of the lake", "text": LONG}) + "\n"
    titled = (bench.binary, "embed", "--model", bench.model, *OPTIONS)
    record = json.loads(run(*titled, text=line))
    pieces = [{"title": "Ferries of the lake", "text": LONG[start:end]}
              for start, end in zip(record["start"], record["end"])]
    alone = json.loads(run(bench.binary, "embed", "--model", bench.model,
                           text=json.dumps({"texts": pieces}) + "\n"))
    assert alone["embedding"] == record["embedding"] and alone["tokens"] == record["tokens"]
    assert max(record["tokens"]) <= 40, record["tokens"]


def main():
    with Bench(sys.argv[1]) as bench:
        known = Known(bench)
        for case in (case_redis, case_pull, case_files):
            case(bench, known)
            print(case.__name__, "ok", flush=True)


if __name__ == "__main__":
    main()
