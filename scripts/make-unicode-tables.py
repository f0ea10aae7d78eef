#!/usr/bin/env python3
"""Write the tables of inference/tokenizer_nfc.h: canonical composition, and kinds of characters.

Usage: make-unicode-tables.py    (writes inference/tokenizer_nfc_tables.c and _class_tables.c)

Asks the normalizers and the regular expressions of the Hugging Face tokenizers (PyPI tokenizers)
about every Unicode character, so that the tables hold the Unicode versions that they have.
unicodedata only says which combining classes there are. Hangul is left to arithmetic, which is
checked here.
"""

import sys
import unicodedata
from itertools import groupby
from pathlib import Path

import tokenizers
from tokenizers import Regex
from tokenizers.normalizers import NFC, NFD
from tokenizers.pre_tokenizers import Split

FOLDER = Path(__file__).resolve().parent.parent / "inference"
HANGUL = range(0xAC00, 0xD7A4)
NFC, NFD = NFC().normalize_str, NFD().normalize_str


def characters():
    return (code for code in range(0x110000) if not 0xD800 <= code < 0xE000)


def ranges(pairs):
    """(first, last, value) of sorted (code, value)."""
    for _, group in groupby(enumerate(pairs), lambda pair: (pair[1][0] - pair[0], pair[1][1])):
        group = [pair for _, pair in group]
        yield group[0][0], group[-1][0], group[0][1]


def is_before(a, b):
    """Of marks that do not decompose: is the class of a smaller than that of b?"""
    return NFD("a" + b + a) == "a" + a + b != "a" + b + a


def class_finder():
    """The combining class of a character, by how it is put in order with others."""
    known = {}
    for code in characters():
        combining, mark = unicodedata.combining(chr(code)), chr(code)
        # One that the normalizer knows: it goes before or behind the marks of another class.
        if combining and combining not in known and NFD(mark) == mark and (
                is_before("\u0334", mark) or is_before(mark, "\u0301")):
            known[combining] = mark

    def find(mark):
        if not is_before("\u0334", mark) and not is_before(mark, "\u0301"):
            return 0
        for number, rep in known.items():
            if not is_before(mark, rep) and not is_before(rep, mark):
                return number
        sys.exit(f"U+{ord(mark):04X} has a combining class that unicodedata does not know")
    return find


def check_hangul(code):
    index = code - 0xAC00
    jamo = [0x1100 + index // 588, 0x1161 + index % 588 // 28]
    if index % 28:
        jamo.append(0x11A7 + index % 28)
    if [ord(c) for c in NFD(chr(code))] != jamo or NFC("".join(map(chr, jamo))) != chr(code):
        sys.exit(f"U+{code:04X} is not composed as tokenizer_nfc.c does")


def composition():
    """singles: (code, to) that become one other character; pairs: (code, first, second, is_made):
    of two characters, of which the first may be taken apart again; is_made: they become it."""
    singles, pairs = [], []
    whole = {NFD(chr(code)): chr(code) for code in characters() if len(NFD(chr(code))) > 1}
    for code in characters():
        parts = NFD(chr(code))
        if code in HANGUL:
            check_hangul(code)
        elif len(parts) == 1 and parts != chr(code):
            singles.append((code, ord(parts)))
        elif len(parts) > 1:
            first = NFC(parts[:-1])
            if len(first) != 1: # one that is taken apart, but never made
                first = whole[parts[:-1]]
            pairs.append((code, ord(first), ord(parts[-1]), NFC(parts) == chr(code)))
    for code, first, second, is_made in pairs:
        if is_made and NFC(chr(first) + chr(second)) != chr(code):
            sys.exit(f"U+{code:04X} is not made of U+{first:04X} and U+{second:04X}")
    return singles, pairs


def kinds():
    """letters, numbers and white space, as the regular expressions have them."""
    found = {}
    for kind, pattern in enumerate((r"\p{L}", r"\p{N}", r"\s"), 1):
        split = Split(Regex(pattern), "isolated").pre_tokenize_str
        for block in range(0, 0x110000, 0x1000):
            codes = [c for c in range(block, block + 0x1000) if not 0xD800 <= c < 0xE000]
            # What matches stands alone; what does not stands together with the ! before it.
            for piece, (start, _) in split("".join("!" + chr(c) for c in codes)):
                if start % 2:
                    found[codes[start // 2]] = kind
    return sorted(found.items())


class File:
    def __init__(self, name):
        self.lines = [f"""/*
 * {name}: made by scripts/make-unicode-tables.py with tokenizers {tokenizers.__version__}; see
 * tokenizer_nfc.h.
 */
#include "inference/tokenizer_nfc.h"

/* clang-format off */"""]
        self.path = FOLDER / name

    def table(self, kind, name, items):
        items = list(items)
        self.lines.append(f"\nconst {kind} {name}[] = {{")
        line = "   "
        for item in items:
            if len(line) + len(item) + 2 > 100:
                self.lines.append(line)
                line = "   "
            line += f" {item},"
        self.lines += [line, "};", f"const size_t {name}_n = sizeof {name} / sizeof *{name};"]

    def close(self):
        self.path.write_text("\n".join(self.lines) + "\n")


def main():
    singles, pairs = composition()
    find = class_finder()
    marks = [(code, find(chr(code))) for code in characters()
             if len(NFD(chr(code))) == 1 and code >= 0x300
             and unicodedata.category(chr(code)) not in ("Lo", "Lu", "Ll", "So", "Po", "Co")]
    out = File("tokenizer_nfc_tables.c")
    out.table("struct nfc_class", "nfc_classes",
              (f"{{0x{a:X}, 0x{b:X}, {value}}}"
               for a, b, value in ranges([m for m in marks if m[1]])))
    out.table("struct nfc_single", "nfc_singles", (f"{{0x{a:X}, 0x{b:X}}}" for a, b in singles))
    out.table("struct nfc_pair", "nfc_pairs",
              (f"{{0x{code:X}, 0x{a:X}, 0x{b:X}}}" for code, a, b, _ in pairs))
    made = sorted((a, b, i) for i, (_, a, b, is_made) in enumerate(pairs) if is_made)
    out.close()
    out = File("tokenizer_class_tables.c")
    out.table("uint16_t", "nfc_made", (str(i) for _, _, i in made))
    out.table("struct nfc_kind", "nfc_kinds",
              (f"{{0x{a:X}, 0x{b:X}, {kind}}}" for a, b, kind in ranges(kinds())))
    out.close()


if __name__ == "__main__":
    main()
