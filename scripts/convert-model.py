#!/usr/bin/env python3
"""Turn a sentence-transformers folder into a GGUF file for embedmill.

Usage: convert-model.py [--type q8_0|q4_0|f16|f32] FOLDER OUT.gguf

Two kinds of models, told by model_type in config.json:
  gemma3_text  EmbeddingGemma 300M: config.json, tokenizer.model, tokenizer_config.json,
               model.safetensors and the two dense layers in 2_Dense/ and 3_Dense/. Gemma scales by
               (1 + w) where others scale by w; the 1 is added here, so that readers of the file
               need not know.
  bert         an uncased BERT (all-MiniLM, bge, e5, gte): config.json, vocab.txt,
               model.safetensors.
and 1_Pooling/config.json. Matrices are stored as Q8_0 (blocks of 32 values with one half precision
scale) or what --type says, norms, biases and positions as float32. Names, keys, types and
vocabulary are those of llama.cpp's own conversion, so the file also runs there.

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

TYPES = {
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
}

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

BERT_OUTER_TENSORS = [
    ("token_embd.weight", "embeddings.word_embeddings.weight"),
    ("token_types.weight", "embeddings.token_type_embeddings.weight"),
    ("position_embd.weight", "embeddings.position_embeddings.weight"),
    ("token_embd_norm.weight", "embeddings.LayerNorm.weight"),
    ("token_embd_norm.bias", "embeddings.LayerNorm.bias"),
]

# Each has a weight and a bias.
BERT_BLOCK_TENSORS = [
    ("attn_q", "attention.self.query"),
    ("attn_k", "attention.self.key"),
    ("attn_v", "attention.self.value"),
    ("attn_output", "attention.output.dense"),
    ("attn_output_norm", "attention.output.LayerNorm"),
    ("ffn_up", "intermediate.dense"),
    ("ffn_down", "output.dense"),
    ("layer_output_norm", "output.LayerNorm"),
]

# Rows that are added, not multiplied: they cost nothing as they are.
ALWAYS_F32 = {"token_types.weight", "position_embd.weight"}

SCORE_OF_PADS = -10000.0
SCORE_OF_ADDED_TOKENS = -1000.0


def fail(message):
    sys.exit(f"convert-model: {message}")


def read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        fail(f"{path} is missing: FOLDER must be a sentence-transformers folder")
    except json.JSONDecodeError as e:
        fail(f"{path} is not valid JSON ({e}): fetch the folder again")


def check_config(config, expected):
    for key, value in expected.items():
        if config.get(key) != value:
            fail(f"config.json has {key} = {config.get(key)!r}, expected {value!r}: only "
                 "EmbeddingGemma and uncased BERT models can be converted")


def pooling_of(folder):
    pooling = read_json(folder / "1_Pooling" / "config.json")
    if pooling.get("pooling_mode_mean_tokens"):
        return gguf.PoolingType.MEAN
    if pooling.get("pooling_mode_cls_token"):
        return gguf.PoolingType.CLS
    return fail("1_Pooling/config.json asks neither for the mean nor for the first token: only "
                "these can be converted")


def is_special(text, declared_special):
    """Tokens that never stand for text of their own, although not all are declared special."""
    return declared_special or text in ("<pad>", "<mask>") or (
        text.startswith("<unused") and text.endswith(">"))


def read_vocabulary(folder, n_vocab):
    """Texts, scores and types: the SentencePiece model, overlaid with the added tokens."""
    from sentencepiece import SentencePieceProcessor # only this kind of model needs it
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


def add_gemma_keys(writer, folder, config, file_type):
    from sentencepiece import SentencePieceProcessor
    writer.add_type("model")
    writer.add_name("Embeddinggemma 300m")
    writer.add_size_label("300M")
    writer.add_license("gemma")
    writer.add_file_type(file_type)
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
    writer.add_pooling_type(pooling_of(folder))
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


def read_word_pieces(folder, n_vocab):
    """Texts and types. What goes on with a word loses its ##, what begins one gets a U+2581."""
    try:
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    except FileNotFoundError:
        fail(f"{folder / 'vocab.txt'} is missing: only WordPiece vocabularies can be converted")
    tokens, kinds = [], []
    for text in lines:
        special = text in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        kinds.append(gguf.TokenType.CONTROL if special else gguf.TokenType.NORMAL)
        tokens.append(text if special else text[2:] if text.startswith("##") else "\u2581" + text)
    for i in range(len(lines), n_vocab):
        tokens.append(f"[PAD{i}]")
        kinds.append(gguf.TokenType.UNUSED)
    return tokens, kinds


def add_bert_keys(writer, folder, config, file_type):
    if not read_json(folder / "tokenizer_config.json").get("do_lower_case", True):
        fail("tokenizer_config.json says that case matters: only uncased models can be converted")
    writer.add_type("model")
    writer.add_name(folder.resolve().name) # config.json names the model it was trained from
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling_of(folder))

    tokens, kinds = read_word_pieces(folder, config["vocab_size"])
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    for text, add in (("[UNK]", writer.add_unk_token_id), ("[SEP]", writer.add_sep_token_id),
                      ("[PAD]", writer.add_pad_token_id), ("[CLS]", writer.add_bos_token_id),
                      ("[MASK]", writer.add_mask_token_id)):
        if text not in tokens:
            fail(f"vocab.txt has no {text}")
        add(tokens.index(text))


def add_tensor(writer, name, values, kind):
    """values: float32, row by row. Matrices become kind, vectors stay float32."""
    if not np.isfinite(values).all():
        fail(f"{name} has a value that is not finite: the source is damaged")
    if values.ndim == 1 or name in ALWAYS_F32:
        writer.add_tensor(name, values.astype(np.float32))
        return
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def load_tensor(source, name):
    try:
        return source.get_tensor(name).astype(np.float32, copy=False)
    except Exception as e:
        fail(f"tensor {name} cannot be read from the source folder: {e}")


def add_gemma_tensors(writer, folder, config, kind):
    with safe_open(folder / "model.safetensors", framework="np") as source:
        # Exports differ in whether the names carry the name of the wrapping module.
        prefix = "model." if "model.norm.weight" in source.keys() else ""
        embeddings = load_tensor(source, f"{prefix}embed_tokens.weight")
        add_tensor(writer, "token_embd.weight", embeddings[:config["vocab_size"]], kind)
        add_tensor(writer, "output_norm.weight", 1 + load_tensor(source, f"{prefix}norm.weight"),
                   kind)
        for layer in range(config["num_hidden_layers"]):
            for name, source_name in BLOCK_TENSORS:
                values = load_tensor(source, f"{prefix}layers.{layer}.{source_name}.weight")
                if values.ndim == 1:
                    values = 1 + values
                add_tensor(writer, f"blk.{layer}.{name}.weight", values, kind)
    for n in (2, 3):
        with safe_open(folder / f"{n}_Dense" / "model.safetensors", framework="np") as source:
            add_tensor(writer, f"dense_{n}.weight", load_tensor(source, "linear.weight"), kind)


def add_bert_tensors(writer, folder, config, kind):
    with safe_open(folder / "model.safetensors", framework="np") as source:
        prefix = "bert." if "bert.embeddings.LayerNorm.weight" in source.keys() else ""
        for name, source_name in BERT_OUTER_TENSORS:
            add_tensor(writer, name, load_tensor(source, prefix + source_name), kind)
        for layer in range(config["num_hidden_layers"]):
            for name, source_name in BERT_BLOCK_TENSORS:
                for part in ("weight", "bias"):
                    values = load_tensor(source,
                                         f"{prefix}encoder.layer.{layer}.{source_name}.{part}")
                    add_tensor(writer, f"blk.{layer}.{name}.{part}", values, kind)


# By model_type: name in the file, what config.json must say, keys, tensors.
KINDS = {
    "gemma3_text": ("gemma-embedding", {"use_bidirectional_attention": True}, add_gemma_keys,
                    add_gemma_tensors),
    "bert": ("bert", {"hidden_act": "gelu", "position_embedding_type": "absolute"}, add_bert_keys,
             add_bert_tensors),
}


def convert(folder, out, type_name):
    config = {"position_embedding_type": "absolute", **read_json(folder / "config.json")}
    if config.get("model_type") not in KINDS:
        check_config(config, {"model_type": "gemma3_text or bert"})
    architecture, expected, add_keys, add_tensors = KINDS[config["model_type"]]
    check_config(config, expected)
    kind, file_type = TYPES[type_name]
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    writer = gguf.GGUFWriter(partial, architecture)
    try:
        add_keys(writer, folder, config, file_type)
        add_tensors(writer, folder, config, kind)
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
        description="Turn a sentence-transformers folder into a GGUF file.")
    parser.add_argument("--type", choices=TYPES, default="q8_0", help="of matrices")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        fail(f"{arguments.folder} is not a folder")
    convert(arguments.folder, arguments.out, arguments.type)


if __name__ == "__main__":
    main()
