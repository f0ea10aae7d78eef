#!/usr/bin/env bash
# pyvespa's feed_iterable() raises nothing, returns nothing and logs nothing when no document could be fed.
#
# What Vespa refuses (a tensor of another size, an unknown field), what does not reach it, and what has no "id" or no
# "fields" goes to the callback as a response, and to nobody when callback= was not given, as it need not be.
# The feed of a corpus against a server that is down or has another schema ends like one that has worked, after its
# retries. feed_async_iterable() does the same. The guess that misses: an error of every document is an exception, or
# at least a count is returned, as with feed_data_point()'s response. Give a callback that counts
# response.is_successful(), and compare.
#
# Version: PyPI pyvespa 1.2.9.
# Seen: no error and None for a closed port, for a server that answers 400 and for documents without "id";
# a callback is given 599, 400 and 499.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --prefer-binary pyvespa==1.2.9

cat >try.py <<'PY'
import http.server
import json
import socket
import threading

from vespa.application import Vespa

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    closed = probe.getsockname()[1]


class Refusing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps({"message": "Expected a tensor of 768 values, got 2"}).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
threading.Thread(target=server.serve_forever, daemon=True).start()
documents = [{"id": str(n), "fields": {"vector": {"values": [0.5, 0.5]}}} for n in range(3)]
nameless = [{"fields": {"vector": {"values": [0.5, 0.5]}}}] * 3
for what, port, data, expected in (("a closed port", closed, documents, 599),
                                   ("a server that answers 400", server.server_port, documents, 400),
                                   ("documents without id", server.server_port, nameless, 499)):
    app = Vespa(url="http://127.0.0.1", port=port)
    assert app.feed_iterable(data, schema="texts", num_retries_429=0) is None
    seen = []
    app.feed_iterable(data, schema="texts", num_retries_429=0,
                      callback=lambda response, name: seen.append(response.status_code))
    print(f"{what}: fed without an error; a callback gets {seen}")
    assert seen == [expected] * 3
server.shutdown()
PY
venv/bin/python try.py 2>err.log || { cat err.log; exit 1; }
[ ! -s err.log ]
echo "as described"
