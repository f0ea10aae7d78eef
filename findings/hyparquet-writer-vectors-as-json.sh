#!/usr/bin/env bash
# hyparquet-writer stores a column of vectors as JSON text, and a Float32Array as an object with numbered keys.
#
# The types of a Parquet file are found from its data, and an array is JSON: [0.5,2], in decimal. A typed array
# is {"0":0.5,"1":2}. hyparquet parses both when it reads, so a round trip in JavaScript gives arrays back, and
# objects without a length for the typed ones: a loop up to v.length adds nothing up. pyarrow sees text. The
# guess that misses: numbers in arrays become a LIST of DOUBLE or FLOAT, as other writers make of them. Give a `schema` with the list's three levels, or write the bytes of the vectors.
#
# Versions: npm hyparquet-writer 0.17.0, hyparquet 1.31.5; PyPI pyarrow 26.0.1.
# Seen: logical type JSON; pyarrow reads '{"0":0.5,"1":2}'.
# Needs: python3 with venv, node 20 or newer, npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: pyarrow==26.0.1
npm install --silent --no-fund --no-audit hyparquet-writer@0.17.0 hyparquet@1.31.5 >/dev/null

cat >try.mjs <<'JS'
import assert from "node:assert";
import { writeFileSync } from "node:fs";
import { parquetMetadata, parquetReadObjects } from "hyparquet";
import { parquetWriteBuffer } from "hyparquet-writer";

const rows = [[0.5, 2], [3, 4]];
const schema = [
  { name: "root", num_children: 1 },
  { name: "v", repetition_type: "REQUIRED", num_children: 1, converted_type: "LIST" },
  { name: "list", repetition_type: "REPEATED", num_children: 1 },
  { name: "element", repetition_type: "REQUIRED", type: "FLOAT" },
];
const written = {
  array: { columnData: [{ name: "v", data: rows }] },
  typed: { columnData: [{ name: "v", data: rows.map((row) => new Float32Array(row)) }] },
  list: { columnData: [{ name: "v", data: rows }], schema },
};
const read = {};
for (const [name, options] of Object.entries(written)) {
  const file = parquetWriteBuffer(options);
  writeFileSync(name + ".parquet", new Uint8Array(file));
  read[name] = (await parquetReadObjects({ file }))[0].v;
  console.log(name, parquetMetadata(file).schema[1].converted_type, "hyparquet:", read[name]);
}
assert.deepEqual(read, { array: [0.5, 2], typed: { 0: 0.5, 1: 2 }, list: [0.5, 2] });
assert(read.typed.length === undefined);
JS
cat >try.py <<'PY'
import pyarrow.parquet

expected = {"array": [b"[0.5,2]", "[0.5,2]"], "typed": [b'{"0":0.5,"1":2}', '{"0":0.5,"1":2}'],
            "list": [[0.5, 2.0]]}
for name, values in expected.items():
    column = pyarrow.parquet.read_table(name + ".parquet")["v"]
    print(name, "pyarrow:", column.type, repr(column[0].as_py()))
    assert column[0].as_py() in values
PY
node try.mjs
venv/bin/python try.py
echo "as described"
