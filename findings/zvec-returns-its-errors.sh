#!/usr/bin/env bash
# zvec's insert, update and delete raise nothing when they fail: they return a status that one has to look at.
#
# Python code that adds documents to other stores in a try block, or not even that, loses here without a word: the
# insert of a known id leaves the old text and its vector, as does the second of one id in a list, and
# update() and delete() of an unknown id do nothing. Each returns a Status whose code is not 0; of a list, a
# list, in which one among a thousand failed. Errors of another kind (a wrong dimension) do raise, so tests
# for errors pass. The guess that misses: a Python method that fails raises. Check
# all(status.ok() for status in collection.insert(docs)), or upsert(), which replaces the document with all
# of its fields.
#
# Version: PyPI zvec 0.8.0.
# Seen: code 2 and the old vector for a known id; code 1 for unknown ones; an exception for a wrong dimension.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: zvec==0.8.0

cat >try.py <<'PY'
from importlib.metadata import version

import zvec

print("zvec", version("zvec"))
schema = zvec.CollectionSchema(
    name="texts", fields=[zvec.FieldSchema("text", zvec.DataType.STRING, nullable=True)],
    vectors=zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, 2,
                              index_param=zvec.HnswIndexParam(metric_type=zvec.MetricType.COSINE)))
texts = zvec.create_and_open("texts.zvec", schema)


def doc(id, vector, **fields):
    return zvec.Doc(id=id, vectors={"v": vector}, fields=fields)


def codes(what, statuses):
    print(f"{what}: {statuses}")
    found = []
    for status in statuses if isinstance(statuses, list) else [statuses]:
        code = status.code() if callable(status.code) else status.code
        found.append((status.ok(), int(getattr(code, "value", code))))
    return found


assert codes("insert", texts.insert([doc("a", [1.0, 0.0], text="old"), doc("b", [0.0, 1.0])])) == \
    [(True, 0), (True, 0)]
assert codes("insert of a known id", texts.insert(doc("a", [0.0, 1.0], text="new"))) == [(False, 2)]
several = codes("insert of c, a, d", texts.insert([doc("c", [1.0, 1.0]), doc("a", [0.0, 1.0]), doc("d", [0.5, 1.0])]))
assert (False, 2) in several and (True, 0) in several
assert codes("update of an unknown id", texts.update(doc("x", [0.0, 1.0]))) == [(False, 1)]
assert codes("delete of an unknown id", texts.delete("x")) == [(False, 1)]
fetched = texts.fetch("a")["a"]
print("a:", fetched.fields, fetched.vectors)
assert fetched.fields["text"] == "old" and list(fetched.vectors["v"]) == [1.0, 0.0]
assert all(ok for ok, _ in codes("upsert", texts.upsert(doc("a", [0.0, 1.0]))))
fetched = texts.fetch("a")["a"]
print("a:", fetched.fields, fetched.vectors)
assert not fetched.fields.get("text") and list(fetched.vectors["v"]) == [0.0, 1.0]
try:
    texts.insert(doc("e", [1.0, 0.0, 0.0]))
    raise AssertionError("another dimension is taken")
except (ValueError, TypeError, RuntimeError, KeyError) as why:
    print("another dimension:", type(why).__name__, str(why)[:80])
PY
venv/bin/python try.py
echo "as described"
