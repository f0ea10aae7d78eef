#!/usr/bin/env python3
"""scripts/convert-model.py on small ModernBERTs and Qwen3s made here: keys, tensors, vocabulary,
and what is refused.

Needs gguf, safetensors, sentencepiece and numpy; scripts/test makes a virtual environment for it.
"""

import copy
import json
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
from gguf import GGUFReader, TokenType
from safetensors.numpy import save_file

from test_convert import SEED, convert

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))
from convert_model import modernbert, qwen3 # pylint: disable=wrong-import-position
from convert_model.byte_tokens import QWEN2_WORDS # pylint: disable=wrong-import-position

HIDDEN, FFN, LAYERS, KV = 64, 96, 4, 32
VOCAB = {"a": 0, "b": 1, "ab": 2, "\u0120": 3}
MODERN = {
    "model_type": "modernbert", "vocab_size": 12, "hidden_size": HIDDEN, "intermediate_size": FFN,
    "num_hidden_layers": LAYERS, "num_attention_heads": 2, "max_position_embeddings": 40,
    "norm_eps": 1e-5, "local_attention": 8, "global_attn_every_n_layers": 3,
    "global_rope_theta": 80000.0, "local_rope_theta": 5000.0}
QWEN = {
    "model_type": "qwen3", "vocab_size": 12, "hidden_size": HIDDEN, "intermediate_size": FFN,
    "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
    "max_position_embeddings": 40, "rms_norm_eps": 1e-6, "rope_theta": 1000000,
    "hidden_act": "silu"}
SHAPES = {
    "modernbert": {"attn_norm": (HIDDEN,), "attn_qkv": (3 * HIDDEN, HIDDEN),
                   "attn_output": (HIDDEN, HIDDEN), "ffn_norm": (HIDDEN,),
                   "ffn_up": (2 * FFN, HIDDEN), "ffn_down": (HIDDEN, FFN)},
    "qwen3": {"attn_norm": (HIDDEN,), "attn_q": (64, HIDDEN), "attn_k": (KV, HIDDEN),
              "attn_v": (KV, HIDDEN), "attn_output": (HIDDEN, 64), "attn_q_norm": (32,),
              "attn_k_norm": (32,), "ffn_norm": (HIDDEN,), "ffn_gate": (FFN, HIDDEN),
              "ffn_up": (FFN, HIDDEN), "ffn_down": (HIDDEN, FFN)}}


def tokenizer_of(kind):
    is_qwen = kind == "qwen3"
    added = [("<|endoftext|>", True), ("<think>", False)] if is_qwen else [
        ("[CLS]", True), ("[SEP]", True), ("[MASK]", True), ("  ", False)]
    special = lambda text: {"SpecialToken": {"id": text, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": not is_qwen}
    template = {"type": "TemplateProcessing", "single": [text, special("<|endoftext|>")] if is_qwen
                else [special("[CLS]"), text, special("[SEP]")]}
    return {
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": QWEN2_WORDS}, "behavior": "Isolated",
             "invert": False}, bytes_]} if is_qwen else bytes_,
        "post_processor": {"type": "Sequence", "processors": [
            {"type": "ByteLevel"}, template]} if is_qwen else template,
        "added_tokens": [{"id": 4 + i, "content": name, "special": is_special,
                          "lstrip": name == "[MASK]", "rstrip": False, "single_word": False}
                         for i, (name, is_special) in enumerate(added)],
        "model": {"type": "BPE", "vocab": VOCAB, "merges": [["a", "b"]]}}


class ConvertBytes(unittest.TestCase):
    """A ModernBERT and a Qwen3, of random values."""

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = Path(self.temporary.name)
        self.out = self.folder / "out.gguf"

    def make(self, kind, config=None, tokenizer=None, pooling=None):
        """Returns the values by their names in the file."""
        rng, named, tensors = np.random.default_rng(SEED), {}, {}
        module = modernbert if kind == "modernbert" else qwen3
        outer = {"token_embd": "embeddings.tok_embeddings", "token_embd_norm": "embeddings.norm",
                 "output_norm": "final_norm"} if kind == "modernbert" else {
                     "token_embd": "embed_tokens", "output_norm": "norm"}
        shapes = {name: (source, (12, HIDDEN) if name == "token_embd" else (HIDDEN,))
                  for name, source in outer.items()}
        for layer in range(LAYERS):
            for name, source in module.BLOCK_TENSORS:
                if (name, layer, kind) != ("attn_norm", 0, "modernbert"):
                    shapes[f"blk.{layer}.{name}"] = (f"layers.{layer}.{source}", SHAPES[kind][name])
        for name, (source, shape) in shapes.items():
            values = rng.standard_normal(shape).astype(np.float32)
            named[f"{name}.weight"] = tensors[f"model.{source}.weight"] = values
        save_file(tensors, self.folder / "model.safetensors")
        (self.folder / "1_Pooling").mkdir(exist_ok=True)
        usual = {"modernbert": (MODERN, "cls"), "qwen3": (QWEN, "lasttoken")}[kind]
        for name, content in {
                "config.json": {**usual[0], **(config or {})},
                "tokenizer.json": tokenizer or tokenizer_of(kind),
                "1_Pooling/config.json": {"pooling_mode": pooling or usual[1]}}.items():
            (self.folder / name).write_text(json.dumps(content))
        return named

    def convert(self):
        run = convert(self.folder, self.out, "--type", "f32")
        self.assertEqual(run.returncode, 0, run.stderr)
        reader = GGUFReader(self.out)
        return ({name: field.contents() for name, field in reader.fields.items()},
                {t.name: t.data for t in reader.tensors})

    def check_tensors(self, wanted, tensors):
        self.assertEqual(set(tensors), set(wanted))
        for name, values in wanted.items():
            np.testing.assert_array_equal(tensors[name], values, name)

    def test_modernbert(self):
        wanted = self.make("modernbert")
        keys, tensors = self.convert()
        self.check_tensors(wanted, tensors)
        for key, value in {
                "attention.sliding_window": 8, "attention.sliding_window_pattern": 3,
                "rope.freq_base": 80000.0, "rope.freq_base_swa": 5000.0, "pooling_type": 2,
                "context_length": 40, "attention.head_count": 2}.items():
            self.assertEqual(keys[f"modern-bert.{key}"], value, key)
        types = TokenType
        self.assertEqual(keys["tokenizer.ggml.tokens"], ["a", "b", "ab", "\u0120", "[CLS]", "[SEP]",
                                                         "[MASK]", "  ", *(f"[PAD{i}]" for i in
                                                                           range(8, 12))])
        self.assertEqual(keys["tokenizer.ggml.token_type"],
                         [types.NORMAL] * 4 + [types.CONTROL] * 3 + [types.USER_DEFINED]
                         + [types.UNUSED] * 4)
        self.assertEqual(keys["tokenizer.ggml.merges"], ["a b"])
        self.assertEqual([keys[f"tokenizer.ggml.{name}_token_id"] for name in
                          ("bos", "eos", "mask")], [4, 5, 6])
        self.assertEqual(keys["tokenizer.ggml.pre"], "modern-bert")

    def test_new_config(self):
        """As transformers 5 writes it."""
        kinds = ["full_attention", "sliding_attention"] * 2
        self.make("modernbert", {
            "layer_types": kinds, "global_attn_every_n_layers": None, "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 70000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 6000.0}}})
        keys, _ = self.convert()
        self.assertEqual(keys["modern-bert.attention.sliding_window_pattern"], 2)
        self.assertEqual(keys["modern-bert.rope.freq_base"], 70000.0)
        self.assertEqual(keys["modern-bert.rope.freq_base_swa"], 6000.0)

    def test_qwen3(self):
        wanted = self.make("qwen3")
        keys, tensors = self.convert()
        self.check_tensors(wanted, tensors)
        for key, value in {"attention.head_count_kv": 1, "attention.key_length": 32,
                           "rope.freq_base": 1000000.0, "pooling_type": 3}.items():
            self.assertEqual(keys[f"qwen3.{key}"], value, key)
        self.assertEqual(keys["tokenizer.ggml.pre"], "qwen2")
        self.assertEqual(keys["tokenizer.ggml.eos_token_id"], 4)
        self.assertFalse(keys["tokenizer.ggml.add_bos_token"])

    def refuses(self, complaint):
        run = convert(self.folder, self.out)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn(complaint, run.stderr)
        self.assertNotIn("Traceback", run.stderr)

    def test_refuses_configs(self):
        for kind, config, complaint in [
                ("modernbert", {"hidden_activation": "relu"}, "hidden_activation"),
                ("modernbert", {"norm_bias": True}, "norm_bias"),
                ("modernbert", {"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2},
                 "layer_types"),
                ("qwen3", {"attention_bias": True}, "attention_bias"),
                ("qwen3", {"rope_scaling": {"type": "yarn"}}, "rope_scaling")]:
            with self.subTest(complaint=complaint):
                self.make(kind, config)
                self.refuses(complaint)
        self.make("qwen3", pooling="mean")
        self.refuses("1_Pooling")

    def test_refuses_tokenizers(self):
        for kind, change, complaint in [
                ("modernbert", lambda t: t["normalizer"].update(type="NFKC"), "NFKC"),
                ("modernbert", lambda t: t["pre_tokenizer"].update(add_prefix_space=True),
                 "words into bytes"),
                ("modernbert", lambda t: t["model"].update(type="WordPiece"), "WordPiece"),
                ("modernbert", lambda t: t["model"].update(ignore_merges=True), "ignore_merges"),
                ("modernbert", lambda t: t["added_tokens"][3].update(rstrip=True), "along"),
                ("modernbert", lambda t: t["added_tokens"][3].update(id=12), "beyond"),
                ("qwen3", lambda t: t["pre_tokenizer"]["pretokenizers"][0].update(
                    pattern={"Regex": "\\w+"}), "parts words"),
                ("qwen3", lambda t: t["post_processor"]["processors"][1]["single"].reverse(),
                 "behind a text")]:
            with self.subTest(complaint=complaint):
                tokenizer = copy.deepcopy(tokenizer_of(kind))
                change(tokenizer)
                self.make(kind, tokenizer=tokenizer)
                self.refuses(complaint)


if __name__ == "__main__":
    unittest.main()
