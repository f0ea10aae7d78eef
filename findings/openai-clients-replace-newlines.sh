#!/usr/bin/env bash
# LangChain.js and LlamaIndex replace newlines by spaces before they ask for an embedding.
#
# Both do it in their classes for OpenAI's API, also when these are pointed at another server, and
# say nothing. OpenAI's own packages, Chroma's OpenAIEmbeddingFunction and the AI SDK send the text as
# it is. "\r\n" becomes "\r ". For a WordPiece model all white space is alike; a SentencePiece or BPE
# model has tokens for newlines, so a corpus that one client embedded and questions or documents that
# another embeds are not the same texts to it: code, tables, lists, paragraphs. The guess that misses:
# a client of one API sends what it was given, so any of them may be mixed. LangChain.js has the option
# stripNewLines: false, LlamaIndex has none.
#
# Versions: npm @langchain/openai 1.6.0 with @langchain/core 1.4.0, openai 7.59.0; PyPI
# llama-index-embeddings-openai 0.7.0 with llama-index-core 0.14.25, openai 3.57.0.
# Seen: what the server got from each, below.
# Needs: python3 with venv, node 20 or newer, npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: llama-index-embeddings-openai==0.7.0 \
    llama-index-core==0.14.25 openai==3.57.0
npm install --silent --no-fund --no-audit @langchain/openai@1.6.0 @langchain/core@1.4.0 openai@7.59.0 >/dev/null

cat >ask.mjs <<'JS'
import { OpenAIEmbeddings } from "@langchain/openai";
import OpenAI from "openai";

const [baseURL, text] = process.argv.slice(2);
const plain = new OpenAI({ baseURL, apiKey: "none" });
await plain.embeddings.create({ model: "any", input: [text] });
const options = { apiKey: "none", model: "any", configuration: { baseURL } };
await new OpenAIEmbeddings(options).embedDocuments([text]);
await new OpenAIEmbeddings({ ...options, stripNewLines: false }).embedDocuments([text]);
JS
cat >try.py <<'PY'
import http.server
import json
import subprocess
import threading

import openai
from llama_index.embeddings.openai import OpenAIEmbedding

TEXT = "def f(x):\n    return x\r\n"
received = []


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        received.append(asked["input"][0])
        body = json.dumps({"object": "list", "model": "any", "data": [
            {"object": "embedding", "index": 0, "embedding": "AACAPwAAAAA="}],  # [1, 0] as base64
            "usage": {"prompt_tokens": 1, "total_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1"

openai.OpenAI(base_url=url, api_key="none").embeddings.create(model="any", input=[TEXT])
OpenAIEmbedding(api_base=url, api_key="none", model_name="any").get_text_embedding(TEXT)
subprocess.run(["node", "ask.mjs", url, TEXT], check=True)
names = ("openai (Python)", "LlamaIndex", "openai (JavaScript)", "LangChain.js",
         "LangChain.js, stripNewLines: false")
changed = TEXT.replace("\n", " ")
for name, text in zip(names, received, strict=True):
    print(f"{name}: {text!r}")
assert received == [TEXT, changed, TEXT, changed, TEXT]
PY
venv/bin/python try.py
echo "as described"
