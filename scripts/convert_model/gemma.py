"""EmbeddingGemma: a Gemma 3 that looks both ways, the mean of its states, two dense layers.

Gemma scales by (1 + w) where others scale by w; the 1 is added here, so that readers of the file
need not know."""

from .gemma_tokens import add_tokens
from .output import POOLING
from .source import Tensors, fail, read_json, warn

import gguf

ARCHITECTURE = "gemma-embedding"
FULL_EVERY = 6 # every 6th layer sees the whole text; a GGUF file has no key for it

# Name in the file, name in the source folder; {} is the layer.
BLOCK_TENSORS = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
]


def dense_folders(source, without_dense):
    """The folders of the two dense layers, or none where the model has none."""
    folders = source.folders_of("Dense", ["2_Dense", "3_Dense"])
    if len(folders) == 2:
        return folders
    if folders:
        fail(f"there is {len(folders)} dense layer, {folders[0].name}: EmbeddingGemma has two, and "
             "only two or none can be converted")
    if not without_dense:
        fail("there are no dense layers (2_Dense, 3_Dense), so vectors would be in another space "
             "than EmbeddingGemma's; fetch the whole folder, or say --without-dense if this model "
             "was trained without them")
    return []


def read_dense(folder):
    """Of a dense layer: it multiplies by a matrix and does no more."""
    dense = read_json(folder / "config.json")
    # What sentence-transformers does where the folder does not say.
    activation = dense.get("activation_function", "torch.nn.modules.activation.Tanh")
    tensors = Tensors(folder)
    if dense.get("bias", True) or "linear.bias" in tensors:
        fail(f"{folder.name}/config.json asks for a bias: only Identity without bias can be "
             "converted")
    if activation.rsplit(".", 1)[-1] != "Identity":
        fail(f"{folder.name}/config.json asks for {activation}: only Identity without bias can be "
             "converted")
    return dense, tensors


def window_of(source):
    """Tokens that a sliding layer sees, both sides together. transformers 4.57 to 5.12 make half
    and one of it each time they load and save a model: 512, 257, 129, 65."""
    window = source.number("sliding_window")
    if window in (257, 129, 65, 33):
        warn(f"config.json has sliding_window = {window}, which transformers 4.57 to 5.12 make of "
             "EmbeddingGemma's 512 each time they save it: 512 is written")
        return 512
    return window


def check_layers(source, n_layers):
    kinds = source.config.get("layer_types")
    expected = ["sliding_attention" if (i + 1) % FULL_EVERY else "full_attention"
                for i in range(n_layers)]
    if kinds is not None and kinds != expected:
        fail("config.json has other layer_types than a full_attention every 6th layer: such models "
             "cannot be converted")
    source.expect({"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False,
                   "attn_logit_softcapping": None, "_sliding_window_pattern": FULL_EVERY,
                   "query_pre_attn_scalar": source.number("head_dim")})


def add_keys(out, source, dense):
    config, keys = source.config, out.keys
    keys.add_type("model")
    keys.add_name(source.name)
    if config["num_hidden_layers"] == 24 and config["hidden_size"] == 768:
        keys.add_size_label("300M")
    keys.add_license("gemma")
    keys.add_file_type(out.file_type)
    keys.add_quantization_version(gguf.GGML_QUANT_VERSION)

    keys.add_context_length(source.number("max_position_embeddings"))
    keys.add_embedding_length(source.number("hidden_size"))
    keys.add_block_count(source.number("num_hidden_layers"))
    keys.add_feed_forward_length(source.number("intermediate_size"))
    keys.add_head_count(source.number("num_attention_heads"))
    keys.add_head_count_kv(source.number("num_key_value_heads"))
    keys.add_key_length(source.number("head_dim"))
    keys.add_value_length(source.number("head_dim"))
    keys.add_layer_norm_rms_eps(source.number("rms_norm_eps"))
    keys.add_rope_freq_base(source.rope_base("full_attention", "rope_theta"))
    keys.add_rope_freq_base_swa(source.rope_base("sliding_attention", "rope_local_base_freq"))
    keys.add_sliding_window(window_of(source))
    keys.add_pooling_type(POOLING[source.pooling(["mean"])])
    for n, (layer, _) in enumerate(dense, 2):
        keys.add_dense_features_dims(f"dense_{n}", layer["in_features"], layer["out_features"])
    if not dense: # and it is as it must be: readers need not miss them
        keys.add_uint32(f"{ARCHITECTURE}.dense_layers", 0)


def add_tensors(out, source, dense):
    tensors = Tensors(source.model)
    prefix = tensors.prefix_of("norm.weight", ["", "model.", "language_model."])
    out.add_tensor("token_embd.weight",
                   tensors.load(f"{prefix}embed_tokens.weight")[:source.config["vocab_size"]])
    out.add_tensor("output_norm.weight", 1 + tensors.load(f"{prefix}norm.weight"))
    for layer in range(source.config["num_hidden_layers"]):
        for name, source_name in BLOCK_TENSORS:
            values = tensors.load(f"{prefix}layers.{layer}.{source_name}.weight")
            if values.ndim == 1:
                values = 1 + values
            out.add_tensor(f"blk.{layer}.{name}.weight", values)
    for n, (_, weights) in enumerate(dense, 2):
        out.add_tensor(f"dense_{n}.weight", weights.load("linear.weight"))


def convert(out, source, options):
    source.expect({"use_bidirectional_attention": True})
    if source.config.get("use_bidirectional_attention") is not True:
        fail("config.json has no use_bidirectional_attention: a Gemma 3 that writes texts is no "
             "embedding model")
    source.check_modules({"Transformer", "Pooling", "Dense", "Normalize"})
    check_layers(source, source.number("num_hidden_layers"))
    dense = [read_dense(folder) for folder in dense_folders(source, options.without_dense)]
    add_keys(out, source, dense)
    add_tokens(out, source)
    add_tensors(out, source, dense)
