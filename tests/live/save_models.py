#!/usr/bin/env python3
"""Small random models of each kind, saved by whichever version of sentence-transformers runs this,
for check_models.py.

Usage: save_models.py make SOURCE TARGET TEXTS
       save_models.py save SOURCE TARGET TEXTS

make: SOURCE/KIND holds a tokenizer; a model of that kind is made and saved as TARGET/KIND, unless
it is there or this version has no such model. save: every model in SOURCE is loaded and saved
again. TEXTS is a JSON array. TARGET/KIND/vectors.npy are the vectors that the version gives for
them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from sentence_transformers import SentenceTransformer, models

SEED = 20261130
SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
         "intermediate_size": 96}
HEADS = {"head_dim": 32, "num_key_value_heads": 1, "rope_theta": 1000000.0}
# Name of the class, what its configuration gets, pooling.
KINDS = {
    "bert": ("Bert", SIZES | {"max_position_embeddings": 256}, "cls"),
    "distilbert": ("DistilBert", {"dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 96,
                                  "max_position_embeddings": 256}, "mean"),
    "mpnet": ("MPNet", SIZES | {"max_position_embeddings": 258}, "mean"),
    "roberta": ("Roberta", SIZES | {"max_position_embeddings": 258, "pad_token_id": 1,
                                    "bos_token_id": 0, "eos_token_id": 2, "type_vocab_size": 1,
                                    "layer_norm_eps": 1e-5}, "mean"),
    "xlm-roberta": ("XLMRoberta", SIZES | {"max_position_embeddings": 258, "pad_token_id": 1,
                                           "type_vocab_size": 1}, "mean"),
    "modernbert": ("ModernBert", SIZES | {"max_position_embeddings": 256, "local_attention": 8,
                                          "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
                                          "cls_token_id": 0, "sep_token_id": 0}, "cls"),
    "qwen3": ("Qwen3", SIZES | HEADS | {"max_position_embeddings": 256}, "lasttoken"),
    "nomic": ("NomicBert", SIZES | {"max_position_embeddings": 256}, "mean"),
    "gte": ("Gte", SIZES | {"max_position_embeddings": 256, "rope_parameters": {
        "rope_type": "linear", "rope_theta": 1600.0, "factor": 1.2}}, "cls"),
    "gemma": ("Gemma3Text", SIZES | HEADS | {
        "num_hidden_layers": 6, "max_position_embeddings": 256, "use_bidirectional_attention": True,
        "query_pre_attn_scalar": 32, "sliding_window": 512, "rope_local_base_freq": 10000.0},
              "mean"),
}


def make(folder, kind):
    name, config, pooling = KINDS[kind]
    n_vocab = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]) + 40
    torch.manual_seed(SEED)
    model = getattr(transformers, f"{name}Model")(
        getattr(transformers, f"{name}Config")(vocab_size=n_vocab, **config))
    with torch.no_grad():
        for key, values in model.named_parameters():
            is_norm = "norm" in key.lower() and values.ndim == 1 and "bias" not in key
            values.copy_(torch.randn(values.shape) * (0.2 if values.ndim == 1 else 0.12)
                         + (is_norm and kind != "gemma"))
    model.save_pretrained(folder)
    parts = [models.Transformer(str(folder)), models.Pooling(64, pooling_mode=pooling)]
    if kind == "gemma":
        identity = torch.nn.Identity()
        parts += [models.Dense(64, 128, bias=False, activation_function=identity),
                  models.Dense(128, 64, bias=False, activation_function=identity)]
    return SentenceTransformer(modules=[*parts, models.Normalize()], device="cpu")


def main():
    command, source, target, texts = sys.argv[1], *map(Path, sys.argv[2:])
    texts = json.loads(texts.read_text())
    for folder in sorted(source.iterdir()):
        if command == "make" and ((target / folder.name).exists() or not hasattr(
                transformers, f"{KINDS[folder.name][0]}Model")):
            continue
        whole = (make(folder, folder.name) if command == "make"
                 else SentenceTransformer(str(folder), device="cpu"))
        whole.save(str(target / folder.name))
        vectors = [whole.encode(text, normalize_embeddings=True) for text in texts]
        np.save(target / folder.name / "vectors.npy", np.array(vectors))


if __name__ == "__main__":
    main()
