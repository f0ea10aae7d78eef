#!/usr/bin/env bash
# fastembed's query_embed() and passage_embed() embed the text as it stands, also for models that need a prefix.
#
# The two names are there for models that embed queries otherwise than documents. Only Jina's v3 has its own; for
# multilingual-e5-large, whose description in fastembed's list says that prefixes are necessary, for EmbeddingGemma and
# Qwen3-Embedding, whose descriptions spell them out, both are embed(). Search works, and is worse than the
# model's figures say; vectors do not compare with those that another library has made with prefixes. The
# vectors of multilingual-e5-large are not of length 1 either. The guess that misses: a library that lists the
# prefix and has a call for queries puts the one into the other. Put it there: embed(["query: " + text]).
#
# Versions: PyPI fastembed 0.9.1, onnx 1.23.2 (for a tiny model in the place of the real one).
# Seen: embed(), query_embed() and passage_embed() of a text are equal, embed() of "query: " and the text is not.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 FASTEMBED_CACHE_PATH=$folder/cache

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: fastembed==0.9.1 onnx==1.23.2 numpy==2.4.6

cat >try.py <<'PY'
import json
import pathlib

import numpy
import onnx
from fastembed import TextEmbedding
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

NAME, TEXT = "intfloat/multilingual-e5-large", "what is an embedding"
words = "[PAD] [UNK] query passage : what is an embedding".split()

# A model with the inputs and outputs of the real one: the mean of a random vector for each word.
folder = pathlib.Path("model")
folder.mkdir()
tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = Whitespace()
tokenizer.save(str(folder / "tokenizer.json"))
for name, content in (("config", {"pad_token_id": 0}), ("special_tokens_map", {"pad_token": "[PAD]"}),
                      ("tokenizer_config", {"model_max_length": 512, "pad_token": "[PAD]"})):
    (folder / f"{name}.json").write_text(json.dumps(content))
table = numpy.random.default_rng(1).normal(size=(len(words), 1024)).astype(numpy.float32)
graph = helper.make_graph(
    [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])], "model",
    [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
     for name in ("input_ids", "attention_mask")],
    [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "length", 1024])],
    [numpy_helper.from_array(table, "table")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
model.ir_version = 8
onnx.save(model, folder / "model.onnx")

described = {one["model"]: one["description"] for one in TextEmbedding.list_supported_models()}
for name in (NAME, "google/embeddinggemma-300m"):
    print(f"{name}: {described[name]}")
assert "Prefixes for queries/documents: necessary" in described[NAME]
assert "task: search result | query:" in described["google/embeddinggemma-300m"]

embedder = TextEmbedding(NAME, specific_model_path=str(folder))
plain, prefixed = embedder.embed([TEXT, "query: " + TEXT])
query, passage = next(iter(embedder.query_embed(TEXT))), next(iter(embedder.passage_embed([TEXT])))
print("query_embed() is embed():", (query == plain).all(), "- passage_embed():", (passage == plain).all(),
      "- with a prefix:", numpy.allclose(query, prefixed), "- length", numpy.linalg.norm(plain))
assert numpy.allclose(query, plain) and numpy.allclose(passage, plain) and not numpy.allclose(query, prefixed)
assert numpy.linalg.norm(plain) > 2
PY
venv/bin/python try.py
echo "as described"
