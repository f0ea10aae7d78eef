#!/usr/bin/env bash
# Kafka 4 refuses every record of a batch in which one has a timestamp more than an hour ahead.
#
# Since 4.0 message.timestamp.after.max.ms is an hour by default. Producers put records of a partition
# together as they come, so one device with a wrong clock makes records fail that have nothing to do
# with it, whichever shared its batch. librdkafka reports INVALID_TIMESTAMP for all of them, so that
# nobody can tell which one it was; kafka-python names it, and says of the others that they
# were in its batch. Neither client tries the good ones again, and flush() is content: 0 left. The
# guess that misses: a record is refused for what is in it. Send those that fail again one by one.
#
# Versions: Apache Kafka 4.4.0 (Maven), confluent-kafka 2.16.1 with librdkafka 2.16.0, kafka-python 3.0.12.
# Seen: of 20 records with one ahead 20 fail in either client and flush() returns 0 (librdkafka); the
# 19 sent again are stored.
# Needs: python3 with venv, java 17 or newer, mvn.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: confluent-kafka==2.16.1 kafka-python==3.0.12
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

cat >try.py <<'PY'
import collections
import os
import socket
import subprocess
import time

import confluent_kafka
import kafka
import kafka.errors
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
""")
java = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", "jars/*"]
subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c",
                "server.properties"], check=True, stdout=subprocess.DEVNULL,
               stderr=subprocess.DEVNULL)
server = subprocess.Popen([*java, "kafka.Kafka", "server.properties"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    address = f"127.0.0.1:{port}"
    quiet = {"bootstrap.servers": address, "log_level": 0}
    admin = AdminClient(quiet)
    admin.create_topics([NewTopic("texts", 1, 1)], operation_timeout=60)["texts"].result(120)
    print("librdkafka", confluent_kafka.libversion()[0], "kafka-python", kafka.__version__)
    now = int(time.time() * 1000)
    times = [now + (2 * 3600 * 1000 if n == 7 else 0) for n in range(20)]

    failed = []
    producer = confluent_kafka.Producer(quiet | {"linger.ms": 1000})

    def reported(error, message):
        if error:
            failed.append((int(message.value()), error.name()))

    for n, when in enumerate(times):
        producer.produce("texts", str(n), timestamp=when, on_delivery=reported)
    left = producer.flush(60)
    print("librdkafka: flush()", left, "failed", collections.Counter(why for _, why in failed))
    assert left == 0 and len(failed) == 20 and {why for _, why in failed} == {"INVALID_TIMESTAMP"}

    again, failed = failed, []
    for n, _ in again:
        producer.produce("texts", str(n), timestamp=times[n], on_delivery=reported)
        producer.flush(60)
    print("sent again one by one, failed:", failed)
    assert failed == [(7, "INVALID_TIMESTAMP")]

    other = kafka.KafkaProducer(bootstrap_servers=address, linger_ms=1000)
    sent = [other.send("texts", str(n).encode(), timestamp_ms=when) for n, when in enumerate(times)]
    other.flush(60)
    whys = [type(future.exception).__name__ for future in sent]
    print("kafka-python: failed", collections.Counter(whys))
    assert all(future.failed() for future in sent)
    other.close()
finally:
    server.kill()
    server.wait()
PY
venv/bin/python try.py
echo "as described"
