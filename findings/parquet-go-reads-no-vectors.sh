#!/usr/bin/env bash
# Go's parquet-go reads rows without their vectors from a file of pyarrow, pandas or Polars, and raises nothing.
#
# A list in Parquet is a group of a group: the numbers of a column "vector" are in vector.list.element. A Go
# slice is a repeated field of its own, vector, unless its tag says `parquet:"vector,list"`. The two do not
# meet, and columns that a file has not got are read as zero values: every row has its id and its text, and a vector of
# length 0. Files that parquet-go has written itself without the tag are read with them, so tests that write and
# read pass. The guess that misses: the struct's names match the columns', so a wrong shape would be an error.
# Put ",list" into the tag, and check the length of the first vector.
#
# Versions: Go github.com/parquet-go/parquet-go 0.32.0, PyPI pyarrow 26.0.1.
# Seen: lengths 0 and 0 without, 3 and 3 with ",list".
# Needs: go 1.25 or newer, python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: pyarrow==26.0.1
venv/bin/python - <<'PY'
import pyarrow
import pyarrow.parquet

vectors = pyarrow.array([[0.5, 0.25, 1.0], [0.0, 1.0, 0.5]], pyarrow.list_(pyarrow.float32()))
pyarrow.parquet.write_table(pyarrow.table({"id": ["a", "b"], "vector": vectors}), "rows.parquet")
PY

cat >go.mod <<'MOD'
module tried

go 1.25.0

require github.com/parquet-go/parquet-go v0.32.0
MOD
cat >main.go <<'GO'
package main

import (
	"fmt"

	"github.com/parquet-go/parquet-go"
)

type plain struct {
	ID     string    `parquet:"id"`
	Vector []float32 `parquet:"vector"`
}

type list struct {
	ID     string    `parquet:"id"`
	Vector []float32 `parquet:"vector,list"`
}

func read[Row any](file string) []Row {
	rows, err := parquet.ReadFile[Row](file)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%T of %s: %v\n", rows, file, rows)
	return rows
}

func main() {
	for _, row := range read[plain]("rows.parquet") {
		if row.ID == "" || len(row.Vector) != 0 {
			panic("not as described")
		}
	}
	if rows := read[list]("rows.parquet"); len(rows) != 2 || len(rows[0].Vector) != 3 || rows[1].Vector[1] != 1 {
		panic("not as described")
	}
	own := []plain{{"a", []float32{0.5, 0.25, 1}}}
	if err := parquet.WriteFile("own.parquet", own); err != nil {
		panic(err)
	}
	if rows := read[plain]("own.parquet"); len(rows[0].Vector) != 3 {
		panic("not as described")
	}
}
GO
export GOFLAGS=-mod=mod
go run . 2>go.log || { cat go.log; exit 1; }
echo "as described"
