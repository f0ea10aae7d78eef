"""A private rabbitmq-server and workers on it, for the tests in Python; all gone at the end."""
import os
import shutil
import signal
import subprocess
import tempfile
import time

import msgpack
import pika

from cases import find_cases, run_cases, shared
from check_embed import find_model
from ports import free_ports

PROGRAMS = "/usr/lib/rabbitmq/bin"


def wait_for(what, ready, seconds=30):
    deadline = time.monotonic() + seconds
    last = ""
    while True:
        try:
            if ready():
                return
            last = ""
        except (pika.exceptions.AMQPError, OSError) as error:
            last = f": {error!r}"
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s{last}")
        time.sleep(0.1)


class Bench:
    """A folder, a rabbitmq-server, workers; all gone at the end. conf: lines of rabbitmq.conf, in
    which {folder} and {tls_port} may stand."""

    def __init__(self, binary, conf=None, plugins=()):
        self.binary, self.model = binary, find_model()
        self.folder = tempfile.mkdtemp(prefix="embedmill-test-")
        first = free_ports(6)
        (self.port, self.dist, self.epmd, self.management, self.metrics,
         self.tls_port) = range(first, first + 6)
        self.url = f"amqp://127.0.0.1:{self.port}"
        self.processes, self.workers, self.server, self.connection = [], [], None, None
        self.declared = 0 # when a queue was, last
        self.env = {
            "PATH": os.environ["PATH"], "HOME": self.folder, "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": f"embedmill{first}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.dist), "ERL_EPMD_PORT": str(self.epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": f"{self.folder}/data",
            "RABBITMQ_LOG_BASE": f"{self.folder}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self.folder}/plugins",
            "RABBITMQ_CONFIG_FILE": f"{self.folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            # One scheduler that sleeps when it has nothing to do: other tests run beside it.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
        conf = {"management.tcp.port": self.management, "management.tcp.ip": "127.0.0.1",
                "vm_memory_high_watermark.absolute": "512MB", "disk_free_limit.absolute": "1MB",
                "log.file.level": "info", **(conf or {})}
        with open(f"{self.folder}/rabbitmq.conf", "w", encoding="utf-8") as f:
            f.writelines(f"{name} = {value}\n".format(folder=self.folder, tls_port=self.tls_port)
                         for name, value in conf.items())
        with open(f"{self.folder}/plugins", "w", encoding="utf-8") as f:
            f.write(f"[{','.join(('rabbitmq_management', *plugins))}].\n")
        with open(f"{self.folder}/.erlang.cookie", "w", encoding="utf-8") as f:
            f.write("embedmill")
        os.chmod(f"{self.folder}/.erlang.cookie", 0o400)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                if process is self.server:
                    self.signal_server(signal.SIGKILL)
                process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- the server

    def start_server(self, wait=True):
        log = open(f"{self.folder}/server", "ab")
        if not self.server:
            # Else Erlang starts one that outlives it.
            self.processes.append(subprocess.Popen(["epmd"], env=self.env, stdout=log, stderr=log))
        self.server = subprocess.Popen([f"{PROGRAMS}/rabbitmq-server"], env=self.env, stdout=log,
                                       stderr=log, stdin=subprocess.DEVNULL,
                                       start_new_session=True)
        self.processes.append(self.server)
        if wait:
            wait_for("rabbitmq-server answering", self.connect, 120)

    def signal_server(self, number):
        """To the scripts and the virtual machine alike."""
        os.killpg(self.server.pid, number)

    def kill_server(self):
        # Of a quorum queue that was declared less than two seconds before, RabbitMQ loses all
        # messages, and it is never usable again: findings/rabbitmq-killed-after-declare.sh.
        time.sleep(max(0, self.declared + 5 - time.monotonic()))
        self.signal_server(signal.SIGKILL)
        self.server.wait()

    def ctl(self, *words):
        run = subprocess.run([f"{PROGRAMS}/rabbitmqctl", "-n", self.env["RABBITMQ_NODENAME"], "-q",
                              *words], env=self.env, capture_output=True, text=True, timeout=90,
                             check=False, stdin=subprocess.DEVNULL)
        assert run.returncode == 0, (words, run.stdout, run.stderr)
        return run.stdout

    # ---- a client of the test

    def connect(self):
        if self.connection and self.connection.is_open:
            try:
                self.connection.close()
            except pika.exceptions.AMQPError:
                pass
        self.connection = pika.BlockingConnection(pika.ConnectionParameters(
            host="127.0.0.1", port=self.port, heartbeat=0, blocked_connection_timeout=60,
            socket_timeout=10))
        return True

    @property
    def channel(self):
        """A fresh one: a refusal closes a channel."""
        try:
            return self.connection.channel()
        except (pika.exceptions.AMQPError, AttributeError):
            self.connect()
            return self.connection.channel()

    def declare(self, *names, kind="quorum", **arguments):
        channel = self.channel
        for name in names:
            channel.queue_declare(name, durable=True, arguments={
                "x-queue-type": kind, **{f"x-{k.replace('_', '-')}": v
                                         for k, v in arguments.items()}})
        channel.close()
        self.declared = time.monotonic()

    def add(self, first, n, queue="texts", **properties):
        channel = self.channel
        channel.confirm_delivery()
        for i in range(first, first + n):
            channel.basic_publish("", queue, f"text number {i}".encode(), pika.BasicProperties(
                message_id=str(i), delivery_mode=2, headers={"color": "blue"}, **properties))
        channel.close()

    def length(self, queue):
        channel = self.channel
        n = channel.queue_declare(queue, passive=True).method.message_count
        channel.close()
        return n

    def take(self, queue, n=10000):
        """[(method, properties, body)], taken off."""
        channel, found = self.channel, []
        while len(found) < n:
            method, properties, body = channel.basic_get(queue, auto_ack=True)
            if method is None:
                break
            found.append((method, properties, body))
        channel.close()
        return found

    def outputs(self, queue="texts-embeddings"):
        """id: [properties, output] of what came out, and how many there were."""
        found, n = {}, 0
        for _, properties, body in self.take(queue):
            output = msgpack.unpackb(body)
            assert str(output["id"]) == properties.message_id, (output["id"], properties)
            if output["id"] in found:
                assert found[output["id"]][1]["embedding"] == output["embedding"], output["id"]
            found[output["id"]] = (properties, output)
            n += 1
        return found, n

    def unacked(self, queue):
        for line in self.ctl("list_queues", "name", "messages_unacknowledged",
                             "--no-table-headers").splitlines():
            name, n = line.split("\t")
            if name == queue:
                return int(n)
        raise AssertionError(queue)

    # ---- workers

    def environment(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL_")}
        env["EMBEDMILL_CACHE_MEMORY"] = "0"  # texts repeat, and are to be work each time
        return env

    def start_worker(self, *extra, name="w", url=None):
        log = open(os.path.join(self.folder, f"log-{name}"), "ab")
        worker = subprocess.Popen(
            [self.binary, "run", "--source", "rabbitmq", "--sink", "rabbitmq", "--model",
             self.model, "--prompt", "none", "--threads", "1", "--rabbitmq-url", url or self.url,
             "--rabbitmq-timeout", "2s", "--log-format", "json", *extra],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment())
        self.processes.append(worker)
        self.workers.append(worker)
        return worker

    def run(self, *words, code=0, timeout=60):
        run = subprocess.run([self.binary, *words], capture_output=True, env=self.environment(),
                             check=False, timeout=timeout, stdin=subprocess.DEVNULL, text=True)
        assert run.returncode == code, (words, run.returncode, run.stdout, run.stderr)
        return run

    def log(self, name="w"):
        with open(os.path.join(self.folder, f"log-{name}"), encoding="utf-8") as f:
            return f.read()

    def end_workers(self):
        for process in self.processes:
            if process in self.workers and process.poll() is None:
                process.kill()
                process.wait()

    def stop(self, worker, code=0):
        worker.send_signal(signal.SIGTERM)
        got = worker.wait(timeout=40)
        assert got == code, f"exit code {got}, expected {code}"


def run_all(module, binary, only):
    """The cases of a test, on one server."""
    with Bench(binary) as bench:
        bench.start_server()
        return run_cases(find_cases(module), only, shared(bench, end=bench.end_workers))
