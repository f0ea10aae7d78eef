#!/usr/bin/env python3
"""The worker against a real redis-server and against a server that misbehaves.

Each case starts what it needs on a free port with its data in a temporary folder and stops it. The
real redis-server is killed, restarted, flushed, filled up; a scripted server answers with refusals,
garbage, half replies and silence. In every case nothing may be lost, nothing may come out twice,
and the worker may not spin.

Usage: test_redis_live.py EMBEDMILL [--few] [CASE ...]
"""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import msgpack
import numpy as np

from cases import find_cases, run_cases, slow
from ports import free_port
from redis_bench import Bench, wait_for


class FakeServer(threading.Thread):
    """Speaks enough RESP to be greeted, then answers as told."""

    def __init__(self, answer):
        super().__init__(daemon=True)
        self.answer, self.commands = answer, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        stream = connection.makefile("rwb")
        try:
            while True:
                head = stream.readline()
                if not head:
                    return
                words = []
                for _ in range(int(head[1:])):
                    words.append(stream.read(int(stream.readline()[1:]) + 2)[:-2])
                self.commands.append(words[0].upper())
                reply = self.answer(words)
                if reply is None:
                    connection.close()
                    return
                stream.write(reply)
                stream.flush()
        except (OSError, ValueError):
            connection.close()


def case_plain(bench):
    """Texts in, embeddings out, other fields along, nothing pending."""
    bench.start_server()
    bench.add(0, 150)
    worker = bench.start_worker()
    bench.expect_once(150)
    _, fields = bench.client.xrange("texts:embeddings", count=1)[0]
    assert fields[b"color"] == b"blue", fields.keys()
    out = msgpack.unpackb(fields[b"body"])
    assert out["v"] == 1 and out["dim"] == 768 and out["dtype"] == "<f4", out
    vector = np.frombuffer(out["embedding"], dtype="<f4")
    assert abs(np.linalg.norm(vector) - 1) < 1e-5
    bench.stop(worker)


def case_worker_first(bench):
    """The worker waits for a server that is not there yet, and says so."""
    worker = bench.start_worker()
    wait_for("the refusal in the log", lambda: "refused" in bench.log(), 10)
    bench.start_server()
    bench.add(0, 10)
    bench.expect_once(10)
    bench.stop(worker)


def case_key(bench):
    bench.start_server()
    bench.add(0, 5)
    worker = bench.start_worker("--redis-output", "key", "--redis-output-prefix", "v:")
    wait_for("five keys", lambda: len(bench.client.keys("v:*")) == 5)
    out = msgpack.unpackb(bench.client.get("v:3"))
    assert out["id"] == "3" and len(out["embedding"]) == 768 * 4
    wait_for("acks", lambda: bench.client.xpending("texts", "embedmill")["pending"] == 0)
    bench.stop(worker)


def case_hash(bench):
    """The field `embedding` is what vector search reads: raw little-endian floats."""
    bench.start_server()
    bench.client.xadd("texts", {"body": json.dumps({"id": "m", "texts": ["one", "two"]})})
    worker = bench.start_worker("--redis-output", "hash", "--dim", "256")
    wait_for("two hashes", lambda: len(bench.client.keys("embedding:*")) == 2)
    for key in bench.client.keys("embedding:*"):
        raw = bench.client.hget(key, "embedding")
        assert len(raw) == 256 * 4
        assert abs(np.linalg.norm(np.frombuffer(raw, dtype="<f4")) - 1) < 1e-5
    bench.stop(worker)


def case_reader(bench):
    """docs/read_embeddings.py reads what the worker wrote, one text and many."""
    bench.start_server()
    bench.add(0, 2)
    bench.client.xadd("texts", {"body": json.dumps({"id": "m", "texts": ["one", "two"]})})
    worker = bench.start_worker()
    wait_for("three outputs", lambda: bench.client.xlen("texts:embeddings") == 3)
    bench.stop(worker)
    reader = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs",
                          "read_embeddings.py")
    lines = subprocess.run(["/usr/bin/python3", reader, f"redis://127.0.0.1:{bench.port}",
                            "texts:embeddings"], check=True, capture_output=True,
                           text=True).stdout.splitlines()
    rows = sorted(line.split("\t") for line in lines)
    assert [row[0] for row in rows] == ["0", "1", "m/0", "m/1"], rows
    assert all(row[1] == "768" and abs(float(row[2]) - 1) < 1e-5 for row in rows), rows


def case_dead_letters(bench):
    """Bad messages go aside whole, with a reason; their neighbours pass."""
    bench.start_server()
    bench.client.xadd("texts", {"nobody": "x"})
    bench.client.xadd("texts", {"body": b"\x81\xa4text\xdd\xff\xff\xff\xff", "k": "v"})
    bench.client.xadd("texts", {"body": '{"text": ""}'})
    bench.add(0, 3)
    worker = bench.start_worker("--input-format", "auto")
    wait_for("outputs and dead letters",
             lambda: bench.client.xlen("texts:embeddings") + bench.client.xlen("texts:dlq") == 6)
    letters = [fields for _, fields in bench.client.xrange("texts:dlq")]
    assert len(letters) >= 2, letters
    for fields in letters:
        assert fields[b"_code"] and fields[b"_error"] and fields[b"_stream"] == b"texts"
    assert any(f.get(b"nobody") == b"x" and f[b"_code"] == b"no_body" for f in letters)
    wait_for("acks", lambda: bench.client.xpending("texts", "embedmill")["pending"] == 0)
    bench.stop(worker)


def case_replay(bench):
    """A letter put back dies again when it is still bad, and is served when the worker can."""
    bench.start_server()
    bench.client.xadd("texts", {"other": "a text", "id": "9"})
    worker = bench.start_worker()
    wait_for("a dead letter", lambda: bench.client.xlen("texts:dlq") == 1)
    for seen in (2, 3):
        assert bench.dlq("replay") == "1 put back, 0 left, 0 gone\n"
        wait_for("it died again", lambda: bench.client.xlen("texts:dlq") == 1 and
                 bench.client.xinfo_stream("texts:dlq")["entries-added"] == seen)
    bench.stop(worker)
    assert bench.dlq("replay", "--code", "no_body").startswith("1 put back")
    worker = bench.start_worker("--redis-body", "other")
    wait_for("its embedding", lambda: bench.ids() == ["9"])
    bench.stop(worker)
    assert bench.client.xlen("texts:dlq") == 0


@slow
def case_server_killed(bench):
    """kill -9 of the server mid-way, restart on its append-only file."""
    bench.start_server()
    bench.add(0, 400)
    worker = bench.start_worker("--batch-texts", "16")
    wait_for("some output", lambda: bench.client.xlen("texts:embeddings") > 30)
    bench.server.kill()
    bench.server.wait()
    time.sleep(0.5)
    bench.start_server()
    bench.expect_once(400)
    bench.stop(worker)


@slow
def case_connections_killed(bench):
    bench.start_server()
    bench.add(0, 300)
    worker = bench.start_worker("--batch-texts", "16")
    for _ in range(15):
        time.sleep(0.15)
        bench.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    bench.expect_once(300)
    bench.stop(worker)


def case_flushed(bench):
    """FLUSHALL under a blocked read: the group is made again, and not in a hot loop."""
    bench.start_server()
    bench.add(0, 3)
    worker = bench.start_worker()
    bench.expect_once(3)
    bench.client.flushall()
    time.sleep(1)
    before = bench.client.info("stats")["total_commands_processed"]
    time.sleep(2)
    spent = bench.client.info("stats")["total_commands_processed"] - before
    assert spent < 60, f"{spent} commands in 2 idle seconds"
    bench.add(0, 3)
    bench.expect_once(3)
    bench.stop(worker)


def case_out_of_memory(bench):
    """OOM on writes: wait, then go on; nothing lost."""
    bench.start_server()
    bench.add(0, 20)
    bench.client.config_set("maxmemory", 1)
    worker = bench.start_worker()
    wait_for("the refusal in the log", lambda: "OOM" in bench.log(), 15)
    time.sleep(1)
    assert bench.client.xlen("texts:embeddings") == 0
    bench.client.config_set("maxmemory", 0)
    bench.expect_once(20)
    bench.stop(worker)


def case_wrong_type(bench):
    """What can never work ends the worker with 69; the messages stay pending."""
    bench.start_server()
    bench.client.set("texts:embeddings", "not a stream")
    bench.add(0, 5)
    worker = bench.start_worker()
    assert worker.wait(timeout=20) == 69
    assert "WRONGTYPE" in bench.log()
    assert bench.client.xpending("texts", "embedmill")["pending"] == 5


def case_large_letters(bench):
    """A dead letter that the server does not take is cut where it is largest, and no more."""
    bench.start_server()
    bench.client.xadd("texts", {"a": "1", "body": "{" + "x" * (3 << 20), "b": "2"})
    bench.client.xadd("texts", {"body": "{", "other": "y" * (3 << 20)})
    bench.add(0, 3)
    bench.client.config_set("proto-max-bulk-len", 1 << 20)
    worker = bench.start_worker("--input-format", "auto")
    wait_for("outputs", lambda: bench.client.xlen("texts:embeddings") == 3)
    wait_for("dead letters", lambda: bench.client.xlen("texts:dlq") == 2)
    letters = {len(fields.get(b"body")): fields
               for _, fields in bench.client.xrange("texts:dlq")}
    body, other = letters[((3 << 20) + 1) // 16], letters[1]
    assert body[b"a"] == b"1" and body[b"b"] == b"2" and b"the first" in body[b"_error"], body
    assert b"other" not in other and b"0 of 1 headers" in other[b"_error"], other
    wait_for("acks", lambda: bench.client.xpending("texts", "embedmill")["pending"] == 0)
    bench.stop(worker)


@slow
def case_wide_hashes(bench):
    """A message whose fields would be repeated beside hundreds of texts goes aside, others pass."""
    bench.start_server()
    texts = json.dumps({"texts": [f"text {i}" for i in range(400)]})
    bench.client.xadd("texts", {"body": texts, "wide": "w" * 200000})
    bench.client.xadd("texts", {"body": texts, **{f"f{i}": "1" for i in range(1100)}})
    bench.client.xadd("texts", {"body": '{"id": "good", "text": "a text"}', "wide": "w" * 200000})
    worker = bench.start_worker("--redis-output", "hash", "--redis-output-prefix", "e:",
                                "--input-format", "auto")
    wait_for("the good one", lambda: bench.client.exists("e:good"), 120)
    wait_for("two letters", lambda: bench.client.xlen("texts:dlq") == 2)
    for _, fields in bench.client.xrange("texts:dlq"):
        assert fields[b"_code"] == b"output_too_large", fields[b"_code"]
    assert bench.client.keys("e:*") == [b"e:good"]
    bench.stop(worker)


def case_exactly_once_apart(bench):
    """Exactly-once needs one server and one database; what is another is refused, not weakened."""
    bench.start_server()
    bench.add(0, 3)
    exactly = ("--delivery", "exactly-once")
    worker = bench.start_worker(*exactly, "--redis-output-url",
                                f"redis://127.0.0.1:{bench.port}/1")
    assert worker.wait(timeout=30) == 64 and "exactly-once" in bench.log()
    with Bench(bench.binary) as other:
        other.start_server()
        worker = bench.start_worker(*exactly, "--redis-output-url",
                                    f"redis://127.0.0.1:{other.port}", name="v")
        assert worker.wait(timeout=30) == 69 and "exactly-once" in bench.log("v")
        assert other.client.xlen("texts:embeddings") == 0
    worker = bench.start_worker(*exactly, "--redis-output-url", f"redis://localhost:{bench.port}",
                                name="u") # the same server, spelled differently
    bench.expect_once(3)
    bench.stop(worker)


def case_rights_in_the_script(bench):
    """A right that only the script misses ends the worker, as any other."""
    bench.start_server()
    bench.client.execute_command("ACL", "SETUSER", "w", "on", ">pw", "~*", "&*", "+@all", "-xadd")
    bench.add(0, 1)
    worker = bench.start_worker("--redis-url", f"redis://w:pw@127.0.0.1:{bench.port}")
    assert worker.wait(timeout=30) == 69 and "ACL SETUSER" in bench.log(), bench.log()


def case_right_to_ack(bench):
    """Without the right to ack nothing is written: it would come once more with each restart."""
    bench.start_server()
    bench.client.execute_command("ACL", "SETUSER", "w", "on", ">pw", "~*", "&*", "+@all", "-xack")
    bench.add(0, 5)
    for run in range(2):
        worker = bench.start_worker("--redis-url", f"redis://w:pw@127.0.0.1:{bench.port}/0",
                                    name=f"denied-{run}")
        assert worker.wait(timeout=30) == 69, bench.log(f"denied-{run}")
        assert "ACL SETUSER" in bench.log(f"denied-{run}"), bench.log(f"denied-{run}")
        assert bench.client.xlen("texts:embeddings") == 0
    worker = bench.start_worker()
    bench.expect_once(5)
    bench.stop(worker)


def case_max_clients(bench):
    """A server that takes no more connections is waited for, and named."""
    bench.start_server("--maxclients", "3")
    held = [socket.create_connection(("127.0.0.1", bench.port)) for _ in range(3)]
    worker = bench.start_worker()
    wait_for("the reason in the log", lambda: "has reached maxclients" in bench.log())
    for connection in held:
        connection.close()
    bench.client.config_set("maxclients", 100)
    bench.add(0, 3)
    bench.expect_once(3)
    bench.stop(worker)


def case_dead_consumer(bench):
    """What a worker that never came back had taken is taken over by another."""
    bench.start_server()
    bench.add(0, 12)
    bench.client.xgroup_create("texts", "embedmill", id="0")
    bench.client.xreadgroup("embedmill", "gone", {"texts": ">"}, count=12)
    worker = bench.start_worker()
    bench.expect_once(12)
    bench.stop(worker)


def case_own_pending(bench):
    """After a restart under the same name its pending entries come first, at once."""
    bench.start_server()
    bench.add(0, 12)
    bench.client.xgroup_create("texts", "embedmill", id="0")
    bench.client.xreadgroup("embedmill", "w", {"texts": ">"}, count=12)
    worker = bench.start_worker("--redis-claim-idle", "1h")
    bench.expect_once(12, 10)
    bench.stop(worker)


def case_max_deliveries(bench):
    bench.start_server()
    bench.add(0, 2)
    bench.client.xgroup_create("texts", "embedmill", id="0")
    first = bench.client.xreadgroup("embedmill", "w", {"texts": ">"}, count=1)[0][1][0][0]
    bench.client.xclaim("texts", "embedmill", "w", 0, [first], retrycount=50)
    worker = bench.start_worker("--max-deliveries", "3")
    wait_for("a dead letter", lambda: bench.client.xlen("texts:dlq") == 1)
    _, fields = bench.client.xrange("texts:dlq")[0]
    assert fields[b"_code"] == b"too_many_deliveries", fields
    wait_for("the other", lambda: bench.client.xlen("texts:embeddings") == 1)
    bench.stop(worker)


def case_stop_within_a_large_message(bench):
    """Progress shows inside a message; a drain shorter than it is not a failed delivery."""
    bench.start_server()
    texts = [f"text number {i} of a very large message" for i in range(4000)]
    bench.client.xadd("texts", {"body": json.dumps({"id": "0", "texts": texts})})
    worker = bench.start_worker("--drain-timeout", "1s", "--progress-interval", "1s")
    wait_for("progress", lambda: re.search(r'"texts":0,"embedded":[1-9]', bench.log()))
    bench.stop(worker, 75)
    [entry] = bench.client.xpending_range("texts", "embedmill", "-", "+", 10)
    assert entry["times_delivered"] == 0, entry
    assert entry["time_since_delivered"] >= 1000, entry
    assert "will be delivered again" in bench.log()


def case_frozen_worker(bench):
    """A worker that slept beyond its lease publishes nothing twice when it wakes."""
    bench.start_server()
    bench.add(0, 200)
    one = bench.start_worker("--batch-texts", "32", name="one")
    wait_for("some output", lambda: bench.client.xlen("texts:embeddings") > 10)
    one.send_signal(signal.SIGSTOP)
    two = bench.start_worker(name="two")
    time.sleep(4)
    one.send_signal(signal.SIGCONT)
    bench.expect_once(200)
    bench.stop(one)
    bench.stop(two)


def case_streams(bench):
    """Three streams, two workers, one killed: each id once, and no stream waits for a busy one."""
    bench.start_server()
    sizes, late = {"a": 600, "b": 60, "c": 20}, 10
    first = {"a": 0, "b": 1000, "c": 2000}
    for stream, n in sizes.items():
        bench.add(first[stream], n, stream)
    listen = f"127.0.0.1:{free_port()}"
    flags = ("--redis-stream", "a,b,c", "--redis-output-stream", "texts:embeddings",
             "--batch-texts", "16")
    one = bench.start_worker(*flags, name="one")
    two = bench.start_worker(*flags, "--metrics-listen", listen, name="two")
    wait_for("some output", lambda: bench.client.xlen("texts:embeddings") > 50)
    one.kill()
    one.wait()
    bench.add(first["c"] + sizes["c"], late, "c")
    sizes["c"] += late
    total = sum(sizes.values())
    wait_for("every text published", lambda: bench.client.xlen("texts:embeddings") >= total, 240)
    for stream in sizes:
        wait_for("nothing pending",
                 lambda s=stream: bench.client.xpending(s, "embedmill")["pending"] == 0)
    ids = [int(i) for i in bench.ids()]
    assert sorted(ids) == sorted(first[s] + i for s, n in sizes.items() for i in range(n)), ids
    last = {s: max(at for at, i in enumerate(ids) if first[s] <= i < first[s] + 1000)
            for s in sizes}
    assert last["c"] < last["a"] and last["b"] < last["a"], last

    def lags():
        text = urllib.request.urlopen(f"http://{listen}/metrics", timeout=5).read().decode()
        return dict(re.findall(r'embedmill_source_lag{part="(.*?)"} (\S+)', text))
    wait_for("no lag in each", lambda: lags() == {"a": "0", "b": "0", "c": "0"})
    bench.stop(two)


def fake_case(bench, answer, word, least=1, most=80):
    """Three seconds against a scripted server: alive, not spinning, and it says what is wrong."""
    fake = FakeServer(answer)
    worker = bench.start_worker(port=fake.port)
    wait_for(f"'{word}' in the log", lambda: word.lower() in bench.log().lower(), 15)
    before = len(fake.commands)
    time.sleep(3)
    spent = len(fake.commands) - before
    fake.listener.close()
    assert worker.poll() is None, "the worker ended\n" + bench.log()
    assert least <= spent + before and spent <= most, f"{spent} commands in 3 s"
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=35) in (0, 75)


def case_loading(bench):
    fake_case(bench, lambda words: b"-LOADING Redis is loading the dataset\r\n", "LOADING")


def case_garbage(bench):
    fake_case(bench, lambda words: b"!!! no such protocol\r\n", "wait", 0)


def case_half_reply(bench):
    fake_case(bench, lambda words: b"$100\r\nhalf", "wait", 0)


def case_silence(bench):
    fake_case(bench, lambda words: b"", "wait", 0)


def case_reset(bench):
    fake_case(bench, lambda words: None, "wait", 0)


def case_readonly(bench):
    def answer(words):
        if words[0].upper() in (b"PING", b"CLIENT", b"SELECT", b"AUTH"):
            return b":1\r\n" if words[0].upper() == b"CLIENT" else b"+PONG\r\n"
        return b"-READONLY You can't write against a read only replica.\r\n"
    fake_case(bench, answer, "READONLY")


def case_quoted_words(bench):
    """A server that does not know a command quotes its words: a password is not to be logged."""
    def answer(words):
        if words[0].upper() != b"AUTH":
            return b"+OK\r\n"
        return b"-ERR unknown command 'AUTH', with args beginning with: 's3cret' \r\n"
    server = FakeServer(answer)
    worker = bench.start_worker("--redis-url", f"redis://:s3cret@127.0.0.1:{server.port}")
    assert worker.wait(timeout=30) == 69
    assert "unknown command 'AUTH'" in bench.log() and "s3cret" not in bench.log()


def main():
    binary, only = sys.argv[1], sys.argv[2:]
    return run_cases(find_cases(globals()), only, lambda name: Bench(binary))


if __name__ == "__main__":
    sys.exit(main())
