#!/usr/bin/env python3
"""The worker against a real nats-server with JetStream.

Each case starts what it needs on a free port with its data in a temporary folder and stops it.

Usage: test_nats_live.py EMBEDMILL [--server NATS-SERVER] [CASE ...]
"""
import json
import os
import re
import signal
import sys
import time
import urllib.request

import msgpack
import numpy as np

from nats_rig import run_all, wait_for
from ports import free_port

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "models")


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


def models_input(bench, subject, stream, consumer, *extra):
    """A worker of two models, each with an input of its own, is killed and started again: 60 texts
    of each come out of its own subject, and a dead letter goes back to where it was."""
    files = {name: os.path.join(DATA, file) for name, file in
             (("one", "tiny-xlm-roberta.gguf"), ("two", "tiny-mpnet.gguf"))}
    named = ("--model", f"one={files['one']}", "--model", f"two={files['two']}")
    bench.model, client = f"one={files['one']}", bench.client()
    words = ("--nats-stream", stream, "--nats-consumer", consumer, *extra)
    def start():
        return bench.start_worker("--model", f"two={files['two']}", "--max-deliveries", "0", *words)
    def at(name, text):
        return text.replace("{model}", name)
    worker = start()
    for i in range(60):
        for k, name in enumerate(files):
            client.add(at(name, subject), json.dumps({"id": str(60 * k + i), "text": f"text {i}"}))
        if i == 30:
            worker.kill()
            worker.wait()
            worker = start()
    for name in files:
        client.add(at(name, subject), b"\x81")
    def is_done():
        found = [client.consumer(at(name, stream), at(name, consumer)) for name in files]
        return all(not f["num_pending"] and not f["num_ack_pending"] and
                   f["delivered"]["consumer_seq"] > 60 for f in found)
    wait_for("all is done", is_done, 60)
    bench.stop(worker)
    for k, name in enumerate(files):
        outs = [msgpack.unpackb(m.data) for m in client.messages(f"{name}-out")]
        assert {int(out["id"]) for out in outs} == set(range(60 * k, 60 * k + 60)), name
        assert len({out["model"] for out in outs}) == 1, name
    listed = bench.run("dlq", "list", "--source", "nats", "--sink", "nats", *bench.words(), *words,
                       *named)
    assert listed.count("\n") == 2, listed
    back = bench.run("dlq", "replay", "--source", "nats", "--sink", "nats", *bench.words(), *words,
                     *named)
    assert back == "2 put back, 0 left, 0 gone\n", back
    for name in files:
        stored = [m for m in client.messages(at(name, stream)) if m.subject == at(name, subject)]
        assert [m.data for m in stored[60:]] == [b"\x81"] * 2, name


def case_stream_of_each_model(bench):
    bench.start_server()
    client = bench.client()
    for name in ("one", "two"):
        client.make_stream(f"in-{name}")
        client.make_stream(f"{name}-out", f"in-{name}-embeddings")
        client.make_stream(f"{name}-dlq", f"in-{name}-dlq")
    models_input(bench, "in-{model}", "in-{model}", "embedmill")


def case_subject_of_each_model(bench):
    """One stream, and a consumer for each model's subject of it."""
    bench.start_server()
    client = bench.client()
    client.make_stream("texts", "texts.>")
    client.make_stream("texts-dlq")
    for name in ("one", "two"):
        client.make_stream(f"{name}-out", f"out.{name}")
    subjects = ("--nats-subject", "texts.{model}", "--nats-output-subject", "out.{model}")
    models_input(bench, "texts.{model}", "texts", "mill-{model}", *subjects)
    port = free_port()
    worker = bench.start_worker("--model", f"two={os.path.join(DATA, 'tiny-mpnet.gguf')}",
                                "--nats-consumer", "mill-{model}", *subjects, "--metrics-listen",
                                f"127.0.0.1:{port}")
    def scraped():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()
    for name in ("one", "two"):
        line = f'embedmill_source_lag{{part="texts.{name}"}} 0\n'
        wait_for(line, lambda line=line: line in scraped())
    bench.stop(worker)
    said = bench.run("check", "--source", "nats", "--sink", "nats", "--model", bench.model,
                     "--model", f"two={os.path.join(DATA, 'tiny-mpnet.gguf')}", *subjects, code=78)
    assert "nats.consumer" in said and "a consumer of its own" in said, said


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
