#!/usr/bin/env bash
# bm25s, rank_bm25 and LangChain's BM25Retriever return documents that have none of the query's words.
#
# Asked for k they return k, and where fewer match, the rest are documents with a score of 0, the last ones of the
# corpus; LangChain's retriever does not even hand out the scores. In a hybrid search that counts twice: fusion by
# ranks (RRF) gives the first of them as much as the best hit by vector. A query in other words than the
# documents', the case for which there are vectors, or in another language then has texts at the top that were
# added last and have nothing to do with it. With bm25s a word of one letter ("C", "R") and English stop words
# are no words either. The guess that misses: a search by words returns what contains them, as Lucene, SQLite and
# tantivy do. Drop hits whose score is 0 before fusing.
#
# Versions: PyPI bm25s 0.3.16, rank-bm25 0.2.2, langchain-community 0.4.2.
# Seen: for "submarine", which is nowhere: three documents each; fused with hits by vector a text about errors is first.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: bm25s==0.3.16 rank-bm25==0.2.2 langchain-community==0.4.2 numpy==2.4.6

cat >try.py <<'PY'
import bm25s
from langchain_community.retrievers import BM25Retriever
from rank_bm25 import BM25Okapi

TEXTS = ["The boat dives at seven.", "Ships below the surface.", "Bread is baked at night.",
         "C and R are languages.", "The error is in the log."]
fast = bm25s.BM25()
fast.index(bm25s.tokenize(TEXTS, show_progress=False), show_progress=False)
okapi = BM25Okapi([text.lower().split() for text in TEXTS])
chain = BM25Retriever.from_texts(TEXTS, k=3)


def ranked(query):
    ids, scores = fast.retrieve(bm25s.tokenize(query, show_progress=False), k=3, show_progress=False)
    print(repr(query), "bm25s", [(TEXTS[n], float(score)) for n, score in zip(ids[0], scores[0])])
    return [int(n) for n in ids[0]], [float(score) for score in scores[0]]


ids, scores = ranked("submarine")
assert scores == [0, 0, 0] and len(set(ids)) == 3
assert ranked("C")[1] == [0, 0, 0]
assert [score > 0 for score in ranked("bread")[1]] == [True, False, False]
print("rank_bm25", okapi.get_top_n(["submarine"], TEXTS, n=3))
assert len(okapi.get_top_n(["submarine"], TEXTS, n=3)) == 3
hits = [document.page_content for document in chain.invoke("submarine")]
print("LangChain", hits)
assert len(hits) == 3

by_vector = [0, 1, 4]
fused = {}
for hits in (by_vector, ids):
    for rank, n in enumerate(hits):
        fused[n] = fused.get(n, 0) + 1 / (60 + rank + 1)
best = max(fused, key=fused.get)
print("by vector", [TEXTS[n] for n in by_vector], "- fused, the first:", TEXTS[best])
assert best == 4
PY
venv/bin/python -W ignore try.py
echo "as described"
