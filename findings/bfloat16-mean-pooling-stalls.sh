#!/usr/bin/env bash
# NumPy adds up bfloat16 in bfloat16: the mean of 768 ones is a third, and mean pooling is wrong.
#
# Of float16 NumPy's mean() adds up in float32. Of ml_dtypes' bfloat16 it adds up in bfloat16, whose eight bits
# stop at 256: 256 + 1 is 256. The mean over a text's 512 token vectors is then too short and points elsewhere,
# the more so the longer the text; (v * v).sum() of a unit vector is 0.88. Nothing is raised. `v @ v` and
# numpy.linalg.norm() are right, so a check of lengths by them passes. float8 stops at 16. numpy.save() of
# either keeps the bytes but not the type: load() gives |V2, of which sums and conversions raise an error. The
# guess that misses: a type for storage is computed with in float32, as float16 is, as torch does.
# mean(axis=0, dtype=numpy.float32), or astype(numpy.float32) first; save view(numpy.uint16).
#
# Versions: ml_dtypes 0.6.0, numpy 2.4.6.
# Seen: sum 256, mean 0.334; cosine of the pooled vector 0.99, its length 0.77 of what is right.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: ml-dtypes==0.6.0 numpy==2.4.6

cat >try.py <<'PY'
import ml_dtypes
import numpy as np

print("ml_dtypes", ml_dtypes.__version__, "numpy", np.__version__)
ones = np.ones(768, np.float32)
for name, expected in [("float16", 768), ("bfloat16", 256), ("float8_e4m3fn", 16)]:
    array = ones.astype(name)
    print(f"{name}: sum of 768 ones {array.sum()}, mean {array.mean()}, product {array @ array}")
    assert array.sum() == expected and array.sum(dtype=np.float32) == 768

rng = np.random.default_rng(0)
tokens = rng.standard_normal(768) + 0.1 * rng.standard_normal((512, 768))
right = tokens.mean(axis=0)


def compare(pooled):
    pooled = pooled.astype(np.float64)
    length = np.linalg.norm(pooled)
    return pooled @ right / length / np.linalg.norm(right), length / np.linalg.norm(right)


rounded = tokens.astype(ml_dtypes.bfloat16)
pooled = compare(rounded.mean(axis=0))
wide = compare(rounded.mean(axis=0, dtype=np.float32))
half = compare(tokens.astype(np.float16).mean(axis=0))
print("pooled, cosine and relative length: bfloat16", pooled, "in float32", wide, "float16", half)
assert pooled[0] < 0.995 and pooled[1] < 0.85
assert wide[0] > 0.99999 and abs(wide[1] - 1) < 0.001 and half[0] > 0.99999

unit = (right / np.linalg.norm(right)).astype(ml_dtypes.bfloat16)
print("unit vector: sum of squares", (unit * unit).sum(), "norm", np.linalg.norm(unit))
assert (unit * unit).sum() < 0.95 and abs(np.linalg.norm(unit) - 1) < 0.01

np.save("unit.npy", unit)
loaded = np.load("unit.npy")
print("saved and loaded:", loaded.dtype)
assert loaded.dtype == np.dtype("V2") and (loaded.view(ml_dtypes.bfloat16) == unit).all()
try:
    loaded.astype(np.float32)
    raise SystemExit("converted")
except ValueError as why:
    print("astype(float32):", why)
PY
venv/bin/python try.py
echo "as described"
