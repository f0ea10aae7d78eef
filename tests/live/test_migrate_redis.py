#!/usr/bin/env python3
"""Keys and hashes of Redis are made anew with something else, killed at any moment, while a worker
writes beside it: at the end they are what was built from scratch, and at no time are they of two
models while anybody may write.

Usage: test_migrate_redis.py EMBEDMILL [--seed N] [--kills]
"""
import argparse
import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from check_embed import cache_folder
from logged import run_logged
from redis_bench import Bench, wait_for

SMALL = cache_folder() / "all-minilm-l6-v2-q8_0.gguf"
WORDS = "ferry bread river tower cloud yeast boat flour rain June".split()
PREFIX, SIDE = "doc:", "embedmill:next:doc:"
NOTE = b"embedmill:made-with:doc:"
CHUNKS = ("--too-long", "chunk", "--chunk-tokens", "32", "--chunk-overlap", "0")


class Place(Bench):
    """A server with an output, and the corpus it was made of."""

    def __init__(self, binary, rng, form="hash", n=40):
        super().__init__(binary)
        self.rng, self.form, self.texts = rng, form, {}
        if SMALL.exists():  # it is quicker, and says the same
            self.model = str(SMALL)
        self.corpus = Path(self.folder) / "texts.jsonl"
        for i in range(n):
            self.texts[str(i)] = self.text()

    def text(self):
        return " ".join(self.rng.choices(WORDS, k=self.rng.choice((5, 9, 60))))

    def output(self, prefix=PREFIX):
        return ("--redis-output", self.form, "--redis-output-prefix", prefix)

    def write(self):
        self.corpus.write_text("".join(json.dumps({"id": i, "text": text}) + "\n"
                                       for i, text in self.texts.items()))

    def send(self, *ids, stream="texts"):
        for i in ids or self.texts:
            self.client.xadd(stream, {"body": json.dumps({"id": i, "text": self.texts[i]})})

    def build(self, *options, prefix=PREFIX, stream="texts"):
        """By a worker, of what is on its stream."""
        worker = self.start_worker(*self.output(prefix), *options, "--redis-stream", stream,
                                   name=stream)
        self.wait_done(stream)
        self.stop(worker)

    def wait_done(self, stream="texts"):
        def done():
            groups = self.client.xinfo_groups(stream)
            return groups and groups[0]["lag"] == 0 and groups[0]["pending"] == 0
        wait_for(f"all of {stream}", done, 120)

    def command(self, *options):
        return [self.binary, "migrate", f"redis://127.0.0.1:{self.port}/0", str(self.corpus),
                *self.output(), "--model", self.model, "--log-format", "json", "--work",
                f"{self.folder}/work", *options]

    def migrate(self, *options, code=0):
        self.write()
        done, self.events = run_logged(self.command(*options), code)
        return done

    def read(self, prefix=PREFIX):
        index = {}
        for key in self.client.scan_iter(prefix + "*", count=1000):
            name = key.decode().removeprefix(prefix)
            if self.client.type(key) == b"hash":
                index[name] = self.client.hgetall(key)
            else:
                index[name] = self.client.get(key)
        return index

    def dims(self):
        """How long the vectors are: one length, or a mix."""
        return {len(self.client.hget(key, "embedding") or b"") // 4
                for key in self.client.scan_iter(PREFIX + "*") if self.client.type(key) == b"hash"}

    def note(self):
        lines = (self.client.get(NOTE) or b"").decode().splitlines()
        return dict(line.split(": ", 1) for line in lines)

    def leftovers(self):
        return [key for key in self.client.scan_iter("embedmill:*")
                if key not in (NOTE, b"embedmill:made-with:scratch:")]

    def check(self, *options, keep=()):
        """It is what a worker makes from scratch, and nothing else is left."""
        self.client.delete("fresh", b"embedmill:made-with:scratch:",
                           *self.client.keys("scratch:*"))
        self.send(stream="fresh")
        self.client.xgroup_create("fresh", "embedmill", "0")
        self.build(*options, prefix="scratch:", stream="fresh")
        got, wanted = self.read(), self.read("scratch:")
        if self.form == "key":  # where it came from is told in the output
            got, wanted = set(got), set(wanted)
        for name in keep:
            for field, value in ((b"color", b"blue"),):
                assert got[name].pop(field) == value, name
        assert got == wanted, (sorted(set(got) ^ set(wanted)),
                               [k for k in set(got) & set(wanted) if got[k] != wanted[k]]
                               if isinstance(got, dict) else "")
        assert self.client.get(NOTE) == self.client.get("embedmill:made-with:scratch:")
        assert not self.leftovers(), self.leftovers()


def case_hash(binary, rng):
    with Place(binary, rng) as place:
        place.start_server()
        place.send()
        place.build()
        place.client.hset("doc:3", "color", "blue") # of others, and stays
        place.client.expire("doc:5", 3000)
        place.client.set("doc:strange", "no vector of ours")
        before = place.read()
        place.migrate("--dim", "256", "--estimate")
        assert place.events["estimate"]["texts"] == 40 and place.events["estimate"]["hours"] > 0
        place.migrate("--dim", "256", "--dry-run")
        compared = place.events["compared"]
        assert compared["missing"] == compared["added"] == 0, compared
        assert compared["texts_after"] == 40 and compared["embedded_twice"] == 20, compared
        assert compared["least_cosine"] > 0.9999 and 0.6 < compared["neighbours_kept"] < 1, compared
        assert place.read() == before and place.note()["dim"] != "256"
        place.texts["new"] = "only the corpus has it"
        place.migrate("--dim", "256", "--redis-expire", "1h")
        assert place.events["stopped"]["cached"] == 40, place.events["stopped"]
        assert 3000 < place.client.ttl("doc:new") <= 3600
        place.client.persist("doc:new")
        assert place.note()["dim"] == "256" and place.dims() == {256}
        assert 0 < place.client.ttl("doc:5") <= 3000 and place.client.ttl("doc:6") == -1
        place.client.delete("doc:strange")
        place.client.persist("doc:5")
        place.check("--dim", "256", keep=("3",))
        place.migrate("--dim", "256") # again: it is done
        assert any("nothing to migrate" in name for name in place.events), place.events


def case_key(binary, rng):
    for form in ("msgpack", "json"):
        with Place(binary, rng, "key", n=20) as place:
            place.start_server()
            place.send()
            place.build("--output-format", form)
            before = place.read()
            place.migrate("--dim", "128", "--output-format", form)
            assert place.events["compared"]["embedded_twice"] == 10, place.events["compared"]
            after = place.read()
            assert set(after) == set(before) and all(after[k] != before[k] for k in before)
            place.check("--dim", "128", "--output-format", form)


def case_chunks(binary, rng):
    """From whole texts to chunks and back, with versions and deletes."""
    for form in ("hash", "key"):
        with Place(binary, rng, form) as place:
            place.start_server()
            ordered = ("--order-by", "position")
            place.send()
            del place.texts["7"]
            place.client.xadd("texts", {"body": json.dumps({"id": "7", "delete": True})})
            place.build(*ordered)
            cards = {k: v for k, v in place.read().items() if k.endswith("#")}
            assert len(cards) == 40, cards
            if form == "hash":
                place.client.hset("doc:3", "color", "blue")
            place.texts["7"] = "is deleted, but the corpus does not know it yet"
            place.texts["3"] = " ".join(rng.choices(WORDS, k=150))
            place.migrate(*CHUNKS)
            assert place.events["compared"]["added"] == 1
            del place.texts["7"] # and so it is not there
            after = {k: v for k, v in place.read().items() if k.endswith("#")}
            assert set(after) == set(cards)
            assert all(after[k].split(b":")[1] == cards[k].split(b":")[1] for k in cards)
            assert int(after["3#"].split(b":")[0]) > 3 and after["7#"].startswith(b"0:")
            if form == "hash":
                assert place.client.hget("doc:3#2", "color") == b"blue"
                assert not place.client.hexists("doc:3", "embedding")
                for key in place.client.keys("doc:3*"): # of others, in the way of what follows
                    if place.client.type(key) == b"hash":
                        place.client.hdel(key, "color")
            for key in after: # what is built from scratch has no versions
                n = after[key].split(b":")[0]
                if n == b"0":
                    place.client.delete(PREFIX + key)
                else:
                    place.client.set(PREFIX + key, n + b":")
            place.check(*CHUNKS)
            place.migrate("--too-long", "truncate")
            place.check()


def case_refused(binary, rng):
    with Place(binary, rng) as place:
        place.start_server()
        place.send()
        place.build()
        before, text = place.read(), place.texts.pop("8")
        done = place.migrate("--dim", "256", code=65)
        assert "1 texts" in done.stderr and "as 8" in done.stderr, done.stderr
        assert place.read() == before
        place.texts["8"] = text
        place.client.config_set("maxmemory", "1gb")
        place.client.config_set("maxmemory-policy", "allkeys-lru")
        assert "noeviction" in place.migrate("--dim", "256", code=78).stderr
        place.client.config_set("maxmemory-policy", "noeviction")
        note = place.client.get(NOTE)
        place.client.delete(NOTE)
        assert "made with" in place.migrate("--dim", "256", code=65).stderr
        place.client.set(NOTE, note)
        for prefix in ("embedmill:", ""):
            place.migrate("--dim", "256", "--redis-output-prefix", prefix, code=78)
        place.migrate("--dim", "256", "--redis-output", "stream", code=78)
        place.migrate("--dim", "256", "--redis-output-prefix", "none:", code=65)
        assert place.read() == before and place.client.get(NOTE) == note


def case_taken(binary, rng):
    """Keys of others where vectors would go: the text is left out, or nothing is touched."""
    for form, set_others in (("hash", lambda key, client: client.set(key, "of others")),
                             ("key", lambda key, client: client.rpush(key, "of others"))):
        with Place(binary, rng, form, n=20) as place:
            place.start_server()
            place.send()
            place.build()
            place.texts["strange"] = "only the corpus has it"
            set_others("doc:strange", place.client)
            set_others("doc:3#0", place.client)
            read = place.client.hgetall if form == "hash" else place.client.get
            before, note = read("doc:3"), place.client.get(NOTE)
            place.texts["3"] = " ".join(rng.choices(WORDS, k=60))
            done = place.migrate("--dim", "128", *CHUNKS, code=65)
            assert "vectors of '3' go" in done.stderr, done.stderr
            assert place.client.get(NOTE) == note and read("doc:3") == before
            place.client.delete("doc:3#0")
            place.migrate("--dim", "128", *CHUNKS)
            left_out = next(e for name, e in place.events.items() if "are left out" in name)
            assert left_out["texts"] == 1 and left_out["as"] == "strange", left_out
            kind = b"string" if form == "hash" else b"list"
            assert place.client.type("doc:strange") == kind
            place.client.delete("doc:strange")
            del place.texts["strange"]
            place.check("--dim", "128", *CHUNKS)


def case_two(binary, rng):
    """A second migration is refused while the first lives, and that outlives its connection."""
    with Place(binary, rng, n=100) as place:
        place.start_server()
        place.send()
        place.build()
        place.write()
        first = subprocess.Popen(place.command("--dim", "256", "--batch-texts", "4"),
                                 stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        place.processes.append(first)
        wait_for("texts on the side", lambda: place.client.exists(SIDE + "1"))
        place.client.client_kill_filter(_type="normal", skipme=True) # as an idle one
        first.send_signal(signal.SIGSTOP)
        for options in (("--dim", "256"), ("--dim", "128")):
            done = place.migrate(*options, "--work", f"{place.folder}/other", code=78)
            assert "by another process" in done.stderr, done.stderr
        first.send_signal(signal.SIGCONT)
        assert first.wait(timeout=60) == 0
        place.check("--dim", "256")


def case_beside(binary, rng):
    """A worker goes on writing: what it writes is never lost and never of two models."""
    with Place(binary, rng, n=60) as place:
        place.start_server()
        place.send()
        place.build()
        worker = place.start_worker(*place.output(), name="old")
        place.send("0")
        place.wait_done() # it has started
        stop = threading.Event()

        def change():
            while not stop.wait(0.02):
                i = str(rng.randrange(60))
                place.texts[i] = place.text()
                place.send(i)

        changing = threading.Thread(target=change)
        changing.start()
        try:
            place.write() # of now, and old at once
            done = subprocess.run(place.command("--dim", "256"), stdin=subprocess.DEVNULL,
                                  text=True, capture_output=True, timeout=300, check=False)
        finally:
            stop.set()
            changing.join()
        assert done.returncode == 65 and "were written" in done.stderr, done.stderr
        assert place.note()["dim"] != "256" and len(place.dims()) == 1
        place.wait_done()
        assert worker.poll() is None # it was not disturbed
        place.client.xadd("texts", {"body": json.dumps({"id": "5", "delete": True})})
        del place.texts["5"]
        place.wait_done()
        place.migrate("--dim", "256")
        place.send("6")
        assert worker.wait(timeout=60) == 69 and "dim: 256" in place.log("old"), place.log("old")
        assert place.dims() == {256}
        worker = place.start_worker(*place.output(), "--dim", "256", name="new")
        place.wait_done() # what the old one had taken is not lost
        place.stop(worker)
        place.check("--dim", "256")


def case_held(binary, rng):
    """Killed while it holds the output: whoever comes gives it back, or goes on."""
    with Place(binary, rng, n=20) as place:
        place.start_server()
        place.send()
        place.build()
        note, before = place.client.get(NOTE), place.read()
        was = b"".join(b"was " + line + b"\n" for line in note.splitlines())
        place.client.set(NOTE, b"migrating: yes\nstep: comparing\n" + was)
        place.migrate("--dim", "256", "--dry-run")
        assert place.client.get(NOTE) == note and place.read() == before
        assert len(place.client.keys(SIDE + "*")) == 20
        after = note.replace(f"dim: {place.note()['dim']}".encode(), b"dim: 256")
        after = b"".join(b"next " + line + b"\n" for line in after.splitlines())
        place.client.sadd("embedmill:moving:doc:", *range(20))
        place.client.set(NOTE, b"migrating: yes\nstep: switching\n" + after)
        for key in ("doc:4", SIDE + "4"): # its life ends after the comparison
            place.client.pexpire(key, 1)
        place.client.delete(SIDE + "3") # lost: it is not taken for moved
        done = place.migrate(code=65)
        assert "of two models" in done.stderr, done.stderr
        place.client.delete(PREFIX + "3")
        place.migrate() # with whatever options: it only finishes
        assert place.dims() == {256}
        del place.texts["3"], place.texts["4"]
        place.check("--dim", "256")


def case_killed(binary, rng):
    with Place(binary, rng, n=400) as place:
        place.start_server()
        place.send()
        place.build()
        place.write()
        full, killed, held = place.dims(), 0, 0
        while True:
            options = ("--dim", "256", "--batch-texts", "8")
            migrating = subprocess.Popen(place.command(*options), stdin=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)
            try:
                code = migrating.wait(rng.uniform(0.05, 1) if killed < 25 else 200)
                assert code == 0, code
                break
            except subprocess.TimeoutExpired:
                migrating.kill()
                migrating.wait()
                killed += 1
            is_held = place.client.get(NOTE).startswith(b"migrating")
            held += is_held
            assert is_held or place.dims() == full
        print(f"  killed {killed} times, {held} of them while it was held")
        assert killed > 0
        place.check("--dim", "256")


def case_killed_while_held(binary, rng):
    """The same in the moment when places are changed, which is short."""
    with Place(binary, rng, n=300) as place:
        place.start_server()
        place.send()
        place.build()
        place.migrate("--dim", "256", "--dry-run")
        full, mixed = place.dims(), 0
        for tries in range(12):
            migrating = subprocess.Popen(place.command("--dim", "256"), stdin=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)
            while migrating.poll() is None:
                if place.client.get(NOTE).startswith(b"migrating"):
                    time.sleep(rng.uniform(0, 0.05))
                    migrating.kill()
                    break
            migrating.wait()
            is_held = place.client.get(NOTE).startswith(b"migrating")
            mixed += len(place.dims()) == 2
            assert is_held or place.dims() in (full, {256})
            if place.dims() == {256} and not is_held:
                break
        print(f"  killed {tries} times, {mixed} of them in the midst of it")
        place.migrate("--dim", "256")
        place.check("--dim", "256")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", action="store_true", help="the cases with kill -9, alone")
    parser.add_argument("--only")
    args = parser.parse_args()
    print(f"seed {args.seed}")
    kills = (case_killed, case_killed_while_held)
    others = (case_hash, case_key, case_chunks, case_refused, case_taken, case_two, case_beside,
              case_held)
    for case in kills if args.kills else others:
        if args.only and args.only not in case.__name__:
            continue
        start = time.monotonic()
        case(args.binary, random.Random(args.seed))
        print(f"{case.__name__}: {time.monotonic() - start:.1f} s", flush=True)
    print("ok")


if __name__ == "__main__":
    sys.exit(main())
