"""nomic-embed-text v1 and v1.5 and kin: a BERT with rotated positions, a gate in the feed-forward
part and no biases but those of norms. Its mixture of experts (v2) is another model."""

from . import bert
from .source import Tensors, fail

ARCHITECTURE = "nomic-bert"

# What the publisher's code calls them, and transformers.
PUBLISHED = {"n_embd": "hidden_size", "n_inner": "intermediate_size",
             "n_head": "num_attention_heads", "n_layer": "num_hidden_layers",
             "layer_norm_epsilon": "layer_norm_eps", "rotary_emb_base": "rope_theta",
             "n_positions": "max_position_embeddings"}
TRAINED = 2048 # tokens; beyond it the publisher's code stretches rotations

# Name in the file, in the publisher's folder.
OUTER_TENSORS = [
    ("token_embd.weight", "embeddings.word_embeddings.weight"),
    ("token_types.weight", "embeddings.token_type_embeddings.weight"),
    ("token_embd_norm.weight", "emb_ln.weight"),
    ("token_embd_norm.bias", "emb_ln.bias"),
]
BLOCK_TENSORS = [
    ("attn_qkv.weight", "attn.Wqkv.weight"),
    ("attn_output.weight", "attn.out_proj.weight"),
    ("attn_output_norm.weight", "norm1.weight"),
    ("attn_output_norm.bias", "norm1.bias"),
    ("ffn_up.weight", "mlp.fc11.weight"),
    ("ffn_gate.weight", "mlp.fc12.weight"),
    ("ffn_down.weight", "mlp.fc2.weight"),
    ("layer_output_norm.weight", "norm2.weight"),
    ("layer_output_norm.bias", "norm2.bias"),
]


def read_published(source):
    source.expect({"activation_function": "swiglu", "prenorm": False, "qkv_proj_bias": False,
                   "mlp_fc1_bias": False, "mlp_fc2_bias": False, "rotary_emb_fraction": 1.0,
                   "rotary_emb_interleaved": False, "rotary_emb_scale_base": None, "causal": False,
                   "use_rms_norm": False, "parallel_block": False})
    trained = source.config.get("max_trained_positions") or TRAINED
    for own, name in PUBLISHED.items():
        source.config[name] = source.number(own)
    source.config["max_position_embeddings"] = min(source.config["max_position_embeddings"],
                                                   trained)


def add_keys(out, source):
    hidden, heads = bert.add_sizes(out, source)
    keys = out.keys
    keys.add_context_length(source.number("max_position_embeddings"))
    keys.add_embedding_length(hidden)
    keys.add_block_count(source.number("num_hidden_layers"))
    keys.add_feed_forward_length(source.number("intermediate_size"))
    keys.add_head_count(heads)
    keys.add_layer_norm_eps(source.number("layer_norm_eps"))
    keys.add_causal_attention(False)
    keys.add_rope_freq_base(float(source.rope_base("full_attention", "rope_theta", 1000)))
    keys.add_token_type_count(source.number("type_vocab_size"))
    bert.add_pooling(out, source)


def convert(out, source, options):
    del options
    source.check_modules({"Transformer", "Pooling", "Normalize"})
    if source.config.get("moe_every_n_layers"):
        fail("config.json has moe_every_n_layers: a mixture of experts cannot be converted")
    if "n_embd" in source.config:
        read_published(source)
    else:
        source.expect({"hidden_act": "silu"})
    add_keys(out, source)
    bert.add_tokens(out, source)
    tensors = Tensors(source.model)
    prefix = tensors.prefix_of("emb_ln.weight", ["", "nomic_bert.", "bert."])
    for name, source_name in OUTER_TENSORS:
        out.add_tensor(name, tensors.load(prefix + source_name))
    for layer in range(source.config["num_hidden_layers"]):
        for name, source_name in BLOCK_TENSORS:
            path = f"{prefix}encoder.layers.{layer}.{source_name}"
            out.add_tensor(f"blk.{layer}.{name}", tensors.load(path))
