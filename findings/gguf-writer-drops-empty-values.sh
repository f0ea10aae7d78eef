#!/usr/bin/env bash
# gguf-py's writer leaves out empty strings and empty arrays without a word.
#
# add_string(key, "") and add_array(key, []) write no key at all, and the count of keys in the header
# does not include them. A reader that asks for a key that its own converter set finds nothing: an
# empty prompt prefix ("this model has none") reads like a file made before prompts were stored. The
# guess that misses: what add_* took is in the file. add_key_value() with an explicit type writes the
# empty string. A key set twice is overwritten with a warning; a tensor's name taken twice raises.
#
# Version: gguf 0.19.0. Seen: prompt.document and tokenizer.merges are missing, prompt.query (add_key_value) is there.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: gguf==0.19.0 numpy==2.4.6

cat >try.py <<'PY'
import gguf

writer = gguf.GGUFWriter("model.gguf", "bert")
writer.add_string("prompt.document", "")
writer.add_array("tokenizer.merges", [])
writer.add_uint32("bert.block_count", 12)
writer.add_key_value("prompt.query", "", gguf.GGUFValueType.STRING)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

reader = gguf.GGUFReader("model.gguf")
keys = [key for key in reader.fields if not key.startswith("GGUF.")]
count = int(reader.fields["GGUF.kv_count"].contents())
print("keys in the file:", keys, "count in the header:", count)
assert "prompt.document" not in keys and "tokenizer.merges" not in keys
assert "bert.block_count" in keys and "prompt.query" in keys and count == len(keys)
PY
venv/bin/python try.py
echo "as described"
