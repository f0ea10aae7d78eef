#!/usr/bin/env python3
"""Workers on a real Redis, killed at random: each id comes out exactly once, with the right vector.

Starts a private redis-server, puts texts of tests/data on a stream, runs three workers on it and
kills one of them with SIGKILL every second or so. In the end, whatever was killed when:
  - every id is in the output stream once, and nothing else is,
  - every embedding has cosine >= 0.99999 to the reference, the same text has the same bytes,
  - nothing is pending and nothing is dead.

Usage: chaos_redis.py EMBEDMILL MODEL [--texts N] [--kills N] [--seed N]
"""
import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import msgpack
import numpy as np
import redis

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, seconds, ready):
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"FAILED: {what} did not happen within {seconds} s")
        time.sleep(0.05)


def ping(client):
    try:
        return client.ping()
    except redis.exceptions.ConnectionError:
        return False


def short_texts():
    """Reference rows and texts of at most about 20 tokens, so that a run takes seconds."""
    with open(os.path.join(DATA, "texts.jsonl"), encoding="utf-8") as f:
        texts = [json.loads(line)["text"] for line in f]
    return [(i, t) for i, t in enumerate(texts) if 0 < len(t) < 80]


def worker_start(binary, model, port, slot, log):
    env = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL_")}
    command = [binary, "run", "--model", model, "--prompt", "none", "--threads", "1",
               "--redis-url", f"redis://127.0.0.1:{port}/0", "--redis-claim-idle", "2s",
               "--redis-consumer", f"worker-{slot}", "--batch-texts", "64",
               "--max-deliveries", "0", "--log-format", "json"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)


def check(client, n_texts, picked):
    reference = np.fromfile(os.path.join(DATA, "embeddings_q8.f32"), dtype="<f4").reshape(-1, 768)
    seen, vectors, faults = {}, {}, []
    for _, fields in client.xrange("texts:embeddings"):
        out = msgpack.unpackb(fields[b"body"])
        seen[out["id"]] = seen.get(out["id"], 0) + 1
        vector = np.frombuffer(out["embedding"], dtype="<f4")
        row = picked[out["id"] % len(picked)][0]
        cosine = float(vector @ reference[row] / np.linalg.norm(reference[row]))
        if cosine < 0.99999:
            faults.append(f"id {out['id']}: cosine {cosine:.7f}")
        if vectors.setdefault(row, out["embedding"]) != out["embedding"]:
            faults.append(f"id {out['id']}: other bytes than the same text before")
    doubled = [i for i, n in seen.items() if n > 1]
    lost = [i for i in range(n_texts) if i not in seen]
    strangers = [i for i in seen if not 0 <= i < n_texts]
    pending = client.xpending("texts", "embedmill")["pending"]
    dead = client.xlen("texts:dlq")
    print(f"in {n_texts}, out {sum(seen.values())}, doubled {len(doubled)}, lost {len(lost)}, "
          f"strangers {len(strangers)}, dead {dead}, pending {pending}, "
          f"wrong vectors {len(faults)}")
    for fault in faults[:5]:
        print("  " + fault)
    return not (doubled or lost or strangers or dead or pending or faults)


def run(args, folder, port, processes):
    client = redis.Redis(port=port)
    server = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1",
                               "--dir", folder, "--save", "", "--appendonly", "no"],
                              stdout=subprocess.DEVNULL)
    processes.append(server)
    wait_for("redis-server answering", 10, lambda: ping(client))
    picked = short_texts()
    for i in range(args.texts):
        body = json.dumps({"id": i, "text": picked[i % len(picked)][1]})
        client.xadd("texts", {"body": body, "n": str(i)})

    choose = random.Random(args.seed)
    log = open(os.path.join(folder, "workers.log"), "ab")
    workers = [worker_start(args.binary, args.model, port, slot, log) for slot in range(3)]
    processes.extend(workers)

    def n_out():
        return client.xlen("texts:embeddings")

    kills = 0
    started = time.monotonic()
    while kills < args.kills and n_out() < args.texts * 9 // 10:
        time.sleep(choose.uniform(0.5, 1.5))
        slot = choose.randrange(3)
        workers[slot].send_signal(signal.SIGKILL)
        workers[slot].wait()
        workers[slot] = worker_start(args.binary, args.model, port, slot, log)
        processes.append(workers[slot])
        kills += 1
    wait_for("every text published", 240, lambda: n_out() >= args.texts)
    wait_for("nothing pending", 30,
             lambda: client.xpending("texts", "embedmill")["pending"] == 0)
    seconds = time.monotonic() - started
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    codes = [worker.wait(timeout=30) for worker in workers]
    print(f"seed {args.seed}: {kills} kills, {seconds:.1f} s, exit codes of the drained {codes}")
    return check(client, args.texts, picked) and codes == [0, 0, 0] and kills > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="embedmill-chaos-")
    processes = []
    good = False
    try:
        good = run(args, folder, free_port(), processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        if not good:
            with open(os.path.join(folder, "workers.log"), encoding="utf-8") as f:
                sys.stdout.writelines(f.readlines()[-30:])
        shutil.rmtree(folder)
    print("1 passed, 0 failed" if good else "0 passed, 1 failed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
