#!/usr/bin/env bash
# SurrealDB answers a nearest-neighbour query that no index serves with no rows and no error.
#
# WHERE v <|2, 40|> $query asks the HNSW index of the field v. Without one (not made yet, removed, on
# another field, a name misspelled) the answer is an empty list, the same as for an empty table; even
# a full scan would have found the rows. WHERE v <|3, EUCLIDEAN|> $query does scan, and needs no
# index, but its rows come in the order of their ids and not by distance, so that the first is not
# the nearest. The guess that misses: an index makes a query faster and does not change its answer,
# and what an operator for the nearest gives begins with the nearest. Add ORDER BY with
# vector::distance::knn() to the scan; look at INFO FOR TABLE before trusting an empty answer.
#
# Version: surrealdb 2.0.0 (PyPI, its embedded engine, mem://). Seen: [] without index; 2, 3, 1 with
# one; 1, 2, 3 with distances 1.35, 0.10, 1.03 from the scan; [] again after REMOVE INDEX.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: surrealdb==2.0.0

cat >try.py <<'PY'
from surrealdb import Surreal

db = Surreal("mem://")
db.use("tried", "tried")
print(db.version())
for n, vector in (1, [1.0, 0.0]), (2, [0.0, 1.0]), (3, [0.5, 0.0]):
    db.query(f"CREATE texts:{n} SET v = {vector}")


def nearest(operator, field="v", order=""):
    rows = db.query("SELECT id, vector::distance::knn() AS distance FROM texts "
                    f"WHERE {field} <|{operator}|> [0.0, 0.9] {order}")
    rows = [(row["id"].id, round(row["distance"], 2)) for row in rows]
    print(f"{field} <|{operator}|> {order}: {rows}")
    return rows


assert nearest("3, 40") == []
assert nearest("3, EUCLIDEAN") == [(1, 1.35), (2, 0.1), (3, 1.03)]
by_distance = [(2, 0.1), (3, 1.03), (1, 1.35)]
assert nearest("3, EUCLIDEAN", order="ORDER BY distance") == by_distance
db.query("DEFINE INDEX near ON texts FIELDS v HNSW DIMENSION 2 DIST EUCLIDEAN TYPE F32")
assert nearest("3, 40") == by_distance
assert nearest("3, 40", field="vector") == []
db.query("REMOVE INDEX near ON texts")
assert nearest("3, 40") == []
PY
venv/bin/python try.py
echo "as described"
