#!/usr/bin/env bash
# LangChain's start_index is -1, or another place, when pieces are measured in tokens.
#
# add_start_index=True writes into a piece's metadata where it begins. It is not known from the cut but looked
# for: str.find() from the end of the piece before, less chunk_overlap, as characters. With a length_function
# that counts tokens or words, as every model needs, an overlap of 50 tokens is 50 characters there, and the
# piece begins before that place: find() gives -1, or where the same words come again. Both are plain integers,
# and text[-1:] is no error. The guess that misses: with any length function the index is where the text was
# cut. Check text.startswith(piece, start_index); look from the previous index + 1 yourself; or take a splitter
# that returns offsets.
#
# Version: PyPI langchain-text-splitters 1.1.3.
# Seen: of 11 pieces that overlap by 3 words every second has -1; in a text that repeats itself 84 instead of 42.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: langchain-text-splitters==1.1.3

cat >try.py <<'PY'
from importlib.metadata import version

from langchain_text_splitters import RecursiveCharacterTextSplitter

print("langchain-text-splitters", version("langchain-text-splitters"))


def starts(text, overlap, **options):
    splitter = RecursiveCharacterTextSplitter(chunk_overlap=overlap, separators=[" "],
                                              add_start_index=True, **options)
    found = [(piece.metadata["start_index"], piece.page_content)
             for piece in splitter.create_documents([text])]
    right, place = [], -1
    for _, piece in found:
        place = text.index(piece, place + 1)
        right.append(place)
    print(options.get("length_function", len).__name__, "overlap", overlap,
          "seen", [start for start, _ in found], "right", right)
    return [start for start, _ in found], right


def words(text):
    return len(text.split())


different = " ".join(f"word{n:03}" for n in range(80))
repeating = " ".join(f"word{n % 7}" for n in range(60))
seen, right = starts(different, 3, chunk_size=10, length_function=words)
assert set(seen[1::2]) == {-1} and seen[::2] == right[::2] and right[1] == 56
seen, right = starts(repeating, 3, chunk_size=10, length_function=words)
assert seen[1] == 84 and right[1] == 42
seen, right = starts(different, 0, chunk_size=10, length_function=words)
assert seen == right
seen, right = starts(different, 24, chunk_size=80)
assert seen == right
PY
venv/bin/python try.py
echo "as described"
