#!/usr/bin/env python3
"""Write the reference of all-MiniLM-L6-v2: tests/data/minilm_tokens.jsonl and minilm.f32.

Usage: make_minilm_reference.py FOLDER [MODEL.onnx]

FOLDER is the sentence-transformers folder (tokenizer.json, model.safetensors). Ids are those of the
Hugging Face tokenizer (PyPI tokenizers); vectors come from a forward pass written here in float64,
by the definition of the model and with nothing of embedmill in it, cut at 512 tokens. With
MODEL.onnx, the published export, the vectors are compared with those of ONNX Runtime too. The
texts are those of tests/data/texts.jsonl.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

DATA = Path(__file__).parent.parent / "data"
MAX_TOKENS = 512
HEADS = 12
EPS = 1e-12
erf = np.vectorize(math.erf)


class Model:
    def __init__(self, path):
        self.tensors = {k: v.astype(np.float64) for k, v in load_file(path).items()
                        if v.dtype.kind == "f"}

    def linear(self, name, x):
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def norm(self, name, x):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS)
        return x * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def heads(self, name, x):
        return self.linear(name, x).reshape(len(x), HEADS, -1).transpose(1, 0, 2)

    def layer(self, name, x):
        q, k, v = (self.heads(f"{name}.attention.self.{n}", x) for n in ("query", "key", "value"))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        seen = (weights @ v).transpose(1, 0, 2).reshape(len(x), -1)
        x = self.norm(f"{name}.attention.output.LayerNorm",
                      x + self.linear(f"{name}.attention.output.dense", seen))
        wide = self.linear(f"{name}.intermediate.dense", x)
        wide = wide * 0.5 * (1 + erf(wide / math.sqrt(2)))
        return self.norm(f"{name}.output.LayerNorm", x + self.linear(f"{name}.output.dense", wide))

    def embed(self, ids):
        tensors = self.tensors
        x = (tensors["embeddings.word_embeddings.weight"][ids] +
             tensors["embeddings.token_type_embeddings.weight"][0] +
             tensors["embeddings.position_embeddings.weight"][:len(ids)])
        x = self.norm("embeddings.LayerNorm", x)
        layer = 0
        while f"encoder.layer.{layer}.output.dense.weight" in tensors:
            x = self.layer(f"encoder.layer.{layer}", x)
            layer += 1
        mean = x.mean(axis=0)
        return mean / np.linalg.norm(mean)


def compare_with_onnx(path, all_ids, vectors):
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = {i.name for i in session.get_inputs()}
    worst = 1.0
    for ids, vector in zip(all_ids, vectors):
        feed = {"input_ids": [ids], "attention_mask": [[1] * len(ids)],
                "token_type_ids": [[0] * len(ids)]}
        out = session.run(None, {k: np.array(v, np.int64) for k, v in feed.items() if k in names})
        got = out[0][0].mean(axis=0) if out[0].ndim == 3 else out[0][0]
        worst = min(worst, float(got @ vector / np.linalg.norm(got)))
    print(f"ONNX Runtime: lowest cosine {worst:.9f}")


def main():
    folder = Path(sys.argv[1])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = Model(folder / "model.safetensors")
    texts = [json.loads(line)["text"]
             for line in (DATA / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
    all_ids, vectors = [], []
    with open(DATA / "minilm_tokens.jsonl", "w", encoding="utf-8") as out:
        for i, text in enumerate(texts):
            ids = tokenizer.encode(text).ids
            n = len(ids)
            if n > MAX_TOKENS:
                ids = ids[:MAX_TOKENS - 1] + ids[-1:]
            print(json.dumps({"id": i, "n_tokens_untruncated": n, "ids": ids}), file=out)
            all_ids.append(ids)
            vectors.append(model.embed(ids))
    np.array(vectors, "<f4").tofile(DATA / "minilm.f32")
    if len(sys.argv) > 2:
        compare_with_onnx(sys.argv[2], all_ids, vectors)


if __name__ == "__main__":
    main()
