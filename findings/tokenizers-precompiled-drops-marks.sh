#!/usr/bin/env bash
# Hugging Face tokenizers and SentencePiece normalise decomposed text differently with one and the
# same map: marks of Vietnamese are lost, kana and Hangul stay in pieces.
#
# The tokenizer.json of a SentencePiece model (XLM-R, multilingual-e5, T5) carries SentencePiece's own
# map, `Precompiled`. SentencePiece applies the longest rule at each place. tokenizers looks up a whole
# grapheme cluster first when it has at most five bytes, takes the shortest rule that fits its
# beginning, and drops the rest: e + dot below + circumflex (U+1EC7 decomposed, as macOS file names and
# some keyboards write it) becomes U+1EB9, another letter, without an error. The guess that misses: the
# same map gives the same text, so ids of the two libraries may be mixed.
#
# Versions: tokenizers 0.23.3, sentencepiece 0.2.3 (nmt_nfkc of a model trained here).
# Seen: U+0065 U+0323 U+0302: U+1EB9 and U+1EC7; U+006F U+031B U+0301: U+01A1 and U+1EDB; half-width
# ka + dakuten, decomposed ga, Hangul jamo: left in pieces by tokenizers, composed by SentencePiece.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: tokenizers==0.23.3 sentencepiece==0.2.3 \
    protobuf==7.36.2

cat >try.py <<'PY'
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import normalizers

with open("lines.txt", "w", encoding="utf-8") as lines:
    for i in range(2000):
        lines.write(f"line {i} of some words to train with {chr(97 + i % 26) * 3}\n")
sentencepiece.SentencePieceTrainer.train(
    input="lines.txt", model_prefix="model", vocab_size=120, model_type="unigram",
    normalization_rule_name="nmt_nfkc", hard_vocab_limit=False, minloglevel=2)
model = sentencepiece_model_pb2.ModelProto()
with open("model.model", "rb") as file:
    model.ParseFromString(file.read())
one = normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)
other = sentencepiece.SentencePieceProcessor(model_file="model.model")

cases = {  # text: by tokenizers, by SentencePiece
    "e\u0323\u0302": ("\u1eb9", "\u1ec7"),
    "o\u031b\u0301": ("\u01a1", "\u1edb"),
    "\u30ab\u3099": ("\u30ab\u3099", "\u30ac"),
    "\uff76\uff9e": ("\u30ab\u3099", "\u30ac"),
    "\u1100\u1161\u11a8": ("\u1100\u1161\u11a8", "\uac01"),
}
for text, expected in cases.items():
    found = (one.normalize_str(text), other.normalize(text).lstrip("\u2581"))
    print(ascii(text), "tokenizers:", ascii(found[0]), "SentencePiece:", ascii(found[1]))
    assert found == expected, ascii(expected)
same = "e\u0301"
assert one.normalize_str(same) == other.normalize(same).lstrip("\u2581") == "\u00e9"
PY
venv/bin/python try.py
echo "as described"
