#!/usr/bin/env python3
"""Workers on a real Redis, killed at random: each id comes out exactly once, with the right vector.

Starts a private redis-server, puts texts of tests/data on a stream, runs three workers on it and
kills one of them with SIGKILL every second or so. In the end, whatever was killed when:
  - every id is in the output stream once, and nothing else is; among them are bad messages and such
    as the server refuses, which are dead letters once each,
  - every embedding has cosine >= 0.99999 to the reference, the same text has the same bytes,
  - nothing is pending and nothing else is dead.

Usage: chaos_redis.py EMBEDMILL [--texts N] [--kills N] [--seed N]
"""
import argparse
import json
import os
import random
import sys
import time

import msgpack
import numpy as np

from redis_bench import Bench, wait_for

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")


def short_texts():
    """Reference rows and texts of at most about 20 tokens, so that a run takes seconds."""
    with open(os.path.join(DATA, "texts.jsonl"), encoding="utf-8") as f:
        texts = [json.loads(line)["text"] for line in f]
    return [(i, t) for i, t in enumerate(texts) if 0 < len(t) < 80]


# A message that is bad, one that is too large as a dead letter, one whose output is too large.
POISON = {b"bad_msgpack": {"body": b"\x81"},
          b"bad_json": {"body": b'{"text": "' + b"x" * (1 << 20)},
          b"output_too_large": {"body": json.dumps({"texts": ["a", "b"] * 200})}}


def worker_start(bench, slot):
    return bench.start_worker("--redis-claim-idle", "2s", "--batch-texts", "64",
                              "--max-deliveries", "0", name=f"worker-{slot}")


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
    dead = sorted(fields[b"_code"] for _, fields in client.xrange("texts:dlq"))
    print(f"in {n_texts}, out {sum(seen.values())}, doubled {len(doubled)}, lost {len(lost)}, "
          f"strangers {len(strangers)}, dead {len(dead)}, pending {pending}, "
          f"wrong vectors {len(faults)}")
    for fault in faults[:5]:
        print("  " + fault)
    return not (doubled or lost or strangers or pending or faults) and dead == sorted(POISON)


def run(args, bench):
    client = bench.client
    bench.start_server()
    picked = short_texts()
    poison = list(POISON.values())
    for i in range(args.texts):
        body = json.dumps({"id": i, "text": picked[i % len(picked)][1]})
        client.xadd("texts", {"body": body, "n": str(i)})
        if i % (args.texts // len(POISON)) == 10 and poison:
            client.xadd("texts", poison.pop())
    assert not poison, "not all poison is in the stream"
    client.config_set("proto-max-bulk-len", 1 << 20)

    choose = random.Random(args.seed)
    workers = [worker_start(bench, slot) for slot in range(3)]

    def n_out():
        return client.xlen("texts:embeddings")

    kills = 0
    started = time.monotonic()
    while kills < args.kills and n_out() < args.texts * 9 // 10:
        time.sleep(choose.uniform(0.5, 1.5))
        slot = choose.randrange(3)
        workers[slot].kill()
        workers[slot].wait()
        workers[slot] = worker_start(bench, slot)
        kills += 1
    wait_for("every text published", lambda: n_out() >= args.texts, 240)
    wait_for("nothing pending", lambda: client.xpending("texts", "embedmill")["pending"] == 0)
    seconds = time.monotonic() - started
    for worker in workers:
        bench.stop(worker)
    print(f"seed {args.seed}: {kills} kills, {seconds:.1f} s, all workers drained with exit code 0")
    return check(client, args.texts, picked) and kills > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with Bench(args.binary) as bench:
        good = False
        try:
            good = run(args, bench)
        finally:
            if not good:
                print(f"seed {args.seed}")
                for slot in range(3):
                    print("".join(bench.log(f"worker-{slot}").splitlines(True)[-10:]))
    print("1 passed, 0 failed" if good else "0 passed, 1 failed")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
