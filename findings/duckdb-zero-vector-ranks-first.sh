#!/usr/bin/env bash
# In DuckDB a zero vector is the best match of every query that sorts by cosine similarity.
#
# array_cosine_similarity with a zero vector is NaN, and DuckDB orders NaN above every number. ORDER
# BY similarity DESC LIMIT k, the query that everyone writes, then puts rows without a text first; a
# few of them fill the whole answer. By array_cosine_distance ascending the same rows come last. The
# guess that misses: the two queries give the same order, or a row without a direction matches
# nothing. A filter such as WHERE similarity > 0.5 keeps the row as well: NaN > 0.5 is true here.
# The dimension is lost on the way through Parquet, too: FLOAT[2] comes back as FLOAT[], from
# DuckDB's own files and from pyarrow's fixed-size lists, and array_* functions refuse it until cast.
#
# Versions: duckdb 2.0.1, pyarrow 26.0.1. Seen: ids 1 (zero), 2, 3 by similarity; 2, 3, 1 by distance.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: duckdb==2.0.1 pyarrow==26.0.1

cat >try.py <<'PY'
import duckdb
import pyarrow
import pyarrow.parquet

duckdb.sql("""create table texts as select * from (values
    (1, [0, 0]::FLOAT[2]), (2, [1, 0]::FLOAT[2]), (3, [0, 1]::FLOAT[2])) t(id, v)""")


def ids(tail):
    return [row[0] for row in duckdb.sql(f"select id from texts {tail}").fetchall()]


by_similarity = ids("order by array_cosine_similarity(v, [1, 0]::FLOAT[2]) desc")
by_distance = ids("order by array_cosine_distance(v, [1, 0]::FLOAT[2])")
above = ids("where array_cosine_similarity(v, [1, 0]::FLOAT[2]) > 0.5 order by id")
print("by similarity", by_similarity, "by distance", by_distance, "similarity > 0.5", above)
assert by_similarity == [1, 2, 3] and by_distance == [2, 3, 1] and above == [1, 2]

duckdb.sql("copy (select v from texts) to 'own.parquet'")
fixed = pyarrow.array([[1.0, 0.0]], type=pyarrow.list_(pyarrow.float32(), 2))
pyarrow.parquet.write_table(pyarrow.table({"v": fixed}), "arrow.parquet")
for name in "own.parquet", "arrow.parquet":
    kind = duckdb.sql(f"select typeof(v) from '{name}' limit 1").fetchall()[0][0]
    print(name, "comes back as", kind)
    assert kind == "FLOAT[]"
    try:
        duckdb.sql(f"select array_cosine_similarity(v, v) from '{name}'").fetchall()
        raise SystemExit("the list was taken")
    except duckdb.BinderException:
        pass
PY
venv/bin/python try.py
echo "as described"
