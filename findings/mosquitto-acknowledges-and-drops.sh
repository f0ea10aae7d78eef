#!/usr/bin/env bash
# Mosquitto acknowledges what it drops: of texts that wait for one client it keeps 1000 (QoS 1, too).
#
# A worker with a persistent session that is away, or slower than the publisher, has a queue in the broker.
# max_queued_messages is 1000, and what comes beyond is thrown away. The publisher gets its PUBACK
# for every one, the worker a session that goes on as if nothing were missing, and the broker's log one
# line for the first. So a restart of the worker that takes a little long, or one long text, loses others that
# nobody can name. The guess that misses: QoS 1 is at least once, and an ack says that the broker has taken it on.
# max_queued_messages 0 (no limit), with max_queued_bytes for the memory; a number in each message shows gaps.
#
# Versions: mosquitto 2.0.11 (Debian 12), paho-mqtt 2.1.0.
# Seen: 1500 of 1500 acknowledged, 1000 delivered, 0 to 999; 1500 with max_queued_messages 0.
# Needs: Debian's mosquitto, python3 with venv.
set -euo pipefail
PATH=$PATH:/usr/sbin
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: paho-mqtt==2.1.0

cat >try.py <<'PY'
import pathlib
import socket
import subprocess
import threading
import time

import paho.mqtt.client as mqtt

COUNT = 1500


def wait(what, done):
    for _ in range(1200):
        if done():
            return
        time.sleep(0.05)
    raise RuntimeError(what)


def connect(port, name, clean, **handlers):
    ready = threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, clean_session=clean)
    client.on_connect = lambda *arguments: ready.set()
    for event, handler in handlers.items():
        setattr(client, event, handler)
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert ready.wait(20)
    return client


def close(client):
    client.disconnect()
    client.loop_stop()


def delivered(extra):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pathlib.Path("broker.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n{extra}\n")
    broker = subprocess.Popen(["mosquitto", "-c", "broker.conf"], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.05)
        subscribed = threading.Event()
        worker = connect(port, "worker", False, on_subscribe=lambda *arguments: subscribed.set())
        worker.subscribe("texts", qos=1)
        assert subscribed.wait(20)
        close(worker)
        publisher = connect(port, "publisher", True)
        sent = [publisher.publish("texts", str(n), qos=1) for n in range(COUNT)]
        wait("not all are acknowledged", lambda: all(message.is_published() for message in sent))
        close(publisher)
        got = []
        worker = connect(port, "worker", False, on_message=lambda c, u, message: got.append(int(message.payload)))
        wait("too few come", lambda: len(got) >= 1000)
        time.sleep(3)
        close(worker)
        print(extra or "by default:", "acknowledged", len(sent), "delivered", len(got), "the last", got[-1])
        return got
    finally:
        broker.terminate()
        broker.wait()


assert delivered("") == list(range(1000))
assert delivered("max_queued_messages 0") == list(range(COUNT))
PY
venv/bin/python try.py
echo "as described"
