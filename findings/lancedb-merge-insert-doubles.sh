#!/usr/bin/env bash
# LanceDB's merge_insert() inserts a key twice when a batch of new rows holds it twice.
#
# when_matched_update_all().when_not_matched_insert_all() is LanceDB's upsert. Two rows of one key in
# a batch raise "Ambiguous merge inserts" when the table has the key, and become two rows when it has
# not: the same batch passes on the first day and fails when it is sent again. Both rows stay, later
# upserts of the key change both, and searches return the document twice. At-least-once delivery and
# a batch that spans a redelivery are enough. The guess that misses: an upsert keyed on id leaves one
# row per id. Drop doubles from a batch before merging it.
#
# Version: lancedb 0.40.0. Seen: 2 rows of id 9, then ValueError for the same batch; one later upsert
# updates 2 rows.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: lancedb==0.40.0 pyarrow==26.0.1

cat >try.py <<'PY'
import lancedb
import pyarrow


def rows(*pairs):
    vectors = pyarrow.array([vector for _, vector in pairs], type=pyarrow.list_(pyarrow.float32(), 2))
    return pyarrow.table({"id": [key for key, _ in pairs], "vector": vectors})


def upsert(table, *pairs):
    return (table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            .execute(rows(*pairs)))


table = lancedb.connect("store").create_table("texts", rows((1, [1.0, 0.0])))
batch = (9, [0.0, 1.0]), (9, [0.5, 0.5])
upsert(table, *batch)
print("rows of id 9:", table.count_rows("id = 9"))
assert table.count_rows("id = 9") == 2
try:
    upsert(table, *batch)
    raise SystemExit("the same batch passed again")
except ValueError as why:
    print("the same batch again:", str(why)[:60])
result = upsert(table, (9, [0.0, 2.0]))
print("rows that a later upsert updates:", result.num_updated_rows)
assert result.num_updated_rows == 2 and table.count_rows("id = 9") == 2
PY
venv/bin/python try.py
echo "as described"
