#!/usr/bin/env python3
"""What cutting at headings is worth: questions about this project's own pages, whose answers
stand in known places, asked of an index of chunks by length and of one by headings.

A chunk is right when it holds the answer. Printed are the hit rate among the first five and the
mean reciprocal rank of the first right one among ten. Fails when headings find clearly fewer.

Usage: check_chunks.py EMBEDMILL [--tokens N] [--model FILE]
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from check_embed import cache_folder, find_model

ROOT = Path(__file__).resolve().parents[2]


def run(*words, text=""):
    done = subprocess.run([str(word) for word in words], input=text, text=True,
                          capture_output=True, check=False)
    assert done.returncode == 0, f"{words}: {done.returncode}: {done.stderr}"
    return done.stdout


def read_questions():
    with open(ROOT / "tests/data/chunk_questions.jsonl", encoding="utf-8") as file:
        questions = [json.loads(line) for line in file]
    for question in questions:
        text = (ROOT / "docs" / question["file"]).read_text(encoding="utf-8")
        assert question["answer"] in text, question
    return questions


def ranks(args, folder, by, questions):
    """Of each question the rank of the first chunk that holds its answer, from 1; None: none."""
    out = folder / f"{by}.npy"
    run(args.binary, "index", folder / "docs", "-o", out, "--model", args.model, "--too-long",
        "chunk", "--chunk-tokens", args.tokens, "--chunk-overlap", 0, "--chunk-by", by,
        "--log-level", "warn")
    found = run(args.binary, "search", out, "--model", args.model, "--top", 10,
                text="".join(question["question"] + "\n" for question in questions))
    for question, line in zip(questions, found.splitlines(), strict=True):
        text = (folder / "docs" / question["file"]).read_text(encoding="utf-8")
        hits = json.loads(line)["hits"]
        yield next((rank for rank, hit in enumerate(hits, 1)
                    if hit.get("parent", hit["id"]) == question["file"] and question["answer"] in
                    text[hit.get("start", 0):hit.get("end", len(text))]), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--model", default=None)
    args = parser.parse_args()
    minilm = cache_folder() / "all-minilm-l6-v2-q8_0.gguf" # scripts/get-minilm; it is quick
    args.model = args.model or (minilm if minilm.exists() else find_model())
    questions = read_questions()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "docs").mkdir()
        for page in (ROOT / "docs").glob("*.md"):
            (folder / "docs" / page.name).write_bytes(page.read_bytes())
        scores = {}
        for by in ("tokens", "markdown"):
            got = list(ranks(args, folder, by, questions))
            hits = sum(rank is not None and rank <= 5 for rank in got) / len(got)
            mrr = sum(1 / rank for rank in got if rank) / len(got)
            scores[by] = (hits, mrr)
            n = sum(1 for _ in open(folder / f"{by}.npy.ids.jsonl", encoding="utf-8"))
            print(f"{by:9} {n:4} chunks of at most {args.tokens} tokens: hit rate at 5 {hits:.3f}, "
                  f"MRR {mrr:.3f}", flush=True)
            print("          not found: " + "; ".join(
                question["question"] for question, rank in zip(questions, got) if not rank))
    # The pages change, and with them a question or two.
    chance = 2.5 / len(questions)
    if scores["markdown"][0] < scores["tokens"][0] - chance or scores["markdown"][0] < 0.4:
        sys.exit("headings do not help")


if __name__ == "__main__":
    main()
