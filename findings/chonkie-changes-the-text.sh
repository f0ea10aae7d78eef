#!/usr/bin/env bash
# chonkie's token chunks hold what the tokenizer decodes, not the text that was cut.
#
# TokenChunker cuts the ids and decodes each piece; RecursiveChunker does so where nothing else fits. With
# the tokenizer of a BERT model, which is what one gives it to respect that model's limit, chunk.text is in
# lower case, without accents, with blanks around punctuation and with [UNK] in place of what the vocabulary
# lacks. That goes into the store, into prompts and, if another model embeds it, into the vectors.
# start_index and end_index count characters of these texts, so they point beside their place in the
# original from the first difference on: in a long text they drift by as much as all before it has grown.
# The guess that misses: a chunk is a part of the text, text[start_index:end_index]. SentenceChunker gives
# such parts; else cut by the offsets of the tokenizer's encode().
#
# Versions: chonkie 1.7.0, tokenizers 0.23.3, a vocabulary made here with BERT's normaliser and decoder.
# Seen: ". don ' t [UNK]" for ". Don't leave", and [24:39] is ". Don't leave Z".
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: chonkie==1.7.0 tokenizers==0.23.3

cat >try.py <<'PY'
from importlib.metadata import version

import chonkie
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

words = ["[UNK]", "the", "ferry", "leaves", "at", ".", "oslo", "don", "'", "t", "zurich"]
tokenizer = Tokenizer(models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer()
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
tokenizer.decoder = decoders.WordPiece()
TEXT = "The ferry leaves at Oslo. Don't leave Zürich at Oslo."


def cut(chunker):
    print(type(chunker).__name__)
    chunks = chunker.chunk(TEXT)
    for chunk in chunks:
        print(f"   {chunk.text!r} of {TEXT[chunk.start_index:chunk.end_index]!r}")
    return [chunk.text for chunk in chunks], [
        chunk.text == TEXT[chunk.start_index:chunk.end_index] for chunk in chunks]


print("chonkie", version("chonkie"))
texts, same = cut(chonkie.TokenChunker(tokenizer, chunk_size=5, chunk_overlap=0))
assert texts == ["the ferry leaves at oslo", ". don ' t [UNK]", "zurich at oslo."] and not any(same)
texts, same = cut(chonkie.RecursiveChunker(tokenizer, chunk_size=5))
assert "don ' t [UNK] zurich" in texts and not all(same)
texts, same = cut(chonkie.SentenceChunker(tokenizer, chunk_size=5, chunk_overlap=0))
assert "".join(texts) == TEXT and all(same)

pieces, ids = [], tokenizer.encode(TEXT).offsets
for first in range(0, len(ids), 5):
    pieces.append(TEXT[ids[first][0]:ids[min(first + 5, len(ids)) - 1][1]])
print("by offsets", pieces)
assert pieces == ["The ferry leaves at Oslo", ". Don't leave", "Zürich at Oslo."]
PY
venv/bin/python try.py
echo "as described"
