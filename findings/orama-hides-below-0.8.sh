#!/usr/bin/env bash
# Orama's vector search leaves out every document whose cosine is below 0.8.
#
# search({mode: "vector"}) and searchVector() have a threshold, `similarity`, and 0.8 is its default.
# limit: 10 in an index of ten documents then gives what lies above it, often nothing, and `count` is
# the number of these. What texts of the same topic have is a matter of the model: for many it is 0.3
# to 0.7, so every search comes back empty and reads like an index that was never filled. The guess
# that misses: a search without a threshold gives the nearest `limit` documents, as in other stores.
# similarity: -1 asks for all. A Float32Array is refused as a vector "of 2 dimensions instead of 2":
# use Array.from().
#
# Version: npm @orama/orama 3.1.18. Seen: 5 of 10 documents, the last at 0.825; 10 with similarity: -1;
# 0 when the nearest is at 0.7.
# Needs: node 20 or newer, npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

npm install --silent --no-fund --no-audit @orama/orama@3.1.18 >/dev/null
cat >try.mjs <<'JS'
import assert from "node:assert";
import { create, insert, searchVector } from "@orama/orama";

const db = create({ schema: { id: "string", embedding: "vector[2]" } });
for (let n = 0; n < 10; n++)
  await insert(db, { id: String(n), embedding: [Math.cos(0.15 * n), Math.sin(0.15 * n)] });

async function ask(embedding, options = {}) {
  const vector = { value: embedding, property: "embedding" };
  const { count, hits } = await searchVector(db, { vector, limit: 10, ...options });
  const scores = hits.map((hit) => Number(hit.score.toFixed(3)));
  console.log(JSON.stringify(embedding), JSON.stringify(options), "count", count, "scores",
    scores.join(" "));
  return { count, scores };
}

const found = await ask([1, 0]);
assert(found.count === 5 && found.scores[4] === 0.825);
const all = await ask([1, 0], { similarity: -1 });
assert(all.count === 10 && all.scores[5] === 0.732);
const away = [Math.cos(-0.8), Math.sin(-0.8)]; // the nearest document is at 0.697
assert((await ask(away)).count === 0);
assert((await ask(away, { similarity: -1 })).scores[0] === 0.697);
await assert.rejects(async () => insert(db, { id: "f", embedding: new Float32Array([1, 0]) }),
  /2-dimensional vector, but got a 2-dimensional/);
JS
node try.mjs
echo "as described"
