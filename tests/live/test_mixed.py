#!/usr/bin/env python3
"""Vectors of two models never get into one output: the second worker ends, and says both.

Usage: test_mixed.py EMBEDMILL
"""
import json
import subprocess
import sys
from pathlib import Path

from postgres_bench import Bench, programs
from redis_bench import wait_for

KEY = b"embedmill:made-with:embedding:"
HASH = ("--redis-output", "hash")


def wait_refused(bench, worker, *words, name="w"):
    assert worker.wait(timeout=60) == 69, bench.log(name)
    last = bench.log(name).splitlines()[-30:]
    errors = [line for line in last if '"failed"' in line]
    assert errors and all(word in errors[-1] for word in words), last


def fingerprint(bench):
    made = bench.client.get(KEY).decode()
    return dict(line.split(": ", 1) for line in made.splitlines())["model_fingerprint"]


def add(bench, first, n):
    for i in range(first, first + n):
        bench.client.xadd("texts", {"body": json.dumps({"id": i, "text": f"text number {i}"})})


def case_redis(bench):
    bench.start_server()
    add(bench, 0, 20)
    worker = bench.start_worker(*HASH)
    wait_for("20 hashes", lambda: len(bench.client.keys("embedding:[0-9]*")) == 20)
    made = bench.client.get(KEY).decode()
    assert "dim: 768\n" in made and "precision: exact\n" in made and "chunks: none\n" in made, made
    bench.stop(worker)
    worker = bench.start_worker(*HASH, name="same") # what it is made with is known, and the same
    add(bench, 20, 5)
    wait_for("25 hashes", lambda: len(bench.client.keys("embedding:[0-9]*")) == 25)
    bench.stop(worker)
    add(bench, 25, 5)
    for flags, words in ((("--dim", "256"), ("dim: 768", "dim: 256")),
                         (("--precision", "fast"), ("exact", "fast")),
                         (("--prompt", "query"), ("prompt: none", "prompt: query")),
                         (("--dtype", "f2"), ("dtype",)),
                         (("--too-long", "chunk", "--chunk-tokens", "64"), ("chunks: none",))):
        wait_refused(bench, bench.start_worker(*HASH, *flags), "allow_mixed", *words)
    assert len(bench.client.keys("embedding:[0-9]*")) == 25
    worker = bench.start_worker(*HASH, "--dim", "256", "--redis-output-prefix", "other:", name="o")
    wait_for("another output", lambda: bench.client.exists("embedmill:made-with:other:"))
    bench.stop(worker)


def case_model(bench):
    """Another model, by its fingerprint, whatever it is called."""
    bench.start_server()
    bench.client.set(KEY, "model: old\nmodel_fingerprint: 0123456789abcdef0123456789abcdef\n")
    add(bench, 0, 5)
    worker = bench.start_worker(*HASH, name="first")
    wait_refused(bench, worker, "0123456789abcdef0123456789abcdef", name="first")
    assert not bench.client.keys("embedding:[0-9]*")
    worker = bench.start_worker(*HASH, "--allow-mixed", "yes")
    wait_for("5 hashes", lambda: len(bench.client.keys("embedding:[0-9]*")) == 5)
    assert b"old" in bench.client.get(KEY) # what is there is mixed, and so it stays refused
    bench.stop(worker)
    bench.client.delete(KEY)
    worker = bench.start_worker(*HASH)
    wait_for("what is made anew", lambda: bench.client.exists(KEY))
    assert len(fingerprint(bench)) == 32
    bench.stop(worker)


def case_both_at_once(bench):
    """Of two that begin on an empty output one wins, and the other ends."""
    bench.start_server()
    for i in range(5):
        bench.client.flushall()
        add(bench, 0, 4)
        workers = [bench.start_worker(*HASH, "--dim", dim, name=f"w{dim}")
                   for dim in ("128", "256")]
        wait_for("one that ends", lambda: any(w.poll() is not None for w in workers))
        [late] = [w for w in workers if w.poll() is not None]
        assert late.returncode == 69, i
        wait_for("the other's vectors", lambda: len(bench.client.keys("embedding:[0-9]*")) == 4)
        sizes = {len(bench.client.hget(key, "vector") or b"")
                 for key in bench.client.keys("embedding:[0-9]*")}
        assert len(sizes) == 1, sizes
        for worker in workers:
            if worker.poll() is None:
                bench.stop(worker)


def case_changed_under_a_worker(bench):
    """The note changes while a worker runs: it writes nothing more, and its messages stay."""
    bench.start_server()
    worker = bench.start_worker(*HASH)
    add(bench, 0, 5)
    wait_for("5 hashes", lambda: len(bench.client.keys("embedding:[0-9]*")) == 5)
    made = bench.client.get(KEY)
    bench.client.set(KEY, b"migrating: yes\n")
    add(bench, 5, 5)
    wait_for("a worker that waits", lambda: "being migrated" in bench.log())
    assert len(bench.client.keys("embedding:[0-9]*")) == 5
    bench.client.set(KEY, made) # given up: nothing was lost
    wait_for("10 hashes", lambda: len(bench.client.keys("embedding:[0-9]*")) == 10)
    bench.client.set(KEY, b"migrating: yes\n")
    add(bench, 10, 5)
    wait_for("pending ones", lambda: bench.client.xpending("texts", "embedmill")["pending"] == 5)
    bench.client.set(KEY, made.replace(b"dim: 768", b"dim: 256"))
    wait_refused(bench, worker, "dim: 256", "dim: 768")
    assert len(bench.client.keys("embedding:[0-9]*")) == 10
    assert bench.client.xpending("texts", "embedmill")["pending"] == 5
    bench.client.set(KEY, made)
    worker = bench.start_worker(*HASH)
    wait_for("15 hashes", lambda: len(bench.client.keys("embedding:[0-9]*")) == 15)
    bench.client.delete(KEY) # forgotten under it: the next write notes it again
    add(bench, 15, 5)
    wait_for("20 hashes", lambda: len(bench.client.keys("embedding:[0-9]*")) == 20)
    assert bench.client.get(KEY) == made and bench.client.xlen("texts:dlq") == 0
    bench.stop(worker)


def case_rights(bench):
    """A user who may not write strings works as before, and is warned."""
    bench.start_server()
    bench.client.execute_command("ACL", "SETUSER", "w", "on", ">p", "~*", "+@all", "-set")
    add(bench, 0, 5)
    worker = bench.start_worker(*HASH, "--redis-url", f"redis://w:p@127.0.0.1:{bench.port}")
    wait_for("5 hashes", lambda: len(bench.client.keys("embedding:[0-9]*")) == 5)
    wait_for("a warning", lambda: "made with" in bench.log())
    bench.stop(worker)


def case_postgres(bench):
    bench.start_both()
    add(bench, 0, 20)
    worker = bench.start_sink()
    bench.wait_rows(20)
    bench.stop(worker)
    made = bench.pg.one("SELECT made_with FROM embeddings_made_with")
    assert "model_fingerprint: " in made and "prompt: none" in made, made
    add(bench, 20, 5)
    wait_refused(bench, bench.start_sink("--prompt", "query"), "prompt: none", "allow_mixed",
                 "TRUNCATE")
    assert bench.rows() == 20
    worker = bench.start_sink()
    bench.wait_rows(25)
    bench.stop(worker)
    bench.pg.sql("DROP TABLE embeddings") # and what was said of it does not count any more
    bench.make_tables()
    add(bench, 25, 5)
    worker = bench.start_sink("--prompt", "query")
    bench.wait_rows(5)
    bench.stop(worker)
    assert "query" in bench.pg.one("SELECT made_with FROM embeddings_made_with")
    bench.pg.sql("DROP TABLE embeddings_made_with") # tables of an older release
    add(bench, 30, 5)
    worker = bench.start_sink()
    bench.wait_rows(10)
    assert "embeddings_made_with" in bench.log()
    bench.stop(worker)


def case_search(bench):
    corpus, out = Path(bench.folder) / "c.txt", Path(bench.folder) / "c.npy"
    corpus.write_text("one\ntwo\n")
    common = ("--model", bench.model, "--prompt", "none")
    subprocess.run([bench.binary, "index", corpus, "-o", out, *common], check=True,
                   stdin=subprocess.DEVNULL)
    manifest = Path(f"{out}.index")
    lines = manifest.read_text().splitlines()
    ours = next(line for line in lines if line.startswith("model_fingerprint")).split()[1]
    manifest.write_text("\n".join("model_fingerprint: " + "0" * 32 if ours in line else line
                              for line in lines) + "\n")
    for command, code in ((("search", out, "two"), 66), (("index", corpus, "-o", out), 78)):
        done = subprocess.run([bench.binary, *command, *common], check=False,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == code, (done.returncode, done.stderr)
        assert ours in done.stderr and "0" * 32 in done.stderr and "migrate" in done.stderr


def main():
    binary = sys.argv[1]
    source = programs()
    cases = [case_redis, case_model, case_both_at_once, case_changed_under_a_worker,
             case_rights, case_search]
    if source:
        cases.append(case_postgres)
    else:
        print("no PostgreSQL with pgvector to be had: left out")
    for case in cases:
        print(case.__name__, flush=True)
        with Bench(binary, source or Path("/nonexistent")) as bench:
            case(bench)
    print("ok")


if __name__ == "__main__":
    main()
