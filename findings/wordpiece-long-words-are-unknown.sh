#!/usr/bin/env bash
# A word of more than 100 characters is one [UNK] to a BERT tokenizer, and a sentence of Thai is one word.
#
# WordPiece cuts a word into pieces of the vocabulary, down to single letters; but of a word that is longer than
# max_input_chars_per_word (100, in every published BERT) it makes one [UNK] without looking. Words end at
# spaces and punctuation. Thai, Lao, Khmer and Burmese have few of either, so a whole paragraph may be one word: to
# a multilingual BERT all such paragraphs are the same [CLS] [UNK] [SEP], and equal vectors are neighbours
# with a cosine of 1. The same happens to base64, long hashes, sequences of DNA and unbroken identifiers. The guess
# that misses: what is not in the vocabulary falls into smaller pieces, as each word of 100 letters does. Break such
# texts at words (ICU does so for these languages) or take a model with SentencePiece; count [UNK] in what you embed.
#
# Version: PyPI tokenizers 0.23.3. Seen: 100 pieces of 100 letters, 1 [UNK] of 101; one [UNK] for each of two
# Thai texts of more than 100 characters.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: tokenizers==0.23.3

cat >try.py <<'PY'
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

WEATHER = "วันนี้อากาศดีมากและท้องฟ้าก็แจ่มใส"
MARKET = "พรุ่งนี้เราจะไปตลาดเพื่อซื้อผลไม้และปลา"
letters = sorted(set("ab" + WEATHER + MARKET))
vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *("##" + letter for letter in letters)]
tokenizer = Tokenizer(WordPiece({piece: n for n, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
tokenizer.normalizer = BertNormalizer(lowercase=False)
tokenizer.pre_tokenizer = BertPreTokenizer()


def pieces(text):
    found = tokenizer.encode(text).tokens
    print(f"{len(text)} characters: {len(found)} pieces, {found.count('[UNK]')} [UNK]")
    return found


assert pieces("ab" * 50) == ["a"] + ["##b", "##a"] * 49 + ["##b"]
assert pieces("ab" * 50 + "a") == ["[UNK]"]
assert "[UNK]" not in pieces(WEATHER) and "[UNK]" not in pieces(MARKET)
assert pieces(WEATHER * 4) == pieces(MARKET * 3) == ["[UNK]"]
PY
venv/bin/python try.py
echo "as described"
