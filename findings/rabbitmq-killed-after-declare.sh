#!/usr/bin/env bash
# A quorum queue that is declared a second before RabbitMQ is killed loses confirmed messages, and is
# never usable again.
#
# The messages are in the write-ahead log, and the publisher has its confirms. But which log belongs
# to which queue stands in a table that is written to disk up to two seconds later. After kill -9
# within that time the server starts the queue as a new, empty member ("configured member of queue ...
# was not found on this node. Starting member as a new one. Context: name_not_registered"). A passive
# declare finds 0 messages. That member never elects a leader: every basic.consume ends the connection
# after 30 to 60 seconds with 541 INTERNAL_ERROR, until the queue is deleted and declared again. The
# guesses that miss: a confirm is a promise, and what a queue holds survives with the queue. Older
# queues of the same server keep everything.
#
# Version: RabbitMQ 3.10.8 (Debian 12) and 4.0.5 (Debian 13), one node, pika 1.3.2.
# Seen: declared 3 s before the kill: 5 of 5 messages. 0.5 s before: length 0, then 541.
# Needs: Debian's rabbitmq-server, python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: pika==1.3.2

cat >try.py <<'PY'
import os
import signal
import socket
import subprocess
import time

import pika


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
epmd = subprocess.Popen(["epmd"], env=env)


def start():
    server = subprocess.Popen(["/usr/lib/rabbitmq/bin/rabbitmq-server"], env=env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, start_new_session=True)
    for _ in range(600):
        try:
            connect().close()
            return server
        except (pika.exceptions.AMQPError, OSError):
            time.sleep(0.2)
    raise SystemExit("rabbitmq-server does not answer")


def connect():
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, heartbeat=0))


def fill(queue):
    channel = connect().channel()
    channel.confirm_delivery()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    for i in range(5):
        channel.basic_publish("", queue, b"%d" % i, pika.BasicProperties(delivery_mode=2))


def read(queue):
    """(length, messages or the code that the connection is closed with)"""
    channel = connect().channel()
    length = channel.queue_declare(queue, passive=True).method.message_count
    found = []
    try:
        for _, _, body in channel.consume(queue, inactivity_timeout=5):
            if body is None or len(found) == 5:
                break
            found.append(body)
    except pika.exceptions.ConnectionClosedByBroker as error:
        return length, error.reply_code
    return length, len(found)


server = start()
try:
    fill("early")
    time.sleep(2.5)
    fill("late")
    time.sleep(0.5)
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    server = start()
    early, late, again = read("early"), read("late"), read("late")
    print(f"declared 3 s before the kill: {early}; 0.5 s before: {late}, and again {again}")
    assert early[1] == 5 and late == again == (0, 541)
finally:
    os.killpg(server.pid, signal.SIGKILL)
    epmd.kill()
PY
venv/bin/python try.py
echo "as described"
