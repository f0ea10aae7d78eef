#!/usr/bin/env python3
"""From a real Redis into a real PostgreSQL with pgvector: rows, versions, chunks, dead letters,
kills of the worker and of the server, a frozen server, drains.

Usage: test_postgres_live.py EMBEDMILL [CASE ...]
"""
import json
import random
import signal
import subprocess
import sys
import time

from postgres_bench import DIM, run_all, settle
from redis_bench import wait_for


def embed(bench, text, *extra):
    """The vector of a text by another way through the program."""
    done = subprocess.run(
        [bench.binary, "embed", "--model", bench.model, "--prompt", "none", "--dim", str(DIM),
         "--output-format", "json", *extra], input=text, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["embedding"]


def case_rows(bench):
    """What a row is: id, vector bit for bit, fields as JSON, the version; for each type."""
    bench.start_both()
    message = {"id": "a ü", "text": "hello", "lang": "de", "n": 1.5, "nul": "x\0y",
               "list": [1, None]}
    vector = embed(bench, "hello")
    for dtype, column in (("f4", "vector"), ("f2", "halfvec"), ("b1", "bit")):
        table = f"rows_{dtype}"
        more = ("--postgres-table", table, "--dtype", dtype)
        bench.make_tables(*more)
        assert f"{column}({DIM})" in bench.schema(*more)
        bench.client.delete("texts")
        worker = bench.start_sink(*more)
        bench.client.xadd("texts", {"body": json.dumps(message), "trace": "t-1"})
        bench.client.xadd("texts", {"body": json.dumps({"id": 7, "text": "seven"})})
        wait_for("two rows", lambda: bench.rows(table) == 2)
        bench.stop(worker)
        [[metadata, found, parent]] = bench.pg.sql(
            f"SELECT metadata, embedding, parent FROM {table} WHERE id = 'a ü'")
        metadata = json.loads(metadata)
        assert metadata.pop("embedding-model"), metadata
        assert metadata == {"lang": "de", "n": 1.5, "nul": "x\ufffdy", "list": [1, None],
                            "trace": "t-1"}, metadata
        assert parent == ""
        if dtype == "b1":
            assert found == "".join("1" if v >= 0 else "0" for v in vector), found
        else:
            near = [abs(a - b) for a, b in zip(json.loads(found), vector)]
            assert max(near) < (1e-3 if dtype == "f2" else 1e-6), max(near)
        assert bench.pg.one(f"SELECT id FROM {table} ORDER BY embedding "
                            f"{'<~>' if dtype == 'b1' else '<=>'} (SELECT embedding FROM {table} "
                            "WHERE id = '7') LIMIT 1") == "7"
        stamp = int(bench.pg.one(f"SELECT version FROM {table} WHERE id = '7'"))
        assert abs(stamp - time.time() * 1000) < 600e3, stamp


def case_other_tables(bench):
    """Ids of other types, a table of another schema with columns of its user, a view."""
    bench.start_both()
    bench.pg.sql("CREATE SCHEMA s; CREATE TABLE s.\"Odd name\" (seen timestamptz DEFAULT now(), "
                 "id bigint PRIMARY KEY, parent text, chunk int, embedding vector, metadata jsonb, "
                 "version bigint, version_order bigint); CREATE INDEX ON s.\"Odd name\" (parent);"
                 "CREATE TABLE of_user (key text PRIMARY KEY, embedding vector(128), parent text, "
                 "chunk int, metadata jsonb, version bigint, version_order bigint); CREATE INDEX "
                 "ON of_user (parent); CREATE VIEW shown AS SELECT key AS id, parent, chunk, "
                 "embedding, metadata, version, version_order FROM of_user;")
    for table in ('s."Odd name"', "shown"):
        bench.client.delete("texts")
        bench.client.flushall()
        worker = bench.start_sink("--postgres-table", table, "--postgres-dead-letters",
                                  "embeddings_dlq", "--postgres-deleted", "embeddings_deleted")
        for i in range(3):
            bench.client.xadd("texts", {"id": str(i), "text": f"t {i}"})
        wait_for("three rows", lambda: bench.rows(table) == 3)
        bench.client.xadd("texts", {"id": "no-number", "text": "t"})
        if table != "shown":
            wait_for("a dead letter", lambda: bench.rows("embeddings_dlq") == 1)
            assert "no-number" in bench.pg.one("SELECT reason FROM embeddings_dlq")
        bench.stop(worker)


def case_versions(bench):
    """What comes late and is older overwrites nothing; what is equal does."""
    bench.start_both()
    worker = bench.start_sink()
    bench.client.xadd("texts", {"id": "a", "text": "new"}, id="2000-5")
    bench.wait_rows(1)
    before = bench.pg.one("SELECT embedding FROM embeddings")
    bench.stop(worker)
    for where, wanted in (("1000-9", "2000,5"), ("2000-4", "2000,5"), ("2000-5", "2000,5"),
                          ("2000-6", "2000,6"), ("3000-0", "3000,0")):
        bench.client.flushall()
        bench.client.xadd("texts", {"id": "a", "text": f"of {where}"}, id=where)
        worker = bench.start_sink()
        bench.wait_rows(1)
        bench.stop(worker)
        version, order, changed = bench.pg.sql(
            "SELECT version, version_order, embedding::text <> "
            f"'{before}' FROM embeddings")[0]
        assert f"{version},{int(order) & 0xfffff}" == wanted, (where, version, order)
        assert (changed == "t") == (where >= "2000-5"), where


def send_at(bench, entry, *extra, **fields):
    """One message with the id, and so the version, of an entry; through a worker of its own."""
    bench.client.flushall()
    bench.client.xadd("texts", fields or {"body": json.dumps(extra[0])}, id=entry)
    worker = bench.start_sink("--too-long", "chunk", "--chunk-tokens", "32")
    bench.wait_acked()
    bench.stop(worker)


def case_deleted(bench):
    """What was deleted stays so: an older message that comes later brings nothing back, whole or in
    chunks; a newer one does. Until its deletion is forgotten."""
    bench.start_both()
    ids = lambda: [row[0] for row in bench.pg.sql("SELECT id FROM embeddings ORDER BY id")]
    send_at(bench, "2000-1", id="a", text="t")
    send_at(bench, "2000-2", {"id": "doc", "text": "word " * 100})
    assert ids()[0] == "a" and len(ids()) > 3, ids()
    send_at(bench, "3000-1", {"id": "a", "delete": True})
    send_at(bench, "3000-2", {"id": "doc", "delete": True})
    send_at(bench, "3000-3", {"id": "never", "delete": True})
    assert ids() == [], ids()
    send_at(bench, "2500-1", id="a", text="t")
    send_at(bench, "2500-2", {"id": "doc", "text": "word " * 100})
    send_at(bench, "2500-3", id="doc", text="t")
    send_at(bench, "2500-4", id="never", text="t")
    send_at(bench, "2500-5", {"id": "a", "delete": True})
    assert ids() == [], ids()
    assert bench.pg.sql("SELECT id, version FROM embeddings_deleted ORDER BY id") == [
        ["a", "3000"], ["doc", "3000"], ["never", "3000"]]
    send_at(bench, "4000-1", id="a", text="t")
    send_at(bench, "4000-2", {"id": "doc", "text": "word " * 100})
    assert ids()[0] == "a" and len(ids()) > 3, ids()
    send_at(bench, "3500-1", {"id": "a", "delete": True}) # older than what is there
    assert "a" in ids(), ids()
    send_at(bench, "5000-2", {"id": "a", "delete": True})
    send_at(bench, "5000-3", {"id": "doc", "delete": True})
    assert ids() == [], ids()
    bench.pg.sql("DELETE FROM embeddings_deleted WHERE deleted_at < now()")
    send_at(bench, "4500-1", id="a", text="t")
    assert ids() == ["a"], ids()


def case_tombstones(bench):
    """Where a field gives the order a tombstone has none: what is there goes, older messages stay
    out, and a text that is written anew comes back, whatever the clock says."""
    bench.start_both()
    ids = lambda: [row[0] for row in bench.pg.sql("SELECT id FROM embeddings ORDER BY id")]
    tombstone = json.dumps({"schema": None, "payload": None})

    def send(key, text, lsn):
        body = json.dumps({"id": key, "body": text, "lsn": lsn}) if text else tombstone
        bench.client.xadd("texts", {"id": key, "body": body})

    long = "word " * 100
    for key in ("a", "b"): # b is in chunks
        text = long if key == "b" else "t"
        bench.client.delete("texts")
        send(key, text, 100)
        send(key, None, None)
        worker = bench.start_sink("--too-long", "chunk", "--chunk-tokens", "32", "--text-field",
                                  "body", "--order-by", "field:lsn")
        bench.wait_acked()
        assert ids() == [], ids()
        assert bench.pg.sql(f"SELECT version FROM embeddings_deleted WHERE id = '{key}'") == [
            ["100"]]
        send(key, text, 90)
        bench.wait_acked()
        assert ids() == [], ids()
        send(key, text, 200)
        bench.wait_acked()
        assert ids() and ids()[0][0] == key, ids()
        send(key, None, None)
        send(key, None, None) # of what is gone already
        send("never", None, None)
        bench.wait_acked()
        assert ids() == [], ids()
        bench.stop(worker)
    assert bench.pg.sql("SELECT id, version FROM embeddings_deleted ORDER BY id") == [
        ["a", "200"], ["b", "200"]]
    # Where the time gives it a tombstone has one, too.
    bench.pg.sql("TRUNCATE embeddings_deleted, embeddings_made_with")
    send_at(bench, "2000-1", id="a", text="t")
    send_at(bench, "3000-1", id="a", body=tombstone)
    assert bench.pg.sql("SELECT id, version FROM embeddings_deleted") == [["a", "3000"]], ids()


def case_deleted_numbers(bench):
    """Ids of another type: '7' and '007' are one row, and one deletion."""
    bench.start_both()
    bench.pg.sql("ALTER TABLE embeddings ALTER id TYPE bigint USING id::bigint")
    send_at(bench, "2000-1", id="7", text="t")
    send_at(bench, "3000-1", {"id": "007", "delete": True})
    send_at(bench, "2500-1", id="7", text="t")
    send_at(bench, "2500-2", id="+7", text="t")
    assert bench.rows() == 0
    send_at(bench, "3500-1", id="07", text="t")
    assert bench.pg.one("SELECT id FROM embeddings") == "7"


def case_deleted_meanwhile(bench):
    """Somebody deletes a text while an older message about it is written, and neither sees the
    other's transaction: whoever comes second finds it out."""
    bench.start_both()
    deleter = subprocess.Popen([bench.pg.bin / "psql", "-q", "-h", bench.pg.host, "-p",
                                str(bench.pg.port), "-U", "postgres"], stdin=subprocess.PIPE,
                               text=True)
    deleter.stdin.write("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended("
                        "'public.embeddings_deleted', 0)); INSERT INTO embeddings_deleted VALUES "
                        "('a', 3000, 0), ('doc', 3000, 0), ('b', 1000, 0);\n")
    deleter.stdin.flush()
    bench.processes.append(deleter)
    settle(0.5)
    worker = bench.start_sink("--too-long", "chunk", "--chunk-tokens", "32",
                              "--postgres-lock-timeout", "20s", "--postgres-timeout", "30s")
    for i, fields in enumerate(({"id": "a", "text": "t"}, {"id": "b", "text": "t"},
                                {"id": "doc", "text": "word " * 100})):
        bench.client.xadd("texts", fields, id=f"2000-{i + 1}")
    wait_for("a worker at the lock", lambda: bench.pg.one(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") != "0")
    deleter.stdin.write("COMMIT;\n")
    deleter.stdin.close()
    bench.wait_acked()
    bench.stop(worker)
    assert bench.pg.sql("SELECT id FROM embeddings") == [["b"]]


def case_chunks(bench):
    """A text in pieces: those that a new version has no more go, also when it is whole again."""
    bench.start_both()
    worker = bench.start_sink("--too-long", "chunk", "--chunk-tokens", "32")
    for text, n in (("word " * 300, None), ("word " * 100, None), ("word", 0),
                    ("word " * 200, None)):
        before = bench.pg.one("SELECT coalesce(max(version_order::text), '') FROM embeddings")
        bench.client.xadd("texts", {"id": "doc", "text": text})
        wait_for("the version", lambda: bench.pg.one(
            "SELECT coalesce(max(version_order::text), '') FROM embeddings") != before)
        rows = bench.pg.sql("SELECT id, parent, chunk, metadata->>'start' FROM embeddings "
                            "ORDER BY chunk")
        if n == 0:
            assert [row[:2] for row in rows] == [["doc", ""]], rows
            continue
        count = len(rows)
        assert count > 2 and [row[0] for row in rows] == [f"doc#{i}" for i in range(count)], rows
        assert all(row[1] == "doc" for row in rows)
    bench.stop(worker)


def case_dead_letters(bench):
    """Of a bad message everything is kept, byte for byte."""
    bench.start_both()
    worker = bench.start_sink()
    bad = b"\x81\xff\0\x01"
    entry = bench.client.xadd("texts", {"body": bad, "id": "x", "raw": b"\xfe\0"})
    bench.client.xadd("texts", {"id": "good", "text": "t"})
    wait_for("the letter", lambda: bench.rows("embeddings_dlq") == 1)
    bench.wait_rows(1)
    [[position, code, value, headers]] = bench.pg.sql(
        "SELECT position, code, encode(value, 'hex'), headers FROM embeddings_dlq")
    assert position == f"texts {entry.decode()}" and code == "bad_msgpack", (position, code)
    assert value == bad.hex(), value
    assert json.loads(headers) == [{"name": "id", "value": "x"},
                                   {"name": "raw", "base64": "/gA="}], headers
    bench.stop(worker)


def case_replay(bench):
    """Dead letters go back to the system that they came from, as they came, and are taken off."""
    bench.start_both()
    worker = bench.start_sink()
    bad = [{b"body": b"\x81\xff\0\x01", b"id": b"x", b"raw": b"\xfe\0", b"empty": b""},
           {b"body": b'{"id": 1', b"tr\xc3\xa4ce": b"\xe2\x82\xac 5"}, {b"body": b"\x81"}]
    for fields in bad:
        bench.client.xadd("texts", fields)
    bench.client.xadd("texts", {"nobody": "x"})
    wait_for("the letters", lambda: bench.rows("embeddings_dlq") == 4)
    bench.stop(worker)

    def dlq(*words, code=0):
        done = subprocess.run(
            [bench.binary, "dlq", *words, "--sink", "postgres", "--postgres-url", bench.pg.url()],
            capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == code, (words, done)
        return done.stdout + done.stderr
    assert "--to, as redis://" in dlq("replay", code=78)
    assert "expected redis://" in dlq("replay", "--to", "ftp://x", code=64)
    assert "--to, as redis://" in dlq("replay", "--to", "texts", code=64)
    to = ("--to", f"redis://127.0.0.1:{bench.port}/0", "--stream", "again")
    assert dlq("replay", *to, "--dry-run").count("\t") == 3 * 3
    assert bench.client.xlen("again") == 0
    assert "1 put back, 0 left" in dlq("replay", *to, "--code", "bad_json")
    said = dlq("replay", *to)
    assert "2 put back, 1 left, 0 gone" in said and "is missing" in said, said
    found = [fields for _, fields in bench.client.xrange("again")]
    assert found == [bad[1], bad[0], bad[2]], found
    assert bench.pg.sql("SELECT code FROM embeddings_dlq") == [["no_body"]]
    nowhere = ("--to", "redis://127.0.0.1:1/0", "--redis-timeout", "200ms")
    bench.pg.sql("UPDATE embeddings_dlq SET value = 'x'")
    assert "confirmed" in dlq("replay", *nowhere, code=69)
    assert bench.rows("embeddings_dlq") == 1


def case_doctor(bench):
    """What is found, what is said, for each thing that can be wrong; and `dlq list`."""
    bench.start_both()

    def ask(*extra, url=None, command="doctor", **more):
        done = subprocess.run(
            [bench.binary, command, *extra, "--sink", "postgres", "--postgres-url",
             url or bench.pg.url(**more), "--model", bench.model, "--dim", str(DIM), "--redis-url",
             f"redis://127.0.0.1:{bench.port}"] + (["--json"] if command == "doctor" else []),
            capture_output=True, text=True, check=False, timeout=60)
        if command != "doctor":
            return done
        return done.returncode, {found["what"]: (found["result"], found["said"])
                                 for found in json.loads(done.stdout)["findings"]
                                 if found["area"] in ("postgres", "libraries")}
    code, found = ask()
    assert code == 0, found
    version = bench.pg.one("SHOW server_version").split()[0]
    assert f"PostgreSQL {version}" in found["version"][1], found
    assert found["pgvector"][0] == "ok", found
    assert found["table"][0] == found["permissions"][0] == "ok" and "libpq" in found, found
    assert found["durability"][0] == "warn", found # fsync is off in these tests
    code, found = ask("--postgres-table", "none")
    assert code == 69 and "embedmill schema" in found["table"][1], found
    code, found = ask("--delivery", "exactly-once", "--source", "kafka")
    assert code == 69 and "embeddings_offsets" in found["table"][1], found
    code, found = ask(url="postgresql://postgres@127.0.0.1:1/postgres")
    assert code == 69 and "see postgres.url" in found["connection"][1], found
    bench.pg.sql("CREATE ROLE r LOGIN; GRANT SELECT, INSERT ON embeddings, embeddings_dlq TO r")
    code, found = ask(user="r")
    assert code == 69 and "GRANT" in found["permissions"][1], found
    bench.pg.sql("ALTER TABLE embeddings ALTER embedding TYPE vector(64)")
    code, found = ask()
    assert code == 69 and "64 dimensions" in found["table"][1], found
    bench.pg.sql("INSERT INTO embeddings_dlq VALUES ('texts 1-0', 'bad_json', 'no', NULL, "
                 "'\\x00ff', '[]'), ('texts 2-0', 'no_body', 'none', NULL, NULL, '[]')")
    listed = ask("list", command="dlq").stdout
    assert "texts 1-0\tbad_json" in listed and "texts 2-0\tno_body" in listed, listed
    done = subprocess.run(
        [bench.binary, "check", "--sink", "postgres", "--model", bench.model, "--dtype", "i1"],
        capture_output=True, text=True, check=False)
    assert done.returncode == 64 and "pgvector has no type for int8" in done.stdout, done


def case_poison_crowd(bench):
    """More rows in a row that are refused, one by one, than a worker has batches, before it is
    known whose fault that is: good ones come all the same and show it."""
    bench.start_both()
    bench.pg.sql("ALTER TABLE embeddings ADD CHECK (id NOT LIKE 'bad%')")
    worker = bench.start_sink("--threads", "1") # 3 batches
    for i in range(8):
        bench.client.xadd("texts", {"text": "t", "id": f"bad-{i}"})
        wait_for("it is taken", lambda n=i: bench.client.xpending("texts", "embedmill")["pending"]
                 > n)
    bench.client.xadd("texts", {"text": "t", "id": "good"})
    bench.wait_rows(1)
    assert bench.rows("embeddings_dlq") == 8
    assert worker.poll() is None
    bench.stop(worker)


SLOW_ROWS = """CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(0.002); RETURN new; END';
    CREATE TRIGGER dawdle BEFORE INSERT ON embeddings FOR EACH ROW EXECUTE FUNCTION dawdle();"""
SESSIONS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'embedmill'"


def add_versions(bench, ids, first, n):
    pipe = bench.client.pipeline()
    for i in range(first, first + n):
        pipe.xadd("texts", {"text": f"text {i % 20}", "id": ids[i], "n": str(i)})
    pipe.execute()


def expect_newest(bench, ids):
    """Of each id the row is of its last message."""
    rows = bench.pg.sql("SELECT id, metadata->>'n' FROM embeddings")
    found = {row[0]: int(row[1]) for row in rows}
    wanted = {name: i for i, name in enumerate(ids)}
    assert found == wanted, [(key, found.get(key), wanted[key]) for key in wanted
                             if found.get(key) != wanted[key]][:5]


def case_two_connections(bench):
    """Records that wait behind a transaction go by a second connection: several versions of each
    text under way at once, one or the other connection killed, all is right, and nobody waited for
    a transaction that waited for his."""
    bench.start_both()
    bench.pg.sql(SLOW_ROWS)
    # Some once; others forth and back: two transactions would lock the same rows from both ends.
    ids = [f"once-{i}" for i in range(400)]
    ids += [f"again-{i % 20 if i % 40 < 20 else 19 - i % 20}" for i in range(400)]
    ids += [f"once-{i}" for i in range(400, 800)]
    worker = bench.start_sink("--batch-texts", "64")
    add_versions(bench, ids, 0, 800)
    wait_for("two connections", lambda: len(bench.pg.sql(SESSIONS)) == 2)
    bench.wait_acked(60)
    expect_newest(bench, ids[:800])
    add_versions(bench, ids, 800, 400)
    wait_for("the next", lambda: bench.rows() > 420)
    for order in ("ASC", "DESC"): # the first connection, and what is left
        bench.pg.sql(f"SELECT pg_terminate_backend(pid) FROM ({SESSIONS} ORDER BY backend_start "
                     f"{order} LIMIT 1) AS one")
    bench.wait_acked(60)
    expect_newest(bench, ids)
    assert "deadlock detected" not in bench.pg.log(), bench.pg.log()[-3000:]
    assert not bench.rows("embeddings_dlq")
    assert worker.poll() is None, bench.log()
    bench.stop(worker)


def case_one_connection(bench):
    """A server that has only one connection for the worker."""
    bench.start_both()
    bench.pg.sql(SLOW_ROWS + "CREATE ROLE lonely LOGIN CONNECTION LIMIT 1; GRANT ALL ON ALL TABLES "
                 "IN SCHEMA public TO lonely;")
    worker = bench.start_sink("--batch-texts", "64", url=bench.pg.url(user="lonely"))
    ids = [f"id-{i}" for i in range(1000)]
    add_versions(bench, ids, 0, 1000)
    bench.wait_acked(60)
    expect_newest(bench, ids)
    assert "too many connections for role" in bench.pg.log(), "the second was not wanted"
    assert "sink waits" not in bench.log(), bench.log()
    assert worker.poll() is None, bench.log()
    bench.stop(worker)


def case_worker_killed(bench):
    """Three workers, one of them killed again and again: every id once, no row torn."""
    bench.start_both()
    n, seed = 3000, random.SystemRandom().randrange(1 << 30)
    print(f"        seed {seed}", flush=True)
    choose = random.Random(seed)
    workers = [bench.start_sink("--batch-texts", "16", name=f"w{i}") for i in range(3)]
    for i in range(n):
        bench.client.xadd("texts", {"text": f"text {i % 20}", "id": f"id-{i}"})
        if i % 300 == 299:
            slot = choose.randrange(3)
            workers[slot].kill()
            workers[slot].wait()
            workers[slot] = bench.start_sink("--batch-texts", "16", name=f"w{slot}")
            time.sleep(0.3)
    bench.wait_rows(n, 120)
    for worker in workers:
        bench.stop(worker)
    assert bench.rows("embeddings_dlq") == 0
    assert bench.pg.one("SELECT count(DISTINCT embedding::text) FROM embeddings") == "20"


def case_server_killed(bench):
    """The server dies in the middle, is away, comes back."""
    bench.start_both()
    worker = bench.start_sink("--batch-texts", "16")
    sent = 0

    def send(n):
        nonlocal sent
        for i in range(sent, sent + n):
            bench.client.xadd("texts", {"text": f"text {i % 20}", "id": f"id-{i}"})
        sent += n
    for _ in range(3):
        send(400)
        wait_for("some rows", lambda: bench.rows() > sent - 400, 30)
        bench.pg.kill()
        send(100)
        settle(1)
        assert worker.poll() is None, bench.log()
        bench.pg.start()
        bench.wait_rows(sent)
    bench.stop(worker)


def case_server_frozen(bench):
    """Neither answers nor closes its connections, for longer than is waited for an answer."""
    bench.start_both()
    worker = bench.start_sink("--batch-texts", "16")
    bench.add(0, 100)
    bench.wait_rows(100)
    bench.pg.signal(signal.SIGSTOP)
    bench.add(100, 200)
    wait_for("the report", lambda: "does not answer" in bench.log(), 20)
    settle(3)
    assert bench.client.xinfo_groups("texts")[0]["pending"] > 0 and worker.poll() is None
    bench.pg.signal(signal.SIGCONT)
    bench.wait_rows(300)
    bench.stop(worker)


def case_drained(bench):
    """SIGTERM at any moment: what was taken is finished, the rest is given back as if it had never
    been delivered."""
    bench.start_both()
    n = 0
    for turn in range(8):
        for i in range(n, n + 100):
            bench.client.xadd("texts", {"text": f"text {i % 20}", "id": f"id-{i}"})
        n += 100
        worker = bench.start_sink("--batch-texts", "16")
        wait_for("started", lambda turn=turn: bench.log().count('"msg":"started"') > turn)
        wait_for("taken", lambda: any(
            (group["entries-read"] or 0) >= n - 60 for group in bench.client.xinfo_groups("texts")))
        bench.stop(worker)
        rest = bench.client.xpending_range("texts", "embedmill", "-", "+", 1000)
        assert all(row["times_delivered"] == 0 for row in rest), rest
    worker = bench.start_sink()
    wait_for("started", lambda: bench.log().count('"msg":"started"') > 8) # or SIGTERM just ends it
    bench.wait_rows(n)
    bench.stop(worker)


if __name__ == "__main__":
    sys.exit(run_all(globals(), sys.argv[1], sys.argv[2:]))
