"""A private redis-server and workers on it, for the tests in Python; all gone at the end."""
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import msgpack
import redis

from check_embed import find_model
from ports import free_port


def wait_for(what, ready, seconds=30):
    deadline = time.monotonic() + seconds
    last = ""
    while True:
        try:
            if ready():
                return
            last = ""
        except redis.exceptions.RedisError as error:
            last = f": {error}"
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s{last}")
        time.sleep(0.05)


def has_tls():
    """Was this redis-server built with TLS? Either way it ends: it lacks TLS or a certificate."""
    tried = subprocess.run(["redis-server", "--port", "0", "--tls-port", str(free_port())],
                           capture_output=True, text=True, check=False, timeout=30)
    return "finding TLS support" not in tried.stdout + tried.stderr


class Bench:
    """A folder, a redis-server, workers; all gone at the end."""

    def __init__(self, binary):
        self.binary, self.model = binary, find_model()
        self.folder = tempfile.mkdtemp(prefix="embedmill-test-")
        self.port = free_port()
        self.processes = []
        self.server = None
        self.client = redis.Redis(port=self.port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        shutil.rmtree(self.folder)

    def start_server(self, *extra, wait=True, program="redis-server"):
        self.server = subprocess.Popen(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder,
             "--save", "", "--appendonly", "yes", "--appendfsync", "no", *extra],
            stdout=subprocess.DEVNULL)
        self.processes.append(self.server)
        if wait:
            wait_for("redis-server answering", self.client.ping)
        else:
            wait_for("redis-server listening", self.is_listening)

    def is_listening(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def start_worker(self, *extra, name="w", port=None, model=None):
        env = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL_")}
        env["EMBEDMILL_CACHE_MEMORY"] = "0"  # texts repeat, and are to be work each time
        log = open(os.path.join(self.folder, f"log-{name}"), "ab")
        worker = subprocess.Popen(
            [self.binary, "run", "--model", model or self.model, "--prompt", "none",
             "--threads", "1", "--redis-url", f"redis://127.0.0.1:{port or self.port}",
             "--redis-consumer", name,
             "--redis-claim-idle", "1s", "--redis-timeout", "1s", "--log-format", "json", *extra],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        self.processes.append(worker)
        return worker

    def dlq(self, *words):
        run = subprocess.run([self.binary, "dlq", words[0], "--redis-url",
                              f"redis://127.0.0.1:{self.port}", *words[1:]], check=True,
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        return run.stdout

    def log(self, name="w"):
        with open(os.path.join(self.folder, f"log-{name}"), encoding="utf-8") as f:
            return f.read()

    def add(self, first, n, stream="texts"):
        for i in range(first, first + n):
            self.client.xadd(stream, {"text": f"text number {i}", "id": str(i), "color": "blue"})

    def ids(self):
        return [msgpack.unpackb(fields[b"body"])["id"]
                for _, fields in self.client.xrange("texts:embeddings")]

    def expect_once(self, n, seconds=40):
        wait_for(f"{n} embeddings", lambda: self.client.xlen("texts:embeddings") >= n, seconds)
        wait_for("nothing pending",
                 lambda: self.client.xpending("texts", "embedmill")["pending"] == 0, seconds)
        assert sorted(self.ids(), key=int) == [str(i) for i in range(n)], self.ids()

    def stop(self, worker, code=0):
        worker.send_signal(signal.SIGTERM)
        got = worker.wait(timeout=30)
        assert got == code, f"exit code {got}, expected {code}"
