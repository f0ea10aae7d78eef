#!/usr/bin/env bash
# Haystack's document embedders return documents without a vector when a batch fails, and they are stored.
#
# OpenAIDocumentEmbedder, which is used with every server of that API, logs the error of a batch and goes on with the
# next: raise_on_failure is False. Its output has all documents; those of the failed batch, all 32 of them for
# one that was too long, have embedding None, and the usage counts only the others. The writer behind it writes
# all, the count is right, and a search by vector never returns them. A second run with
# DuplicatePolicy.SKIP, to fill in what is missing, skips them. The guess that misses: an indexing pipeline that
# ends without an error has embedded what it stored. raise_on_failure=True; or look for embedding None.
#
# Version: PyPI haystack-ai 3.4.1 (with openai 3.57.0), against a server of the script's own.
# Seen: batches of 2, one of them refused: 6 documents written, 4 found; with raise_on_failure=True an error.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HAYSTACK_TELEMETRY_ENABLED=False

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: haystack-ai==3.4.1 openai==3.57.0

cat >try.py <<'PY'
import http.server
import json
import threading

from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy
from haystack.utils import Secret
from openai import BadRequestError


class Server(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        refused = any("too long" in text for text in texts)
        answer = {"error": {"message": "too long", "type": "invalid_request_error"}} if refused else {
            "object": "list", "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1},
            "data": [{"object": "embedding", "index": n, "embedding": [float(len(text)), 1.0]}
                     for n, text in enumerate(texts)]}
        body = json.dumps(answer).encode()
        self.send_response(400 if refused else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()


def embedder(**options):
    return OpenAIDocumentEmbedder(
        api_key=Secret.from_token("none"), api_base_url=f"http://127.0.0.1:{server.server_port}/v1",
        model="m", batch_size=2, progress_bar=False, **options)


documents = [Document(content=text) for text in ("one", "two", "this is too long", "four", "five", "six")]
embedded = embedder().run(documents=documents)["documents"]
store = InMemoryDocumentStore(embedding_similarity_function="cosine")
written = store.write_documents(embedded)
found = [document.content for document in store.embedding_retrieval([1.0, 1.0], top_k=10)]
print("written", written, "counted", store.count_documents(), "found by vector", sorted(found))
assert written == store.count_documents() == 6
assert sorted(found) == ["five", "one", "six", "two"]
again = store.write_documents(embedded, policy=DuplicatePolicy.SKIP)
print("written again with SKIP:", again)
assert again == 0
try:
    embedder(raise_on_failure=True).run(documents=documents)
    raise AssertionError("no error")
except BadRequestError as why:
    print("raise_on_failure:", why)
PY
venv/bin/python try.py 2>log || { cat log; exit 1; }
echo "as described"
