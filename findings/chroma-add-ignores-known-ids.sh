#!/usr/bin/env bash
# Chroma's add() of an id that is there changes nothing and raises nothing; so with a collection's metric.
#
# add() of new vectors under known ids returns as always, and every vector stays the old one: after a change
# of the model the whole corpus was embedded anew for nothing, and queries by the new model are compared
# with vectors of the old. get_or_create_collection() with hnsw:space cosine, of a collection made
# with L2, the default, returns that one, and distances stay squared L2. The guess that misses: a known id
# is an error or replaces, and a setting that cannot be met is an error. upsert() replaces the vector; a new
# model needs a new collection; compare collection.configuration["hnsw"]["space"] with what was asked for.
#
# Version: chromadb 1.5.9 (EphemeralClient). Seen: [1, 0] stays after add() of [0, 1]; space l2 after
# cosine was asked for, and a distance of 4 between vectors of one direction.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: chromadb==1.5.9 numpy==2.4.6

cat >try.py <<'PY'
import chromadb
from chromadb.config import Settings

client = chromadb.EphemeralClient(Settings(anonymized_telemetry=False))
print("chromadb", chromadb.__version__)
texts = client.get_or_create_collection("texts", embedding_function=None)
texts.add(ids=["doc-7"], embeddings=[[1, 0]], documents=["old"])
returned = texts.add(ids=["doc-7", "doc-8"], embeddings=[[0, 1], [0, 1]], documents=["new", "new"])
found = texts.get(ids=["doc-7", "doc-8"], include=["embeddings", "documents"])
print("add() returned", returned, "and there are", found["documents"], found["embeddings"].tolist())
assert returned is None and found["documents"] == ["old", "new"]
assert found["embeddings"].tolist() == [[1, 0], [0, 1]]

cosine = client.get_or_create_collection("texts", embedding_function=None,
                                         configuration={"hnsw": {"space": "cosine"}})
space = cosine.configuration["hnsw"]["space"]
distance = cosine.query(query_embeddings=[[3, 0]], n_results=1)["distances"][0][0]
print("asked for cosine:", space, "distance of [3, 0] and [1, 0]:", distance)
assert space == "l2" and distance == 4
cosine.upsert(ids=["doc-7"], embeddings=[[0, 1]])
assert cosine.get(ids=["doc-7"], include=["embeddings"])["embeddings"].tolist() == [[0, 1]]
PY
venv/bin/python try.py
echo "as described"
