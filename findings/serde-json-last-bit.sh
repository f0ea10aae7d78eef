#!/usr/bin/env bash
# Rust's serde_json reads one double in ten one bit off, so what it writes again is another number.
#
# To be fast it reads the digits as an integer and divides, which rounds twice once there are 16 or 17 digits; only with
# the feature float_roundtrip is the result the nearest double. JSON of Python, JavaScript or Rust itself has these
# digits: vectors in float64, scores, times in seconds with a fraction. A service that reads a message and passes it
# on changes it, hashes and signatures over the JSON differ, a cache keyed by a vector misses, and a value that is
# compared for equality is not found. float32 is not touched: its digits are few, and all came back. The guess
# that misses: a parser gives back the number that was printed, as str::parse, Python and JavaScript do.
# serde_json = { version = "1", features = ["float_roundtrip"] }, in any crate of the build.
#
# Version: crate serde_json 1.0.154.
# Seen: 18883 of 200000 doubles between -0.1 and 0.1 differ, none of as many float32; 0.010787072262545855 becomes
# 0.010787072262545857.
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

[features]
exact = ["serde_json/float_roundtrip"]

[dependencies]
serde_json = "=1.0.154"
TOML
cat >src/main.rs <<'RUST'
fn main() {
    let mut state = 1u64;
    let (mut doubles, mut floats) = (0, 0);
    for _ in 0..200_000 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let number = (state >> 11) as f64 / (1u64 << 53) as f64 * 0.2 - 0.1;
        let text = number.to_string();
        assert_eq!(text.parse::<f64>().unwrap(), number);
        doubles += (serde_json::from_str::<f64>(&text).unwrap() != number) as u32;
        let single = number as f32;
        floats += (serde_json::from_str::<f32>(&single.to_string()).unwrap() != single) as u32;
    }
    let passed: serde_json::Value = serde_json::from_str("[0.010787072262545855]").unwrap();
    println!("of 200000 differ {doubles} doubles, {floats} floats; [0.010787072262545855] becomes {passed}");
    if cfg!(feature = "exact") {
        assert_eq!((doubles, floats, passed.to_string().as_str()), (0, 0, "[0.010787072262545855]"));
    } else {
        assert_eq!((doubles, floats, passed.to_string().as_str()), (18883, 0, "[0.010787072262545857]"));
    }
}
RUST
cargo run --quiet 2>build.log || { cat build.log; exit 1; }
cargo run --quiet --features exact 2>build.log || { cat build.log; exit 1; }
echo "as described"
