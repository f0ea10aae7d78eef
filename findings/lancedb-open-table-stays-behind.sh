#!/usr/bin/env bash
# A LanceDB table that is open sees nothing that others write, until it is opened again.
#
# connect() has read_consistency_interval=None, which means that no read looks for a newer version. A server that
# opens its table at start answers from that moment's rows for ever: what an indexing process adds is not found, what
# it deletes is, and count_rows() says the same, hour after hour, without an error. Within one process it is so as
# well, with two connections or two open_table(). Only its own writes bring a table up to date, so that a test which
# writes and searches by one table passes. The guess that misses: each search reads what has been committed, as in a
# database. connect(..., read_consistency_interval=timedelta(0)), or some seconds; or table.checkout_latest().
#
# Version: PyPI lancedb 0.40.0.
# Seen: the open table finds "old", which was deleted, and not "new"; both right after checkout_latest() and with
# an interval of 0.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: lancedb==0.40.0 pyarrow==26.0.1

cat >write.py <<'PY'
import lancedb

table = lancedb.connect("data").open_table("texts")
table.add([{"id": "new", "vector": [1.0, 0.0]}])
table.delete("id = 'old'")
PY
cat >try.py <<'PY'
import datetime
import subprocess
import sys

import lancedb

table = lancedb.connect("data").create_table("texts", data=[{"id": "old", "vector": [1.0, 0.0]}])
looking = lancedb.connect("data", read_consistency_interval=datetime.timedelta(0)).open_table("texts")


def found(what, where):
    ids = [row["id"] for row in where.search([1.0, 0.0]).limit(10).to_list()]
    print(f"{what}: {ids}, {where.count_rows()} rows")
    return ids


subprocess.run([sys.executable, "write.py"], check=True)
assert found("the open table", table) == ["old"]
assert found("with an interval of 0", looking) == ["new"]
table.checkout_latest()
assert found("after checkout_latest()", table) == ["new"]
PY
venv/bin/python try.py
echo "as described"
