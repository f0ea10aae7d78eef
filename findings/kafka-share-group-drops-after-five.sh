#!/usr/bin/env bash
# A Kafka share group drops a record after five deliveries with a lag of 0, and poll() returns 500 where 10 were asked for.
#
# Share groups give Kafka the acknowledgements of a queue. A record that is released, or whose lock of 30 s ran out,
# is delivered again, five times in all (group.share.delivery.count.limit); then it is archived: it comes no more,
# its offset counts as done, and the group's lag is 0 as if it had been processed. max.poll.records is no limit either:
# a poll returns whole batches as they were written, here 500 records, whose 30 s all begin then, so a worker that takes
# 100 ms a record loses most of them to others, and counts deliveries of texts that nobody had looked at. The guess
# that misses: no record is given up without an error, as with offsets, and 10 are 10. Send a dead letter and ACCEPT
# before the last delivery (record.deliveryCount()); share.acquire.mode=record_limit; small batches.
#
# Version: Apache Kafka 4.4.0 (Maven), broker and Java client.
# Seen: 500 records of one batch; one record released each time comes five times, then never, lag 0.
# Needs: java 17 or newer, mvn, python3.
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
cat >pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tried</groupId><artifactId>tried</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId><version>4.4.0</version></dependency>
    <dependency><groupId>org.slf4j</groupId>
      <artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
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
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
PROPERTIES
java=(java -Xmx512m -XX:TieredStopAtLevel=1 -cp "$folder/jars/*")
"${java[@]}" kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ -c server.properties >format.log 2>&1
"${java[@]}" kafka.Kafka server.properties >server.log 2>&1 &
server=$!
cat >Tried.java <<'JAVA'
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListShareGroupOffsetsSpec;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class Tried {
    static String address;

    static void expect(String what, Object expected, Object found) {
        System.out.println(what + ": " + found);
        if (!expected.equals(found))
            throw new AssertionError("not as described");
    }

    static KafkaShareConsumer<String, String> consumer(String group, Object... more) {
        Map<String, Object> settings = new java.util.HashMap<>(
            Map.of("bootstrap.servers", address, "group.id", group, "share.acknowledgement.mode", "explicit"));
        for (int n = 0; n < more.length; n += 2)
            settings.put((String) more[n], more[n + 1]);
        return new KafkaShareConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    }

    static ConsumerRecords<String, String> take(KafkaShareConsumer<String, String> from, int seconds) {
        ConsumerRecords<String, String> records = ConsumerRecords.empty();
        for (int n = 0; n < seconds * 2 && records.isEmpty(); n++)
            records = from.poll(Duration.ofMillis(500));
        return records;
    }

    static int taken(String group, Object... more) {
        try (var reader = consumer(group, more)) {
            reader.subscribe(List.of("texts"));
            var records = take(reader, 60);
            records.forEach(record -> reader.acknowledge(record, AcknowledgeType.ACCEPT));
            return records.count();
        }
    }

    public static void main(String[] arguments) throws Exception {
        address = "127.0.0.1:" + arguments[0];
        Map<String, Object> settings = Map.of("bootstrap.servers", address);
        try (Admin admin = Admin.create(settings)) {
            for (int n = 0; n < 120 && admin.listTopics().names().get().isEmpty(); n++) {
                try {
                    admin.createTopics(List.of(new NewTopic("texts", 1, (short) 1),
                        new NewTopic("one", 1, (short) 1))).all().get();
                } catch (java.util.concurrent.ExecutionException why) {
                    Thread.sleep(500);
                }
            }
            for (String group : List.of("many", "few", "releasing"))
                admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.GROUP, group),
                    List.of(new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"),
                        AlterConfigOp.OpType.SET)))).all().get();
            try (var producer = new KafkaProducer<>(Map.<String, Object>of("bootstrap.servers", address,
                    "linger.ms", "2000", "batch.size", "200000"), new StringSerializer(), new StringSerializer())) {
                producer.partitionsFor("texts");
                for (int n = 0; n < 500; n++)
                    producer.send(new ProducerRecord<>("texts", "text " + n));
                producer.flush();
                producer.send(new ProducerRecord<>("one", "a text")).get();
            }
            expect("max.poll.records 10", 500, taken("many", "max.poll.records", "10"));
            expect("and record_limit", 10, taken("few", "max.poll.records", "10",
                "share.acquire.mode", "record_limit"));

            List<Integer> counts = new ArrayList<>();
            try (var releasing = consumer("releasing")) {
                releasing.subscribe(List.of("one"));
                for (var records = take(releasing, 60); !records.isEmpty(); records = take(releasing, 10)) {
                    for (var record : records) {
                        counts.add(record.deliveryCount().orElseThrow().intValue());
                        releasing.acknowledge(record, AcknowledgeType.RELEASE);
                    }
                    releasing.commitSync();
                }
            }
            expect("delivered, and released each time", List.of(1, 2, 3, 4, 5), counts);
            var offsets = admin.listShareGroupOffsets(Map.of("releasing", new ListShareGroupOffsetsSpec()))
                .all().get().get("releasing");
            var state = offsets.values().iterator().next();
            expect("lag", Optional.of(0L), state.lag());
        }
    }
}
JAVA
java -cp "$folder/jars/*" Tried.java "$port"
echo "as described"
