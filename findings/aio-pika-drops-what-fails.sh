#!/usr/bin/env bash
# aio-pika's message.process() throws a message away when its handler raises or is cancelled.
#
# `async with message.process():` is what every example has. Its default is requeue=False: an exception
# inside rejects the message, and so does a cancelled task, as by asyncio.timeout() around the model or when
# a worker is stopped. Without a dead letter exchange, which queues do not have by default, RabbitMQ then
# deletes it. Each model that is not loaded, each timeout and each deployment loses what was in hand. The
# guess that misses: what is not acknowledged is delivered again. Say process(requeue=True), or better a
# dead letter exchange. publish() has the same leniency: it asks for confirms and for the return of what
# no queue takes, and if that comes, it returns it as its result and raises nothing. Open the channel with
# on_return_raises=True.
#
# Versions: aio-pika 10.2.1 (and aiormq 7.2.4), RabbitMQ 3.10.8 (Debian 12).
# Seen: 0 messages after an exception and after a cancelled task, 1 with requeue=True; publish() to
# a queue that is not there returns.
# Needs: Debian's rabbitmq-server, python3.11 or newer with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: aio-pika==10.2.1 aiormq==7.2.4

cat >try.py <<'PY'
import asyncio
import logging
import os
import signal
import socket
import subprocess
from importlib.metadata import version

import aio_pika


logging.disable()  # of attempts to connect before the server is there


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


port = free_port()
env = {"PATH": os.environ["PATH"], "HOME": os.getcwd(), "LANG": "C.UTF-8",
       "RABBITMQ_NODENAME": "try@localhost", "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
       "RABBITMQ_NODE_PORT": str(port), "RABBITMQ_DIST_PORT": str(free_port()),
       "ERL_EPMD_PORT": str(free_port()), "ERL_EPMD_ADDRESS": "127.0.0.1",
       "RABBITMQ_MNESIA_BASE": os.path.abspath("data"), "RABBITMQ_LOG_BASE": os.path.abspath("log"),
       "RABBITMQ_ENABLED_PLUGINS_FILE": os.path.abspath("plugins"),
       "RABBITMQ_CONF_ENV_FILE": "/dev/null"}
with open("plugins", "w", encoding="ascii") as file:
    file.write("[].")


async def connect():
    for _ in range(600):
        try:
            return await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{port}/")
        except (aio_pika.exceptions.AMQPError, OSError):
            await asyncio.sleep(0.2)
    raise SystemExit("rabbitmq-server does not answer")


async def raises(message, **options):
    async with message.process(**options):
        raise RuntimeError("the model is not loaded")


async def too_slow(message, **options):
    async with asyncio.timeout(0.1), message.process(**options):
        await asyncio.sleep(60)


async def left_after(handler, **options):
    """How many of one message are in the queue when the worker that took it is gone."""
    worker = await connect()
    channel = await worker.channel()
    queue = await channel.declare_queue("texts", durable=True)
    await queue.purge()
    await channel.default_exchange.publish(aio_pika.Message(b"text"), "texts")
    message = await queue.get()
    try:
        await handler(message, **options)
    except (RuntimeError, TimeoutError):
        pass
    await worker.close()
    after = await connect()
    queue = await (await after.channel()).declare_queue("texts", passive=True)
    count = queue.declaration_result.message_count
    await after.close()
    print(f"{handler.__name__} {options}: {count} left")
    return count


async def run():
    print("aio-pika", version("aio-pika"))
    assert await left_after(raises) == 0 and await left_after(too_slow) == 0
    assert await left_after(raises, requeue=True) == 1
    assert await left_after(too_slow, requeue=True) == 1

    connection = await connect()
    channel = await connection.channel()
    result = await channel.default_exchange.publish(aio_pika.Message(b"text"), "no such queue")
    print("publish() to no queue returns", type(result).__name__)
    assert result.delivery.reply_text == "NO_ROUTE"
    channel = await connection.channel(on_return_raises=True)
    try:
        await channel.default_exchange.publish(aio_pika.Message(b"text"), "no such queue")
        raise SystemExit("no error with on_return_raises")
    except aio_pika.exceptions.PublishError:
        pass
    await connection.close()

epmd = subprocess.Popen(["epmd"], env=env)
server = subprocess.Popen(["/usr/lib/rabbitmq/bin/rabbitmq-server"], env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          start_new_session=True)
try:
    asyncio.run(run())
finally:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    epmd.terminate()
    epmd.wait()
PY
venv/bin/python try.py
echo "as described"
