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


def number_of(config, key):
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        fail(f"config.json has no number {key} above 0: fetch the folder again")
    return value


def pooling_of(folder):
    pooling = read_json(folder / "1_Pooling" / "config.json")
    modes = [key for key, value in pooling.items() if key.startswith("pooling_mode_") and value]
    if modes == ["pooling_mode_mean_tokens"]:
        return gguf.PoolingType.MEAN
    if modes == ["pooling_mode_cls_token"]:
        return gguf.PoolingType.CLS
    return fail(f"1_Pooling/config.json asks for {', '.join(modes) or 'nothing'}: only the mean "
                "or the first token, one of them, can be converted")


def check_modules(folder, known):
    """known: last parts of module types, in any number. A step left out gives wrong vectors."""
    if not (folder / "modules.json").exists():
        return
    for module in read_json(folder / "modules.json"):
        if module["type"].rsplit(".", 1)[-1] not in known:
            fail(f"modules.json has the step {module['type']}: only {', '.join(sorted(known))} "
                 "can be converted for this kind of model")


def open_tensors(path):
    if not path.exists():
        fail(f"{path} is missing: fetch it, or save the model again in the safetensors format")
    try:
        return safe_open(path, framework="np")
    except Exception as e:
        fail(f"{path} cannot be read: {e}")


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


def read_dense(folder, n):
    """Of a dense layer: it multiplies by a matrix and does no more."""
    dense = read_json(folder / f"{n}_Dense" / "config.json")
    activation = dense.get("activation_function", "Identity")
    if dense.get("bias") or activation.rsplit(".", 1)[-1] != "Identity":
        fail(f"{n}_Dense/config.json asks for {activation} and bias {dense.get('bias', False)}: "
             "only Identity without bias can be converted")
    return dense


def add_gemma_keys(writer, folder, config, file_type):
    from sentencepiece import SentencePieceProcessor
    check_modules(folder, {"Transformer", "Pooling", "Dense", "Normalize"})
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
        dense = read_dense(folder, n)
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


def check_word_piece_options(folder):
    """What BertTokenizer may be told and embedmill's WordPiece does not do."""
    options = read_json(folder / "tokenizer_config.json")
    if not options.get("do_lower_case", True):
        fail("tokenizer_config.json says that case matters: only uncased models can be converted")
    if options.get("strip_accents") is False:
        fail("tokenizer_config.json says that accents stay (strip_accents): only models that take "
             "them off can be converted")
    if not options.get("tokenize_chinese_chars", True):
        fail("tokenizer_config.json says that Chinese characters are not words of their own: such "
             "models cannot be converted")
    kind = options.get("tokenizer_class", "BertTokenizer")
    if kind not in ("BertTokenizer", "BertTokenizerFast"):
        fail(f"tokenizer_config.json asks for a {kind}: only BertTokenizer can be converted")
    return options


def check_added_tokens(folder, options, lines):
    added = {int(i): token["content"]
             for i, token in options.get("added_tokens_decoder", {}).items()}
    if (folder / "added_tokens.json").exists():
        added |= {i: text for text, i in read_json(folder / "added_tokens.json").items()}
    for i, text in added.items():
        if i >= len(lines) or lines[i] != text:
            fail(f"token {i}, {text!r}, was added to the vocabulary: such models cannot be "
                 "converted")


def read_word_pieces(folder, n_vocab):
    """Texts and types. What goes on with a word loses its ##, what begins one gets a U+2581."""
    path = folder / "vocab.txt"
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except FileNotFoundError:
        fail(f"{path} is missing: only WordPiece vocabularies can be converted")
    except UnicodeDecodeError as e:
        fail(f"{path} is not UTF-8 ({e}): fetch the folder again")
    if len(lines) > n_vocab:
        fail(f"{path} has {len(lines)} tokens and the model {n_vocab}: they do not belong together")
    check_added_tokens(folder, check_word_piece_options(folder), lines)
    tokens, kinds = [], []
    for i, text in enumerate(lines + [""] * (n_vocab - len(lines))):
        special = text in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        if text in ("", "##"): # of no text
            tokens.append(f"[PAD{i}]")
            kinds.append(gguf.TokenType.UNUSED)
            continue
        kinds.append(gguf.TokenType.CONTROL if special else gguf.TokenType.NORMAL)
        tokens.append(text if special else text[2:] if text.startswith("##") else "\u2581" + text)
    return tokens, kinds


def add_bert_keys(writer, folder, config, file_type):
    check_modules(folder, {"Transformer", "Pooling", "Normalize"})
    hidden, heads = number_of(config, "hidden_size"), number_of(config, "num_attention_heads")
    if hidden % (32 * heads) or number_of(config, "intermediate_size") % 32:
        fail(f"heads of {hidden / heads:g} values, {config['intermediate_size']} within a layer: "
             "only multiples of 32 can be converted")
    writer.add_type("model")
    writer.add_name(folder.resolve().name) # config.json names the model it was trained from
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    writer.add_context_length(number_of(config, "max_position_embeddings"))
    writer.add_embedding_length(hidden)
    writer.add_block_count(number_of(config, "num_hidden_layers"))
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(number_of(config, "layer_norm_eps"))
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling_of(folder))

    tokens, kinds = read_word_pieces(folder, number_of(config, "vocab_size"))
    writer.add_token_type_count(number_of(config, "type_vocab_size"))
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
    with open_tensors(folder / "model.safetensors") as source:
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
        with open_tensors(folder / f"{n}_Dense" / "model.safetensors") as source:
            add_tensor(writer, f"dense_{n}.weight", load_tensor(source, "linear.weight"), kind)


def add_bert_tensors(writer, folder, config, kind):
    with open_tensors(folder / "model.safetensors") as source:
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
