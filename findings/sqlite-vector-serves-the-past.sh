#!/usr/bin/env bash
# sqlite-vector's fast search answers from a copy that no INSERT, UPDATE or DELETE reaches.
#
# vector_quantize() makes the copy that vector_quantize_scan() reads. Rows that are written later are not found,
# rows that are deleted are, and a changed row is found where it was; nothing is raised, and the answer has its
# k rows. A join with the table drops the deleted ones: then there are fewer than k. vector_full_scan() reads
# the table, but of a blob that is too long it takes the beginning: a vector of another model is compared as
# if it were of this one (one that is too short is left out). The guess that misses: what SQLite calls an index
# or a function follows its table in the same transaction. Quantize again after each batch of writes;
# CHECK (length(v) = 4 * dimension).
#
# Versions: sqlite-vector 1.1.2 (PyPI sqliteai-vector), SQLite 3.54.1 (PyPI apsw 3.54.1.0).
# Seen: the full scan's nearest are 100, 2, 3, the quantized ones 0, 1, 2; [0, 0, 5] has distance 0 from [0, 0].
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: sqliteai-vector==1.1.2 apsw==3.54.1.0

cat >try.py <<'PY'
import importlib.resources
import struct

import apsw

db = apsw.Connection(":memory:")
db.enable_load_extension(True)
db.load_extension(str(importlib.resources.files("sqlite_vector") / "binaries" / "vector"))
print("SQLite", apsw.sqlite_lib_version(), "sqlite-vector",
      *db.execute("select vector_version()").fetchone())


def pack(*numbers):
    return struct.pack(f"<{len(numbers)}f", *numbers)


def nearest(function, k=3):
    return list(db.execute(f"select rowid, distance from {function}('texts', 'v', ?, ?)",
                           (pack(0, 0), k)))


def ids(function, k=3):
    return [row[0] for row in nearest(function, k)]


db.execute("create table texts (id integer primary key, v blob)")
for n in range(5):  # n is at distance n from the query
    db.execute("insert into texts values (?, ?)", (n, pack(n, 0)))
db.execute("select vector_init('texts', 'v', 'dimension=2,type=FLOAT32,distance=L2')").fetchall()
db.execute("select vector_quantize('texts', 'v')").fetchall()
assert ids("vector_full_scan") == ids("vector_quantize_scan") == [0, 1, 2]

db.execute("insert into texts values (100, ?)", (pack(0, 0),))
db.execute("delete from texts where id = 0")
db.execute("update texts set v = ? where id = 1", (pack(50, 50),))
print("full scan", ids("vector_full_scan"), "quantized", ids("vector_quantize_scan"))
assert ids("vector_full_scan") == [100, 2, 3]
assert ids("vector_quantize_scan") == [0, 1, 2]
db.execute("select vector_quantize('texts', 'v')").fetchall()
print("quantized again", ids("vector_quantize_scan"))
assert ids("vector_quantize_scan") == [100, 2, 3]

db.execute("insert into texts values (200, ?)", (pack(0, 0, 5),))
db.execute("insert into texts values (201, ?)", (pack(0),))
found = dict(nearest("vector_full_scan", 10))
print("with blobs of 3 and of 1 numbers:", found)
assert found[200] == 0 and 201 not in found
PY
venv/bin/python try.py
echo "as described"
