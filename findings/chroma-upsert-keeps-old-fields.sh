#!/usr/bin/env bash
# Chroma's upsert() replaces the embedding and keeps every other field that the call leaves out.
#
# A record that is upserted with a new embedding and fewer metadata fields, or without its document,
# keeps the old document and the old fields beside the new embedding: the text that a search returns
# is then not the text that was embedded. To remove a field, set it to None, or delete the record
# first. Deleting tells nothing about what was there: delete() of an id that is not in the collection
# reports 1 deleted, so the count cannot serve as a check. The guess that misses: upsert means insert
# or replace, and "deleted" counts records.
#
# Version: chromadb 1.5.9. Seen: document "old" and field b=2 remain; delete(ids=["absent"]) gives
# {'deleted': 1} and count() stays 1; update() of an id that is not there does nothing and says so only
# in the log.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: chromadb==1.5.9 numpy==2.4.6

cat >try.py <<'PY'
import chromadb

client = chromadb.PersistentClient(
    path="store", settings=chromadb.Settings(anonymized_telemetry=False))
texts = client.create_collection("texts", embedding_function=None)
texts.upsert(ids=["1"], embeddings=[[1.0, 0.0]], metadatas=[{"a": 1, "b": 2}], documents=["old"])
texts.upsert(ids=["1"], embeddings=[[0.0, 1.0]], metadatas=[{"a": 3}])
row = texts.get(ids=["1"], include=["embeddings", "metadatas", "documents"])
print("after the second upsert:", row["embeddings"][0].tolist(), row["metadatas"][0],
      row["documents"][0])
assert row["embeddings"][0].tolist() == [0.0, 1.0]
assert row["metadatas"] == [{"a": 3, "b": 2}] and row["documents"] == ["old"]

told = texts.delete(ids=["absent"])
print("delete() of an id that is not there:", told, "records:", texts.count())
assert told == {"deleted": 1} and texts.count() == 1

texts.update(ids=["absent"], embeddings=[[1.0, 1.0]])
assert texts.count() == 1

texts.upsert(ids=["1"], embeddings=[[0.0, 1.0]], metadatas=[{"a": 3, "b": None}])
assert texts.get(ids=["1"])["metadatas"] == [{"a": 3}]
PY
venv/bin/python try.py
echo "as described"
