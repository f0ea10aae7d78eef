#!/usr/bin/env bash
# Apache Arrow's JavaScript package hands half floats out as integers when asked for a typed array.
#
# A column of Float16, or a row of FixedSizeList<Float16>, is read in two ways: get(i), iteration and
# JSON decode the values (1, 0.5); toArray(), the fast way, gives a Uint16Array of their bits (15360,
# 14336). Of Float32 and Int8 both give numbers. Code that was written for float32 goes on working
# when the file changes to float16, with vectors of the right length whose cosines are all close to 1,
# for the integers are all positive. The guess that misses: toArray() is the values in one block, as
# it is for every other type of number. Decode the bits (Float16Array where the engine has it), or
# take Float32Array.from(vector).
#
# Versions: npm apache-arrow 21.2.0, PyPI pyarrow 26.0.1 (which writes the file).
# Seen: [15360, 14336] by toArray() for [1, 0.5]; opposite vectors have a cosine of 1.000 in place of -1.
# Needs: python3 with venv, node 20 or newer, npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: pyarrow==26.0.1 numpy==2.4.6
npm install --silent --no-fund --no-audit apache-arrow@21.2.0 >/dev/null

cat >make.py <<'PY'
import numpy
import pyarrow

values = numpy.array([1, 0.5, -1, -0.5])
table = pyarrow.table({
    name: pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.astype(name)), 2)
    for name in ("float16", "float32")})
with pyarrow.ipc.new_file("vectors.arrow", table.schema) as file:
    file.write(table)
PY
cat >try.mjs <<'JS'
import assert from "node:assert";
import fs from "node:fs";
import { tableFromIPC } from "apache-arrow";

const table = tableFromIPC(fs.readFileSync("vectors.arrow"));
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const cosine = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
const seen = {};
for (const name of ["float16", "float32"]) {
  const [one, opposite] = [0, 1].map((i) => table.getChild(name).get(i));
  seen[name] = {
    iterated: [...one], array: Array.from(one.toArray()), type: one.toArray().constructor.name,
    cosine: Number(cosine([...one.toArray()], [...opposite.toArray()]).toFixed(3)),
    decoded: Array.from(Float32Array.from(one)),
  };
  console.log(name, JSON.stringify(seen[name]));
}
assert.deepEqual(seen.float32, { iterated: [1, 0.5], array: [1, 0.5], type: "Float32Array",
  cosine: -1, decoded: [1, 0.5] });
assert.deepEqual(seen.float16.iterated, [1, 0.5]);
assert.deepEqual(seen.float16.array, [15360, 14336]);
assert.equal(seen.float16.type, "Uint16Array");
assert(seen.float16.cosine > 0.9);
assert.deepEqual(seen.float16.decoded, [1, 0.5]);
JS
venv/bin/python make.py
node try.mjs
echo "as described"
