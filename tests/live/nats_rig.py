"""A private nats-server with JetStream and workers on it, for the tests in Python.

The client here is not the library that the worker uses: it speaks the protocol as it is documented,
so that a fault of the library shows.
"""
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import msgpack

from cases import find_cases, run_cases
from check_embed import find_model
from ports import free_port


class NatsError(Exception):
    """What a server answers, or that it does not."""


class Message:
    def __init__(self, subject, reply, headers, data, status):
        self.subject, self.reply, self.headers = subject, reply, headers
        self.data, self.status = data, status


def wait_for(what, ready, seconds=30):
    deadline = time.monotonic() + seconds
    last = ""
    while True:
        try:
            if ready():
                return
            last = ""
        except (NatsError, OSError) as error:
            last = f": {error!r}"
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s{last}")
        time.sleep(0.05)


def read_headers(head):
    """The headers and the status of a message."""
    lines = head.decode(errors="surrogateescape").split("\r\n")
    first, pairs = lines[0].split(), [line.partition(":") for line in lines[1:] if ":" in line]
    return ({name: value.strip() for name, _, value in pairs},
            int(first[1]) if len(first) > 1 else 0)


class Client:
    """One connection, blocking, without a thread."""

    def __init__(self, port, timeout=5, **login):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.file = self.socket.makefile("rb")
        self.errors, self.waiting, self.n = [], [], 0
        self.info = json.loads(self.file.readline()[5:])
        options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True,
                   "name": "test", "lang": "python", "version": "1", "protocol": 1, **login}
        self.send(f"CONNECT {json.dumps(options)}\r\nPING\r\n".encode())
        self.inbox = "_INBOX." + os.urandom(8).hex()
        self.send(f"SUB {self.inbox}.* 1\r\n".encode())
        self.sid = 1

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def publish(self, subject, data=b"", reply="", headers=None):
        data = data.encode() if isinstance(data, str) else data
        if headers is None:
            self.send(f"PUB {subject} {reply} {len(data)}\r\n".encode() + data + b"\r\n")
            return
        pairs = headers.items() if isinstance(headers, dict) else headers
        head = b"NATS/1.0\r\n" + b"".join(
            name.encode() + b": " + (value if isinstance(value, bytes) else str(value).encode()) +
            b"\r\n" for name, value in pairs) + b"\r\n"
        self.send(f"HPUB {subject} {reply} {len(head)} {len(head) + len(data)}\r\n".encode() +
                  head + data + b"\r\n")

    def subscribe(self, subject):
        self.sid += 1
        self.send(f"SUB {subject} {self.sid}\r\n".encode())

    def next(self, may_wait=True):
        """The next message of any subscription; those that came while an answer was waited for
        first."""
        if may_wait and self.waiting:
            return self.waiting.pop(0)
        while True:
            line = self.file.readline().decode(errors="replace")
            if not line:
                raise NatsError(f"closed {self.errors}")
            word, *rest = line.split()
            if word == "PING":
                self.send(b"PONG\r\n")
            elif word == "-ERR":
                self.errors.append(line[5:].strip())
            elif word in ("MSG", "HMSG"):
                return self.read_message(word == "HMSG", rest)

    def read_message(self, has_headers, words):
        sizes = [int(word) for word in words[-2 if has_headers else -1:]]
        subject, reply = words[0], words[2] if len(words) - len(sizes) > 2 else ""
        whole = self.file.read(sizes[-1] + 2)[:-2]
        headers, status = read_headers(whole[:sizes[0]] if has_headers else b"")
        return Message(subject, reply, headers, whole[sizes[0] if has_headers else 0:], status)

    def ask(self, subject, data=b"", headers=None):
        self.n += 1
        reply = f"{self.inbox}.{self.n}"
        self.publish(subject, data, reply, headers)
        while True:
            message = self.next(False)
            if message.subject == reply:
                return message
            self.waiting.append(message)

    def api(self, what, **request):
        answer = self.ask(f"$JS.API.{what}", json.dumps(request) if request else b"")
        if answer.status:
            raise NatsError(f"{what}: {answer.status}")
        out = json.loads(answer.data)
        if "error" in out:
            raise NatsError(f"{what}: {out['error']}")
        return out

    def add(self, subject, data, headers=None):
        """Publish and see that it is stored."""
        answer = self.ask(subject, data, headers)
        if answer.status or b'"error"' in answer.data:
            raise NatsError(f"{subject}: {answer.status} {answer.data!r}")
        return json.loads(answer.data)

    def make_stream(self, name, *subjects, **config):
        return self.api(f"STREAM.CREATE.{name}", name=name, subjects=subjects or [name],
                        **{"storage": "file", "num_replicas": 1, **config})

    def messages(self, stream):
        """All that a stream holds, in order; each with its sequence."""
        state = self.api(f"STREAM.INFO.{stream}")["state"]
        out = []
        for sequence in range(state["first_seq"], state["last_seq"] + 1):
            answer = json.loads(self.ask(f"$JS.API.STREAM.MSG.GET.{stream}",
                                         json.dumps({"seq": sequence})).data)
            if "error" not in answer:
                found = answer["message"]
                headers, _ = read_headers(base64.b64decode(found.get("hdrs", "")))
                message = Message(found["subject"], "", headers,
                                  base64.b64decode(found.get("data", "")), 0)
                message.sequence = sequence
                out.append(message)
        return out

    def consumer(self, stream="texts", name="embedmill"):
        return self.api(f"CONSUMER.INFO.{stream}.{name}")


def server_version(program):
    return subprocess.run([program, "--version"], capture_output=True, text=True,
                          check=True).stdout.split()[-1]


class Bench:
    """A folder, a nats-server, workers; all gone at the end."""

    def __init__(self, binary, program="nats-server"):
        self.binary, self.model, self.program = binary, find_model(), program
        self.version = server_version(program)
        self.folder = tempfile.mkdtemp(prefix="embedmill-test-")
        self.port = free_port()
        self.processes = []
        self.server = None
        self.connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        shutil.rmtree(self.folder)

    def configure(self, text=""):
        with open(os.path.join(self.folder, "nats.conf"), "w", encoding="utf-8") as f:
            f.write(f"listen: 127.0.0.1:{self.port}\n"
                    f"jetstream {{ store_dir: {self.folder}/store }}\n{text}\n")

    def start_server(self, config=None, wait=True):
        if config is not None or not os.path.exists(os.path.join(self.folder, "nats.conf")):
            self.configure(config or "")
        self.connection = None
        with open(os.path.join(self.folder, "log-server"), "ab") as log:
            self.server = subprocess.Popen([self.program, "-c", f"{self.folder}/nats.conf"],
                                           stdout=log, stderr=log)
        self.processes.append(self.server)
        wait_for("nats-server answering" if wait else "nats-server listening",
                 (lambda: self.client().api("INFO")) if wait else self.is_listening)

    def kill_server(self):
        self.server.kill()
        self.server.wait()
        self.connection = None

    def reload(self, config):
        self.configure(config)
        self.server.send_signal(signal.SIGHUP)

    def is_listening(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def client(self, **login):
        """A connection; the same one when nothing is said of who logs in."""
        if login:
            return Client(self.port, **login)
        if self.connection is None:
            self.connection = Client(self.port)
        return self.connection

    def make_streams(self, client=None, **config):
        client = client or self.client()
        client.make_stream("texts", **config)
        client.make_stream("texts-embeddings")
        client.make_stream("texts-dlq")

    def words(self, port=None):
        return ["--nats-url", f"nats://127.0.0.1:{port or self.port}"]

    def environment(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL_")}
        env["EMBEDMILL_CACHE_MEMORY"] = "0"  # texts repeat, and are to be work each time
        return env

    def start_worker(self, *extra, name="w", port=None, ends=("nats", "nats")):
        log = open(os.path.join(self.folder, f"log-{name}"), "ab")
        worker = subprocess.Popen(
            [self.binary, "run", "--source", ends[0], "--sink", ends[1], "--model", self.model,
             "--prompt", "none", "--threads", "1", *self.words(port), "--nats-ack-wait", "2s",
             "--nats-timeout", "1s", "--log-format", "json", *extra],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment())
        self.processes.append(worker)
        return worker

    def run(self, *words, code=0, stdin=None):
        done = subprocess.run([self.binary, *words], input=stdin, capture_output=True, text=True,
                              timeout=120, env=self.environment(), check=False)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def log(self, name="w"):
        with open(os.path.join(self.folder, f"log-{name}"), encoding="utf-8") as f:
            return f.read()

    def add(self, first, n, subject="texts", client=None):
        client = client or self.client()
        for i in range(first, first + n):
            client.add(subject, json.dumps({"id": str(i), "text": f"text number {i}"}),
                       {"color": "blue"})

    def outs(self, client=None):
        return [msgpack.unpackb(m.data) for m in (client or self.client()).messages(
            "texts-embeddings")]

    def ids(self, client=None):
        return [out["id"] for out in self.outs(client)]

    def wait_done(self, seconds=60, client=None):
        """Nothing waits and nothing is in hand."""
        def is_done():
            asked = client or self.client()
            found, stream = asked.consumer(), asked.api("STREAM.INFO.texts")["state"]
            # Of a consumer that was just made 2.15 says at times that nothing waits for it.
            has_begun = found["delivered"]["stream_seq"] >= stream["last_seq"]
            return ((has_begun or not stream["messages"]) and not found["num_pending"] and
                    not found["num_ack_pending"])
        wait_for("nothing pending", is_done, seconds)

    def expect(self, n, seconds=60, once=True, client=None):
        self.wait_done(seconds, client)
        ids = self.ids(client)
        assert set(ids) == {str(i) for i in range(n)}, sorted(ids, key=int)
        assert not once or len(ids) == n, f"{len(ids) - n} doubled"

    def stop(self, worker, code=0):
        worker.send_signal(signal.SIGTERM)
        got = worker.wait(timeout=30)
        assert got == code, f"exit code {got}, expected {code}"


def run_all(module, words):
    """The cases of a test, each on a server of its own. words: EMBEDMILL [--server PROGRAM] [CASE
    ...]."""
    binary, only, program = words[0], words[1:], "nats-server"
    if only[:1] == ["--server"]:
        program, only = only[1], only[2:]
    version = server_version(program)
    return run_cases(find_cases(module), only, lambda name: Bench(binary, program),
                     f" on {version}")
