"""The ModernBERT family: gte-modernbert-base, Granite Embedding R2 (English), modernbert-embed."""

import gguf

from .bert import add_pooling
from .byte_tokens import add_tokens
from .source import Tensors, fail

ARCHITECTURE = "modern-bert"

BLOCK_TENSORS = [
    ("attn_norm", "attn_norm"),
    ("attn_qkv", "attn.Wqkv"),
    ("attn_output", "attn.Wo"),
    ("ffn_norm", "mlp_norm"),
    ("ffn_up", "mlp.Wi"),
    ("ffn_down", "mlp.Wo"),
]


def full_every(source):
    """The first layer and each so many behind it see the whole text."""
    kinds = source.config.get("layer_types")
    if kinds is None:
        return int(source.config.get("global_attn_every_n_layers", 3))
    full = [i for i, kind in enumerate(kinds) if kind == "full_attention"]
    every = full[1] if len(full) > 1 else max(len(kinds), 1)
    if kinds != ["sliding_attention" if i % every else "full_attention"
                 for i in range(source.number("num_hidden_layers"))]:
        fail("config.json has layer_types in which full_attention does not come again after as "
             "many layers each time: such models cannot be converted")
    return every


def add_keys(out, source):
    keys, hidden = out.keys, source.number("hidden_size")
    heads = source.number("num_attention_heads")
    if hidden % (32 * heads) or source.number("intermediate_size") % 32:
        fail(f"heads of {hidden / heads:g} values, {source.config['intermediate_size']} within a "
             "layer: only multiples of 32 can be converted")
    window = source.config.get("local_attention", 128)
    keys.add_type("model")
    keys.add_name(source.name)
    keys.add_file_type(out.file_type)
    keys.add_quantization_version(gguf.GGML_QUANT_VERSION)
    keys.add_context_length(source.number("max_position_embeddings"))
    keys.add_embedding_length(hidden)
    keys.add_block_count(source.number("num_hidden_layers"))
    keys.add_feed_forward_length(source.number("intermediate_size"))
    keys.add_head_count(heads)
    keys.add_layer_norm_eps(source.number("norm_eps"))
    keys.add_causal_attention(False)
    keys.add_sliding_window(window)
    keys.add_sliding_window_pattern(full_every(source))
    keys.add_rope_freq_base(float(source.rope_base("full_attention", "global_rope_theta", 160000)))
    keys.add_rope_freq_base_swa(float(source.rope_base("sliding_attention", "local_rope_theta",
                                                       10000)))
    keys.add_rope_scaling_type(gguf.RopeScalingType.NONE)
    if source.config.get("hidden_activation", "gelu") != "gelu":
        keys.add_string(f"{ARCHITECTURE}.hidden_activation", source.config["hidden_activation"])
    keys.add_vocab_size(source.number("vocab_size"))
    add_pooling(out, source)


def check(source):
    source.check_modules({"Transformer", "Pooling", "Normalize"})
    if source.config.get("hidden_activation", "gelu") not in ("gelu", "silu"):
        fail(f"config.json has hidden_activation = {source.config['hidden_activation']!r}: only "
             "'gelu' and 'silu' can be converted")
    source.expect({"norm_bias": False, "attention_bias": False,
                   "mlp_bias": False})


def convert(out, source, options):
    del options
    check(source)
    add_keys(out, source)
    before, _ = add_tokens(out, source, source.number("vocab_size"))
    if before is None:
        fail("tokenizer.json puts no token before a text: such models cannot be converted")
    tensors = Tensors(source.model)
    prefix = tensors.prefix_of("final_norm.weight", ["", "model."])
    for name, source_name in (("token_embd", "embeddings.tok_embeddings"),
                              ("token_embd_norm", "embeddings.norm"),
                              ("output_norm", "final_norm")):
        out.add_tensor(f"{name}.weight", tensors.load(f"{prefix}{source_name}.weight"))
    for layer in range(source.config["num_hidden_layers"]):
        for name, source_name in BLOCK_TENSORS[layer == 0:]: # the first has no attn_norm
            out.add_tensor(f"blk.{layer}.{name}.weight",
                           tensors.load(f"{prefix}layers.{layer}.{source_name}.weight"))
