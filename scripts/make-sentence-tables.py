#!/usr/bin/env python3
"""Write worker/pipeline/sentences_tables.c: the property Sentence_Break of each character.

Usage: make-sentence-tables.py [FILE]

FILE: SentenceBreakProperty.txt of the Unicode Character Database, by default that of Debian's
package unicode-data. Where upper and lower case alternate, a range holds both.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT = "/usr/share/unicode/auxiliary/SentenceBreakProperty.txt"
NAMES = {"CR": "CR", "LF": "LF", "Sep": "SEP", "Extend": "EXTEND", "Format": "FORMAT", "Sp": "SP",
         "Lower": "LOWER", "Upper": "UPPER", "OLetter": "OLETTER", "Numeric": "NUMERIC",
         "ATerm": "ATERM", "SContinue": "SCONTINUE", "STerm": "STERM", "Close": "CLOSE"}


def read(path):
    """(version, {code: class})"""
    text = Path(path).read_text(encoding="utf-8")
    classes = {}
    for line in text.splitlines():
        found = re.match(r"([0-9A-F]+)(?:\.\.([0-9A-F]+))?\s*;\s*(\w+)", line)
        if found:
            first = int(found[1], 16)
            for code in range(first, int(found[2] or found[1], 16) + 1):
                classes[code] = NAMES[found[3]]
    return re.match(r"# SentenceBreakProperty-(\d+\.\d+)", text)[1], classes


def ranges(classes):
    """[first, last, class], where UPPER_LOWER begins with a capital, and every second one is."""
    out = []
    for code, kind in sorted(classes.items()):
        if out and out[-1][1] == code - 1:
            first, last, before = out[-1]
            if before == kind:
                out[-1][1] = code
                continue
            pair = {"UPPER", "LOWER"} == {classes[last], kind}
            if pair and (first == last or before in ("UPPER_LOWER", "LOWER_UPPER")):
                upper_first = classes[first] == "UPPER"
                out[-1] = [first, code, "UPPER_LOWER" if upper_first else "LOWER_UPPER"]
                continue
        out.append([code, code, kind])
    return out


def main():
    version, classes = read(sys.argv[1] if len(sys.argv) > 1 else DEFAULT)
    rows = ranges(classes)
    cells = [f"{{0x{first:x}, 0x{last:x}, {kind}}}," for first, last, kind in rows]
    lines, line = [], "   "
    for cell in cells:
        if len(line) + 1 + len(cell) > 100:
            lines.append(line)
            line = "   "
        line += " " + cell
    lines.append(line)
    (ROOT / "worker/pipeline/sentences_tables.c").write_text(f"""/*
 * sentences_tables.c: made by scripts/make-sentence-tables.py of Unicode {version}; see
 * sentences_tables.h.
 */
#include "worker/pipeline/sentences_tables.h"

/* clang-format off */
const struct sentence_range sentence_ranges[] = {{
{chr(10).join(lines)}
}};
/* clang-format on */

const size_t n_sentence_ranges = sizeof sentence_ranges / sizeof *sentence_ranges;
""", encoding="ascii")
    print(f"Unicode {version}: {len(rows)} ranges")


if __name__ == "__main__":
    main()
