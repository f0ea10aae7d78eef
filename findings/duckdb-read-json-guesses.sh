#!/usr/bin/env bash
# DuckDB's read_json drops fields that only later lines have, and rewrites strings that look like dates, times or UUIDs.
#
# It takes names and types from the first 20480 lines. A field that comes later is not there, without an error: the new
# title or language of a growing file. Of strings it makes what they look like, when all of the sample do: an id
# or a text "2026-1-5" is a DATE and comes out as "2026-01-05", "9:30" as "09:30:00", a UUID in upper case in
# lower. A join with the source, an upsert or a delete by id then finds nothing; whether it does depends on all of
# the other values. The guess that misses: JSON says which values are strings, and a file of NDJSON is read as a
# whole. columns={'id': 'VARCHAR', ...}, or sample_size=-1 for the fields.
#
# Version: PyPI duckdb 2.0.0.
# Seen: no "title" of line 20481, one of line 20480; 2026-01-05, 09:30:00 and a UUID in lower case.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: duckdb==2.0.0

cat >try.py <<'PY'
import json

import duckdb


def write(rows):
    with open("rows.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def columns(before, options=""):
    write([{"id": str(n)} for n in range(before)] + [{"id": "last", "title": "late"}])
    found = duckdb.sql(f"SELECT * FROM read_json('rows.jsonl'{options})").columns
    print(f"title behind {before} lines{options}: {found}")
    return found


assert columns(20479) == ["id", "title"]
assert columns(20480) == ["id"]
assert columns(20480, ", sample_size=-1") == ["id", "title"]


def ids(strings, options=""):
    write({"id": string} for string in strings)
    found = duckdb.sql(f"SELECT typeof(id), id::VARCHAR FROM read_json('rows.jsonl'{options})").fetchall()
    print(strings[0], options, "->", *found[0])
    return [found[0][0], *(row[1] for row in found)]


upper = "0B5C8F3E-7D1A-4E1B-9C0D-2F6A5B4C3D2E"
assert ids(["2026-1-5", "2026-1-6"]) == ["DATE", "2026-01-05", "2026-01-06"]
assert ids(["9:30", "10:15"]) == ["TIME", "09:30:00", "10:15:00"]
assert ids([upper]) == ["UUID", upper.lower()]
assert ids(["2026-1-5", "readme"]) == ["VARCHAR", "2026-1-5", "readme"]
assert ids(["2026-1-5"], ", columns={'id': 'VARCHAR'}") == ["VARCHAR", "2026-1-5"]
PY
venv/bin/python try.py
echo "as described"
