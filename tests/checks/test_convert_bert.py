#!/usr/bin/env python3
"""scripts/convert-model.py on small BERTs made here: each type, old and new forms of a folder.

Needs gguf, safetensors, sentencepiece and numpy; scripts/test makes a virtual environment for it.
"""

import json
import tempfile
import unittest
from pathlib import Path

import gguf
import numpy as np
from gguf import GGUFReader, TokenType
from safetensors.numpy import save_file

from test_convert import FFN, HEADS, HIDDEN, LAYERS, NEW, OLD, SEED, convert, modules_of

PIECES = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "!", "a", "the", "##s",
          "##\u00e9"]
BERT = {
    "model_type": "bert", "vocab_size": len(PIECES) + 1, "max_position_embeddings": 40,
    "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "intermediate_size": FFN,
    "num_attention_heads": HEADS, "layer_norm_eps": 1e-12, "type_vocab_size": 2,
    "hidden_act": "gelu",
}

# Of the source, of the file, rows (0: a vector), columns.
BERT_OUTER = [
    ("embeddings.word_embeddings.weight", "token_embd.weight", BERT["vocab_size"], HIDDEN),
    ("embeddings.token_type_embeddings.weight", "token_types.weight", 2, HIDDEN),
    ("embeddings.position_embeddings.weight", "position_embd.weight", 40, HIDDEN),
    ("embeddings.LayerNorm.weight", "token_embd_norm.weight", 0, HIDDEN),
    ("embeddings.LayerNorm.bias", "token_embd_norm.bias", 0, HIDDEN),
]
BERT_LAYER = [
    ("attention.self.query", "attn_q", HIDDEN, HIDDEN),
    ("attention.self.key", "attn_k", HIDDEN, HIDDEN),
    ("attention.self.value", "attn_v", HIDDEN, HIDDEN),
    ("attention.output.dense", "attn_output", HIDDEN, HIDDEN),
    ("attention.output.LayerNorm", "attn_output_norm", 0, HIDDEN),
    ("intermediate.dense", "ffn_up", FFN, HIDDEN),
    ("output.dense", "ffn_down", HIDDEN, FFN),
    ("output.LayerNorm", "layer_output_norm", 0, HIDDEN),
]


def bert_tensors():
    """Of the source, of the file, rows, columns of every tensor."""
    yield from BERT_OUTER
    for layer in range(LAYERS):
        for source, name, rows, columns in BERT_LAYER:
            yield (f"encoder.layer.{layer}.{source}.weight", f"blk.{layer}.{name}.weight", rows,
                   columns)
            yield (f"encoder.layer.{layer}.{source}.bias", f"blk.{layer}.{name}.bias", 0,
                   rows or columns)


def make_bert_folder(folder, prefix=""):
    rng = np.random.default_rng(SEED)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(BERT))
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    tensors = {}
    for source, name, rows, columns in bert_tensors():
        shape = (rows, columns) if rows else (columns,)
        tensors[name] = rng.standard_normal(shape).astype(np.float32), prefix + source
    save_file({source: values for values, source in tensors.values()},
              folder / "model.safetensors")
    return {name: values for name, (values, source) in tensors.items()}


def renew_bert(folder):
    """As sentence-transformers 6.2 with transformers 5.24 saves it."""
    (folder / "vocab.txt").unlink()
    ids = {text: i for i, text in enumerate(PIECES)}
    tokenizer = {
        "added_tokens": [{"id": ids[text], "content": text, "special": True}
                         for text in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 4], "cls": ["[CLS]", 3]},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": ids}}
    files = {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": True,
                                  "strip_accents": None, "tokenize_chinese_chars": True},
        "1_Pooling/config.json": {"embedding_dimension": HIDDEN, "pooling_mode": "cls"},
        "modules.json": modules_of(NEW, ["Transformer", "Pooling", "Normalize"])}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))


class ConvertBert(unittest.TestCase):
    """A BERT, of each type and with either kind of names."""

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = Path(self.temporary.name)
        self.out = self.folder / "out.gguf"

    def convert(self, kind):
        run = convert(self.folder, self.out, "--type", kind)
        self.assertEqual(run.returncode, 0, run.stderr)
        return GGUFReader(self.out)

    def check_floats(self, kind, values_type, prefix):
        wanted = make_bert_folder(self.folder, prefix)
        found = {t.name: t for t in self.convert(kind).tensors}
        self.assertEqual(set(found), set(wanted))
        for name, values in wanted.items():
            is_matrix = values.ndim == 2 and name not in ("token_types.weight",
                                                          "position_embd.weight")
            values_of = values.astype(values_type if is_matrix else np.float32)
            np.testing.assert_array_equal(found[name].data, values_of, name)

    def test_float32(self):
        self.check_floats("f32", np.float32, "")

    def test_float16(self):
        self.check_floats("f16", np.float16, "bert.")

    def test_quantized(self):
        wanted = make_bert_folder(self.folder)
        for kind, levels in (("q8_0", 127), ("q4_0", 8)):
            found = {t.name: t for t in self.convert(kind).tensors}
            name = "blk.1.ffn_down.weight"
            self.assertEqual(found[name].tensor_type.name, kind.upper())
            values = gguf.quants.dequantize(found[name].data, found[name].tensor_type)
            step = np.abs(wanted[name].reshape(-1, 32)).max(axis=1) / levels
            error = np.abs(values - wanted[name]).reshape(-1, 32).max(axis=1)
            # of 4 bits the largest value has a level of its own, its negative the one before
            self.assertTrue((error <= step * (0.57 if kind == "q8_0" else 1.1)).all(), kind)

    def test_keys(self):
        make_bert_folder(self.folder)
        fields = self.convert("q8_0").fields
        wanted = {"general.architecture": "bert", "bert.context_length": 40,
                  "bert.embedding_length": HIDDEN, "bert.block_count": LAYERS,
                  "bert.feed_forward_length": FFN, "bert.attention.head_count": HEADS,
                  "bert.attention.layer_norm_epsilon": np.float32(1e-12),
                  "bert.attention.causal": False, "bert.pooling_type": 2,
                  "tokenizer.ggml.model": "bert", "tokenizer.ggml.bos_token_id": 3,
                  "tokenizer.ggml.seperator_token_id": 4, "tokenizer.ggml.unknown_token_id": 2}
        for name, value in wanted.items():
            self.assertEqual(fields[name].contents(), value, name)
        self.assertEqual(fields["tokenizer.ggml.tokens"].contents(),
                         ["[PAD]", "\u2581[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]",
                          "\u2581!", "\u2581a", "\u2581the", "s", "\u00e9", "[PAD11]"])
        types = fields["tokenizer.ggml.token_type"].contents()
        special, normal = TokenType.CONTROL, TokenType.NORMAL
        self.assertEqual(types, [special, normal] + [special] * 4 + [normal] * 5
                         + [TokenType.UNUSED])

    def test_new_form(self):
        make_bert_folder(self.folder)
        old = {name: field.contents() for name, field in self.convert("f32").fields.items()}
        renew_bert(self.folder)
        new = {name: field.contents() for name, field in self.convert("f32").fields.items()}
        self.assertEqual(new, old)

    def test_case_and_accents(self):
        """In the old form tokenizer_config.json says it, in the new one tokenizer.json; a file that
        does not say it is one of an uncased model."""
        for options, wanted in [
                ({"do_lower_case": True}, (None, None)),
                ({"do_lower_case": False, "strip_accents": None}, (False, False)),
                ({"do_lower_case": False, "strip_accents": True}, (False, True)),
                ({"do_lower_case": True, "strip_accents": False}, (True, False))]:
            for is_new in (False, True):
                with self.subTest(options=options, is_new=is_new):
                    (self.folder / "tokenizer.json").unlink(missing_ok=True)
                    make_bert_folder(self.folder)
                    if is_new:
                        renew_bert(self.folder)
                        path = self.folder / "tokenizer.json"
                        tokenizer = json.loads(path.read_text())
                        tokenizer["normalizer"] |= {
                            "lowercase": options["do_lower_case"],
                            "strip_accents": options.get("strip_accents")}
                        path.write_text(json.dumps(tokenizer))
                    (self.folder / "tokenizer_config.json").write_text(json.dumps(options))
                    fields = self.convert("q8_0").fields
                    for name, value in zip(("lowercase", "strip_accents"), wanted):
                        field = fields.get(f"tokenizer.ggml.normalizer.{name}")
                        self.assertEqual(field.contents() if field else None, value, name)

    def test_capitals_that_no_text_has(self):
        """An uncased tokenizer and a vocabulary that is not: the file says which of them counts."""
        make_bert_folder(self.folder)
        path = self.folder / "vocab.txt"
        pieces = path.read_text(encoding="utf-8").replace("\nthe\n", "\nA\n")
        path.write_text(pieces, encoding="utf-8")
        fields = self.convert("q8_0").fields
        for name in ("lowercase", "strip_accents"):
            self.assertIs(bool(fields[f"tokenizer.ggml.normalizer.{name}"].contents()), True)

    def test_whose_word_counts(self):
        """As AutoTokenizer of transformers 4.56 and 5.24 reads them: of BertTokenizer the options
        count, missing ones too, of the plain class tokenizer.json."""
        for options, wanted in [
                ({"tokenizer_class": "BertTokenizer"}, None),
                ({"tokenizer_class": "BertTokenizerFast", "do_lower_case": True}, None),
                ({"tokenizer_class": "BertTokenizer", "do_lower_case": False}, False),
                ({"tokenizer_class": "TokenizersBackend", "do_lower_case": True}, False)]:
            with self.subTest(options=options):
                make_bert_folder(self.folder)
                renew_bert(self.folder)
                path = self.folder / "tokenizer.json"
                tokenizer = json.loads(path.read_text())
                tokenizer["normalizer"] |= {"lowercase": False, "strip_accents": None}
                path.write_text(json.dumps(tokenizer))
                (self.folder / "tokenizer_config.json").write_text(json.dumps(options))
                if wanted is None:
                    run = convert(self.folder, self.out)
                    self.assertIn("disagree about case", run.stderr)
                    continue
                fields = self.convert("q8_0").fields
                self.assertEqual(fields["tokenizer.ggml.normalizer.lowercase"].contents(), wanted)

    def test_sentence_transformers_lowers(self):
        """Before the tokenizer, which then is one that keeps accents."""
        make_bert_folder(self.folder)
        (self.folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
        (self.folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
        fields = self.convert("q8_0").fields
        self.assertTrue(fields["tokenizer.ggml.normalizer.lowercase"].contents())
        self.assertFalse(fields["tokenizer.ggml.normalizer.strip_accents"].contents())

    def test_prompts(self):
        make_bert_folder(self.folder)
        path = self.folder / "config_sentence_transformers.json"
        for prompts, names, texts in [
                ({"query": "query: ", "passage": "passage: ", "other": ""},
                 ["query", "document"], ["query: ", "passage: "]),
                ({"query": "", "document": ""}, None, None), ({}, None, None)]:
            path.write_text(json.dumps({"prompts": prompts, "default_prompt_name": None}))
            fields = self.convert("q8_0").fields
            for key, wanted in (("names", names), ("texts", texts)):
                field = fields.get(f"embedmill.prompt.{key}")
                self.assertEqual(field.contents() if field else None, wanted)

    def test_refuses_new_form(self):
        for part, change, complaint in [
                ("normalizer", {"lowercase": False}, "disagree about case or accents"),
                ("normalizer", {"lowercase": True, "strip_accents": False},
                 "disagree about case or accents"),
                ("normalizer", {"handle_chinese_chars": False}, "Chinese"),
                ("normalizer", {"clean_text": False}, "clean_text"),
                ("normalizer", {"type": "Lowercase"}, "BertNormalizer"),
                ("pre_tokenizer", {"type": "Whitespace"}, "BertPreTokenizer"),
                ("model", {"type": "BPE"}, "WordPiece"),
                ("model", {"max_input_chars_per_word": 50}, "max_input_chars_per_word"),
                ("post_processor", {"sep": ["[MASK]", 5]}, "between [CLS] and [SEP]")]:
            with self.subTest(complaint=complaint):
                make_bert_folder(self.folder)
                renew_bert(self.folder)
                path = self.folder / "tokenizer.json"
                tokenizer = json.loads(path.read_text())
                tokenizer[part] |= change
                path.write_text(json.dumps(tokenizer))
                run = convert(self.folder, self.out)
                self.assertNotEqual(run.returncode, 0)
                self.assertIn(complaint, run.stderr)

    def test_refuses(self):
        for file, content, complaint in [
                ("config.json", json.dumps({**BERT, "hidden_act": "relu"}), "hidden_act"),
                ("config.json", json.dumps({**BERT, "position_embedding_type": "relative_key"}),
                 "position_embedding_type"),
                ("config.json", json.dumps({k: BERT[k] for k in BERT if k != "layer_norm_eps"}),
                 "layer_norm_eps"),
                ("config.json", json.dumps({**BERT, "num_attention_heads": 4}), "32"),
                ("config.json", json.dumps({**BERT, "num_attention_heads": 0}), "above 0"),
                ("config.json", json.dumps({**BERT, "vocab_size": 5}), "11 tokens"),
                ("modules.json", json.dumps(modules_of(OLD, ["Transformer", "Pooling", "Dense"])),
                 "the step Dense"),
                ("tokenizer_config.json", json.dumps({"tokenize_chinese_chars": False}), "Chinese"),
                ("tokenizer_config.json", json.dumps({"tokenizer_class": "CamembertTokenizer"}),
                 "CamembertTokenizer"),
                ("tokenizer_config.json",
                 json.dumps({"added_tokens_decoder": {"11": {"content": "[Q]"}}}), "[Q]"),
                ("added_tokens.json", json.dumps({"[R]": 1}), "[R]"),
                ("1_Pooling/config.json", json.dumps({"pooling_mode_max_tokens": True}), "mean"),
                ("1_Pooling/config.json", json.dumps({"pooling_mode_mean_tokens": True,
                                                      "pooling_mode_cls_token": True}), "one"),
                ("vocab.txt", "a\nb\n", "[PAD]"),
                ("vocab.txt", "\udcff", "UTF-8"),
                ("model.safetensors", "short", "model.safetensors"),
                ("vocab.txt", None, "only WordPiece"),
                ("model.safetensors", None, "safetensors format")]:
            with self.subTest(file=file, complaint=complaint), \
                    tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                make_bert_folder(folder)
                if content is None:
                    (folder / file).unlink()
                else:
                    (folder / file).write_text(content, errors="surrogateescape")
                run = convert(folder, folder / "out.gguf")
                self.assertNotEqual(run.returncode, 0)
                self.assertIn(complaint, run.stderr)
                self.assertNotIn("Traceback", run.stderr)
                self.assertEqual(list(folder.glob("*.gguf*")) + list(folder.glob(".*")), [])


if __name__ == "__main__":
    unittest.main()
