#!/usr/bin/env python3
"""Workers on a real Apache Kafka, started here from Maven Central jars: one broker for all cases.

Every case has topics and a group of its own. Workers and the broker are killed, workers come and
go; in every case nothing may be lost, with exactly-once and clean drains nothing may come out
twice, and each vector must be the one that `embedmill embed` gives, bit for bit.

Usage: test_kafka_live.py EMBEDMILL [--few] [CASE ...]
"""
import json
import os
import re
import subprocess
import sys
import time
import urllib.request

import msgpack
import redis

import kafka_faults
from cases import find_cases, run_cases, shared, slow
from chaos_proxy import ChaosProxy
from kafka_bench import TEXTS, Bench, Feeder, text_row, wait_for
from kafka_faults import MODES, problems_of, run_faults
from ports import free_port

SEED = 5
OLD = 1700000000000


def expect_each_once(bench, n, vectors):
    row = bench.counts(bench.read(), n, vectors)
    assert row["in"] == row["out"] and not row["lost"] and not row["wrong"], row


def case_plain(bench):
    """Vectors as without a broker; key, headers and timestamps are those of the input."""
    bench.make_topics(3)
    vectors = bench.reference()
    rows = [text_row(i) | {"timestamp": OLD + i} for i in range(60)]
    rows[7]["headers"] += [("twice", b"1"), ("empty", b""), ("twice", b"\xff\x00")]
    rows[8]["key"] = b"\x00\xffkey"
    bench.send(rows)
    worker = bench.start_worker()
    bench.wait_lag_0()
    bench.stop(worker)
    outs = bench.read()
    assert not any(bench.counts(outs, 60, vectors)[k] for k in ("doubled", "lost", "wrong"))
    for out in outs:
        i = msgpack.unpackb(out.value())["id"]
        want = rows[i]["key"] if isinstance(rows[i]["key"], bytes) else rows[i]["key"].encode()
        assert out.key() == want, (i, out.key())
        assert out.timestamp()[1] == OLD + i, (i, out.timestamp())
        kept = out.headers()[:len(rows[i]["headers"])]
        assert kept == rows[i]["headers"], (i, out.headers())
        assert ("content-type", b"application/msgpack") in out.headers(), out.headers()


@slow
def case_doctor(bench):
    """What is missing is told, and what is there; nothing is made or written."""
    code, rows = bench.doctor()
    assert code == 69, rows
    assert {what for what, (result, _) in rows.items() if result == "bad"} == {
        "input", "output", "dead letters"}, rows
    bench.make_topics(3)
    bench.send_texts(0, 12)
    code, rows = bench.doctor()
    assert code == 0 and "lag 12" in rows["group"][1], rows
    assert "3 partitions" in rows["input"][1], rows
    assert not bench.read() and not bench.read("dlq") and len(bench.read("in")) == 12
    code, rows = bench.doctor("--kafka-brokers", "127.0.0.1:1")
    assert code == 69 and "refused" in rows["connection"][1], rows
    code, rows = bench.doctor("-X", "security.protocol=nonsense")
    assert code == 64, (code, rows)


@slow
def case_topics(bench):
    """scripts/kafka-local makes and deletes topics, and says what it cannot."""
    name = bench.topic("in")
    for _ in range(2): # the name is free again at once
        bench.kafka("topic", name, "2")
        assert bench.kafka("leader", name, "1").strip() == "1"
        bench.kafka("delete", name)
    for words, why in ((("delete", name), "Unknown topic"), (("topic", name, "0"), "partition")):
        try:
            bench.kafka(*words)
            raise RuntimeError(f"{words} succeeded")
        except AssertionError as error:
            assert why in str(error) and "Traceback" not in str(error), error


def case_metrics(bench):
    """A worker tells the lag of each of its partitions, and that the group was balanced."""
    bench.make_topics(3)
    bench.send_texts(0, 30)
    worker = bench.start_worker("--metrics-listen", "127.0.0.1:0")
    wait_for("the address in the log", lambda: '"serving metrics"' in bench.log(), 60)
    address = re.findall(r'"serving metrics","listen":"([^"]*)"', bench.log())[-1]

    def values():
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))

    wait_for("30 texts", lambda: values().get("embedmill_texts_embedded_total") == "30")
    lags = [f'embedmill_source_lag{{part="{bench.topic("in")}/{i}"}}' for i in range(3)]
    wait_for("lag 0 of each", lambda: [values().get(lag) for lag in lags] == ["0"] * 3)
    wait_for("lag 0 of the group", lambda: values().get("embedmill_group_lag") == "0")
    assert int(values()["embedmill_rebalances_total"]) >= 1
    assert values()["embedmill_ready"] == "1"
    bench.stop(worker)
    assert '"lag":0,"group_lag":0' in bench.log(), bench.log()


def case_tombstones(bench):
    """A key without a value stays that, among texts, in both modes; deletes become one."""
    change = {"before": {"id": 5}, "after": None, "op": "d", "source": {}}
    deletes = [{"key": '{"id":5}', "value": json.dumps(change)},
               {"key": "flat", "value": json.dumps({"id": 6, "__deleted": "true"})},
               {"key": None, "value": json.dumps({"id": "no key", "delete": True})},
               {"key": "user-1", "value": json.dumps({"id": 7, "delete": True}),
                "headers": [("id", b"9")]}]
    ids = {b"gone": b"gone", b'{"id":5}': b"5", b"flat": b"6", b"no key": b"no key",
           b"user-1": b"7"}
    for mode, extra in MODES.items():
        bench.begin("tombstones-" + mode)
        bench.make_topics(1)
        bench.send([text_row(0), {"key": "gone", "value": None, "headers": [("h", b"1")]},
                    text_row(1), *deletes])
        worker = bench.start_worker(*extra)
        bench.wait_lag_0()
        bench.stop(worker)
        outs = {out.key(): out for out in bench.read()}
        assert set(outs) == {b"key-0", b"key-1", *ids}, outs
        for key, text in ids.items(): # which text is gone: the key need not be its id
            said = [value for name, value in outs[key].headers() if name == "id"]
            assert outs[key].value() is None and said == [text], (key, outs[key].headers())
        assert outs[b"gone"].value() is None and outs[b"key-1"].value()
        assert ("h", b"1") in outs[b"gone"].headers(), outs[b"gone"].headers()


def case_pull_deletes(bench):
    """Deletes reach what `pull` gathers also where keys are not the ids of texts."""
    bench.make_topics(1)
    row = {"_id": {"$oid": "5f"}, "text": "from MongoDB"}
    mongo = [{"op": "c", "after": json.dumps(row), "source": {"connector": "mongodb"}},
             {"op": "d", "before": None, "after": None, "source": {"connector": "mongodb"}}]
    bench.send([{"key": "user-1", "value": json.dumps({"_id": 7, "text": "x"})},
                {"key": "user-2", "value": json.dumps({"_id": 8, "text": "y"})},
                {"key": '{"id":"{\\"$oid\\":\\"5f\\"}"}', "value": json.dumps(mongo[0])},
                {"key": "user-1", "value": json.dumps({"_id": 7, "delete": True})},
                {"key": '{"id":"{\\"$oid\\":\\"5f\\"}"}', "value": json.dumps(mongo[1])}])
    worker = bench.start_worker("--id-field", "_id")
    bench.wait_lag_0()
    bench.stop(worker)
    out = os.path.join(bench.folder, "pulled.jsonl")
    for words in (("pull", "--from", f"kafka://{bench.addresses['BOOTSTRAP']}/{bench.topic('out')}",
                   "-o", out, "--total", "5"), ("compact", out, "-o", out + "-left.jsonl")):
        subprocess.run([bench.binary, *words], check=True, timeout=60, stdin=subprocess.DEVNULL)
    with open(out + "-left.jsonl", encoding="utf-8") as left:
        assert [json.loads(line)["id"] for line in left] == [8]


BAD = {
    "bad_msgpack": b"\x81\xa4text\xdd\xff\xff\xff\xff",
    "empty_text": b'{"text": ""}',
    "bad_json": b'{"text": "open',
    "output_too_large": json.dumps({"texts": TEXTS[:3]}).encode(),
}
BAD_HEADERS = [("a", b"1"), ("b", b"\x00\xff"), ("a", b"2")]


def case_dead_letters(bench):
    """Poison and what is too large for the output: aside, byte for byte, neighbours pass."""
    vectors = bench.reference()
    rows = [text_row(0)]
    for i, (code, value) in enumerate(BAD.items(), 1):
        rows += [{"key": code, "value": value, "headers": BAD_HEADERS}, text_row(i)]
    for mode, extra in MODES.items():
        bench.begin("letters-" + mode)
        bench.make_topics(1, ["max.message.bytes=5000"])
        bench.send(rows)
        worker = bench.start_worker(*extra)
        bench.wait_lag_0()
        bench.stop(worker)
        expect_each_once(bench, len(BAD) + 1, vectors)
        letters = {letter.key().decode(): letter for letter in bench.read("dlq")}
        assert set(letters) == set(BAD), set(letters)
        for code, letter in letters.items():
            assert letter.value() == BAD[code], (code, letter.value())
            assert letter.headers()[:3] == BAD_HEADERS, letter.headers()
            assert code.encode() in [value for _, value in letter.headers()[3:]], letter.headers()


def dead_row(i, code):
    return {"key": f"k{i}", "value": b"\xff%d" % i, "partition": i % 2,
            "headers": [("a", b"\x00"), ("_code", code.encode()), ("_error", b"why"),
                        ("_topic", b"dlq-in"), ("_partition", b"%d" % (i % 3)),
                        ("_offset", b"%d" % i), ("a", b"2"), ("_deliveries", b"1")]}


def case_dlq(bench):
    """What is listed and put back, with letters between that stay; nothing goes back twice."""
    bench.kafka("topic", bench.topic("in"), "3")
    assert bench.dlq("list") == "" # no topic yet: nothing has died
    bench.kafka("topic", bench.topic("dlq"), "2")
    bench.send([dead_row(i, "bad_json" if i % 3 else "no_text") for i in range(30)],
               bench.topic("dlq"))
    lines = sorted(bench.dlq("list").splitlines())
    assert len(lines) == 30 and lines[0] == "dlq-dlq/0/0\tno_text\tdlq-in/0/0\twhy", lines
    assert bench.dlq("replay", "--code", "no_text", "--dry-run").count("\n") == 10
    assert len(bench.read("in")) == 0
    assert bench.dlq("replay", "--code", "no_text", "--limit", "4").startswith("4 put back")
    assert bench.dlq("replay", "--code", "no_text").startswith("6 put back")
    assert bench.dlq("replay", "--code", "no_text").startswith("0 put back")
    assert bench.dlq("list").count("bad_json") == 20 == bench.dlq("list").count("\n")
    assert bench.dlq("replay").startswith("20 put back")
    assert bench.dlq("list") == ""
    back = bench.read("in")
    assert sorted(m.key() for m in back) == sorted(b"k%d" % i for i in range(30))
    for message in back:
        i = int(message.key()[1:])
        assert message.value() == b"\xff%d" % i and message.partition() == i % 3, i
        assert message.headers() == [("a", b"\x00"), ("a", b"2")], message.headers()
    # One that dies again is a new letter.
    worker = bench.start_worker("--bad-utf8", "error")
    bench.kafka("topic", bench.topic("out"), "1")
    bench.wait_lag_0()
    bench.stop(worker)
    assert bench.dlq("list", "--code", "bad_utf8").count("\n") == 30
    assert len([m for m in bench.read("dlq") if ("a", b"2") in m.headers()]) == 60


def case_topic_later(bench):
    """The worker waits for a topic that is not there yet, and says so."""
    vectors = bench.reference()
    worker = bench.start_worker()
    wait_for("it says so", lambda: bench.topic("in") in bench.log() and "waits" in bench.log(), 30)
    bench.make_topics()
    bench.send_texts(0, 20)
    bench.wait_lag_0()
    bench.stop(worker)
    expect_each_once(bench, 20, vectors)


def case_broker_later(bench):
    """A cluster that refuses at start, and later falls silent, is waited for."""
    bench.make_topics(1)
    vectors = bench.reference()
    bench.send_texts(0, 10)
    port = int(bench.addresses["BOOTSTRAP_PROXIED"].split(":")[1])
    with ChaosProxy(port, bench.port + 5) as proxy:
        proxy.refuse()
        worker = bench.start_worker(addresses=bench.addresses["BOOTSTRAP_PROXIED"])
        wait_for("it says so", lambda: "source waits" in bench.log(), 30)
        proxy.heal()
        bench.wait_lag_0()
        proxy.hold()
        bench.send_texts(10, 10)
        time.sleep(5)  # longer than its session
        proxy.heal()
        bench.wait_lag_0()
        bench.stop(worker)
    row = bench.counts(bench.read(), 20, vectors)
    assert not row["lost"] and not row["wrong"], row


@slow
def case_drains(bench):
    """Five workers one after the other, each told to stop at some moment of its work."""
    bench.make_topics(2)
    vectors = bench.reference()
    feeder = Feeder(bench, 80)
    for i in range(5):
        worker = bench.start_worker("--batch-texts", "8")
        before = bench.committed()
        wait_for("some of it is done", lambda before=before: bench.committed() > before, 60)
        time.sleep(0.05 * i)
        bench.stop(worker)
    n = feeder.end()
    worker = bench.start_worker()
    bench.wait_lag_0()
    bench.stop(worker)
    expect_each_once(bench, n, vectors)


def faults(bench, fault, seconds, *, modes=tuple(MODES), **more):
    for mode in modes:
        row = run_faults(bench, fault, mode, seconds, seed=SEED, **more)
        print(f"        {row}", flush=True)
        assert not problems_of(row), problems_of(row)


@slow
def case_workers_killed(bench):
    faults(bench, kafka_faults.worker_killed, 8)


@slow
def case_broker_killed(bench):
    faults(bench, kafka_faults.broker_killed, 1, n_workers=2, modes=["exactly-once"])


def case_storm(bench):
    faults(bench, kafka_faults.rebalance_storm, 6, modes=["exactly-once"])


def case_static_member(bench):
    """group.instance.id: started again it is the same member; a second ends the first, which says
    why, and takes its place."""
    extra = (*MODES["exactly-once"], "-X", "group.instance.id=one")
    bench.make_topics(2)
    vectors = bench.reference()
    for first in (0, 10):
        worker = bench.start_worker(*extra)
        bench.send_texts(first, 10)
        bench.wait_lag_0()
        if first == 0:
            bench.stop(worker)
    second = bench.start_worker(*extra)
    wait_for("the end of the first", lambda: worker.poll() is not None)
    assert worker.returncode == 69, worker.returncode
    assert "another worker has the same group.instance.id" in bench.log(2), bench.log(2)
    bench.send_texts(20, 10)
    bench.wait_lag_0()
    bench.stop(second)
    expect_each_once(bench, 30, vectors)


def takes_scram(bench):
    """A broker of Kafka 4 and a librdkafka before 2.6.1 do not agree on SCRAM."""
    if os.environ.get("KAFKA_VERSION", "3.9.2").startswith("3."):
        return True
    said = subprocess.run([bench.binary, "version"], capture_output=True, text=True, check=True)
    version = re.search(r"librdkafka (\d+)\.(\d+)\.(\d+)", said.stdout).groups()
    return tuple(map(int, version)) >= (2, 6, 1)


def case_encrypted(bench):
    """TLS, and SCRAM over TLS, by properties that the worker only passes on."""
    tls = ["-X", "security.protocol=SSL", "-X", "ssl.ca.location=" + bench.addresses["CA"]]
    sasl = ["-X", "security.protocol=SASL_SSL", "-X", "sasl.username=worker",
            "-X", "sasl.password=worker-secret", *tls[2:]]
    scram, plain = (["-X", f"sasl.mechanism={name}", *sasl] for name in ("SCRAM-SHA-256", "PLAIN"))
    bench.make_topics(1)
    vectors = bench.reference()
    over_tls = bench.addresses["BOOTSTRAP_SASL_SSL"]
    if not takes_scram(bench): # it says why, and PLAIN is a way out
        worker = bench.start_worker(*scram, addresses=over_tls)
        wait_for("what is wrong", lambda: "takes SCRAM from librdkafka 2.6.1" in
                 bench.log(worker.number))
        bench.stop(worker)
        scram = plain
    for i, (address, extra) in enumerate(((bench.addresses["BOOTSTRAP_SSL"], tls),
                                          (over_tls, scram))):
        bench.send_texts(10 * i, 10)
        worker = bench.start_worker(*extra, addresses=address)
        bench.wait_lag_0()
        bench.stop(worker)
        expect_each_once(bench, 10 * (i + 1), vectors)


GUEST = ("-X", "security.protocol=SASL_PLAINTEXT", "-X", "sasl.mechanism=PLAIN",
         "-X", "sasl.username=guest", "-X", "sasl.password=guest-secret")


@slow
def case_rights(bench):
    """Rights to input, group and output are lost and given back: a worker of each mode says so,
    waits, and goes on without a restart. All by PLAIN, with the broker's own authorizer."""
    vectors = bench.reference()
    workers = {}

    def each():
        for bench.name in [f"rights-{mode}" for mode in MODES]:
            yield workers.get(bench.name)

    def change(how, *kinds):
        things = {"group": lambda: [bench.group], "output": lambda: [bench.topic("out")],
                  "input": lambda: [bench.topic("in")], "rest": lambda: [bench.topic("dlq")]}
        words = [f"--{'group' if kind == 'group' else 'topic'}={thing}"
                 for _ in each() for kind in kinds for thing in things[kind]()]
        bench.kafka(how, *words, *(["--transactional-id=*"] if "rest" in kinds else []))

    def send_each(first):
        for _ in each():
            bench.send_texts(first, 10)

    def start(*extra):
        bench.n_started = 0
        workers[bench.name] = bench.start_worker(
            *GUEST, *extra, addresses=bench.addresses["BOOTSTRAP_SASL_PLAINTEXT"])

    for _ in each():
        bench.make_topics(1)
    change("allow", "input", "group", "output", "rest")
    for extra, _ in zip(MODES.values(), each()):
        start(*extra)
    send_each(0)
    for _ in each():
        bench.wait_lag_0()
    for i, (kind, told) in enumerate((("input", "allow this user to read"),
                                      ("group", "Group authorization failed"),
                                      ("output", "allow this user to write")), 1):
        change("forbid", kind)
        send_each(10 * i)
        for _ in each():
            wait_for("it says so", lambda told=told: told in bench.log())
        change("allow", kind)
        for worker in each():
            bench.wait_lag_0()
            assert worker.poll() is None, bench.log()
    for worker in each():
        bench.stop(worker)
        row = bench.counts(bench.read(), 40, vectors)
        assert not any(row[what] for what in ("lost", "strangers", "wrong")), row
        assert not row["doubled"] or "at-least" in bench.name, row


def case_last_commit(bench):
    """Who stops without having committed what he did last says so, and so does his exit code."""
    bench.make_topics(1)
    topics = [f"--topic={bench.topic(suffix)}" for suffix in ("in", "out", "dlq")]
    bench.kafka("allow", f"--group={bench.group}", *topics)
    # It is to be stopped before the group misses it.
    worker = bench.start_worker(*GUEST, "-X", "session.timeout.ms=30000",
                                addresses=bench.addresses["BOOTSTRAP_SASL_PLAINTEXT"])
    bench.send_texts(0, 10)
    bench.wait_lag_0()
    bench.kafka("forbid", f"--group={bench.group}")
    bench.send_texts(10, 10)
    wait_for("20 texts", lambda: len(bench.read()) == 20)
    bench.stop(worker, 75)
    assert "what was finished last will be delivered again" in bench.log(), bench.log()
    assert bench.lag() == 10


class RedisServer:
    """Beside Kafka, for the workers between the two."""

    def __init__(self, folder):
        self.port = free_port()
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", folder,
             "--save", ""], stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=self.port)
        self.url = f"redis://127.0.0.1:{self.port}"

    def __enter__(self):
        def answers():
            try:
                return self.client.ping()
            except redis.exceptions.ConnectionError:
                return False
        wait_for("redis-server", answers)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def case_kafka_to_redis(bench):
    bench.make_topics(2)
    vectors = bench.reference()
    bench.send_texts(0, 30)
    bench.send([{"key": "bad", "value": b"\x81"}])
    with RedisServer(bench.folder) as server:
        worker = bench.start_worker("--sink", "redis", "--redis-url", server.url)
        bench.wait_lag_0()
        bench.stop(worker)
        outs = [msgpack.unpackb(fields[b"body"])
                for _, fields in server.client.xrange("texts:embeddings")]
        assert sorted(out["id"] for out in outs) == list(range(30))
        assert all(out["embedding"] == vectors[out["id"] % len(TEXTS)] for out in outs)
        [(_, letter)] = server.client.xrange("texts:dlq")
        assert letter[b"body"] == b"\x81" and letter[b"_key"] == b"bad", letter


def case_redis_to_kafka(bench):
    bench.make_topics(1)
    vectors = bench.reference()
    with RedisServer(bench.folder) as server:
        for i in range(30):
            server.client.xadd("texts", {"body": text_row(i)["value"], "color": "blue"})
        server.client.xadd("texts", {"body": b"\x81"})
        worker = bench.start_worker("--source", "redis", "--redis-url", server.url)
        wait_for("all of it acked", lambda: server.client.exists("texts") and
                 server.client.xinfo_groups("texts") and
                 server.client.xinfo_groups("texts")[0]["pending"] == 0 and
                 len(bench.read()) == 30)
        bench.stop(worker)
    expect_each_once(bench, 30, vectors)
    assert all(("color", b"blue") in out.headers() for out in bench.read())
    [letter] = bench.read("dlq")
    assert letter.value() == b"\x81"


def main():
    binary, only = sys.argv[1], sys.argv[2:]
    with Bench(binary) as bench:
        bench.start_kafka("--ssl", "--sasl", "--acl", "--proxy", str(bench.port + 6))
        return run_cases(find_cases(globals()), only, shared(bench, bench.begin))


if __name__ == "__main__":
    sys.exit(main())
