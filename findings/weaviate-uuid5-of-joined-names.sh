#!/usr/bin/env bash
# Weaviate's generate_uuid5(identifier, namespace) joins the two without a mark between, so that different pairs get one id.
#
# The client's helper makes the id of an object from what identifies it, so that a second import replaces instead of
# doubling. The name that is hashed is namespace + identifier: chunk 12 of "doc" and chunk 2 of "doc1" are both
# "doc12", tenant "a" with document "bc" and tenant "ab" with "c" are both "abc". The later insert is the
# object's update, or an error in a batch that says the id exists; the other text is gone. The number 1 and the text
# "1" are one identifier as well, and a dict is hashed in the order in which its keys were set. The guess that misses:
# a namespace keeps names apart, as uuid5's own does. Give an identifier that holds both with a mark that neither
# has, or uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_DNS, namespace), identifier).
#
# Version: PyPI weaviate-client 4.24.1.
# Seen: equal ids for ("12", "doc") and ("2", "doc1"), and for {"a": 1, "b": 2} two ids.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: weaviate-client==4.24.1

cat >try.py <<'PY'
import uuid

from weaviate.util import generate_uuid5

for first, second in ((("12", "doc"), ("2", "doc1")), (("bc", "a"), ("c", "ab")), ((1, ""), ("1", ""))):
    ids = generate_uuid5(*first), generate_uuid5(*second)
    print(first, second, *ids)
    assert ids[0] == ids[1]
orders = generate_uuid5({"a": 1, "b": 2}), generate_uuid5({"b": 2, "a": 1})
print("one dict in two orders:", *orders)
assert {"a": 1, "b": 2} == {"b": 2, "a": 1} and orders[0] != orders[1]


def apart(identifier, namespace):
    return uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_DNS, namespace), identifier)


assert apart("12", "doc") != apart("2", "doc1")
PY
venv/bin/python try.py
echo "as described"
