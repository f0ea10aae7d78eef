#!/usr/bin/env bash
# chromem-go's CreateCollection of a name that exists empties it, and the next start brings the old texts back.
#
# A worker that calls CreateCollection when it starts, as it creates topics and tables, gets no error and a
# collection without documents: queries of that process find nothing. The files of the old one stay, so the
# next process that opens the folder has them again, beside those that were added meanwhile: texts that were
# taken out of the corpus since come back. A vector of another length is taken by AddDocument, and from then
# on every query of the collection fails. The guess that misses: create of a name in use is an error, or gives
# what is there; and the store has one state, in memory and in files. Call GetOrCreateCollection, or
# DeleteCollection before CreateCollection; check lengths before adding.
#
# Version: Go github.com/philippgille/chromem-go 0.7.0.
# Seen: 2 documents; 0 after CreateCollection; 1 after one more was added; 3 when the folder is opened again.
# Needs: go.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat >go.mod <<'MOD'
module tried

go 1.22

require github.com/philippgille/chromem-go v0.7.0
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"

	"github.com/philippgille/chromem-go"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func embed(context.Context, string) ([]float32, error) {
	panic("every document brings its vector")
}

func add(collection *chromem.Collection, id string, vector ...float32) error {
	return collection.AddDocument(context.Background(),
		chromem.Document{ID: id, Content: id, Embedding: vector})
}

func main() {
	db, err := chromem.NewPersistentDB("data", false)
	must(err)
	texts, err := db.CreateCollection("texts", nil, embed)
	must(err)
	must(add(texts, "a", 1, 0))
	must(add(texts, "b", 0, 1))
	fmt.Println("created:", texts.Count())
	texts, err = db.CreateCollection("texts", nil, embed)
	must(err)
	fmt.Println("created again:", texts.Count(), db.GetCollection("texts", embed).Count())
	must(add(texts, "c", 1, 1))
	fmt.Println("one added:", texts.Count())

	db, err = chromem.NewPersistentDB("data", false)
	must(err)
	texts = db.GetCollection("texts", embed)
	fmt.Println("opened again:", texts.Count())
	found, err := texts.QueryEmbedding(context.Background(), []float32{1, 0}, 3, nil, nil)
	must(err)
	fmt.Println("nearest:", found[0].ID)

	fmt.Println("another length:", add(texts, "d", 1, 0, 0))
	_, err = texts.QueryEmbedding(context.Background(), []float32{1, 0}, 1, nil, nil)
	fmt.Println("query:", err)
}
GO
GOFLAGS=-mod=mod go run . 2>build.log | tee seen || cat build.log
grep -qxF "created: 2" seen
grep -qxF "created again: 0 0" seen
grep -qxF "one added: 1" seen
grep -qxF "opened again: 3" seen
grep -qxF "nearest: a" seen
grep -qxF "another length: <nil>" seen
grep -q "^query: .*vectors must have the same length" seen
echo "as described"
