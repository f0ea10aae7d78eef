#!/usr/bin/env python3
"""The tables of options in docs/ are those of the program.

    check_options.py [--write] EMBEDMILL

Between the lines `<!-- options: redis -->` and `<!-- end of options -->` a page has a row for each
option of that group, as `embedmill run --help` prints it. --write makes the tables; without it a
table that differs fails. A group that this build lacks is not compared.
"""

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
TABLE = re.compile(r"(<!-- options: ([a-z ,]+) -->\n)(.*?)(<!-- end of options -->\n)", re.S)


def options_of(text):
    """{group: [(flags, help, default)]} of what --help prints."""
    groups, group = {}, None
    for line in text.split("\n"):
        if re.fullmatch(r"[A-Za-z][A-Za-z ]*:", line):
            group = groups.setdefault(line[:-1], [])
        elif group is None or not line.startswith("  "):
            group = None if line and not line.startswith(" ") else group
        elif line.startswith("  -"):
            found = re.fullmatch(r"  (\S.*?)(?:\s{2,}(\S.*))?", line)
            flags, words = found.groups()
            if words is None and len(flags) > 32 and re.search(r"\S \S.* ", flags):
                flags, words = flags[:31].rstrip(), flags[31:].strip()
            group.append([flags, words or ""])
        elif group:
            group[-1][1] = (group[-1][1] + " " + line.strip()).strip()
    return {name: [split_default(*row) for row in rows] for name, rows in groups.items()}


def split_default(flags, words):
    found = re.search(r"\s*\(default: (.*?)\)\.?$", words)
    default = found.group(1) if found else ""
    return flags, words[:found.start()] if found else words, default


def cell(text):
    return re.sub(r"([|])", r"\\\1", text)


def table(rows):
    yield "| option | | default |\n|---|---|---|\n"
    for flags, words, default in rows:
        is_name = default and " " not in default
        shown = f"`{default}`" if is_name else default
        yield f"| `{cell(flags)}` | {cell(words)} | {cell(shown)} |\n"


def main():
    write = sys.argv[1] == "--write"
    text = subprocess.run([sys.argv[-1], "run", "--help"], check=True, capture_output=True,
                          text=True).stdout
    groups = options_of(text)
    assert len(groups["redis"]) > 10 and groups["redis"][0][0] == "--redis-url URL", groups["redis"]
    bad, n = [], 0
    for page in sorted(DOCS.glob("*.md")):
        old = page.read_text(encoding="utf-8")

        def replace(found):
            nonlocal n
            names = found.group(2).split(", ")
            if any(name not in groups for name in names):
                return found.group()
            n += 1
            rows = [row for name in names for row in groups[name]]
            return found.group(1) + "".join(table(rows)) + found.group(4)

        new = TABLE.sub(replace, old)
        if new != old and write:
            page.write_text(new, encoding="utf-8")
        elif new != old:
            bad.append(f"docs/{page.name}: its table of options is not that of the program: run "
                       "tests/checks/check_options.py --write build/embedmill")
    assert n or write, "no page has a table of options"
    print("\n".join(bad) if bad else f"{n} tables of options")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
