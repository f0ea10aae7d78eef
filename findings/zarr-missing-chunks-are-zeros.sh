#!/usr/bin/env bash
# A zarr array whose chunk files are missing reads as zeros there, without an error.
#
# A chunk that is not in the store is one that was never written, so it has the fill value. A copy to a
# bucket that broke off, a lifecycle rule that deleted objects, a worker of several that died: the array
# opens, has its shape, and whole blocks of embeddings are zero vectors, which some stores rank first and
# others leave out. nchunks_initialized does not tell either: of an array of zeros no chunk is written.
# The guess that misses: a missing file is an error, as with parquet or .npy, or one can be had by an option.
# Only a fill value that no vector has tells them apart: fill_value=nan, and a look for NaN after reading.
#
# Versions: zarr 3.1.6, numpy 2.4.6. Seen: rows 2 and 3 of 8 are zeros after c/1/0 is removed; with
# fill_value=nan they are NaN.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: zarr==3.1.6 numpy==2.4.6

cat >try.py <<'PY'
import os

import numpy as np
import zarr

print("zarr", zarr.__version__)
for name, options in (("default", {}), ("nan", {"fill_value": np.nan})):
    array = zarr.create_array(name, shape=(8, 4), chunks=(2, 4), dtype="f4", **options)
    array[:] = np.ones((8, 4), np.float32)
    os.remove(f"{name}/c/1/0")
    back = zarr.open_array(name, mode="r")[:]
    print(f"{name}: first of each vector {back[:, 0].tolist()}")
    assert (back[[0, 1, 4, 5, 6, 7]] == 1).all()
    assert np.isnan(back[2:4]).all() if options else (back[2:4] == 0).all()

zeros = zarr.create_array("zeros", shape=(8, 4), chunks=(2, 4), dtype="f4")
zeros[:] = 0
print(f"an array of zeros that was written: {zeros.nchunks_initialized} of {zeros.nchunks} chunks")
assert (zeros.nchunks_initialized, zeros.nchunks) == (0, 4)
PY
venv/bin/python try.py
echo "as described"
