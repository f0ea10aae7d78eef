#!/usr/bin/env bash
# Polars makes 0 of 0.25 and drops fields when the first 100 of a list of rows have only whole numbers, or not the field.
#
# from_dicts(rows), DataFrame(rows) and read_ndjson() look at infer_schema_length rows, 100 of them. A number that comes
# later in a column of integers is cut to one, without an error: scores of 0 and 1 become 0 where 0.97 was
# given, and a vector [0.25, 0.5] behind vectors of zeros, or of one-hot ones, becomes [0, 0]. A field that comes later
# is left out altogether. read_ndjson() drops such fields too, but raises for such a number. The guess that misses: a
# value that does not fit is an error (strict=True is the default), and what lies in memory is read as a whole, as in
# pandas. infer_schema_length=None, or schema={...}.
#
# Version: PyPI polars 2.1.0.
# Seen: 0 for 0.97 in row 101, [0, 0] for [0.25, 0.5], no column "title"; all right with infer_schema_length=None.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: polars==2.1.0

cat >try.py <<'PY'
import json

import polars

rows = [{"score": 0, "vector": [0, 1]} for _ in range(100)]
rows.append({"score": 0.97, "vector": [0.25, 0.5], "title": "late"})
cut = {"score": 0, "vector": [0, 0]}
for name, frame, last in (("from_dicts()", polars.from_dicts(rows), cut),
                          ("DataFrame()", polars.DataFrame(rows), cut),
                          ("99 rows before", polars.from_dicts(rows[1:]), rows[-1]),
                          ("with infer_schema_length=None", polars.from_dicts(rows, infer_schema_length=None),
                           rows[-1])):
    found = frame.row(-1, named=True)
    print(f"{name}: {found}")
    assert found == last

with open("rows.jsonl", "w", encoding="utf-8") as file:
    file.writelines(json.dumps({**row, "score": 1.0, "vector": [0.5]}) + "\n" for row in rows)
print("read_ndjson():", polars.read_ndjson("rows.jsonl").columns)
assert polars.read_ndjson("rows.jsonl").columns == ["score", "vector"]
assert polars.read_ndjson("rows.jsonl", infer_schema_length=None).columns == ["score", "vector", "title"]
PY
venv/bin/python try.py
echo "as described"
