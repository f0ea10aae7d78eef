#!/usr/bin/env bash
# hnswlib opens an index with another dimension or metric than it was saved with, and answers.
#
# The file holds neither: load_index() takes what Index(space, dim) was given. Half the dimension (an
# index made before vectors were shortened, or after) compares the first half of each row, a cosine
# index opened as "ip" or "l2" gives other numbers, and no call fails. set_ef() is not in the file
# either: after loading it is 10 again, and recall falls without a change to code or data. Nor does a
# cosine index give back what was added: get_items() returns rows of length 1. The guess that misses:
# a saved index describes itself, or at least its size is checked, as Annoy does. Keep dim, space
# and ef beside the file.
#
# Versions: hnswlib 0.8.0 (built from source), numpy 2.4.6.
# Seen: an index of 8 values opened as 4 finds other rows; ef 10 after 77.
# Needs: python3 with venv and headers, a C++ compiler.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet numpy==2.4.6 hnswlib==0.8.0

cat >try.py <<'PY'
import hnswlib
import numpy as np

rows = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
index = hnswlib.Index("cosine", 8)
index.init_index(200)
index.set_ef(77)
index.add_items(rows)
index.save_index("index.bin")
assert abs(np.linalg.norm(index.get_items([0])[0]) - 1) < 1e-5 < abs(np.linalg.norm(rows[0]) - 1)


def nearest(space, dim):
    opened = hnswlib.Index(space, dim)
    opened.load_index("index.bin")
    ids, distances = opened.knn_query(rows[:1, :dim], k=3)
    print(f"opened as {space}, {dim}: ids {ids[0].tolist()}, distances {distances[0].round(3)}, "
          f"ef {opened.ef}")
    assert opened.ef == 10
    return ids[0].tolist(), distances[0]


right, distances = nearest("cosine", 8)
assert right[0] == 0 and abs(distances[0]) < 1e-5
assert nearest("cosine", 4)[0][0] != 0
assert nearest("ip", 8)[1][0] < 0 and nearest("l2", 8)[1][0] > 0.1
PY
venv/bin/python try.py
echo "as described"
