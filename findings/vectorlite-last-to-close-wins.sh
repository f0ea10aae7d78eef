#!/usr/bin/env bash
# vectorlite keeps a table's vectors in each connection by itself, and the last to close overwrites the rest.
#
# A vectorlite table is queried as a part of the database, but its index is read from a file of its own when a
# connection first uses it, and written when that connection is closed. So ROLLBACK does not take an insert
# back; a second connection does not see what the first has committed; and when both have written, the file
# has the rows of the one that closed last, the other's are gone. Until then there is no file at all, while
# the other tables of the database have their rows. The guess that misses: a virtual table of SQLite is in its
# transactions and seen by all connections. Write from one connection only, close it in good order, and keep
# the vectors in an ordinary table too, so that the index can be built anew.
#
# Versions: PyPI vectorlite-py 0.2.0, SQLite 3.54.1 (PyPI apsw 3.54.1.0).
# Seen: row 2 after its ROLLBACK; nothing in the second connection; row 3 alone when the file is opened again.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: vectorlite-py==0.2.0 apsw==3.54.1.0 numpy==2.4.6

cat >try.py <<'PY'
import os
import struct

import apsw
import vectorlite_py


def connect():
    db = apsw.Connection("texts.db")
    db.enable_load_extension(True)
    db.load_extension(vectorlite_py.vectorlite_path())
    return db


def insert(db, id):
    db.execute("insert into texts (rowid, v) values (?, ?)", (id, struct.pack("<2f", id, 0)))
    db.execute("insert into ids values (?)", (id,))


def found(db, name):
    rows = [row[0] for row in db.execute(
        "select rowid from texts where knn_search(v, knn_param(?, 10))", (struct.pack("<2f", 0, 0),))]
    ids = [row[0] for row in db.execute("select id from ids order by id")]
    print(f"{name}: vectors {rows}, ordinary table {ids}")
    return rows, ids


first = connect()
print(*first.execute("select vectorlite_info()").fetchone())
first.execute("create table ids (id integer)")
first.execute("create virtual table texts using"
              " vectorlite(v float32[2], hnsw(max_elements=100), 'texts.index')")
insert(first, 1)
first.execute("begin")
insert(first, 2)
first.execute("rollback")
assert found(first, "after a rollback") == ([1, 2], [1])
assert not os.path.exists("texts.index")

second = connect()
assert found(second, "a second connection") == ([], [1])
insert(second, 3)
first.close()
second.close()
assert found(connect(), "opened again") == ([3], [1, 3])
PY
venv/bin/python try.py
echo "as described"
