#!/usr/bin/env python3
"""The worker against a real nats-server with JetStream.

Each case starts what it needs on a free port with its data in a temporary folder and stops it.

Usage: test_nats_live.py EMBEDMILL [--server NATS-SERVER] [CASE ...]
"""
import json
import re
import signal
import sys
import time

import msgpack
import numpy as np

from nats_rig import run_all, wait_for


def case_plain(bench):
    """Texts in, embeddings out, headers along, nothing pending."""
    bench.start_server()
    bench.make_streams()
    bench.add(0, 150)
    worker = bench.start_worker()
    bench.expect(150)
    message = bench.client().messages("texts-embeddings")[0]
    assert message.headers["color"] == "blue", message.headers
    assert message.headers["embedding-dim"] == "768", message.headers
    out = msgpack.unpackb(message.data)
    assert out["v"] == 1 and out["dim"] == 768 and out["dtype"] == "<f4", out
    assert out["source"].startswith("texts "), out["source"]
    assert abs(out["timestamp_ms"] / 1000 - time.time()) < 600, out["timestamp_ms"]
    assert abs(np.linalg.norm(np.frombuffer(out["embedding"], dtype="<f4")) - 1) < 1e-5
    bench.stop(worker)


def case_dead_letters(bench):
    """Bad messages go aside whole, with a reason; their neighbours pass."""
    bench.start_server()
    bench.make_streams()
    client = bench.client()
    bench.add(0, 2)
    bad = b"\x81\xa4text\xdd\xff\xff\xff\xff"
    client.add("texts", bad, {"k": "v", "Nats-Msg-Id": "mine"})
    client.add("texts", b"")
    client.add("texts", '{"title": "no text"}')
    bench.add(2, 2)
    worker = bench.start_worker()
    bench.expect(4)
    letters = client.messages("texts-dlq")
    assert [m.headers["_code"] for m in letters] == ["bad_msgpack", "empty_text", "no_text"], \
        [m.headers for m in letters]
    assert letters[0].data == bad and letters[0].headers["k"] == "v"
    assert letters[0].headers["_sequence"] == "3" and letters[0].headers["_subject"] == "texts"
    assert letters[0].headers["Nats-Msg-Id"] != "mine"
    bench.stop(worker)


def case_new_acks(bench):
    """Servers of 2.14 and newer can name domain and account in the subjects of acks."""
    if tuple(map(int, re.findall(r"\d+", bench.version)[:2])) < (2, 14):
        print("SKIPPED new_acks: this server has one form of acks only")
        return
    bench.start_server("feature_flags { js_ack_fc_v2: true }")
    bench.make_streams()
    client = bench.client()
    bench.add(0, 10)
    worker = bench.start_worker()
    bench.expect(10)
    bench.stop(worker)
    bench.add(10, 1)
    client.publish("$JS.API.CONSUMER.MSG.NEXT.texts.embedmill", b"1", f"{client.inbox}.x")
    reply = client.next().reply
    assert len(reply.split(".")) > 9, f"not the new form: {reply}"


def case_worker_first(bench):
    """The worker waits for a server, and then for a stream, that are not there yet, and says so."""
    worker = bench.start_worker()
    wait_for("the refusal in the log", lambda: "No server available" in bench.log(), 15)
    bench.start_server()
    wait_for("the stream in the log", lambda: "nats stream add texts " in bench.log(), 15)
    bench.client().make_stream("texts")
    bench.add(0, 3)
    wait_for("the output's", lambda: "--subjects texts-embeddings" in bench.log(), 15)
    bench.client().make_stream("texts-embeddings")
    bench.expect(3)
    bench.stop(worker)


def case_workers_killed(bench):
    """Two workers, one killed again and again: nothing is lost, and no double is stored."""
    bench.start_server()
    bench.make_streams()
    bench.add(0, 600)
    workers = [bench.start_worker(name=f"w{i}") for i in range(2)]
    for _ in range(4):
        time.sleep(2)
        workers[0].kill()
        workers[0].wait()
        workers[0] = bench.start_worker(name="w0")
    bench.expect(600, 120)
    for worker in workers:
        bench.stop(worker)


def case_drain(bench):
    """A worker that is told to stop finishes or gives back what it has: nothing waits for its
    ack_wait."""
    bench.start_server()
    bench.make_streams()
    bench.add(0, 400)
    for _ in range(4):
        worker = bench.start_worker("--nats-ack-wait", "10m")
        wait_for("some outputs", lambda: "started" in bench.log(), 30)
        time.sleep(1)
        bench.stop(worker)
    worker = bench.start_worker()
    bench.expect(400, 60)
    bench.stop(worker)


def case_server_killed(bench):
    """kill -9 of the server, with a pause of seconds, under load."""
    bench.start_server()
    bench.make_streams()
    bench.add(0, 600)
    worker = bench.start_worker()
    for pause in (0, 3):
        time.sleep(2)
        bench.kill_server()
        time.sleep(pause)
        bench.start_server()
    bench.expect(600, 120)
    bench.stop(worker)


def case_stream_made_again(bench):
    """The stream is deleted and made again while the worker has messages of the old one, whose
    outputs cannot be stored yet. The new ones have the same sequences: what is done with an old one
    is not said of a new one, which another client was given first and let go."""
    bench.start_server()
    client = bench.client()
    client.make_stream("texts")
    client.make_stream("texts-dlq")
    bench.add(0, 20)
    worker = bench.start_worker("--batches", "8")
    wait_for("all with the worker", lambda: client.consumer()["num_ack_pending"] == 20)
    wait_for("the output's", lambda: "--subjects texts-embeddings" in bench.log())
    client.api("STREAM.DELETE.texts")
    wait_for("the stream in the log", lambda: "nats stream add texts " in bench.log())
    client.make_stream("texts")
    wait_for("the consumer again", lambda: client.api("CONSUMER.NAMES.texts")["consumers"])
    worker.send_signal(signal.SIGSTOP)
    time.sleep(2) # for its last request to be over
    bench.add(20, 10)
    client.publish("$JS.API.CONSUMER.MSG.NEXT.texts.embedmill", b"10", f"{client.inbox}.x")
    for _ in range(10):
        assert json.loads(client.next().data)["text"]
    worker.send_signal(signal.SIGCONT)
    time.sleep(4) # their ack_wait is 2 s: the worker is given them, too
    client.make_stream("texts-embeddings")
    bench.expect(30)
    began = time.monotonic()
    bench.stop(worker)
    assert time.monotonic() - began < 10 and "delivered again" not in bench.log()


if __name__ == "__main__":
    sys.exit(run_all(globals(), sys.argv[1:]))
