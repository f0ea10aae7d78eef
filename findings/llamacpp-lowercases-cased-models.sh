#!/usr/bin/env bash
# llama.cpp reads a GGUF of a cased BERT in lower case and without accents.
#
# Whether a WordPiece model tells "Line" from "line" is in its tokenizer.json; in a GGUF it is two keys
# that llama.cpp knows since summer 2026, tokenizer.ggml.normalizer.lowercase and .strip_accents.
# Files without them (all older ones; gguf 0.19.0 has no names for these keys) are taken for
# uncased, though the vocabulary has both words: texts that differ in case or accents get the same
# vector, bit for bit, and the capitalised words of the vocabulary, German nouns for one, are never
# used. The guess that misses: the vocabulary decides, or a file that loads is read as its model was
# trained. With the two keys set to false it is.
#
# Versions: xllamacpp 2026.10.11549 (llama.cpp of October 2026), gguf 0.19.0, numpy 2.4.6; a BERT of
# one layer with random weights made here.
# Seen: line, Line, LINE and line with an accent have one vector; with both keys false each of its own.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6

cat >try.py <<'PY'
import sys

import gguf
import numpy as np
import xllamacpp

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]",
         "\u2581line", "\u2581Line", "\u2581LINE", "\u2581l\u00edne"]
WIDTH, INNER, LONGEST = 32, 64, 64


def write(path, told):
    """A model of one layer; `told`: with the keys that say that it is cased."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(LONGEST)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(WORDS)
    writer.add_token_types([3] * 4 + [1] * (len(WORDS) - 4))
    writer.add_token_type_count(2)
    for name, token in ("padding", 0), ("unknown", 1), ("bos", 2), ("eos", 3), ("seperator", 3):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", token)
    if told:
        writer.add_bool("tokenizer.ggml.normalizer.lowercase", False)
        writer.add_bool("tokenizer.ggml.normalizer.strip_accents", False)
    shapes = {"token_embd.weight": (len(WORDS), WIDTH), "position_embd.weight": (LONGEST, WIDTH),
              "token_types.weight": (2, WIDTH), "blk.0.ffn_up.weight": (INNER, WIDTH),
              "blk.0.ffn_down.weight": (WIDTH, INNER)}
    shapes |= {f"blk.0.attn_{part}.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
    for name, shape in shapes.items():
        writer.add_tensor(name, (0.3 * rng.standard_normal(shape)).astype(np.float32))
    for name in "token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm":
        writer.add_tensor(name + ".weight", np.ones(WIDTH, np.float32))
        writer.add_tensor(name + ".bias", np.zeros(WIDTH, np.float32))
    for part in "attn_q", "attn_k", "attn_v", "attn_output", "ffn_down":
        writer.add_tensor(f"blk.0.{part}.bias", np.zeros(WIDTH, np.float32))
    writer.add_tensor("blk.0.ffn_up.bias", np.zeros(INNER, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def different_vectors(path):
    options = xllamacpp.CommonParams()
    options.model.path = path
    options.embedding = True
    options.n_ctx = LONGEST
    options.warmup = False
    options.cpuparams.n_threads = 1
    server = xllamacpp.Server(options)
    texts = [word.lstrip("\u2581") for word in WORDS[4:]]
    vectors = [tuple(server.handle_embeddings({"input": text})["data"][0]["embedding"])
               for text in texts]
    return len(set(vectors)), len(texts)


told = sys.argv[1] == "told"
write("model.gguf", told)
different, texts = different_vectors("model.gguf")
print(f"{'both keys false' if told else 'no keys'}: {texts} words of the vocabulary, "
      f"{different} different vectors")
assert (different, texts) == (4 if told else 1, 4)
PY
venv/bin/python try.py silent 2>log || { cat log; exit 1; }
venv/bin/python try.py told 2>log || { cat log; exit 1; }
echo "as described"
