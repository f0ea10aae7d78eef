"""The texts that are measured: package descriptions and fortunes, or a file of the user's."""

import os
import random
import subprocess
import sys
from pathlib import Path

PROMPT = "title: none | text: "
FORTUNES = Path("/usr/share/games/fortunes")
SEED = 20261


def package_descriptions():
    run = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True,
                         env={**os.environ, "LC_ALL": "C.UTF-8"})
    return sorted({line.split(": ", 1)[1]
                   for line in run.stdout.decode("utf-8", "replace").splitlines()
                   if line.startswith(("Description: ", "Description-en: "))})


def fortunes():
    found = set()
    for index in sorted(FORTUNES.glob("*.dat")):
        text = index.with_suffix("").read_text(encoding="utf-8", errors="replace")
        found |= {" ".join(entry.split()) for entry in text.split("\n%\n")}
    return sorted(found - {""})


def spread(texts, n):
    """n of them, evenly from the first to the last."""
    return [texts[i * len(texts) // n] for i in range(n)]


def read_corpus(path, n):
    """Half descriptions of packages, half fortunes, in a fixed random order."""
    if path:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            sys.exit(f"bench-peers: --corpus {path}: {getattr(e, 'strerror', None) or e}")
        texts = sorted({line.strip() for line in lines} - {""})
        if not texts:
            sys.exit(f"bench-peers: --corpus {path}: the file has no texts")
        texts = spread(texts, min(n, len(texts)))
    else:
        try:
            texts = spread(package_descriptions(), n - n // 2) + spread(fortunes(), n // 2)
        except (OSError, subprocess.CalledProcessError, IndexError) as e:
            sys.exit(f"bench-peers: no package descriptions or fortunes ({e}): install the package "
                     "fortunes and run 'apt-get update', or name a file of texts with --corpus")
    random.Random(SEED).shuffle(texts)
    return texts


def texts_of_length(corpus, n, n_tokens):
    """n texts of about so many tokens, prompt included, cut at words from the corpus in a row."""
    words = " ".join(corpus).split()
    n_chars = (n_tokens - 10) * 4.3
    texts, at = [], 0
    for _ in range(n):
        taken = ""
        while len(taken) < n_chars:
            taken += ("" if not taken else " ") + words[at % len(words)]
            at += 1
        texts.append(taken)
    return texts
