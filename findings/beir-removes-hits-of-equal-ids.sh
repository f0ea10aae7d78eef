#!/usr/bin/env bash
# BEIR's evaluation removes a hit whose document has the same id as the query.
#
# EvaluateRetrieval.evaluate() leaves out of each query's results the document that is called as the query is.
# That is meant for tasks in which the queries are documents of the corpus. A corpus of one's own has queries
# 1, 2, 3 and documents 1, 2, 3: the right answer to the first question is then often document 1, counts as not
# found, and the run that was passed in has lost it as well. Recall and nDCG of a good model fall, those of one
# that ranks this document lower do not, so that a comparison may turn around. Only the log says so, at level
# INFO, which is not shown by default. The guess that misses: ids of queries and of documents are two kinds of
# names, as they are in TREC's files, and an evaluation changes nothing. ignore_identical_ids=False, or ids that
# differ ("q1", "d1").
#
# Versions: PyPI beir 2.2.0 (without its models), pytrec-eval-terrier 0.5.11.
# Seen: recall 0.5 for a run that has both right documents at the top, 1.0 with ignore_identical_ids=False.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: pytrec-eval-terrier==0.5.11 numpy==2.4.6 tqdm==4.69.0
venv/bin/pip install --quiet --only-binary :all: --no-deps beir==2.2.0

cat >try.py <<'PY'
from beir.retrieval.evaluation import EvaluateRetrieval

right = {"1": {"1": 1}, "2": {"7": 1}}
run = {"1": {"1": 0.9, "3": 0.5}, "2": {"7": 0.9, "3": 0.5}}
for ignore in ({"ignore_identical_ids": False}, {}):
    ndcg, _, recall, _ = EvaluateRetrieval.evaluate(right, run, [1, 10], **ignore)
    print(ignore or "by default", ndcg, recall, "run of query 1:", run["1"])
    assert recall["Recall@10"] == ndcg["NDCG@10"] == (1.0 if ignore else 0.5)
assert run["1"] == {"3": 0.5}
PY
venv/bin/python try.py
echo "as described"
