#!/usr/bin/env python3
"""Turn a sentence-transformers folder of EmbeddingGemma 300M into a GGUF file for embedmill.

Usage: convert-model.py FOLDER OUT.gguf

FOLDER holds config.json, tokenizer.model, tokenizer_config.json, model.safetensors and the two
dense layers in 2_Dense/ and 3_Dense/. Matrices are stored as Q8_0 (blocks of 32 values with one
half precision scale), norms as float32. Gemma scales by (1 + w) where others scale by w; the 1 is
added here, so that readers of the file need not know. Names, keys, types and vocabulary are those
of llama.cpp's own conversion, so the file also runs there.

The file appears under its name only when it is complete.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors import safe_open
from sentencepiece import SentencePieceProcessor

ARCHITECTURE = "gemma-embedding"

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

SCORE_OF_PADS = -10000.0
SCORE_OF_ADDED_TOKENS = -1000.0


def fail(message):
    sys.exit(f"convert-model: {message}")


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        fail(f"{path} is missing: FOLDER must be a sentence-transformers folder of EmbeddingGemma")
    except json.JSONDecodeError as e:
        fail(f"{path} is not valid JSON ({e}): fetch the folder again")


def check_config(config):
    expected = {"model_type": "gemma3_text", "use_bidirectional_attention": True}
    for key, value in expected.items():
        if config.get(key) != value:
            fail(f"config.json has {key} = {config.get(key)!r}, expected {value!r}: only "
                 "EmbeddingGemma can be converted")


def is_special(text, declared_special):
    """Tokens that never stand for text of their own, although not all are declared special."""
    return declared_special or text in ("<pad>", "<mask>") or (
        text.startswith("<unused") and text.endswith(">"))


def read_vocabulary(folder, n_vocab):
    """Texts, scores and types: the SentencePiece model, overlaid with the added tokens."""
    processor = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    types = gguf.TokenType
    tokens = [f"[PAD{i}]".encode() for i in range(n_vocab)]
    scores = [SCORE_OF_PADS] * n_vocab
    kinds = [types.UNUSED] * n_vocab

    for i in range(min(n_vocab, processor.vocab_size())):
        tokens[i] = processor.IdToPiece(i).encode()
        scores[i] = processor.GetScore(i)
        kinds[i] = (types.UNKNOWN if processor.IsUnknown(i) else
                    types.CONTROL if processor.IsControl(i) else
                    types.UNUSED if processor.IsUnused(i) else
                    types.BYTE if processor.IsByte(i) else types.NORMAL)

    added_path = folder / "added_tokens.json"
    if added_path.is_file():
        for text, i in read_json(added_path).items():
            if i < n_vocab: # the image token of the multimodal family lies beyond the matrix
                tokens[i] = text.encode()
                scores[i] = SCORE_OF_ADDED_TOKENS
                kinds[i] = types.USER_DEFINED

    declared = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    for key, entry in declared.items():
        i, text = int(key), entry["content"]
        if i >= n_vocab:
            continue
        if is_special(text, entry.get("special", False)):
            kinds[i] = types.CONTROL
        else:
            kinds[i] = types.USER_DEFINED
            text = text.replace("\u2581", " ")
        tokens[i] = text.encode()
        scores[i] = SCORE_OF_ADDED_TOKENS
    return tokens, scores, kinds


def add_keys(writer, folder, config):
    writer.add_type("model")
    writer.add_name("Embeddinggemma 300m")
    writer.add_size_label("300M")
    writer.add_license("gemma")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_freq_base_swa(config["rope_local_base_freq"])
    writer.add_sliding_window(config["sliding_window"])
    pooling = read_json(folder / "1_Pooling" / "config.json")
    if not pooling.get("pooling_mode_mean_tokens"):
        fail("1_Pooling/config.json does not ask for the mean: only mean pooling can be converted")
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    for n in (2, 3):
        dense = read_json(folder / f"{n}_Dense" / "config.json")
        writer.add_dense_features_dims(f"dense_{n}", dense["in_features"], dense["out_features"])

    tokens, scores, kinds = read_vocabulary(folder, config["vocab_size"])
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    processor = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    writer.add_bos_token_id(processor.bos_id())
    writer.add_eos_token_id(processor.eos_id())
    writer.add_unk_token_id(processor.unk_id())
    writer.add_pad_token_id(processor.pad_id())
    tokenizer_config = read_json(folder / "tokenizer_config.json")
    writer.add_add_bos_token(tokenizer_config["add_bos_token"])
    writer.add_add_eos_token(tokenizer_config["add_eos_token"])
    writer.add_add_sep_token(False)
    writer.add_add_space_prefix(False)


def add_tensor(writer, name, values):
    """values: float32, row by row. Matrices become Q8_0, vectors stay float32."""
    if not np.isfinite(values).all():
        fail(f"{name} has a value that is not finite: the source is damaged")
    if values.ndim == 1:
        writer.add_tensor(name, values.astype(np.float32))
        return
    kind = gguf.GGMLQuantizationType.Q8_0
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def load_tensor(source, name):
    try:
        return source.get_tensor(name).astype(np.float32, copy=False)
    except Exception as e:
        fail(f"tensor {name} cannot be read from the source folder: {e}")


def add_tensors(writer, folder, config):
    with safe_open(folder / "model.safetensors", framework="np") as source:
        # Exports differ in whether the names carry the name of the wrapping module.
        prefix = "model." if "model.norm.weight" in source.keys() else ""
        embeddings = load_tensor(source, f"{prefix}embed_tokens.weight")
        add_tensor(writer, "token_embd.weight", embeddings[:config["vocab_size"]])
        add_tensor(writer, "output_norm.weight", 1 + load_tensor(source, f"{prefix}norm.weight"))
        for layer in range(config["num_hidden_layers"]):
            for name, source_name in BLOCK_TENSORS:
                values = load_tensor(source, f"{prefix}layers.{layer}.{source_name}.weight")
                if values.ndim == 1:
                    values = 1 + values
                add_tensor(writer, f"blk.{layer}.{name}.weight", values)
    for n in (2, 3):
        with safe_open(folder / f"{n}_Dense" / "model.safetensors", framework="np") as source:
            add_tensor(writer, f"dense_{n}.weight", load_tensor(source, "linear.weight"))


def convert(folder, out):
    config = read_json(folder / "config.json")
    check_config(config)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    writer = gguf.GGUFWriter(partial, ARCHITECTURE)
    try:
        add_keys(writer, folder, config)
        add_tensors(writer, folder, config)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with open(partial, "rb") as f:
            os.fsync(f.fileno())
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(
        description="Turn a sentence-transformers folder of EmbeddingGemma 300M into a GGUF file.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        fail(f"{arguments.folder} is not a folder")
    convert(arguments.folder, arguments.out)


if __name__ == "__main__":
    main()
