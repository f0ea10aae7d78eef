"""GTE (gte-multilingual-base, gte-*-en-v1.5, snowflake-arctic-embed-m-v2.0, the reranker
gte-multilingual-reranker-base): a BERT with rotated positions and a gate in the feed-forward part.
llama.cpp does not know it; names are as for the others.

The publisher's code calls its model "new" and makes rotations of another base and slower for texts
longer than it was first trained with ("ntk"), of whatever length the text is; transformers writes
the same as a base and a factor ("linear")."""

import gguf

from . import bert, rerank, unigram_tokens
from .source import Tensors, fail

ARCHITECTURE = "gte"

OUTER_TENSORS = [
    ("token_embd.weight", "embeddings.word_embeddings.weight"),
    ("token_embd_norm.weight", "embeddings.LayerNorm.weight"),
    ("token_embd_norm.bias", "embeddings.LayerNorm.bias"),
]
TOKEN_TYPES = ("token_types.weight", "embeddings.token_type_embeddings.weight")

# Name in the file, what it is in a layer of transformers and of the publisher's.
BLOCK_TENSORS = [
    ("attn_output.weight", "self_attn.o_proj.weight", "attention.o_proj.weight"),
    ("attn_output.bias", "self_attn.o_proj.bias", "attention.o_proj.bias"),
    ("attn_output_norm.weight", "post_attention_layernorm.weight", "attn_ln.weight"),
    ("attn_output_norm.bias", "post_attention_layernorm.bias", "attn_ln.bias"),
    ("ffn_down.weight", "mlp.down_proj.weight", "mlp.down_proj.weight"),
    ("ffn_down.bias", "mlp.down_proj.bias", "mlp.down_proj.bias"),
    ("layer_output_norm.weight", "post_mlp_layernorm.weight", "mlp_ln.weight"),
    ("layer_output_norm.bias", "post_mlp_layernorm.bias", "mlp_ln.bias"),
]
ATTENTION = ("attn_q", "attn_k", "attn_v")


def rotation_of(source):
    """The base, and what positions are divided by."""
    rope = source.config.get("rope_parameters")
    if isinstance(rope, dict):
        kind, base = rope.get("rope_type", "default"), source.number("rope_theta", rope)
        if kind not in ("default", "linear"):
            fail(f"config.json has rope_type {kind!r}: only 'default' and 'linear' can be "
                 "converted")
        return base, source.number("factor", rope) if kind == "linear" else 1.0
    base, scaling = source.number("rope_theta"), source.config.get("rope_scaling")
    if not scaling:
        return base, 1.0
    kind = scaling.get("type", scaling.get("rope_type"))
    if kind != "ntk" or scaling.get("mixed_b") is not None:
        fail(f"config.json has rope_scaling {scaling}: only 'ntk' without mixed_b can be converted")
    factor = source.number("factor", scaling)
    width = source.number("hidden_size") // source.number("num_attention_heads")
    return base * factor, factor ** (2 / width)


def add_keys(out, source):
    source.config["type_vocab_size"] = source.config.get("type_vocab_size") or 1
    bert.add_keys(out, source)
    base, stretch = rotation_of(source)
    out.keys.add_rope_freq_base(float(base))
    if stretch != 1:
        out.keys.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        out.keys.add_rope_scaling_factor(float(stretch))


def add_published_layer(out, tensors, path, layer):
    for part in ("weight", "bias"):
        packed = f"{path}attention.qkv_proj.{part}"
        if packed in tensors:
            values = tensors.load(packed)
            thirds = [values[i * len(values) // 3:(i + 1) * len(values) // 3] for i in range(3)]
        else:
            thirds = [tensors.load(f"{path}attention.{name}_proj.{part}") for name in "qkv"]
        for name, third in zip(ATTENTION, thirds):
            out.add_tensor(f"blk.{layer}.{name}.{part}", third)
    both = tensors.load(f"{path}mlp.up_gate_proj.weight")
    out.add_tensor(f"blk.{layer}.ffn_up.weight", both[:len(both) // 2])
    out.add_tensor(f"blk.{layer}.ffn_gate.weight", both[len(both) // 2:])
    for name, _, published in BLOCK_TENSORS:
        out.add_tensor(f"blk.{layer}.{name}", tensors.load(path + published))


def add_layer(out, tensors, path, layer):
    for name, letter in zip(ATTENTION, "qkv"):
        for part in ("weight", "bias"):
            out.add_tensor(f"blk.{layer}.{name}.{part}",
                           tensors.load(f"{path}self_attn.{letter}_proj.{part}"))
    for name in ("up", "gate"):
        out.add_tensor(f"blk.{layer}.ffn_{name}.weight",
                       tensors.load(f"{path}mlp.{name}_proj.weight"))
    for name, new, _ in BLOCK_TENSORS:
        out.add_tensor(f"blk.{layer}.{name}", tensors.load(path + new))


def add_tensors(out, source):
    tensors = Tensors(source.model)
    prefix = tensors.prefix_of("embeddings.LayerNorm.weight", ["", "new.", "gte."])
    for name, source_name in OUTER_TENSORS:
        out.add_tensor(name, tensors.load(prefix + source_name))
    if prefix + TOKEN_TYPES[1] in tensors:
        out.add_tensor(TOKEN_TYPES[0], tensors.load(prefix + TOKEN_TYPES[1]))
    is_new = f"{prefix}layers.0.post_mlp_layernorm.weight" in tensors
    for layer in range(source.config["num_hidden_layers"]):
        if is_new:
            add_layer(out, tensors, f"{prefix}layers.{layer}.", layer)
        else:
            add_published_layer(out, tensors, f"{prefix}encoder.layer.{layer}.", layer)
    if rerank.is_reranker(source):
        rerank.add_head(out, source, {"cls": f"{prefix}pooler.dense", "cls.output": "classifier"})


def convert(out, source, options):
    del options
    rerank.check_modules(source)
    source.expect({"hidden_act": "gelu", "position_embedding_type": "rope",
                   "layer_norm_type": "layer_norm", "logn_attention_scale": False})
    add_keys(out, source)
    if unigram_tokens.is_unigram(source.tokenizer_json()):
        source.refuse_lowering()
        unigram_tokens.add_tokens(out, source, source.number("vocab_size"))
    else:
        bert.add_tokens(out, source)
    add_tensors(out, source)
