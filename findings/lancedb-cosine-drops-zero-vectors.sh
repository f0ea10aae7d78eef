#!/usr/bin/env bash
# A LanceDB search by cosine leaves rows with a zero vector out; by L2 (the default) they may come
# first, and its distance is the square.
#
# A zero vector stands for "no text" in many pipelines. Such a row is counted by count_rows(), found
# by an L2 search, and never found by cosine: its distance is not a number, and the row is dropped
# without a word, so a search with a limit above the number of rows gives fewer. The guess that
# misses: the metric changes the order of the rows, not which rows there are.
#
# Version: lancedb 0.40.0. Seen: 2 rows by L2, with _distance 1 and 4 (for distances 1 and 2); 1 row
# by cosine.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: lancedb==0.40.0 numpy==2.4.6

cat >try.py <<'PY'
import lancedb

table = lancedb.connect("data").create_table(
    "texts", data=[{"id": 1, "vector": [3.0, 0.0]}, {"id": 2, "vector": [0.0, 0.0]}])
by_l2 = table.search([1.0, 0.0]).limit(10).to_list()
by_cosine = table.search([1.0, 0.0]).distance_type("cosine").limit(10).to_list()
print("rows:", table.count_rows())
print("by L2:", [(row["id"], row["_distance"]) for row in by_l2])
print("by cosine:", [(row["id"], row["_distance"]) for row in by_cosine])
assert table.count_rows() == 2
assert [(row["id"], row["_distance"]) for row in by_l2] == [(2, 1.0), (1, 4.0)]
assert [row["id"] for row in by_cosine] == [1]
PY
venv/bin/python try.py
echo "as described"
