#!/usr/bin/env python3
"""Faults of servers, workers and messages on a real nats-server, and what must be true after them.

Each case starts what it needs on a free port with its data in a temporary folder and stops it.

Usage: test_nats_faults.py EMBEDMILL [--server NATS-SERVER] [CASE ...]
"""
import json
import signal
import socket
import sys
import threading
import time
import urllib.request

import msgpack

from nats_rig import Client, NatsError, run_all, wait_for
from ports import free_port


def case_worker_frozen(bench):
    """A worker that stops for longer than ack_wait: another one does its messages, and what it
    writes when it comes back is not stored twice."""
    bench.start_server()
    bench.make_streams()
    frozen = bench.start_worker(name="frozen")
    wait_for("a start", lambda: "source is up" in bench.log("frozen"))
    bench.add(0, 300)
    wait_for("some outputs", lambda: len(bench.ids()) > 20)
    frozen.send_signal(signal.SIGSTOP)
    other = bench.start_worker(name="other")
    bench.expect(300, 60)
    frozen.send_signal(signal.SIGCONT)
    time.sleep(1)
    bench.expect(300)
    bench.stop(frozen)
    bench.stop(other)


def add_slow(bench):
    """A message that takes a worker many seconds."""
    texts = [f"text number {i} " + "and so on " * 200 for i in range(8)]
    bench.client().add("texts", json.dumps({"id": "m", "texts": texts}))


def case_slow_work(bench):
    """What takes longer than ack_wait is told to be under way: nobody else is given it."""
    bench.start_server()
    bench.make_streams()
    add_slow(bench)
    bench.add(0, 1)
    workers = [bench.start_worker("--nats-ack-wait", "3s", name=f"w{i}")
               for i in range(2)]
    bench.wait_done(120)
    assert sorted(map(str, bench.ids())) == ["0", "m"], bench.ids()
    info = bench.client().consumer()
    assert info["delivered"]["consumer_seq"] == 2, info
    for worker in workers:
        bench.stop(worker)


def case_server_frozen(bench):
    """A server that stops answering for seconds, under load, is waited for."""
    bench.start_server()
    bench.make_streams()
    worker = bench.start_worker()
    wait_for("a start", lambda: "source is up" in bench.log())
    bench.add(0, 400)
    for seconds in (3, 8):
        time.sleep(1)
        bench.server.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        bench.server.send_signal(signal.SIGCONT)
    bench.expect(400, 90)
    bench.stop(worker)


class Silence(threading.Thread):
    """Between a client and a server: passes all, or nothing and closes nothing, or resets."""

    def __init__(self, to):
        super().__init__(daemon=True)
        self.to, self.is_silent, self.pairs = to, False, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.to), 5)
            except OSError:
                client.close()
                continue
            self.pairs.append((client, server))
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self.copy, args=(one, other), daemon=True).start()

    def copy(self, one, other):
        try:
            while data := one.recv(65536):
                while self.is_silent:
                    time.sleep(0.05)
                other.sendall(self.change(data))
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def change(self, data):
        return data

    def reset(self):
        for client, _ in self.pairs:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        self.pairs = []


def case_network(bench):
    """Connections that are reset again and again, and one over which nothing passes for 20 s."""
    bench.start_server()
    bench.make_streams()
    proxy = Silence(bench.port)
    worker = bench.start_worker(port=proxy.port)
    wait_for("a start", lambda: "source is up" in bench.log())
    bench.add(0, 400)
    for _ in range(4):
        time.sleep(1)
        proxy.reset()
    bench.add(400, 200)
    time.sleep(1)
    proxy.is_silent = True
    time.sleep(20)
    proxy.is_silent = False
    bench.expect(600, 120)
    bench.stop(worker)


def case_server_away(bench):
    """Away for a minute: no message fails for it, and the worker does not spin."""
    bench.start_server()
    bench.make_streams()
    worker = bench.start_worker()
    wait_for("a start", lambda: "source is up" in bench.log())
    bench.add(0, 300)
    time.sleep(1)
    bench.kill_server()
    before = cpu_seconds(worker)
    time.sleep(60)
    spent = cpu_seconds(worker) - before
    bench.start_server()
    bench.expect(300, 90)
    assert spent < 10, f"{spent} s of CPU in a minute"
    bench.stop(worker)


def cpu_seconds(process):
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def case_drain_without_server(bench):
    """Acks that cannot be confirmed any more: exit code 75, and they are delivered again."""
    bench.start_server()
    bench.make_streams()
    worker = bench.start_worker("--drain-timeout", "3s")
    wait_for("a start", lambda: "source is up" in bench.log())
    bench.add(0, 300)
    wait_for("some outputs", lambda: len(bench.ids()) > 20)
    bench.server.send_signal(signal.SIGSTOP)
    bench.stop(worker, 75)
    bench.server.send_signal(signal.SIGCONT)
    worker = bench.start_worker(name="after")
    bench.expect(300, 60)
    bench.stop(worker)


def case_oversize(bench):
    """Outputs above the server's max_payload and above the stream's max_msg_size: dead letters, cut
    when they are too large themselves; the neighbours pass."""
    bench.start_server("max_payload: 64KB")
    client = bench.client()
    client.make_stream("texts")
    client.make_stream("texts-embeddings", max_msg_size=30000)
    client.make_stream("texts-dlq", max_msg_size=20000)
    bench.add(0, 20)
    client.add("texts", json.dumps({"id": "many", "texts": ["a"] * 12}))  # 37 KB
    client.add("texts", json.dumps({"id": "more", "texts": ["a"] * 40}))  # 123 KB
    client.add("texts", b"\x81" + b"x" * 50000)
    client.add("texts", b"\x81", {f"h{i}": "y" * 100 for i in range(300)})
    bench.add(20, 20)
    worker = bench.start_worker()
    bench.expect(40)
    letters = client.messages("texts-dlq")
    codes = [m.headers["_code"] for m in letters]
    assert codes == ["output_too_large"] * 2 + ["bad_msgpack"] * 2 or \
        sorted(codes) == sorted(["output_too_large"] * 2 + ["bad_msgpack"] * 2), codes
    cut = [m for m in letters if m.headers["_sequence"] in ("23", "24")]
    assert all("the first" in m.headers["_error"] or "header" in m.headers["_error"]
               for m in cut), [m.headers["_error"] for m in cut]
    bench.stop(worker)


def case_poison(bench):
    """A message that kills workers: the server counts deliveries, and it becomes a dead letter."""
    bench.start_server()
    bench.make_streams()
    add_slow(bench)
    bench.add(0, 5)
    seen = 0
    for _ in range(2):
        worker = bench.start_worker("--max-deliveries", "2", "--nats-ack-wait", "1s")
        wait_for("another delivery", lambda n=seen:
                 bench.client().consumer()["delivered"]["consumer_seq"] > n)
        worker.kill()
        worker.wait()
        time.sleep(1.2)  # what is delivered again comes before what is new
        seen = bench.client().consumer()["delivered"]["consumer_seq"]
    worker = bench.start_worker("--max-deliveries", "2", name="last")
    bench.wait_done()
    client = bench.client()
    letters = client.messages("texts-dlq")
    assert letters and all(m.headers["_code"] == "too_many_deliveries" for m in letters)
    dead = {json.loads(m.data)["id"] for m in letters}
    assert "m" in dead and dead | set(bench.ids()) == {"m", *map(str, range(5))}, dead
    bench.stop(worker)


class Answers(threading.Thread):
    """What a stream would answer on a subject, but for errors that no real one gives at will.
    errors: {id: error of JetStream}; "*" is for all."""

    def __init__(self, bench, subject, errors):
        super().__init__(daemon=True)
        self.client = Client(bench.port, timeout=None)
        self.client.subscribe(subject)
        self.errors, self.stored, self.refused = errors, [], 0
        self.start()

    def run(self):
        while True:
            try:
                message = self.client.next()
            except NatsError:
                return # the server is gone
            name = msgpack.unpackb(message.data)["id"]
            error = self.errors.get(name) or self.errors.get("*")
            if error:
                self.refused += 1
                answer = {"error": {**error, "description": "odd"}}
            else:
                self.stored.append(name)
                answer = {"stream": "other", "seq": len(self.stored)}
            self.client.publish(message.reply, json.dumps(answer))


def case_unknown_codes(bench):
    """An error that nobody knows, of one output: others pass, and it is a letter, whether the
    server calls it the sender's fault or its own."""
    bench.start_server()
    bench.make_streams()
    client = bench.client()
    answers = Answers(bench, "vectors", {"3": {"code": 400, "err_code": 99999},
                                         "5": {"code": 500, "err_code": 99998}})
    worker = bench.start_worker("--nats-output-subject", "vectors")
    n = 0
    while len(client.messages("texts-dlq")) < 2:
        assert n < 400 and worker.poll() is None, bench.log()
        bench.add(n, 10)
        n += 10
        time.sleep(0.3)
    bench.wait_done()
    letters = client.messages("texts-dlq")
    assert [m.headers["_code"] for m in letters] == ["output_refused"] * 2
    assert [word in m.headers["_error"] for m, word in zip(letters, ("99999", "99998"))], letters
    assert sorted(answers.stored + ["3", "5"], key=int) == [str(i) for i in range(n)]
    bench.stop(worker)


def case_crowd(bench):
    """More messages at fault than three workers have batches, one by one before the good ones:
    some by what they are, some by what the server says, which may be anybody's fault. Workers are
    killed meanwhile. All that is good comes out, the rest are letters, and nobody ends."""
    bench.start_server()
    bench.make_streams()
    client = bench.client()
    doubted = [f"doubted-{i}" for i in range(24)]
    bad = [f"bad-{i}" for i in range(24)]
    answers = Answers(bench, "vectors", {
        name: {"code": 400 if i % 2 else 500, "err_code": 99999} for i, name in enumerate(doubted)})
    extra = ("--nats-output-subject", "vectors", "--batch-texts", "16")
    workers = [bench.start_worker(*extra, name=f"w{i}") for i in range(3)]
    for name, other in zip(doubted, bad):
        client.add("texts", json.dumps({"id": name, "text": "a text"}))
        client.add("texts", json.dumps({"id": other, "text": 5}))
        wait_for("they are taken", lambda: client.consumer()["num_pending"] == 0)
    for i in range(1000):
        client.add("texts", json.dumps({"id": str(i), "text": f"text {i % 12}"}))
        if i % 250 == 200:
            assert all(worker.poll() is None for worker in workers)
            workers[i // 250 % 3].kill()
            workers[i // 250 % 3] = bench.start_worker(*extra, name=f"again-{i}")
        time.sleep(0.01)
    n = 1000
    while len(client.messages("texts-dlq")) < 48: # others have to pass
        assert n < 1400 and all(worker.poll() is None for worker in workers)
        client.add("texts", json.dumps({"id": str(n), "text": f"text {n % 12}"}))
        n += 1
        time.sleep(0.1)
    bench.wait_done()
    letters = {json.loads(m.data)["id"]: m.headers["_code"] for m in client.messages("texts-dlq")}
    assert letters == {**dict.fromkeys(doubted, "output_refused"),
                       **dict.fromkeys(bad, "bad_field")}, letters
    assert set(answers.stored) == {str(i) for i in range(n)}
    for worker in workers:
        bench.stop(worker)


def case_letters_pass(bench):
    """While all outputs are refused dead letters are taken, which proves nothing about outputs."""
    bench.start_server()
    bench.make_streams()
    client = bench.client()
    answers = Answers(bench, "vectors", {"*": {"code": 400, "err_code": 99999}})
    # Each output that waits keeps a batch of its own.
    worker = bench.start_worker("--nats-output-subject", "vectors", "--batches", "40")
    for i in range(15):
        bench.add(i, 1)
        client.add("texts", b"\x81")
        time.sleep(0.3)
    wait_for("the letters", lambda: len(client.messages("texts-dlq")) >= 15)
    time.sleep(3)
    assert {m.headers["_code"] for m in client.messages("texts-dlq")} == {"bad_msgpack"}
    assert answers.refused > 15 and "99999" in bench.log()
    answers.errors.clear()
    bench.wait_done()
    assert sorted(answers.stored, key=int) == [str(i) for i in range(15)]
    bench.stop(worker)


def case_status_header(bench):
    """A message without payload that has a header Status is a message, not a word of the server."""
    bench.start_server()
    bench.make_streams()
    client = bench.client()
    client.add("texts", b"", {"Status": "404"})
    bench.add(0, 3)
    worker = bench.start_worker()
    bench.wait_done()
    [letter] = client.messages("texts-dlq")
    assert letter.headers["_code"] in ("no_body", "empty_text"), letter.headers
    bench.expect(3)
    bench.stop(worker)


def case_last_delivery(bench):
    """A consumer with a max_deliver of its own gives nothing a third time: the second is the last,
    and not worked on."""
    bench.start_server()
    bench.make_streams()
    client = bench.client()
    client.api("CONSUMER.DURABLE.CREATE.texts.embedmill", stream_name="texts",
               config={"durable_name": "embedmill", "ack_policy": "explicit", "max_deliver": 2,
                       "ack_wait": 1000000000})
    bench.add(0, 1)
    client.publish("$JS.API.CONSUMER.MSG.NEXT.texts.embedmill", b"1", f"{client.inbox}.x")
    assert client.next().reply.startswith("$JS.ACK")
    worker = bench.start_worker()
    wait_for("a letter", lambda: len(client.messages("texts-dlq")) == 1)
    letter = client.messages("texts-dlq")[0]
    assert letter.headers["_code"] == "too_many_deliveries", letter.headers
    assert "max_deliver is 2" in letter.headers["_error"], letter.headers
    bench.wait_done()
    bench.stop(worker)


def users(*denied, publish=True):
    """A configuration in which the worker is a user who may not do some things."""
    rights = " ".join(f'"{subject}",' for subject in denied)
    side = "publish" if publish else "subscribe"
    return ('accounts { A { jetstream: enabled, users [ {user: admin, password: x}\n'
            '{user: mill, password: y, permissions { publish { deny: ['
            f'{rights if publish else ""}"nothing"] }}, subscribe {{ deny: ['
            f'{"" if publish else rights}"nothing"] }} }} }} ] }} }}\n# {side}')


def case_rights(bench):
    """Each right that is missing is named and waited for; nothing is lost when it is back."""
    bench.start_server(users(), wait=False)

    def admin():
        return bench.client(user="admin", **{"pass": "x"})
    client = admin()
    bench.connection = client
    bench.make_streams(client)
    n = 0
    worker = bench.start_worker("--nats-user", "mill", "--nats-password", "y")
    for denied, publish in (("$JS.API.CONSUMER.INFO.>", True), ("texts-embeddings", True),
                            ("$JS.API.CONSUMER.MSG.NEXT.>", True), ("$JS.ACK.>", True),
                            ("_INBOX.>", False)):
        bench.reload(users(denied, publish=publish))
        time.sleep(0.5)
        bench.connection = client = admin()
        bench.add(n, 3, client=client)
        n += 3
        word = denied.replace(".>", ".")
        before = len(bench.log())
        wait_for(f"{denied} in the log", lambda w=word: any(
            "Permissions Violation" in line and w in line for line in bench.log().splitlines()), 20)
        assert worker.poll() is None, bench.log()[before:]
        bench.reload(users())
        time.sleep(0.5)
        bench.connection = client = admin()
        bench.expect(n, 40, once=False, client=client)
    ids = bench.ids(client)
    assert len(ids) == n, (len(ids), n)
    bench.stop(worker)
    # The login itself: that ends the worker.
    worker = bench.start_worker("--nats-user", "mill", "--nats-password", "y", name="out")
    wait_for("a start", lambda: "source is up" in bench.log("out"))
    bench.reload(users().replace("password: y", "password: z"))
    assert worker.wait(timeout=30) == 69, bench.log("out")
    assert "Authorization Violation" in bench.log("out"), bench.log("out")


def delete_consumer(client):
    """2.9 deletes it and says that it could not when the worker makes it anew at that moment."""
    try:
        client.api("CONSUMER.DELETE.texts.embedmill")
    except NatsError as error:
        assert "directory not empty" in str(error), error


def case_streams_come_and_go(bench):
    """The consumer is deleted under the worker, then the stream; the output stream is full, then
    missing. Each is waited for or made anew."""
    bench.start_server()
    bench.make_streams()
    client = bench.client()
    worker = bench.start_worker()
    bench.add(0, 3)
    bench.expect(3)
    delete_consumer(client)
    wait_for("the consumer again", client.consumer)
    bench.add(3, 2)
    bench.expect(5, once=False)  # from the beginning; doubles within the window are dropped
    assert len(bench.ids()) == 5, bench.ids()
    client.api("STREAM.DELETE.texts")
    wait_for("the stream in the log", lambda: "nats stream add texts" in bench.log(), 20)
    client.make_stream("texts")
    bench.add(5, 2)
    bench.expect(7, once=False)
    config = client.api("STREAM.INFO.texts-embeddings")["config"]
    client.api("STREAM.UPDATE.texts-embeddings", **{**config, "max_msgs": 8, "discard": "new"})
    bench.add(7, 3)
    wait_for("full in the log", lambda: "maximum messages exceeded" in bench.log(), 20)
    client.api("STREAM.UPDATE.texts-embeddings", **config)
    bench.expect(10, once=False)
    bench.stop(worker)


def case_skipped(bench):
    """What the stream deletes before it was read is reported, once, and so is a consumer that was
    made anew."""
    bench.start_server()
    bench.make_streams(max_msgs=5)
    client = bench.client()
    bench.add(0, 3)
    worker = bench.start_worker()
    bench.expect(3)
    time.sleep(6)  # a look at the consumer
    worker.send_signal(signal.SIGSTOP)
    time.sleep(2.5)  # for its last request to be over
    bench.add(3, 20)  # 15 of which are deleted
    worker.send_signal(signal.SIGCONT)

    def told():
        return [json.loads(line) for line in bench.log().splitlines() if "messages skipped" in line]
    wait_for("the warning", told, 15)
    report, = told()
    assert report["code"] == "retention" and report["skipped"] == "15", report
    assert report["from"] == "4", report
    delete_consumer(client)
    wait_for("the consumer's", lambda: len(told()) == 2, 15)
    assert told()[1]["code"] == "group_deleted", told()
    bench.stop(worker)


def case_refused_requests(bench):
    """A consumer that lets one request wait, and that is another's: ours is made again at times,
    and not as fast as the server refuses it."""
    monitor = free_port()
    bench.start_server(f"http: 127.0.0.1:{monitor}")
    bench.make_streams()
    client = bench.client()
    client.api("CONSUMER.DURABLE.CREATE.texts.embedmill", stream_name="texts",
               config={"durable_name": "embedmill", "ack_policy": "explicit", "max_waiting": 1})
    client.publish("$JS.API.CONSUMER.MSG.NEXT.texts.embedmill",
                   b'{"batch": 1, "expires": 12000000000}', f"{client.inbox}.x")

    def n_in():
        with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/varz", timeout=5) as page:
            return json.load(page)["in_msgs"]
    worker = bench.start_worker()
    wait_for("a refusal", lambda: "Exceeded MaxWaiting" in bench.log())
    before = n_in()
    time.sleep(4)
    assert n_in() - before < 40, f"{n_in() - before} messages to the server in 4 s"
    other = Client(bench.port)
    bench.add(0, 5, client=other) # the first of which is the other's
    wait_for("the others", lambda: len(bench.ids(other)) == 4)
    bench.stop(worker)


class NoLeader(Silence):
    """While is_led is false, nobody listens where acks go."""

    def __init__(self, to):
        self.is_led = False
        super().__init__(to)

    def change(self, data):
        return data if self.is_led else data.replace(b"PUB $JS.ACK.", b"PUB $NO.ACK.")


def case_no_leader(bench):
    """While a cluster elects the leader of a consumer nobody listens for acks: they are sent again,
    and nothing is delivered again. When that lasts it is reported, until they are taken."""
    bench.start_server()
    bench.make_streams()
    proxy = NoLeader(bench.port)
    worker = bench.start_worker("--nats-ack-wait", "60s", port=proxy.port)
    bench.add(0, 20)
    wait_for("the outputs", lambda: len(bench.ids()) == 20)
    time.sleep(1)
    assert bench.client().consumer()["num_ack_pending"] == 20
    assert "nobody takes acks" not in bench.log()
    wait_for("a word", lambda: "nobody takes acks for consumer embedmill" in bench.log(), 15)
    n_up = bench.log().count("source is up")
    proxy.is_led = True
    bench.wait_done(20)
    assert bench.client().consumer()["delivered"]["consumer_seq"] == 20
    assert bench.log().count("source is up") == n_up + 1 and bench.log().count("nobody takes") == 1
    bench.stop(worker)


def case_purged_window(bench):
    """A stream remembers ids longer than messages. What was purged and comes again is stored."""
    bench.start_server()
    bench.make_streams()
    client = bench.client()
    bench.add(0, 5)
    worker = bench.start_worker()
    bench.expect(5)
    client.api("STREAM.PURGE.texts-embeddings")
    delete_consumer(client)
    wait_for("outputs again", lambda: len(bench.ids()) == 5, 20)
    bench.stop(worker)


def case_several_servers(bench):
    """The first of several URLs is not there; the one in use goes, another takes over with the same
    store."""
    other = free_port()
    bench.start_server()
    bench.make_streams()
    bench.add(0, 200)
    url = f"nats://127.0.0.1:{other},nats://127.0.0.1:{bench.port}"
    worker = bench.start_worker("--nats-url", url)
    wait_for("some outputs", lambda: len(bench.ids()) > 20)
    bench.kill_server()
    bench.port = other
    bench.start_server("")
    bench.expect(200, 60)
    bench.stop(worker)


if __name__ == "__main__":
    sys.exit(run_all(globals(), sys.argv[1:]))
