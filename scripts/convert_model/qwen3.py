"""Qwen3-Embedding: a Qwen3 that pools the last token."""

import gguf

from .bert import add_pooling
from .byte_tokens import add_tokens
from .source import Tensors, fail

ARCHITECTURE = "qwen3"
END = "<|endoftext|>"

BLOCK_TENSORS = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
]


def add_keys(out, source):
    keys, head = out.keys, source.number("head_dim")
    keys.add_type("model")
    keys.add_name(source.name)
    keys.add_file_type(out.file_type)
    keys.add_quantization_version(gguf.GGML_QUANT_VERSION)
    keys.add_context_length(source.number("max_position_embeddings"))
    keys.add_embedding_length(source.number("hidden_size"))
    keys.add_block_count(source.number("num_hidden_layers"))
    keys.add_feed_forward_length(source.number("intermediate_size"))
    keys.add_head_count(source.number("num_attention_heads"))
    keys.add_head_count_kv(source.number("num_key_value_heads"))
    keys.add_key_length(head)
    keys.add_value_length(head)
    keys.add_layer_norm_rms_eps(source.number("rms_norm_eps"))
    keys.add_rope_freq_base(float(source.rope_base("full_attention", "rope_theta")))
    add_pooling(out, source, ["lasttoken"])


def convert(out, source, options):
    del options
    source.check_modules({"Transformer", "Pooling", "Normalize"})
    source.expect({"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False})
    add_keys(out, source)
    before, behind = add_tokens(out, source, source.number("vocab_size"))
    if before is not None or behind != END:
        fail(f"tokenizer.json does not put {END} alone behind a text: such models cannot be "
             "converted")
    tensors = Tensors(source.model)
    prefix = tensors.prefix_of("norm.weight", ["", "model."])
    out.add_tensor("token_embd.weight", tensors.load(f"{prefix}embed_tokens.weight"))
    out.add_tensor("output_norm.weight", tensors.load(f"{prefix}norm.weight"))
    for layer in range(source.config["num_hidden_layers"]):
        for name, source_name in BLOCK_TENSORS:
            out.add_tensor(f"blk.{layer}.{name}.weight",
                           tensors.load(f"{prefix}layers.{layer}.{source_name}.weight"))
