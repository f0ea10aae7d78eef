"""A private Apache Kafka and workers on it, for the tests in Python; all gone at the end."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import msgpack
from confluent_kafka import (OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer,
                             TopicPartition)

from check_embed import find_model
from ports import free_ports

HERE = os.path.dirname(os.path.abspath(__file__))
KAFKA_LOCAL = os.path.join(HERE, "..", "..", "scripts", "kafka-local")
# A worker that was killed is missed after three seconds, not after 45.
QUICK = ("-X", "session.timeout.ms=3000", "-X", "heartbeat.interval.ms=1000")
# Few and of one or two tokens: texts that are the same in a batch are embedded once, so that what
# is tested here is the way of messages and not the speed of this machine.
TEXTS = ["ferry", "Brücke", "mercado", "поезд", "図書館", "eggs", "noon", "river", "a", "b", "c",
         "d"]


def wait_for(what, ready, seconds=45):
    deadline = time.monotonic() + seconds
    last = None
    while True:
        try:
            if ready():
                return
        except KafkaException as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s {last or ''}")
        time.sleep(0.1)


class Bench:
    """A folder, a cluster, workers; all gone at the end. name: of what runs now, in every topic."""

    def __init__(self, binary):
        self.binary, self.model = binary, find_model()
        self.folder = tempfile.mkdtemp(prefix="embedmill-kafka-")
        self.port = free_ports(3, 10)
        self.workers, self.name, self.addresses = [], "t", {}
        self.n_started = 0

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)) # through __exit__
        return self

    def __exit__(self, *_):
        self.kill_workers()
        self.kafka("stop", "--wipe")
        shutil.rmtree(self.folder)

    def kafka(self, *words):
        run = subprocess.run([KAFKA_LOCAL, "--data", os.path.join(self.folder, "kafka"), "--port",
                              str(self.port), *words], capture_output=True, text=True, check=False)
        if run.returncode:
            raise AssertionError(f"kafka-local {words}: {run.stderr}")
        return run.stdout

    def start_kafka(self, *words):
        lines = self.kafka("start", "--wait", "120", *words).splitlines()
        self.addresses = dict(line.split("=", 1) for line in lines)

    # ---- one case

    def begin(self, name):
        """What follows has topics, group and logs of its own."""
        self.kill_workers()
        self.name = name.replace("_", "-")
        self.n_started = 0

    def topic(self, suffix):
        return f"{self.name}-{suffix}"

    @property
    def group(self):
        return f"{self.name}-group"

    def make_topics(self, partitions=4, out_config=(), dlq_config=()):
        self.kafka("topic", self.topic("in"), str(partitions))
        self.kafka("topic", self.topic("out"), "2", *out_config)
        self.kafka("topic", self.topic("dlq"), "1", *dlq_config)

    def client(self, **config):
        return {"bootstrap.servers": self.addresses["BOOTSTRAP"], "log_level": 0,
                "error_cb": lambda error: None, **config}

    def producer(self, **config):
        return Producer(self.client(**{"enable.idempotence": True, "linger.ms": 5, **config}))

    def send(self, rows, topic=None):
        """rows: dicts of key, value, headers, timestamp, partition."""
        producer = self.producer()
        for row in rows:
            producer.produce(topic or self.topic("in"), **row)
        assert producer.flush(60) == 0, "not all was produced"

    def send_texts(self, first, n):
        self.send([text_row(i) for i in range(first, first + n)])

    def read(self, suffix="out", committed=True):
        """All messages of a topic, as a reader of that isolation sees them now."""
        topic = self.topic(suffix)
        reader = Consumer(self.client(**{
            "group.id": "reader", "enable.auto.commit": False, "enable.partition.eof": True,
            "isolation.level": "read_committed" if committed else "read_uncommitted"}))
        parts = reader.list_topics(topic, timeout=30).topics[topic].partitions
        reader.assign([TopicPartition(topic, i, OFFSET_BEGINNING) for i in parts])
        messages, ends, deadline = [], set(), time.monotonic() + 60
        while len(ends) < len(parts):
            assert time.monotonic() < deadline, f"{topic} cannot be read to its end"
            message = reader.poll(1)
            if message is None:
                continue
            if not message.error():
                messages.append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ends.add(message.partition())
        reader.close()
        return messages

    def offsets(self, suffix="in"):
        """[(committed by the group or the beginning, end)] of the input's partitions."""
        reader = Consumer(self.client(**{"group.id": self.group}))
        topic = self.topic(suffix)
        parts = reader.list_topics(topic, timeout=30).topics[topic].partitions
        found = []
        # The transaction of a worker that was killed hides them until it is over.
        for part in reader.committed([TopicPartition(topic, i) for i in parts], timeout=90):
            low, high = reader.get_watermark_offsets(part, timeout=10)
            found.append((max(part.offset, low), high))
        reader.close()
        return found

    def committed(self):
        return sum(offset for offset, _ in self.offsets())

    def lag(self, suffix="in"):
        return sum(end - offset for offset, end in self.offsets(suffix))

    def wait_lag_0(self, seconds=60, suffix="in"):
        wait_for("lag 0", lambda: self.lag(suffix) == 0, seconds)

    # ---- workers

    def start_worker(self, *extra, addresses=None):
        self.n_started += 1
        log = open(self.log_file(self.n_started), "ab")
        env = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL_")}
        env["EMBEDMILL_CACHE_MEMORY"] = "0"  # texts repeat, and are to be work each time
        worker = subprocess.Popen(
            [self.binary, "run", "--model", self.model, "--prompt", "none", "--threads", "1",
             "--source", "kafka", "--sink", "kafka",
             "--kafka-brokers", addresses or self.addresses["BOOTSTRAP"],
             "--kafka-topic", self.topic("in"), "--kafka-group", self.group,
             "--kafka-output-topic", self.topic("out"),
             "--kafka-dead-letter-topic", self.topic("dlq"), "--log-format", "json",
             *QUICK, *extra], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        log.close()
        worker.number = self.n_started
        self.workers.append(worker)
        return worker

    def dlq(self, *words):
        run = subprocess.run(
            [self.binary, "dlq", words[0], "--source", "kafka", "--sink", "kafka",
             "--kafka-brokers", self.addresses["BOOTSTRAP"], "--kafka-topic", self.topic("in"),
             "--kafka-output-topic", self.topic("out"),
             "--kafka-dead-letter-topic", self.topic("dlq"), *words[1:]],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stderr
        return run.stdout

    def doctor(self, *extra):
        """(exit code, {what: (result, said)} of the cluster)"""
        run = subprocess.run(
            [self.binary, "doctor", "--json", "--model", self.model, "--source", "kafka",
             "--sink", "kafka", "--kafka-brokers", self.addresses["BOOTSTRAP"], "--kafka-topic",
             self.topic("in"), "--kafka-group", self.group, "--kafka-output-topic",
             self.topic("out"), "--kafka-dead-letter-topic", self.topic("dlq"), *extra],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
        rows = {f["what"]: (f["result"], f["said"]) for f in json.loads(run.stdout)["findings"]
                if f["area"] == "kafka"}
        return run.returncode, rows

    def log_file(self, number):
        return os.path.join(self.folder, f"log-{self.name}-{number}")

    def log(self, number=1):
        with open(self.log_file(number), encoding="utf-8") as f:
            return f.read()

    def stop(self, worker, code=0):
        worker.send_signal(signal.SIGTERM)
        got = worker.wait(timeout=60)
        assert got == code, f"exit code {got}, expected {code}\n{self.log(worker.number)[-3000:]}"

    def kill(self, worker):
        worker.kill()
        worker.wait()

    def kill_workers(self):
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
        self.workers = []

    # ---- what must have come out

    def reference(self):
        """The vectors of TEXTS, from the same program without a broker."""
        run = subprocess.run([self.binary, "embed", "--model", self.model, "--prompt", "none",
                              "--threads", "1", "--format", "msgpack"], check=True,
                             input="".join(text + "\n" for text in TEXTS).encode(),
                             capture_output=True, timeout=120)
        unpacker = msgpack.Unpacker()
        unpacker.feed(run.stdout)
        return [out["embedding"] for out in unpacker]

    def counts(self, messages, n, vectors):
        """Doubled, lost, strangers, wrong vectors: of ids 0 to n."""
        seen, wrong = {}, 0
        for message in messages:
            out = msgpack.unpackb(message.value())
            seen[out["id"]] = seen.get(out["id"], 0) + 1
            wrong += out["embedding"] != vectors[out["id"] % len(TEXTS)]
        return {"in": n, "out": sum(seen.values()),
                "doubled": sum(count - 1 for count in seen.values()),
                "lost": sum(i not in seen for i in range(n)),
                "strangers": sum(not 0 <= i < n for i in seen), "wrong": wrong}


def text_row(i):
    return {"key": f"key-{i}", "headers": [("n", str(i).encode())],
            "value": json.dumps({"id": i, "text": TEXTS[i % len(TEXTS)]})}


def poison_row(i):
    """What becomes a dead letter: as it is, only when it is cut, only when it is given a key."""
    return ({"key": f"poison-{i}", "value": b"\x81"},
            {"key": f"poison-{i}-" + "K" * 1048000, "value": "a text"},
            {"value": b"\x81%d" % i})[i % 3]


class Feeder(threading.Thread):
    """Puts ids on the input at a steady rate until it is told to end; n: how many there are. After
    each fortieth comes a poison_row, n_poison in all."""

    def __init__(self, bench, rate):
        super().__init__(daemon=True)
        self.bench, self.rate, self.n, self.n_poison = bench, rate, 0, 0
        self.ending, self.failure = threading.Event(), None
        self.start()

    def run(self):
        producer = self.bench.producer(**{"message.max.bytes": 2000000})
        topic = self.bench.topic("in")
        began = time.monotonic()
        while not self.ending.wait(0.02):
            while self.n < (time.monotonic() - began) * self.rate:
                producer.produce(topic, **text_row(self.n))
                self.n += 1
                if self.n % 40 == 0:
                    producer.produce(topic, **poison_row(self.n_poison))
                    self.n_poison += 1
            producer.poll(0)
        self.failure = producer.flush(120)

    def end(self):
        self.ending.set()
        self.join()
        assert self.failure == 0, "not all of the input was taken by Kafka"
        return self.n
