#!/usr/bin/env bash
# @platformatic/kafka commits what it has fetched, before the program has seen it: a crash loses up to a whole fetch.
#
# consume() has autocommit true. The offset that is committed is that of the last record of each fetch, and it is
# committed when the records are put into the stream's buffer. A process that dies at the first text (killed, out
# of memory, deployed anew) has told the group that all of the fetch are done; the next one begins behind
# them. An error in the loop ends it likewise. The guess that misses: automatic commits are of what was
# handed out, as KafkaJS and Java's client do it, so that a crash repeats and does not lose. autocommit: false,
# and await message.commit() after each text (or after the last of a batch).
#
# Versions: npm @platformatic/kafka 1.35.0; Apache Kafka 4.4.0 (Maven).
# Seen: of 500 texts one was taken, the next process gets none of the other 499, the group is at 500;
# with autocommit false 499 of them.
# Needs: node 20 or newer (the package asks for 22.19), npm, java 17 or newer, mvn.
set -euo pipefail
folder=$(mktemp -d)
server=
cleanup() {
    if [ -n "$server" ]; then
        kill -9 "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap cleanup EXIT
cd "$folder"

npm install --silent --no-fund --no-audit @platformatic/kafka@1.35.0 >/dev/null
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
mvn -q -B dependency:copy-dependencies -DoutputDirectory="$folder/jars" >mvn.log || { cat mvn.log; exit 1; }
read -r port controller < <(python3 -c '
import socket
held = [socket.socket() for _ in range(2)]
for one in held:
    one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))')
cat >server.properties <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$folder/log
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
PROPERTIES
java=(java -Xmx512m -XX:TieredStopAtLevel=1 -cp "$folder/jars/*")
"${java[@]}" kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ -c server.properties >format.log 2>&1
"${java[@]}" kafka.Kafka server.properties >server.log 2>&1 &
server=$!

cat >try.mjs <<'JS'
import { Admin, Consumer, Producer, stringDeserializers, stringSerializers } from "@platformatic/kafka";

const [what, port, groupId, auto] = process.argv.slice(2);
const common = { clientId: what, bootstrapBrokers: [`127.0.0.1:${port}`], retries: 20, retryDelay: 500 };
if (what === "fill") {
  const admin = new Admin(common);
  await admin.createTopics({ topics: ["texts"], partitions: 1, replicas: 1 });
  await admin.close();
  const producer = new Producer({ ...common, serializers: stringSerializers });
  await producer.send({ messages: Array.from({ length: 500 }, (_, n) => ({ topic: "texts", value: `text ${n}` })) });
  await producer.close();
} else {
  const consumer = new Consumer({ ...common, groupId, deserializers: stringDeserializers });
  const stream = await consumer.consume({ topics: ["texts"], mode: "committed", fallbackMode: "earliest",
    autocommit: auto === "true", sessionTimeout: 6000, rebalanceTimeout: 6000, heartbeatInterval: 1000 });
  let taken = 0;
  const report = () => { console.log(taken); process.exit(0); };
  if (what === "rest") setTimeout(report, 15000);
  for await (const message of stream) {
    taken += 1;
    if (auto !== "true") await message.commit();
    if (what === "first") {
      await new Promise((resolve) => setTimeout(resolve, 1500));
      process.kill(process.pid, "SIGKILL");
    }
    if (message.value === "text 499") report();
  }
}
JS
node try.mjs fill "$port"
check() {
    node try.mjs first "$port" "group-$1" "$1" || true
    rest=$(node try.mjs rest "$port" "group-$1" "$1")
    echo "autocommit $1: one taken, then killed; of the other 499 the next process gets $rest"
    [ "$rest" = "$2" ]
}
check true 0
check false 499
echo "as described"
