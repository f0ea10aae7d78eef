#!/usr/bin/env bash
# dlt puts a vector into a table of its own with a row for each number, and one from Arrow into a column of JSON.
#
# A list in a record is to dlt the many side of a relation: docs gets no column "vector", and docs__vector a row with
# the value, the key of its parent, its place and an id of its own for each of 768 numbers. A million texts are 768
# million rows; no vector index fits on them, and a search has to put the vectors together first. It loads without a
# warning, and a count of docs is right. With max_table_nesting=0, and from a pyarrow table whose column is a list of
# float32, the column is there as JSON, that is, as text. The guess that misses: a destination with array columns
# (DuckDB, PostgreSQL) gets an array, at least of what had that type. Write vectors by the store's own client, or cast
# the JSON (vector::FLOAT[768]) into a table of its own after each load.
#
# Versions: PyPI dlt 1.31.0, duckdb 2.0.1, pyarrow 26.0.1.
# Seen: 4 rows in docs, 12 in docs__vector for 4 vectors of 3; JSON for the other two.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder RUNTIME__DLTHUB_TELEMETRY=false

python3 -m venv venv
venv/bin/pip install --quiet --prefer-binary "dlt[duckdb]==1.31.0" duckdb==2.0.1 pyarrow==26.0.1

cat >try.py <<'PY'
import dlt
import pyarrow

rows = [{"id": str(n), "vector": [0.5, 0.25, float(n)]} for n in range(4)]
typed = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(
    [("id", pyarrow.string()), ("vector", pyarrow.list_(pyarrow.float32(), 3))]))


def loaded(name, data, **options):
    """Each table with the number of its rows and the types of its columns, dlt's own left out."""
    pipeline = dlt.pipeline(name, destination=dlt.destinations.duckdb(f"{name}.db"), dataset_name="texts",
                            pipelines_dir="pipelines")
    pipeline.run(dlt.resource(data, name="docs", **options))
    tables = {}
    with pipeline.sql_client() as client:
        for table, column, kind in client.execute_sql(
                "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE table_name LIKE 'docs%'"):
            if not column.startswith("_dlt"):
                count = client.execute_sql(f"SELECT count(*) FROM {table}")[0][0]
                tables.setdefault(table, [count, {}])[1][column] = kind
    print(name, tables)
    return tables


assert loaded("records", rows) == {"docs": [4, {"id": "VARCHAR"}], "docs__vector": [12, {"value": "DOUBLE"}]}
flat = {"docs": [4, {"id": "VARCHAR", "vector": "JSON"}]}
assert loaded("not_nested", rows, max_table_nesting=0) == flat
assert loaded("arrow", typed) == flat
PY
venv/bin/python try.py 2>err.log || { cat err.log; exit 1; }
echo "as described"
