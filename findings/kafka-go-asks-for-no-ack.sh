#!/usr/bin/env bash
# segmentio/kafka-go's Writer asks the broker for no acknowledgement, and spreads a key over partitions.
#
# The zero value of Writer.RequiredAcks is RequireNone (0): the broker answers nothing, and
# WriteMessages(), which otherwise waits for the answer, returns nil. So it does for a record that the
# broker refuses, as too large or as dated too far ahead: such texts are never embedded, and nothing
# says so. The deprecated NewWriter(WriterConfig{}) asks for all replicas, so a change
# to the struct, as its deprecation notice wants, drops that silently. The guess that misses: a call that
# blocks and returns an error has asked, and all is the default, as in Java's client, librdkafka and
# franz-go. The default Balancer, RoundRobin, does not look at keys either: versions of one document land
# in several partitions, are read in any order, and compaction keeps one of each partition.
# RequiredAcks: kafka.RequireAll and Balancer: kafka.Murmur2Balancer{} (Java's) in every Writer.
#
# Versions: kafka-go 0.4.51, Apache Kafka 4.4.0 (Maven). Seen: nil for a record of 5000 bytes where 2000
# are the limit and for one two hours ahead, none stored; with RequireAll both are errors; 8 records of
# one key in 4 of 4 partitions, in 1 with Murmur2Balancer.
# Needs: go, java 17 or newer, mvn.
set -euo pipefail
folder=$(mktemp -d)
broker=
finish() {
    if [ -n "$broker" ]; then
        { kill -9 "$broker" && wait "$broker"; } 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT
cd "$folder"

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

mkdir port
cat >port/main.go <<'GO'
package main

import (
	"fmt"
	"net"
)

func main() {
	for range 2 {
		held, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		defer held.Close()
		fmt.Println(held.Addr().(*net.TCPAddr).Port)
	}
}
GO
cat >main.go <<'GO'
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func check(holds bool) {
	if !holds {
		fmt.Println("not as described")
		os.Exit(1)
	}
}

// How many records each of the topic's four partitions holds, as soon as all have a leader.
func stored(ctx context.Context, address, topic string) (counts [4]int64) {
	for partition := range counts {
		for {
			must(ctx.Err())
			leader, err := kafka.DialLeader(ctx, "tcp", address, topic, partition)
			if err == nil {
				first, last, failed := leader.ReadOffsets()
				must(leader.Close())
				counts[partition], err = last-first, failed
			}
			if err == nil {
				break
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
	return
}

func used(counts [4]int64) (partitions int, records int64) {
	for _, count := range counts {
		records += count
		if count > 0 {
			partitions++
		}
	}
	return
}

func main() {
	address := os.Args[1]
	ctx, done := context.WithTimeout(context.Background(), 3*time.Minute)
	defer done()
	var broker *kafka.Conn
	for err := error(nil); broker == nil; broker, err = kafka.Dial("tcp", address) {
		must(ctx.Err())
		if err != nil {
			time.Sleep(200 * time.Millisecond)
		}
	}
	limit := []kafka.ConfigEntry{{ConfigName: "max.message.bytes", ConfigValue: "2000"}}
	for _, topic := range []string{"default", "told"} {
		must(broker.CreateTopics(kafka.TopicConfig{Topic: topic, NumPartitions: 4,
			ReplicationFactor: 1, ConfigEntries: limit}))
	}

	key := []byte("doc-7")
	large := kafka.Message{Key: key, Value: bytes.Repeat([]byte("x"), 5000)}
	ahead := kafka.Message{Key: key, Value: []byte("x"), Time: time.Now().Add(2 * time.Hour)}
	write := func(name string, writer *kafka.Writer) (int, int64, [2]error) {
		writer.Addr, writer.Topic = kafka.TCP(address), name
		writer.BatchTimeout = 10 * time.Millisecond
		stored(ctx, address, name)
		for i := range 8 { // again while the writer does not know of the topic yet
			for writer.WriteMessages(ctx, kafka.Message{Key: key, Value: []byte{byte(i)}}) != nil {
				must(ctx.Err())
			}
		}
		refused := [2]error{writer.WriteMessages(ctx, large), writer.WriteMessages(ctx, ahead)}
		must(writer.Close())
		var counts [4]int64
		partitions, records := 0, int64(0)
		for records < 8 { // nothing says when what is not acknowledged has arrived
			counts = stored(ctx, address, name)
			partitions, records = used(counts)
		}
		fmt.Printf("%s: acks %v; errors: %v, %v; records in each partition %v\n", name,
			writer.RequiredAcks, refused[0], refused[1], counts)
		return partitions, records, refused
	}

	partitions, records, refused := write("default", &kafka.Writer{})
	check(partitions == 4 && records == 8 && refused[0] == nil && refused[1] == nil)
	partitions, records, refused = write("told", &kafka.Writer{
		RequiredAcks: kafka.RequireAll, Balancer: kafka.Murmur2Balancer{}})
	check(partitions == 1 && records == 8 && refused[0] != nil && refused[1] != nil)
	old := kafka.NewWriter(kafka.WriterConfig{Brokers: []string{address}, Topic: "told"})
	fmt.Println("NewWriter: acks", old.RequiredAcks)
	check(old.RequiredAcks == kafka.RequireAll)
}
GO
cat >go.mod <<'MOD'
module tried

go 1.22

require github.com/segmentio/kafka-go v0.4.51
MOD
GOFLAGS=-mod=mod go build -o try . 2>build.log || { cat build.log; exit 1; }
mapfile -t ports < <(go run ./port)
cat >server.properties <<TEXT
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${ports[1]}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:${ports[0]},CONTROLLER://127.0.0.1:${ports[1]}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$folder/log
TEXT
java=(java -Xmx512m -XX:TieredStopAtLevel=1 -cp "jars/*")
"${java[@]}" kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ -c server.properties >/dev/null 2>&1
"${java[@]}" kafka.Kafka server.properties >/dev/null 2>&1 &
broker=$!
./try "127.0.0.1:${ports[0]}"
echo "as described"
