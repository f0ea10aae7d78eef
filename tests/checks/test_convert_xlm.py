#!/usr/bin/env python3
"""scripts/convert-model.py on small XLM-RoBERTas made here: positions, vocabulary, what is refused.

Needs gguf, safetensors, sentencepiece and numpy; scripts/test makes a virtual environment for it.
"""

import base64
import json
import tempfile
import unittest
from pathlib import Path

import numpy as np
from gguf import GGUFReader, TokenType
from safetensors.numpy import save_file

from test_convert import NEW, SEED, convert, modules_of
from test_convert_bert import BERT, bert_tensors

CHARSMAP = b"\x04\0\0\0\0\0\0\0\0" # of no rule
VOCAB = [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["\u2581a", -2.5],
         ["b", -3.25], ["\u2581", -4.0], ["<mask>", 0.0]]
CONFIG = {**BERT, "model_type": "xlm-roberta", "vocab_size": len(VOCAB) + 2, "pad_token_id": 1,
          "type_vocab_size": 1, "max_position_embeddings": 42}


def tokenizer_of(**changes):
    special = lambda text: {"SpecialToken": {"id": text, "type_id": 0}}
    tokenizer = {
        "added_tokens": [{"id": i, "content": text} for i, (text, _) in enumerate(VOCAB)
                         if text[0] == "<"],
        "normalizer": {"type": "Precompiled",
                       "precompiled_charsmap": base64.b64encode(CHARSMAP).decode()},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True},
        "post_processor": {"type": "TemplateProcessing", "single": [
            special("<s>"), {"Sequence": {"id": "A", "type_id": 0}}, special("</s>")]},
        "model": {"type": "Unigram", "unk_id": 3, "vocab": VOCAB, "byte_fallback": False}}
    for part, change in changes.items():
        tokenizer[part] = {**tokenizer[part], **change} if isinstance(change, dict) else change
    return tokenizer


def make_folder(folder, config=CONFIG, **changes):
    rng, tensors, named = np.random.default_rng(SEED), {}, {}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    rows_of = {"embeddings.word_embeddings.weight": config["vocab_size"],
               "embeddings.position_embeddings.weight": config["max_position_embeddings"],
               "embeddings.token_type_embeddings.weight": config["type_vocab_size"]}
    for source, name, rows, columns in bert_tensors():
        rows = rows_of.get(source, rows)
        values = rng.standard_normal((rows, columns) if rows else columns).astype(np.float32)
        prefix = "roberta." if config["model_type"] == "xlm-roberta" else ""
        tensors[prefix + source] = named[name] = values
    save_file(tensors, folder / "model.safetensors")
    for name, content in {
            "config.json": config, "tokenizer.json": tokenizer_of(**changes),
            "1_Pooling/config.json": {"embedding_dimension": 64, "pooling_mode": "mean"},
            "modules.json": modules_of(NEW, ["Transformer", "Pooling", "Normalize"])}.items():
        (folder / name).write_text(json.dumps(content))
    return named


class ConvertXlmRoberta(unittest.TestCase):
    """An XLM-RoBERTa, and a BERT with its tokenizer."""

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = Path(self.temporary.name)
        self.out = self.folder / "out.gguf"

    def convert(self):
        run = convert(self.folder, self.out, "--type", "f32")
        self.assertEqual(run.returncode, 0, run.stderr)
        reader = GGUFReader(self.out)
        return ({name: field.contents() for name, field in reader.fields.items()},
                {t.name: t.data for t in reader.tensors})

    def test_xlm_roberta(self):
        wanted = make_folder(self.folder)
        keys, tensors = self.convert()
        self.assertEqual(keys["general.architecture"], "bert")
        self.assertEqual(keys["bert.context_length"], 40) # two rows belong to no token
        np.testing.assert_array_equal(tensors["position_embd.weight"],
                                      wanted["position_embd.weight"][2:])
        np.testing.assert_array_equal(tensors["token_embd.weight"], wanted["token_embd.weight"])
        self.assertEqual(keys["tokenizer.ggml.model"], "t5")
        self.assertEqual(keys["tokenizer.ggml.tokens"],
                         [text for text, _ in VOCAB] + ["[PAD8]", "[PAD9]"])
        self.assertEqual(keys["tokenizer.ggml.scores"][:8], [score for _, score in VOCAB])
        control, normal = TokenType.CONTROL, TokenType.NORMAL
        self.assertEqual(keys["tokenizer.ggml.token_type"],
                         [control] * 3 + [TokenType.UNKNOWN] + [normal] * 3 + [control]
                         + [TokenType.UNUSED] * 2)
        self.assertEqual(bytes(keys["tokenizer.ggml.precompiled_charsmap"]), CHARSMAP)
        self.assertEqual([keys[f"tokenizer.ggml.{name}_token_id"] for name in
                          ("bos", "eos", "unknown", "padding", "mask")], [0, 2, 3, 1, 7])

    def test_bert_with_this_tokenizer(self):
        wanted = make_folder(self.folder, {**CONFIG, "model_type": "bert"})
        keys, tensors = self.convert()
        self.assertEqual(keys["bert.context_length"], 42)
        np.testing.assert_array_equal(tensors["position_embd.weight"],
                                      wanted["position_embd.weight"])
        self.assertEqual(keys["tokenizer.ggml.model"], "t5")

    def test_refuses_lower_case(self):
        """Of sentence-transformers, with the tokenizer of either kind of folder."""
        for model_type in ("xlm-roberta", "bert"):
            make_folder(self.folder, {**CONFIG, "model_type": model_type})
            path = self.folder / "sentence_bert_config.json"
            path.write_text(json.dumps({"do_lower_case": True}))
            run = convert(self.folder, self.folder / "out.gguf")
            self.assertNotEqual(run.returncode, 0)
            self.assertIn("do_lower_case", run.stderr)

    def test_refuses(self):
        many = VOCAB + [["c", -5.0]] * 3
        cases: list = [
            ({"normalizer": {"type": "NFKC"}}, "Precompiled"),
            ({"pre_tokenizer": {"type": "Whitespace"}}, "Metaspace"),
            ({"pre_tokenizer": {"add_prefix_space": False}}, "prefix"),
            ({"post_processor": {"single": []}}, "between <s> and </s>"),
            ({"model": {"byte_fallback": True}}, "byte_fallback"),
            ({"model": {"unk_id": 2}}, "unknown token"),
            ({"model": {"vocab": many}}, "do not belong together"),
            ({"added_tokens": [{"id": 5, "content": "b"}]}, "was added"),
            ({"added_tokens": [{"id": 9, "content": "<new>"}]}, "was added"),
            ({"model": {"type": "BPE"}}, "unigram vocabulary")]
        for changes, complaint in cases:
            with self.subTest(complaint=complaint):
                make_folder(self.folder, **changes)
                run = convert(self.folder, self.out)
                self.assertNotEqual(run.returncode, 0)
                self.assertIn(complaint, run.stderr)
                self.assertNotIn("Traceback", run.stderr)


if __name__ == "__main__":
    unittest.main()
