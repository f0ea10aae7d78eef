#!/usr/bin/env bash
# pyarrow hands out the vectors of the whole column where a slice of it is asked for its values.
#
# A column of vectors is a FixedSizeListArray, and .values its numbers, to be reshaped into rows. Batches
# of to_batches() of a table and of a dataset, and slice(), are views of one column, and .values knows of
# no view: it is the child array, whole, each time. So every batch begins with the vectors of the first one,
# and zip(ids, vectors), which stops at the shorter, pairs the ids of every later batch with them.
# .flatten() minds the slice, but leaves null vectors out, so that with one null in the column all later
# rows move up by one. The guess that misses: what a batch's column gives has the batch's length. (The
# documentation of .values says that it ignores the offset.) Assert len(rows) == len(batch), and take
# .flatten() where null_count is 0.
#
# Versions: pyarrow 26.0.1, numpy 2.4.6. Seen: 6 of 10 ids get another text's vector, by batches of 4;
# .flatten() of 3 vectors with a null in the middle has 2.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: pyarrow==26.0.1 numpy==2.4.6

cat >try.py <<'PY'
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

DIM = 2
numbers = pa.array(np.repeat(np.arange(10, dtype=np.float32), DIM))  # row n is [n, n]
table = pa.table({"id": range(10), "vector": pa.FixedSizeListArray.from_arrays(numbers, DIM)})


pyarrow.parquet.write_table(table, "table.parquet")
dataset = pyarrow.dataset.dataset("table.parquet")


def pairs(rows_of, batches):
    stored = {}
    for batch in batches:
        rows = rows_of(batch.column("vector"))
        stored.update(zip(batch.column("id").to_pylist(), (int(row[0]) for row in rows)))
    return stored


def by_values(column):
    return column.values.to_numpy().reshape(-1, DIM)


def by_flatten(column):
    return column.flatten().to_numpy().reshape(-1, DIM)


print("pyarrow", pa.__version__)
for batches in (lambda: table.to_batches(max_chunksize=4), lambda: dataset.to_batches(batch_size=4)):
    wrong, right = pairs(by_values, batches()), pairs(by_flatten, batches())
    print("id: vector by .values ", wrong)
    print("id: vector by flatten()", right)
    assert wrong == {n: n % 4 for n in range(10)}
    assert right == {n: n for n in range(10)}

holed = pa.array([[1, 1], None, [3, 3]], pa.list_(pa.float32(), DIM))
rows = holed.flatten().to_numpy().reshape(-1, DIM)
print(len(holed), "vectors, one null; flatten() has", len(rows), "rows:", rows.tolist())
assert rows.tolist() == [[1, 1], [3, 3]]
PY
venv/bin/python try.py
echo "as described"
