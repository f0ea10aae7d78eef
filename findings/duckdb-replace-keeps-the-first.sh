#!/usr/bin/env bash
# DuckDB's INSERT OR REPLACE keeps the first of two rows of one key, and the columns it was not given.
#
# A batch that holds a document twice, an older and a newer version, leaves the older one in the table:
# no error, the count of rows says 1, and ON CONFLICT DO UPDATE does the same. Sent as two statements
# the newer one stays. And a row that is replaced by a statement that names fewer columns keeps the
# others: a new embedding stands beside the old tag. SQLite, from which the statement comes, keeps
# the last row and sets what is not named to NULL; PostgreSQL refuses a batch with a key twice. The
# guess that misses: the statement means the same in both, and later rows win. Drop doubles from a batch
# before it is written, and name every column.
#
# Versions: duckdb 2.0.1; SQLite as Python 3.11 has it.
# Seen: id 7 is "first" in DuckDB and "second" in SQLite; tag "old" stays in DuckDB, NULL in SQLite.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: duckdb==2.0.1

cat >try.py <<'PY'
import sqlite3

import duckdb

duck, lite = duckdb.connect(), sqlite3.connect(":memory:")
for db, vector in (duck, "FLOAT[2]"), (lite, "TEXT"):
    db.execute(f"create table texts (id int primary key, v {vector}, tag text)")


def replaced(statement, tail=""):
    """The table's rows in DuckDB and in SQLite after the same statement."""
    rows = []
    for db in duck, lite:
        told = db.execute(statement + tail)
        if db is duck:
            print("rows counted by DuckDB:", told.fetchone()[0])
        rows.append(db.execute("select id, tag from texts order by id").fetchall())
    print(f"{statement}{tail}: DuckDB {rows[0]}, SQLite {rows[1]}")
    return rows


twice = "values (7, '[1, 0]', 'first'), (7, '[0, 1]', 'second')"
ours, theirs = replaced(f"insert or replace into texts {twice}")
assert ours == [(7, "first")] and theirs == [(7, "second")]
assert duck.execute("select v from texts").fetchone()[0] == (1.0, 0.0)

duck.execute("delete from texts")
lite.execute("delete from texts")
ours, theirs = replaced(f"insert into texts {twice}",
                        " on conflict (id) do update set v = excluded.v, tag = excluded.tag")
assert ours == [(7, "first")] and theirs == [(7, "second")]

replaced("insert or replace into texts values (7, '[1, 0]', 'old')")
ours, theirs = replaced("insert or replace into texts (id, v) values (7, '[1, 1]')")
assert ours == [(7, "old")] and theirs == [(7, None)]
assert duck.execute("select v from texts").fetchone()[0] == (1.0, 1.0)
PY
venv/bin/python try.py
echo "as described"
