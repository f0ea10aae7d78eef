#!/usr/bin/env python3
"""Write inference/tokenizer_fold_tables.c: what BERT's tokenizers make of each character.

Usage: make-fold-tables.py > inference/tokenizer_fold_tables.c    (then clang-format -i)

Asks the Hugging Face tokenizer (PyPI tokenizers) about every Unicode character, one at a time, so
that the tables hold the Unicode versions that it has, which differ between its parts. Hangul
syllables are left out: tokenizer_fold.c takes them apart by arithmetic, which is checked here. So
is that taking accents off and then lower case, as tokenizer_fold.c does, is what the tokenizer does
when it does both.
"""

import sys
from itertools import groupby

import tokenizers
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer



def normalizer(**steps):
    return BertNormalizer(clean_text=True, handle_chinese_chars=True, **steps).normalize_str


CLEAN = normalizer(strip_accents=False, lowercase=False)
STRIP = normalizer(strip_accents=True, lowercase=False)
LOWER = normalizer(strip_accents=False, lowercase=True)
BOTH = normalizer(strip_accents=True, lowercase=True)
SPLITTER = BertPreTokenizer()
HANGUL = range(0xAC00, 0xD7A4)
LONGEST = 3


def characters():
    return (code for code in range(0x110000) if not 0xD800 <= code < 0xE000)


def ranges(codes):
    """[(first, last)] of sorted numbers."""
    for _, group in groupby(enumerate(codes), lambda pair: pair[1] - pair[0]):
        group = [code for _, code in group]
        yield group[0], group[-1]


def is_punctuation(code):
    return len(SPLITTER.pre_tokenize_str(f"a{chr(code)}a")) == 3


def check_hangul(code, result):
    index = code - 0xAC00
    jamo = [0x1100 + index // 588, 0x1161 + index % 588 // 28]
    if index % 28:
        jamo.append(0x11A7 + index % 28)
    if [ord(c) for c in result] != jamo:
        sys.exit(f"U+{code:04X} is not taken apart as tokenizer_fold.c does")


def runs(singles):
    """(first, n, step, slope, to): character first + i * step becomes to + i * step * slope."""
    at = 0
    while at < len(singles):
        best = (1, 1, 1)
        for step in (1, 2):
            for slope in (0, 1):
                n = 1
                while at + n < len(singles) and n < 0xFFFF and singles[at + n] == (
                        singles[at][0] + n * step, singles[at][1] + n * step * slope):
                    n += 1
                best = max(best, (n, step, slope))
        n, step, slope = best
        yield singles[at][0], n, step, slope, singles[at][1]
        at += n


def rows(items):
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > 100:
            print(line)
            line = "   "
        line += f" {item},"
    print(line)


def table(kind, name, items):
    items = list(items)
    print(f"\nconst {kind.replace('*', name + '[]')} = {{")
    rows(items)
    print("};")
    print(f"const size_t {name}_n = sizeof {name} / sizeof *{name};")


def mapping(step, codes):
    """Rows of runs and of characters that are in none: what becomes another."""
    singles, several = [], []
    for code in codes:
        result = step(chr(code)).strip(" ")
        assert len(result) <= LONGEST, f"U+{code:04X} becomes {len(result)} characters"
        if len(result) > 1:
            several.append((code, [ord(c) for c in result]))
        elif result not in ("", chr(code)):
            singles.append((code, ord(result)))
    found = list(runs(singles))
    alone = sorted(several + [(first, [to]) for first, n, _, _, to in found if n == 1])
    return ([f"{{0x{first:X}, {n}, {step}, {slope}, 0x{to:X}}}"
             for first, n, step, slope, to in found if n > 1],
            ["{" + ", ".join(f"0x{c:X}" for c in [code] + to) + "}" for code, to in alone])


def check_both(codes):
    for code in codes:
        if "".join(LOWER(c).strip(" ") for c in STRIP(chr(code)).strip(" ")) != \
                BOTH(chr(code)).strip(" "):
            sys.exit(f"U+{code:04X}: lower case without accents is not that of the two steps")


def main():
    dropped, spaces, apart, accents, letters = [], [], [], [], []
    for code in characters():
        result = CLEAN(chr(code))
        if result == "":
            dropped.append(code)
        elif result == " ":
            spaces.append(code)
        elif code in HANGUL:
            check_hangul(code, STRIP(chr(code)))
        else:
            letters.append(code)
            if result[0] == " ":
                apart.append(code)
            if STRIP(chr(code)) == "":
                accents.append(code)
    check_both(letters)
    punctuation = [code for code in characters() if is_punctuation(code)]
    print(f"""/*
 * tokenizer_fold_tables.c: made by scripts/make-fold-tables.py with tokenizers {
     tokenizers.__version__}; see
 * tokenizer_fold.h.
 */
#include "inference/tokenizer_fold.h"

/* clang-format off */""")
    for name, codes in (("fold_dropped", dropped), ("fold_spaces", spaces), ("fold_apart", apart),
                        ("fold_punctuation", punctuation), ("fold_accents", accents)):
        table("struct fold_range *", name, (f"{{0x{a:X}, 0x{b:X}}}" for a, b in ranges(codes)))
    for name, step in (("fold_strip", STRIP), ("fold_lower", LOWER)):
        of_runs, alone = mapping(step, letters)
        table("struct fold_run *", f"{name}_runs", of_runs)
        table("uint32_t *[1 + FOLD_LONGEST]", f"{name}_alone", alone)


if __name__ == "__main__":
    main()
