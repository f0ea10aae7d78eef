#!/usr/bin/env bash
# LangChain's FAISS store calls the opposite of a query relevant when it searches by inner product.
#
# With DistanceStrategy.MAX_INNER_PRODUCT, the usual choice for vectors of length 1, FAISS gives
# similarities, and the relevance score made of a positive one is 1 - similarity. The text that equals
# the query has 0, one at a right angle 0, one that points away 1; a retriever with search_type
# "similarity_score_threshold" drops the good answers and hands on the bad ones. With L2, the default,
# and with COSINE the formula for a distance is given FAISS's square of it, and COSINE is no cosine: the
# index is IndexFlatL2, and lengths decide. The guess that misses: relevance is between 0 and 1, and more
# is better; that is what the interface promises, and only the warning for values outside says otherwise.
# Take similarity_search_with_score() and a threshold in FAISS's own measure; for cosine
# normalize_L2=True or vectors of length 1.
#
# Versions: langchain-community 0.4.2, langchain-core 1.8.3, faiss-cpu 1.15.1.
# Seen: threshold 0.5 by inner product keeps cosines 0.5 and -1 and drops 1; by COSINE the score at a
# right angle is -1, and [3, 2] is nearer to [1, 0] than [30, 1].
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: langchain-community==0.4.2 langchain-core==1.8.3 \
    faiss-cpu==1.15.1 numpy==2.4.6

cat >try.py <<'PY'
import warnings

warnings.simplefilter("ignore")  # of values outside 0 to 1, and that the package is deprecated
import faiss
from langchain_community.vectorstores import FAISS
from langchain_community.vectorstores.utils import DistanceStrategy
from langchain_core.embeddings import Embeddings

VECTORS = {"query": [1, 0], "same": [1, 0], "related": [0.5, 0.75 ** 0.5], "unrelated": [0, 1],
           "opposite": [-1, 0], "long, same way": [30, 1], "short": [3, 2]}


class Given(Embeddings):
    def embed_documents(self, texts):
        return [VECTORS[text] for text in texts]

    def embed_query(self, text):
        return VECTORS[text]


def ask(strategy, **options):
    store = FAISS.from_texts(["same", "related", "unrelated", "opposite"], Given(),
                             distance_strategy=strategy)
    scored = store.similarity_search_with_relevance_scores("query", 4, **options)
    scores = {document.page_content: round(float(score), 2) + 0 for document, score in scored}
    print(strategy.name, options, scores)
    return scores


assert ask(DistanceStrategy.MAX_INNER_PRODUCT) == {
    "same": 0, "related": 0.5, "unrelated": 0, "opposite": 1}
kept = ask(DistanceStrategy.MAX_INNER_PRODUCT, score_threshold=0.5)
assert set(kept) == {"related", "opposite"}
assert ask(DistanceStrategy.EUCLIDEAN_DISTANCE) == {
    "same": 1, "related": 0.29, "unrelated": -0.41, "opposite": -1.83}
assert ask(DistanceStrategy.COSINE) == {"same": 1, "related": 0, "unrelated": -1, "opposite": -3}

store = FAISS.from_texts(["long, same way", "short"], Given(),
                         distance_strategy=DistanceStrategy.COSINE)
nearest = store.similarity_search("query", 2)[0].page_content
print("COSINE:", type(store.index).__name__, "nearest:", nearest)
assert isinstance(store.index, faiss.IndexFlatL2) and nearest == "short"
PY
venv/bin/python try.py
echo "as described"
