#!/usr/bin/env python3
"""From one broker into another broker or a store: NATS, RabbitMQ, Redis and Kafka into each other
(Redis and Kafka: test_kafka_live.py, test_kafka_refusals.py), RabbitMQ and NATS into PostgreSQL.
Two workers, one of them killed again and again, bad messages among the good. What
docs/reliability.md promises between any two: each input comes out at least once, and what comes
twice has the same message id and the same bytes.

Usage: test_crossings.py EMBEDMILL [CASE ...]
"""
import contextlib
import json
import os
import random
import subprocess
import sys

import msgpack
import pika

import kafka_bench
import nats_rig
import postgres_bench
import rabbitmq_bench
import redis_bench
from cases import run_cases
from redis_bench import wait_for

N, EVERY = 400, 40 # texts; one bad message after so many
TEXTS = kafka_bench.TEXTS
PARENTS = [f"00-{i:032x}-{i + 7:016x}-01" for i in range(1, N + N // EVERY + 1)] # of messages
BAD = (b"\x81", b'{"id": "bad"', b'{"id": "none"}') # bad_msgpack, bad_json, no_text


class Kafka:
    name = "kafka"

    def __init__(self, binary):
        self.bench = kafka_bench.Bench(binary)

    def start(self):
        self.bench.start_kafka()

    def begin(self, name):
        self.bench.begin(name)
        self.bench.make_topics()

    def words(self):
        topic = self.bench.topic
        return ["--kafka-brokers", self.bench.addresses["BOOTSTRAP"], "--kafka-topic", topic("in"),
                "--kafka-group", self.bench.group, "--kafka-output-topic", topic("out"),
                "--kafka-dead-letter-topic", topic("dlq"), *kafka_bench.QUICK]

    def send(self, messages):
        self.bench.send([{"key": f"key-{i}", "value": value,
                          "headers": [("traceparent", PARENTS[i])]} for i, value in messages])

    def is_done(self):
        return self.bench.lag() == 0

    def outputs(self):
        return [(m.key().decode(), msgpack.unpackb(m.value())) for m in self.bench.read()]

    def letters(self):
        return [(dict(m.headers())["_code"].decode(), m.value()) for m in self.bench.read("dlq")]


class Rabbit:
    name = "rabbitmq"

    def __init__(self, binary):
        self.bench = rabbitmq_bench.Bench(binary)

    def start(self):
        self.bench.start_server()

    def begin(self, name):
        self.case = name
        self.bench.declare(f"{name}-in", delivery_limit=100)
        self.bench.declare(f"{name}-out", f"{name}-dlq", kind="classic")

    def words(self):
        return ["--rabbitmq-url", self.bench.url, "--rabbitmq-queue", f"{self.case}-in",
                "--rabbitmq-output-queue", f"{self.case}-out", "--rabbitmq-dead-letter-queue",
                f"{self.case}-dlq", "--rabbitmq-timeout", "2s"]

    def send(self, messages):
        channel = self.bench.channel
        channel.confirm_delivery()
        for i, value in messages:
            channel.basic_publish("", f"{self.case}-in", value, pika.BasicProperties(
                message_id=f"key-{i}", delivery_mode=2, headers={"traceparent": PARENTS[i]}))
        channel.close()

    def is_done(self):
        queue = f"{self.case}-in"
        return self.bench.length(queue) == 0 and self.bench.unacked(queue) == 0

    def outputs(self):
        return [(properties.message_id, msgpack.unpackb(body))
                for _, properties, body in self.bench.take(f"{self.case}-out")]

    def letters(self):
        return [(properties.headers["_code"], body)
                for _, properties, body in self.bench.take(f"{self.case}-dlq")]


class Nats:
    name = "nats"

    def __init__(self, binary):
        self.bench = nats_rig.Bench(binary)

    def start(self):
        self.bench.start_server()

    def begin(self, name):
        self.case = name
        # A window as short as may be: what is promised beyond it is what any other stream gives.
        for end in ("in", "out", "dlq"):
            self.bench.client().make_stream(f"{name}-{end}", duplicate_window=100_000_000)

    def words(self):
        return ["--nats-url", f"nats://127.0.0.1:{self.bench.port}", "--nats-stream",
                f"{self.case}-in", "--nats-output-subject", f"{self.case}-out",
                "--nats-dead-letter-subject", f"{self.case}-dlq", "--nats-ack-wait", "2s",
                "--nats-timeout", "1s"]

    def send(self, messages):
        for i, value in messages:
            self.bench.client().add(f"{self.case}-in", value, {"traceparent": PARENTS[i]})

    def is_done(self):
        found = self.bench.client().consumer(f"{self.case}-in")
        return not found["num_pending"] and not found["num_ack_pending"]

    def outputs(self):
        return [(m.headers["Nats-Msg-Id"], msgpack.unpackb(m.data))
                for m in self.bench.client().messages(f"{self.case}-out")]

    def letters(self):
        return [(m.headers["_code"], m.data)
                for m in self.bench.client().messages(f"{self.case}-dlq")]


class Redis:
    name = "redis"

    def __init__(self, binary):
        self.bench = redis_bench.Bench(binary)

    def start(self):
        self.bench.start_server()

    def begin(self, name):
        self.case = name

    def words(self):
        return ["--redis-url", f"redis://127.0.0.1:{self.bench.port}", "--redis-stream",
                f"{self.case}-in", "--redis-output-stream", f"{self.case}-out",
                "--redis-dead-letters", f"{self.case}-dlq", "--redis-claim-idle", "1s",
                "--redis-timeout", "1s"]

    def send(self, messages):
        for i, value in messages:
            self.bench.client.xadd(f"{self.case}-in", {"body": value, "traceparent": PARENTS[i]})

    def is_done(self):
        [group] = self.bench.client.xinfo_groups(f"{self.case}-in")
        return not group["pending"] and group["lag"] == 0

    def entries(self, end):
        return [fields for _, fields in self.bench.client.xrange(f"{self.case}-{end}")]

    def outputs(self):
        """An entry has no id of its message; the place of its input stands for one."""
        outs = [msgpack.unpackb(fields[b"body"]) for fields in self.entries("out")]
        return [(out["source"], out) for out in outs]

    def letters(self):
        return [(fields[b"_code"].decode(), fields[b"body"]) for fields in self.entries("dlq")]


class Postgres:
    name = "postgres"

    def __init__(self, binary):
        self.binary = binary
        self.pg = postgres_bench.Postgres(postgres_bench.programs())

    def start(self):
        self.pg.create()
        self.pg.start()

    def begin(self, name):
        self.case = name.replace("-", "_")
        schema = subprocess.run([self.binary, "schema", "--sink", "postgres", "--dim", "128",
                                 "--postgres-table", self.case], capture_output=True, text=True,
                                check=True).stdout
        self.pg.sql(schema)

    def words(self):
        return ["--postgres-url", self.pg.url(), "--postgres-table", self.case]

    def outputs(self):
        return [(name, {"id": int(name), "embedding": embedding}) for name, embedding in
                self.pg.sql(f"SELECT id, embedding FROM {self.case}")]

    def letters(self):
        return [(code, bytes.fromhex(value)) for code, value in
                self.pg.sql(f"SELECT code, encode(value, 'hex') FROM {self.case}_dlq")]


class Crossing:
    """Workers between two ends, and what must have come out. folder: of their logs."""

    def __init__(self, binary, folder, source, sink):
        self.binary, self.folder, self.source, self.sink = binary, folder, source, sink
        self.model = nats_rig.find_model()
        self.workers = []

    def start_worker(self, i):
        path = os.path.join(self.folder, f"log-{self.source.name}-{self.sink.name}-{i}")
        log = open(path, "ab")
        self.spans = os.path.join(self.folder, f"spans-{self.source.name}-{self.sink.name}")
        env = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL_")}
        env["EMBEDMILL_CACHE_MEMORY"] = "0" # texts repeat, and are to be work each time
        worker = subprocess.Popen(
            [self.binary, "run", "--source", self.source.name, "--sink", self.sink.name, "--model",
             self.model, "--prompt", "none", "--threads", "1", "--dim", "128", "--batch-texts",
             "16", "--max-deliveries", "0", "--log-format", "json", "--trace-file", self.spans,
             *self.source.words(),
             *self.sink.words()], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        worker.log = path, log.tell()
        log.close()
        self.workers.append(worker)
        return worker

    @staticmethod
    def has_started(worker):
        """Before that a signal ends it at once."""
        path, at = worker.log
        with open(path, "rb") as log:
            log.seek(at)
            return b'"msg":"started"' in log.read()

    def end_workers(self):
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()

    def run(self):
        seed = random.SystemRandom().randrange(1 << 30)
        print(f"        seed {seed}", flush=True)
        choose = random.Random(seed)
        messages = []
        for i in range(N):
            messages.append(json.dumps({"id": i, "text": TEXTS[i % len(TEXTS)]}).encode())
            if i % EVERY == EVERY - 1:
                messages.append(BAD[i // EVERY % len(BAD)])
        pair = [self.start_worker(i) for i in range(2)]
        for part in range(4): # so that there is work to be killed at
            self.source.send(list(enumerate(messages))[part::4])
            for _ in range(2):
                wait_some(choose)
                slot = choose.randrange(2)
                pair[slot].kill()
                pair[slot].wait()
                pair[slot] = self.start_worker(slot)
        wait_for("all acked", self.source.is_done, 90)
        for worker in pair:
            wait_for("started", lambda w=worker: self.has_started(w))
            assert worker.poll() is None, "a worker ended by itself"
            worker.terminate()
            assert worker.wait(timeout=40) == 0, worker.returncode
        self.check(messages)
        self.check_spans()

    def check_spans(self):
        """Each links to the spans of its messages. A batch of a worker that was killed may have
        none, and a line of it may be cut."""
        linked, n, ids = set(), 0, set()
        with open(self.spans, encoding="utf-8") as lines:
            for line in lines:
                try:
                    span = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
                except ValueError:
                    continue
                n += 1
                ids.add(span["traceId"])
                linked |= {(link["traceId"], link["spanId"]) for link in span["links"]}
        sent = {tuple(parent.split("-")[1:3]) for parent in PARENTS}
        assert n == len(ids) and linked <= sent, (n, len(ids), sorted(linked - sent)[:3])
        assert len(linked) > len(sent) // 2, (len(linked), len(sent))
        print(f"        {n} spans link to {len(linked)} of {len(sent)} messages", flush=True)

    def check(self, messages):
        outputs, letters = self.sink.outputs(), self.sink.letters()
        by_id, by_text = {}, {}
        for name, output in outputs:
            before = by_id.setdefault(output["id"], (name, output))
            assert before == (name, output), (before, name)
            vector = by_text.setdefault(output["id"] % len(TEXTS), output["embedding"])
            assert vector == output["embedding"], output["id"]
        assert sorted(by_id) == list(range(N)), f"{len(by_id)} of {N}"
        assert len(by_text) == len(set(map(str, by_text.values()))) == len(TEXTS)
        assert self.sink.name == "postgres" or \
            len({name for name, _ in by_id.values()}) == N, "ids of messages"
        expected = [value for value in messages if value in BAD]
        assert sorted(set(letters)) == sorted(
            (code, value) for code, value in zip(("bad_msgpack", "bad_json", "no_text"), BAD)), \
            set(letters)
        assert len(letters) >= len(expected), letters
        print(f"        {N} texts, {len(outputs)} outputs; {len(expected)} bad, {len(letters)} "
              "dead letters", flush=True)


def wait_some(choose):
    postgres_bench.settle(choose.uniform(0.5, 2))


PAIRS = [(Nats, Kafka), (Kafka, Nats), (Rabbit, Kafka), (Kafka, Rabbit), (Rabbit, Nats),
         (Nats, Rabbit), (Redis, Rabbit), (Rabbit, Redis), (Redis, Nats), (Nats, Redis),
         (Rabbit, Postgres), (Nats, Postgres)]


def main():
    binary, only = sys.argv[1], sys.argv[2:]
    ends = {}
    with contextlib.ExitStack() as stack:
        def end_of(kind):
            """Its server is started when it is needed first."""
            if kind not in ends:
                end = ends[kind] = kind(binary)
                if kind is Postgres:
                    stack.callback(end.pg.close)
                else:
                    stack.enter_context(end.bench)
                end.start()
            return ends[kind]

        @contextlib.contextmanager
        def enter(name):
            source, sink = (end_of(kind) for kind in pairs[name])
            for end in (source, sink):
                end.begin(name.replace("_", "-"))
            folder = source.bench.folder
            crossing = Crossing(binary, folder, source, sink)
            try:
                yield crossing
            finally:
                crossing.end_workers()

        pairs = {f"{source.name}_{sink.name}": (source, sink) for source, sink in PAIRS}
        if not postgres_bench.programs():
            print("NOT RUN: no PostgreSQL with pgvector can be had (scripts/get-postgres)")
            pairs = {name: pair for name, pair in pairs.items() if Postgres not in pair}
        return run_cases(dict.fromkeys(pairs, Crossing.run), only, enter)


if __name__ == "__main__":
    sys.exit(main())
