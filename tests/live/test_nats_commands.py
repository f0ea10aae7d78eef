#!/usr/bin/env python3
"""doctor, check, push, pull, dlq and metrics on a real nats-server; TLS and accounts; NATS on one
side and Redis on the other.

Each case starts what it needs on a free port with its data in a temporary folder and stops it.

Usage: test_nats_commands.py EMBEDMILL [--server NATS-SERVER] [CASE ...]
"""
import json
import os
import subprocess
import sys
import urllib.request

import msgpack
import numpy as np

from nats_rig import NatsError, run_all, wait_for
from ports import free_port
from redis_bench import Bench as RedisBench

ENDS = ("--source", "nats", "--sink", "nats")


def doctor(bench, *extra, code=0):
    return bench.run("doctor", *ENDS, "--model", bench.model, *bench.words(), "--nats-timeout",
                     "2s", *extra, code=code)


def case_doctor(bench):
    """Each thing that is missing is named with what to do, and what is there is described."""
    said = doctor(bench, code=69)
    assert "is nats.url right" in said, said
    bench.configure("")
    with open(f"{bench.folder}/nats.conf", "w", encoding="utf-8") as f:
        f.write(f"listen: 127.0.0.1:{bench.port}\n")
    bench.start_server(wait=False)
    said = doctor(bench, code=69)
    assert "nobody answers on $JS.API" in said, said
    bench.kill_server()
    bench.start_server("")
    said = doctor(bench, code=69)
    assert "nats stream add texts --subjects texts" in said, said
    assert "nats stream add NAME --subjects texts-embeddings" in said, said
    bench.make_streams()
    said = doctor(bench)
    assert "embedmill does not exist yet: the worker creates it" in said, said
    client = bench.client()
    client.api("CONSUMER.DURABLE.CREATE.texts.embedmill", stream_name="texts",
               config={"durable_name": "embedmill", "ack_policy": "explicit", "max_deliver": 5,
                       "max_ack_pending": 10, "ack_wait": 7000000000})
    bench.add(0, 3)
    said = doctor(bench)
    assert "3 messages wait, 0 are unacknowledged; after 7000 ms" in said, said
    assert "5 times and then never again" in said and "10 unacknowledged messages" in said, said
    assert client.consumer()["num_pending"] == 3


def case_doctor_faults(bench):
    """Consumers of another kind, and outputs that would be read again."""
    bench.start_server()
    bench.make_streams()
    client = bench.client()
    client.api("CONSUMER.DURABLE.CREATE.texts.pushed", stream_name="texts",
               config={"durable_name": "pushed", "ack_policy": "explicit",
                       "deliver_subject": "there"})
    said = doctor(bench, "--nats-consumer", "pushed", code=69)
    assert "pushed is a push consumer" in said, said
    client.api("CONSUMER.DURABLE.CREATE.texts.lax", stream_name="texts",
               config={"durable_name": "lax", "ack_policy": "all"})
    said = doctor(bench, "--nats-consumer", "lax", code=69)
    assert "ack_policy explicit" in said, said
    client.make_stream("wide", "wide.>")
    circle = ("--nats-stream", "wide", "--nats-output-subject", "wide.out",
              "--nats-dead-letter-subject", "texts-dlq")
    said = doctor(bench, *circle, code=69)
    assert "the worker would read what it writes" in said, said
    doctor(bench, *circle, "--nats-subject", "wide.in")
    client.add("wide.in", "text")
    worker = bench.start_worker(*circle)
    assert worker.wait(timeout=30) == 69
    assert "the worker would read what it writes" in bench.log(), bench.log()
    assert len(client.messages("wide")) == 1


def case_check(bench):
    said = bench.run("check", *ENDS, "--model", bench.model, "--nats-stream", "a b", code=64)
    assert "nats.stream" in said, said
    said = bench.run("check", *ENDS, "--model", bench.model, "--delivery", "exactly-once", code=64)
    assert "exactly-once" in said, said
    bench.run("check", *ENDS, "--model", bench.model)


def case_push_pull(bench):
    """A corpus into a stream, workers, and the vectors in a file."""
    bench.start_server()
    bench.make_streams()
    corpus = os.path.join(bench.folder, "corpus.jsonl")
    with open(corpus, "w", encoding="utf-8") as f:
        for i in range(300):
            f.write(json.dumps({"id": str(i), "text": f"text number {i}"}) + "\n")
    url = f"nats://127.0.0.1:{bench.port}"
    bench.run("push", corpus, "--to", url)
    assert bench.client().api("STREAM.INFO.texts")["state"]["messages"] == 300
    worker = bench.start_worker()
    out = os.path.join(bench.folder, "out.npy")
    bench.run("pull", "--from", url, "-o", out, "--total", "300")
    assert np.load(out).shape == (300, 768)
    bench.expect(300)
    bench.stop(worker)
    with open(out + ".ids.jsonl", encoding="utf-8") as f:
        assert len(set(f.read().split())) == 300
    said = bench.run("push", corpus, "--to", "nats://", code=64)
    assert "expected nats://HOST:PORT/NAME" in said, said
    said = bench.run("push", corpus, "--to", "amqqp://x", code=64)
    assert "nats://HOST:PORT/NAME" in said, said


def case_dlq(bench):
    """Letters are listed, put back and embedded; within the window in which the stream remembers
    the ids that they had."""
    bench.start_server()
    bench.make_streams()
    client = bench.client()
    client.add("texts", '{"title": "none"}', {"color": "blue", "Nats-Msg-Id": "mine"})
    client.add("texts", b"\x81")
    client.add("texts", b"")
    worker = bench.start_worker()
    wait_for("three letters", lambda: len(client.messages("texts-dlq")) == 3)
    bench.stop(worker)
    said = bench.run("dlq", "list", *ENDS, *bench.words())
    lines = [line.split("\t") for line in said.splitlines()]
    assert [line[:3] for line in lines] == [
        ["texts-dlq 1", "no_text", "texts 1"], ["texts-dlq 2", "bad_msgpack", "texts 2"],
        ["texts-dlq 3", "empty_text", "texts 3"]], said
    shown = [json.loads(line) for line in bench.run(
        "dlq", "list", *ENDS, "--json", "--show", *bench.words()).splitlines()]
    assert shown[0]["payload"] == '{"title": "none"}', shown
    bench.run("dlq", "replay", *ENDS, "--code", "no_text", *bench.words())
    back = client.messages("texts")[-1]
    assert back.data == b'{"title": "none"}' and back.headers["color"] == "blue"
    assert back.headers["Nats-Msg-Id"] != "mine" and "_code" not in back.headers, back.headers
    assert len(client.messages("texts-dlq")) == 2
    # It dies again as a letter of its own and can be put back again, all within two minutes.
    worker = bench.start_worker()
    wait_for("a letter again", lambda: len(client.messages("texts-dlq")) == 3)
    bench.stop(worker)
    bench.run("dlq", "replay", *ENDS, "--code", "no_text", *bench.words())
    assert len(client.messages("texts")) == 5
    said = bench.run("dlq", "replay", *ENDS, "--to", "texts-dlq", *bench.words(), code=64)
    assert "name one that is an input" in said, said
    client.make_stream("kept", "kept", deny_delete=True)
    client.add("kept", "x", {"_code": "no_text", "_error": "because"})
    said = bench.run("dlq", "replay", *ENDS, "--nats-dead-letter-subject", "kept",
                     *bench.words(), code=69)
    assert "deny_delete" in said, said


def case_metrics(bench):
    """Lag is what waits and what is in hand."""
    bench.start_server()
    bench.make_streams()
    bench.add(0, 5)
    port = free_port()
    worker = bench.start_worker("--metrics-listen", f"127.0.0.1:{port}")
    bench.expect(5)

    def metrics():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return answer.read().decode()
    wait_for("the lag", lambda: 'embedmill_source_lag{part="texts"} 0' in metrics(), 20)
    bench.client().api("STREAM.DELETE.texts")
    wait_for("no lag", lambda: 'embedmill_source_lag{part="texts"}' not in metrics(), 20)
    bench.stop(worker)


def case_tls_and_accounts(bench):
    """TLS with a client's certificate; a user of one account sees its streams alone."""
    folder = bench.folder

    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-days", "2", "-subj", "/CN=ca")
    for name, alt in (("server", "IP:127.0.0.1"), ("wrong", "DNS:elsewhere"), ("client", "DNS:c")):
        with open(f"{folder}/{name}.ext", "w", encoding="utf-8") as f:
            f.write(f"subjectAltName={alt}\n")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out",
                f"{name}.csr", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile", f"{name}.ext")

    def config(certificate):
        return (f'tls {{ cert_file: "{folder}/{certificate}.pem", key_file: '
                f'"{folder}/{certificate}.key", ca_file: "{folder}/ca.pem", verify: true }}\n'
                'accounts { A { jetstream: enabled, users [ {user: a, password: pa} ] }\n'
                'B { jetstream: enabled, users [ {user: b, password: pb} ] } }\n')
    bench.configure(config("server"))
    bench.start_server(wait=False)
    words = ["--nats-url", f"tls://localhost:1,tls://127.0.0.1:{bench.port}", "--nats-tls-ca",
             f"{folder}/ca.pem", "--nats-tls-cert", f"{folder}/client.pem", "--nats-tls-key",
             f"{folder}/client.key", "--nats-user", "a"]
    bench.words = lambda port=None: words
    bench.environment = lambda: {**os.environ, "EMBEDMILL_NATS_PASSWORD": "pa"}
    said = bench.run("doctor", *ENDS, "--model", bench.model, *words, code=69)
    assert "over TLS" in said and "stream texts does not exist" in said, said
    said = bench.run("doctor", *ENDS, "--model", bench.model, *words, "--nats-user", "b", code=69)
    assert "Authorization Violation" in said and "nats.creds" in said, said
    worker = bench.start_worker("--nats-user", "b")
    assert worker.wait(timeout=30) == 69, bench.log()
    assert "Authorization Violation" in bench.log(), bench.log()
    worker = bench.start_worker()
    wait_for("the stream in the log", lambda: "nats stream add texts " in bench.log(), 15)
    bench.stop(worker)
    bench.kill_server()
    bench.configure(config("wrong"))
    bench.start_server(wait=False)
    said = bench.run("doctor", *ENDS, "--model", bench.model, *words, code=69)
    assert "connection" in said and "over TLS" not in said, said
    said = bench.run("check", *ENDS, "--model", bench.model, *words, "--nats-creds", "/nowhere",
                     code=64)
    assert "nats.creds" in said and "/nowhere" in said, said


def case_crossed(bench):
    """From NATS to Redis and back; a header of the other side tells no server what to do."""
    bench.start_server()
    bench.make_streams()
    with RedisBench(bench.binary) as other:
        other.start_server()
        words = ["--redis-url", f"redis://127.0.0.1:{other.port}", "--redis-stream", "texts"]
        bench.add(0, 20)
        bench.client().add("texts", b"\x81", {"color": "red"})
        worker = bench.start_worker(*words, "--redis-output-stream", "out", ends=("nats", "redis"))
        wait_for("outputs in Redis", lambda: other.client.xlen("out") == 20)
        wait_for("a letter in Redis", lambda: other.client.xlen("texts:dlq") == 1)
        bench.wait_done()
        bench.stop(worker)
        fields = other.client.xrange("out")[0][1]
        assert fields[b"color"] == b"blue", fields
        for i in range(20):
            other.client.xadd("texts", {"text": f"text number {i}", "id": str(i), "Nats-Rollup":
                                        "all", "two": "1\r\nNats-Rollup: all"})
        other.client.xadd("texts", {"nobody": "x"})
        worker = bench.start_worker(*words, name="back", ends=("redis", "nats"))
        wait_for("outputs in NATS", lambda: len(bench.ids()) == 20, 40)
        wait_for("a letter in NATS", lambda: len(bench.client().messages("texts-dlq")) == 1)
        bench.stop(worker)
        out = bench.client().messages("texts-embeddings")[0]
        assert out.headers["two"] == "1  Nats-Rollup: all", out.headers
        assert msgpack.unpackb(out.data)["id"] == "0"
        letter = bench.client().messages("texts-dlq")[0]
        assert letter.headers["_code"] == "no_body" and letter.headers["_position"], letter.headers
    try:
        bench.client().consumer("texts", "nobody")
        raise AssertionError("a consumer that was never made")
    except NatsError:
        pass


if __name__ == "__main__":
    sys.exit(run_all(globals(), sys.argv[1:]))
