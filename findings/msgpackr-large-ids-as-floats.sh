#!/usr/bin/env bash
# Node's msgpackr writes an integer above 2^32 as a float, and reads one as a BigInt.
#
# pack() has no 64-bit integers for JavaScript's numbers: a database's id of 4294967296 or a time in
# milliseconds goes out as float64. Python decodes 1796023397514.0, whose str() is another key than that of
# the integer; readers with types refuse or convert it. Ids begin to fail on the day they pass 2^32, and
# tests with small ones pass. The other way unpack() makes a BigInt of every 64-bit integer up to 2^53, too:
# === is never true, JSON.stringify throws. A field that is undefined becomes an extension (type 0), not
# nil. The guess that misses: Number.isInteger() decides, up to 2^53, as it does in @msgpack/msgpack. Pack
# BigInt(id) or a string; unpack with new Unpackr({ useRecords: false, int64AsType: "auto" }).
#
# Versions: npm msgpackr 2.1.4, @msgpack/msgpack 3.1.3; PyPI msgpack 1.1.2.
# Seen: 4294967295 and 4294967296.0 in Python; 4294967296n back; ExtType(0) for undefined.
# Needs: python3 with venv, node 20 or newer, npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: msgpack==1.1.2
npm install --silent --no-fund --no-audit msgpackr@2.1.4 @msgpack/msgpack@3.1.3 >/dev/null

cat >write.mjs <<'JS'
import { writeFileSync } from "node:fs";
import { encode } from "@msgpack/msgpack";
import { pack } from "msgpackr";

const message = { id: 4294967295, next: 4294967296, sent: 1796023397514, lang: undefined };
writeFileSync("msgpackr", pack(message));
writeFileSync("msgpack", encode(message));
writeFileSync("big", pack({ next: BigInt(message.next) }));
JS
cat >try.py <<'PY'
import msgpack

def read(name):
    with open(name, "rb") as file:
        message = msgpack.unpackb(file.read())
    print(f"Python reads of {name}: {message}")
    return message


large = {"next": 4294967296, "sent": 1796023397514}
by_msgpackr, by_msgpack = read("msgpackr"), read("msgpack")
assert by_msgpackr["id"] == 4294967295 and isinstance(by_msgpackr["id"], int)
assert by_msgpackr["lang"] == msgpack.ExtType(0, b"\0") and by_msgpack["lang"] is None
for key, value in large.items():
    assert isinstance(by_msgpackr[key], float) and str(by_msgpackr[key]) == f"{value}.0"
    assert isinstance(by_msgpack[key], int) and by_msgpack[key] == value
assert str(read("big")["next"]) == "4294967296"
with open("python", "wb") as file:
    file.write(msgpack.packb(large))
PY
cat >read.mjs <<'JS'
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { decode } from "@msgpack/msgpack";
import { unpack, Unpackr } from "msgpackr";

const bytes = readFileSync("python");
console.log("msgpackr reads", unpack(bytes), "@msgpack/msgpack", decode(bytes));
assert(unpack(bytes).next === 4294967296n && decode(bytes).next === 4294967296);
assert.throws(() => JSON.stringify(unpack(bytes)), TypeError);
assert(new Unpackr({ useRecords: false, int64AsType: "auto" }).unpack(bytes).next === 4294967296);
JS
node write.mjs
venv/bin/python try.py
node read.mjs
echo "as described"
