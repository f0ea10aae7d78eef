#!/usr/bin/env python3
"""What a group on a Redis stream loses is reported: a warning with stream, from, to and how many,
and a counter; and the lag is of what is there. On a real server, REDIS_SERVER names another one
(redis-server 7.0 by default; 8 and Valkey count differently). Every case has a server of its own.

Usage: test_redis_reported.py EMBEDMILL [--few] [CASE ...]
"""
import contextlib
import json
import os
import re
import signal
import sys
import time
import urllib.request

from cases import find_cases, run_cases, slow
from redis_bench import Bench, wait_for

METRICS = ("--metrics-listen", "127.0.0.1:0")
GROUP = "embedmill"


def lines_of(bench, msg, name="w"):
    found = [json.loads(line) for line in bench.log(name).splitlines()]
    return [line for line in found if line["msg"].startswith(msg)]


def values_of(bench, name="w"):
    """All metrics of the worker of that name."""
    wait_for("the address in the log", lambda: lines_of(bench, "serving metrics", name), 60)
    address = lines_of(bench, "serving metrics", name)[-1]["listen"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in
            (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def skips_of(bench, name="w"):
    return [tuple(line[key] for key in ("code", "part", "from", "to", "skipped"))
            for line in lines_of(bench, "messages skipped", name) if "part" in line]


def counted(bench, name="w"):
    """{reason: messages}, those that are not 0."""
    found = {re.search('reason="([a-z_]+)"', name).group(1): int(value)
             for name, value in values_of(bench, name).items()
             if name.startswith("embedmill_messages_skipped_total{")}
    return {reason: n for reason, n in found.items() if n}


def expect(bench, line, n, name="w"):
    """That report and no other, and that counter, also after the next looks."""
    wait_for(f"the report {line}", lambda: skips_of(bench, name), 30)
    time.sleep(6)
    assert skips_of(bench, name) == [line], skips_of(bench, name)
    assert counted(bench, name) == ({line[0]: n} if n else {}), counted(bench, name)


def add(bench, first, last):
    """Entries with these ids, each with a text."""
    for i in range(first, last + 1):
        bench.client.xadd("texts", {"text": f"text number {i}", "id": str(i)}, id=f"{i}-0")


def lag(bench, name="w"):
    return values_of(bench, name).get('embedmill_source_lag{part="texts"}')


def wait_ids(bench, ids):
    wait_for(f"embeddings of {ids}", lambda: sorted(map(int, bench.ids())) == sorted(ids), 40)


def server_group(bench):
    [group] = bench.client.xinfo_groups("texts")
    return group


def case_trimmed_before_start(bench):
    """A group that has read nothing, and one in the middle; started again nothing is reported."""
    bench.client.xgroup_create("texts", GROUP, "0", mkstream=True)
    add(bench, 1, 10)
    bench.client.xtrim("texts", maxlen=3, approximate=False)
    worker = bench.start_worker(*METRICS)
    expect(bench, ("trimmed", "texts", "0-0", "8-0", "7"), 7)
    wait_ids(bench, [8, 9, 10])
    bench.stop(worker)
    add(bench, 11, 20)
    bench.client.xtrim("texts", maxlen=2, approximate=False)
    worker = bench.start_worker(*METRICS, name="second")
    expect(bench, ("trimmed", "texts", "10-0", "19-0", "8"), 8, "second")
    wait_ids(bench, [8, 9, 10, 19, 20])
    assert lag(bench, "second") == 0, lag(bench, "second")
    assert server_group(bench)["lag"] == 0, server_group(bench)  # which KEDA reads
    bench.stop(worker)
    worker = bench.start_worker(*METRICS, name="third")
    time.sleep(6)
    assert not skips_of(bench, "third") and not counted(bench, "third"), bench.log("third")
    bench.stop(worker)


@slow
def case_trimmed_at_work(bench):
    """Frozen while its stream is trimmed, it finds the gap before it reads over it; of two workers
    one reports."""
    workers = [bench.start_worker(*METRICS, name=name) for name in ("a", "b")]
    add(bench, 1, 4)
    wait_ids(bench, range(1, 5))
    time.sleep(6)
    for worker in workers:
        worker.send_signal(signal.SIGSTOP)
    time.sleep(0.5)  # both have stopped, and it is looked again before the next read
    add(bench, 11, 30)
    bench.client.xtrim("texts", maxlen=5, approximate=False)
    for worker in workers:
        worker.send_signal(signal.SIGCONT)
    wait_for("the report", lambda: skips_of(bench, "a") or skips_of(bench, "b"))
    time.sleep(12)  # what is pending and gone is found with the next claims
    total = {}
    for name in ("a", "b"):
        for reason, n in counted(bench, name).items():
            total[reason] = total.get(reason, 0) + n
    ids = sorted(map(int, bench.ids()))
    assert ids[-5:] == list(range(26, 31)), ids
    # Whom a blocked read had given an entry before it was trimmed has it all the same.
    assert total["trimmed"] + total.get("deleted", 0) + len(ids) == 24, (
        total, ids, server_group(bench), skips_of(bench, "a"), skips_of(bench, "b"))
    assert total["trimmed"] >= 13, total
    assert lag(bench, "a") == 0 == lag(bench, "b")
    assert server_group(bench)["lag"] == 0, server_group(bench)
    for worker in workers:
        bench.stop(worker)


@slow
def case_all_trimmed(bench):
    """Nothing is left of what was unread."""
    bench.client.xgroup_create("texts", GROUP, "0", mkstream=True)
    add(bench, 1, 6)
    bench.client.xreadgroup(GROUP, "else", {"texts": ">"}, count=2)
    bench.client.xack("texts", GROUP, "1-0", "2-0")
    bench.client.xtrim("texts", maxlen=0, approximate=False)
    worker = bench.start_worker(*METRICS)
    expect(bench, ("trimmed", "texts", "2-0", "6-0", "4"), 4)
    wait_for("lag 0", lambda: lag(bench) == 0)
    bench.stop(worker)


@slow
def case_group_at_gone_id(bench):
    """How many of the entries that are gone lay behind that id, nobody knows."""
    add(bench, 1, 10)
    bench.client.xtrim("texts", maxlen=3, approximate=False)
    bench.client.xgroup_create("texts", GROUP, "5-0")
    worker = bench.start_worker(*METRICS)
    expect(bench, ("trimmed", "texts", "5-0", "8-0", "at most 7"), 7)
    bench.stop(worker)


@slow
def case_stream_recreated(bench):
    """Deleted under a worker, and made again with its ids from the beginning."""
    worker = bench.start_worker(*METRICS)
    add(bench, 1, 5)
    wait_ids(bench, range(1, 6))
    time.sleep(6)
    bench.client.delete("texts")
    add(bench, 1, 3)
    expect(bench, ("stream_deleted", "texts", "5-0", "0-0", "0"), 0)
    wait_for("the new ones", lambda: len(bench.ids()) == 8)
    # With work in hand: what it had taken comes to its end, the rest is gone.
    worker.send_signal(signal.SIGSTOP)
    add(bench, 11, 40)
    time.sleep(0.2)
    worker.send_signal(signal.SIGCONT)
    time.sleep(6)
    bench.stop(worker)


@slow
def case_group_deleted(bench):
    worker = bench.start_worker(*METRICS)
    add(bench, 1, 5)
    wait_ids(bench, range(1, 6))
    time.sleep(6)
    bench.client.xgroup_destroy("texts", GROUP)
    expect(bench, ("group_deleted", "texts", "5-0", "0-0", "0"), 0)
    wait_for("all comes again", lambda: len(bench.ids()) == 10)
    bench.stop(worker)


def case_pending_deleted(bench):
    """Given to a worker that died, and deleted before another takes over."""
    bench.client.xgroup_create("texts", GROUP, "0", mkstream=True)
    add(bench, 1, 8)
    bench.client.xreadgroup(GROUP, "dead", {"texts": ">"}, count=5)
    bench.client.xdel("texts", "2-0", "3-0", "4-0")
    time.sleep(1.2)
    worker = bench.start_worker(*METRICS)
    expect(bench, ("deleted", "texts", "2-0", "4-0", "3"), 3)
    wait_ids(bench, [1, 5, 6, 7, 8])
    assert values_of(bench)["embedmill_deleted_total"] == 3
    bench.stop(worker)


@slow
def case_deleted_inside(bench):
    """Deleted in the midst of what waits, between entries that stay; then again, after some of the
    rest were read; and read over by another group's reader, of which nothing is to be told."""
    bench.client.xgroup_create("texts", GROUP, "0", mkstream=True)
    add(bench, 1, 20)
    bench.client.xreadgroup(GROUP, "else", {"texts": ">"}, count=4)
    bench.client.xack("texts", GROUP, *(f"{i}-0" for i in range(1, 5)))
    bench.client.xdel("texts", "8-0", "9-0", "15-0")
    worker = bench.start_worker(*METRICS)
    expect(bench, ("deleted", "texts", "4-0", "15-0", "3"), 3)
    wait_ids(bench, [i for i in range(5, 21) if i not in (8, 9, 15)])
    assert lag(bench) == 0, lag(bench)
    bench.stop(worker)
    add(bench, 21, 40)
    bench.client.xdel("texts", "25-0")
    bench.client.xreadgroup(GROUP, "else", {"texts": ">"}, count=2)  # the server's counter is gone
    bench.client.xack("texts", GROUP, "21-0", "22-0")
    worker = bench.start_worker(*METRICS, name="second")
    wait_ids(bench, [i for i in range(5, 41) if i not in (8, 9, 15, 21, 22, 25)])
    worker.send_signal(signal.SIGSTOP)
    time.sleep(2.5)  # its read is over
    add(bench, 41, 60)
    bench.client.xdel("texts", "44-0", "45-0")
    worker.send_signal(signal.SIGCONT)
    expect(bench, ("deleted", "texts", "40-0", "45-0", "2"), 2, "second")
    assert len(bench.ids()) == 13 + 17 + 18
    assert lag(bench, "second") == 0, lag(bench, "second")
    bench.stop(worker)


@slow
def case_deleted_inside_many(bench):
    """Of a backlog that is too long to be counted by reading it, nothing wrong is told."""
    bench.client.xgroup_create("texts", GROUP, "0", mkstream=True)
    for i in range(1, 1501):  # the same text, so that it is embedded once
        bench.client.xadd("texts", {"text": "a ferry", "id": str(i)}, id=f"{i}-0")
    bench.client.xreadgroup(GROUP, "else", {"texts": ">"}, count=1)
    bench.client.xack("texts", GROUP, "1-0")
    bench.client.xdel("texts", "700-0")
    worker = bench.start_worker(*METRICS)
    wait_for("all but two", lambda: len(bench.ids()) == 1498, 60)
    time.sleep(6)
    assert counted(bench) in ({}, {"deleted": 1}), counted(bench)
    assert lag(bench) == 0, lag(bench)
    bench.stop(worker)


def case_lag(bench):
    """0 when all is read, also when the newest entry was deleted before or after that."""
    worker = bench.start_worker(*METRICS)
    add(bench, 1, 5)
    wait_ids(bench, range(1, 6))
    bench.client.xdel("texts", "5-0")
    wait_for("lag 0", lambda: lag(bench) == 0)
    worker.send_signal(signal.SIGSTOP)
    time.sleep(2.5)  # its read is over
    add(bench, 6, 6)
    bench.client.xdel("texts", "6-0")
    worker.send_signal(signal.SIGCONT)
    time.sleep(6)
    assert lag(bench) == 0, lag(bench)
    bench.stop(worker)


def case_quiet(bench):
    """Nothing is reported of a stream whose old entries went before its group was made, of one that
    is trimmed behind its group, of acked entries that are deleted, and of restarts."""
    add(bench, 1, 50)
    bench.client.xtrim("texts", maxlen=10, approximate=False)
    worker = bench.start_worker(*METRICS)
    wait_ids(bench, range(41, 51))
    for i in range(51, 90):
        add(bench, i, i)
        if i % 3 == 0:
            wait_ids(bench, range(41, i + 1))
            bench.client.xtrim("texts", maxlen=1, approximate=False)
        if i == 70:
            wait_ids(bench, range(41, i + 1))
            bench.client.xdel("texts", "70-0")
        if i == 80:
            bench.stop(worker)
            worker = bench.start_worker(*METRICS)
    wait_ids(bench, range(41, 90))
    time.sleep(6)
    assert not skips_of(bench) and not counted(bench), skips_of(bench)
    assert not lines_of(bench, "input: the client"), bench.log()
    assert lag(bench) == 0, lag(bench)
    bench.stop(worker)


@slow
def case_denied(bench):
    """A user that may not look: the work goes on, and why the lag is unknown is said once."""
    bench.client.execute_command("ACL", "SETUSER", "w", "on", ">w", "~*", "+@all", "-xinfo")
    worker = bench.start_worker("--redis-url", f"redis://w:w@127.0.0.1:{bench.port}", *METRICS)
    add(bench, 1, 5)
    wait_ids(bench, range(1, 6))
    time.sleep(6)
    [line] = lines_of(bench, "input: the client library says")
    assert line["code"] == "XINFO" and "allow this user" in line["why"], line
    assert lag(bench) is None, lag(bench)
    bench.stop(worker)
    bench.client.execute_command("ACL", "SETUSER", "w", "+xinfo", "-xgroup")
    bench.client.xtrim("texts", maxlen=0)
    add(bench, 11, 15)
    bench.client.xtrim("texts", maxlen=2, approximate=False)
    worker = bench.start_worker("--redis-url", f"redis://w:w@127.0.0.1:{bench.port}", *METRICS,
                                name="noted")
    expect(bench, ("trimmed", "texts", "5-0", "14-0", "3"), 3, "noted")
    bench.stop(worker)


def main():
    binary, only = sys.argv[1], sys.argv[2:]

    @contextlib.contextmanager
    def enter(_):
        with Bench(binary) as bench:
            bench.start_server(program=os.environ.get("REDIS_SERVER", "redis-server"))
            yield bench
    return run_cases(find_cases(globals()), only, enter)


if __name__ == "__main__":
    sys.exit(main())
