#!/usr/bin/env bash
# Go's ugorji codec writes []byte as msgpack text, and reads text into interface{} as bytes.
#
# Its MsgpackHandle speaks the msgpack of before 2013 unless told otherwise: there are no bin and no str8, and
# one "raw" for both. A vector that is packed as []byte reaches Python's msgpack as str: mostly an error about
# UTF-8, which names a byte and not the field; but bytes that happen to be UTF-8, as those of small integers
# and of bits, come through as text. The other way every value of a map[string]interface{} that was text is
# []byte, so a type switch on string never matches. The guess that misses: a library of that name writes
# today's msgpack, as vmihailenco's does. Set WriteExt of the handle, and RawToString (then bin is a string,
# too) or decode into a struct whose fields have types.
#
# Versions: Go github.com/ugorji/go/codec 1.3.2; PyPI msgpack 1.1.2.
# Seen: a4 before the four bytes of a float32, c4 04 with WriteExt; []uint8 for "abc", string with RawToString.
# Needs: python3 with venv, go.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: msgpack==1.1.2

cat >go.mod <<'MOD'
module tried

go 1.22

require github.com/ugorji/go/codec v1.3.2
MOD
cat >main.go <<'GO'
package main

import (
	"fmt"
	"os"

	"github.com/ugorji/go/codec"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	for _, name := range []string{"plain", "set"} {
		handle := &codec.MsgpackHandle{}
		if name == "set" {
			handle.WriteExt = true
			handle.RawToString = true
		}
		for suffix, vector := range map[string][]byte{"float": {0, 0, 0x80, 0x3f}, "int8": {1, 2, 3, 4}} {
			var payload []byte
			must(codec.NewEncoderBytes(&payload, handle).Encode(map[string]any{"embedding": vector}))
			must(os.WriteFile(name+"."+suffix, payload, 0o600))
		}
		var message map[string]any
		payload, err := os.ReadFile("python")
		must(err)
		must(codec.NewDecoderBytes(payload, handle).Decode(&message))
		fmt.Printf("%s: text is %T, bin %T\n", name, message["id"], message["embedding"])
	}
}
GO
cat >try.py <<'PY'
import sys

import msgpack

if sys.argv[1] == "write":
    with open("python", "wb") as file:
        file.write(msgpack.packb({"id": "abc", "embedding": b"\0\0\x80\x3f"}))
    raise SystemExit
expected = {"plain.float": UnicodeDecodeError, "plain.int8": "\1\2\3\4",
            "set.float": b"\0\0\x80\x3f", "set.int8": b"\1\2\3\4"}
for name, value in expected.items():
    with open(name, "rb") as file:
        payload = file.read()
    try:
        seen = msgpack.unpackb(payload)["embedding"]
    except UnicodeDecodeError as why:
        seen = type(why)
    print(name, payload.hex(" "), "Python:", repr(seen))
    assert seen == value
PY
venv/bin/python try.py write
GOFLAGS=-mod=mod go run . 2>build.log | tee seen || cat build.log
grep -qxF "plain: text is []uint8, bin []uint8" seen
grep -qxF "set: text is string, bin string" seen
venv/bin/python try.py read
echo "as described"
