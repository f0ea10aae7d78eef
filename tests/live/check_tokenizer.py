#!/usr/bin/env python3
"""Compare the ids of many texts with those of the Hugging Face tokenizer of the model.

    python3 -m venv venv && venv/bin/pip install tokenizers
    venv/bin/python tests/live/check_tokenizer.py --tokenizer-json tokenizer.json \
        --dumper build/tests/test_tokenizer --model embeddinggemma-300m-q8_0.gguf

The texts are what a Debian machine has: package descriptions, fortunes, message catalogues in many
languages, source files; and texts made at random from a fixed seed: Unicode, bytes that are no
UTF-8 (replaced for the judge by Python, for the program by itself), names of added tokens, runs of
spaces. A source the machine does not have is named as missing. Ends with 1 when one id differs,
or when there were fewer than 10,000 texts.
"""
import argparse
import collections
import glob
import json
import os
import random
import struct
import subprocess
import sys
import unicodedata

FEWEST = 10_000


def package_descriptions():
    out = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True).stdout
    for record in out.split(b"\n\n"):
        at = record.find(b"\nDescription")
        if at >= 0:
            yield record[record.find(b":", at) + 2:]


def fortunes():
    for path in sorted(glob.glob("/usr/share/games/fortunes/**", recursive=True)):
        if os.path.isfile(path) and "." not in os.path.basename(path):
            with open(path, "rb") as file:
                yield from file.read().split(b"\n%\n")


def translations(path):
    """The translated texts of a compiled gettext catalogue; none of a file that is not one."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:4] != b"\xde\x12\x04\x95":
        return
    n, _, at = struct.unpack_from("<3I", data, 8)
    for i in range(n):
        length, offset = struct.unpack_from("<2I", data, at + 8 * i)
        yield from data[offset:offset + length].split(b"\0")


def message_catalogues():
    """Every script somebody translates programs into."""
    by_language = collections.Counter()
    for path in sorted(glob.glob("/usr/share/**/*.mo", recursive=True)):
        language = path.split(os.sep)[-3]
        for text in translations(path):
            if by_language[language] < 300 and len(text) > 20:
                by_language[language] += 1
                yield text


def source_files():
    patterns = ("/usr/include/**/*.h", "/usr/lib/python3/**/*.py", "/usr/share/doc/**/README*",
                "/usr/share/perl/**/*.pm", "/usr/share/vim/**/*.vim", "/usr/share/doc/**/*.html")
    for pattern in patterns:
        for path in sorted(glob.glob(pattern, recursive=True))[:300]:
            if os.path.isfile(path) and not path.endswith(".gz"):
                with open(path, "rb") as file:
                    yield file.read(30_000)


def random_unicode(rng, n):
    blocks = [(0, 0x7F), (0x80, 0x24F), (0x250, 0x52F), (0x530, 0x8FF), (0x900, 0xDFF),
              (0xE00, 0x1FFF), (0x2000, 0x2BFF), (0x3000, 0x33FF), (0x4E00, 0x9FFF),
              (0xAC00, 0xD7A3), (0xE000, 0xFFFF), (0x10000, 0x10FFFF), (0x1F300, 0x1FAFF)]
    for _ in range(n):
        some = rng.sample(blocks, rng.randint(1, 4))
        text = "".join(" " if rng.random() < 0.15 else chr(rng.randint(*rng.choice(some)))
                       for _ in range(rng.randint(0, 120)))
        yield text.encode("utf-8", "surrogatepass")  # surrogates: bad bytes, as any others


def random_bytes(rng, n):
    for i in range(n):
        text = bytearray(rng.randbytes(rng.randint(0, 100)))
        if i % 2:  # whole characters, some of them damaged
            text = bytearray("héllo 世界 привет 😀\u2581\u2581 नमस्ते <b>".encode() * 2)
            for _ in range(rng.randint(1, 8)):
                text[rng.randrange(len(text))] = rng.randrange(256)
        yield bytes(text)


def texts_with_added(rng, n, added, words):
    joints = ["", " ", "  ", "   ", "\n", "\t", "\u2581", "\u2581 ", " \u2581", "<", "</", ">"]
    for _ in range(n):
        text = ""
        for _ in range(rng.randint(1, 12)):
            name = rng.choice(added)
            text += rng.choice([name, name, name[:-1], name[1:], rng.choice(words)])
            text += rng.choice(joints)
        yield text.encode()


def runs(rng, n):
    """Runs of what is counted, and words that merge with themselves."""
    units = [" ", " ", "\u2581", "\n", "\t", "\r\n", "a", "ha", "=", "-", "0", "<", "\u3000", ".",
             " \u2581", "-\u2581", ">\u2581</", "> </", "\u200d", "哈", "ab", "A"]
    for _ in range(n):
        yield "".join(rng.choice(units) * rng.randint(1, 40)
                      for _ in range(rng.randint(1, 6))).encode()


def clusters(rng, n):
    """Letters of all scripts with marks behind them, whole and taken apart: what a normaliser reads
    together."""
    letters = [chr(c) for c in range(0x20, 0x30000) if chr(c).isalpha() and rng.random() < 0.05]
    marks = [chr(c) for c in range(0x300, 0x10000) if unicodedata.category(chr(c)) in ("Mn", "Mc")]
    marks += ["\u200d", "\u200c", "\ufe0f", "\uff9e", "\u0301", "\u3099"] * 20
    odd = list("\u00aa\u2460\uff76\ufb01\u00bd\u1100\u1161\r\n\t\u00ad\u200b\ufeff\u0600")
    for _ in range(n):
        text = ""
        for _ in range(rng.randint(1, 20)):
            text += rng.choice(odd) if rng.random() < 0.2 else rng.choice(letters)
            text += "".join(rng.choice(marks) for _ in range(rng.choice([0, 0, 1, 1, 2, 3])))
            text += rng.choice(["", "", " ", "  "])
        yield unicodedata.normalize(rng.choice(["NFC", "NFD", "NFKD"]), text).encode()


def spread(texts, limit):
    """At most limit of them, evenly from the whole."""
    texts = [text for text in texts if text]
    return texts if len(texts) <= limit else [texts[i * len(texts) // limit] for i in range(limit)]


def collect(limit, seed, added):
    rng = random.Random(seed)
    words = "the of and Straße 東京 Москва don't 1234 x=y; http://example.org/ é".split()
    sources = [
        ("package descriptions", package_descriptions()),
        ("fortunes", fortunes()),
        ("message catalogues", message_catalogues()),
        ("source files", source_files()),
        ("random Unicode", random_unicode(rng, limit)),
        ("random bytes", random_bytes(rng, limit)),
        ("added tokens", texts_with_added(rng, limit, added, words)),
        ("runs", runs(rng, limit)),
        ("clusters", clusters(rng, limit)),
    ]
    for name, texts in sources:
        try:
            yield name, spread(texts, limit)
        except OSError as error:
            print(f"{name}: {error}", file=sys.stderr)
            yield name, []


def ids_of_program(dumper, model, texts):
    data = b"".join(struct.pack("=I", len(text)) + text for text in texts)
    out = subprocess.run([dumper, "--dump", model], input=data, capture_output=True, check=True)
    at, rows = 0, []
    while at < len(out.stdout):
        n, = struct.unpack_from("=I", out.stdout, at)
        rows.append(list(struct.unpack_from(f"={n}i", out.stdout, at + 4)))
        at += 4 + 4 * n
    assert len(rows) == len(texts), f"{len(rows)} answers to {len(texts)} texts"
    return rows


def judge_of(path, n_vocab):
    """The model has one embedding for each id below n_vocab, or len(vocab); a token added beyond (a
    name for images) has none, the GGUF does not hold it, and its name is ordinary text."""
    from tokenizers import Tokenizer
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    n_vocab = n_vocab or len(spec["model"]["vocab"])
    beyond = [token["content"] for token in spec["added_tokens"] if token["id"] >= n_vocab]
    print(f"left out of the judge, as they have no embedding: {beyond}")
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["id"] < n_vocab]
    added = [token["content"] for token in spec["added_tokens"]]
    common = [name for name in added if not name.startswith("<unused")]
    return Tokenizer.from_str(json.dumps(spec)), common * 30 + added + beyond * 100


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer-json", required=True)
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--dumper", required=True, help="the built test_tokenizer")
    parser.add_argument("--n-vocab", type=int, help="tokens of the model (default: its vocabulary)")
    parser.add_argument("--limit", type=int, default=20_000, help="texts of each source")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    judge, added = judge_of(options.tokenizer_json, options.n_vocab)
    n_texts = n_tokens = n_differ = 0
    ids = range(judge.get_vocab_size())
    vocabulary = [judge.decode([i], skip_special_tokens=False).encode() for i in ids]
    for name, texts in [("vocabulary", [text for text in vocabulary if text]),
                        *collect(options.limit, options.seed, added)]:
        if not texts:
            print(f"{name}: none on this machine")
            continue
        got = ids_of_program(options.dumper, options.model, texts)
        differ = tokens = 0
        for first in range(0, len(texts), 1000):
            batch = [text.decode("utf-8", "replace") for text in texts[first:first + 1000]]
            for i, encoding in enumerate(judge.encode_batch(batch)):
                tokens += len(encoding.ids)
                if encoding.ids != got[first + i]:
                    differ += 1
                    if differ <= 3:
                        print(f"{name}: {texts[first + i][:300]!r}\n"
                              f"  judge   {encoding.ids[:60]}\n  program {got[first + i][:60]}")
        print(f"{name}: {len(texts)} texts, {tokens} tokens, {differ} texts differ", flush=True)
        n_texts, n_tokens, n_differ = n_texts + len(texts), n_tokens + tokens, n_differ + differ
    print(f"all: {n_texts} texts, {n_tokens} tokens, {n_differ} texts differ (seed {options.seed})")
    if n_texts < FEWEST:
        print(f"fewer than {FEWEST} texts prove too little", file=sys.stderr)
    return 1 if n_differ or n_texts < FEWEST else 0


if __name__ == "__main__":
    sys.exit(main())
