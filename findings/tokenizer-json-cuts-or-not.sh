#!/usr/bin/env bash
# One tokenizer.json cuts texts in the tokenizers library, and not in transformers or tokenizers.js.
#
# A tokenizer.json can hold a truncation and a padding, and those of some published models do (a limit of
# 128, padded to 128). tokenizers, in Python and Rust, obeys: encode() of a long text gives the first 128
# ids and no word about the rest, and of a short one 128 ids, most of them padding, at many times the cost,
# and wrong vectors where the mask is left out. transformers switches both off when it is called, and
# @huggingface/tokenizers does not read them. So a service that was moved from transformers to tokenizers
# and onnxruntime gives other vectors for long texts. The guess that misses: one file, one result; or a
# limit is the caller's. After loading call no_truncation() and no_padding(), and set what the model takes.
#
# Versions: tokenizers 0.23.3, transformers 5.24.0 (without PyTorch), npm @huggingface/tokenizers 0.2.0; a
# tokenizer made here. Seen: of 20 words 8, 20 and 20 ids; of 1 word 8, 1 and 1.
# Needs: python3 with venv, node 20 or newer, npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: tokenizers==0.23.3 transformers==5.24.0
npm install --silent --no-fund --no-audit @huggingface/tokenizers@0.2.0 >/dev/null

cat >try.mjs <<'JS'
import { readFileSync } from "node:fs";
import { Tokenizer } from "@huggingface/tokenizers";

const tokenizer = new Tokenizer(JSON.parse(readFileSync("tokenizer.json")), {});
console.log(JSON.stringify(process.argv.slice(2).map((text) => tokenizer.encode(text).ids.length)));
JS
cat >try.py <<'PY'
import json
import os
import subprocess

os.environ["TRANSFORMERS_VERBOSITY"] = "critical"  # that there is no PyTorch
import tokenizers
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

made = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "word": 2}, unk_token="[UNK]"))
made.pre_tokenizer = pre_tokenizers.Whitespace()
made.enable_truncation(8)
made.enable_padding(length=8)
made.save("tokenizer.json")

TEXTS = ["word " * 20, "word"]
loaded = Tokenizer.from_file("tokenizer.json")
fast = transformers.PreTrainedTokenizerFast(tokenizer_file="tokenizer.json", pad_token="[PAD]")
lengths = {
    f"tokenizers {tokenizers.__version__}": [len(loaded.encode(text).ids) for text in TEXTS],
    f"transformers {transformers.__version__}": [len(fast(text)["input_ids"]) for text in TEXTS],
    "tokenizers.js": json.loads(subprocess.run(["node", "try.mjs", *TEXTS], check=True,
                                               stdout=subprocess.PIPE).stdout)}
print(lengths)
assert list(lengths.values()) == [[8, 8], [20, 1], [20, 1]]
loaded.no_truncation()
loaded.no_padding()
assert [len(loaded.encode(text).ids) for text in TEXTS] == [20, 1]
PY
venv/bin/python try.py
echo "as described"
