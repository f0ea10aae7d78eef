#!/usr/bin/env bash
# Elasticsearch's base64 vectors are big-endian; those of OpenAI's API, and of turbopuffer, are little-endian.
#
# A dense_vector may be sent as base64 of float32, and the Python client has pack_dense_vector() for it. It turns
# round the bytes of every number, as Java reads them. What a server of OpenAI's API answers to
# encoding_format=base64 looks just alike, has the right length, and is another vector: 0.1 reads as -4.3e8, and
# nothing in the text says so. The guess that misses: base64 of float32 is base64 of float32, so what the one hands out
# the other takes, without decoding. Decode with "<f4" and let the helper pack.
#
# Versions: PyPI elasticsearch 9.5.1, turbopuffer 3.1.0.
# Seen: [0.1] is PczMzQ== by pack_dense_vector() and zczMPQ== by turbopuffer's b64encode_vector().
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: elasticsearch==9.5.1 turbopuffer==3.1.0 numpy==2.4.6

cat >try.py <<'PY'
import base64
import sys

import numpy
from elasticsearch.helpers import pack_dense_vector
from turbopuffer.lib.vector import b64encode_vector

assert sys.byteorder == "little"
vector = numpy.array([0.1, -0.02, 0.5], dtype=numpy.float32)
packed, from_api = pack_dense_vector(vector), base64.b64encode(vector.astype("<f4").tobytes()).decode()
print("Elasticsearch's helper:", packed)
print("OpenAI's API:          ", from_api)
assert b64encode_vector(vector.tolist()) == from_api
assert (pack_dense_vector([0.1]), b64encode_vector([0.1])) == ("PczMzQ==", "zczMPQ==")
assert len(packed) == len(from_api) and packed != from_api
assert (numpy.frombuffer(base64.b64decode(packed), ">f4") == vector).all()
read = numpy.frombuffer(base64.b64decode(from_api), ">f4")
print("the latter, read as Elasticsearch's:", read)
assert abs(read[0]) > 1e8 and numpy.isfinite(read).all()
assert pack_dense_vector(numpy.frombuffer(base64.b64decode(from_api), "<f4")) == packed
PY
venv/bin/python try.py
echo "as described"
