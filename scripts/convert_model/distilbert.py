"""DistilBERT: a BERT of half the layers, without token types and with other names."""

from . import bert
from .source import Tensors, fail

ARCHITECTURE = "bert"

SIZES = {"hidden_size": "dim", "intermediate_size": "hidden_dim", "num_hidden_layers": "n_layers",
         "num_attention_heads": "n_heads"}

OUTER_TENSORS = [
    ("token_embd.weight", "embeddings.word_embeddings.weight"),
    ("position_embd.weight", "embeddings.position_embeddings.weight"),
    ("token_embd_norm.weight", "embeddings.LayerNorm.weight"),
    ("token_embd_norm.bias", "embeddings.LayerNorm.bias"),
]

# Each has a weight and a bias.
BLOCK_TENSORS = [
    ("attn_q", "attention.q_lin"),
    ("attn_k", "attention.k_lin"),
    ("attn_v", "attention.v_lin"),
    ("attn_output", "attention.out_lin"),
    ("attn_output_norm", "sa_layer_norm"),
    ("ffn_up", "ffn.lin1"),
    ("ffn_down", "ffn.lin2"),
    ("layer_output_norm", "output_layer_norm"),
]


def convert(out, source, options):
    del options
    source.check_modules({"Transformer", "Pooling", "Normalize"})
    source.expect({"activation": "gelu"})
    if any(name.endswith("ForSequenceClassification")
           for name in source.config.get("architectures") or []):
        fail("config.json names a DistilBERT with a classification head: such models cannot be "
             "converted")
    for name, own in SIZES.items():
        source.config[name] = source.number(own)
    source.config |= {"layer_norm_eps": 1e-12, "type_vocab_size": 1} # fixed in its code
    bert.add_keys(out, source)
    bert.add_tokens(out, source)
    tensors = Tensors(source.model)
    prefix = tensors.prefix_of("embeddings.LayerNorm.weight", ["", "distilbert."])
    for name, source_name in OUTER_TENSORS:
        out.add_tensor(name, tensors.load(prefix + source_name))
    for layer in range(source.config["num_hidden_layers"]):
        for name, source_name in BLOCK_TENSORS:
            for part in ("weight", "bias"):
                path = f"{prefix}transformer.layer.{layer}.{source_name}.{part}"
                out.add_tensor(f"blk.{layer}.{name}.{part}", tensors.load(path))
