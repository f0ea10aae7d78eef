"""MPNet (all-mpnet-base-v2): a BERT without token types that adds to each score of attention what
it has learned for the distance of the two tokens. llama.cpp does not know it; names are as for the
others."""

from . import bert, rerank
from .source import Tensors, fail

ARCHITECTURE = "mpnet"
BUCKETS = 32

OUTER_TENSORS = [
    ("token_embd.weight", "embeddings.word_embeddings.weight"),
    ("position_embd.weight", "embeddings.position_embeddings.weight"),
    ("token_embd_norm.weight", "embeddings.LayerNorm.weight"),
    ("token_embd_norm.bias", "embeddings.LayerNorm.bias"),
    ("attn_rel_b.weight", "encoder.relative_attention_bias.weight"),
]

# Each has a weight and a bias.
BLOCK_TENSORS = [
    ("attn_q", "attention.attn.q"),
    ("attn_k", "attention.attn.k"),
    ("attn_v", "attention.attn.v"),
    ("attn_output", "attention.attn.o"),
    ("attn_output_norm", "attention.LayerNorm"),
    ("ffn_up", "intermediate.dense"),
    ("ffn_down", "output.dense"),
    ("layer_output_norm", "output.LayerNorm"),
]
N_SKIPPED = 2 # rows of positions that no token has


def convert(out, source, options):
    del options
    source.check_modules({"Transformer", "Pooling", "Normalize"})
    if rerank.is_reranker(source):
        fail("config.json names an MPNet with a classification head: such models cannot be "
             "converted")
    source.expect({"hidden_act": "gelu", "relative_attention_num_buckets": BUCKETS})
    if not source.tokenizer_json():
        fail("there is no tokenizer.json: save the model again together with its tokenizer")
    source.config["max_position_embeddings"] = source.number("max_position_embeddings") - N_SKIPPED
    source.config["type_vocab_size"] = 1
    bert.add_keys(out, source)
    bert.add_tokens(out, source, bert.SPECIAL_OF_MPNET)
    tensors = Tensors(source.model)
    prefix = tensors.prefix_of("embeddings.LayerNorm.weight", ["", "mpnet."])
    for name, source_name in OUTER_TENSORS:
        values = tensors.load(prefix + source_name)
        out.add_tensor(name, values[N_SKIPPED:] if name == "position_embd.weight" else values)
    for layer in range(source.config["num_hidden_layers"]):
        for name, source_name in BLOCK_TENSORS:
            for part in ("weight", "bias"):
                out.add_tensor(f"blk.{layer}.{name}.{part}",
                               tensors.load(f"{prefix}encoder.layer.{layer}.{source_name}.{part}"))
