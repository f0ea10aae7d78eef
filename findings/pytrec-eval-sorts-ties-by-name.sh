#!/usr/bin/env bash
# pytrec_eval ranks by float32 scores, then by ids backwards, and leaves queries without hits out of its answer.
#
# A run is a dict of scores; its order does not count. Scores become float32, and equal ones are sorted by id,
# descending: "doc3" before "doc1". Hamming distances, int8 products, scores that were rounded, a float64 of
# 0.900000001 beside 0.9: there names decide, and two runs of one model, or one corpus with other ids, differ
# in MRR and nDCG. A query for which the run has nothing is not in the result, so the mean of the values
# returned leaves it out, and a system that answers the easy half scores higher. ir_measures, which runs the
# same code, counts it as 0. The guess that misses: what came first in the list is first; all judged queries
# count. Pass len(hits) - rank as the score; divide by len(qrels).
#
# Versions: PyPI pytrec-eval-terrier 0.5.11, ir-measures 0.4.3.
# Seen: three equal scores: MRR 1/3, with other names 1; 0.900000001 before 0.9: 1/2; means 1 and 0.5.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: pytrec-eval-terrier==0.5.11 ir-measures==0.4.3

cat >try.py <<'PY'
from importlib.metadata import version
from math import isclose

import ir_measures
import pytrec_eval

print("pytrec-eval-terrier", version("pytrec-eval-terrier"), "ir-measures", version("ir-measures"))


def reciprocal_rank(relevant, run):
    evaluator = pytrec_eval.RelevanceEvaluator({"q": {relevant: 1}}, {"recip_rank"})
    value = evaluator.evaluate({"q": run})["q"]["recip_rank"]
    print(f"{relevant} in {run}: {value:.3f}")
    return value


# The relevant one is first in each list.
assert isclose(reciprocal_rank("doc1", {"doc1": 1.0, "doc2": 1.0, "doc3": 1.0}), 1 / 3)
assert reciprocal_rank("text1", {"text1": 1.0, "doc2": 1.0, "doc3": 1.0}) == 1
assert reciprocal_rank("doc1", {"doc1": 0.900000001, "doc2": 0.9, "doc3": 0.1}) == 0.5
assert reciprocal_rank("doc1", {"doc1": 16777217.0, "doc2": 16777216.0}) == 0.5
assert reciprocal_rank("doc1", {"doc1": 3.0, "doc2": 2.0, "doc3": 1.0}) == 1

qrels, run = {"easy": {"a": 1}, "hard": {"b": 1}}, {"easy": {"a": 1.0}}
values = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(run)
mean = sum(value["recip_rank"] for value in values.values()) / len(values)
other = ir_measures.calc_aggregate([ir_measures.RR], qrels, run)[ir_measures.RR]
print("of two queries one has hits:", values, "mean", mean, "ir_measures", other)
assert list(values) == ["easy"] and mean == 1 and other == 0.5
PY
venv/bin/python try.py
echo "as described"
