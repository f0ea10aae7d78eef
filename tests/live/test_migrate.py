#!/usr/bin/env python3
"""An index is made anew with something else, killed at any moment, and is then, byte for byte, one
that was built from scratch; until then the old one is as it was.

Usage: test_migrate.py EMBEDMILL [--seed N]
"""
import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from check_embed import cache_folder, find_model
from logged import run_logged

SMALL = cache_folder() / "all-minilm-l6-v2-q8_0.gguf"
WORDS = "ferry bread river tower cloud yeast boat flour rain June".split()
SUFFIXES = ("", ".ids.jsonl", ".deleted.jsonl", ".index", ".state", ".errors.jsonl")


class Place:
    """A folder with a corpus and an index of it."""

    def __init__(self, binary, folder, rng, n=40, form="npy", index=()):
        self.binary, self.folder, self.model = binary, Path(folder), find_model()
        if SMALL.exists(): # it is quicker, and says the same
            self.model = SMALL
        self.corpus, self.out = self.folder / "texts.jsonl", self.folder / f"c.{form}"
        self.lines = [{"id": i, "text": " ".join(rng.choices(WORDS, k=rng.choice((5, 9, 60))))}
                      for i in range(n)]
        self.write()
        self.run("index", self.corpus, "-o", self.out, *index)

    def write(self):
        self.corpus.write_text("".join(json.dumps(line) + "\n" for line in self.lines))

    def command(self, *words):
        return [self.binary, *map(str, words), "--model", str(self.model), "--log-format", "json"]

    def run(self, *words, code=0):
        done, self.events = run_logged(self.command(*words), code)
        return done

    def migrate(self, *words, code=0):
        return self.run("migrate", self.out, self.corpus, *words, code=code)

    def index(self, out=None):
        """The files of an index, but for the sizes in its state."""
        out = out or self.out
        return {suffix: Path(f"{out}{suffix}").read_bytes() for suffix in SUFFIXES
                if Path(f"{out}{suffix}").exists()}

    def named(self, word):
        return self.out.with_name(self.out.name.replace("c.", f"c.{word}."))

    def check(self, before, *options):
        """It is what `index` makes, the old one is kept, and nothing else is left."""
        scratch = self.out.with_name("scratch" + self.out.suffix)
        self.run("index", self.corpus, "-o", scratch, *options)
        assert self.index() == self.index(scratch)
        assert self.index(self.named("old")) == before
        for word in ("next", "sample"):
            assert not self.index(self.named(word)), word
        assert not Path(f"{self.out}.handover").exists()


def case_dim(binary, folder, rng):
    place = Place(binary, folder, rng)
    before = place.index()
    place.migrate("--dim", "256", "--estimate")
    estimate = place.events["estimate"]
    assert estimate["texts"] == 40 and estimate["hours"] > 0 and estimate["tokens"] > 200, estimate
    assert place.index() == before and not place.index(place.named("next"))
    place.migrate("--dim", "256", "--dry-run")
    compared = place.events["compared"]
    assert compared["missing"] == compared["added"] == 0 and compared["texts_after"] == 40
    assert compared["embedded_twice"] == 20 and compared["least_cosine"] > 0.9999, compared
    assert 0.6 < compared["neighbours_kept"] < 1, compared
    assert place.index() == before and place.index(place.named("next"))
    place.migrate("--dim", "256")
    assert place.events["stopped"]["embedded"] == 0 # all was there
    place.check(before, "--dim", "256")
    place.run("search", place.out, "a boat")
    place.migrate("--dim", "256") # again: it is done
    assert any("nothing to migrate" in name for name in place.events), place.events
    place.migrate("--dim", "128", code=78) # the old one is in the way, and is not overwritten
    place.check(before, "--dim", "256")


def case_model(binary, folder, rng):
    if not SMALL.exists():
        print("no all-MiniLM: left out")
        return
    place = Place(binary, folder, rng, n=12)
    before, place.model = place.index(), find_model()
    done = place.run("search", place.out, "a boat", code=66)
    assert "migrate" in done.stderr, done.stderr
    place.migrate()
    assert "MiniLM" in Path(f"{place.named('old')}.index").read_text()
    assert "MiniLM" not in Path(f"{place.out}.index").read_text()
    place.check(before)


def case_chunks(binary, folder, rng):
    """From whole texts to chunks, in an index with changes and deletes."""
    place = Place(binary, folder, rng, form="jsonl")
    place.lines += [{"id": 3, "text": "changed"}, {"id": 4, "delete": True},
                    {"id": 5, "text": " ".join(rng.choices(WORDS, k=150))}]
    place.write()
    place.run("index", place.corpus, "-o", place.out)
    before = place.index()
    chunks = ("--too-long", "chunk", "--chunk-tokens", "40", "--chunk-overlap", "0")
    place.migrate(*chunks)
    assert place.events["compared"]["texts_after"] == 39, place.events["compared"]
    assert place.events["compared"]["vectors"] > 45
    place.check(before, *chunks)
    for path in place.folder.glob("c.old.*"):
        path.unlink()
    place.migrate("--precision", "fast") # chunks stay as they were
    (place.folder / "scratch.jsonl").unlink()
    place.run("index", place.corpus, "-o", place.folder / "scratch.jsonl", "--precision", "fast",
              *chunks)
    assert place.index() == place.index(place.folder / "scratch.jsonl")


def case_refused(binary, folder, rng):
    place = Place(binary, folder, rng)
    before, lines = place.index(), place.lines
    place.lines = [line for line in lines if line["id"] not in (7, 8)]
    place.write()
    done = place.migrate("--dim", "256", code=65)
    assert "2 texts" in done.stderr and "as 7" in done.stderr, done.stderr
    assert place.index() == before
    for path in [*place.folder.glob("c.next.*"), *place.folder.glob("c.sample.*")]:
        path.unlink()
    place.lines = lines + [{"id": "new", "text": "one more"}]
    place.write()
    place.migrate("--dim", "256", "--dry-run")
    assert place.events["compared"]["added"] == 1
    fresh = place.named("next")
    rows = bytearray(fresh.read_bytes()) # a disk that forgets
    for at in range(128, len(rows) - 4096, 4096):
        rows[at:at + 512] = bytes(512)
    fresh.write_bytes(rows)
    done = place.migrate("--dim", "256", code=65)
    assert "cosine" in done.stderr and place.index() == before, done.stderr
    place.migrate("--dim", "128", code=78) # another one than was begun
    for words in ((place.out,), (place.out, "-"), (place.folder / "c.csv", place.corpus)):
        place.run("migrate", *words, code=64)
    place.run("migrate", place.folder / "none.npy", place.corpus, code=65)
    assert place.index() == before


def case_interrupted_at_the_end(binary, folder, rng):
    place = Place(binary, folder, rng)
    before = place.index()
    place.migrate("--dim", "256", "--dry-run")
    Path(f"{place.out}.handover").write_text("begun\n")
    for words in (("search", place.out, "a boat"), ("index", place.corpus, "-o", place.out)):
        done = place.run(*words, code=65 if words[0] == "search" else 74)
        assert "migrate" in done.stderr, done.stderr
    place.migrate("--dim", "256")
    place.check(before, "--dim", "256")


def case_killed(binary, folder, rng):
    place = Place(binary, folder, rng, n=300)
    before = place.index()
    killed = 0
    while True:
        migrating = subprocess.Popen(place.command("migrate", place.out, place.corpus, "--dim",
                                                   "256", "--batch-texts", "8"),
                                     stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert migrating.wait(rng.uniform(0.1, 1) if killed < 12 else 200) == 0
            break
        except subprocess.TimeoutExpired:
            migrating.kill()
            migrating.wait()
            killed += 1
    print(f"  killed {killed} times")
    assert killed > 0
    place.check(before, "--dim", "256")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(f"seed {args.seed}")
    for case in (case_dim, case_model, case_chunks, case_refused, case_interrupted_at_the_end,
                 case_killed):
        print(case.__name__, flush=True)
        with tempfile.TemporaryDirectory(prefix="embedmill-test-") as folder:
            case(args.binary, folder, random.Random(args.seed))
    print("ok")


if __name__ == "__main__":
    sys.exit(main())
