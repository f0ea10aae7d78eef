#!/usr/bin/env bash
# Rust's hnsw_rs keeps every vector that an id was inserted with, and a zero vector is equal to everything.
#
# insert((vector, id)) takes the caller's id, as hnswlib does, but never looks for it: a text that is embedded
# anew stands in the graph twice, is found at its old place and at its new one, and one search may return its
# id twice. There is no remove. By DistCosine the distance to a vector of zeros is 0, as to an equal one: such
# a row (a failed embedding, an empty text) is among the best of every query, and a query of zeros is equal to
# all rows. The guess that misses: an id has one vector, and zero is near nothing, or NaN. Build the graph
# anew after changes, or filter by a version of your own; refuse zeros before insert.
#
# Version: crate hnsw_rs 0.3.5.
# Seen: ids 1, 0, 2, 1, 3 of four texts; the zero vector at distance 0 beside the equal one.
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
hnsw_rs = "=0.3.5"
TOML
cat >src/main.rs <<'RUST'
use hnsw_rs::prelude::*;

fn search(index: &Hnsw<f32, DistCosine>, query: &[f32]) -> Vec<(usize, f32)> {
    let mut found: Vec<_> = index.search(query, 10, 50).iter().map(|n| (n.d_id, n.distance)).collect();
    found.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    found
}

fn main() {
    let index: Hnsw<f32, DistCosine> = Hnsw::new(16, 100, 16, 100, DistCosine {});
    for (id, vector) in [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]].iter().enumerate() {
        index.insert((vector.as_slice(), id));
    }
    let found = search(&index, &[1.0, 0.0]);
    println!("with a zero vector, 0: {found:?}");
    assert_eq!(found, [(0, 0.0), (1, 0.0), (2, 1.0), (3, 2.0)]);
    println!("of zeros: {:?}", search(&index, &[0.0, 0.0]));
    assert!(search(&index, &[0.0, 0.0]).iter().all(|found| found.1 == 0.0));

    index.insert((&[0.0, 1.0], 1));
    let found = search(&index, &[1.0, 0.0]);
    println!("1 again: {found:?}, {} points", index.get_nb_point());
    assert_eq!(found, [(0, 0.0), (1, 0.0), (1, 1.0), (2, 1.0), (3, 2.0)]);
}
RUST
cargo run --quiet 2>build.log || { cat build.log; exit 1; }
echo "as described"
