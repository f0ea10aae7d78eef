#!/usr/bin/env bash
# Voy compares the first 768 numbers of a vector and no more, and finds a text that was added again twice.
#
# Vectors of 1024 or 1536 numbers are taken without an error, and cut: texts that differ behind the 768th number
# are equal. Shorter ones are filled up with zeros, so that a model of another size than the index' is compared
# with it. add() of an id that is there, with a new vector, leaves the old one in the tree: the document is
# found at the old place and at the new one. When its title has changed, too, it counts as another document, and
# the old title is found. The guess that misses: the size comes from the first vector, and an id stands once.
# Cut and normalise yourself; remove() with the old title and vector before add(); or build the index anew.
#
# Version: npm voy-search 0.6.3 (its WebAssembly is loaded by hand, as a bundler does).
# Seen: two queries that are opposite behind the 768th number have one answer; ids 1, 1, 1, 2 of two documents.
# Needs: node 20 or newer, npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

npm install --silent --no-fund --no-audit voy-search@0.6.3 >/dev/null
cp node_modules/voy-search/voy_search_bg.js voy.mjs

cat >try.mjs <<'JS'
import assert from "node:assert";
import { readFileSync } from "node:fs";
import * as voy from "./voy.mjs";

const wasm = readFileSync("node_modules/voy-search/voy_search_bg.wasm");
const { instance } = await WebAssembly.instantiate(wasm, { "./voy_search_bg.js": voy });
voy.__wbg_set_wasm(instance.exports);

const text = (id, title, embeddings) => ({ id, title, url: "", embeddings });
const nearest = (index, vector) =>
  index.search(new Float32Array(vector), 10).neighbors.map((found) => found.id + " " + found.title);

const vector = (tail) => Array.from({ length: 1024 }, (_, i) => (i < 768 ? 0.01 : tail));
const long = new voy.Voy({ embeddings: [text("1", "plus", vector(1)), text("2", "minus", vector(-1))] });
const answers = [nearest(long, vector(1)), nearest(long, vector(-1))];
console.log("queries that are opposite behind the 768th number:", answers);
assert.deepEqual(answers[0], answers[1]);

const index = new voy.Voy({ embeddings: [text("1", "old", [1, 0]), text("2", "other", [0, 1])] });
index.add({ embeddings: [text("1", "old", [0, 0.9])] });
console.log("added again:", nearest(index, [1, 0]));
assert.deepEqual(nearest(index, [1, 0]), ["1 old", "1 old", "2 other"]);
index.add({ embeddings: [text("1", "new", [0.2, 0.9])] });
console.log("with a new title:", nearest(index, [1, 0]));
assert.deepEqual(nearest(index, [1, 0]).sort(), ["1 new", "1 old", "1 old", "2 other"]);
JS
node try.mjs
echo "as described"
