#!/usr/bin/env bash
# numpy.save writes columns first more often than one thinks, and readers of other languages mix the rows.
#
# An .npy says in its header whether rows or columns come first. numpy.save() writes what is in memory:
# columns first for DataFrame.to_numpy() of numbers, for vectors[:, [0, 1]] (dimensions that were picked) and
# for every transpose. npyjs' reshape(), given data and shape, and Go's npyio, read into a []float32, do
# not look at it: each "vector" is then put together from numbers of several texts. Number, shape and
# range are right, and nothing is raised. The guess that misses: the shape (n, dim) means n rows of dim
# numbers, one after another. Save numpy.ascontiguousarray(vectors); in JavaScript pass fortranOrder to
# reshape(), in Go look at Header.Descr.Fortran.
#
# Versions: numpy 2.4.6, pandas 3.1.1; npm npyjs 1.2.0; Go github.com/sbinet/npyio 0.6.0.
# Seen: rows [0, 1], [2, 3], [4, 5] are read as [0, 2], [4, 1], [3, 5] by both.
# Needs: python3 with venv, node 20 or newer, npm, go.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: numpy==2.4.6 pandas==3.1.1
npm install --silent --no-fund --no-audit npyjs@1.2.0 >/dev/null

cat >write.py <<'PY'
import numpy as np
import pandas

rows = np.arange(6, dtype=np.float32).reshape(3, 2)
written = {"frame": pandas.DataFrame(rows).to_numpy(),
           "picked": np.hstack([rows, rows])[:, [0, 1]],
           "contiguous": np.ascontiguousarray(pandas.DataFrame(rows).to_numpy())}
for name, array in written.items():
    assert np.array_equal(array, rows)
    np.save(name + ".npy", array)
    with open(name + ".npy", "rb") as file:
        np.lib.format.read_magic(file)
        shape, columns_first, _ = np.lib.format.read_array_header_1_0(file)
    print(f"{name}.npy: shape {shape}, columns first: {columns_first}")
    assert columns_first == (name != "contiguous")
PY
cat >read.mjs <<'JS'
import { readFileSync } from "node:fs";
import { parse } from "npyjs";
import { reshape } from "npyjs/reshape";

for (const name of process.argv.slice(2)) {
  const { data, shape, fortranOrder } = parse(new Uint8Array(readFileSync(name)).buffer);
  console.log(name, "JavaScript", JSON.stringify(reshape(data, shape)),
    JSON.stringify(reshape(data, shape, fortranOrder)));
}
JS
cat >go.mod <<'MOD'
module tried

go 1.22

require github.com/sbinet/npyio v0.6.0
MOD
cat >main.go <<'GO'
package main

import (
	"fmt"
	"os"

	"github.com/sbinet/npyio"
)

func main() {
	for _, name := range os.Args[1:] {
		file, err := os.Open(name)
		if err != nil {
			panic(err)
		}
		var rows []float32
		if err := npyio.Read(file, &rows); err != nil {
			panic(err)
		}
		fmt.Println(name, "Go", rows[:2], rows[2:4], rows[4:])
	}
}
GO
files=(frame.npy picked.npy contiguous.npy)
{
    venv/bin/python write.py
    node read.mjs "${files[@]}"
    GOFLAGS=-mod=mod go run . "${files[@]}" 2>build.log || cat build.log
} | tee seen
for name in frame picked; do
    grep -qxF "$name.npy JavaScript [[0,2],[4,1],[3,5]] [[0,1],[2,3],[4,5]]" seen
    grep -qxF "$name.npy Go [0 2] [4 1] [3 5]" seen
done
grep -qxF "contiguous.npy JavaScript [[0,1],[2,3],[4,5]] [[0,1],[2,3],[4,5]]" seen
grep -qxF "contiguous.npy Go [0 1] [2 3] [4 5]" seen
echo "as described"
