#!/usr/bin/env bash
# Milvus Lite's insert() replaces a row of the same primary key, and its upsert() merges rows.
#
# Milvus documents both the other way round: insert() does not look for the key (a second insert adds
# a second row), and upsert() replaces the whole row unless partial_update is set. With Lite, which
# people run in tests, a program that inserts a changed document twice looks right, and one that
# upserts a row without a field keeps the old field. insert_count says 2 for two rows of one key that
# become one. A zero vector is found by COSINE with score 0. The guess that misses: the embedded form
# keeps the semantics of the server that it stands in for.
#
# Versions: milvus-lite 3.2.2, pymilvus 3.0.2. Seen: insert_count 2 and one row; after an upsert
# without it, the field tag is still "x".
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: milvus-lite==3.2.2 pymilvus==3.0.2 setuptools==79.0.1

cat >try.py <<'PY'
from pymilvus import DataType, MilvusClient

client = MilvusClient("store.db")
schema = client.create_schema(enable_dynamic_field=True)
schema.add_field("id", DataType.VARCHAR, max_length=64, is_primary=True)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
index = client.prepare_index_params()
index.add_index("vector", index_type="FLAT", metric_type="COSINE")
client.create_collection("texts", schema=schema, index_params=index)

told = client.insert("texts", [{"id": "1", "vector": [1.0, 0.0]}, {"id": "1", "vector": [0.0, 1.0]}])
rows = list(client.query("texts", filter='id == "1"', output_fields=["vector"]))
print("insert_count", told["insert_count"], "rows", rows)
assert told["insert_count"] == 2 and len(rows) == 1 and rows[0]["vector"] == [0.0, 1.0]

client.upsert("texts", [{"id": "2", "vector": [1.0, 0.0], "tag": "x", "n": 1}])
client.upsert("texts", [{"id": "2", "vector": [0.0, 1.0], "n": 2}])
row = list(client.query("texts", filter='id == "2"', output_fields=["*"]))[0]
print("after an upsert without tag:", row)
assert row["tag"] == "x" and row["n"] == 2

client.upsert("texts", [{"id": "zero", "vector": [0.0, 0.0]}])
hits = client.search("texts", data=[[1.0, 0.0]], limit=10)[0]
assert any(hit["id"] == "zero" and hit["distance"] == 0.0 for hit in hits)
PY
venv/bin/python try.py
echo "as described"
