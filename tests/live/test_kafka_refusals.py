#!/usr/bin/env python3
"""Records that a real Apache Kafka refuses for their own sake: one of them stops nobody.

Starts a broker of its own. In each case and both modes the neighbours come out, the record becomes
a dead letter that says what was cut of it, and no worker ends; what cannot even become a dead
letter is up to --undeliverable.

Usage: test_kafka_refusals.py EMBEDMILL [--few] [CASE ...]
"""
import json
import sys
import time

from cases import find_cases, run_cases, shared, slow
from kafka_bench import TEXTS, Bench, text_row, wait_for
from kafka_faults import MODES, Team
from kafka_refuser import KafkaRefuser
from redis_bench import Bench as RedisBench

POISON = 417


def header(letter, name):
    [value] = [value for key, value in letter.headers() if key == name]
    return value.decode()


def each_mode(bench, *extra, begin="", partitions=1, **topics):
    for mode, words in MODES.items():
        bench.begin(f"{begin or bench.case}-{mode}")
        bench.make_topics(partitions, **topics)
        yield (*words, *extra)


def send_large(bench, rows):
    """What a producer with a raised limit of its own can send."""
    producer = bench.producer(**{"message.max.bytes": 2000000})
    for row in rows:
        producer.produce(bench.topic("in"), **row)
    assert producer.flush(60) == 0


def run_through(bench, n_good, n_dead, *extra):
    """One worker to lag 0: outputs by key, dead letters by their offset in the input."""
    worker = bench.start_worker(*extra)
    bench.wait_lag_0()
    bench.stop(worker)
    outs, letters = bench.read(), bench.read("dlq")
    assert len(outs) == n_good, (len(outs), bench.log()[-2000:])
    assert len(letters) == n_dead, (len(letters), bench.log()[-2000:])
    return outs, {int(header(letter, "_offset")): letter for letter in letters}


def case_near_the_limit(bench):
    """A key, headers or a payload that leave no room for what a dead letter adds."""
    key, value = "K" * 1048300, b'{"text": "' + b"x" * 1048300
    rows = [text_row(0), {"key": key, "value": "v"}, text_row(1),
            {"key": "h", "value": b"\x81", "headers": [("small", b"1"), ("large", b"y" * 1048000)]},
            {"key": "p", "value": value}, text_row(2),
            {"key": "m", "value": b"\x81", "headers": [(f"h{i}", b"z" * 80) for i in range(11000)]},
            text_row(3)]
    for extra in each_mode(bench, dlq_config=["max.message.bytes=900000"]):
        send_large(bench, rows)
        _, letters = run_through(bench, 4, 4, *extra)
        assert set(letters) == {1, 3, 4, 6}, letters
        cut = letters[1]
        assert cut.key() == b"K" * (1048300 // 16) and cut.value() == b"v", len(cut.key())
        assert "the first 65518 of 1048300 key bytes are kept" in header(cut, "_error")
        assert header(cut, "_code") == "bad_field"
        cut = letters[3]
        assert cut.key() == b"h" and cut.value() == b"\x81" and header(cut, "small") == "1"
        assert "1 of 2 headers" in header(cut, "_error"), header(cut, "_error")
        cut = letters[4]
        assert cut.key() == b"p" and cut.value() == value[:len(value) // 16]
        assert f"of {len(value)} payload bytes are kept" in header(cut, "_error")
        cut = letters[6]
        assert cut.key() == b"m" and 100 < len(cut.headers()) < 11000
        assert bench.dlq("replay").startswith("0 put back"), "a letter that was cut went back"


@slow
def case_small_topics(bench):
    """Topics for outputs and dead letters with limits far below the input's."""
    small = ["max.message.bytes=1500"]
    rows = [{"key": "a", "value": "short", "headers": [("h", b"x" * 3000)]}, text_row(0),
            {"key": "c", "value": "y" * 5000}, {"key": "K" * 3000, "value": "k"}, text_row(1)]
    for extra in each_mode(bench, "--dtype", "b1", out_config=small, dlq_config=small):
        bench.send(rows)
        _, letters = run_through(bench, 3, 2, *extra)
        assert set(letters) == {0, 3}, letters # an output holds no text, but its headers
        assert header(letters[0], "_code") == "output_too_large"
        assert letters[0].value() == b"short"
        assert header(letters[3], "_code") == "bad_field" and letters[3].value() == b"k"


@slow
def case_small_broker(bench):
    """The broker's own message.max.bytes is below ours."""
    for extra in each_mode(bench, "-X", "producer.message.max.bytes=4000000",
                           out_config=["max.message.bytes=200000"],
                           dlq_config=["max.message.bytes=200000"]):
        texts = json.dumps({"texts": [TEXTS[i % len(TEXTS)] for i in range(100)]})
        bench.send([text_row(0), {"key": "many", "value": texts},
                    {"key": "bad", "value": b'{"text": "' + b"x" * 900000}, text_row(1)])
        _, letters = run_through(bench, 2, 2, *extra)
        assert header(letters[1], "_code") == "output_too_large"
        assert letters[1].value().decode() == texts
        assert header(letters[2], "_code") == "bad_json"
        assert len(letters[2].value()) == 900010 // 16


@slow
def case_compacted(bench):
    """Topics that take no record without a key are given the id in its place."""
    compact = ["cleanup.policy=compact"]
    rows = [text_row(0), {"value": "no key"}, text_row(1), {"value": '{"nokey":"bad", "text":1}'},
            {"value": '{"id": "named", "text": "a"}'}, {"key": "k3", "value": b"\x81"}, text_row(2)]
    for extra in each_mode(bench, out_config=compact, dlq_config=compact):
        bench.send(rows)
        outs, letters = run_through(bench, 5, 2, *extra)
        topic = bench.topic("in")
        assert {out.key().decode() for out in outs} == {"key-0", "key-1", "key-2", "named",
                                                         f"{topic}/0/1"}, outs
        assert letters[3].key().decode() == f"{topic}/0/3" and letters[5].key() == b"k3"
    for extra in each_mode(bench, begin="plain"):
        bench.send(rows)
        outs, letters = run_through(bench, 5, 2, *extra)
        assert sorted(out.key() is None for out in outs) == [False] * 3 + [True] * 2
        assert letters[3].key() is None


def case_undeliverable(bench):
    """Even the bare dead letter is too large: the worker ends and names the offset, or goes on."""
    for extra in each_mode(bench, dlq_config=["max.message.bytes=120"]):
        bench.send([text_row(0), {"key": "bad", "value": b"\x81"}, text_row(1)])
        worker = bench.start_worker(*extra)
        assert worker.wait(timeout=60) == 69, bench.log()
        assert f'{bench.topic("in")}/0/1' in bench.log(), bench.log()
        assert "--undeliverable drop" in bench.log(), bench.log()
        assert bench.committed() <= 1
        worker = bench.start_worker(*extra, "--undeliverable", "drop")
        bench.wait_lag_0()
        bench.stop(worker)
        assert f'{bench.topic("in")}/0/1' in bench.log(2) and '"undeliverable":1' in bench.log(2)
        assert {out.key() for out in bench.read()} == {b"key-0", b"key-1"}
        assert not bench.read("dlq")


def case_doctor(bench):
    """The limits of topics are compared beforehand, and compacted ones named."""
    bench.make_topics(1)
    code, rows = bench.doctor()
    assert code == 0 and "limits" not in rows and "compaction" not in rows, rows
    code, rows = bench.doctor("-X", "producer.message.max.bytes=5000")
    assert code == 0 and rows["limits"][0] == "warn" and "at most 5000" in rows["limits"][1], rows
    bench.begin("doctor-small")
    bench.make_topics(1, ["cleanup.policy=compact"], ["max.message.bytes=2000"])
    code, rows = bench.doctor()
    assert code == 0 and rows["limits"][0] == "warn", rows
    assert "1048588" in rows["limits"][1] and "2000" in rows["limits"][1], rows
    assert "max.message.bytes=1048588" in rows["limits"][1], rows
    assert rows["compaction"][0] == "ok" and bench.topic("out") in rows["compaction"][1], rows
    bench.begin("doctor-compacted")
    bench.make_topics(1, (), ["cleanup.policy=compact,delete"])
    code, rows = bench.doctor()
    assert code == 0 and rows["compaction"][0] == "warn", rows
    assert bench.topic("dlq") in rows["compaction"][1] and "limits" not in rows, rows


def poison_rows(kind):
    """A thousand texts and one that is refused in its own way."""
    rows = [text_row(i) | {"partition": i % 3} for i in range(1000)]
    rows.insert(POISON, {"partition": 1} | {"large key": {"key": "K" * 1048300, "value": "v"},
                         "large headers": {"key": "h", "value": b"\x81",
                                           "headers": [("h", b"y" * 1048200)]},
                         "output": {"key": "many", "value": json.dumps({"texts": TEXTS * 30})},
                         "no key": {"value": b"\x81"}}[kind])
    return rows


@slow
def case_one_in_a_thousand(bench):
    """Three workers, one of them killed every second: all come out, one goes aside, nobody ends."""
    for kind in ("large key", "large headers", "output", "no key"):
        for extra in each_mode(bench, begin="thousand-" + kind.replace(" ", "-"), partitions=3,
                               out_config=["max.message.bytes=500000", "cleanup.policy=compact"],
                               dlq_config=["cleanup.policy=compact"]):
            vectors = bench.reference()
            began = time.monotonic()
            team = Team(bench, 3, *extra, "--batch-texts", "16")
            send_large(bench, poison_rows(kind))
            for slot in range(3):
                time.sleep(1)
                team.replace(slot, 9)
            wait_for("lag 0", lambda team=team: team.tend() or bench.lag() == 0, 90)
            codes = team.stop()
            row = bench.counts(bench.read(), 1000, vectors)
            letters = {(header(letter, "_partition"), header(letter, "_offset"))
                       for letter in bench.read("dlq")}
            print(f"        {kind}: {row}, dead {letters}, {time.monotonic() - began:.1f} s",
                  flush=True)
            assert not any(row[what] for what in ("lost", "strangers", "wrong")), row
            assert not row["doubled"] or extra[:2] != MODES["exactly-once"], row
            assert letters == {("1", "139")}, letters
            assert not team.restarts and codes == [0, 0, 0], (codes, team.crashes)


def case_from_redis(bench):
    """Fields that Kafka takes as headers only up to its limit, and messages without keys."""
    bench.make_topics(1, out_config=["cleanup.policy=compact"],
                      dlq_config=["cleanup.policy=compact"])
    with RedisBench(bench.binary) as other:
        other.start_server()
        for i in range(1000):
            other.client.xadd("texts", {"body": text_row(i)["value"]})
            if i == POISON:
                other.client.xadd("texts", {"body": b"\x81", "wide": b"w" * 3000000})
                other.client.xadd("texts", {"body": "a text", "wide": b"w" * 150000000})
        vectors = bench.reference()
        extra = ("--source", "redis", "--redis-url", f"redis://127.0.0.1:{other.port}",
                 "--redis-claim-idle", "2s", "--batch-texts", "16")
        team = Team(bench, 3, *extra)
        for slot in range(3):
            time.sleep(1)
            team.replace(slot, 9)

        def is_done():
            team.tend()
            [group] = other.client.xinfo_groups("texts")
            return group["pending"] == 0 and group["lag"] == 0
        wait_for("all acked", is_done, 90)
        assert team.stop() == [0, 0, 0] and not team.restarts, team.crashes
        row = bench.counts(bench.read(), 1000, vectors)
        assert not any(row[what] for what in ("lost", "strangers", "wrong")), row
        codes = {header(letter, "_code") for letter in bench.read("dlq")}
        assert codes == {"bad_msgpack", "output_too_large"}, codes


@slow
def case_to_redis(bench):
    """A key of another type among a thousand hashes, and a right that is missing to one."""
    for kind in ("type", "right"):
        bench.begin("to-redis-" + kind)
        bench.make_topics(4)
        rows = [{"key": f"key-{i}", "value": json.dumps({"id": f"id-{i}", "text": TEXTS[i % 12]})}
                for i in range(1000)]
        rows.insert(POISON, {"key": "p", "value": '{"id": "poison", "text": "a"}'})
        with RedisBench(bench.binary) as other:
            other.start_server()
            user = ""
            if kind == "type":
                other.client.set("embedding:poison", "of another program")
            else:
                other.client.execute_command("ACL", "SETUSER", "w", "on", ">pw", "+@all", "~texts*",
                                             "~embedding:id-*")
                user = "w:pw@"
            team = Team(bench, 3, "--sink", "redis", "--redis-output", "hash", "--redis-url",
                        f"redis://{user}127.0.0.1:{other.port}", "--batch-texts", "16")
            bench.send(rows)
            for slot in range(3):
                time.sleep(1)
                team.replace(slot, 9)
            wait_for("lag 0", lambda team=team: team.tend() or bench.lag() == 0, 90)
            assert team.stop() == [0, 0, 0] and not team.restarts, team.crashes
            assert len(other.client.keys("embedding:id-*")) == 1000
            letters = [fields for _, fields in other.client.xrange("texts:dlq")]
            assert letters and {letter[b"_key"] for letter in letters} == {b"p"}, letters
            assert b"embedding:poison" in letters[0][b"_error"], letters
            code = {"type": b"key_wrong_type", "right": b"key_not_allowed"}[kind]
            assert letters[0][b"_code"] == code, letters


@slow
def case_unknown_code(bench):
    """A broker, or what stands before it, refuses one output by a code that says nothing: its
    neighbours come out once, and it becomes a letter; killed workers change nothing of that. In one
    partition exactly once nothing can be committed before it, and others show it on trial."""
    port = int(bench.addresses["BOOTSTRAP_PROXIED"].split(":")[1])
    for code in (1234, -1):
        for extra in each_mode(bench, begin=f"unknown{code}"):
            bench.send([text_row(i) for i in range(50)] +
                       [{"key": "p", "value": json.dumps({"id": "POISON-1", "text": "p"})}] +
                       [text_row(i) for i in range(50, 100)])
            with KafkaRefuser(port, bench.port + 5, bench.topic("out").encode(), b"POISON-1",
                              code) as refuser:
                begin = ("-X", "compression.type=none", "--batch-texts", "16", *extra)
                for _ in range(2):
                    worker = bench.start_worker(*begin,
                                                addresses=bench.addresses["BOOTSTRAP_PROXIED"])
                    seen = refuser.refused
                    wait_for("a refusal", lambda refuser=refuser, seen=seen: refuser.refused > seen)
                    bench.kill(worker)
                worker = bench.start_worker(*begin, addresses=bench.addresses["BOOTSTRAP_PROXIED"])
                n = 100
                while bench.lag() and n < 400: # others have to pass three times
                    bench.send_texts(n, 5)
                    n += 5
                    time.sleep(0.5)
                bench.wait_lag_0(90)
                bench.stop(worker)
                row = bench.counts(bench.read(), n, bench.reference())
                letters = bench.read("dlq")
                print(f"        {code} {' '.join(extra)}: refused {refuser.refused} times, {row}, "
                      f"{len(letters)} letters", flush=True)
                assert not row["lost"] and not row["wrong"] and not row["strangers"], row
                assert extra == () or not row["doubled"], row
                assert {header(letter, "_code") for letter in letters} == {"output_refused"}
                assert {letter.key() for letter in letters} == {b"p"}
                assert extra == () or len(letters) == 1, letters


@slow
def case_unknown_crowd(bench):
    """More records at fault than three workers have batches, before a thousand good ones: some by
    what they are, some by a code that says nothing. Workers are killed meanwhile."""
    port = int(bench.addresses["BOOTSTRAP_PROXIED"].split(":")[1])
    for extra in each_mode(bench, begin="crowd", partitions=3):
        doubted = [{"key": f"doubted-{i}", "partition": i % 3,
                    "value": json.dumps({"id": f"POISON-{i}", "text": "p"})} for i in range(24)]
        bad = [{"key": f"bad-{i}", "value": b"\x81"} for i in range(24)]
        with KafkaRefuser(port, bench.port + 5, bench.topic("out").encode(), b"POISON-",
                          1234) as refuser:
            team = Team(bench, 3, "-X", "compression.type=none", "--batch-texts", "16", *extra,
                        addresses=bench.addresses["BOOTSTRAP_PROXIED"])
            for pair in zip(doubted, bad): # one by one, so that each keeps a batch
                bench.send(pair)
                team.pause(0.2)
            wait_for("a refusal", lambda refuser=refuser: refuser.refused > 0)
            n = 0
            for slot in range(3):
                bench.send_texts(n, 300)
                n += 300
                team.pause(2)
                team.replace(slot, 9)
            while bench.lag() and n < 2000: # others have to pass
                bench.send_texts(n, 10)
                n += 10
                team.pause(0.5)
            wait_for("lag 0", lambda team=team: team.tend() or bench.lag() == 0, 120)
            assert team.stop() == [0, 0, 0] and not team.restarts, team.crashes
        row = bench.counts(bench.read(), n, bench.reference())
        letters = bench.read("dlq")
        codes = {letter.key().decode(): header(letter, "_code") for letter in letters}
        print(f"        {' '.join(extra)}: {row}, {len(letters)} letters", flush=True)
        assert not any(row[what] for what in ("lost", "strangers", "wrong")), row
        assert codes == {**{row["key"]: "output_refused" for row in doubted},
                         **{row["key"]: "bad_msgpack" for row in bad}}, codes
        assert extra == () or (not row["doubled"] and len(letters) == 48), (row, len(letters))


def case_unknown_code_alone(bench):
    """While nothing else is there to pass it waits and says so; what comes then shows it."""
    port = int(bench.addresses["BOOTSTRAP_PROXIED"].split(":")[1])
    for extra in each_mode(bench, begin="unknown-alone"):
        bench.send([{"key": "p", "value": json.dumps({"id": "POISON-2", "text": "p"})}])
        with KafkaRefuser(port, bench.port + 5, bench.topic("out").encode(), b"POISON-2",
                          1234) as refuser:
            worker = bench.start_worker("-X", "compression.type=none", *extra,
                                        addresses=bench.addresses["BOOTSTRAP_PROXIED"])
            wait_for("it is tried again", lambda refuser=refuser: refuser.refused >= 3, 60)
            assert not bench.read("dlq") and "sink waits" in bench.log(worker.number)
            n = 0
            while bench.lag() and n < 200:
                bench.send_texts(n, 5)
                n += 5
                time.sleep(1)
            bench.wait_lag_0(90)
            bench.stop(worker)
            row = bench.counts(bench.read(), n, bench.reference())
            assert not row["lost"] and not row["doubled"], row
            assert len(bench.read("dlq")) == 1


def main():
    binary, only = sys.argv[1], sys.argv[2:]
    with Bench(binary) as bench:
        def begin(name):
            bench.case = name
            bench.begin(name)
        bench.start_kafka("--proxy", str(bench.port + 6))
        return run_cases(find_cases(globals()), only, shared(bench, begin))


if __name__ == "__main__":
    sys.exit(main())
