#!/usr/bin/env bash
# LangChain's MarkdownHeaderTextSplitter takes the indentation out of code, and joins words of several scripts.
#
# Each line is stripped at both ends, those in fenced code, too: Python is embedded and stored without its
# blocks, nested lists are flat. Then every character that str.isprintable() calls unprintable is removed, not
# replaced, and those are spaces as well: the no-break space, the ideographic space of Japanese, tabs within a
# line; and the zero-width non-joiner, without which Persian words are others. Pieces are joined by two spaces
# and a newline, so none of them is found in its document. The guess that misses: a splitter cuts, and what
# is between the cuts is the text. ExperimentalMarkdownSyntaxTextSplitter keeps all of it.
#
# Version: PyPI langchain-text-splitters 1.1.3.
# Seen: "return x" without its indentation; "100km", "全角" without the spaces that were in them.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: langchain-text-splitters==1.1.3

cat >try.py <<'PY'
from importlib.metadata import version

from langchain_text_splitters import (ExperimentalMarkdownSyntaxTextSplitter,
                                      MarkdownHeaderTextSplitter)

HEADERS = [("#", "title")]
TEXT = """# Title

```python
def f(x):
    if x:
        return x
```

- outer
    - inner

100\N{NO-BREAK SPACE}km, 全\N{IDEOGRAPHIC SPACE}角, a\tb, می\N{ZERO WIDTH NON-JOINER}خواهم
"""
print("langchain-text-splitters", version("langchain-text-splitters"))
pieces = MarkdownHeaderTextSplitter(HEADERS).split_text(TEXT)
for piece in pieces:
    print(ascii(piece.page_content))
[text] = [piece.page_content for piece in pieces]
assert "def f(x):\nif x:\nreturn x\n" in text and "- outer\n- inner" in text
assert "100km, 全角, ab, میخواهم" in text and text not in TEXT
kept = "".join(piece.page_content
               for piece in ExperimentalMarkdownSyntaxTextSplitter(HEADERS).split_text(TEXT))
print("experimental:", ascii(kept))
assert kept == TEXT.removeprefix("# Title\n\n")
PY
venv/bin/python try.py
echo "as described"
