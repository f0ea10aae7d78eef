#!/usr/bin/env python3
"""scripts/convert-model.py on small kin of BERT made here (DistilBERT, RoBERTa, MPNet,
nomic-embed-text, GTE): keys and tensors, and what is refused.

Needs gguf, safetensors, sentencepiece and numpy; scripts/test makes a virtual environment for it.
"""

import json
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from safetensors.numpy import load_file, save_file

from test_convert import FFN, HEADS, HIDDEN, LAYERS, SEED, convert
from test_convert_bert import PIECES
from test_convert_bytes import tokenizer_of

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))
# pylint: disable-next=wrong-import-position
from convert_model import bert, distilbert, gte, mpnet, nomic

N_VOCAB, N_POSITIONS = 12, 40
SIZES = {"n_embd": HIDDEN, "n_inner": FFN, "n_head": HEADS, "n_layer": LAYERS}
CONFIGS = {
    "distilbert": {"dim": HIDDEN, "hidden_dim": FFN, "n_heads": HEADS, "n_layers": LAYERS,
                   "max_position_embeddings": N_POSITIONS, "activation": "gelu"},
    "roberta": {"hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS,
                "num_hidden_layers": LAYERS, "max_position_embeddings": N_POSITIONS,
                "layer_norm_eps": 1e-5, "type_vocab_size": 1, "pad_token_id": 1},
    "mpnet": {"hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS,
              "num_hidden_layers": LAYERS, "max_position_embeddings": N_POSITIONS,
              "layer_norm_eps": 1e-5, "relative_attention_num_buckets": 32},
    "nomic_bert": {**SIZES, "n_positions": 8192, "max_trained_positions": 2048,
                   "layer_norm_epsilon": 1e-12, "rotary_emb_base": 1000, "type_vocab_size": 2,
                   "activation_function": "swiglu", "prenorm": False, "qkv_proj_bias": False,
                   "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
                   "rotary_scaling_factor": None},
}
# As transformers 5.24 saves it.
NOMIC_NEW = {"hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS,
             "num_hidden_layers": LAYERS, "max_position_embeddings": 2048, "layer_norm_eps": 1e-12,
             "type_vocab_size": 2, "hidden_act": "silu",
             "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"}}
# As the publisher names it, and as transformers 5.24 saves it.
GTE = {"hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS,
       "num_hidden_layers": LAYERS, "max_position_embeddings": N_POSITIONS,
       "layer_norm_eps": 1e-12, "type_vocab_size": 1}
CONFIGS["new"] = {**GTE, "rope_theta": 20000, "rope_scaling": {"factor": 8.0, "type": "ntk"},
                  "pack_qkv": True, "position_embedding_type": "rope", "hidden_act": "gelu",
                  "layer_norm_type": "layer_norm", "logn_attention_scale": False}
CONFIGS["gte"] = {**GTE, "rope_parameters": {
    "rope_theta": 160000.0, "rope_type": "linear", "factor": 8 ** (2 * HEADS / HIDDEN)}}
ROWS = {"token_embd.weight": N_VOCAB, "position_embd.weight": N_POSITIONS,
        "attn_qkv.weight": 3 * HIDDEN, "ffn_up.weight": FFN, "ffn_gate.weight": FFN,
        "ffn_up.bias": FFN}


def parts(names):
    return [(f"{name}.{part}", f"{source}.{part}") for name, source in names
            for part in ("weight", "bias")]


TENSORS = { # outer, of a layer, path of a layer
    "distilbert": (distilbert.OUTER_TENSORS, parts(distilbert.BLOCK_TENSORS), "transformer.layer"),
    "roberta": (bert.OUTER_TENSORS, parts(bert.BLOCK_TENSORS), "encoder.layer"),
    "mpnet": (mpnet.OUTER_TENSORS, parts(mpnet.BLOCK_TENSORS), "encoder.layer"),
    "nomic_bert": (nomic.OUTER_TENSORS, nomic.BLOCK_TENSORS, "encoder.layers"),
    "gte": ([*gte.OUTER_TENSORS, gte.TOKEN_TYPES],
            [(name, new) for name, new, _ in gte.BLOCK_TENSORS] +
            parts([(f"attn_{letter}", f"self_attn.{letter}_proj") for letter in "qkv"]) +
            [(f"ffn_{name}.weight", f"mlp.{name}_proj.weight") for name in ("gate", "up")],
            "layers"),
}
TENSORS["new"] = TENSORS["gte"]


def as_published(tensors, with_packed_qkv):
    """Tensors of a GTE by the names of the publisher's code."""
    names = {new: published for _, new, published in gte.BLOCK_TENSORS}
    out = {name: values for name, values in tensors.items() if not name.startswith("layers.")}
    for i in range(LAYERS):
        old, path = f"layers.{i}.", f"encoder.layer.{i}."
        for new, published in names.items():
            out[path + published] = tensors[old + new]
        for part in ("weight", "bias"):
            thirds = [tensors[f"{old}self_attn.{letter}_proj.{part}"] for letter in "qkv"]
            if with_packed_qkv:
                out[f"{path}attention.qkv_proj.{part}"] = np.concatenate(thirds)
            else:
                out |= {f"{path}attention.{letter}_proj.{part}": third
                        for letter, third in zip("qkv", thirds)}
        out[f"{path}mlp.up_gate_proj.weight"] = np.concatenate(
            [tensors[f"{old}mlp.{name}_proj.weight"] for name in ("up", "gate")])
    return out


def shape_of(name, kind):
    base = name.split(".", 2)[2] if name.startswith("blk.") else name
    if base == "token_types.weight":
        return CONFIGS[kind]["type_vocab_size"], HIDDEN
    if base == "attn_rel_b.weight":
        return mpnet.BUCKETS, HEADS
    rows = ROWS.get(base, HIDDEN)
    if "norm" in base or base.endswith("bias"):
        return (rows,)
    return rows, FFN if base == "ffn_down.weight" else HIDDEN


def roberta_tokenizer():
    tokenizer = tokenizer_of("modernbert")
    del tokenizer["normalizer"]
    names = ["<s>", "</s>", "<mask>", "<pad>"]
    tokenizer["added_tokens"] = [
        {"id": 4 + i, "content": name, "special": True, "lstrip": name == "<mask>", "rstrip": False,
         "single_word": False} for i, name in enumerate(names)]
    tokenizer["post_processor"] = {"type": "RobertaProcessing", "cls": ["<s>", 4],
                                   "sep": ["</s>", 5], "add_prefix_space": False}
    return tokenizer


MPNET_PIECES = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "[CLS]", "the", "##s", "<mask>"]


def mpnet_tokenizer():
    ids = {text: i for i, text in enumerate(MPNET_PIECES)}
    return {
        "added_tokens": [{"id": ids[text], "content": text, "special": True}
                         for text in ("<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>")],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0]},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": ids}}


class ConvertKin(unittest.TestCase):
    """One of each, of random values."""

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = Path(self.temporary.name)
        self.out = self.folder / "out.gguf"

    def make(self, kind, config=None, with_packed_qkv=True, **changes):
        """Returns the values by their names in the file."""
        rng, wanted, tensors = np.random.default_rng(SEED), {}, {}
        outer, layer_names, path = TENSORS[kind]
        names = [*outer, *((f"blk.{i}.{name}", f"{path}.{i}.{source}") for i in range(LAYERS)
                           for name, source in layer_names)]
        for name, source in names:
            values = rng.standard_normal(shape_of(name, kind)).astype(np.float32)
            wanted[name] = tensors[source] = values
        if kind == "new":
            tensors = as_published(tensors, with_packed_qkv)
        save_file(tensors, self.folder / "model.safetensors")
        (self.folder / "1_Pooling").mkdir(exist_ok=True)
        (self.folder / "1_Pooling/config.json").write_text('{"pooling_mode": "mean"}')
        (self.folder / "config.json").write_text(json.dumps(
            {"model_type": kind, "vocab_size": N_VOCAB, **(config or CONFIGS[kind]), **changes}))
        if kind in ("roberta", "mpnet"):
            tokenizer = roberta_tokenizer() if kind == "roberta" else mpnet_tokenizer()
            (self.folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        else:
            (self.folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
        return wanted

    def check(self, wanted, keys):
        run = convert(self.folder, self.out, "--type", "f32")
        self.assertEqual(run.returncode, 0, run.stderr)
        reader = GGUFReader(self.out)
        found = {t.name: t.data for t in reader.tensors}
        self.assertEqual(set(found), set(wanted))
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name], values, name)
        for key, value in keys.items():
            self.assertEqual(reader.fields[key].contents(), value, key)

    def test_distilbert(self):
        self.check(self.make("distilbert"), {
            "general.architecture": "bert", "bert.block_count": LAYERS, "bert.pooling_type": 1,
            "bert.context_length": N_POSITIONS, "bert.feed_forward_length": FFN,
            "bert.attention.layer_norm_epsilon": np.float32(1e-12),
            "tokenizer.ggml.token_type_count": 1})

    def test_roberta(self):
        wanted = self.make("roberta")
        wanted["position_embd.weight"] = wanted["position_embd.weight"][2:]
        self.check(wanted, {
            "general.architecture": "bert", "bert.context_length": N_POSITIONS - 2,
            "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "roberta-bpe",
            "tokenizer.ggml.bos_token_id": 4, "tokenizer.ggml.eos_token_id": 5,
            "tokenizer.ggml.mask_token_id": 6, "tokenizer.ggml.add_bos_token": True})

    def test_mpnet(self):
        wanted = self.make("mpnet")
        wanted["position_embd.weight"] = wanted["position_embd.weight"][2:]
        self.check(wanted, {
            "general.architecture": "mpnet", "mpnet.context_length": N_POSITIONS - 2,
            "tokenizer.ggml.model": "bert", "tokenizer.ggml.bos_token_id": 0,
            "tokenizer.ggml.seperator_token_id": 2, "tokenizer.ggml.unknown_token_id": 4,
            "tokenizer.ggml.tokens": ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "\u2581[CLS]",
                                      "\u2581the", "s", "<mask>", "[PAD9]", "[PAD10]", "[PAD11]"]})

    def test_nomic(self):
        for config in (None, NOMIC_NEW):
            self.check(self.make("nomic_bert", config), {
                "general.architecture": "nomic-bert", "nomic-bert.context_length": 2048,
                "nomic-bert.rope.freq_base": 1000.0, "nomic-bert.attention.head_count": HEADS,
                "nomic-bert.feed_forward_length": FFN, "nomic-bert.pooling_type": 1})

    def test_gte(self):
        keys = {"general.architecture": "gte", "gte.context_length": N_POSITIONS,
                "gte.rope.freq_base": 160000.0, "gte.rope.scaling.type": "linear",
                "gte.rope.scaling.factor": np.float32(8 ** (2 * HEADS / HIDDEN)),
                "gte.attention.head_count": HEADS, "gte.feed_forward_length": FFN,
                "gte.pooling_type": 1}
        self.check(self.make("gte"), keys)
        for with_packed_qkv in (True, False):
            self.check(self.make("new", with_packed_qkv=with_packed_qkv), keys)

    def test_gte_without_types(self):
        wanted = self.make("new", type_vocab_size=0, rope_scaling=None)
        tensors = load_file(self.folder / "model.safetensors")
        del wanted["token_types.weight"], tensors[gte.TOKEN_TYPES[1]]
        save_file(tensors, self.folder / "model.safetensors")
        self.check(wanted, {"gte.rope.freq_base": 20000.0})
        self.assertNotIn("gte.rope.scaling.type", GGUFReader(self.out).fields)

    def test_refuses(self):
        refused: list[tuple[str, dict, str]] = [
            ("distilbert", {"activation": "relu"}, "activation = 'relu'"),
            ("distilbert", {"architectures": ["DistilBertForSequenceClassification"]},
             "classification head"),
            ("roberta", {"hidden_act": "relu"}, "hidden_act = 'relu'"),
            ("nomic_bert", {"moe_every_n_layers": 2}, "mixture of experts"),
            ("nomic_bert", {"qkv_proj_bias": True}, "qkv_proj_bias"),
            ("nomic_bert", {"rotary_emb_interleaved": True}, "rotary_emb_interleaved"),
            ("mpnet", {"relative_attention_num_buckets": 64}, "num_buckets"),
            ("new", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_scaling"),
            ("new", {"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.6}}, "mixed_b"),
            ("new", {"position_embedding_type": "absolute"}, "position_embedding_type"),
            ("new", {"logn_attention_scale": True}, "logn_attention_scale"),
            ("gte", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
             "rope_type 'dynamic'"),
            ("nomic_bert", {"model_type": "deberta-v2"}, "model_type = 'deberta-v2': only")]
        for kind, change, complaint in refused:
            with self.subTest(complaint=complaint):
                self.make(kind, **change)
                run = convert(self.folder, self.out)
                self.assertNotEqual(run.returncode, 0)
                self.assertIn(complaint, run.stderr)
                self.assertNotIn("Traceback", run.stderr)

    def test_refuses_composed_roberta(self):
        self.make("roberta")
        tokenizer = roberta_tokenizer() | {"normalizer": {"type": "NFC"}}
        (self.folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        self.assertIn("normalizer NFC", convert(self.folder, self.out).stderr)


if __name__ == "__main__":
    unittest.main()
