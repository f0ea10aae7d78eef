#!/usr/bin/env bash
# Python's zstandard decompresses the first frame of a .zst in one shot and drops the rest silently.
#
# A .zst may hold many frames: pzstd writes one for each piece, appended logs one for each write,
# `cat a.zst b.zst` is a valid file. zstandard.decompress() and ZstdDecompressor().decompress() end
# behind the first frame and report nothing. The stream reader of the same package reads all of them,
# as the zstd program does. The guess that misses: the short way and the long way give the same bytes.
#
# Version: zstandard 0.25.0. Seen: 10 of 20 bytes from decompress(), 20 of 20 from stream_reader()
# and open().
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: zstandard==0.25.0

cat >try.py <<'PY'
import io
import zstandard

packed = zstandard.compress(b"first one\n") + zstandard.compress(b"second one"[:10])
short = zstandard.decompress(packed)
shot = zstandard.ZstdDecompressor().decompress(packed)
stream = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read()
opened = zstandard.open(io.BytesIO(packed), "rb").read()
print("decompress():", short, "ZstdDecompressor().decompress():", shot)
print("stream_reader().read():", stream, "open().read():", opened)
assert short == shot == b"first one\n"
assert stream == opened == b"first one\nsecond one"
PY
venv/bin/python try.py
echo "as described"
