#!/usr/bin/env bash
# LlamaIndex embeds a document's metadata with its text, so the path of a file decides what is found.
#
# What an index sends to the embedding model is "key: value" of all metadata, a blank line and then the text;
# of a query it sends the text alone. Files read by SimpleDirectoryReader have file_path in it, always,
# and what an application adds for its filters (tenant, url, date) comes in as well. One text at two places
# has two vectors and is no duplicate, a search for a word of the path finds all files below it, short
# texts are mostly path, and a folder that is renamed or a field that is added makes every vector stale. The
# splitter pays for it, too: the chunk is smaller by what the metadata takes. The guess that misses: an
# embedding is one of the text, and metadata is for filters and answers. Name what must stay out in
# excluded_embed_metadata_keys.
#
# Version: llama-index-core 0.14.25, with an embedding class that records what it is given.
# Seen: "file_path: /.../2024/boats.txt\n\nThe last boat leaves at ten." for a file, the text alone
# when file_path is excluded.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: llama-index-core==0.14.25

mkdir -p corpus/2024 corpus/2025
echo "The last boat leaves at ten." | tee corpus/2024/boats.txt >corpus/2025/boats.txt
cat >try.py <<'PY'
from importlib.metadata import version

from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding

TEXT = "The last boat leaves at ten."
given = []


class Recorded(BaseEmbedding):
    def _get_text_embedding(self, text):
        given.append(text)
        return [1.0, 0.0]

    def _get_query_embedding(self, query):
        given.append(query)
        return [1.0, 0.0]

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


def embedded(documents):
    given.clear()
    index = VectorStoreIndex.from_documents(documents, embed_model=Recorded())
    texts = list(given)
    given.clear()
    index.as_retriever().retrieve("when does the last boat leave")
    assert given == ["when does the last boat leave"]
    for text in texts:
        print(repr(text))
    return texts


print("llama-index-core", version("llama-index-core"))
documents = SimpleDirectoryReader("corpus", recursive=True).load_data()
texts = embedded(documents)
assert len(texts) == len(set(texts)) == 2
for text, year in zip(sorted(texts), ("2024", "2025")):
    head, _, tail = text.partition("\n\n")
    assert head.startswith("file_path: ") and head.endswith(f"/corpus/{year}/boats.txt")
    assert tail.strip() == TEXT

for document in documents:
    document.excluded_embed_metadata_keys.append("file_path")
assert {text.strip() for text in embedded(documents)} == {TEXT}
PY
venv/bin/python try.py
echo "as described"
