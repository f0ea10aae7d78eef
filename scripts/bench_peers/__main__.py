"""Engines on the same texts, in turns: the measuring part of scripts/bench-peers.

A round runs each side once, one right after the other; which side begins moves on with each round.
Each round gives a ratio for every pair of sides, and the result is the median of the ratios with
the lowest and the highest, so that whatever else the machine does meets all sides alike. While one
side runs the others wait, reading from their standard input. The ratio of CPU time stands beside
it: it hardly moves on a machine that is busy otherwise.

Within the time taken embedmill and llama.cpp tokenise, embed and normalise; the engines that are
used from Python are given token ids, so their tokeniser costs them nothing. Each side gets the
setting that is its fastest in each case: llama.cpp its ubatch, the others how many texts are
computed at once. Cosines are to the float32 weights, computed by torch in float32.
"""

import argparse
import datetime
import json
import math
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from . import corpus, report, sides


def say(text):
    print(f"bench-peers: {text}", file=sys.stderr, flush=True)


def all_sides(files, is_avx2):
    found: list = [sides.Ours("exact", files), sides.Ours("fast", files)]
    precisions = ["f32", "int8-32", "int8-128"] if is_avx2 else ["f32", "bf16", "int8-32",
                                                                 "int8-128"]
    found += [sides.Python("openvino", precision, files) for precision in precisions]
    if not is_avx2: # its kernels cannot be held to an instruction set
        found += [sides.Python("onnxruntime", "fp32", files),
                  sides.Python("onnxruntime", "int8", files)]
    found.append(sides.Python("torch", "bf16", files))
    if files.llamacpp:
        found.append(sides.LlamaCpp(files))
    return found


def make_cases(texts, quick):
    """Name, texts, and the command that is timed."""
    def of(n, n_tokens):
        return corpus.texts_of_length(texts, n, n_tokens)
    if quick:
        return [("32 mixed", corpus.spread(texts, 32), "batch"),
                ("16 of 64 tokens", of(16, 64), "batch"),
                ("2 of 500 tokens", of(2, 500), "batch"),
                ("1 of 16 tokens", of(1, 16), "one")]
    return [("128 mixed", corpus.spread(texts, min(128, len(texts))), "batch"),
            ("128 of 16 tokens", of(128, 16), "batch"), ("128 of 64 tokens", of(128, 64), "batch"),
            ("16 mixed", corpus.spread(texts, 16), "batch"),
            ("16 of 16 tokens", of(16, 16), "batch"), ("16 of 64 tokens", of(16, 64), "batch"),
            ("16 of 500 tokens", of(16, 500), "batch"), ("4 of 2000 tokens", of(4, 1900), "batch"),
            ("1 of 500 tokens", of(1, 500), "batch"), ("1 of 64 tokens", of(1, 64), "batch"),
            ("1 of 16 tokens", of(1, 16), "one")]


def write_texts(ours, folder, name, texts, prompt):
    """The files of a case; token ids by this project's tokeniser."""
    base = Path(folder) / name.replace(" ", "-")
    found = sides.Texts(base.with_suffix(".txt"), base.with_suffix(".ids"), len(texts))
    found.lines.write_text("".join(prompt + text + "\n" for text in texts), encoding="utf-8")
    ours.ask(f"texts {found.lines}")
    ours.ask(f"ids {found.ids}")
    found.n_tokens = int(ours.ask("batch").split()[1])
    return found


def summary(ratios):
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def percentile(values, share):
    """The smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def measure_case(options, present, texts, command):
    """{side: figures} with the ratios to both precisions of this project."""
    calls = {side.name: [] for side in present}
    for side in present:
        side.tune(texts, command)
    for i in range(options.rounds):
        at = i % len(present)
        for side in present[at:] + present[:at]:
            n = options.calls if command == "one" else 1
            calls[side.name].append([side.process.times(command) for _ in range(n)])
    seconds = {name: [statistics.median(call[0] for call in of_round) for of_round in rounds]
               for name, rounds in calls.items()}
    cpu = {name: [statistics.median(call[1] for call in of_round) for of_round in rounds]
           for name, rounds in calls.items()}
    n_tokens = texts.n_tokens
    case = {}
    for side in present:
        row = {"seconds": seconds[side.name], "setting": side.setting,
               "tokens_per_s": n_tokens / statistics.median(seconds[side.name]),
               "tokens_per_cpu_s": n_tokens / max(1e-9, statistics.median(cpu[side.name]))}
        for ours in present[:2]:
            row[f"of {ours.name}"] = summary(
                [b / a for a, b in zip(seconds[ours.name], seconds[side.name])])
        if command == "one":
            times = [call[0] * 1e3 for of_round in calls[side.name] for call in of_round]
            row |= {"p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99)}
        case[side.name] = row
    return case


def cosine(a, b):
    dot = math.fsum(x * y for x, y in zip(a, b))
    return dot / math.sqrt(math.fsum(x * x for x in a) * math.fsum(y * y for y in b))


def compare_vectors(present, judge, texts, folder):
    judge.tune(texts, "batch")
    right = judge.process.vectors(folder)
    found = {}
    for side in present:
        side.tune(texts, "batch")
        cosines = [cosine(a, b) for a, b in zip(right, side.process.vectors(folder))]
        found[side.name] = {"mean": statistics.fmean(cosines), "min": min(cosines),
                            **side.process.memory()}
    return found


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def cpu_features():
    """Those that decide what each side can do."""
    wanted = ("avx2", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(("flags", "Features")):
            return [word for word in wanted if word in line.split()]
    return []


def measure(options, folder):
    texts = corpus.read_corpus(options.corpus, 512)
    prompt = corpus.PROMPT if options.name == "EmbeddingGemma 300M" else ""
    first = Path(folder) / "first.txt"
    first.write_text(prompt + texts[0] + "\n", encoding="utf-8")
    ours = sides.Process([options.ours, options.model, first, 1, "exact"])
    limit = 480 if options.name != "EmbeddingGemma 300M" else 2048 # what the model takes
    cases = [(name, write_texts(ours, folder, name, lines, prompt), command)
             for name, lines, command in make_cases(texts, options.quick)]
    cases = [case for case in cases if case[1].n_tokens / case[1].n <= limit]
    ours.close()
    result = {"date": datetime.date.today().isoformat(), "cpu": cpu_name(), "model": options.name,
              "cpu_features": cpu_features(), "n_cpus": len(os.sched_getaffinity(0)),
              "versions": options.versions, "rounds": options.rounds, "quick": options.quick,
              "cases": [], "start_s": {}, "quality": {}}
    wanted = options.only.split(",") if options.only else None
    for threads in sorted({1, options.threads}):
        present = [side for side in all_sides(options, options.avx2)
                   if side.is_ours or not wanted or any(side.name.startswith(w) for w in wanted)]
        for side in present:
            result["start_s"].setdefault(side.name, []).append(side.open(cases[-1][1], threads))
        for name, case, command in cases:
            say(f"{name}, {threads} threads")
            result["cases"].append({"name": name, "threads": threads, "n_tokens": case.n_tokens,
                                    "sides": measure_case(options, present, case, command)})
        if threads == options.threads:
            judge = sides.Python("torch", "f32", options)
            judge.open(cases[0][1], threads)
            result["quality"] = compare_vectors(present, judge, cases[0][1], folder)
            judge.close()
        for side in present:
            side.close()
    return result


def main():
    parser = argparse.ArgumentParser(prog="bench-peers", description=__doc__.splitlines()[0])
    for name in ("name", "model", "ours", "folder", "versions"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--llamacpp")
    parser.add_argument("--python", default=sys.executable, help="runs the engines of Python")
    parser.add_argument("--only")
    parser.add_argument("--corpus")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    for name in ("quick", "json", "avx2"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args()
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.calls = 5 if options.quick else 20
    with tempfile.TemporaryDirectory(prefix="embedmill-bench-") as folder:
        result = measure(options, folder)
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        report.print_tables(result)


if __name__ == "__main__":
    main()
