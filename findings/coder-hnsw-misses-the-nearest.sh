#!/usr/bin/env bash
# Go's coder/hnsw finds about one in sixteen of the ten nearest vectors, and EfSearch does not change that.
#
# An HNSW graph of some thousand vectors finds nearly all of the ten nearest, and where it does not, a
# larger ef finds the rest. This one, with its defaults as with ten times the EfSearch, finds 6 % of them
# among 5000 vectors in random directions, two in five when they lie in clusters, and asked with a vector
# that is in the graph it misses that one about every second time. Results look sound: there are ten, in
# order. The guess that misses: an index by the name of the algorithm, with its usual parameters, has
# roughly its recall. Measure recall against an exact search before choosing one.
#
# Versions: github.com/coder/hnsw 0.6.1; faiss-cpu 1.15.1, with the same M (16) and ef (20), numpy 2.4.6.
# Seen: recall@10 of 5000 in random directions 0.06 to 0.07, with EfSearch 200 the same; in clusters 0.36
# to 0.39. FAISS: 0.79 and 0.98 at ef 20, 1.00 at 200.
# Needs: python3 with venv, go.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: faiss-cpu==1.15.1 numpy==2.4.6

cat >try.py <<'PY'
import subprocess

import faiss
import numpy as np

DIM, ROWS, QUESTIONS, NEAREST = 32, 5000, 100, 10


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("<f4")


def directions(random, n):
    return unit(random.standard_normal((n, DIM)))


def clusters(random, n):
    centres = np.random.default_rng(9).standard_normal((50, DIM))
    return unit(centres[random.integers(50, size=n)] + 0.5 * random.standard_normal((n, DIM)))


def recall(found, exact):
    return sum(len(set(a) & set(b)) for a, b in zip(found, exact)) / exact.size


def go(vectors, questions, ef):
    vectors.tofile("vectors")
    questions.tofile("questions")
    lines = subprocess.run(["./search", str(DIM), str(ef), str(NEAREST)], check=True,
                           stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = [[int(key) for key in line.split()] for line in lines]
    assert all(len(row) == NEAREST for row in found)
    return found


for make, at_20, most in ((directions, 0.5, 0.15), (clusters, 0.9, 0.6)):
    vectors = make(np.random.default_rng(1), ROWS)
    questions = make(np.random.default_rng(2), QUESTIONS)
    exact = np.argsort(-(questions @ vectors.T), axis=1)[:, :NEAREST]
    index = faiss.IndexHNSWFlat(DIM, 16, faiss.METRIC_INNER_PRODUCT)
    index.add(vectors)
    for ef in (20, 200):
        index.hnsw.efSearch = ef
        there = recall(index.search(questions, NEAREST)[1], exact)
        here = recall(go(vectors, questions, ef), exact)
        print(f"{make.__name__}, ef {ef}: recall of FAISS {there:.2f}, of coder/hnsw {here:.2f}")
        assert here < most and there > (at_20 if ef == 20 else 0.95)
itself = go(vectors, vectors[:QUESTIONS], 200)
hits = sum(row[0] == n for n, row in enumerate(itself))
print(f"vectors that are in it: finds {hits} of {QUESTIONS}")
assert hits < 80
PY
cat >go.mod <<'MOD'
module tried

go 1.22

require github.com/coder/hnsw v0.6.1
MOD
cat >main.go <<'GO'
package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand"
	"os"
	"strconv"

	"github.com/coder/hnsw"
)

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return value
}

func rows(name string, dim int) (rows [][]float32) {
	raw, err := os.ReadFile(name)
	if err != nil {
		panic(err)
	}
	for ; len(raw) > 0; raw = raw[4*dim:] {
		row := make([]float32, dim)
		for i := range row {
			row[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		rows = append(rows, row)
	}
	return
}

func main() {
	dim := number(os.Args[1])
	graph := hnsw.NewGraph[int]()
	graph.Rng = rand.New(rand.NewSource(1))
	if graph.M != 16 || graph.EfSearch != 20 {
		panic("other defaults")
	}
	graph.EfSearch = number(os.Args[2])
	for key, row := range rows("vectors", dim) {
		graph.Add(hnsw.MakeNode(key, row))
	}
	for _, question := range rows("questions", dim) {
		for _, node := range graph.Search(question, number(os.Args[3])) {
			fmt.Print(node.Key, " ")
		}
		fmt.Println()
	}
}
GO
GOFLAGS=-mod=mod go build -o search . 2>build.log || { cat build.log; exit 1; }
venv/bin/python try.py
echo "as described"
