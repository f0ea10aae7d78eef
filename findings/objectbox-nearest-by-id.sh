#!/usr/bin/env bash
# ObjectBox returns the nearest neighbours in the order of their ids, and compares the beginning of longer vectors.
#
# find() of a nearest_neighbors() query gives the right k objects, the oldest first: objects[0] is what was put
# first, not what is nearest. In tests the good match is often the first object, and it holds. A vector
# that is too long for the index, as of another model, is taken and compared by its first numbers, one that is too
# short is stored and never found; neither is an error, though the dimension is declared. A further condition
# (and_) is applied to the k that were found, so that nothing is left when others are nearer. The guess that
# misses: an answer of nearest neighbours begins with the nearest; the declared dimension is checked.
# find_with_scores() is in order; check lengths before put(); ask for more than k with conditions.
#
# Version: PyPI objectbox 5.0.0, numpy 2.4.6.
# Seen: far, near, nearest, long by find(), nearest and long at 0, near, far by find_with_scores(); nothing for
# "far" among the two nearest.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: objectbox==5.0.0 numpy==2.4.6

cat >try.py <<'PY'
import numpy
from objectbox import Entity, Float32Vector, HnswIndex, Id, Store, String, VectorDistanceType


@Entity()
class Text:
    id = Id
    name = String
    v = Float32Vector(index=HnswIndex(dimensions=2, distance_type=VectorDistanceType.COSINE))


store = Store(directory="data")
texts = store.box(Text)
for name, vector in (("far", [-1, 0]), ("near", [1, 0.5]), ("nearest", [1, 0]), ("short", [1]),
                     ("long", [1, 0, 5])):
    texts.put(Text(name=name, v=numpy.array(vector, dtype="f4")))
query = numpy.array([1, 0], dtype="f4")
found = texts.query(Text.v.nearest_neighbors(query, 10)).build()
names = [text.name for text in found.find()]
print("find():", names)
assert names == ["far", "near", "nearest", "long"]
scored = [(text.name, round(score, 2)) for text, score in found.find_with_scores()]
print("find_with_scores():", scored)
assert sorted(scored[:2]) == [("long", 0.0), ("nearest", 0.0)]
assert [name for name, _ in scored[2:]] == ["near", "far"]
both = Text.v.nearest_neighbors(query, 2).and_(Text.name.equals("far"))
names = [text.name for text in texts.query(both).build().find()]
print("the two nearest that are far:", names)
assert names == []
store.close()
PY
venv/bin/python try.py
echo "as described"
