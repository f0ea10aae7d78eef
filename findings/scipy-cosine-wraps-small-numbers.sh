#!/usr/bin/env bash
# SciPy's cosine() computes in the type of its arguments: of int8 and float16 vectors it is wrong.
#
# scipy.spatial.distance.cosine(u, v) multiplies two int8 arrays in int8, where 127 x 127 is 1: the
# sums wrap around, and the distance is 0, 2, or the square root of a negative number. In float16 the
# squared lengths overflow to infinity, and every distance is 1; float16 rows of length 1 are safe.
# cdist(..., "cosine") of the same package converts to double and is right, and so are euclidean()
# and correlation() of int8. Of uint8 euclidean() is wrong as well. The guess that misses: the
# function for two vectors and the one for many give the same number; NumPy users who know that int8
# wraps expect a distance function to see to it. Convert first: cosine(u.astype("f4"), ...).
#
# Versions: scipy 1.17.1, numpy 2.4.6. Seen: cdist 0.16 to 0.18 for five pairs of quantised vectors of
# 768 values; cosine() 2.0, 0.0 or ValueError of int8 and 1.0 of float16, with a RuntimeWarning.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: scipy==1.17.1 numpy==2.4.6

cat >try.py <<'PY'
import warnings

import numpy as np
from scipy.spatial.distance import cdist, cosine, euclidean

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)


def quantised(vector):
    return np.round(127 * vector / np.abs(vector).max()).astype(np.int8)


def tried(u, v):
    try:
        return float(cosine(u, v))
    except ValueError as why:
        return str(why)


for _ in range(5):
    one = rng.standard_normal(768)
    other = one + 0.7 * rng.standard_normal(768)
    a, b = quantised(one), quantised(other)
    right = cdist(a[None], b[None], "cosine")[0, 0]
    wrong = tried(a, b)
    half = tried(one.astype(np.float16), other.astype(np.float16))
    print(f"cdist {right:.3f}, cosine() of int8 {wrong}, of float16 {half}, "
          f"of float32 {cosine(a.astype('f4'), b.astype('f4')):.3f}")
    assert 0.15 < right < 0.19 and wrong in (0.0, 2.0, "math domain error") and half == 1.0
    assert abs(cosine(a.astype("f4"), b.astype("f4")) - right) < 1e-4
    assert abs(euclidean(a, b) - cdist(a[None], b[None])[0, 0]) < 1e-6
    shifted = [(x.astype(np.int16) + 128).astype(np.uint8) for x in (a, b)]
    assert euclidean(*shifted) > 5 * cdist(shifted[0][None], shifted[1][None])[0, 0]
PY
venv/bin/python try.py
echo "as described"
