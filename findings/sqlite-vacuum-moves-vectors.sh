#!/usr/bin/env bash
# VACUUM gives the rows of an SQLite table new rowids, and every vector that is kept by them another text.
#
# A vector index beside a table (sqlite-vec's vec0, a FAISS or usearch file) is keyed by what the insert
# returned, cursor.lastrowid. Of a table without INTEGER PRIMARY KEY and without an index VACUUM numbers the
# rows anew from 1: after one delete all later texts have the rowid of a neighbour, and a search answers with
# the wrong text for the right vector. Nothing is raised, not even a hit without a text. With a UNIQUE
# column in the table, or a key of text, the numbers happen to stay, so whether it bites depends on the
# schema. The guess that misses: a rowid belongs to its row as long as that exists. Declare the key,
# `id INTEGER PRIMARY KEY`, which is the rowid then and is kept; VACUUM's documentation says so.
#
# Versions: SQLite 3.54.1 (PyPI apsw 3.54.1.0), sqlite-vec 0.1.9. Python's sqlite3 with 3.40 agrees.
# Seen: the nearest to the vector of "text 3" is "text 4" after DELETE of "text 1" and VACUUM; with a
# UNIQUE column or an INTEGER PRIMARY KEY it stays "text 3".
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: sqlite-vec==0.1.9 apsw==3.54.1.0

cat >try.py <<'PY'
import json

import apsw
import sqlite_vec


def nearest(columns, name):
    """The text of the nearest vector, before and after VACUUM."""
    db = apsw.Connection(name)
    db.enable_load_extension(True)
    db.load_extension(sqlite_vec.loadable_path())
    db.execute(f"CREATE TABLE texts({columns})")
    db.execute("CREATE VIRTUAL TABLE vectors USING vec0(embedding FLOAT[2])")
    for n in range(6):
        db.execute("INSERT INTO texts(text) VALUES (?)", [f"text {n}"])
        db.execute("INSERT INTO vectors(rowid, embedding) VALUES (?, ?)",
                   [db.last_insert_rowid(), json.dumps([n, 1])])
    [(gone,)] = db.execute("SELECT rowid FROM texts WHERE text = 'text 1'")
    db.execute("DELETE FROM texts WHERE rowid = ?", [gone])
    db.execute("DELETE FROM vectors WHERE rowid = ?", [gone])

    def ask():
        [(text,)] = db.execute(
            "SELECT text FROM vectors JOIN texts ON texts.rowid = vectors.rowid "
            "WHERE embedding MATCH '[3, 1]' AND k = 1")
        return text
    before = ask()
    db.execute("VACUUM")
    print(f"texts({columns}): {before!r} before VACUUM, {ask()!r} after it")
    return before, ask()


print("SQLite", apsw.sqlite_lib_version())
assert nearest("text TEXT", "plain.db") == ("text 3", "text 4")
assert nearest("text TEXT, key TEXT UNIQUE", "unique.db") == ("text 3", "text 3")
assert nearest("id INTEGER PRIMARY KEY, text TEXT", "key.db") == ("text 3", "text 3")
PY
venv/bin/python try.py
echo "as described"
