#!/usr/bin/env bash
# transformers reads a cased tokenizer.json of a BERT in lower case when tokenizer_config.json does not say.
#
# tokenizer.json holds the whole tokenizer, its normalizer too, and tokenizers (Python, Rust, what servers use)
# does what it says. AutoTokenizer takes the vocabulary from it and makes the normalizer anew, from do_lower_case
# in tokenizer_config.json, which is true where it is left out: a cased model, saved with a short config, then
# gets lower case without accents, other ids, and [UNK] for words that the vocabulary has in capitals only.
# do_lower_case: false turns an uncased file into a cased one in the same way. So a model is trained with one
# tokenization and served with another, and nobody warns. The guess that misses: tokenizer.json has the last
# word. Write do_lower_case and strip_accents into tokenizer_config.json; or "PreTrainedTokenizerFast" as
# tokenizer_class, which takes the file as it is.
#
# Versions: PyPI transformers 5.24.0, tokenizers 0.23.3.
# Seen: Hello Bonn café in tokenizers; hello [UNK] cafe in transformers, and the same as tokenizers with
# PreTrainedTokenizerFast.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: tokenizers==0.23.3 transformers==5.24.0

cat >try.py <<'PY'
import json
import os

import tokenizers
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = SPECIAL + ["hello", "Hello", "Bonn", "cafe", "café"]
TEXT = "Hello Bonn café"
print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)


def read(lowercase, **config):
    os.makedirs("model", exist_ok=True)
    tokenizer = Tokenizer(models.WordPiece({token: n for n, token in enumerate(VOCABULARY)},
                                           unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save("model/tokenizer.json")
    config = {"tokenizer_class": "BertTokenizer", "unk_token": "[UNK]", "pad_token": "[PAD]"} | config
    for name, content in (("tokenizer_config", config), ("config", {"model_type": "bert"})):
        with open(f"model/{name}.json", "w") as file:
            json.dump(content, file)
    seen = [" ".join(Tokenizer.from_file("model/tokenizer.json").encode(TEXT).tokens),
            " ".join(transformers.AutoTokenizer.from_pretrained("model").tokenize(TEXT))]
    print("lowercase in tokenizer.json:", lowercase, config)
    print("   tokenizers:", seen[0], " transformers:", seen[1])
    return seen


CASED, UNCASED = "Hello Bonn café", "hello [UNK] cafe"
assert read(False) == [CASED, UNCASED]
assert read(False, do_lower_case=False) == [CASED, CASED]
assert read(True, do_lower_case=False) == [UNCASED, CASED]
assert read(True) == [UNCASED, UNCASED]
assert read(False, tokenizer_class="PreTrainedTokenizerFast") == [CASED, CASED]
PY
venv/bin/python try.py
echo "as described"
