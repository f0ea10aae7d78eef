#!/usr/bin/env python3
"""The life of an index: texts are inserted, changed, cut into fewer chunks and deleted, by messages
in every form there is for it and out of order, while workers are killed with SIGKILL every two
seconds. At the end the index is, byte for byte, one that was built from scratch of what is left.
Then it moves to another model while changes go on: Redis and PostgreSQL by a second group that
writes another output from the same stream, a file by `embedmill migrate`.

Usage: test_life.py EMBEDMILL [--docs N] [--seed N] [--kill-every SECONDS] [--forms FORM,FORM]
                    [--moves FORM,FORM]
"""
import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import numpy as np

from check_embed import cache_folder
from postgres_bench import DIM, Bench, programs
from redis_bench import wait_for

MINILM = cache_folder() / "all-minilm-l6-v2-q8_0.gguf"
OTHER = cache_folder() / "all-minilm-l6-v2-q4_0.gguf" # scripts/get-minilm q4_0
CHUNKS = ("--too-long", "chunk", "--chunk-tokens", "32", "--chunk-overlap", "0")
MOVED = 256 # values of a vector of the other model, which is the same where OTHER is not there
READING = ("--text-field", "body", "--order-by", "field:source.lsn", *CHUNKS)


def text_of(rng, words):
    return " ".join(rng.choice("ferry bread river tower cloud yeast boat flour rain June".split())
                    for _ in range(words))


def envelope(op, before, after, lsn):
    return {"before": before, "after": after, "source": {"lsn": lsn, "table": "posts"}, "op": op}


def message(rng, op, key, text, lsn):
    """One change in one of the forms it may have."""
    row = None if text is None else {"id": key, "body": text}
    form = rng.randrange(4)
    if form == 0:
        value = envelope(op, {"id": key} if op == "d" else None, row, lsn)
    elif form == 1:
        value = {"schema": {"type": "struct", "fields": []},
                 "payload": envelope(op, {"id": key} if op == "d" else None, row, lsn)}
    elif form == 2:
        value = {"id": key, "body": text, "__op": op, "__deleted": str(op == "d").lower(),
                 "source": {"lsn": lsn}}
    elif op == "d":
        value = {"id": key, "delete": True, "source": {"lsn": lsn}}
    else:
        value = {**row, "source": {"lsn": lsn}}
    return json.dumps(value)


def write_life(rng, n_docs):
    """The changes in their true order, and what is left in the end."""
    events, left, lsn = [], {}, 1000

    def change(op, key, text):
        nonlocal lsn
        lsn += rng.randrange(1, 50)
        events.append(message(rng, op, key, text, lsn))
        if text is None:
            left.pop(key, None)
        else:
            left[key] = text

    keys = list(range(1, n_docs + 1))
    for key in keys:
        change("c", key, text_of(rng, rng.choice((8, 12, 60, 150))))
    later = ([("u", key) for key in rng.sample(keys, n_docs * 3 // 10)] +
             [("d", key) for key in rng.sample(keys, n_docs // 5)] +
             [("shrink", key) for key in rng.sample(keys, n_docs // 20)] +
             [("c", key) for key in rng.sample(keys, n_docs // 20)])
    rng.shuffle(later)
    for op, key in later:
        if op == "d":
            change("d", key, None)
        elif op == "shrink":
            change("u", key, text_of(rng, 200))
            change("u", key, text_of(rng, 50))
        else:
            change(op, key, text_of(rng, rng.choice((8, 60, 150))))
    return events, left


def shuffle_near(rng, events):
    """Each up to a hundred places from where it belongs."""
    order = sorted(range(len(events)), key=lambda i: i + rng.uniform(0, 100))
    return [events[i] for i in order]


def read_index(client, prefix):
    """Keys of vectors and what they hold; those of texts with chunks only count their chunks."""
    index = {}
    for key in client.scan_iter(prefix + "*", count=1000):
        name = key.decode().removeprefix(prefix)
        if name.endswith("#"):
            chunks = int(client.get(key).split(b":")[0])
            if chunks:
                index[name] = chunks
        elif client.type(key) == b"hash":
            index[name] = client.hgetall(key)
        else:
            index[name] = client.get(key)
    return index


def compare(got, wanted, what):
    lost = sorted(set(wanted) - set(got))
    strangers = sorted(set(got) - set(wanted))
    wrong = sorted(name for name in set(got) & set(wanted) if got[name] != wanted[name])
    print(f"{what}: {len(wanted)} keys from scratch, {len(lost)} missing, "
          f"{len(strangers)} too many, {len(wrong)} different")
    for names in (lost, strangers, wrong):
        if names:
            print("  " + ", ".join(map(str, names[:8])))
    return not (lost or strangers or wrong)


def counter(bench, name):
    """Sums of a counter in the last lines of workers' logs that ended well."""
    total = 0
    for log in os.listdir(bench.folder):
        if log.startswith("log-"):
            for line in open(os.path.join(bench.folder, log), encoding="utf-8"):
                if '"stopped"' in line:
                    total += json.loads(line).get(name, 0)
    return total


def name_of(form, scratch=""):
    if form == "postgres":
        return scratch.replace("-", "_") + "embeddings"
    return f"{scratch}{form}:"


def output_of(bench, form, prefix, is_moved=False):
    """Flags of the output that holds an index."""
    if form == "postgres":
        return ("--sink", "postgres", "--postgres-url", bench.pg.url(), "--dim",
                str(MOVED if is_moved else DIM), "--postgres-table", prefix)
    return ("--redis-output", form, "--redis-output-prefix", prefix,
            *(("--dim", str(MOVED)) if is_moved else ()))


def live(bench, args, form, rng):
    """All changes into the index, by two workers of which one is killed again and again."""
    client = bench.client
    events, left = write_life(rng, args.docs)
    events = shuffle_near(rng, events)
    stream = f"changes-{form}"
    options = ("--redis-stream", stream, *output_of(bench, form, name_of(form)), "--batch-texts",
               "32", "--max-deliveries", "0", *READING)
    client.xgroup_create(stream, "embedmill", "0", mkstream=True)
    workers = [bench.start_worker(*options, name=f"{form}-{i}") for i in range(2)]
    killed, last, sent = 0, time.monotonic(), 0
    deadline = time.monotonic() + args.seconds
    while True:
        for event in events[sent:sent + 50]:
            client.xadd(stream, {"body": event})
        sent = min(sent + 50, len(events))
        group = client.xinfo_groups(stream)[0]
        if sent == len(events) and group["lag"] == 0 and group["pending"] == 0:
            break
        assert time.monotonic() < deadline, f"not done after {args.seconds} s: {group}"
        if time.monotonic() - last > args.kill_every:
            last = time.monotonic()
            slot = killed % 2
            workers[slot].kill()
            workers[slot].wait()
            workers[slot] = bench.start_worker(*options, name=f"{form}-{slot}")
            killed += 1
        time.sleep(0.02)
    for worker in workers:
        bench.stop(worker)
    print(f"{form}: {len(events)} changes of {args.docs} texts, {len(left)} left; {killed} kills; "
          f"{counter(bench, 'deleted')} deletes seen by those that were not killed")
    assert client.xlen(stream + ":dlq") == 0, client.xrange(stream + ":dlq", count=3)
    return left


def build(bench, args, form, left, name="scratch-", is_moved=False):
    """The same from scratch, with another prefix."""
    stream, prefix = f"{name}{form}", name_of(form, name)
    for key, text in left.items():
        bench.client.xadd(stream, {"body": json.dumps({"id": key, "text": text})})
    bench.client.xgroup_create(stream, "embedmill", "0")
    worker = bench.start_worker("--redis-stream", stream,
                                *output_of(bench, form, prefix, is_moved), *CHUNKS,
                                name=f"{name}{form}", model=bench.other if is_moved else None)
    wait_for("the index from scratch", lambda: bench.client.xinfo_groups(stream)[0]["lag"] == 0 and
             bench.client.xinfo_groups(stream)[0]["pending"] == 0, args.seconds)
    bench.stop(worker)
    return read(bench, form, name)


def read_table(pg, table):
    rows = pg.sql("SELECT id, parent, chunk, embedding, "
                  "metadata - 'source' - '__op' - '__deleted' "
                  f"FROM {table}")
    return {row[0]: row[1:] for row in rows}


def read(bench, form, scratch=""):
    if form == "postgres":
        return read_table(bench.pg, name_of(form, scratch))
    return without_traces(read_index(bench.client, name_of(form, scratch)))


def grow_old(bench, args, form, rng):
    left = live(bench, args, form, rng)
    wanted = build(bench, args, form, left)
    good = compare(read(bench, form), wanted, form)
    return good & move(bench, args, form, left, rng) if form in args.moves else good


def move(bench, args, form, left, rng):
    """An index to another model while changes go on: both are written from one stream, each by a
    group of its own, and both are true in the end."""
    client, stream = bench.client, f"changes-{form}"
    common = ("--redis-stream", stream, "--batch-texts", "32", "--max-deliveries", "0", *READING)
    new = (*common, "--redis-group", "v2", *output_of(bench, form, name_of(form, "v2-"), True))
    client.xgroup_create(stream, "v2", "0")
    workers = [bench.start_worker(*common, *output_of(bench, form, name_of(form)), name="old"),
               bench.start_worker(*new, name="new", model=bench.other)]
    lsn, killed, last = 10**9, 0, time.monotonic()
    for key in rng.sample(range(1, args.docs + 1), args.docs // 2):
        gone = rng.random() < 0.2
        text = None if gone else text_of(rng, rng.choice((8, 60, 150)))
        lsn += 1
        client.xadd(stream, {"body": message(rng, "d" if gone else "u", key, text, lsn)})
        left.pop(key, None)
        if text:
            left[key] = text
        if time.monotonic() - last > args.kill_every / 2:
            last = time.monotonic()
            workers[1].kill()
            workers[1].wait()
            workers[1] = bench.start_worker(*new, name="new", model=bench.other)
            killed += 1
        time.sleep(min(0.05, 60 / args.docs))
    wait_for("both groups", lambda: all(group["lag"] == 0 and group["pending"] == 0
                                        for group in client.xinfo_groups(stream)), args.seconds)
    for worker in workers:
        bench.stop(worker)
    print(f"{form}: moved, {killed} kills")
    good = compare(read(bench, form), build(bench, args, form, left, "again-"), f"{form}, old")
    wanted = build(bench, args, form, left, "scratch2-", True)
    return good & compare(read(bench, form, "v2-"), wanted, f"{form}, new")


def live_file(bench, args, rng):
    """The same by `index`, killed again and again; a file has the order of its corpus."""
    events, left = write_life(rng, args.docs)
    corpus, out = f"{bench.folder}/changes.jsonl", f"{bench.folder}/life.npy"
    with open(corpus, "w", encoding="utf-8") as file:
        file.writelines(event + "\n" for event in events)
    command = [bench.binary, "index", corpus, "-o", out, "--model", bench.model, "--prompt", "none",
               "--text-field", "body", "--batch-texts", "16", "--log-level", "warn", *CHUNKS]
    killed = 0
    while True:
        indexing = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            assert indexing.wait(rng.uniform(0.2, args.kill_every)) == 0
            break
        except subprocess.TimeoutExpired:
            indexing.kill()
            indexing.wait()
            killed += 1
    print(f"file: {len(events)} changes of {args.docs} texts, {len(left)} left; {killed} kills")
    return corpus, out, left


def move_file(bench, args, corpus, out, left, rng):
    """The index to another model by `migrate`, killed again and again, while the log of changes
    grows and `index` goes on with it."""
    lsn, killed, runs = 10**9, 0, 0
    common = ("--prompt", "none", "--log-level", "error")
    old, new = ("--model", bench.model), ("--model", bench.other, "--dim", str(MOVED))

    def go_on(n, *options):
        nonlocal lsn
        with open(corpus, "a", encoding="utf-8") as file:
            for key in rng.sample(range(1, args.docs + 1), n):
                gone = rng.random() < 0.2
                text = None if gone else text_of(rng, rng.choice((8, 60, 150)))
                lsn += 1
                file.write(message(rng, "d" if gone else "u", key, text, lsn) + "\n")
                left.pop(key, None)
                if text:
                    left[key] = text
        done = subprocess.run([bench.binary, "index", corpus, "-o", out, "--text-field", "body",
                               *CHUNKS, *common, *options], stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, check=False)
        return done.returncode, done.stderr

    command = [bench.binary, "migrate", out, corpus, *new, *common]
    while True:
        runs += 1
        migrating = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            code = migrating.wait(rng.uniform(0.5, 2 * args.kill_every) * (1 + killed / 4))
        except subprocess.TimeoutExpired:
            migrating.kill()
            migrating.wait()
            killed += 1
            code = None
        if code == 0:
            break
        assert code in (None, 65), code # 65: a text came to OUT that it had not read yet
        code, why = go_on(max(5, args.docs // 200), *old)
        assert code == 0 or "between two indexes" in why or "was begun with" in why, (code, why)
    code, why = go_on(args.docs // 20, *old)
    assert code == 78 and "was begun with" in why, (code, why) # the old model is refused
    code, why = go_on(5, *new)
    assert code == 0, (code, why)
    print(f"file: moved by {runs} runs of migrate, {killed} kills")
    for name in (f"{bench.folder}/scratch", out.replace("life", "compact")):
        for path in Path(bench.folder).glob(Path(name).stem + ".*"):
            path.unlink()
    return check_file(bench, out, left, *new)


def rows_of(path):
    """Id, what it is a piece of, and vector, of each row of an .npy."""
    with open(path + ".ids.jsonl", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    vectors = np.load(path)
    assert len(rows) == len(vectors)
    index = {}
    for row, vector in zip(rows, vectors):
        row = row if isinstance(row, dict) else {"id": row}
        assert row["id"] not in index, row
        index[row["id"]] = (row, vector.tobytes())
    return index


def check_file(bench, out, left, *options):
    scratch = f"{bench.folder}/scratch"
    with open(scratch + ".jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": str(key), "text": text}) + "\n"
                        for key, text in left.items())
    common = (*options, "--prompt", "none", "--log-level", "warn")
    subprocess.run([bench.binary, "index", scratch + ".jsonl", "-o", scratch + ".npy", *common,
                    *CHUNKS], check=True, stdin=subprocess.DEVNULL)
    compact = out.replace("life", "compact")
    subprocess.run([bench.binary, "compact", out, "-o", compact], check=True)
    good = compare(rows_of(compact), rows_of(scratch + ".npy"), "file, compacted")
    query = ["river in June", "--top", "20", *common]
    hits = [subprocess.run([bench.binary, "search", path, *query], check=True, text=True,
                           capture_output=True).stdout.splitlines()
            for path in (out, compact, scratch + ".npy")]
    scores = [[line.split()[0] for line in lines] for lines in hits]
    if scores[0] != scores[2] or hits[0] != hits[1]:
        print(f"search finds {hits[0][:3]} and {hits[2][:3]}")
        good = False
    return good


def without_traces(index):
    """Records of `key` say which message they are of: that differs, and nothing else may."""
    out = {}
    for name, value in index.items():
        if isinstance(value, bytes):
            record = msgpack.unpackb(value)
            value = {key: record[key] for key in record
                     if key not in ("source", "timestamp_ms", "fields")}
        out[name] = value
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--docs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kill-every", type=float, default=2)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--forms", default="hash,key,postgres,file", help="of the index")
    parser.add_argument("--moves", default="hash", help="those of hash, postgres, file that move")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    print(f"seed {args.seed}")
    source = programs()
    with Bench(args.binary, source or Path("/nonexistent")) as bench:
        if MINILM.exists():
            bench.model = str(MINILM)
        bench.other = str(OTHER) if OTHER.exists() and MINILM.exists() else bench.model
        forms = [form for form in ("hash", "key") if form in args.forms]
        if source:
            bench.start_both()
            for name in ("scratch-", "again-"):
                bench.pg.sql(bench.schema("--postgres-table", name_of("postgres", name)))
            for name in ("v2-", "scratch2-"):
                bench.pg.sql(bench.schema("--postgres-table", name_of("postgres", name), "--dim",
                                          str(MOVED)))
            forms += ["postgres"] if "postgres" in args.forms else []
        else:
            bench.start_server()
            print("no PostgreSQL with pgvector to be had: left out")
        results = [grow_old(bench, args, form, rng) for form in forms] # all of them, in any case
        good = all(results)
        if "file" in args.forms:
            corpus, out, left = live_file(bench, args, rng)
            good &= check_file(bench, out, left, "--model", bench.model)
            if "file" in args.moves:
                good &= move_file(bench, args, corpus, out, left, rng)
    if not good:
        sys.exit("the index is not what it would be from scratch")
    print("ok")


if __name__ == "__main__":
    main()
