#!/usr/bin/env python3
"""Two workers on a real Redis for long, with faults: nothing is lost, and nothing grows.

Worker 0 lives from beginning to end and is what is measured; worker 1 is killed and frozen, and
both see the server and their connections fail. Run by scripts/soak, which says more.

Usage: soak_redis.py EMBEDMILL MINUTES [--rate N] [--seed N] [--out FOLDER]
"""
import argparse
import itertools
import json
import os
import random
import signal
import statistics
import sys
import threading
import time

import msgpack
import redis

from redis_bench import Bench, wait_for

SAMPLE_SECONDS = 2
FREEZE_SECONDS = 3       # longer than the workers' lease of 2 s: their texts are claimed meanwhile
RECOVER_SECONDS = 60
WARM_TEXTS = 40
GROWTH_SHARE, GROWTH_KB = 1.05, 4096


class Producer(threading.Thread):
    """XADD at a steady rate; an id that the server did not confirm is sent again."""

    def __init__(self, port, rate):
        super().__init__(daemon=True)
        self.client = redis.Redis(port=port, socket_timeout=10)
        self.rate, self.n_sent, self.stopping = rate, 0, False

    def run(self):
        started = time.monotonic()
        while not self.stopping:
            if self.n_sent > (time.monotonic() - started) * self.rate:
                time.sleep(1 / self.rate)
                continue
            try:
                body = json.dumps({"id": self.n_sent, "text": f"soak text number {self.n_sent}"})
                self.client.xadd("texts", {"body": body})
                self.n_sent += 1
            except redis.exceptions.RedisError:
                time.sleep(0.1)


def left_behind(client):
    """Texts that no worker has finished."""
    group = client.xinfo_groups("texts")[0]
    return (group["lag"] or 0) + group["pending"]


def id_of(text):
    return tuple(int(part) for part in text.decode().split("-"))


def is_past(client, entry):
    """Whether every text up to this stream entry is finished."""
    group, pending = client.xinfo_groups("texts")[0], client.xpending("texts", "embedmill")
    return (id_of(group["last-delivered-id"]) >= entry
            and (not pending["pending"] or id_of(pending["min"]) > entry))


def sample_of(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        kb = {line.split()[0]: int(line.split()[1]) for line in f if line.rstrip().endswith("kB")}
    # Not Private_Clean: pages of the mapped model, which are shared while another worker lives.
    return {"private_kb": kb["Private_Dirty:"],
            "fds": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": len(os.listdir(f"/proc/{pid}/task"))}


class Sampler(threading.Thread):
    def __init__(self, pid, port):
        super().__init__(daemon=True)
        self.client = redis.Redis(port=port, socket_timeout=1)
        self.pid, self.samples, self.stopping = pid, [], False
        self.started = time.monotonic()

    def run(self):
        while not self.stopping:
            sample = sample_of(self.pid)
            sample["seconds"] = time.monotonic() - self.started
            try:
                sample["left"] = left_behind(self.client)
            except redis.exceptions.RedisError:
                sample["left"] = None
            self.samples.append(sample)
            time.sleep(SAMPLE_SECONDS)


def warm_up(client):
    """Long texts, so that every page of scratch has been touched before anything is measured."""
    for _ in range(WARM_TEXTS):
        client.xadd("texts", {"text": " ".join(f"word{n}" for n in range(400))})
    wait_for("the first texts done", lambda: client.xlen("texts:embeddings") == WARM_TEXTS, 120)
    wait_for("nothing left", lambda: left_behind(client) == 0)
    client.xtrim("texts", maxlen=0, approximate=False)
    client.xtrim("texts:embeddings", maxlen=0, approximate=False)


class Soak:
    def __init__(self, bench, choose):
        self.bench, self.choose = bench, choose
        self.workers = [self.worker_start(0), self.worker_start(1)]
        self.faults = []

    def worker_start(self, slot):
        return self.bench.start_worker("--redis-claim-idle", "2s", "--max-deliveries", "0",
                                       name=f"soak-{slot}")

    def worker_killed(self):
        self.workers[1].kill()
        self.workers[1].wait()
        self.workers[1] = self.worker_start(1)

    def worker_drained(self):
        self.bench.stop(self.workers[1])
        self.workers[1] = self.worker_start(1)

    def frozen(self, process):
        process.send_signal(signal.SIGSTOP)
        time.sleep(FREEZE_SECONDS)
        process.send_signal(signal.SIGCONT)

    def worker_frozen(self):
        self.frozen(self.workers[1])

    def server_frozen(self):
        self.frozen(self.bench.server)

    def server_killed(self):
        self.bench.server.kill()
        self.bench.server.wait()
        time.sleep(self.choose.uniform(0, 2))
        self.bench.start_server()

    def connections_cut(self):
        self.bench.client.client_kill_filter(_type="normal", skipme=True)

    def break_something(self, at):
        fault = self.choose.choice([self.worker_killed, self.worker_drained, self.worker_frozen,
                                    self.server_frozen, self.server_killed, self.connections_cut])
        fault()
        over = time.monotonic()
        client = self.bench.client
        last = id_of(client.xinfo_stream("texts")["last-generated-id"])
        wait_for(f"all that was sent before {fault.__name__} ended",
                 lambda: is_past(client, last), RECOVER_SECONDS)
        took = time.monotonic() - over
        self.faults.append({"seconds": at, "fault": fault.__name__, "recovered": took})
        print(f"{at:7.1f} s  {fault.__name__:16} caught up after {took:5.1f} s", flush=True)

    def run(self, minutes, rate):
        producer = Producer(self.bench.port, rate)
        sampler = Sampler(self.workers[0].pid, self.bench.port)
        producer.start()
        sampler.start()
        started = time.monotonic()
        while (pause := self.choose.uniform(5, 15)) + time.monotonic() - started < minutes * 60:
            time.sleep(pause)
            self.break_something(time.monotonic() - started)
        producer.stopping = True
        producer.join()
        wait_for("everything finished", lambda: left_behind(self.bench.client) == 0,
                 RECOVER_SECONDS)
        time.sleep(2 * SAMPLE_SECONDS)
        sampler.stopping = True
        sampler.join()
        return producer.n_sent, sampler.samples


def count_out(client, n_sent):
    """Doubled and lost ids. A text that was sent twice, its first XADD being confirmed to nobody,
    comes out twice; it is told from a doubled one by its own entries."""
    sent = [json.loads(fields[b"body"])["id"] for _, fields in client.xrange("texts")]
    out = [msgpack.unpackb(fields[b"body"])["id"]
           for _, fields in client.xrange("texts:embeddings")]
    n_sent_of, n_out_of = [0] * n_sent, [0] * n_sent
    for i in sent:
        n_sent_of[i] += 1
    for i in out:
        n_out_of[i] += 1
    doubled = sum(o > s for s, o in zip(n_sent_of, n_out_of))
    lost = sum(o < s for s, o in zip(n_sent_of, n_out_of))
    print(f"in {len(sent)}, out {len(out)}, doubled {doubled}, lost {lost}")
    return doubled == 0 and lost == 0 and all(n_sent_of)


def is_flat(samples):
    """The last quarter of the run against the second: by then everything is warm."""
    quarter = len(samples) // 4
    early, late = samples[quarter:2 * quarter], samples[-quarter:]
    good = True
    for name, most in (("private_kb", lambda x: x * GROWTH_SHARE + GROWTH_KB),
                       ("fds", lambda x: x + 1), ("threads", lambda x: x)):
        before = statistics.median(s[name] for s in early)
        after = statistics.median(s[name] for s in late)
        good &= after <= most(before)
        print(f"{name:10} second quarter {before:8.0f}, last quarter {after:8.0f}"
              f"{'' if after <= most(before) else '  GROWS'}")
    return good


def draw(samples, faults, path):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, rows = plt.subplots(4, 1, sharex=True, figsize=(10, 9), layout="constrained")
    minutes = [s["seconds"] / 60 for s in samples]
    for row, (name, label, scale) in zip(rows, (("private_kb", "private memory, MiB", 1 / 1024),
                                                ("fds", "file descriptors", 1),
                                                ("threads", "threads", 1),
                                                ("left", "texts not finished", 1))):
        row.plot(minutes, [None if s[name] is None else s[name] * scale for s in samples],
                 linewidth=1.2)
        row.set_ylabel(label)
        row.margins(y=0.2)
        row.set_ylim(bottom=0)
        row.grid(alpha=0.3)
    names = sorted({f["fault"] for f in faults})
    for name, color in zip(names, itertools.cycle(plt.cm.tab10.colors)):
        for i, fault in enumerate(f for f in faults if f["fault"] == name):
            for row in rows:
                row.axvline(fault["seconds"] / 60, color=color, alpha=0.35, linewidth=0.8,
                            label=name.replace("_", " ") if i == 0 and row is rows[0] else None)
    rows[0].legend(ncols=3, fontsize="small", loc="lower right")
    rows[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("minutes", type=float)
    parser.add_argument("--rate", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="build/soak")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    print(f"seed {args.seed}, {args.rate} texts/s, {args.minutes:g} minutes", flush=True)
    with Bench(args.binary) as bench:
        bench.start_server("--appendfsync", "always")
        soak = Soak(bench, random.Random(args.seed))
        warm_up(bench.client)
        try:
            n_sent, samples = soak.run(args.minutes, args.rate)
        except Exception:
            for slot in range(2):
                print("".join(bench.log(f"soak-{slot}").splitlines(True)[-10:]))
            raise
        good = count_out(bench.client, n_sent) and is_flat(samples)
        for worker in soak.workers:
            bench.stop(worker)
    with open(os.path.join(args.out, "soak.json"), "w", encoding="utf-8") as f:
        json.dump({"samples": samples, "faults": soak.faults}, f)
    draw(samples, soak.faults, os.path.join(args.out, "soak.png"))
    print("1 passed, 0 failed" if good else "0 passed, 1 failed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
