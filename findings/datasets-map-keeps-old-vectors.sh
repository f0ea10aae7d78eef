#!/usr/bin/env bash
# map() of Hugging Face datasets gives back old vectors after the code that computes them has changed.
#
# Its result is kept in a file under a fingerprint of the function, and the next run reads that file. The
# fingerprint has the code of the function when it is written in the script itself; of one that is imported from
# a module it has the name, and what a function calls in other modules counts by name, too. So after a mended
# embed.py, another prompt or other pooling in it, a new version of a package, or other weights under the same
# path, map() is done at once and returns the vectors of before, and the corpus that is "embedded anew" is the
# old one. The guess that misses: a cache that notices changes to the function notices them where the function
# is kept. map(..., load_from_cache_file=False), or a new_fingerprint made of model, prompt and version.
#
# Versions: PyPI datasets 5.2.0.
# Seen: 1.0 after embed() in another file was changed to return 2.0, also by a fresh process; 2.0 without the
# cache; a change to a function of the script itself is noticed.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HOME="$folder/cache" HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: datasets==5.2.0

printf '{"text": "one"}\n{"text": "two"}\n' >texts.jsonl
cat >run.py <<'PY'
import sys

import datasets

import embed


def with_vector(row):
    return {"vector": embed.embed(row["text"])}


def number(row):
    return {"number": 1}


datasets.disable_progress_bars()
texts = datasets.load_dataset("json", data_files="texts.jsonl", split="train")
keep = "anew" not in sys.argv
print(texts.map(with_vector, load_from_cache_file=keep)["vector"][0],
      texts.map(embed.row, load_from_cache_file=keep)["row"][0],
      texts.map(number, load_from_cache_file=keep)["number"][0])
PY
write() {
    printf 'def embed(text):\n    return [%s]\n\n\ndef row(r):\n    return {"row": %s}\n' "$1" "$1" >embed.py
}
write 1.0
first=$(venv/bin/python run.py)
write 2.0
sed -i 's/"number": 1/"number": 2/' run.py
second=$(venv/bin/python run.py)
third=$(venv/bin/python run.py anew)
echo "vector, row, number: $first; after all three were changed: $second; without the cache: $third"
[ "$first" = "[1.0] 1.0 1" ]
[ "$second" = "[1.0] 1.0 2" ]
[ "$third" = "[2.0] 2.0 2" ]
echo "as described"
