#!/usr/bin/env bash
# pandas.read_json turns ids that stand in quotes into numbers, and merges those that look alike.
#
# JSON says which values are strings; read_json() converts a column of strings to numbers whenever all of
# them can be read as such. "0012" and "12" become 12, "1e1" becomes 10, and with an id above 2^53 beside
# a null or an "1.5" the column is float64 and neighbouring ids are one. Which files are hit depends on
# their other rows, so a shard of digits and a shard with one letter in it give different types for the
# same ids. The guess that misses: types are inferred in CSV, where there are none, not in JSON. Written
# back under such ids vectors overwrite each other, and a join with a store finds nothing.
# dtype=False keeps what the file says; so do json.loads(), polars.read_ndjson() and DuckDB's read_json.
#
# Versions: pandas 3.1.1, polars 2.1.0. Seen: 12, 12, 10 for "0012", "12", "1e1"; 9007199254740992 for
# "9007199254740993".
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: pandas==3.1.1 polars==2.1.0 numpy==2.4.6

cat >try.py <<'PY'
import io
import json

import pandas
import polars


def read(ids, **options):
    lines = "".join(json.dumps({"id": id, "text": "a"}) + "\n" for id in ids)
    column = pandas.read_json(io.StringIO(lines), lines=True, **options)["id"]
    print(json.dumps(ids), options, "->", column.tolist(), column.dtype)
    return column.tolist(), polars.read_ndjson(io.StringIO(lines))["id"].to_list()


print("pandas", pandas.__version__, "polars", polars.__version__)
alike = ["0012", "12", "1e1"]
found, in_polars = read(alike)
assert found == [12, 12, 10] and in_polars == alike
large = ["9007199254740993", None]
found, in_polars = read(large)
assert found[0] == 9007199254740992 and in_polars == large
assert read(["0012", "12", "a"])[0] == ["0012", "12", "a"]
assert read(alike, dtype=False)[0] == alike
PY
venv/bin/python try.py
echo "as described"
