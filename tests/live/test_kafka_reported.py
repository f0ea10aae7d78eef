#!/usr/bin/env python3
"""What a worker on a real Apache Kafka misses or changes, it reports: a warning with partition,
from, to and how many, and counters. Every case has topics and a group of its own.

Usage: test_kafka_reported.py EMBEDMILL [--few] [CASE ...]    (KAFKA_VERSION=4.4.0: on that one)
"""
import json
import os
import re
import socket
import struct
import sys
import time
import urllib.request

import msgpack
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from cases import find_cases, run_cases, shared, slow
from kafka_bench import Bench, text_row, wait_for
from kafka_faults import MODES

HOUR = 3600_000
METRICS = ("--metrics-listen", "127.0.0.1:0")


def lines_of(bench, msg, number=None):
    found = [json.loads(line) for line in bench.log(number or bench.n_started).splitlines()]
    return [line for line in found if line["msg"].startswith(msg)]


def values_of(bench):
    """All metrics of the worker started last."""
    wait_for("the address in the log", lambda: lines_of(bench, "serving metrics"), 60)
    address = lines_of(bench, "serving metrics")[-1]["listen"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in
            (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def case_timestamps(bench):
    """A topic refuses a batch for one record two hours ahead: that one alone loses its timestamp,
    and this is counted and said. Nor do a thousand neighbours wait for each other."""
    for mode, extra in MODES.items():
        bench.begin("timestamps-" + mode)
        for suffix, limit in (("in", 100 * HOUR), ("out", HOUR), ("dlq", HOUR)):
            bench.kafka("topic", bench.topic(suffix), "2" if suffix == "out" else "1",
                        f"message.timestamp.after.max.ms={limit}")
        now = int(time.time() * 1000)
        ahead = {7: 2 * HOUR, 300: 3 * HOUR, 301: 3 * HOUR}
        rows = [text_row(i) | {"timestamp": now - 10 * HOUR + i + ahead.get(i, 0) +
                               (10 * HOUR if i in ahead else 0)} for i in range(600)]
        rows[50]["timestamp"] = now + HOUR // 2 # ahead, and within the limit
        bench.send(rows)
        worker = bench.start_worker(*extra, *METRICS)
        bench.wait_lag_0(120)
        counted = values_of(bench)["embedmill_replaced_timestamps_total"]
        bench.stop(worker)
        outs = {msgpack.unpackb(out.value())["id"]: out.timestamp()[1] for out in bench.read()}
        assert len(outs) == 600, len(outs)
        changed = {i for i, time_ms in outs.items() if time_ms != rows[i]["timestamp"]}
        assert changed == set(ahead), (len(changed), sorted(changed)[:20])
        assert all(abs(outs[i] - time.time() * 1000) < HOUR / 6 for i in changed), outs
        assert counted == len(ahead), counted
        said = lines_of(bench, "output: the client library says")
        assert "-in/0/" in said[0]["why"], said
        assert {line.get("code", "TIMESTAMP") for line in said} == {"TIMESTAMP"}, said


def delete_records(bench, before, partition=0):
    """What an administrator or retention does: all below this offset is gone. The request itself
    (DeleteRecords, version 1), for the client library of the tests has none."""
    def text(value):
        return struct.pack(">h", len(value)) + value.encode()
    body = (struct.pack(">i", 1) + text(bench.topic("in")) +
            struct.pack(">iiqi", 1, partition, before, 10_000))
    request = struct.pack(">hhi", 21, 1, 7) + text("test") + body
    host, port = bench.addresses["BOOTSTRAP"].split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.makefile("rb")
        (size,) = struct.unpack(">i", answer.read(4))
        # Behind number, throttle, topics, name, partitions, number: low watermark and error.
        low, error = struct.unpack(">qh", answer.read(size)[-10:])
    assert (low, error) == (before, 0), (low, error)


def commit(bench, offset, partition=0):
    consumer = Consumer(bench.client(**{"group.id": bench.group, "enable.auto.commit": False}))
    consumer.commit(offsets=[TopicPartition(bench.topic("in"), partition, offset)],
                    asynchronous=False)
    consumer.close()


def skips_of(bench, number=None):
    return [{key: line[key] for key in ("code", "part", "from", "to", "skipped")}
            for line in lines_of(bench, "messages skipped", number)]


def counted(bench):
    """{reason: messages}, those that are not 0."""
    found = {re.search('reason="([a-z_]+)"', name).group(1): int(value)
             for name, value in values_of(bench).items()
             if name.startswith("embedmill_messages_skipped_total{")}
    assert len(found) == 10, found # all are there from the start
    return {reason: n for reason, n in found.items() if n}


def expect(bench, line, n):
    """Exactly that report, and that counter."""
    line = dict(zip(("code", "from", "to", "skipped"), line), part=bench.topic("in") + "/0")
    wait_for(f"the report {line}", lambda: skips_of(bench), 30)
    time.sleep(4) # a second one would come by now
    assert skips_of(bench) == [line], skips_of(bench)
    assert counted(bench) == ({line["code"]: n} if n else {}), counted(bench)


def ids_of(bench):
    return sorted(msgpack.unpackb(out.value())["id"] for out in bench.read())


@slow
def case_beyond_end(bench):
    """The group's offset is behind the end: the partition is read from its beginning, and that is
    said; with latest what is left out is counted; with error the worker ends and says where."""
    for reset in ("earliest", "latest", "error"):
        bench.begin("beyond-" + reset)
        bench.make_topics(1)
        bench.send_texts(0, 3)
        commit(bench, 500)
        worker = bench.start_worker(*METRICS, "-X", "auto.offset.reset=" + reset)
        if reset == "error":
            assert worker.wait(60) == 69
            assert f"{bench.topic('in')}/0 at offset 500" in bench.log(), bench.log()
            continue
        to, skipped, n = ("0", "unknown", 1) if reset == "earliest" else ("3", "3", 3)
        expect(bench, ("offset_beyond_end", "500", to, skipped), n)
        bench.send_texts(3, 3)
        bench.wait_lag_0()
        assert ids_of(bench) == list(range(0 if reset == "earliest" else 3, 6)), ids_of(bench)
        bench.stop(worker)


def case_retention(bench):
    """Records were deleted while no worker ran."""
    for reset in ("earliest", "latest"):
        bench.begin("retention-" + reset)
        bench.make_topics(1)
        bench.send_texts(0, 20)
        commit(bench, 5)
        delete_records(bench, 12)
        worker = bench.start_worker(*METRICS, "-X", "auto.offset.reset=" + reset)
        to = 12 if reset == "earliest" else 20
        expect(bench, ("retention", "5", str(to), str(to - 5)), to - 5)
        bench.wait_lag_0()
        bench.stop(worker)
        assert ids_of(bench) == list(range(to, 20)), ids_of(bench)


@slow
def case_retention_at_work(bench):
    """... and while one is at work, in both modes: twice, and each is counted once."""
    for mode, extra in MODES.items():
        bench.begin("at-work-" + mode)
        bench.make_topics(1)
        # It fetches no further ahead than a few of these, and is slow to embed them.
        row = {"value": json.dumps({"id": 0, "texts": ["word " * 300] * 4, "x": "y" * 50_000})}
        worker = bench.start_worker(*METRICS, *extra, "-X", "queued.max.messages.kbytes=100",
                                    "-X", "fetch.message.max.bytes=50000", "--batch-texts", "4",
                                    "--batches", "2")
        bench.send([row for _ in range(400)])
        wait_for("some of it is done", lambda: bench.committed() > 0)
        delete_records(bench, 40)
        wait_for("the report", lambda: skips_of(bench), 60)
        time.sleep(10) # sooner, the second line would be held back
        delete_records(bench, 380)
        wait_for("the second report", lambda: len(skips_of(bench)) == 2, 60)
        bench.wait_lag_0(120)
        first, second = skips_of(bench)
        assert first["to"] == "40" and second["to"] == "380", (first, second)
        n_read = len(bench.read())
        n_skipped = sum(int(line["skipped"]) for line in (first, second))
        assert n_read + n_skipped == 400, (n_read, first, second)
        assert counted(bench) == {"retention": n_skipped}, counted(bench)
        bench.stop(worker)


@slow
def case_no_offset(bench):
    """A new group that begins at the end leaves out what is there, which is said."""
    bench.make_topics(1)
    bench.send_texts(0, 7)
    worker = bench.start_worker(*METRICS, "-X", "auto.offset.reset=latest")
    expect(bench, ("no_offset", "0", "7", "7"), 7)
    bench.stop(worker)
    worker = bench.start_worker(*METRICS, "-X", "auto.offset.reset=latest")
    wait_for("it is there", lambda: lines_of(bench, "source is up"), 30)
    time.sleep(4)
    assert not skips_of(bench) and not counted(bench), skips_of(bench)
    bench.stop(worker)
    bench.begin("offset-earliest")
    bench.make_topics(1)
    bench.send_texts(0, 7)
    worker = bench.start_worker(*METRICS)
    bench.wait_lag_0()
    assert not skips_of(bench) and not counted(bench), skips_of(bench)
    bench.stop(worker)


def remake(bench, pause):
    admin = AdminClient(bench.client())
    topic = bench.topic("in")
    admin.delete_topics([topic])[topic].result(30)
    time.sleep(pause)
    def is_made():
        try:
            admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
            return True
        except KafkaException:
            return False
    wait_for("the topic is made again", is_made, 30)


@slow
def case_recreated(bench):
    """A topic is deleted and made again under a worker: all of the new one is read, and what was
    unread of the old one is reported; quickly and slowly, at work and with nothing to do."""
    for mode, extra in MODES.items():
        for pause in (0, 12):
            bench.begin(f"recreated-{mode}-{pause}")
            bench.make_topics(1)
            bench.send_texts(0, 30)
            worker = bench.start_worker(*METRICS, *extra)
            bench.wait_lag_0()
            time.sleep(4) # it has seen the end
            remake(bench, pause)
            bench.send_texts(100, 10)
            wait_for("all of the new one",
                     lambda: ids_of(bench)[-10:] == list(range(100, 110)), 60)
            wait_for("the report", lambda: skips_of(bench), 30)
            [line] = skips_of(bench)
            assert tuple(line.values())[2:] == ("30", "0", "0"), line
            assert line["code"] == "topic_recreated", line
            bench.stop(worker)


def case_quiet(bench):
    """Nothing is reported of rebalances, kills and restarts."""
    bench.make_topics(3)
    bench.send_texts(0, 60)
    for _ in range(3):
        worker = bench.start_worker(*METRICS, "--batch-texts", "4")
        other = bench.start_worker(*METRICS, "--batch-texts", "4")
        bench.send_texts(60, 30)
        bench.wait_lag_0()
        bench.kill(worker)
        bench.send_texts(90, 30)
        bench.wait_lag_0()
        bench.stop(other)
    for number in range(1, bench.n_started + 1):
        assert not skips_of(bench, number), skips_of(bench, number)
        assert not lines_of(bench, "input: the client", number), bench.log(number)
        assert not lines_of(bench, "output: the client", number), bench.log(number)


def main():
    binary, only = sys.argv[1], sys.argv[2:]
    with Bench(binary) as bench:
        bench.start_kafka("--version", os.environ.get("KAFKA_VERSION", "3.9.2"))
        return run_cases(find_cases(globals()), only, shared(bench, bench.begin))


if __name__ == "__main__":
    sys.exit(main())
