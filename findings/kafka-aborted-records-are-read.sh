#!/usr/bin/env bash
# Whether a Kafka consumer reads records of aborted transactions depends on whose client it is.
#
# Each client has its own default of isolation.level. librdkafka (confluent-kafka) and KafkaJS leave aborted
# records out; aiokafka and kafka-python, as Java's client, hand them out. So of a topic that an
# exactly-once worker writes a reader in one language sees each output once, and one in another sees those
# of failed attempts as well, as if they had been delivered: duplicates, and outputs of inputs that were
# given up. It shows on the day a worker is killed, never in tests. Nothing in the record tells them apart.
# The guess that misses: exactly once holds for whoever reads, or all clients share the protocol's default.
# Say isolation.level=read_committed in each consumer; do not take it from one client's behaviour.
#
# Versions: Apache Kafka 4.4.0 (Maven); confluent-kafka 2.16.1 with librdkafka 2.16.0, aiokafka 0.14.0,
# kafka-python 3.0.12, npm kafkajs 2.2.4. Seen: of three transactions, the second aborted, confluent-kafka
# and kafkajs read two, aiokafka and kafka-python three; two with read_committed.
# Needs: python3 with venv, node 20 or newer, npm, java 17 or newer, mvn.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: confluent-kafka==2.16.1 kafka-python==3.0.12 aiokafka==0.14.0
npm install --silent --no-fund --no-audit kafkajs@2.2.4 >/dev/null
cat >pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tried</groupId><artifactId>tried</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId><version>4.4.0</version></dependency>
  </dependencies>
</project>
XML
mvn -q dependency:copy-dependencies -DoutputDirectory="$folder/jars"

cat >try.mjs <<'JS'
import { Kafka, logLevel } from "kafkajs";

const kafka = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.NOTHING });
const consumer = kafka.consumer({ groupId: "js" });
await consumer.connect();
await consumer.subscribe({ topic: "embeddings", fromBeginning: true });
await consumer.run({
  eachMessage: async ({ message }) => {
    console.log(message.value.toString());
    if (message.value.toString() === "third") process.exit(0);
  },
});
JS
cat >try.py <<'PY'
import asyncio
import os
import socket
import subprocess

import aiokafka
import confluent_kafka
import kafka
from confluent_kafka.admin import AdminClient, NewTopic

held = [socket.socket() for _ in range(2)]
for probe in held:
    probe.bind(("127.0.0.1", 0))
port, controller = (probe.getsockname()[1] for probe in held)
for probe in held:
    probe.close()
with open("server.properties", "w", encoding="utf-8") as file:
    file.write(f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={os.getcwd()}/log
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
""")
address = f"127.0.0.1:{port}"


def write():
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    admin.create_topics([NewTopic("embeddings", 1, 1)], operation_timeout=60)["embeddings"].result(120)
    producer = confluent_kafka.Producer({"bootstrap.servers": address, "log_level": 0,
                                         "transactional.id": "worker"})
    producer.init_transactions(60)
    for text in ("first", "aborted", "third"):
        producer.begin_transaction()
        producer.produce("embeddings", text)
        producer.flush(60)
        if text == "aborted":
            producer.abort_transaction(60)
        else:
            producer.commit_transaction(60)


def by_librdkafka():
    consumer = confluent_kafka.Consumer({"bootstrap.servers": address, "group.id": "librdkafka",
                                         "auto.offset.reset": "earliest"})
    consumer.subscribe(["embeddings"])
    read = []
    while "third" not in read:
        message = consumer.poll(60)
        assert message is not None
        if not message.error():
            read.append(message.value().decode())
    consumer.close()
    return read


def by_kafka_python(**options):
    consumer = kafka.KafkaConsumer("embeddings", bootstrap_servers=address, consumer_timeout_ms=60000,
                                   auto_offset_reset="earliest", **options)
    read = []
    for message in consumer:
        read.append(message.value.decode())
        if read[-1] == "third":
            break
    consumer.close()
    return read


async def by_aiokafka(**options):
    async with aiokafka.AIOKafkaConsumer("embeddings", bootstrap_servers=address,
                                         auto_offset_reset="earliest", **options) as consumer:
        read = []
        while "third" not in read:
            read.append((await asyncio.wait_for(consumer.getone(), 60)).value.decode())
        return read


def by_kafkajs():
    return subprocess.run(["node", "try.mjs", address], check=True, timeout=120,
                          stdout=subprocess.PIPE, text=True).stdout.split()


java = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", "jars/*"]
subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c",
                "server.properties"], check=True, stdout=subprocess.DEVNULL,
               stderr=subprocess.DEVNULL)
server = subprocess.Popen([*java, "kafka.Kafka", "server.properties"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    write()
    told = {"isolation_level": "read_committed"}
    all_three, committed = ["first", "aborted", "third"], ["first", "third"]
    for name, read, expected in (
            ("librdkafka " + confluent_kafka.libversion()[0], by_librdkafka(), committed),
            ("kafkajs", by_kafkajs(), committed),
            ("kafka-python " + kafka.__version__, by_kafka_python(), all_three),
            ("aiokafka " + aiokafka.__version__, asyncio.run(by_aiokafka()), all_three),
            ("kafka-python, told", by_kafka_python(**told), committed),
            ("aiokafka, told", asyncio.run(by_aiokafka(**told)), committed)):
        print(f"{name}: {read}")
        assert read == expected
finally:
    server.kill()
    server.wait()
PY
venv/bin/python try.py
echo "as described"
