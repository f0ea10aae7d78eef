#!/usr/bin/env python3
"""`embedmill push` and `pull` between files and a real redis-server; no model is needed.

What is pushed is there once, in order and as it was; a server that starts later is waited for. What
is pulled is whole, also when pull is killed at random and started again: nothing is lost, and what
is there twice is equal.

Usage: test_move.py EMBEDMILL
"""
import csv
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import numpy as np

from redis_bench import Bench, wait_for

SEED = 20261124
N = 3000
DIM = 32


def start(bench, *words, env=None):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL_")}
    log = open(Path(bench.folder) / "log-move", "ab")
    process = subprocess.Popen([bench.binary, *words], cwd=bench.folder, stdin=subprocess.DEVNULL,
                               stdout=log, stderr=log, env={**clean, **(env or {})})
    bench.processes.append(process)
    return process


def run(bench, *words, code=0, env=None):
    got = start(bench, *words, env=env).wait(timeout=60)
    assert got == code, f"{words}: exit code {got} and not {code}: {bench.log('move')[-2000:]}"


def case_push(bench, url):
    lines = [json.dumps({"id": i, "text": f"text {i}"}) for i in range(N)]
    packed = Path(bench.folder) / "corpus.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join(lines).encode()))
    early = start(bench, "push", str(packed), "--to", url, "--stream", "pushed")
    time.sleep(0.3)
    bench.start_server()
    assert early.wait(timeout=60) == 0, bench.log("move")
    entries = bench.client.xrange("pushed")
    assert [fields[b"body"].decode() for _, fields in entries] == lines
    assert entries[6][1][b"id"] == b"7", "the number of the line goes along"

    table = Path(bench.folder) / "table.csv"
    table.write_text('id,body,lang\na,"x, ""y""\nz",en\nb,lost\nc,last,de\n', encoding="utf-8")
    run(bench, "push", str(table), "--column", "body", "--to", url, "--stream", "rows", code=65)
    rows = [json.loads(fields[b"body"]) for _, fields in bench.client.xrange("rows")]
    assert rows == [{"id": "a", "text": 'x, "y"\nz', "lang": "en"},
                    {"id": "c", "text": "last", "lang": "de"}], rows
    dead = bench.client.xrange("rows:dlq")
    assert len(dead) == 1 and dead[0][1][b"_position"].endswith(b"table.csv:4"), dead
    assert dead[0][1][b"_code"] == b"bad_csv", dead

    for shard in (1, 2):
        run(bench, "push", str(packed), "--shard", f"{shard}/2", "--to", url, "--stream", "halves")
    halves = [fields[b"body"].decode() for _, fields in bench.client.xrange("halves")]
    assert halves[:N // 2] == lines[0::2] and halves[N // 2:] == lines[1::2]


def output(ids, vectors):
    """A message of the worker, by docs/wire-format.md."""
    many = len(ids) > 1
    fields = {"v": 1, "id": "many" if many else ids[0]}
    if many:
        fields["ids"] = ids
    fields.update(model="m", model_fingerprint="0" * 32, prompt="none", dim=DIM, dtype="<f4",
                  embedding=vectors.astype("<f4").tobytes(), tokens=[1] * len(ids) if many else 1,
                  truncated=[False] * len(ids) if many else False, source="s 1-0")
    return msgpack.packb(fields)


def case_pull(bench, url):
    vectors = np.random.default_rng(SEED).standard_normal((N, DIM)).astype("<f4")
    at, pipe = 0, bench.client.pipeline()
    random.seed(SEED)
    while at < N:
        n = min(random.choice((1, 1, 1, 5)), N - at)
        pipe.xadd("outputs", {"body": output([f"t{i}" for i in range(at, at + n)],
                                             vectors[at:at + n])})
        at += n
    pipe.xadd("outputs", {"body": b"no output"})
    pipe.execute()

    words = ("pull", "--from", url, "--stream", "outputs", "-o", "pulled.npy", "--idle", "1500ms",
             "--redis-claim-idle", "1s")
    for kills in range(100):
        pull = start(bench, *words)
        try:
            code = pull.wait(timeout=random.uniform(0.01, 0.1) if kills < 8 else 60)
            break
        except subprocess.TimeoutExpired:
            pull.kill()
            pull.wait()
    assert code == 65, f"seed {SEED}: exit code {code}: {bench.log('move')[-2000:]}"
    print(f"seed {SEED}: {kills} kills")
    pulled = np.load(Path(bench.folder) / "pulled.npy")
    ids = [json.loads(line) for line in
           (Path(bench.folder) / "pulled.npy.ids.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(ids) == len(pulled) and set(ids) == {f"t{i}" for i in range(N)}
    assert np.array_equal(pulled, vectors[[int(i[1:]) for i in ids]])
    wait_for("nothing pending",
             lambda: bench.client.xpending("outputs", "embedmill-pull")["pending"] == 0)

    run(bench, "pull", "--from", url, "--stream", "outputs", "--redis-group", "again", "-o",
        "pulled.jsonl", "--idle", "500ms", code=65)
    found = {}
    for line in (Path(bench.folder) / "pulled.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        many = "ids" in record
        found.update(zip(record["ids"] if many else [record["id"]],
                         record["embedding"] if many else [record["embedding"]]))
    assert np.array_equal(np.array([found[f"t{i}"] for i in range(N)], "<f4"), vectors)
    errors = (Path(bench.folder) / "pulled.jsonl.errors.jsonl").read_text(encoding="utf-8")
    assert json.loads(errors)["code"] == "no_output" and json.loads(errors)["value"] == "no output"

    run(bench, "pull", "--from", url, "--stream", "outputs", "--redis-group", "third", "-o",
        "pulled.msgpack", "--total", "10")
    with open(Path(bench.folder) / "pulled.msgpack", "rb") as f:
        assert sum(1 for _ in msgpack.Unpacker(f)) == 10

    with_fields = msgpack.unpackb(output([7], vectors[:1]))
    with_fields["fields"] = {"q": 'a"b\0', "n": [1]}
    for body in (msgpack.packb(with_fields), output(["a,", 'b"'], vectors[1:3])):
        bench.client.xadd("to-rows", {"body": body})
    run(bench, "pull", "--from", url, "--stream", "to-rows", "-o", "rows.csv", "--total", "2")
    with open(Path(bench.folder) / "rows.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.reader(f))
    assert [row[0] for row in rows] == ["7", "a,", 'b"'], rows
    assert np.array_equal(np.array([json.loads(row[1]) for row in rows], "<f4"), vectors[:3])
    assert json.loads(rows[0][2]) == {"q": 'a"b\ufffd', "n": [1]} and rows[1][2] == "", rows


def case_changes(bench, url):
    """What was written anew or deleted is no longer found; a second model does not get in."""
    rng = np.random.default_rng(SEED)
    vectors = rng.standard_normal((6, DIM)).astype("<f4")
    folder = Path(bench.folder)
    other = msgpack.unpackb(output(["z"], vectors[5:6]))
    for name, precision in (("1" * 32, None), ("0" * 32, "fast")):
        more = {**other, "model_fingerprint": name}
        if precision:
            more["precision"] = precision
        for body in (output(["a"], vectors[:1]), output(["b", "7"], vectors[1:3]),
                     msgpack.packb(more), output(["a"], vectors[3:4])):
            bench.client.xadd(f"two-{name}", {"body": body})
        bench.client.xadd(f"two-{name}", {"deleted": "1", "id": "b"})
        bench.client.xadd(f"two-{name}", {"color": "blue"}) # says nothing
        for out, group in (("two.npy", "g1"), ("two.jsonl", "g2"), ("two.npy", "g3")):
            (folder / out).unlink(missing_ok=True)
            for rest in folder.glob(out + ".*"):
                if group != "g3" or rest.suffix != ".index":
                    rest.unlink()
            run(bench, "pull", "--from", url, "--stream", f"two-{name}", "--redis-group", group,
                "-o", out, "--idle", "500ms", code=65)
            errors = [json.loads(line) for line in (folder / f"{out}.errors.jsonl").open()]
            assert [e["code"] for e in errors] == ["wrong_model", "empty_text"], errors
            card = (folder / f"{out}.index").read_text(encoding="utf-8")
            assert f"model_fingerprint: {'0' * 32}\nprecision: exact\n" in card, card
            run(bench, "compact", out, "-o", "left-" + out)
            if out == "two.jsonl":
                ids = [json.loads(line) for line in (folder / "left-two.jsonl").open()]
                ids = [i for record in ids for i in record.get("ids", [record["id"]])]
            else:
                ids = [json.loads(line) for line in (folder / "left-two.npy.ids.jsonl").open()]
                assert np.array_equal(np.load(folder / "left-two.npy"), vectors[[2, 3]])
            assert sorted(ids) == ["7", "a"] or out == "two.jsonl" and set(ids) == {"7", "a", "b"}
            for rest in folder.glob("left-*"):
                rest.unlink()
    # What came to OUT in an earlier run counts, too.
    bench.client.xadd("later", {"body": msgpack.packb({**other, "model_fingerprint": "1" * 32})})
    before = (folder / "two.npy").read_bytes()
    run(bench, "pull", "--from", url, "--stream", "later", "-o", "two.npy", "--idle", "500ms",
        code=65)
    assert (folder / "two.npy").read_bytes() == before


def output_json(text, vector, **more):
    """The same in JSON; the fields that say of which model it is may be others."""
    record = {**msgpack.unpackb(output([text], vector[None])), "embedding": vector.tolist()}
    head = {key: record.pop(key) for key in ("v", "id", "model", "model_fingerprint")}
    return json.dumps({**head, **more, **record}, separators=(",", ":"))


def case_json(bench, url):
    """Outputs in JSON are compared, too; an OUT.index without a precision is of exact vectors."""
    vectors = np.random.default_rng(SEED).standard_normal((4, DIM)).astype("<f4")
    folder = Path(bench.folder)
    for body in (output_json('"model_fingerprint":"', vectors[0]),
                 output_json("b", vectors[1], model_fingerprint="1" * 32),
                 output_json("c", vectors[2], precision="fast"), output(["d"], vectors[3:])):
        bench.client.xadd("in-json", {"body": body})
    card = folder / "json.jsonl.index"
    for turn in (1, 2): # the second with a card as older ones are
        run(bench, "pull", "--from", url, "--stream", "in-json", "--redis-group", f"j{turn}",
            "-o", "json.jsonl", "--idle", "500ms", code=65)
        errors = [json.loads(line) for line in (folder / "json.jsonl.errors.jsonl").open()]
        assert [e["code"] for e in errors] == ["wrong_model"] * 2 * turn, errors
        ids = [json.loads(line)["id"] for line in (folder / "json.jsonl").open()]
        assert ids == ['"model_fingerprint":"', "d"] * turn, ids
        text = card.read_text(encoding="utf-8")
        assert f"model: m\nmodel_fingerprint: {'0' * 32}\n" in text, text
        card.write_text(text.replace("precision: exact\n", ""), encoding="utf-8")


def case_no_index(bench, url):
    """An OUT.index that cannot be written ends pull: it is the output, and nothing is acked."""
    bench.client.xadd("no-index", {"body": output(["a"], np.ones((1, DIM)))})
    (Path(bench.folder) / "no-index.npy.index.new").mkdir()
    words = ("pull", "--from", url, "--stream", "no-index", "-o", "no-index.npy", "--idle", "1s")
    got = subprocess.run([bench.binary, *words], cwd=bench.folder, stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, timeout=60, check=False)
    assert got.returncode == 74, (got.returncode, got.stderr)
    assert "no-index.npy.index cannot be written" in got.stderr, got.stderr
    assert "input is gone" not in got.stderr, got.stderr
    (Path(bench.folder) / "no-index.npy.index.new").rmdir()
    run(bench, *words, "--redis-claim-idle", "1s", "--total", "1")


def case_full_disk(bench, url):
    """pull ends when its disk is full (here: files may grow to 40 KB), and goes on later."""
    vectors = np.random.default_rng(SEED).standard_normal((N, DIM)).astype("<f4")
    pipe = bench.client.pipeline()
    for i in range(N):
        pipe.xadd("filling", {"body": output([f"t{i}"], vectors[i:i + 1])})
    pipe.execute()
    words = ("pull", "--from", url, "--stream", "filling", "-o", "filled.npy", "--idle", "1500ms")
    full = subprocess.run(
        [bench.binary, *words], cwd=bench.folder, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=60, check=False, restore_signals=False, # SIGXFSZ stays ignored
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000)))
    assert full.returncode == 74, (full.returncode, full.stderr)
    assert "filled.npy" in full.stderr and "too large" in full.stderr, full.stderr
    run(bench, *words)
    ids = (Path(bench.folder) / "filled.npy.ids.jsonl").read_text(encoding="utf-8").splitlines()
    pulled = np.load(Path(bench.folder) / "filled.npy")
    assert {json.loads(line) for line in ids} == {f"t{i}" for i in range(N)}, len(ids)
    assert np.array_equal(pulled, vectors[[int(json.loads(line)[1:]) for line in ids]])


def case_shared_configuration(bench, url):
    """Environment and file are those of the workers; what the command line says of ends holds."""
    env = {"EMBEDMILL_REDIS_OUTPUT_STREAM": "theirs", "EMBEDMILL_REDIS_OUTPUT": "key",
           "EMBEDMILL_REDIS_OUTPUT_URL": "redis://127.0.0.1:1/0", "EMBEDMILL_REDIS_MAXLEN": "1",
           "EMBEDMILL_REDIS_DEAD_LETTERS": "theirs:dlq", "EMBEDMILL_REDIS_BODY": "payload"}
    config = Path(bench.folder) / "worker.yaml"
    config.write_text("redis:\n  stream: shared\n  group: workers\n", encoding="utf-8")
    corpus = Path(bench.folder) / "few.txt"
    corpus.write_text("one\ntwo\n", encoding="utf-8")
    before = set(bench.client.keys())
    run(bench, "push", str(corpus), "--to", url, "--config", str(config), env=env)
    assert set(bench.client.keys()) - before == {b"texts"}, bench.client.keys()
    assert [fields[b"body"] for _, fields in bench.client.xrange("texts")] == [b"one", b"two"]

    bench.client.xgroup_create("shared", "workers", "0", mkstream=True)
    bench.client.xadd("shared", {"body": "an input"})
    bench.client.xadd("texts:embeddings", {"body": output(["t"], np.ones((1, DIM)))})
    run(bench, "pull", "--from", url, "-o", "shared.npy", "--total", "1", "--config", str(config),
        env=env)
    assert len(np.load(Path(bench.folder) / "shared.npy")) == 1
    (group,) = bench.client.xinfo_groups("shared")
    assert group["consumers"] == 0 and group["lag"] == 1, group
    (group,) = bench.client.xinfo_groups("texts:embeddings")
    assert group["name"] == b"embedmill-pull", group


def case_log(bench, url):
    """As everywhere: log_level and log_format, whoever sets them."""
    push = [bench.binary, "push", "few.txt", "--to", url, "--stream", "logged"]
    for words, env, wanted in ((push, {}, '{"ts":'), (push, {"EMBEDMILL_LOG_LEVEL": "error"}, ""),
                               ([*push, "--log-format", "logfmt"], {}, "ts=")):
        said = subprocess.run(words, cwd=bench.folder, stdin=subprocess.DEVNULL, check=True,
                              env={**os.environ, **env}, capture_output=True, text=True).stderr
        assert said.startswith(wanted) and bool(said) == bool(wanted), said


def main():
    with Bench(sys.argv[1]) as bench:
        url = f"redis://127.0.0.1:{bench.port}/0"
        case_push(bench, url)
        case_pull(bench, url)
        case_full_disk(bench, url)
        case_shared_configuration(bench, url)
        case_changes(bench, url)
        case_json(bench, url)
        case_no_index(bench, url)
        case_log(bench, url)
        run(bench, "push", "x", "--to", "gopher://nowhere", code=64)
        run(bench, "pull", "-o", "x", code=64)
    print("ok")


if __name__ == "__main__":
    main()
