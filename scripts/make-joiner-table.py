#!/usr/bin/env python3
"""Make inference/tokenizer_joiners.c: the characters that the Hugging Face normaliser of
SentencePiece models takes together with the one before them.

Usage: make-joiner-table.py > inference/tokenizer_joiners.c

It parts a text into what Unicode calls extended grapheme clusters, and a cluster of up to 5 bytes
is replaced as a whole. So only characters of up to 3 bytes matter, and whether one joins can be
asked: U+00AA becomes "a", and what has joined it is gone. Needs sentencepiece and tokenizers.
"""

import io

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import __version__, normalizers

HEAD = """/*
 * tokenizer_joiners.c: characters that are read together with the one before them. Made by
 * scripts/make-joiner-table.py, by asking tokenizers %s; see tokenizer_charsmap.h.
 */
#include "inference/tokenizer_charsmap.h"

const struct joiner_range joiner_ranges[] = {
"""


def charsmap():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a few words", "to train a model with"] * 20), model_writer=model,
        model_type="unigram", vocab_size=25, normalization_rule_name="nmt_nfkc",
        hard_vocab_limit=False, minloglevel=2)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    return proto.normalizer_spec.precompiled_charsmap


def main():
    normalize = normalizers.Precompiled(charsmap()).normalize_str
    ranges = []
    for code in range(1, 0x10000):
        if 0xD800 <= code < 0xE000 or normalize(chr(code)) == "":
            continue # what vanishes by itself is a control character, and joins nothing
        if normalize("\u00aa" + chr(code)) == "a":
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    print(HEAD % __version__, end="")
    line = "   "
    for first, last in ranges:
        part = f" {{0x{first:04x}, 0x{last:04x}}},"
        if len(line + part) > 100:
            print(line)
            line = "   "
        line += part
    print(line)
    print("};\nconst size_t joiner_ranges_n = sizeof joiner_ranges / sizeof *joiner_ranges;")


if __name__ == "__main__":
    main()
