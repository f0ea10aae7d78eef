#!/usr/bin/env bash
# LanceDB's add() and merge_insert() drop each field that the first row of the list does not have.
#
# A list of dicts becomes a pyarrow table by from_pylist(), whose columns are the keys of the first dict. What only
# later rows have (a title, a tag, a language) is left out; where the table has such a column, these rows get null
# in it, or keep the old value in an update by merge_insert. Nothing is raised, and which fields are kept changes with
# the order of the rows. Hugging Face's Dataset.from_list() has the same rule. The guess that misses: the
# columns are those of all rows, as in pandas.DataFrame(rows), or those of the table that is there. Give every row
# all fields (None for those it lacks), or hand over pyarrow.Table.from_pylist(rows, schema=table.schema).
#
# Versions: PyPI lancedb 0.40.0, pyarrow 26.0.1, datasets 5.2.0.
# Seen: of two rows the second's tag is null after add(), and the old one after merge_insert.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HOME=$folder/hf

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: lancedb==0.40.0 pyarrow==26.0.1 datasets==5.2.0

cat >try.py <<'PY'
import datasets
import lancedb
import pyarrow

schema = pyarrow.schema([("id", pyarrow.string()), ("vector", pyarrow.list_(pyarrow.float32(), 2)),
                         ("tag", pyarrow.string())])
table = lancedb.connect("data").create_table("texts", schema=schema)


def tags(what):
    found = {row["id"]: row["tag"] for row in table.to_arrow().to_pylist()}
    print(what, found)
    return found


rows = [{"id": "a", "vector": [1.0, 0.0]}, {"id": "b", "vector": [0.0, 1.0], "tag": "new"}]
table.add(rows)
assert tags("after add():") == {"a": None, "b": None}
table.delete("true")
table.add(rows[::-1])
assert tags("the same rows the other way round:") == {"a": None, "b": "new"}
table.delete("true")
table.add(pyarrow.Table.from_pylist(rows, schema=table.schema))
assert tags("with the table's schema:") == {"a": None, "b": "new"}

table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(
    [{"id": "a", "vector": [1.0, 0.0]}, {"id": "b", "vector": [0.0, 1.0], "tag": "newer"}])
assert tags("after merge_insert:") == {"a": None, "b": "new"}
assert pyarrow.Table.from_pylist(rows).column_names == ["id", "vector"]
assert datasets.Dataset.from_list(rows).column_names == ["id", "vector"]
PY
venv/bin/python try.py
echo "as described"
