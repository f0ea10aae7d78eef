#!/usr/bin/env python3
"""Workers of two models on a real Apache Kafka: all texts to both, chosen by a header, or a topic
for each. Workers are killed again and again: nothing may be lost, and with exactly-once nothing
doubled.

Usage: test_kafka_models.py EMBEDMILL [--few] [CASE ...]
"""
import os
import sys
import time
import urllib.request

import msgpack

from cases import find_cases, run_cases, shared, slow
from kafka_bench import TEXTS, Bench, text_row, wait_for
from kafka_faults import MODES
from ports import free_port

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "models")
MODELS = {"one": os.path.join(DATA, "tiny-xlm-roberta.gguf"),
          "two": os.path.join(DATA, "tiny-mpnet.gguf")}


def models_start(bench, *extra):
    """Workers of two models, each with a topic of its own."""
    bench.make_topics()
    for name in MODELS:
        bench.kafka("topic", bench.topic(f"out-{name}"), "2")

    def start():
        return bench.start_worker("--model", f"two={MODELS['two']}", "--kafka-output-topic",
                                  bench.topic("out-{model}"), *extra)
    return start


def models_vectors(bench):
    """{name: vectors of TEXTS}; from now on what bench starts has the first of them."""
    vectors, model = {}, bench.model
    for name, bench.model in MODELS.items():
        vectors[name] = bench.reference()
    bench.model = f"one={MODELS['one']}"
    return vectors, model


def models_killed(bench, n, who):
    """Three workers of two models, killed again and again: {name: {id: times}}."""
    start = models_start(bench, *(("--model-field", "who") if who else ()))
    vectors, model = models_vectors(bench)
    workers = [start() for _ in range(3)]
    for k in range(4):
        rows = [text_row(i) for i in range(k * n // 4, (k + 1) * n // 4)]
        for i, row in enumerate(rows):
            row["headers"] = [("who", who[i % len(who)])] if who and who[i % len(who)] else []
        bench.send(rows)
        time.sleep(1)
        bench.kill(workers[k % 3])
        workers[k % 3] = start()
    bench.wait_lag_0()
    bench.send([{"key": "gone", "value": None}]) # of a text that nobody names a model for
    bench.send([{"key": "strange", "value": "x", "headers": [("who", b"three")]}])
    bench.wait_lag_0()
    seen = {}
    for name in MODELS:
        outs = bench.read(f"out-{name}")
        seen[name] = {}
        for out in outs:
            assert out.key() != b"gone" or out.value() is None
            row = msgpack.unpackb(out.value()) if out.value() else {"id": "gone"}
            seen[name][row["id"]] = seen[name].get(row["id"], 0) + 1
            if isinstance(row["id"], int):
                assert row["embedding"] == vectors[name][row["id"] % len(TEXTS)], (name, row["id"])
    for worker in workers:
        bench.stop(worker)
    bench.model = model
    return seen


@slow
def case_models_both(bench):
    """The dual write of a migration: no text and no deletion is missing in either topic."""
    n = 400
    seen = models_killed(bench, n, None)
    for name, ids in seen.items():
        others = {i for i in ids if not isinstance(i, int)}
        assert set(range(n)) <= set(ids) and len(others) == 2 and "gone" in others, (name, others)
    assert not bench.read("dlq")


@slow
def case_models_chosen(bench):
    """Each in the topic of the model that its header names, without one in the first's."""
    n = 400
    seen = models_killed(bench, n, [b"one", b"two", None, b"two"])
    for name, own in (("one", (0, 2)), ("two", (1, 3))):
        assert set(seen[name]) == {i for i in range(n) if i % 4 in own} | {"gone"}, name
    dead = bench.read("dlq")
    assert {d.key() for d in dead} == {b"strange"}
    assert dict(dead[0].headers())["_code"] == b"unknown_model"


def own_topics(bench, *extra):
    """What starts workers of two models, each with topics of its own, by the names they have."""
    def start(*more):
        return bench.start_worker(
            "--model", f"two={MODELS['two']}", "--kafka-topic", bench.topic("{model}"),
            "--kafka-output-topic", "", "--kafka-dead-letter-topic", "", *extra, *more)
    for name in MODELS:
        bench.kafka("topic", bench.topic(name), "2")
    return start


def own_outputs(bench):
    for name in MODELS:
        bench.kafka("topic", bench.topic(f"{name}-embeddings"), "2")
        bench.kafka("topic", bench.topic(f"{name}-dlq"), "1")


def expect_own(bench, n, vectors, once):
    """n texts of each model in its own topic: no stranger, none missing, none twice if once."""
    for k, name in enumerate(MODELS):
        bench.wait_lag_0(120, name)
        rows = [msgpack.unpackb(out.value()) for out in bench.read(f"{name}-embeddings")]
        ids = [row["id"] for row in rows]
        assert set(ids) == set(range(k * n, (k + 1) * n)), (name, sorted(ids))
        assert not once or len(ids) == n, f"{name}: {len(ids) - n} doubled"
        for row in rows:
            assert row["embedding"] == vectors[name][row["id"] % len(TEXTS)], (name, row["id"])


def case_models_of_topics(bench):
    """A topic for each model: one group, one lag, transactions of each; a dead letter goes back."""
    port = free_port()
    start = own_topics(bench, *MODES["exactly-once"], "--metrics-listen", f"127.0.0.1:{port}")
    vectors, model = models_vectors(bench)
    for k, name in enumerate(MODELS):
        bench.send([text_row(i) for i in range(40 * k, 40 * k + 40)], bench.topic(name))
    worker = start()
    def group_lag():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except OSError: # it has not started yet
            return None
        return next((float(line.split()[1]) for line in lines
                     if line.startswith("embedmill_group_lag ")), None)
    wait_for("the lag of both, whose outputs are not there", lambda: group_lag() == 80, 60)
    own_outputs(bench)
    expect_own(bench, 40, vectors, True)
    bench.send([{"key": "bad", "value": b"\x81"}], bench.topic("two"))
    bench.wait_lag_0(60, "two")
    wait_for("no lag", lambda: group_lag() == 0, 60)
    [letter] = bench.read("two-dlq")
    assert letter.value() == b"\x81" and not bench.read("one-dlq")
    assert dict(letter.headers())["_topic"] == bench.topic("two").encode(), letter.headers()
    words = ("--kafka-topic", bench.topic("{model}"), "--kafka-output-topic", "",
             "--kafka-dead-letter-topic", "", "--model", bench.model, "--model",
             f"two={MODELS['two']}")
    assert bench.dlq("list", *words).count("\n") == 1
    assert bench.dlq("replay", *words) == "1 put back, 0 left, 0 gone\n"
    wait_for("another one of it", lambda: len(bench.read("two-dlq")) == 2, 60)
    bench.stop(worker)
    code, rows = bench.doctor("--kafka-topic", bench.topic("{model}"), "--kafka-output-topic", "",
                              "--kafka-dead-letter-topic", "", "--model", f"two={MODELS['two']}")
    assert code == 0 and rows, rows
    bench.model = model


@slow
def case_models_of_topics_killed(bench):
    """Three workers of two models and topics, killed again and again."""
    for mode in MODES:
        bench.begin(f"own-{mode}")
        start = own_topics(bench, *MODES[mode])
        own_outputs(bench)
        vectors, model = models_vectors(bench)
        workers = [start() for _ in range(3)]
        n, killed = 200, 4
        for k in range(killed):
            for j, name in enumerate(MODELS):
                first = j * n + k * n // killed
                bench.send([text_row(i) for i in range(first, first + n // killed)],
                           bench.topic(name))
            time.sleep(1)
            bench.kill(workers[k % 3])
            workers[k % 3] = start()
        expect_own(bench, n, vectors, mode == "exactly-once")
        for worker in workers:
            bench.stop(worker)
        bench.model = model


def main():
    binary, only = sys.argv[1], sys.argv[2:]
    with Bench(binary) as bench:
        bench.start_kafka()
        return run_cases(find_cases(globals()), only, shared(bench, bench.begin))


if __name__ == "__main__":
    sys.exit(main())
