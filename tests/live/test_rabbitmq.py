#!/usr/bin/env python3
"""Workers on a real rabbitmq-server: quorum and classic queues, every text once, dead letters, what
is missing or full, other brokers on either side.

Usage: test_rabbitmq.py EMBEDMILL [CASE ...]
"""
import json
import os
import sys
import time
import urllib.request

import msgpack
import pika

from rabbitmq_bench import run_all, wait_for
from redis_bench import Bench as RedisBench


def names(queue):
    return queue, f"{queue}-embeddings", f"{queue}-dlq"


def expect(bench, queue, n, seconds=60):
    """n outputs, nothing left, nothing dead; the outputs."""
    wait_for(f"{n} outputs", lambda: bench.length(f"{queue}-embeddings") >= n, seconds)
    wait_for("nothing waiting", lambda: bench.length(queue) == 0)
    assert bench.length(f"{queue}-dlq") == 0
    found, times = bench.outputs(f"{queue}-embeddings")
    assert sorted(found, key=int) == [str(i) for i in range(n)], sorted(found, key=int)
    return found, times


def case_once(bench):
    """Both kinds of queue: each text once, with its headers, and a clean drain leaves nothing."""
    for kind in ("quorum", "classic"):
        queue = f"once-{kind}"
        bench.declare(*names(queue), kind=kind)
        bench.add(0, 200, queue, priority=3, correlation_id="c-1", expiration="600000")
        worker = bench.start_worker("--rabbitmq-queue", queue)
        wait_for("200 outputs", lambda: bench.length(f"{queue}-embeddings") == 200, 90)
        bench.stop(worker)
        found, times = expect(bench, queue, 200)
        assert times == 200, times
        properties, output = found["7"]
        assert output["source"] == f"{queue}/7" and output["dim"] == 768, output
        assert properties.headers["color"] == "blue" and properties.delivery_mode == 2, properties
        assert properties.content_type == "application/msgpack", properties
        assert properties.correlation_id == "c-1" and not properties.expiration, properties


def case_prefetch(bench):
    """Two workers share: none of them holds more than it is allowed."""
    bench.declare(*names("shared"))
    bench.add(0, 900, "shared") # enough for several looks by rabbitmqctl, a second each
    workers = [bench.start_worker("--rabbitmq-queue", "shared", "--rabbitmq-prefetch", "8",
                                  name=f"shared-{i}") for i in range(2)]
    most = 0
    deadline = time.monotonic() + 90
    while bench.length("shared-embeddings") < 900 and time.monotonic() < deadline:
        most = max(most, bench.unacked("shared"))
    assert 0 < most <= 16, most
    for worker in workers:
        bench.stop(worker)
    _, times = expect(bench, "shared", 900)
    assert times == 900, times
    stopped = [json.loads(bench.log(f"shared-{i}").splitlines()[-1]) for i in range(2)]
    assert all(line["texts"] > 0 for line in stopped), stopped


def case_no_names(bench):
    """A message without an id has one all the same, and equal texts have the same."""
    bench.declare(*names("nameless"), kind="classic")
    channel = bench.channel
    for body in (b"one", b"two", b"one"):
        channel.basic_publish("", "nameless", body)
    channel.basic_publish("", "nameless", json.dumps({"text": "three", "id": "mine"}).encode())
    worker = bench.start_worker("--rabbitmq-queue", "nameless")
    wait_for("4 outputs", lambda: bench.length("nameless-embeddings") == 4)
    bench.stop(worker)
    ids = [properties.message_id for _, properties, _ in bench.take("nameless-embeddings")]
    assert len(set(ids)) == 3 and "mine" in ids, ids


def case_dead_letters(bench):
    """Byte for byte, with a reason; headers keep their types; neighbours pass."""
    bench.declare(*names("dead"))
    bench.add(0, 50, "dead")
    channel = bench.channel
    channel.basic_publish("", "dead", b"\xff\x00\x01", pika.BasicProperties(
        message_id="poison", type="t", expiration="600000",
        headers={"n": 5, "flag": True, "list": [1, {"a": "b"}], "_code": "forged",
                 "x-delivery-count": 99}))
    channel.basic_publish("", "dead", b'{"texts": []}', pika.BasicProperties(message_id="empty"))
    bench.add(50, 50, "dead")
    worker = bench.start_worker("--rabbitmq-queue", "dead")
    wait_for("100 outputs", lambda: bench.length("dead-embeddings") == 100, 60)
    wait_for("two dead letters", lambda: bench.length("dead-dlq") == 2)
    bench.stop(worker)
    letters = {p.message_id: (p, body) for _, p, body in bench.take("dead-dlq")}
    properties, body = letters["poison"]
    assert body == b"\xff\x00\x01" and properties.type == "t", properties
    headers = properties.headers
    assert headers["n"] == 5 and headers["flag"] is True, headers
    assert headers["list"] == [1, {"a": "b"}], headers
    assert headers["_code"] in ("not_text", "bad_msgpack"), headers
    assert headers["_queue"] == "dead" and headers["_position"] == "dead/poison", headers
    assert headers["_deliveries"] == "1" and not properties.expiration, properties
    assert letters["empty"][0].headers["_code"] == "no_text", letters["empty"]


def case_queue_of_each_model(bench):
    """A worker of two models, each with a queue of its own, is killed and started again; the dead
    letters of both go back to where they were."""
    data = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "models")
    files = {"one": os.path.join(data, "tiny-xlm-roberta.gguf"),
             "two": os.path.join(data, "tiny-mpnet.gguf")}
    named = [word for name, file in files.items() for word in ("--model", f"{name}={file}")]
    model, bench.model = bench.model, f"one={files['one']}"
    for name in files:
        bench.declare(*names(f"own-{name}"), kind="classic")
    def start():
        return bench.start_worker("--model", f"two={files['two']}", "--rabbitmq-queue",
                                  "own-{model}", name="own")
    worker = start()
    for first, n in ((0, 20), (20, 30)):
        for name in files:
            bench.add(first, n, f"own-{name}")
        if first == 0:
            worker.kill()
            worker.wait()
            worker = start()
    for name in files:
        bench.channel.basic_publish("", f"own-{name}", b"\xff\x00\x01",
                                    pika.BasicProperties(message_id=f"bad-{name}"))
        wait_for("50 outputs", lambda name=name: bench.length(f"own-{name}-embeddings") >= 50, 60)
        wait_for("a dead letter", lambda name=name: bench.length(f"own-{name}-dlq") == 1)
        wait_for("nothing waiting", lambda name=name: bench.length(f"own-{name}") == 0)
    bench.stop(worker)
    models = {}
    for name in files:
        found, _ = bench.outputs(f"own-{name}-embeddings")
        assert sorted(map(int, found)) == list(range(50)), sorted(found)
        assert all(out["source"].startswith(f"own-{name}/") for _, out in found.values()), name
        models[name] = {out["model"] for _, out in found.values()}
    assert all(len(m) == 1 for m in models.values()) and models["one"] != models["two"], models
    back = bench.run("dlq", "replay", "--source", "rabbitmq", "--sink", "rabbitmq",
                     "--rabbitmq-url", bench.url, "--rabbitmq-queue", "own-{model}", *named)
    assert back.stdout == "2 put back, 0 left, 0 gone\n", back
    for name in files:
        [(_, properties, _)] = bench.take(f"own-{name}")
        assert properties.message_id == f"bad-{name}", properties
    bench.model = model


def case_rejected(bench):
    """Dead letters left to the queue's own exchange."""
    bench.declare("own", "own-dead", "own-embeddings")
    bench.channel.queue_delete("own")
    bench.declare("own", dead_letter_exchange="", dead_letter_routing_key="own-dead")
    bench.channel.basic_publish("", "own", b'{"no": 1}', pika.BasicProperties(message_id="bad"))
    bench.add(0, 20, "own")
    worker = bench.start_worker("--rabbitmq-queue", "own", "--rabbitmq-dead-letters", "reject")
    wait_for("20 outputs", lambda: bench.length("own-embeddings") == 20)
    wait_for("a dead letter", lambda: bench.length("own-dead") == 1)
    bench.stop(worker)
    [(_, properties, body)] = bench.take("own-dead")
    assert body == b'{"no": 1}' and properties.headers["x-death"][0]["reason"] == "rejected"


def case_made_later(bench):
    """A queue, an output and dead letters that are missing are waited for, each by its name."""
    worker = bench.start_worker("--rabbitmq-queue", "later", "--threads", "1", name="later")
    wait_for("the missing queue", lambda: "NOT_FOUND - no queue 'later'" in bench.log("later"))
    bench.declare("later")
    bench.add(0, 30, "later")
    bench.channel.basic_publish("", "later", b'{"no": 1}', pika.BasicProperties(message_id="bad"))
    wait_for("the missing output", lambda: "later-embeddings: 312 NO_ROUTE" in bench.log("later"))
    time.sleep(1)
    assert worker.poll() is None
    bench.declare("later-embeddings")
    wait_for("30 outputs", lambda: bench.length("later-embeddings") == 30, 40)
    wait_for("the missing dead letters", lambda: "later-dlq: 312" in bench.log("later"), 40)
    bench.declare("later-dlq")
    wait_for("a dead letter", lambda: bench.length("later-dlq") == 1, 40)
    bench.stop(worker)
    assert bench.length("later") == 0
    ids = [msgpack.unpackb(body)["id"] for _, _, body in bench.take("later-embeddings")]
    assert ids == sorted(ids, key=int) and len(ids) == 30, ids # what came back keeps its order


def case_exchange(bench):
    """An exchange of the user's between, and one that is missing."""
    bench.declare(*names("routed"), "routed-target")
    bench.add(0, 10, "routed")
    worker = bench.start_worker("--rabbitmq-queue", "routed", "--rabbitmq-output-exchange",
                                "routed-x", "--rabbitmq-output-queue", "vectors.new", name="routed")
    wait_for("the missing exchange", lambda: "no exchange 'routed-x'" in bench.log("routed"))
    bench.channel.exchange_declare("routed-x", "topic", durable=True)
    bench.channel.queue_bind("routed-target", "routed-x", "vectors.*")
    wait_for("10 outputs", lambda: bench.length("routed-target") == 10, 40)
    bench.stop(worker)


def case_routed_by_headers(bench):
    """An exchange that looks at headers has a queue for some: the others are letters, and hold
    nobody up. Nor does an empty message that says it is not deleted delete anything."""
    bench.declare(*names("by"), "by-blue")
    bench.channel.exchange_declare("by-x", "headers", durable=True)
    bench.channel.queue_bind("by-blue", "by-x", "", {"x-match": "all", "color": "blue"})
    channel = bench.channel
    channel.basic_publish("", "by", b"nobody's", pika.BasicProperties(
        message_id="red", headers={"color": "red"}))
    channel.basic_publish("", "by", b"", pika.BasicProperties(
        message_id="0", headers={"color": "blue", "deleted": False}))
    worker = bench.start_worker("--rabbitmq-queue", "by", "--rabbitmq-output-exchange", "by-x",
                                "--rabbitmq-output-queue", "any", name="by")
    wait_for("NO_ROUTE", lambda: "NO_ROUTE" in bench.log("by"))
    n = 0
    while bench.length("by-dlq") < 2:
        assert n < 200 and worker.poll() is None
        bench.add(n, 10, "by")
        n += 10
        time.sleep(0.3)
    wait_for("the others", lambda: bench.length("by-blue") == n)
    letters = {p.message_id: p.headers["_code"] for _, p, _ in bench.take("by-dlq")}
    assert letters == {"red": "output_refused", "0": "empty_text"}, letters
    bench.stop(worker)


def case_nobodys_crowd(bench):
    """More messages that no queue takes, one by one, than a worker has batches: the others come
    all the same, and show whose fault it is."""
    bench.declare(*names("crowd"), "crowd-blue")
    bench.channel.exchange_declare("crowd-x", "headers", durable=True)
    bench.channel.queue_bind("crowd-blue", "crowd-x", "", {"x-match": "all", "color": "blue"})
    worker = bench.start_worker("--rabbitmq-queue", "crowd", "--rabbitmq-output-exchange",
                                "crowd-x", "--rabbitmq-output-queue", "any", "--threads", "1",
                                name="crowd") # 3 batches
    for i in range(8):
        bench.channel.basic_publish("", "crowd", b"nobody's", pika.BasicProperties(
            message_id=f"red-{i}", headers={"color": "red"}))
        wait_for("it is taken", lambda: bench.length("crowd") == 0)
    n = 0
    while bench.length("crowd-dlq") < 8:
        assert n < 200 and worker.poll() is None
        bench.add(n, 1, "crowd")
        n += 1
        time.sleep(0.3)
    wait_for("the others", lambda: bench.length("crowd-blue") == n)
    bench.stop(worker)


def case_full(bench):
    """A full output queue refuses; nothing is lost, and it goes on when there is room."""
    bench.declare("full", "full-dlq")
    bench.declare("full-embeddings", kind="classic", max_length=20, overflow="reject-publish")
    bench.add(0, 100, "full")
    worker = bench.start_worker("--rabbitmq-queue", "full", name="full")
    found = {}
    wait_for("the full queue", lambda: "refuses it (nack)" in bench.log("full"), 60)
    deadline = time.monotonic() + 90
    while len(found) < 100 and time.monotonic() < deadline:
        found.update(bench.outputs("full-embeddings")[0])
        time.sleep(0.2)
    bench.stop(worker)
    assert len(found) == 100 and bench.length("full") == 0, len(found)


def case_crossed(bench):
    """RabbitMQ to a file and back from one: source and sink know nothing of each other."""
    bench.declare(*names("crossed"))
    bench.add(0, 30, "crossed")
    lines = os.path.join(bench.folder, "crossed.jsonl")
    worker = bench.start_worker("--rabbitmq-queue", "crossed", "--sink", "stdout",
                                "--output-format", "json", name="crossed")
    wait_for("30 lines", lambda: bench.log("crossed").count('"embedding":') == 30)
    bench.stop(worker)
    assert bench.length("crossed") == 0
    with open(lines, "w", encoding="utf-8") as f:
        f.writelines(json.dumps({"id": f"l-{i}", "text": f"line {i}"}) + "\n" for i in range(20))
    run = bench.run("run", "--source", "file", "--file-path", lines, "--sink", "rabbitmq",
                    "--rabbitmq-url", bench.url, "--rabbitmq-output-queue", "crossed-embeddings",
                    "--model", bench.model, "--prompt", "none")
    assert "error" not in run.stderr, run.stderr
    outputs = bench.take("crossed-embeddings")
    assert {p.message_id for _, p, _ in outputs} == {f"l-{i}" for i in range(20)}
    assert all(len(msgpack.unpackb(body)["embedding"]) == 768 * 4 for _, _, body in outputs)


def case_redis(bench):
    """Redis to RabbitMQ and back, a bad message each way, its dead letter with the sink."""
    bench.declare(*names("mixed"))
    with RedisBench(bench.binary) as other:
        other.start_server()
        url = f"redis://127.0.0.1:{other.port}"
        other.add(0, 20)
        other.client.xadd("texts", {"body": b'{"no": 1}', "id": "bad", "n": "5"})
        worker = bench.start_worker("--source", "redis", "--redis-url", url, "--rabbitmq-queue",
                                    "mixed", name="from-redis")
        wait_for("20 outputs", lambda: bench.length("mixed-embeddings") == 20)
        wait_for("a letter", lambda: bench.length("mixed-dlq") == 1)
        bench.stop(worker)
        assert other.client.xpending("texts", "embedmill")["pending"] == 0
        found, times = bench.outputs("mixed-embeddings")
        assert len(found) == times == 20 and found["7"][0].headers["color"] == "blue", found
        [(_, properties, body)] = bench.take("mixed-dlq")
        assert body == b'{"no": 1}' and properties.headers["n"] == "5", properties
        assert properties.headers["_position"].startswith("texts "), properties

        bench.add(0, 20, "mixed")
        bench.channel.basic_publish("", "mixed", b'{"no": 1}', pika.BasicProperties(
            message_id="bad", headers={"n": 5, "list": [1]}))
        worker = bench.start_worker("--sink", "redis", "--redis-url", url, "--rabbitmq-queue",
                                    "mixed", "--redis-output", "key", name="to-redis")
        wait_for("20 keys", lambda: len(other.client.keys("embedding:*")) == 20)
        wait_for("a letter", lambda: other.client.xlen("texts:dlq") == 1)
        bench.stop(worker)
        [(_, letter)] = other.client.xrange("texts:dlq")
        assert letter[b"body"] == b'{"no": 1}' and letter[b"_position"] == b"mixed/bad", letter
        assert letter[b"n"] == b"5" and letter[b"list"] == b"[1]" and letter[b"_key"] == b"bad"
        assert bench.length("mixed") == 0


def case_vhost_and_login(bench):
    """Another vhost and user; what is wrong with either ends the worker with its name."""
    bench.ctl("add_vhost", "a/b")
    bench.ctl("add_user", "w", "p@w")
    at = f"127.0.0.1:{bench.port}"
    for url, words in ((f"amqp://w:wrong@{at}", "ACCESS_REFUSED"),
                       (f"amqp://w:p%40w@{at}/none", "vhost none not found"),
                       (f"amqp://w:p%40w@{at}/a%2Fb", "refused for user 'w'")):
        worker = bench.start_worker(url=url, name="login")
        assert worker.wait(timeout=30) == 69, words
        assert words in bench.log("login"), (words, bench.log("login")[-1500:])
        assert "wrong" not in bench.log("login") and "p%40w" not in bench.log("login")
    bench.ctl("set_permissions", "-p", "a/b", "w", "", ".*", ".*")
    bench.ctl("set_permissions", "-p", "a/b", "guest", ".*", ".*", ".*")
    there = pika.BlockingConnection(pika.ConnectionParameters(
        "127.0.0.1", bench.port, "a/b", pika.PlainCredentials("guest", "guest")))
    channel = there.channel()
    for name in names("texts"):
        channel.queue_declare(name, durable=True)
    channel.basic_publish("", "texts", b"hello", pika.BasicProperties(message_id="1"))
    worker = bench.start_worker(url=f"amqp://w:p%40w@{at}/a%2Fb", name="vhost")
    wait_for("an output", lambda: channel.queue_declare("texts-embeddings", passive=True)
             .method.message_count == 1)
    bench.stop(worker)
    there.close()


def case_nodes_in_turn(bench):
    """Of several URLs the first one that answers is taken."""
    bench.declare(*names("turn"))
    bench.add(0, 5, "turn")
    worker = bench.start_worker("--rabbitmq-queue", "turn", name="turn",
                                url=f"amqp://127.0.0.1:{bench.port - 1},{bench.url}")
    expect(bench, "turn", 5)
    bench.stop(worker)


def case_dlq(bench):
    """Letters are listed and stay; replayed they are what they were, and served."""
    bench.declare(*names("post"), kind="classic")
    options = ("--source", "rabbitmq", "--sink", "rabbitmq", "--rabbitmq-url", bench.url,
               "--rabbitmq-queue", "post")
    for i in range(5):
        bench.channel.basic_publish("", "post", b'{"texts": []}' if i < 3 else b'{"no": 1',
                                    pika.BasicProperties(message_id=f"bad-{i}", priority=2,
                                                         headers={"n": i, "x-delivery-count": 7}))
    worker = bench.start_worker("--rabbitmq-queue", "post")
    wait_for("5 letters", lambda: bench.length("post-dlq") == 5)
    bench.stop(worker)
    for _ in range(2):
        lines = bench.run("dlq", "list", *options).stdout.splitlines()
        assert len(lines) == 5, lines
        assert lines[0].startswith("post-dlq/bad-0\tno_text\tpost/bad-0\t"), lines
    listed = [json.loads(line) for line in bench.run(
        "dlq", "list", "--json", "--show", "--code", "bad_json", *options).stdout.splitlines()]
    assert [letter["payload"] for letter in listed] == ['{"no": 1'] * 2, listed
    assert bench.run("dlq", "replay", "--code", "bad_json", "--limit", "1", *options).stdout == \
        "1 put back, 0 left, 0 gone\n"
    [(_, properties, body)] = bench.take("post")
    assert body == b'{"no": 1' and properties.headers == {"n": 3} and properties.priority == 2
    assert properties.message_id == "bad-3" and bench.length("post-dlq") == 4
    bench.declare("post-again")
    bench.run("dlq", "replay", "--to", "post-again", *options)
    assert bench.length("post-again") == 4 and bench.length("post-dlq") == 0
    refused = bench.run("dlq", "replay", "--to", "post-dlq", *options, code=64)
    assert "holds dead letters" in refused.stderr, refused.stderr
    bench.channel.basic_publish("", "post-dlq", b"x", pika.BasicProperties(
        message_id="gone", headers={"_code": "bad_json", "_queue": "post-none"}))
    refused = bench.run("dlq", "replay", *options, code=69)
    assert "post-none" in refused.stderr and bench.length("post-dlq") == 1, refused.stderr


def case_doctor(bench):
    """What is missing, not allowed, or would lose messages."""
    def doctor(*extra, url=bench.url, code=69):
        run = bench.run("doctor", "--source", "rabbitmq", "--sink", "rabbitmq", "--rabbitmq-url",
                        url, "--rabbitmq-queue", "sick", "--model", bench.model,
                        "--rabbitmq-management-url", f"http://127.0.0.1:{bench.management}", *extra,
                        code=code)
        return run.stdout
    assert "no queue 'sick'" in doctor()
    bench.declare("sick", kind="classic")
    bench.declare("sick-embeddings", max_length=10)
    bench.declare("sick-dlq", delivery_limit=3, message_ttl=60000)
    said = doctor(code=0)
    for words in ("answers: RabbitMQ ", "sick: 0 messages ready", "counts none", "drops its oldest",
                  "deletes messages after 60 s", "looked at 3 times"):
        assert words in said, (words, said)
    assert said.count("yes") >= 2, said
    bench.channel.queue_delete("sick")
    bench.declare("sick", delivery_limit=4)
    assert "drops a message after 4 failed deliveries" in doctor(code=0)
    assert "they would be dropped" in doctor("--rabbitmq-dead-letters", "reject")
    bench.channel.queue_delete("sick")
    bench.declare("sick", delivery_limit=4, dead_letter_exchange="")
    assert "without a reason" in doctor(code=0)
    bench.channel.queue_delete("sick")
    bench.declare("sick", kind="stream")
    assert "is a stream" in doctor()
    bench.ctl("add_user", "blind", "pw")
    bench.ctl("set_permissions", "blind", "", "", "")
    said = doctor(url=f"amqp://blind:pw@127.0.0.1:{bench.port}")
    assert said.count("set_permissions") == 2 and "monitoring" in said, said
    bench.ctl("delete_user", "blind")
    bench.channel.queue_delete("sick")


def case_stream(bench):
    """A stream is refused in words; nothing of it is read as if it were a queue."""
    bench.declare("river", kind="stream")
    bench.declare("river-embeddings", "river-dlq")
    worker = bench.start_worker("--rabbitmq-queue", "river", name="river")
    wait_for("started", lambda: "source is up" in bench.log("river"))
    bench.add(0, 1, "river")
    assert worker.wait(timeout=30) == 69 and "is a stream" in bench.log("river")


def case_push_and_pull(bench):
    """A file into the queue, its embeddings into a file."""
    bench.declare(*names("moved"))
    lines = os.path.join(bench.folder, "moved.jsonl")
    out = os.path.join(bench.folder, "moved-out.jsonl")
    with open(lines, "w", encoding="utf-8") as f:
        f.writelines(json.dumps({"id": f"m-{i}", "text": f"line {i}"}) + "\n" for i in range(40))
    bench.run("push", lines, "--to", bench.url, "--stream", "moved")
    assert bench.length("moved") == 40
    worker = bench.start_worker("--rabbitmq-queue", "moved")
    wait_for("40 outputs", lambda: bench.length("moved-embeddings") == 40)
    bench.stop(worker)
    bench.run("pull", "--from", bench.url, "--stream", "moved-embeddings", "--idle", "2s", "-o",
              out)
    with open(out, encoding="utf-8") as f:
        found = [json.loads(line) for line in f]
    assert sorted(o["id"] for o in found) == sorted(f"m-{i}" for i in range(40)), len(found)
    assert bench.length("moved-embeddings") == 0


def case_lag(bench):
    """What waits is told, with what is in hand."""
    bench.declare("slow", "slow-dlq") # and no output: everything waits
    bench.add(0, 100, "slow")
    worker = bench.start_worker("--rabbitmq-queue", "slow", "--metrics-listen",
                                f"127.0.0.1:{bench.metrics}", name="slow")
    def lag():
        with urllib.request.urlopen(f"http://127.0.0.1:{bench.metrics}/metrics", timeout=5) as page:
            for line in page.read().decode().splitlines():
                if line.startswith("embedmill_source_lag{"):
                    assert 'slow' in line, line
                    return float(line.split()[-1])
        return None
    wait_for("lag 100", lambda: lag() == 100, 40)
    bench.declare("slow-embeddings")
    wait_for("lag 0", lambda: lag() == 0, 60)
    bench.stop(worker)
    expect(bench, "slow", 100)


if __name__ == "__main__":
    sys.exit(run_all(globals(), sys.argv[1], sys.argv[2:]))
