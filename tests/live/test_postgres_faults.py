#!/usr/bin/env python3
"""What a real PostgreSQL refuses: one record among a thousand, a table that is not there or is
another, rights taken away, locks, a full disk, passwords; failover, a pooler, TLS.

Usage: test_postgres_faults.py EMBEDMILL [CASE ...]
"""
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from ports import free_port
from postgres_bench import Postgres, programs, run_all, settle
from redis_bench import wait_for


def add(bench, first, n, **more):
    pipe = bench.client.pipeline()
    for i in range(first, first + n):
        pipe.xadd("texts", {"text": f"text {i % 20}", "id": f"id-{i}", **more})
    pipe.execute()


def wait_log(bench, words, seconds=20, name="w"):
    wait_for(f"'{words}' in the log", lambda: words in bench.log(name), seconds)


def letters(bench):
    return bench.pg.sql("SELECT code, reason FROM embeddings_dlq ORDER BY position")


def team(bench, *extra):
    return [bench.start_sink("--batch-texts", "64", *extra, name=name) for name in ("w", "v")]


def stop(bench, workers):
    for worker in workers:
        assert worker.poll() is None, bench.log()
        bench.stop(worker)


def case_poison(bench):
    """One record among a thousand that the table refuses, of each kind: a dead letter, its
    neighbours pass, nobody ends."""
    bench.start_both()
    bench.pg.sql("ALTER TABLE embeddings ADD CHECK (metadata->>'lang' IS DISTINCT FROM 'xx'); "
                 "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF "
                 "NEW.id = 'trigger' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END "
                 "$$; CREATE TRIGGER t BEFORE INSERT ON embeddings FOR EACH ROW EXECUTE FUNCTION "
                 "refuse()")
    poison = {"check": {"text": "t", "id": "check", "lang": "xx"},
              "trigger": {"text": "t", "id": "trigger"},
              "nul": {"text": "t", "id": "a\0b"}}
    for name, fields in poison.items():
        bench.client.flushall()
        bench.pg.sql("TRUNCATE embeddings, embeddings_dlq")
        add(bench, 0, 417)
        bench.client.xadd("texts", fields)
        add(bench, 417, 583)
        workers = team(bench)
        bench.wait_rows(1000)
        stop(bench, workers)
        [[code, reason]] = letters(bench)
        assert code == "output_refused", (name, code)
        assert {"check": "constraint", "trigger": "not this one", "nul": "NUL"}[name] in reason
        print(f"        {name}: {reason[:90]}", flush=True)


def case_poison_first(bench):
    """Before anything was accepted nobody can tell whose fault it is: others show it."""
    bench.start_both()
    bench.pg.sql("ALTER TABLE embeddings ADD CHECK (id <> 'bad')")
    worker = bench.start_sink()
    bench.client.xadd("texts", {"text": "t", "id": "bad"})
    wait_log(bench, "constraint")
    settle(2)
    assert not letters(bench) and worker.poll() is None
    add(bench, 0, 1)
    wait_for("the letter", lambda: len(letters(bench)) == 1)
    bench.wait_rows(1)
    stop(bench, [worker])


def case_nothing_fits(bench):
    """A column that every row lacks is not the fault of a thousand records."""
    bench.start_both()
    worker = bench.start_sink("--batch-texts", "64")
    add(bench, 0, 100)
    bench.wait_rows(100)
    bench.pg.sql("ALTER TABLE embeddings ADD kind text; UPDATE embeddings SET kind = 'x'; "
                 "ALTER TABLE embeddings ALTER kind SET NOT NULL")
    add(bench, 100, 300)
    wait_log(bench, "not-null")
    settle(8)
    assert len(letters(bench)) <= 16, len(letters(bench))
    bench.pg.sql("ALTER TABLE embeddings ALTER kind DROP NOT NULL")
    bench.wait_acked()
    assert bench.rows() + len(letters(bench)) == 400
    stop(bench, [worker])


def case_letters_fit(bench):
    """Dead letters that the other table takes do not prove that this one would take rows."""
    bench.start_both()
    worker = bench.start_sink("--batch-texts", "64")
    add(bench, 0, 10)
    bench.wait_rows(10)
    bench.pg.sql("ALTER TABLE embeddings ADD CONSTRAINT never CHECK (false) NOT VALID")
    for i in range(40):
        add(bench, 10 + i, 1)
        bench.client.xadd("texts", {"body": b"\x81"})
    wait_log(bench, "never")
    settle(8)
    own = [code for code, _ in letters(bench) if code == "output_refused"]
    print(f"        {len(own)} of 40 are dead letters", flush=True)
    assert len(own) <= 16, letters(bench)
    bench.pg.sql("ALTER TABLE embeddings DROP CONSTRAINT never")
    bench.wait_acked()
    assert len(letters(bench)) + bench.rows() == 90, letters(bench)
    stop(bench, [worker])


def case_one_row_only(bench):
    """What means the whole table as a rule, of one row: a policy, a trigger without its table, an
    error inside the server. Others pass, and it is a letter."""
    bench.start_both()
    bench.pg.sql(
        "CREATE ROLE w LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public "
        "TO w; "
        "ALTER TABLE embeddings ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON embeddings USING "
        "(true) WITH CHECK (metadata->>'tenant' IS DISTINCT FROM 'other'); "
        "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.id = 'missing' THEN INSERT INTO nowhere VALUES (1); "
        "ELSIF NEW.id = 'internal' THEN RAISE EXCEPTION 'odd' USING ERRCODE = 'XX000'; "
        "END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER t BEFORE INSERT ON embeddings FOR EACH ROW EXECUTE FUNCTION odd()")
    kinds = {"policy": ("42501", "row-level security"), "missing": ("42P01", "nowhere"),
             "internal": ("XX000", "odd")}
    worker = bench.start_sink("--batch-texts", "16",
                              url=bench.pg.url("w"))
    n = 0
    for i, (name, words) in enumerate(kinds.items()):
        add(bench, n, 50)
        bench.client.xadd("texts", {"text": "t", "id": name, "tenant": "other"} if name == "policy"
                          else {"text": "t", "id": name})
        n += 50
        while len(letters(bench)) <= i:
            assert worker.poll() is None and n < 4000, bench.log()
            add(bench, n, 5)
            n += 5
            settle(0.3)
        code, reason = letters(bench)[i]
        assert code == "output_refused" and all(word in reason for word in words), reason
        print(f"        {name}: after {n} others: {reason[:110]}", flush=True)
    bench.wait_rows(n)
    assert len(letters(bench)) == len(kinds)
    stop(bench, [worker])


def hold(bench, statement):
    """A transaction that has done this and does not end before its input is closed."""
    held = subprocess.Popen([bench.pg.bin / "psql", "-q", "-h", bench.pg.host, "-p",
                             str(bench.pg.port), "-U", "postgres"], stdin=subprocess.PIPE,
                            text=True)
    held.stdin.write(f"BEGIN; {statement};\n")
    held.stdin.flush()
    settle(0.5)
    return held


def case_locked_row(bench):
    """Somebody's transaction holds one row: all others pass, and it does when it is let go."""
    bench.start_both()
    worker = bench.start_sink("--postgres-lock-timeout", "200ms", "--batch-texts", "16")
    add(bench, 0, 20)
    bench.wait_rows(20)
    held = hold(bench, "SELECT FROM embeddings WHERE id = 'id-7' FOR UPDATE")
    bench.client.xadd("texts", {"text": "new", "id": "id-7", "lang": "new"})
    add(bench, 20, 100)
    wait_for("the others", lambda: bench.rows() == 120)
    assert bench.pg.one("SELECT metadata FROM embeddings WHERE id = 'id-7'") != '{"lang": "new"}'
    held.stdin.close()
    held.wait()
    bench.wait_acked()
    assert bench.pg.one("SELECT metadata->>'lang' FROM embeddings WHERE id = 'id-7'") == "new"
    assert not letters(bench)
    stop(bench, [worker])


def case_oversize(bench):
    """Metadata and a message that are larger than is taken at once; an id that no index takes."""
    bench.start_both()
    worker = bench.start_sink()
    add(bench, 0, 20)
    bench.client.xadd("texts", {"text": "t", "id": "wide", "wide": "w" * (130 << 20)})
    add(bench, 20, 20)
    bench.wait_rows(40)
    [[code, reason]] = letters(bench)
    assert code == "output_too_large" and "bytes are kept" in reason, reason
    stop(bench, [worker])


def case_table(bench):
    """Not there, dropped under a worker, of another dimension, of another type, without index."""
    bench.start_server()
    bench.pg.create()
    bench.pg.start()
    worker = bench.start_sink()
    add(bench, 0, 50)
    wait_log(bench, "there is no table embeddings")
    assert "embedmill schema" in bench.log()
    bench.make_tables()
    bench.wait_rows(50)
    for undo in ("DROP TABLE embeddings", "DROP TABLE embeddings_dlq",
                 "ALTER TABLE embeddings DROP COLUMN metadata",
                 "DROP INDEX embeddings_parent", "ALTER TABLE embeddings DROP CONSTRAINT "
                 "embeddings_pkey"):
        bench.pg.sql(undo)
        if undo == "DROP TABLE embeddings_dlq":
            bench.client.xadd("texts", {"body": b"\x81"})
        add(bench, 50, 50)
        if "INDEX" in undo: # looked at when it connects, or after a refusal
            bench.stop(worker)
            worker = bench.start_sink()
        settle(2)
        assert worker.poll() is None, bench.log()
        bench.pg.sql("DROP TABLE IF EXISTS embeddings")
        bench.make_tables()
        bench.client.xadd("texts", {"text": "t", "id": "last"})
        wait_for("the last", lambda: bench.pg.sql("SELECT 1 FROM embeddings WHERE id = 'last'"))
        bench.wait_acked()
        settle(0.5)
    assert [code for code, _ in letters(bench)] == ["bad_msgpack"], letters(bench)
    bench.stop(worker)
    for other, words in (("vector(64)", "128 dimensions"), ("halfvec(128)", "take dtype f2"),
                         ("text", "is of type text")):
        bench.pg.sql(f"DROP TABLE embeddings; CREATE TABLE embeddings (id text PRIMARY KEY, parent "
                     f"text, chunk int, embedding {other}, metadata jsonb, version bigint, "
                     "version_order bigint); CREATE INDEX ON embeddings (parent)")
        add(bench, 0, 5)
        worker = bench.start_sink()
        assert worker.wait(timeout=30) == 69, bench.log()
        assert words in bench.log(), bench.log()
    assert len(letters(bench)) == 1
    bench.pg.sql("DROP TABLE embeddings")
    bench.make_tables()
    worker = bench.start_sink("--batch-texts", "8") # altered while it runs
    bench.wait_rows(5)
    bench.pg.sql("TRUNCATE embeddings; ALTER TABLE embeddings ALTER embedding TYPE vector(3)")
    add(bench, 0, 30)
    assert worker.wait(timeout=30) == 69, bench.log()
    assert len(letters(bench)) == 1, letters(bench)


def case_rights(bench):
    """A role whose rights are taken away under it, and given back."""
    bench.start_both()
    bench.pg.sql("CREATE ROLE w LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON embeddings, "
                 "embeddings_dlq, embeddings_deleted, embeddings_made_with TO w")
    worker = bench.start_sink("--batch-texts", "64", url=bench.pg.url("w"))
    add(bench, 0, 200)
    bench.wait_rows(200)
    n = 200
    for right in ("INSERT", "UPDATE", "DELETE", "SELECT"):
        bench.pg.sql(f"REVOKE {right} ON embeddings FROM w")
        add(bench, n, 100)
        settle(1.5)
        assert worker.poll() is None, bench.log()
        assert bench.rows() == n, (right, bench.rows())
        bench.pg.sql(f"GRANT {right} ON embeddings TO w")
        n += 100
        bench.wait_rows(n)
    assert "GRANT" in bench.log() and "42501" in bench.log()
    bench.pg.sql("REVOKE ALL ON embeddings_dlq FROM w")
    bench.client.xadd("texts", {"body": b"\x81"})
    settle(2)
    bench.pg.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON embeddings_dlq TO w")
    wait_for("the letter", lambda: len(letters(bench)) == 1)
    stop(bench, [worker])


def case_logins(bench):
    """Refused for good: the worker ends and says why. Not yet: it waits."""
    bench.start_both()
    with open(bench.pg.data / "pg_hba.conf", "w", encoding="ascii") as file:
        file.write("local all all trust\nhost all w 127.0.0.1/32 scram-sha-256\n"
                   "host all postgres 127.0.0.1/32 trust\n")
    bench.pg.sql("CREATE ROLE w LOGIN PASSWORD 'right'; GRANT ALL ON embeddings, "
                 "embeddings_dlq, embeddings_deleted, embeddings_made_with TO w; "
                 "SELECT pg_reload_conf()")
    add(bench, 0, 10)
    settle(0.5)
    for url, words in ((bench.pg.url("w:hunter2"), "password authentication failed"),
                       (bench.pg.url("nobody"), "pg_hba.conf"),
                       (bench.pg.url(database="none"), "create the database")):
        worker = bench.start_sink(url=url)
        assert worker.wait(timeout=30) == 69, bench.log()
        assert words in bench.log(), bench.log()
    assert "hunter2" not in bench.log()
    worker = bench.start_sink("--postgres-password", "right", url=bench.pg.url("w"))
    bench.wait_rows(10)
    stop(bench, [worker])
    os.environ["PGPASSFILE"] = os.path.join(bench.folder, "pgpass")
    with open(os.environ["PGPASSFILE"], "w", encoding="ascii") as file:
        file.write("127.0.0.1:*:*:w:right\n")
    os.chmod(os.environ["PGPASSFILE"], 0o600)
    add(bench, 10, 10)
    worker = bench.start_sink(url=bench.pg.url("w"))
    bench.wait_rows(20)
    del os.environ["PGPASSFILE"]
    stop(bench, [worker])


def case_locks(bench):
    """A table that somebody locks, a slow index: given up, tried again, smaller."""
    bench.start_both()
    worker = bench.start_sink("--postgres-lock-timeout", "300ms", "--batch-texts", "64")
    add(bench, 0, 100)
    bench.wait_rows(100)
    held = hold(bench, "LOCK TABLE embeddings")
    add(bench, 100, 100)
    wait_log(bench, "55P03")
    settle(1)
    held.stdin.close()
    held.wait()
    bench.wait_rows(200)
    bench.pg.sql("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM "
                 "pg_sleep(0.1); RETURN NEW; END $$; CREATE TRIGGER t BEFORE INSERT ON embeddings "
                 "FOR EACH ROW EXECUTE FUNCTION slow()")
    add(bench, 200, 100) # 3 s are allowed, and together they take 10 s
    bench.wait_rows(300)
    assert not letters(bench)
    stop(bench, [worker])


def case_slow_row(bench):
    """One row of hundreds takes longer than is allowed, whenever it is tried: a letter after twice
    the timeout and a bit, and the others do not wait for that. Rows that take most of the time
    allowed are written."""
    bench.start_both()
    bench.pg.sql("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                 "PERFORM pg_sleep(CASE NEW.id WHEN 'slow' THEN 60 WHEN 'slower' THEN 2 ELSE 0 END)"
                 "; RETURN NEW; END $$; CREATE TRIGGER t BEFORE INSERT ON embeddings "
                 "FOR EACH ROW EXECUTE FUNCTION slow()")
    add(bench, 0, 150)
    bench.client.xadd("texts", {"text": "t", "id": "slow"})
    bench.client.xadd("texts", {"text": "t", "id": "slower"})
    add(bench, 150, 250)
    began = time.monotonic()
    worker = bench.start_sink("--batch-texts", "64") # 3 s are allowed
    wait_for("the others", lambda: bench.rows() >= 400, 20)
    others = time.monotonic() - began
    for i in range(400, 4000):
        if letters(bench):
            break
        add(bench, i, 1)
        settle(0.1)
    took = time.monotonic() - began
    [[code, reason]] = letters(bench)
    assert code == "output_refused" and "57014" in reason, reason
    bench.wait_acked()
    assert bench.pg.one("SELECT count(*) FROM embeddings WHERE id = 'slower'") == "1"
    print(f"        the others after {others:.1f} s, the letter after {took:.1f} s", flush=True)
    assert took < 40, took # 3 + 1 + 3 s on an idle machine
    stop(bench, [worker])


def case_deadlocks(bench):
    """Two workers, the same ids in different orders."""
    bench.start_both()
    workers = team(bench)
    pipe = bench.client.pipeline()
    for i in range(3000):
        pipe.xadd("texts", {"text": f"t {i % 20}", "id": f"id-{(i * 7919) % 50}"})
    pipe.execute()
    bench.wait_rows(50)
    stop(bench, workers)
    assert not letters(bench)
    newest = {f"id-{(i * 7919) % 50}": i for i in range(3000)}
    assert len(newest) == 50


def case_disk_full(bench):
    """A disk without room for one more page: nothing is lost, and it goes on when there is some."""
    if os.getuid() != 0:
        print("        NOT RUN: mounting needs root")
        return
    bench.start_server()
    bench.pg.create()
    small = bench.pg.folder / "data" / "small"
    small.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", small], check=False,
                          capture_output=True, text=True)
    if done.returncode:
        print(f"        NOT RUN: {done.stderr.strip()}")
        return
    try:
        shutil.chown(small, "nobody", "nogroup")
        small.chmod(0o700)
        bench.pg.start()
        bench.pg.sql(f"CREATE TABLESPACE small LOCATION '{small}'; ALTER DATABASE template1 SET "
                     "default_tablespace = ''; SET default_tablespace = small; CREATE EXTENSION "
                     "vector;")
        bench.pg.sql("SET default_tablespace = small;\n" + bench.schema())
        filler = small / "filler"
        filler.write_bytes(b"x" * (4 << 20))
        worker = bench.start_sink("--batch-texts", "64")
        add(bench, 0, 5000, wide="w" * 400)
        wait_log(bench, "53100", 60)
        settle(2)
        assert worker.poll() is None
        filler.unlink()
        bench.wait_rows(5000)
        assert not letters(bench)
        stop(bench, [worker])
    finally:
        bench.pg.stop()
        subprocess.run(["umount", small], check=False)


def case_failover(bench):
    """A standby takes over: the worker finds who takes writes among the hosts."""
    bench.start_both("-c", "wal_level=replica")
    with open(bench.pg.data / "pg_hba.conf", "a", encoding="ascii") as file:
        file.write("local replication all trust\n")
    bench.pg.sql("SELECT pg_reload_conf()")
    standby = Postgres(programs())
    try:
        standby.run("pg_basebackup", "-h", bench.pg.host, "-p", str(bench.pg.port), "-U",
                    "postgres", "-D", standby.data, "-R", "-X", "stream", "-c", "fast")
        standby.start()
        bench.pg.sql("ALTER SYSTEM SET synchronous_standby_names = '*'; SELECT pg_reload_conf()")
        both = (f"postgresql://postgres@127.0.0.1:{standby.port},127.0.0.1:{bench.pg.port}"
                "/postgres")
        worker = bench.start_sink("--batch-texts", "16", url=both)
        add(bench, 0, 500)
        bench.wait_rows(500)
        add(bench, 500, 500)
        bench.pg.kill()
        standby.sql("SELECT pg_promote()")
        standby.sql("ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()")
        add(bench, 1000, 500)
        old, bench.pg = bench.pg, standby
        bench.wait_rows(1500)
        stop(bench, [worker])
        bench.pg = old
    finally:
        standby.close()


def case_becomes_read_only(bench):
    """A primary that takes no more writes is left for another, or waited for."""
    bench.start_both()
    worker = bench.start_sink()
    add(bench, 0, 50)
    bench.wait_rows(50)
    bench.pg.sql("ALTER SYSTEM SET default_transaction_read_only = on; SELECT pg_reload_conf()")
    settle(0.5)
    add(bench, 50, 50)
    wait_log(bench, "sink waits")
    settle(1)
    bench.pg.sql("SET default_transaction_read_only = off; ALTER SYSTEM RESET "
                 "default_transaction_read_only; SELECT pg_reload_conf()")
    bench.wait_rows(100)
    stop(bench, [worker])


def case_pooler(bench):
    """By pgbouncer, which gives each transaction another connection."""
    pooler = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not os.path.exists(pooler):
        print("        NOT RUN: there is no pgbouncer")
        return
    bench.start_both()
    port = free_port()
    folder = bench.pg.folder / "data"
    (folder / "users").write_text('"postgres" ""\n', encoding="ascii")
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={bench.pg.host} port={bench.pg.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = trust\nauth_file = "
        f"{folder}/users\npool_mode = transaction\ndefault_pool_size = 3\nunix_socket_dir = "
        f"{bench.pg.host}\nignore_startup_parameters = extra_float_digits\n", encoding="ascii")
    process = subprocess.Popen([pooler, folder / "pgbouncer.ini"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, **bench.pg.who)
    bench.processes.append(process)
    settle(1)
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    workers = team(bench) + [bench.start_sink("--batch-texts", "16", url=url, name=name)
                             for name in ("p", "q")]
    for first in range(0, 1500, 500):
        add(bench, first, 500)
        bench.client.xadd("texts", {"body": b"\x81"})
        settle(1)
        process.kill()
        process.wait()
        process = subprocess.Popen([pooler, folder / "pgbouncer.ini"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, **bench.pg.who)
        bench.processes.append(process)
    bench.wait_rows(1500)
    assert len(letters(bench)) == 3
    stop(bench, workers)
    assert bench.pg.one("SHOW statement_timeout") == "0"


def case_tls(bench):
    """By the options of libpq's URL, with the server's certificate verified. On the system's own
    server, of whatever version: the other one has no TLS, and this one no pgvector, which a column
    of bits does not need."""
    own = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not own:
        print("        NOT RUN: this system has no PostgreSQL of its own")
        return
    bench.start_server()
    bench.pg.bin = own[-1].parent
    bench.pg.create()
    folder = bench.pg.folder / "data"
    for words in (("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out",
                   "cert.pem", "-days", "2", "-subj", "/CN=localhost", "-addext",
                   "subjectAltName=DNS:localhost,IP:127.0.0.1"),):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    shutil.copy(folder / "cert.pem", bench.folder)
    for name in ("key.pem", "cert.pem"):
        if os.getuid() == 0:
            shutil.chown(folder / name, "nobody", "nogroup")
        (folder / name).chmod(0o600)
    with open(bench.pg.data / "pg_hba.conf", "w", encoding="ascii") as file:
        file.write("local all all trust\nhostssl all all 127.0.0.1/32 trust\n")
    bench.pg.start("-c", "ssl=on", "-c", f"ssl_cert_file={folder}/cert.pem", "-c",
                   f"ssl_key_file={folder}/key.pem")
    bench.pg.sql(bench.schema("--dtype", "b1").replace("CREATE EXTENSION IF NOT EXISTS vector;",
                                                       ""))
    add(bench, 0, 100)
    root = os.path.join(bench.folder, "cert.pem")
    worker = bench.start_sink("--dtype", "b1",
                              url=bench.pg.url(sslmode="verify-full", sslrootcert=root))
    bench.wait_rows(100)
    stop(bench, [worker])
    assert bench.pg.one("SELECT count(*) FROM embeddings WHERE embedding IS NOT NULL") == "100"
    worker = bench.start_sink("--dtype", "b1", url=bench.pg.url(sslmode="disable"))
    assert worker.wait(timeout=30) == 69 and "pg_hba.conf" in bench.log(), bench.log()


if __name__ == "__main__":
    sys.exit(run_all(globals(), sys.argv[1], sys.argv[2:]))
