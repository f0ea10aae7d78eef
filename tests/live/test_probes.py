#!/usr/bin/env python3
"""Probes are answered whatever strangers do at the metrics' address: for a minute a thousand
connections send nothing, half a request, or a byte now and then, and connect again when they are
closed, while a worker embeds. Every probe is answered within a second, and the work goes on.

Usage: test_probes.py EMBEDMILL [SECONDS]
"""
import multiprocessing
import os
import re
import selectors
import socket
import sys
import time

from redis_bench import Bench, wait_for

N_STRANGERS = 1000
PROBE_S = 0.2
# What a connection sends at once, and then every second. Most come from the probes' own address.
KINDS = ((b"", b""), (b"GET /livez HTTP/1.1\r\n", b""), (b"G", b"E"),
         (b"GET /livez HTTP/1.1\r\n", b"x: y\r\n"))


def stranger_of(number, where):
    s = socket.socket()
    s.setblocking(False)
    if number % 5 == 4:
        s.bind((f"127.0.1.{1 + number % 50}", 0))
    s.connect_ex(where)
    return s


def strangers(where, ending, n_connects):
    """A thousand of them, each connecting again as soon as it is hung up on."""
    selector = selectors.DefaultSelector()
    due = {}

    def connect(number):
        s = stranger_of(number, where)
        selector.register(s, selectors.EVENT_WRITE, number)
        n_connects.value += 1

    def drop(s, number):
        selector.unregister(s)
        due.pop(s, None)
        s.close()
        connect(number)

    for number in range(N_STRANGERS):
        connect(number)
    while not ending.is_set():
        now = time.monotonic()
        for key, events in selector.select(0.05):
            s, number = key.fileobj, key.data
            try:
                if events & selectors.EVENT_WRITE:
                    s.send(KINDS[number % len(KINDS)][0] or b"")
                    selector.modify(s, selectors.EVENT_READ, number)
                    due[s] = now + 1
                elif not s.recv(4096):
                    drop(s, number)
            except OSError:
                drop(s, number)
        for s, when in list(due.items()):
            if when > now or s.fileno() < 0:
                continue
            number = selector.get_key(s).data
            due[s] = now + 1
            try:
                s.send(KINDS[number % len(KINDS)][1])
            except OSError:
                drop(s, number)


def probe(where, page):
    """Seconds until the whole answer was there; a connection of its own, as orchestrators have."""
    began = time.monotonic()
    with socket.create_connection(where, timeout=10) as s:
        s.sendall(f"GET {page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while more := s.recv(65536):
            answer += more
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:100]
    return time.monotonic() - began, answer


def cpu_seconds(pid, of="task/{}/stat"):
    """CPU time of the loop thread."""
    with open(f"/proc/{pid}/{of.format(pid)}", encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watch(where, worker, seconds):
    """(slowest probe, probes, texts a second, texts a second of CPU time, the share of a CPU of the
    loop thread). The strangers run on the same CPUs, so the second rate says what they cost."""
    def texts():
        return int(re.search(rb"embedmill_texts_embedded_total (\d+)",
                             probe(where, "/metrics")[1]).group(1))
    times, pages = [], ("/livez", "/readyz", "/metrics")
    began, first, cpu = time.monotonic(), texts(), cpu_seconds(worker.pid)
    all_cpu = cpu_seconds(worker.pid, "stat")
    while time.monotonic() - began < seconds:
        times.append(probe(where, pages[len(times) % len(pages)])[0])
        time.sleep(PROBE_S)
    took = time.monotonic() - began
    n = texts() - first
    return (max(times), len(times), n / took, n / (cpu_seconds(worker.pid, "stat") - all_cpu),
            (cpu_seconds(worker.pid) - cpu) / took)


def main():
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60
    with Bench(sys.argv[1]) as bench:
        bench.start_server()
        batch = bench.client.pipeline(transaction=False)
        for i in range(60000): # more than it can do in that time
            batch.xadd("texts", {"text": f"text number {i}", "id": str(i)})
        batch.execute()
        worker = bench.start_worker("--metrics-listen", "127.0.0.1:0")
        wait_for("the address in the log", lambda: '"serving metrics"' in bench.log(), 60)
        host, port = re.search(r'"serving metrics","listen":"(.*?):(\d+)"', bench.log()).groups()
        where = (host, int(port))
        wait_for("it is at work", lambda: b"texts_embedded_total 0\n" not in
                 probe(where, "/metrics")[1])
        quiet = watch(where, worker, seconds / 3)
        ending, n_connects = multiprocessing.Event(), multiprocessing.Value("Q", 0)
        crowd = multiprocessing.Process(target=strangers, args=(where, ending, n_connects),
                                        daemon=True)
        crowd.start()
        try:
            time.sleep(2)
            crowded = watch(where, worker, seconds)
        finally:
            ending.set()
            crowd.join(10)
        again = watch(where, worker, seconds / 3)
        bench.stop(worker)
    for what, (slowest, n, rate, cpu_rate, cpu) in (("quiet", quiet), ("crowded", crowded),
                                          ("quiet again", again)):
        print(f"{what}: {n} probes, the slowest {slowest * 1000:.0f} ms; {rate:.1f} texts/s, "
              f"{cpu_rate:.1f} a second of CPU time; loop thread {100 * cpu:.1f} % of a CPU")
    print(f"{n_connects.value} connections of strangers")
    assert n_connects.value > 2 * N_STRANGERS, "the strangers did not try"
    assert crowded[1] > seconds / (1 + PROBE_S) and crowded[0] < 1, crowded
    assert crowded[4] - max(quiet[4], again[4]) < 0.15, "strangers cost too much of the loop"
    assert crowded[3] > 0.7 * min(quiet[3], again[3]), "strangers cost too much"
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
