"""EmbeddingGemma 2, the text part: its towers for pictures and sounds are left out.

Norms scale by their weights as they are. The window of config.json is what a token sees on either
side; a GGUF file holds the whole width, twice that."""

import gguf

from .gemma import FULL_EVERY
from .gemma_tokens import add_tokens
from .output import POOLING
from .source import Tensors, fail

ARCHITECTURE = "gemma-embedding2"

OUTER_TENSORS = [
    ("token_embd", "embed_tokens"),
    ("per_layer_model_proj", "ple.per_layer_model_projection"),
    ("per_layer_proj_norm", "ple.per_layer_projection_norm"),
    ("output_norm", "norm"),
    ("output", "embedding_projection"),
]

BLOCK_TENSORS = [
    ("attn_norm.weight", "input_layernorm.weight"),
    ("attn_q.weight", "self_attn.q_proj.weight"),
    ("attn_k.weight", "self_attn.k_proj.weight"),
    ("attn_v.weight", "self_attn.v_proj.weight"),
    ("attn_output.weight", "self_attn.o_proj.weight"),
    ("attn_q_norm.weight", "self_attn.q_norm.weight"),
    ("attn_k_norm.weight", "self_attn.k_norm.weight"),
    ("post_attention_norm.weight", "post_attention_layernorm.weight"),
    ("ffn_norm.weight", "pre_feedforward_layernorm.weight"),
    ("ffn_gate.weight", "mlp.gate_proj.weight"),
    ("ffn_up.weight", "mlp.up_proj.weight"),
    ("ffn_down.weight", "mlp.down_proj.weight"),
    ("post_ffw_norm.weight", "post_feedforward_layernorm.weight"),
    ("inp_gate.weight", "ple_block.per_layer_input_gate.weight"),
    ("proj.weight", "ple_block.per_layer_projection.weight"),
    ("post_norm.weight", "ple_block.post_per_layer_input_norm.weight"),
    ("layer_output_scale.weight", "layer_scalar"),
]


def check_layers(source, n_layers):
    kinds = source.config.get("layer_types")
    expected = ["sliding_attention" if (i + 1) % FULL_EVERY else "full_attention"
                for i in range(n_layers)]
    if kinds != expected:
        fail("config.json has other layer_types than a full_attention every 6th layer: such models "
             "cannot be converted")
    source.expect({"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False})


def add_keys(out, source, tensors, prefix):
    keys, n_layers = out.keys, source.number("num_hidden_layers")
    heads = source.number("num_attention_heads")
    rows = lambda layer, name: tensors.shape(f"{prefix}layers.{layer}.self_attn.{name}.weight")[0]
    sliding, full = rows(0, "q_norm"), rows(FULL_EVERY - 1, "q_norm")
    keys.add_type("model")
    keys.add_name(source.name)
    keys.add_license("apache-2.0")
    keys.add_file_type(out.file_type)
    keys.add_quantization_version(gguf.GGML_QUANT_VERSION)
    keys.add_context_length(source.number("max_position_embeddings"))
    keys.add_embedding_length(source.number("hidden_size"))
    keys.add_embedding_length_out(source.number("embedding_dim"))
    keys.add_embedding_length_per_layer_input(source.number("hidden_size_per_layer_input"))
    keys.add_block_count(n_layers)
    keys.add_feed_forward_length(source.number("intermediate_size"))
    keys.add_head_count(heads)
    keys.add_head_count_kv([rows(layer, "k_proj") // rows(layer, "q_norm")
                            for layer in range(n_layers)])
    keys.add_key_length(full)
    keys.add_value_length(full)
    keys.add_uint32(f"{ARCHITECTURE}.attention.key_length_swa", sliding)
    keys.add_uint32(f"{ARCHITECTURE}.attention.value_length_swa", sliding)
    keys.add_layer_norm_rms_eps(source.number("rms_norm_eps"))
    keys.add_rope_freq_base(source.rope_base("full_attention", "rope_theta"))
    keys.add_rope_freq_base_swa(source.rope_base("sliding_attention", "rope_local_base_freq"))
    keys.add_sliding_window(2 * source.number("sliding_window"))
    keys.add_array(f"{ARCHITECTURE}.attention.sliding_window_pattern",
                   [bool((i + 1) % FULL_EVERY) for i in range(n_layers)])
    keys.add_pooling_type(POOLING[source.pooling(["mean"])])


def convert(out, source, options):
    del options
    source.config = source.config.get("text_config", source.config)
    source.check_modules({"Transformer", "Pooling", "Normalize"})
    n_layers = source.number("num_hidden_layers")
    check_layers(source, n_layers)
    tensors = Tensors(source.model)
    prefix = tensors.prefix_of("norm.weight", ["", "language_model.", "model.language_model.",
                                               "model."])
    add_keys(out, source, tensors, prefix)
    add_tokens(out, source, merges=True)
    for name, source_name in OUTER_TENSORS:
        values = tensors.load(f"{prefix}{source_name}.weight")
        if name == "token_embd":
            values = values[:source.config["vocab_size"]]
        out.add_tensor(f"{name}.weight", values)
    for layer in range(n_layers):
        for name, source_name in BLOCK_TENSORS:
            out.add_tensor(f"blk.{layer}.{name}",
                           tensors.load(f"{prefix}layers.{layer}.{source_name}"))
