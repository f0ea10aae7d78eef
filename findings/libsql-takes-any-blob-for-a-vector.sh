#!/usr/bin/env bash
# libSQL and Turso take a blob of any length, and text, into a column F32_BLOB(3), and read doubles as floats.
#
# The type of a vector column with its dimension is not looked at when a row is written. A vector of another
# model, one cut short and one of float64 are stored. vector_extract() gives six numbers for three doubles.
# One such row makes every search of the table fail, with an error that does not name it. The distance of
# zeros differs: NULL in libSQL, which sorts before the best, and 1 in Turso. The guess that misses: the
# number in F32_BLOB(3) is a constraint, as vector(3) of pgvector is. Add CHECK (typeof(v) = 'blob' AND
# length(v) = 4 * 3).
#
# Versions: PyPI libsql 0.1.11 (SQLite 3.45.1), pyturso 0.8.3.
# Seen: blobs of 8, 12, 16, 24 bytes and text are stored by both; [0,1.875,0,2,0,2.125] for 1, 2, 3 as doubles.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: libsql==0.1.11 pyturso==0.8.3

cat >try.py <<'PY'
import struct
from importlib.metadata import version

import libsql
import turso

ROWS = [struct.pack("<3f", 1, 2, 3), struct.pack("<2f", 1, 2), struct.pack("<4f", 1, 2, 3, 4),
        struct.pack("<3d", 1, 2, 3), "text"]
DISTANCE = "vector_distance_cos(v, vector32('[1,2,3]'))"

for module, name in ((libsql, "libsql"), (turso, "pyturso")):
    db = module.connect(":memory:").cursor()

    def ask(statement, *values):
        db.execute(statement, *values)
        return db.fetchall()

    db.execute("create table texts (id integer primary key, v F32_BLOB(3))")
    for row in ROWS:
        db.execute("insert into texts (v) values (?)", (row,))
    [(stored,)] = ask("select count(*) from texts")
    [(doubles,)] = ask("select vector_extract(v) from texts where id = 4")
    try:
        searched = ask(f"select id from texts order by {DISTANCE} limit 1")
    except Exception as why:
        searched = f"{type(why).__name__}: {why}"
    db.execute("create table zeros (v F32_BLOB(3))")
    db.execute("insert into zeros values (vector32('[0,0,0]'))")
    [(zeros,)] = ask(f"select {DISTANCE} from zeros")
    print(name, version(name), "stored", stored, "doubles", doubles, "search:", searched,
          "zeros", zeros)
    assert stored == 5 and [float(x) for x in doubles.strip("[]").split(",")] == [
        0, 1.875, 0, 2, 0, 2.125]
    assert isinstance(searched, str)
    assert zeros is None if module is libsql else zeros == 1

    db.execute("create table checked (v F32_BLOB(3) check (typeof(v) = 'blob' and length(v) = 12))")
    taken = []
    for row in ROWS:
        try:
            db.execute("insert into checked values (?)", (row,))
            taken.append(row)
        except Exception as why:
            refused = why
    print("   with CHECK:", len(taken), "taken;", refused)
    assert taken == ROWS[:1]
PY
venv/bin/python try.py
echo "as described"
