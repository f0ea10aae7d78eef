#!/usr/bin/env bash
# qdrant-client's local mode keeps float32 in a collection declared uint8 or float16.
#
# QdrantClient(":memory:") and QdrantClient(path=...) are what tests use in place of a server. A
# collection made with datatype=UINT8 takes 300, -7 and 2.7 there and hands them back unchanged; one
# with FLOAT16 keeps 70000, which float16 cannot hold. A pipeline that sends floats where the server
# stores bytes passes its tests. The guess that misses: the datatype of a collection is what it
# stores, in every mode of the client.
#
# Version: qdrant-client 1.20.0. Seen: [0.1, -7, 300, 2.7] from the uint8 collection and 70000 from
# the float16 one; NaN and a wrong length do raise ValueError.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: qdrant-client==1.20.0 numpy==2.4.6

cat >try.py <<'PY'
from qdrant_client import QdrantClient, models

client = QdrantClient(":memory:")
for datatype, sent in (models.Datatype.UINT8, [0.5, -7.0, 300.0, 2.75]), \
                      (models.Datatype.FLOAT16, [0.5, 70000.0, 0.0, 1.0]):
    client.create_collection(datatype.value, vectors_config=models.VectorParams(
        size=4, distance=models.Distance.DOT, datatype=datatype))
    client.upsert(datatype.value, [models.PointStruct(id=1, vector=sent)])
    stored = client.retrieve(datatype.value, [1], with_vectors=True)[0].vector
    print(datatype.value, "sent", sent, "stored", stored)
    assert stored == sent

for wrong in [float("nan"), 0.0, 0.0, 0.0], [1.0, 0.0]:
    try:
        client.upsert("float16", [models.PointStruct(id=2, vector=wrong)])
        raise SystemExit("taken")
    except ValueError as why:
        print("refused:", why)
client.close()
PY
venv/bin/python try.py
echo "as described"
