#!/usr/bin/env bash
# safetensors 0.8 saves a NumPy array that is a view of a larger one with the wrong values.
#
# save() and save_file() of safetensors.numpy write as many bytes as the array has from where it begins
# in memory, and do not look at its strides. Of vectors[:, :256], the usual way to cut Matryoshka
# embeddings, the first rows come back as the three pieces of the first vector, and most texts' vectors
# are not in the file at all; of vectors.T, DataFrame.to_numpy() or every second row it is the same.
# Shape and dtype are right, the values are plausible, nothing is raised. The guess that misses: a
# library of that age copies what is not contiguous, as numpy.save() does, or refuses it, as its own
# PyTorch half does. 0.7.0 and before wrote all of these rightly, so an upgrade is enough to meet it.
# numpy.ascontiguousarray() before saving; compare one row after it.
#
# Versions: safetensors 0.8.0, against 0.7.0; numpy 2.4.6.
# Seen: of 100 rows cut from 768 to 256 one is right (the first), none of their transpose; with 0.7.0
# all.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >try.py <<'PY'
import sys

import numpy as np
from safetensors import __version__
from safetensors.numpy import load_file, save_file

vectors = np.random.default_rng(0).standard_normal((100, 768)).astype(np.float32)
views = {"cut": vectors[:, :256], "transposed": vectors.T, "every second": vectors[::2]}
right = {}
for name, view in views.items():
    save_file({"vectors": view}, "saved.safetensors")
    back = load_file("saved.safetensors")["vectors"]
    assert back.shape == view.shape and back.dtype == view.dtype
    right[name] = int((back == view).all(axis=1).sum())
    print(f"safetensors {__version__}: {name}: {right[name]} of {len(view)} rows are right")
    if name == "cut" and right[name] < len(view):
        assert np.array_equal(back[:3].ravel(), vectors[0])
    save_file({"vectors": np.ascontiguousarray(view)}, "saved.safetensors")
    assert np.array_equal(load_file("saved.safetensors")["vectors"], view)

wrong = {"cut": 1, "transposed": 0, "every second": 1}
assert right == (wrong if sys.argv[1] == "wrong" else {n: len(v) for n, v in views.items()})
PY
for version in 0.7.0:right 0.8.0:wrong; do
    python3 -m venv --clear venv
    venv/bin/pip install --quiet --only-binary :all: "safetensors==${version%:*}" numpy==2.4.6
    venv/bin/python try.py "${version#*:}"
done
echo "as described"
