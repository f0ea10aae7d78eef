#!/usr/bin/env python3
"""Two programs on the same texts, in turns: the measuring part of scripts/bench-llamacpp.

A round is one run of each side, one right after the other, and gives one ratio; who begins changes
from round to round. The median of the ratios with the lowest and the highest is the result, so that
whatever else the machine does meets both sides alike. While one side runs the other waits, reading
from its standard input.

The ratio of CPU time is told beside it: it hardly moves on a machine that is busy otherwise, where
the clock's does, and above all for llama.cpp, whose threads spin while they wait for each other.

Both sides tokenise, embed and normalise within the time taken; the prompt is part of the texts.
llama.cpp gets the ubatch that is its fastest in each case, out of 256, 512, 1024 and 2048.
"""

import argparse
import datetime
import json
import math
import os
import platform
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT = "title: none | text: "
UBATCHES = (256, 512, 1024, 2048)
FORTUNES = Path("/usr/share/games/fortunes")
SEED = 20261
PAUSE = 0.03  # seconds; OpenMP's threads spin for some milliseconds after their work
UNFIT = 2


def say(text):
    print(f"bench-pairs: {text}", file=sys.stderr, flush=True)


class Unfit(Exception):
    """A text is longer than the ubatch."""


class Peer:
    """One side: tests/bench/peer.c with a model open and a file of texts."""

    def __init__(self, program, model, texts, threads, ubatch=0):
        self.process = subprocess.Popen(
            [program, model, texts, str(threads), str(ubatch)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.opened = float(self.read().split()[1])

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            if code == UNFIT:
                raise Unfit
            sys.exit(f"bench-pairs: {self.process.args[0]} ended with code {code}")
        return line

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.read()

    def time(self, command):
        return self.times(command)[0]

    def times(self, command):
        """Seconds on the clock, and of all CPUs together."""
        time.sleep(PAUSE)
        seconds, _, cpu_seconds = self.ask(command).split()
        return float(seconds), float(cpu_seconds)

    def memory(self):
        resident, anonymous = self.ask("memory").split()
        return {"resident_mib": int(resident) / 1024, "anonymous_mib": int(anonymous) / 1024}

    def vectors(self, folder):
        path = Path(folder) / "vectors"
        dim = int(self.ask(f"vectors {path}"))
        return list(struct.iter_unpack(f"<{dim}f", path.read_bytes()))

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


# Texts.

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
            sys.exit(f"bench-pairs: --corpus {path}: {getattr(e, 'strerror', None) or e}")
        texts = sorted({line.strip() for line in lines} - {""})
        if not texts:
            sys.exit(f"bench-pairs: --corpus {path}: there is no text in it")
        texts = spread(texts, min(n, len(texts)))
    else:
        try:
            texts = spread(package_descriptions(), n - n // 2) + spread(fortunes(), n // 2)
        except (OSError, subprocess.CalledProcessError, IndexError) as e:
            sys.exit(f"bench-pairs: no package descriptions or fortunes ({e}): install the package "
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


# Measuring.

def summary(ratios):
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def best_ubatch(options, texts, threads, command):
    best = None
    for ubatch in UBATCHES:
        try:
            with Peer(options.theirs, options.model, texts, threads, ubatch) as peer:
                peer.time(command)
                took = min(peer.time(command) for _ in range(2))
        except Unfit:
            continue
        if not best or took < best[0]:
            best = took, ubatch
    return best[1]


def cosine(a, b):
    dot = math.fsum(x * y for x, y in zip(a, b))
    return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def in_turns(n_rounds, ours, theirs):
    """What the two functions return, round by round; who begins changes."""
    results = []
    for i in range(n_rounds):
        if i % 2 == 0:
            a = ours()
            b = theirs()
        else:
            b = theirs()
            a = ours()
        results.append((a, b))
    return results


def compare_vectors(ours, theirs, folder):
    found = [cosine(a, b) for a, b in zip(ours.vectors(folder), theirs.vectors(folder))]
    return {"mean": statistics.fmean(found), "min": min(found)}


def measure_batch(options, folder, name, texts, threads):
    path = Path(folder) / "texts"
    path.write_text("".join(PROMPT + text + "\n" for text in texts), encoding="utf-8")
    ubatch = best_ubatch(options, path, threads, "batch")
    with Peer(options.ours, options.model, path, threads) as ours, \
         Peer(options.theirs, options.model, path, threads, ubatch) as theirs:
        n_tokens = int(ours.ask("batch").split()[1])
        theirs.ask("batch")
        pairs = in_turns(options.rounds, lambda: ours.times("batch"), lambda: theirs.times("batch"))
        case = {
            "name": name, "threads": threads, "n_texts": len(texts), "n_tokens": n_tokens,
            "ubatch": ubatch,
            "tokens_agree": ours.ask("tokens") == theirs.ask("tokens"),
            "cosine": compare_vectors(ours, theirs, folder),
            "ratio": summary([b[0] / a[0] for a, b in pairs]),
            "cpu_ratio": summary([b[1] / a[1] for a, b in pairs]),
        }
        for side, peer, i in (("ours", ours, 0), ("theirs", theirs, 1)):
            seconds = [pair[i][0] for pair in pairs]
            case[side] = {"seconds": seconds, "cpu_seconds": [pair[i][1] for pair in pairs],
                          **peer.memory(),
                          "tokens_per_s": n_tokens / statistics.median(seconds),
                          "texts_per_s": len(texts) / statistics.median(seconds)}
    say(f"{name}, {threads} threads: {case['ratio']['median']:.2f}")
    return case


def percentile(values, share):
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def measure_one(options, folder, text, threads):
    path = Path(folder) / "texts"
    path.write_text(PROMPT + text + "\n", encoding="utf-8")
    ubatch = best_ubatch(options, path, threads, "one")
    n_calls = options.calls
    with Peer(options.ours, options.model, path, threads) as ours, \
         Peer(options.theirs, options.model, path, threads, ubatch) as theirs:
        n_tokens = int(ours.ask("one").split()[1])
        theirs.ask("one")

        def turn(peer):
            time.sleep(PAUSE)
            return [float(peer.ask("one").split()[0]) for _ in range(n_calls)]
        pairs = in_turns(2 * options.rounds, lambda: turn(ours), lambda: turn(theirs))
    case = {"threads": threads, "n_tokens": n_tokens, "ubatch": ubatch,
            "ratio": summary([statistics.median(b) / statistics.median(a) for a, b in pairs])}
    for side, i in (("ours", 0), ("theirs", 1)):
        calls = [seconds * 1e3 for pair in pairs for seconds in pair[i]]
        case[side] = {"n_calls": len(calls), "p50_ms": percentile(calls, 0.5),
                      "p90_ms": percentile(calls, 0.9), "p99_ms": percentile(calls, 0.99)}
    say(f"one short text, {threads} threads: {case['ratio']['median']:.2f}")
    return case


def measure_open(options, folder, text, threads):
    """From before the model is opened to the first vector, in new processes, page cache warm."""
    path = Path(folder) / "texts"
    path.write_text(PROMPT + text + "\n", encoding="utf-8")

    def start(program, ubatch):
        with Peer(program, options.model, path, threads, ubatch) as peer:
            return peer.opened, peer.memory()
    pairs = in_turns(max(3, options.rounds), lambda: start(options.ours, 0),
                     lambda: start(options.theirs, UBATCHES[0]))
    case = {"threads": threads, "ratio": summary([b[0] / a[0] for a, b in pairs])}
    for side, i in (("ours", 0), ("theirs", 1)):
        case[side] = {"ms": [pair[i][0] * 1e3 for pair in pairs], **pairs[-1][i][1],
                      "median_ms": statistics.median(pair[i][0] * 1e3 for pair in pairs)}
    say(f"open: {case['ratio']['median']:.2f}")
    return case


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def cpu_features():
    """Those that decide what both sides can do."""
    wanted = ("avx2", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(("flags", "Features")):
            return [word for word in wanted if word in line.split()]
    return []


def measure(options):
    full = not options.quick
    corpus = read_corpus(options.corpus, 512)
    n = 128 if full else 32
    batches = [
        ("mixed", spread(corpus, min(n, len(corpus)))),
        ("16 tokens", texts_of_length(corpus, n, 16)),
        ("64 tokens", texts_of_length(corpus, n // 2, 64)),
        ("500 tokens", texts_of_length(corpus, max(4, n // 8), 500)),
    ]
    counts = sorted({1, options.threads})
    result = {
        "date": datetime.date.today().isoformat(), "cpu": cpu_name(),
        "cpu_features": cpu_features(), "n_cpus": len(os.sched_getaffinity(0)),
        "theirs": options.version, "rounds": options.rounds, "quick": options.quick,
        "included": "tokenising, embedding, unit length; the prompt is part of the texts",
        "batches": [], "one": [],
    }
    short = texts_of_length(corpus, 1, 16)[0]
    with tempfile.TemporaryDirectory(prefix="embedmill-bench-") as folder:
        for threads in counts:
            for name, texts in batches:
                result["batches"].append(measure_batch(options, folder, name, texts, threads))
            result["one"].append(measure_one(options, folder, short, threads))
        result["open"] = measure_open(options, folder, short, options.threads)
    return result


# The table.

def print_table(result):
    print(f"{result['cpu']} ({', '.join(result['cpu_features'])}), {result['date']}; "
          f"{result['theirs']}; {result['rounds']} rounds in pairs")
    print(f"within the time taken: {result['included']}\n")
    print(f"{'batches':<12}{'threads':>8}{'texts':>7}{'tokens':>8}{'ours t/s':>10}"
          f"{'theirs t/s':>12}{'ubatch':>8}{'ratio':>7}{'min-max':>12}{'of CPU':>8}{'cosine':>10}")
    for case in result["batches"]:
        ratio = case["ratio"]
        span = f"{ratio['min']:.2f}-{ratio['max']:.2f}"
        print(f"{case['name']:<12}{case['threads']:>8}{case['n_texts']:>7}{case['n_tokens']:>8}"
              f"{case['ours']['tokens_per_s']:>10.0f}{case['theirs']['tokens_per_s']:>12.0f}"
              f"{case['ubatch']:>8}{ratio['median']:>7.2f}{span:>12}"
              f"{case['cpu_ratio']['median']:>8.2f}{case['cosine']['min']:>10.5f}"
              + ("" if case["tokens_agree"] else "  the token counts differ"))
    print(f"\n{'one short text':<16}{'threads':>8}{'tokens':>8}{'':>8}{'p50 ms':>8}{'p90 ms':>8}"
          f"{'p99 ms':>8}{'ratio':>7}{'min-max':>12}")
    for case in result["one"]:
        ratio = case["ratio"]
        for side in ("ours", "theirs"):
            row = case[side]
            line = (f"{'':<16}{case['threads']:>8}{case['n_tokens']:>8}{side:>8}"
                    f"{row['p50_ms']:>8.2f}{row['p90_ms']:>8.2f}{row['p99_ms']:>8.2f}")
            if side == "ours":
                line += (f"{ratio['median']:>7.2f}"
                         f"{ratio['min']:>7.2f}-{ratio['max']:.2f}")
            print(line)
    start, mixed = result["open"], result["batches"][-4]
    print(f"\nopen to first embedding: ours {start['ours']['median_ms']:.0f} ms, "
          f"theirs {start['theirs']['median_ms']:.0f} ms, ratio {start['ratio']['median']:.1f} "
          f"({start['ratio']['min']:.1f}-{start['ratio']['max']:.1f})")
    for name, case in (("after the first text", start), ("after the mixed batch", mixed)):
        print(f"memory {name}, {case['threads']} threads: " + "; ".join(
            f"{side} {case[side]['anonymous_mib']:.0f} MiB of its own, "
            f"{case[side]['resident_mib']:.0f} resident" for side in ("ours", "theirs")))


def main():
    parser = argparse.ArgumentParser(prog="bench-llamacpp", description=__doc__.splitlines()[0])
    for name in ("model", "ours", "theirs", "version"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--corpus")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.calls = 10 if options.quick else 40
    result = measure(options)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print_table(result)


if __name__ == "__main__":
    main()
