#!/usr/bin/env bash
# SQLite's full-text index finds no Chinese or Japanese word of two characters, whichever tokenizer it has.
#
# unicode61, the default, takes a run of ideographs up to the next space or mark for one word: a sentence is found
# as a whole only. So one changes to trigram, which finds any part of a text, from three characters on; shorter ones
# match no row. Most Chinese words, and most Japanese ones in kanji, have two. Neither raises: the keyword half
# of a hybrid search is empty for these languages, and with trigram also for "AI", "Go" and "C#". The guess that
# misses: an index of all parts finds the short ones as well, and what cannot be searched is refused. With a
# trigram index LIKE '%...%' finds them (reading all rows); or give FTS5 text that a segmenter has put spaces into.
#
# Version: SQLite 3.54.1 (PyPI apsw 3.54.1.0). Seen: 北京 and 東京 in no row by MATCH, with either tokenizer; with
# trigram the four characters of 北京大学 in one, AI in none, and both words by LIKE.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: apsw==3.54.1.0

cat >try.py <<'PY'
import apsw

print("SQLite", apsw.sqlite_lib_version())
database = apsw.Connection(":memory:")
TEXTS = "我们在北京大学学习", "東京タワーに行きました", "a course on AI in Go"


def found(tokenizer, query, how="MATCH"):
    table = f"texts_{tokenizer}"
    database.execute(f"CREATE VIRTUAL TABLE IF NOT EXISTS {table} USING fts5(text, tokenize='{tokenizer}')")
    if not database.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]:
        database.executemany(f"INSERT INTO {table} VALUES (?)", [(text,) for text in TEXTS])
    rows = [text for text, in database.execute(f"SELECT text FROM {table} WHERE text {how} ?", (query,))]
    print(tokenizer, how, query, rows)
    return len(rows)


assert found("unicode61", '"北京大学"') == found("unicode61", '"北京"') == found("unicode61", '"東京"') == 0
assert found("unicode61", '"AI"') == 1
assert found("trigram", '"北京大学"') == 1
assert found("trigram", '"北京"') == found("trigram", '"東京"') == found("trigram", '"AI"') == 0
assert found("trigram", "%北京%", "LIKE") == found("trigram", "%東京%", "LIKE") == 1
PY
venv/bin/python try.py
echo "as described"
