#!/usr/bin/env python3
"""scripts/client-python as a user has it: installed by pip, with workers on Redis and Kafka.

The brokers are real and private, and gone at the end. What is embedded by way of the client must be
what `embedmill embed` prints, bit for bit where the dtype allows; what was not acked must come
again, what was refused must be raised, what nobody serves must end in time.

Usage: test_client.py EMBEDMILL [CASE ...]
"""
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import msgpack
import numpy as np

import kafka_bench
import redis_bench
from redis_bench import wait_for

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SEED = 20261125
TEXTS = kafka_bench.TEXTS
DTYPES = {"f4": "<f4", "f2": "<f2", "i1": "|i1", "b1": "bits"}


def install(folder):
    """By pip from a copy, for it builds in place; no index is asked."""
    source = os.path.join(folder, "source")
    shutil.copytree(os.path.join(ROOT, "scripts", "client-python"), source)
    target = os.path.join(folder, "installed")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
                    "--no-build-isolation", "--disable-pip-version-check", "--root-user-action",
                    "ignore", "--target", target, source], check=True, stdin=subprocess.DEVNULL)
    assert os.path.exists(os.path.join(target, "embedmill_client", "py.typed"))
    sys.path.insert(0, target)


def embed_here(bench, message, *extra):
    """What the same program gives without a broker."""
    run = subprocess.run([bench.binary, "embed", "--model", bench.model, "--prompt", "none",
                          "--threads", "1", "--input-format", "auto", *extra],
                         check=True, timeout=120,
                         input=json.dumps(message).encode() + b"\n", capture_output=True)
    return run.stdout


def raises(kind, call, words=""):
    try:
        call()
    except kind as error:
        assert words in str(error), error
        return error
    raise AssertionError(f"no {kind.__name__}")


def case_encode(_bench):
    """What would come back as a dead letter is refused here."""
    from embedmill_client import encode
    assert msgpack.unpackb(encode("a", id=7, title="T", fields={"lang": "en"})) == {
        "text": "a", "id": 7, "title": "T", "lang": "en"}
    assert msgpack.unpackb(encode(["a", "b"], ids=["x", None], titles=["T", None],
                                  prompt="query")) == {
        "texts": ["a", "b"], "ids": ["x", None], "titles": ["T", None], "prompt": "query"}
    for texts, more in (("", {}), ([], {}), (["a", ""], {}), ([b"a"], {}), (["a"], {"ids": []}),
                        ("a", {"ids": ["x"]}), ("a", {"fields": {"text": "b"}}),
                        (["a", "b"], {"titles": ["T"]})):
        raises(ValueError, lambda texts=texts, more=more: encode(texts, **more))


def case_decode(bench):
    """Every dtype, one and many, msgpack and JSON; all is the same vector."""
    from embedmill_client import decode
    message = {"id": 7, "texts": TEXTS[:3], "ids": ["a", 2, None], "lang": {"of": ["en", None]}}
    exact = decode(embed_here(bench, message, "--format", "msgpack")).unit()
    assert exact.dtype == np.float32 and exact.shape == (3, 768)
    for option, dtype in DTYPES.items():
        for format_ in ("msgpack", "json"):
            payload = embed_here(bench, message, "--format", format_, "--dtype", option)
            out = decode(payload)
            assert (out.id, out.ids, out.dim, out.dtype) == (7, ["a", 2, "7/2"], 768, dtype), out
            assert out.vectors.shape == (3, 96 if option == "b1" else 768)
            assert out.fields == {"lang": {"of": ["en", None]}} and not out.extra, out
            assert all(n > 0 for n in out.tokens) and out.truncated == [False] * 3, out
            unit = out.unit()
            assert np.allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
            cosines = np.sum(unit * exact, axis=1)
            assert np.all(cosines > {"f4": 1 - 1e-6, "f2": 1 - 1e-6, "i1": 0.999}.get(option, 0.7))
            if option == "b1":
                assert np.array_equal(unit > 0, exact > 0)
            elif format_ == "msgpack" and option == "f4":
                assert np.array_equal(unit, exact)
    long = "The last boat leaves at ten. " * 20
    for format_ in ("msgpack", "json"):
        cut = decode(embed_here(bench, {"texts": [TEXTS[1], long], "ids": ["x", 7]}, "--format",
                                format_, "--too-long", "chunk", "--chunk-tokens", "64"))
        assert cut.chunks[0] is None and not cut.extra and len(cut.chunks) == len(cut.ids) > 3
        assert [chunk.number for chunk in cut.chunks[1:]] == list(range(len(cut.ids) - 1))
        assert cut.ids[1:] == [f"{chunk.parent}#{chunk.number}" for chunk in cut.chunks[1:]]
        assert {chunk.parent for chunk in cut.chunks[1:]} == {7}
        assert all(long[chunk.start:chunk.end].startswith("The") for chunk in cut.chunks[1:])
        assert cut.chunks[-1].end == len(long.rstrip())
    one = decode(embed_here(bench, {"text": TEXTS[1], "id": "x"}, "--format", "msgpack"))
    assert (one.id, one.ids, len(one.tokens)) == ("x", ["x"], 1)
    assert np.array_equal(one.unit()[0], exact[1])


def case_strangers(bench):
    """What later versions add is kept; another version, and bytes of any kind, are refused."""
    from embedmill_client import WireError, decode
    payload = embed_here(bench, {"id": 7, "texts": TEXTS[:2]}, "--format", "msgpack")
    output = msgpack.unpackb(payload)
    more = {"language": "en", "marks": [0, 1]}
    assert decode(msgpack.packb({**output, **more})).extra == more
    raises(WireError, lambda: decode(msgpack.packb({**output, "parent": "7", "chunk": [0, 1]})))
    raises(WireError, lambda: decode(msgpack.packb({**output, "v": 2})), "not 2")
    raises(WireError, lambda: decode(msgpack.packb({**output, "dim": 7})))
    raises(WireError, lambda: decode(msgpack.packb({**output, "dtype": "<f8"})))
    choose = random.Random(SEED)
    n_read = 0
    for _ in range(3000):
        damaged = bytearray(payload[:choose.randrange(len(payload))] if choose.random() < 0.3 else
                            payload)
        for _ in range(choose.randrange(1, 4)):
            if damaged:
                damaged[choose.randrange(min(len(damaged), 400))] = choose.randrange(256)
        with contextlib.suppress(WireError):
            decode(bytes(damaged))
            n_read += 1
    assert 0 < n_read < 3000, n_read


def drain(consumer, n, seconds=40):
    """n deliveries, acked one by one."""
    found, deadline = [], time.monotonic() + seconds
    while len(found) < n:
        assert time.monotonic() < deadline, f"{len(found)} of {n}"
        for delivery in consumer.receive(1.0):
            found.append(delivery)
            consumer.ack(delivery)
    return found


def case_redis(bench):
    """There and back: headers, fields, a deletion's and a dead letter's way, acks, trimming."""
    from embedmill_client import DeadLetter
    from embedmill_client.redis import RedisConsumer, RedisProducer, trim
    bench.start_server()
    producer = RedisProducer(bench.client)
    sent = {producer.send(text, id=i, headers={"color": "blue"}, fields={"n": [i]}): i
            for i, text in enumerate(TEXTS)}
    bad = producer.send("x", prompt="no such prompt")
    worker = bench.start_worker()
    consumer = RedisConsumer(bench.client, "readers", "one")
    found = {d.correlation_id: d for d in drain(consumer, len(sent) + 1)}
    assert set(found) == set(sent) | {bad}
    expected = embed_here(bench, {"texts": TEXTS}, "--format", "msgpack")
    expected = msgpack.unpackb(expected)["embedding"]
    for correlation, i in sent.items():
        out = found[correlation].output()
        assert out.id == i and out.fields == {"n": [i]} and out.timestamp_ms, out
        assert out.vectors.tobytes() == expected[i * 3072:(i + 1) * 3072]
        assert found[correlation].headers["color"] == b"blue"
    letter = raises(DeadLetter, found[bad].output, "unknown_prompt")
    assert letter.code == "unknown_prompt" and letter.payload, letter
    bench.client.xadd("texts:embeddings", {"deleted": "1", "id": "9"})
    [deleted] = drain(consumer, 1)
    assert deleted.output() is None and deleted.headers["id"] == b"9"
    assert consumer.receive(0.2) == []
    wait_for("nothing waits", lambda: producer.waiting() == 0)
    assert trim(bench.client, "texts") == len(sent)  # all but the last that was delivered
    producer.send("after that")
    assert len(drain(consumer, 1)) == 1
    bench.stop(worker)


def case_redis_again(bench):
    """What was not acked comes again: to the same name at once, to another when it is idle."""
    from embedmill_client.redis import RedisConsumer, trim
    bench.start_server()
    for i in range(5):
        bench.client.xadd("texts:embeddings", {"body": b"", "correlation-id": str(i)})

    def ids(deliveries):
        return [d.correlation_id for d in deliveries]

    first = RedisConsumer(bench.client, "g", "one")
    got = first.receive(5)
    assert ids(got) == list("01234")
    first.ack(got[0], got[2])
    assert trim(bench.client, "texts:embeddings") == 1
    assert first.receive(0.1) == []
    assert ids(RedisConsumer(bench.client, "g", "one").receive(5)) == list("134")
    assert RedisConsumer(bench.client, "g", "two").receive(0.1) == []
    gone = bench.client.xpending_range("texts:embeddings", "g", "-", "+", 1)[0]["message_id"]
    bench.client.xdel("texts:embeddings", gone)
    assert ids(RedisConsumer(bench.client, "g", "one").receive(5)) == list("34")
    time.sleep(0.3)
    other = RedisConsumer(bench.client, "g", "two", claim_idle=0.2)
    got = other.receive(5)
    assert ids(got) == list("34")
    other.ack(*got)
    assert bench.client.xpending("texts:embeddings", "g")["pending"] == 0
    assert trim(bench.client, "texts:embeddings") == 2 and trim(bench.client, "texts:dlq") == 0


def case_redis_pressure(bench):
    """A producer waits for room, for so long and no longer, and goes on when there is some."""
    from embedmill_client.redis import RedisProducer
    bench.start_server()
    producer = RedisProducer(bench.client, max_waiting=5, timeout=0.5)
    for i in range(5):
        producer.send(TEXTS[i])
    raises(TimeoutError, lambda: producer.send("x"), "5 messages wait on texts")
    worker = bench.start_worker()
    producer = RedisProducer(bench.client, max_waiting=5)
    for i in range(30):
        producer.send(TEXTS[i % len(TEXTS)])
        assert bench.client.xlen("texts") - bench.client.xlen("texts:embeddings") <= 5
    wait_for("35 outputs", lambda: bench.client.xlen("texts:embeddings") == 35)
    bench.stop(worker)
    # After an XDEL Redis does not know the lag; it is counted then.
    places = [bench.client.xadd("texts", {"text": "x"}) for _ in range(4)]
    bench.client.xdel("texts", places[1])
    assert bench.client.xinfo_groups("texts")[0]["lag"] is None
    assert producer.waiting() == 3
    raises(ValueError, lambda: RedisProducer(type(bench.client)(
        port=bench.port, decode_responses=True)), "decode_responses")


def case_redis_embed(bench):
    """Questions and answers: in order, from many threads, refused, and not served in time."""
    from embedmill_client import DeadLetter
    from embedmill_client.redis import embed
    bench.start_server()
    raises(TimeoutError, lambda: embed(bench.client, ["x"], timeout=0.3), "is there a worker")
    assert bench.client.xlen("texts") == 0, "nobody waits for it any more"
    worker = bench.start_worker()
    expected = embed_here(bench, {"texts": TEXTS}, "--format", "msgpack")
    expected = np.frombuffer(msgpack.unpackb(expected)["embedding"], "<f4").reshape(-1, 768)
    wrong = []

    def ask(seed):
        order = list(range(len(TEXTS)))
        random.Random(seed).shuffle(order)
        try:
            vectors = embed(bench.client, [TEXTS[i] for i in order], per_message=5)
            assert np.array_equal(vectors, expected[order])
        except Exception as error:  # of a thread: told below
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(SEED + i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    raises(DeadLetter, lambda: embed(bench.client, ["x"], prompt="none such"), "unknown_prompt")
    raises(ValueError, lambda: embed(bench.client, "a text"))
    assert bench.client.xlen("texts") == bench.client.xlen("texts:embeddings") == 0
    assert bench.client.xlen("texts:dlq") == 1
    example = subprocess.run(
        [sys.executable, os.path.join(ROOT, "docs", "examples", "embed.py"),
         f"redis://127.0.0.1:{bench.port}"], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": sys.path[0]}, timeout=60).stdout.split()
    assert len(example) == 9 and example[0] == "1.0000" and example[1] > example[2], example
    bench.stop(worker)


def case_redis_hash(bench):
    from embedmill_client.redis import RedisProducer, fetch_hashes
    bench.start_server()
    RedisProducer(bench.client).send(TEXTS[:3], ids=["a", 2, "c"])
    worker = bench.start_worker("--redis-output", "hash", "--dtype", "i1", "--dim", "256")
    vectors = fetch_hashes(bench.client, ["c", "a", 2], timeout=30)
    assert vectors.shape == (3, 256) and np.allclose(np.linalg.norm(vectors, axis=1), 1)
    expected = embed_here(bench, {"texts": TEXTS[:3]}, "--format", "msgpack", "--dim", "256")
    expected = np.frombuffer(msgpack.unpackb(expected)["embedding"], "<f4").reshape(3, 256)
    assert np.all(np.sum(vectors * expected[[2, 0, 1]], axis=1) > 0.999)
    raises(TimeoutError, lambda: fetch_hashes(bench.client, ["a", "lost"]), "1 of 2")
    bench.stop(worker)


def case_kafka(bench):
    """There and back with exactly-once workers: each once, also for a reader that begins anew."""
    from embedmill_client import DeadLetter
    from embedmill_client.kafka import KafkaConsumer, KafkaProducer
    bench.make_topics(3)
    vectors, config = bench.reference(), bench.client()
    with KafkaProducer(config, bench.topic("in")) as producer:
        sent = {producer.send(TEXTS[i % len(TEXTS)], key=f"k{i}", id=i, headers={"n": str(i)}): i
                for i in range(100)}
        bad = producer.send("x", prompt="no such prompt", key="bad")
    worker = bench.start_worker("--delivery", "exactly-once")
    names = {"outputs": bench.topic("out"), "dead_letters": bench.topic("dlq")}
    with KafkaConsumer(config, "readers", **names) as consumer:
        half = drain(consumer, 40)
        # In hand, and not acked: they come again.
        deadline = time.monotonic() + 30
        while not consumer.receive(1, count=10):
            assert time.monotonic() < deadline
    with KafkaConsumer(config, "readers", **names) as consumer:
        rest = drain(consumer, len(sent) + 1 - len(half))
        assert consumer.receive(0.5) == []
    found = {d.correlation_id: d for d in half + rest}
    assert set(found) == set(sent) | {bad} and len(half + rest) == len(found)
    for correlation, i in sent.items():
        out = found[correlation].output()
        assert out.id == i and out.vectors.tobytes() == vectors[i % len(TEXTS)], out
        assert found[correlation].key == b"k%d" % i
        assert found[correlation].headers["n"] == b"%d" % i
    letter = raises(DeadLetter, found[bad].output, "unknown_prompt")
    assert found[bad].key == b"bad" and letter.payload
    bench.stop(worker)


def case_kafka_faults(bench):
    """A topic that is not there, and a cluster that is not: told, and in time."""
    from confluent_kafka import KafkaException
    from embedmill_client.kafka import KafkaConsumer, KafkaProducer
    with KafkaConsumer(bench.client(), "readers", outputs="nowhere", dead_letters=None) as consumer:
        raises(KafkaException, lambda: consumer.receive(30), "nowhere")
    away = bench.client(**{"bootstrap.servers": "127.0.0.1:1", "queue.buffering.max.messages": 3})
    producer = KafkaProducer(away, timeout=0.5)

    def fill():
        for text in TEXTS:
            producer.send(text)
    raises(TimeoutError, fill, "3 messages wait")
    raises(TimeoutError, producer.flush, "not confirmed")
    short = KafkaProducer({**away, "message.timeout.ms": 300}, timeout=20)
    short.send("x")
    raises(KafkaException, short.flush)


def run(name, case, bench):
    started = time.monotonic()
    try:
        case(bench)
        print(f"ok      {name} ({time.monotonic() - started:.1f} s)", flush=True)
        return True
    except Exception as error:  # every kind of failure is reported and counted
        print(f"FAILED  {name} (seed {SEED}): {error!r}", flush=True)
        for file in sorted(os.listdir(bench.folder)):
            if file.startswith("log-"):
                with open(os.path.join(bench.folder, file), encoding="utf-8") as log:
                    print("".join(log.readlines()[-12:]))
        return False


def main():
    binary, only = sys.argv[1], sys.argv[2:]
    cases = {name[5:]: f for name, f in globals().items()
             if name.startswith("case_") and (not only or name[5:] in only)}
    results = []
    with tempfile.TemporaryDirectory(prefix="embedmill-client-") as folder:
        install(folder)
        for name, case in cases.items():
            if not name.startswith("kafka"):
                with redis_bench.Bench(binary) as bench:
                    results.append(run(name, case, bench))
        if any(name.startswith("kafka") for name in cases):
            with kafka_bench.Bench(binary) as bench:
                bench.start_kafka()
                for name, case in cases.items():
                    if name.startswith("kafka"):
                        bench.begin(name)
                        results.append(run(name, case, bench))
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
