#!/usr/bin/env python3
"""A table of PostgreSQL is made anew with something else, killed at any moment, while workers write
beside it: at the end it is what was built from scratch, and never of two models.

Usage: test_migrate_postgres.py EMBEDMILL [CASE...]
"""
import json
import random
import subprocess
import sys
import threading
from pathlib import Path

from cases import slow
from check_embed import cache_folder
from logged import run_logged
from postgres_bench import DIM, run_all
from redis_bench import wait_for

SMALL = cache_folder() / "all-minilm-l6-v2-q8_0.gguf"
WORDS = "ferry bread river tower cloud yeast boat flour rain June".split()
CHUNKS = ("--too-long", "chunk", "--chunk-tokens", "32", "--chunk-overlap", "0")
OTHERS = ("_next", "_next_stock", "_next_dlq", "_next_deleted", "_next_made_with")


class Place:
    """A table with what workers wrote, and the corpus of it."""

    def __init__(self, bench, n=40, options=()):
        if SMALL.exists(): # it is quicker, and says the same
            bench.model = str(SMALL)
        self.bench, self.pg, self.rng = bench, bench.pg, random.Random(1)
        self.corpus = Path(bench.folder) / "texts.jsonl"
        self.texts = {str(i): self.text() for i in range(n)}
        bench.start_both()
        self.send(*self.texts)
        worker = bench.start_sink(*options, name="first")
        bench.wait_acked()
        bench.stop(worker)

    def text(self):
        return " ".join(self.rng.choices(WORDS, k=self.rng.choice((5, 9, 60))))

    def send(self, *ids):
        for i in ids:
            body = {"id": i, "text": self.texts[i], "lang": f"l{i}"}
            self.bench.client.xadd("texts", {"body": json.dumps(body)})

    def write(self):
        self.corpus.write_text("".join(json.dumps({"id": i, "text": text}) + "\n"
                                       for i, text in self.texts.items()))

    def command(self, *options):
        return [self.bench.binary, "migrate", self.pg.url(), str(self.corpus), "--model",
                self.bench.model, "--log-format", "json", "--work", f"{self.bench.folder}/work",
                "--postgres-lock-timeout", "500ms", *options]

    def migrate(self, *options, code=0):
        self.write()
        done, self.events = run_logged(self.command(*options), code)
        return done

    def read(self, table="embeddings"):
        return {row[0]: row[1:] for row in self.pg.sql(
            f"SELECT id, parent, chunk, embedding FROM {table}")}

    def dims(self, table="embeddings"):
        return {int(row[0]) for row in
                self.pg.sql(f"SELECT DISTINCT vector_dims(embedding) FROM {table}")}

    def note(self):
        lines = self.pg.one("SELECT made_with FROM embeddings_made_with").splitlines()
        return dict(line.split(": ", 1) for line in lines)

    def leftovers(self):
        return [name for name in OTHERS
                if self.pg.one(f"SELECT to_regclass('embeddings{name}') IS NOT NULL") == "t"]

    def check(self, dim, *options, metadata="metadata - 'lang'"):
        """It is what a worker makes from scratch."""
        bench = self.bench
        self.pg.sql("DROP TABLE IF EXISTS scratch")
        self.pg.sql(bench.schema("--dim", str(dim), "--postgres-table", "scratch"))
        bench.client.delete("fresh")
        for i, text in self.texts.items():
            bench.client.xadd("fresh", {"body": json.dumps({"id": i, "text": text})})
        bench.client.xgroup_create("fresh", "embedmill", "0")
        worker = bench.start_sink("--dim", str(dim), *options, "--postgres-table", "scratch",
                                  "--redis-stream", "fresh", name="scratch")
        wait_for("the table from scratch", lambda: bench.client.xinfo_groups("fresh")[0]["lag"] == 0
                 and bench.client.xinfo_groups("fresh")[0]["pending"] == 0, 120)
        bench.stop(worker)
        got, wanted = self.read(), self.read("scratch")
        assert got == wanted, (sorted(set(got) ^ set(wanted)),
                               [k for k in set(got) & set(wanted) if got[k] != wanted[k]])
        got, wanted = (self.pg.sql(f"SELECT id, {metadata} FROM {table} ORDER BY id")
                       for table in ("embeddings", "scratch"))
        assert got == wanted, [pair for pair in zip(got, wanted) if pair[0] != pair[1]]
        assert self.note()["dim"] == str(dim) and not self.leftovers(), self.leftovers()


def case_dim(bench):
    place = Place(bench)
    place.pg.sql("ALTER TABLE embeddings ADD color text DEFAULT 'red';"
                 "UPDATE embeddings SET color = 'blue' WHERE id = '3';"
                 "CREATE ROLE reader LOGIN; GRANT SELECT ON embeddings TO reader;"
                 "CREATE INDEX near ON embeddings USING hnsw (embedding vector_cosine_ops);"
                 "CREATE INDEX ON embeddings (color);"
                 "CREATE UNIQUE INDEX ON embeddings (parent, chunk)")
    before = place.read()
    columns = "SELECT id, version, version_order, metadata FROM embeddings ORDER BY 1"
    place.pg.sql("UPDATE embeddings SET metadata = metadata || '{\"start\": \"noon\"}' "
                 "WHERE id = '5'")
    versions = place.pg.sql(columns)
    place.pg.sql("UPDATE embeddings SET metadata = metadata || '{\"embedding-model\": \"old\"}'")
    place.migrate("--dim", "256", "--estimate")
    assert place.events["estimate"]["texts"] == 40 and place.events["estimate"]["hours"] > 0
    place.migrate("--dim", "256", "--dry-run")
    compared = place.events["compared"]
    assert compared["missing"] == compared["added"] == 0 and compared["texts_after"] == 40
    assert compared["embedded_twice"] == 20 and compared["least_cosine"] > 0.9999, compared
    assert 0.5 < compared["neighbours_kept"] < 1, compared
    assert place.read() == before and place.dims("embeddings_next") == {256}
    place.migrate("--dim", "256")
    assert place.events["stopped"]["cached"] == 40
    assert place.read("embeddings_old") == before
    place.check(256, metadata="metadata - 'lang' - 'start'")
    assert versions == place.pg.sql(columns)
    assert place.pg.sql("SELECT id FROM embeddings WHERE color <> 'red'") == [["3"]]
    assert place.pg.one("SELECT count(*) FROM embeddings", user="reader") == "40"
    assert place.pg.one("SELECT count(*) FROM pg_indexes WHERE tablename = 'embeddings' AND "
                        "indexdef LIKE '%hnsw%'") == "1"
    assert place.pg.one("SELECT count(*) FROM pg_indexes WHERE tablename = 'embeddings'") == "5"
    assert place.pg.one("SELECT indexdef FROM pg_indexes WHERE tablename = 'embeddings' AND "
                        "indexdef LIKE '%chunk%'").endswith("btree (parent, chunk)")
    place.migrate("--dim", "256") # again: it is done
    assert any("nothing to migrate" in name for name in place.events), place.events
    assert "embeddings_old" in place.migrate("--dim", "128", code=69).stderr
    place.pg.sql("DROP TABLE embeddings_old")
    place.migrate("--dim", "128")
    place.check(128, metadata="metadata - 'lang' - 'start'")
    place.pg.sql("DROP TABLE embeddings_old")
    place.migrate("--dtype", "f2") # of another type: its vectors' index is for people to make
    assert place.pg.one("SELECT pg_typeof(embedding) FROM embeddings LIMIT 1") == "halfvec"
    assert place.rng and place.note()["dtype"] == "<f2" and len(place.read()) == 40


@slow
def case_chunks(bench):
    place = Place(bench)
    del place.texts["7"]
    bench.client.xadd("texts", {"body": json.dumps({"id": "7", "delete": True})})
    worker = bench.start_sink(name="first")
    bench.wait_acked()
    bench.stop(worker)
    place.texts["7"] = "is deleted, but the corpus does not know it yet"
    place.texts["3"] = " ".join(place.rng.choices(WORDS, k=150))
    versions = dict(place.pg.sql("SELECT id, version FROM embeddings"))
    place.migrate("--dim", "256", *CHUNKS)
    assert place.events["compared"]["added"] == 1
    del place.texts["7"]
    rows = place.pg.sql("SELECT parent, version, metadata->>'lang' FROM embeddings "
                        "WHERE parent IS NOT NULL")
    assert rows and all(versions[parent] == version and lang == f"l{parent}"
                        for parent, version, lang in rows), rows
    place.check(256, *CHUNKS)
    place.pg.sql("DROP TABLE embeddings_old")
    place.migrate("--dim", "256", "--too-long", "truncate")
    place.check(256)


@slow
def case_refused(bench):
    place = Place(bench)
    before, text = place.read(), place.texts.pop("8")
    done = place.migrate("--dim", "256", code=65)
    assert "1 texts" in done.stderr and "as 8" in done.stderr, done.stderr
    place.texts["8"] = text
    for what, name in (("VIEW shown AS SELECT * FROM embeddings", "view shown"),
                       ("TABLE likes (id text REFERENCES embeddings (id))", "foreign key")):
        place.pg.sql(f"CREATE {what}")
        assert name in place.migrate("--dim", "256", code=78).stderr
        place.pg.sql("DROP " + what.split("(")[0].split(" AS ")[0])
    place.migrate("--dim", "256", "--postgres-table", "none", code=78)
    # A worker at this level would not see that the note has changed.
    place.pg.sql("CREATE ROLE strict; ALTER ROLE strict SET default_transaction_isolation = "
                 "'repeatable read'")
    assert "repeatable read" in place.migrate("--dim", "256", code=78).stderr
    place.pg.sql("DROP ROLE strict")
    place.pg.sql("CREATE TABLE kept AS SELECT * FROM embeddings_made_with;"
                 "TRUNCATE embeddings_made_with")
    assert "made with" in place.migrate("--dim", "256", code=65).stderr
    place.pg.sql("INSERT INTO embeddings_made_with SELECT * FROM kept")
    assert place.read() == before and place.note()["dim"] == str(DIM)


def case_beside(bench):
    """Workers go on writing: what they write is never lost and never of two models."""
    place = Place(bench, n=60)
    worker = bench.start_sink(name="old")
    place.send("0")
    bench.wait_acked() # it has started
    stop = threading.Event()

    def change():
        while not stop.wait(0.02):
            i = str(place.rng.randrange(60))
            place.texts[i] = place.text()
            place.send(i)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        place.write() # of now, and old at once
        done = subprocess.run(place.command("--dim", "256"), stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, timeout=300, check=False)
    finally:
        stop.set()
        changing.join()
    assert done.returncode == 65 and "were written" in done.stderr, done.stderr
    assert place.note()["dim"] == str(DIM) and place.dims() == {DIM}
    bench.wait_acked()
    assert worker.poll() is None # it was not disturbed
    place.migrate("--dim", "256")
    place.texts["6"] = "written by the old one, which may not any more"
    place.send("6")
    assert worker.wait(timeout=60) == 69 and "dim: 256" in bench.log("old"), bench.log("old")
    assert place.dims() == {256}
    assert bench.client.xlen("texts:dlq") == 0 and bench.rows("embeddings_dlq") == 0
    worker = bench.start_sink("--dim", "256", name="new")
    bench.wait_acked() # what the old one had taken is not lost
    bench.stop(worker)
    place.check(256)


def case_same_length(bench):
    """Nothing but the note tells the old worker's vectors from the new ones."""
    place = Place(bench, n=20)
    worker = bench.start_sink(name="old")
    place.migrate("--dim", str(DIM), "--prompt", "query")
    old = place.read()
    place.send("6")
    assert worker.wait(timeout=60) == 69 and "prompt" in bench.log("old"), bench.log("old")
    assert place.read() == old


def case_last_moment(bench):
    """A worker that writes, and one that starts, while the note is being changed: both find it."""
    place, pg = Place(bench, n=20), bench.pg
    old = bench.start_sink(name="old")
    place.send("0")
    bench.wait_acked() # it has compared
    place.write()
    before = place.note()
    holder = subprocess.Popen([pg.bin / "psql", "-q", "-h", pg.host, "-p", str(pg.port), "-U",
                               "postgres"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                              text=True)
    bench.processes.append(holder)
    holder.stdin.write("BEGIN; SELECT FROM embeddings_made_with FOR UPDATE;\n")
    holder.stdin.flush()

    def wait_waiting(n):
        wait_for(f"{n} that wait", lambda: pg.one(
            "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted") == str(n), 100)

    wait_for("the note held", lambda: pg.one(
        "SELECT count(*) FROM pg_locks WHERE mode = 'RowShareLock'") != "0")
    migrating = subprocess.Popen(
        place.command("--dim", str(DIM), "--prompt", "query", "--postgres-lock-timeout", "100s"),
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    bench.processes.append(migrating)
    wait_waiting(1)
    place.texts["new"] = "of the old model"
    place.send("new")
    wait_waiting(2)
    late = bench.start_sink(name="late")
    wait_waiting(3)
    holder.stdin.write("COMMIT;\n")
    holder.stdin.close()
    assert migrating.wait(timeout=60) == 0
    for worker, name in ((old, "old"), (late, "late")):
        assert worker.wait(timeout=60) == 69 and "prompt" in bench.log(name), bench.log(name)
    assert place.note() != before and place.note()["prompt"] != before["prompt"], place.note()
    assert "new" not in place.read()


@slow
def case_killed(bench):
    place = Place(bench, n=120)
    place.write()
    killed = 0
    while True:
        migrating = subprocess.Popen(place.command("--dim", "256", "--batch-texts", "8"),
                                     stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            code = migrating.wait(place.rng.uniform(0.05, 0.7) if killed < 12 else 200)
            assert code == 0, code
            break
        except subprocess.TimeoutExpired:
            migrating.kill()
            migrating.wait()
            killed += 1
        assert place.dims() == {int(place.note()["dim"])}
        if place.dims() == {256}: # committed, and not told of any more
            break
    print(f"  killed {killed} times")
    assert killed > 0
    wait_for("no other session", lambda: place.pg.one(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'embedmill'") == "0")
    place.migrate("--dim", "256")
    place.check(256)


@slow
def case_two_at_once(bench):
    place = Place(bench, n=40)
    place.write()
    both = [subprocess.Popen(place.command(*words, "--work", f"{bench.folder}/work{words[1]}"),
                             stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for words in (("--dim", "256"), ("--prompt", "query"))]
    codes = sorted(one.wait(timeout=200) for one in both)
    assert codes[0] == 0 and codes[1] in (69, 78), codes
    assert place.dims() == {int(place.note()["dim"])} and not place.leftovers()


if __name__ == "__main__":
    sys.exit(run_all(globals(), sys.argv[1], sys.argv[2:]))
