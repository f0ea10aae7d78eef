#!/usr/bin/env bash
# httpx cuts a line of NDJSON in two at U+2028, which JSON leaves as it is in a string; so do requests and splitlines().
#
# U+2028 and U+2029 separate lines and paragraphs; they come with text from PDFs, word processors and web pages.
# JSON allows them in a string, and JSON.stringify, orjson, Python with ensure_ascii=False and most others write them
# as they are. A line of NDJSON ends at \n. httpx's iter_lines(), requests' with decode_unicode=True and
# str.splitlines() end one there too, and at U+0085 and at six control characters. So one such text in a stream of a
# million becomes two lines that are no JSON: an error in the middle, or, where lines that cannot be parsed are skipped, a
# text that is never embedded. The guess that misses: a line is what ends with \n, as in open(), which reads the same
# text from a file, in requests' iter_lines() without an argument, in Node and in Go. In httpx take iter_bytes() and
# split at b"\n".
#
# Versions: PyPI httpx 0.28.1, requests 2.34.2, orjson 3.11.4; node 20 and newer.
# Seen: two lines for one, the first '{"id":"1","text":"one', from the three; one from open(), node's readline and bytes.
# Needs: python3 with venv, node 20 or newer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: httpx==0.28.1 requests==2.34.2 orjson==3.11.4

cat >try.py <<'PY'
import http.server
import json
import threading

import httpx
import orjson
import requests

record = {"id": "1", "text": "one\u2028two"}
body = orjson.dumps(record) + b"\n"
assert json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" == body
with open("texts.jsonl", "wb") as file:
    file.write(body)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"


def by_httpx():
    with httpx.Client(trust_env=False) as client, client.stream("GET", url) as answer:
        return list(answer.iter_lines())


def by_requests(**options):
    with requests.Session() as session:
        session.trust_env = False
        return list(session.get(url, stream=True).iter_lines(**options))


cut = ['{"id":"1","text":"one', 'two"}']
for name, lines, expected in (
        ("httpx's iter_lines()", by_httpx(), cut),
        ("requests' iter_lines(decode_unicode=True)", by_requests(decode_unicode=True), cut),
        ("str.splitlines()", body.decode().splitlines(), cut),
        ("requests' iter_lines()", by_requests(), [body[:-1]]),
        ("bytes.splitlines()", body.splitlines(), [body[:-1]]),
        ("open()", list(open("texts.jsonl", encoding="utf-8")), [body.decode()])):
    print(f"{name}: {lines}")
    assert lines == expected
server.shutdown()
PY
venv/bin/python try.py

cat >try.mjs <<'JS'
import assert from "node:assert";
import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { createInterface } from "node:readline";

const record = { id: "1", text: "one\u2028two" };
assert.ok(JSON.stringify(record).includes("\u2028"));
const read = async (lines) => { const all = []; for await (const line of lines) all.push(JSON.parse(line)); return all; };
assert.deepEqual(await read(createInterface({ input: createReadStream("texts.jsonl") })), [record]);
assert.deepEqual(await read((await open("texts.jsonl")).readLines()), [record]);
console.log("node's readline: one line");
JS
node try.mjs
echo "as described"
