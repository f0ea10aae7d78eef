#!/usr/bin/env bash
# Rust's rmp-serde reads a msgpack bin into Vec<f32> as one float a byte, without an error.
#
# Vectors travel as bin: raw little-endian float32, four bytes a value. A consumer with a field
# `vector: Vec<f32>` compiles, decodes and gets four times as many values, each a byte from 0 to 255.
# The guess that misses: a bin is not a sequence, so the wrong type is refused. It is taken as a
# sequence of u8, and serde converts each integer to a float. serde_bytes (ByteBuf) reads it as bytes.
#
# Versions: rmp-serde 1.3.0, rmp 0.8.14, serde 1.0, serde_bytes 0.11. Seen: [1.0, -2.0] becomes
# [0, 0, 128, 63, 0, 0, 0, 192].
# Needs: cargo.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "tried"
version = "0.1.0"
edition = "2021"

[dependencies]
rmp-serde = "=1.3.0"
rmp = "=0.8.14"
serde = { version = "=1.0.219", features = ["derive"] }
serde_bytes = "=0.11.17"
TOML
cat >src/main.rs <<'RS'
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
struct Sent {
    vector: serde_bytes::ByteBuf,
}

#[derive(Deserialize)]
struct AsFloats {
    vector: Vec<f32>,
}

#[derive(Deserialize)]
struct AsBytes {
    vector: serde_bytes::ByteBuf,
}

fn main() {
    let raw: Vec<u8> = [1.0f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let packed = rmp_serde::to_vec_named(&Sent { vector: raw.clone().into() }).unwrap();
    let floats: AsFloats = rmp_serde::from_slice(&packed).expect("refused");
    println!("as Vec<f32>: {:?}", floats.vector);
    assert_eq!(floats.vector, vec![0.0, 0.0, 128.0, 63.0, 0.0, 0.0, 0.0, 192.0]);
    let bytes: AsBytes = rmp_serde::from_slice(&packed).unwrap();
    println!("as bytes: {:?}", bytes.vector);
    assert_eq!(bytes.vector.as_slice(), raw.as_slice());
    let right: Vec<f32> = bytes.vector.chunks_exact(4)
        .map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(right, vec![1.0, -2.0]);
}
RS
cargo run --quiet
echo "as described"
