#!/usr/bin/env bash
# A filtered search of a FAISS HNSW index finds few or none of the rows that match, and answers -1 for them.
#
# An IDSelector does not make the graph search go on until k rows have passed: it looks at efSearch (16)
# candidates and keeps what passes. With a filter that one row in a hundred passes, ten are asked for and
# two come; with one in a thousand none, mostly, though twenty are there. The rest of each answer is -1, with
# a distance, and ids[-1] is Python for the last text of the corpus: that is handed out, eight times. The
# same -1 stands where an index has fewer than k rows, or the probed lists of an IVF have. The guess that
# misses: k rows match, so k are found, as in stores that filter; and an answer that is short is shorter.
# Skip rows below 0, and raise efSearch to k divided by the share that passes and more; when only some per
# cent pass, search those rows exactly.
#
# Versions: faiss-cpu 1.15.1, numpy 2.4.6. Seen: of 10 places 0.1 filled when 20 of 20000 rows pass, 2.0
# when 200 do, 9.9 (7.1 of them right) when 2000 do; with efSearch 2000 and 200 rows all ten.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: faiss-cpu==1.15.1 numpy==2.4.6

cat >try.py <<'PY'
import faiss
import numpy as np

DIM, ROWS, NEAREST = 8, 20000, 10
vectors = np.random.default_rng(1).standard_normal((ROWS, DIM)).astype(np.float32)
questions = np.random.default_rng(2).standard_normal((50, DIM)).astype(np.float32)
ids = [f"doc-{row}" for row in range(ROWS)]
index = faiss.IndexHNSWFlat(DIM, 16)
index.add(vectors)


def ask(passing, ef):
    """Places filled and right of ten, and ids as a careless reader has them."""
    selector = faiss.IDSelectorRange(5000, 5000 + passing)
    _, rows = index.search(questions, NEAREST,
                           params=faiss.SearchParametersHNSW(sel=selector, efSearch=ef))
    some = vectors[5000:5000 + passing]
    exact = np.argsort(((questions[:, None] - some[None]) ** 2).sum(2), axis=1)[:, :NEAREST] + 5000
    filled = (rows >= 0).sum() / len(questions)
    right = sum(len(set(a) & set(b)) for a, b in zip(rows, exact)) / len(questions)
    last = sum(ids[row] == ids[-1] for row in rows.ravel()) / len(questions)
    print(f"{passing} of {ROWS} rows pass, efSearch {ef}: of {NEAREST} places {filled:.1f} filled, "
          f"{right:.1f} right, {last:.1f} are {ids[-1]}")
    return filled, right, last


print("faiss", faiss.__version__)
filled, right, last = ask(20, 16)
assert filled < 1 and last > 9
filled, right, last = ask(200, 16)
assert filled < 4 and last > 6
filled, right, last = ask(2000, 16)
assert filled > 9 and right < 9
filled, right, last = ask(200, 2000)
assert filled == 10 and right > 9.5 and last == 0
few = faiss.IndexFlatL2(DIM)
few.add(vectors[:2])
assert few.search(questions[:1], 3)[1][0, 2] == -1
PY
venv/bin/python try.py
echo "as described"
