#!/usr/bin/env python3
"""What a worker on a real Apache Kafka misses or changes, it reports: a warning with partition,
from, to and how many, and counters. Every case has topics and a group of its own.

Usage: test_kafka_reported.py EMBEDMILL [CASE ...]    (KAFKA_VERSION=4.4.0: on that one)
"""
import json
import os
import re
import sys
import time
import urllib.request

import msgpack

from kafka_bench import Bench, text_row, wait_for
from kafka_faults import MODES

SEED = 5
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
        bench.make_topics(1, ["message.timestamp.after.max.ms=3600000"])
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
        [line, *_] = lines_of(bench, "output: the client library says")
        assert line["code"] == "TIMESTAMP" and "-in/0/" in line["why"], line


def main():
    binary, only = sys.argv[1], sys.argv[2:]
    cases = {name[5:]: f for name, f in globals().items() if name.startswith("case_")}
    passed = failed = 0
    with Bench(binary) as bench:
        bench.start_kafka("--version", os.environ.get("KAFKA_VERSION", "3.9.2"))
        for name, case in cases.items():
            if only and name not in only:
                continue
            started = time.monotonic()
            bench.begin(name)
            try:
                case(bench)
                passed += 1
                print(f"ok      {name} ({time.monotonic() - started:.1f} s)", flush=True)
            except Exception as error: # every kind of failure is reported and counted
                failed += 1
                print(f"FAILED  {name} (seed {SEED}): {error!r}", flush=True)
                for number in range(1, bench.n_started + 1):
                    print("".join(bench.log(number).splitlines(True)[-12:]))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
