#!/usr/bin/env bash
# ormsgpack.unpackb() decodes the first value and ignores everything behind it.
#
# Two records joined in one message, or a record followed by rubbish, decode as the first record: no
# error, the rest is lost. msgpack's own unpackb() raises ExtraData and msgspec's decode() raises
# DecodeError for the same bytes. The guess that misses: a faster drop-in for msgpack.unpackb() is as
# strict as the one it replaces.
#
# Versions: ormsgpack 1.13.1, msgpack 1.1.2, msgspec 0.23.0. Seen: {"id": 1} from two joined records.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: ormsgpack==1.13.1 msgpack==1.1.2 msgspec==0.23.0

cat >try.py <<'PY'
import msgpack
import msgspec
import ormsgpack

joined = msgpack.packb({"id": 1}) + msgpack.packb({"id": 2})
print("ormsgpack:", ormsgpack.unpackb(joined))
assert ormsgpack.unpackb(joined) == {"id": 1}
for name, decode, error in ("msgpack", msgpack.unpackb, msgpack.ExtraData), \
                           ("msgspec", msgspec.msgpack.decode, msgspec.DecodeError):
    try:
        raise SystemExit(f"{name} took it: {decode(joined)}")
    except error as why:
        print(f"{name}: {type(why).__name__}: {why}")
PY
venv/bin/python try.py
echo "as described"
