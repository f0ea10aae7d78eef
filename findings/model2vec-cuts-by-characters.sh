#!/usr/bin/env bash
# model2vec cuts a text by characters before it counts tokens, so one with indentation loses most of itself.
#
# max_length=512 is documented as tokens. encode() first keeps 512 times the median length of the
# vocabulary's entries, some 2500 to 3000 characters, and then 512 tokens of what is left. Blanks are
# characters and no tokens: of code, YAML, tables and text extracted from PDF the first lines are embedded
# and nothing of the rest, though all of it had far fewer than 512 tokens; when blanks come first, nothing at
# all. Languages of long words lose their end, too. What is left without a known token becomes a vector of
# zeros, without an error, which stores rank first or leave out. The guess that misses: a limit of tokens cuts
# where there are more tokens. encode(texts, max_length=None) does not cut, at little cost in a static
# model; or " ".join(text.split()) before. Look for rows of zeros.
#
# Versions: model2vec 0.10.0, tokenizers 0.23.3, numpy 2.4.6; a model made here, one direction a word.
# Seen: of a text of 121 tokens, indented by 40, the last word is missing; behind 3000 blanks, and
# of a word that is not in the vocabulary, zeros.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: model2vec==0.10.0 tokenizers==0.23.3 numpy==2.4.6

cat >try.py <<'PY'
from importlib.metadata import version

import numpy as np
from model2vec import StaticModel
from tokenizers import Tokenizer, models, pre_tokenizers

words = ["[PAD]", "[UNK]"] + [f"w{n:04d}" for n in range(100)] + ["value", "final"]
tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
model = StaticModel(vectors=np.eye(len(words), dtype=np.float32), tokenizer=tokenizer)


def seen(text, **options):
    """Which words of the text its vector is made of, and whether it is all zeros."""
    vector = model.encode(text, **options)
    return {word for word, part in zip(words, vector) if part > 0}


print("model2vec", version("model2vec"), "median length of a token", model.median_token_length)
indented = "\n".join([" " * 40 + "value"] * 120) + " final"
print(len(tokenizer.encode(indented).ids), "tokens; seen:", seen(indented))
assert seen(indented) == {"value"} and len(tokenizer.encode(indented).ids) == 121
assert seen(indented, max_length=None) == {"value", "final"}
assert seen(" ".join(indented.split())) == {"value", "final"}
for text in (" " * 3000 + "value", "unheard-of"):
    print(f"{text.strip()!r} behind {len(text) - len(text.strip())} blanks:", seen(text))
    assert not model.encode(text).any()
assert seen(" " * 3000 + "value", max_length=None) == {"value"}
PY
venv/bin/python try.py
echo "as described"
