#!/usr/bin/env python3
"""Several models of one worker, each with an output of its own on Redis, or with an input, too.

Usage: test_redis_models.py EMBEDMILL [CASE ...]
"""
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import msgpack

from cases import find_cases, run_cases
from ports import free_port
from redis_bench import Bench, wait_for

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "models")
MODELS = {"one": os.path.join(DATA, "tiny-xlm-roberta.gguf"),
          "two": os.path.join(DATA, "tiny-mpnet.gguf")}
PATIENCE = 120 # the sanitizers are slow


def models(bench):
    """What start_worker is given besides; its own --model is the first."""
    bench.model = f"one={MODELS['one']}"
    # Workers are killed here: a message that is delivered often is none to be put aside for it.
    return ["--model", f"two={MODELS['two']}", "--max-deliveries", "0"]


def vectors(bench, name, texts):
    """{text: vector} of `embedmill embed`, as float32."""
    run = subprocess.run([bench.binary, "embed", "--model", MODELS[name], "--prompt", "none",
                          "--output-format", "msgpack"],
                         input="".join(text + "\n" for text in texts).encode(),
                         capture_output=True, check=True, timeout=60)
    found = msgpack.Unpacker()
    found.feed(run.stdout)
    return dict(zip(texts, [row["embedding"] for row in found]))


def text_of(i):
    return f"text number {i}"


def add(bench, numbers, stream="texts", **fields):
    """stream and fields: the same for all, or what a function makes of each number."""
    pipe = bench.client.pipeline()
    for i in numbers:
        more = {k: v(i) if callable(v) else v for k, v in fields.items()}
        pipe.xadd(stream(i) if callable(stream) else stream,
                  {"body": json.dumps({"id": str(i), "text": text_of(i), **more})})
    pipe.execute()


def all_done(bench, n_dead=0, stream="texts"):
    wait_for("all read", lambda: [group["lag"] for group in bench.client.xinfo_groups(stream)] ==
             [0], PATIENCE)
    wait_for("nothing pending",
             lambda: bench.client.xpending(stream, "embedmill")["pending"] == 0, PATIENCE)
    dead = bench.client.xrange(f"{stream}:dlq")
    assert len(dead) == n_dead, dead


def kill_around(bench, start, n, **where):
    """Add n texts while three workers are at them, one of which is killed again and again."""
    workers = [start(f"w{k}") for k in range(3)]
    for k in range(6):
        add(bench, range(k * n // 6, (k + 1) * n // 6), **where)
        time.sleep(0.3)
        workers[k % 3].send_signal(signal.SIGKILL)
        workers[k % 3].wait()
        workers[k % 3] = start(f"w{k % 3}")
    return workers


def records(bench, stream):
    return [msgpack.unpackb(fields[b"body"]) for _, fields in bench.client.xrange(stream)]


def case_every_text_to_both(bench):
    """The dual write of a migration: whatever dies, each text has one vector of each model."""
    bench.start_server()
    extra = models(bench)
    n = 600
    workers = kill_around(bench, lambda name: bench.start_worker(
        *extra, "--redis-output", "hash", "--redis-output-prefix", "e:{model}:", name=name), n)
    all_done(bench)
    for name in MODELS:
        want = vectors(bench, name, [text_of(i) for i in range(n)])
        keys = bench.client.keys(f"e:{name}:*")
        assert len([k for k in keys if b"#" not in k.rsplit(b":", 1)[1]]) == n, len(keys)
        for i in range(n):
            got = bench.client.hget(f"e:{name}:{i}", "embedding")
            assert got == want[text_of(i)], (name, i)
    assert not bench.client.keys("e:{*"), "a name was left as it is"
    for worker in workers:
        bench.stop(worker)


def case_chosen_by_field(bench):
    """Exactly once, each in the stream of the model that it names."""
    bench.start_server()
    extra = models(bench)
    n = 600
    names = ["one", "two", None]
    workers = kill_around(bench, lambda name: bench.start_worker(
        *extra, "--model-field", "who", "--redis-output-stream", "out:{model}", name=name), n,
        who=lambda i: names[i % 3])
    all_done(bench)
    for name, own in (("one", {0, 2}), ("two", {1})): # without a name: the first
        rows = records(bench, f"out:{name}")
        want = [i for i in range(n) if i % 3 in own]
        assert sorted(int(row["id"]) for row in rows) == want, name
        vector = vectors(bench, name, [text_of(i) for i in want])
        for row in rows:
            assert row["embedding"] == vector[text_of(int(row["id"]))], row["id"]
    for worker in workers:
        bench.stop(worker)


def case_chosen_by_stream(bench):
    """Each model has a stream of its own, from which its texts come out exactly once."""
    bench.start_server()
    extra = (*models(bench), "--redis-stream", "in:{model}", "--delivery", "exactly-once")
    n = 600
    names = list(MODELS)
    workers = kill_around(bench, lambda name: bench.start_worker(*extra, name=name), n,
                          stream=lambda i: f"in:{names[i % 2]}")
    for k, name in enumerate(names):
        all_done(bench, 0, f"in:{name}")
        rows = records(bench, f"in:{name}:embeddings")
        want = list(range(k, n, 2))
        assert sorted(int(row["id"]) for row in rows) == want, name
        vector = vectors(bench, name, [text_of(i) for i in want])
        for row in rows:
            assert row["embedding"] == vector[text_of(int(row["id"]))], row["id"]
    assert not bench.client.keys("*{*"), "a name was left as it is"
    for worker in workers:
        bench.stop(worker)


def case_letters_of_streams(bench):
    """Dead letters are of the stream that they came from, and go back to it; so do other names."""
    bench.start_server()
    port = free_port()
    named = ["--model", f"one={MODELS['one']}", "--model", f"two={MODELS['two']}"]
    ends = ["--redis-stream", "in:{model}", "--redis-dead-letters", "dead:{model}"]
    worker = bench.start_worker(*models(bench), *ends, "--redis-output", "hash",
                                "--redis-output-prefix", "{model}:", "--redis-group", "g-{model}",
                                "--metrics-listen", f"127.0.0.1:{port}")
    for k, name in enumerate(MODELS):
        add(bench, range(5 * k, 5 * k + 5), f"in:{name}")
        bench.client.xadd(f"in:{name}", {"body": '{"id": "%s", "text": ' % name})
    for name in MODELS:
        wait_for(f"dead:{name}", lambda name=name: bench.client.xlen(f"dead:{name}") == 1)
        wait_for(f"all of {name}", lambda name=name: bench.client.xpending(
            f"in:{name}", f"g-{name}")["pending"] == 0)
        wait_for(f"its texts: {name}", lambda name=name: len(
            bench.client.keys(f"{name}:[0-9]")) == 5)
        [(_, letter)] = bench.client.xrange(f"dead:{name}")
        assert letter[b"_stream"] == f"in:{name}".encode(), letter
        assert letter[b"_code"] == b"bad_json", letter
    def scraped():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()
    for name in MODELS:
        for line in (f'embedmill_source_lag{{part="in:{name}"}} 0\n',
                     f'embedmill_texts_embedded_total{{model="{name}"}} 5\n'):
            wait_for(line, lambda line=line: line in scraped())
    bench.stop(worker)
    out = bench.dlq("list", *ends, *named)
    assert [line.split("\t")[2].split()[0] for line in out.splitlines()] == ["in:one", "in:two"]
    out = bench.dlq("replay", *ends, *named, "--dry-run", "--limit", "1")
    assert out.count("\n") == 1 and "in:one" in out, out
    assert bench.dlq("replay", *ends, *named) == "2 put back, 0 left, 0 gone\n"
    for name in MODELS:
        assert bench.client.xlen(f"dead:{name}") == 0 and bench.client.xlen(f"in:{name}") == 7
        assert name.encode() in bench.client.xrevrange(f"in:{name}", count=1)[0][1][b"body"]
    # Without the models it is not known whose; one place for all would not say where to.
    unnamed = subprocess.run([bench.binary, "dlq", "list", *ends], capture_output=True, text=True,
                             check=False, timeout=30)
    assert unnamed.returncode == 78 and "name the models" in unnamed.stderr, unnamed


def case_one_stream_fails(bench):
    """What ends one ends the worker, and nothing of the others is lost."""
    bench.start_server()
    bench.client.set("in:two", "not a stream")
    extra = (*models(bench), "--redis-stream", "in:{model}")
    add(bench, range(50), "in:one")
    worker = bench.start_worker(*extra)
    assert worker.wait(timeout=30) == 69, bench.log()
    failed = [line for line in map(json.loads, bench.log().splitlines()) if "error" in line]
    assert len(failed) == 1 and "in:two" in failed[0]["error"], bench.log()
    bench.client.delete("in:two")
    add(bench, range(50, 60), "in:two")
    worker = bench.start_worker(*extra)
    for name, want in (("one", range(50)), ("two", range(50, 60))):
        wait_for(name, lambda name=name, want=want: bench.client.xlen(
            f"in:{name}:embeddings") == len(want))
        all_done(bench, 0, f"in:{name}")
        rows = records(bench, f"in:{name}:embeddings")
        assert sorted(int(row["id"]) for row in rows) == list(want), name
    bench.stop(worker)


def case_one_output_waits(bench):
    """An output that is away holds its own model up and no other; with all it is ready."""
    bench.start_server("--unixsocket", os.path.join(bench.folder, "one.sock"))
    port = free_port()
    def is_ready():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10):
                return True
        except urllib.error.HTTPError:
            return False
    for name in MODELS:
        add(bench, range(300), f"in:{name}")
    worker = bench.start_worker(
        *models(bench), "--redis-stream", "in:{model}", "--redis-output-url",
        f"unix://{bench.folder}/{{model}}.sock", "--metrics-listen", f"127.0.0.1:{port}")
    all_done(bench, 0, "in:one")
    assert bench.client.xlen("in:one:embeddings") == 300
    assert not is_ready() and bench.client.xpending("in:two", "embedmill")["pending"] > 0
    with Bench(bench.binary) as other:
        other.start_server("--unixsocket", os.path.join(bench.folder, "two.sock"))
        all_done(bench, 0, "in:two")
        ids = [int(row["id"]) for row in records(other, "in:two:embeddings")]
        assert sorted(ids) == list(range(300)), ids
        wait_for("ready", is_ready)
        bench.stop(worker)


def case_names(bench):
    """A field of the entry names the model, too; one that is not known is a dead letter."""
    bench.start_server()
    worker = bench.start_worker(*models(bench), "--model-field", "who",
                                "--redis-output-stream", "out:{model}")
    bench.client.xadd("texts", {"body": "plain", "who": "two", "id": "a"})
    bench.client.xadd("texts", {"body": '{"id": "b", "text": "x", "who": "three"}'})
    bench.client.xadd("texts", {"body": '{"id": "c", "text": "x", "who": 3}'})
    bench.client.xadd("texts", {"body": '{"id": "d", "text": ', "who": "two"})
    bench.client.xadd("texts", {"body": '{"id": "e", "text": "x", "who": "two"}', "who": "one"})
    wait_for("three dead letters", lambda: bench.client.xlen("texts:dlq") == 3)
    wait_for("two outputs", lambda: bench.client.xlen("out:two") == 2)
    all_done(bench, 3)
    assert [row["id"] for row in records(bench, "out:two")] == ["a", "e"]
    assert bench.client.xlen("out:one") == 0
    dead = [fields for _, fields in bench.client.xrange("texts:dlq")]
    assert sorted(d[b"_code"] for d in dead) == [b"bad_field", b"bad_json", b"unknown_model"]
    reason = next(d[b"_error"] for d in dead if d[b"_code"] == b"unknown_model")
    assert reason == b"'who' is not the name of a model; known are one, two", reason
    bench.stop(worker)


def case_deletes(bench):
    """A deletion that names a model is for that one; another one is for all."""
    bench.start_server()
    worker = bench.start_worker(*models(bench), "--model-field", "who", "--redis-output", "key",
                                "--redis-output-prefix", "{model}:")
    for name in MODELS:
        add(bench, (1, 2), who=name)
    wait_for("four keys", lambda: len(bench.client.keys("???:[12]")) == 4)
    bench.client.xadd("texts", {"body": '{"id": "1", "delete": true, "who": "two"}'})
    bench.client.xadd("texts", {"body": '{"id": "2", "delete": true}'})
    wait_for("one key", lambda: bench.client.keys("???:[12]") == [b"one:1"])
    all_done(bench)
    bench.stop(worker)


def case_what_one_cannot(bench):
    """A text that is too long for one model is its dead letter, and the other's output."""
    bench.start_server()
    port = free_port()
    worker = bench.start_worker(*models(bench), "--too-long", "error", "--redis-output-stream",
                                "out:{model}", "--metrics-listen", f"127.0.0.1:{port}")
    bench.client.xadd("texts", {"body": '{"id": "long", "text": "%s"}' % ("a b " * 30)})
    bench.client.xadd("texts", {"body": '{"id": "short", "text": "x"}'})
    bench.client.xadd("texts", {"body": '{"id": "bad", "text": '})
    wait_for("the short one, twice", lambda: all(
        "short" in [row["id"] for row in records(bench, f"out:{name}")] for name in MODELS))
    wait_for("the dead letter of the bad one", lambda: any(
        fields[b"_code"] == b"bad_json" for _, fields in bench.client.xrange("texts:dlq")))
    long_of = {name: "long" in [row["id"] for row in records(bench, f"out:{name}")]
               for name in MODELS}
    dead = [fields for _, fields in bench.client.xrange("texts:dlq")]
    # What is wrong with the message itself is said once, and what a model cannot by that one.
    assert sorted(d[b"_code"] for d in dead) == sorted(
        [b"bad_json"] + [b"text_too_long"] * list(long_of.values()).count(False)), dead
    assert False in long_of.values() and True in long_of.values(), long_of
    for d in dead:
        if d[b"_code"] == b"text_too_long":
            name = next(k for k, was in long_of.items() if not was)
            assert d[b"_error"].startswith(name.encode() + b": text 1 of 1 has "), d
    def scraped():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()
    for name in MODELS: # what is in Redis is counted a moment later
        n = 1 + long_of[name]
        line = f'embedmill_texts_embedded_total{{model="{name}"}} {n}\n'
        wait_for(line, lambda line=line: line in scraped())
        assert f'embedmill_batches_total{{model="{name}",trigger="full"}} ' in scraped()
    all_done(bench, 2)
    bench.stop(worker)


def case_mixed_is_refused(bench):
    """Each output knows its model: another one under its name is refused, and nothing is lost."""
    bench.start_server()
    args = ("--redis-output", "hash", "--redis-output-prefix", "{model}:")
    worker = bench.start_worker(*models(bench), *args)
    add(bench, range(3))
    wait_for("six keys", lambda: len(bench.client.keys("???:[012]")) == 6)
    all_done(bench)
    bench.stop(worker)
    bench.model = f"two={MODELS['one']}"
    worker = bench.start_worker("--model", f"one={MODELS['two']}", *args, name="mixed")
    add(bench, range(3, 6))
    assert worker.wait(timeout=30) == 69, bench.log("mixed")
    assert "redis.output_prefix" in bench.log("mixed"), bench.log("mixed")
    worker = bench.start_worker(*models(bench), *args, name="again")
    wait_for("twelve keys", lambda: len(bench.client.keys("???:[0-5]")) == 12)
    all_done(bench)
    bench.stop(worker)


def refused(bench, *words):
    run = subprocess.run([bench.binary, "run", *words], capture_output=True, text=True,
                         check=False, timeout=30)
    return run.stdout + run.stderr


def case_refused(bench):
    """What cannot be had is said before anything is read."""
    two = [word for name, path in MODELS.items() for word in ("--model", f"{name}={path}")]
    said = refused(bench, *two)
    assert "redis.output_stream" in said and "put {model} into its name" in said, said
    assert "for one model" in refused(bench, *two, "--redis-output-stream", "o:{model}",
                                      "--delivery", "exactly-once")
    assert "one model only" in refused(bench, "--model", MODELS["one"], "--model-field", "who")
    assert "an output for one" in refused(bench, *two, "--sink", "stdout")
    # `e5-` and `large-7` are the key that `e5-large-` and `7` are.
    alike = [word for name, path in zip(("e5", "e5-large"), MODELS.values())
             for word in ("--model", f"{name}={path}")]
    hashes = (*alike, "--redis-output", "hash", "--redis-output-prefix")
    assert "put a ':' behind {model}" in refused(bench, *hashes, "{model}-")
    assert "a ':' behind" not in refused(bench, *hashes, "{model}:", "--redis-url", "nowhere://")
    # Inputs of their own: all of them, and nothing else chooses or shares.
    own = (*two, "--redis-stream")
    assert "an input of its own" in refused(bench, *own, "in:{model}", "--model-field", "who")
    assert "'texts' would be read for several" in refused(bench, *own, "in:{model}, texts",
                                                          "--redis-output-stream", "o:{model}")
    assert "put {model} into its name" in refused(bench, *own, "in:{model}", "--redis-output",
                                                  "hash")
    assert "put {model} into this name, too" in refused(bench, *own, "in:{model}",
                                                        "--redis-dead-letters", "dead")
    assert "put {model} into its name" in refused(bench, *own, "in:{model}",
                                                  "--redis-output-stream", "o", "--http-listen",
                                                  "127.0.0.1:1")
    for words in (["push", "x", "--to"], ["pull", "-o", "y", "--from"]):
        run = subprocess.run([bench.binary, *words, "redis://127.0.0.1:1", "--stream",
                              "in:{model}"], capture_output=True, text=True, check=False,
                             timeout=30)
        assert run.returncode == 64 and "name the stream, topic or queue of one" in run.stderr, run
    # Its own input, once the name is there.
    assert "input" in refused(bench, *two, "--redis-output-stream", "{model}", "--redis-stream",
                              "one")


def case_doctor(bench):
    """Each output, and each input, is looked at by its own name."""
    bench.start_server()
    bench.client.set("out:two", "not a stream")
    two = [word for name, path in MODELS.items() for word in ("--model", f"{name}={path}")]
    def bad(*ends):
        run = subprocess.run([bench.binary, "doctor", "--json", "--redis-url",
                              f"redis://127.0.0.1:{bench.port}", *ends, *two],
                             capture_output=True, text=True, check=False, timeout=60)
        found = [f for f in json.loads(run.stdout)["findings"] if f["area"] == "redis"]
        assert any(f["result"] == "ok" for f in found), found
        return [f["said"] for f in found if f["result"] == "bad"]
    assert bad("--redis-output-stream", "out:{model}") == [
        "out:two is a string, not a stream: name another key"]
    [said] = bad("--redis-stream", "out:{model}")
    assert "out:two" in said, said


def main():
    binary, only = sys.argv[1], sys.argv[2:]
    return run_cases(find_cases(globals()), only, lambda name: Bench(binary))


if __name__ == "__main__":
    sys.exit(main())
