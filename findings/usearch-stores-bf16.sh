#!/usr/bin/env bash
# A usearch index stores bfloat16 unless told otherwise, and hands float32 back.
#
# Index(ndim=...) has the dtype BF16, 8 bits of precision, whatever is added. get() converts to
# float32, so the arrays look as they went in, and are not. The guess that misses: float32 vectors
# added without options stay float32. Name dtype="f32" for exact rows. Adding a key twice is an
# error, not an update.
#
# Versions: usearch 2.26.6, numpy 2.4.6. Seen: dtype BF16; largest difference of a unit vector of 768
# values 2e-4 to 5e-4 (exact with dtype="f32"); add() of a known key raises RuntimeError.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: usearch==2.26.6 numpy==2.4.6

cat >try.py <<'PY'
import numpy as np
from usearch.index import Index

vector = np.random.default_rng(0).standard_normal(768).astype(np.float32)
vector /= np.linalg.norm(vector)

index = Index(ndim=768, metric="cos")
index.add(1, vector)
back = index.get(1)
error = float(np.abs(back - vector).max())
print(f"dtype {index.dtype}, get() gives {back.dtype}, largest difference {error:.1e}")
assert "bf16" in str(index.dtype).lower() and back.dtype == np.float32 and 1e-5 < error < 1e-3

exact = Index(ndim=768, metric="cos", dtype="f32")
exact.add(1, vector)
assert np.array_equal(exact.get(1), vector)
try:
    index.add(1, vector)
    raise SystemExit("add() of a known key passed")
except RuntimeError as why:
    print(f"add() of a known key: {why}")
PY
venv/bin/python try.py
echo "as described"
