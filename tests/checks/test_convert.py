#!/usr/bin/env python3
"""scripts/convert-model.py on small models made here, checked against arithmetic done here.

Needs gguf, safetensors, sentencepiece and numpy; scripts/test makes a virtual environment for it.
"""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from gguf import GGUFReader, TokenType
from safetensors.numpy import save_file

CONVERT = Path(__file__).parent.parent.parent / "scripts" / "convert-model.py"
SEED = 20260704
HIDDEN, FFN, HEAD, HEADS, LAYERS, DENSE = 64, 96, 32, 2, 2, 128
N_PIECES, N_VOCAB = 320, 326 # six rows that no piece belongs to

CONFIG = {
    "model_type": "gemma3_text", "use_bidirectional_attention": True, "vocab_size": N_VOCAB,
    "max_position_embeddings": 128, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
    "intermediate_size": FFN, "num_attention_heads": HEADS, "num_key_value_heads": 1,
    "head_dim": HEAD, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
    "sliding_window": 512, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
}

SHAPES = {
    "input_layernorm": (HIDDEN,), "self_attn.q_proj": (HEADS * HEAD, HIDDEN),
    "self_attn.k_proj": (HEAD, HIDDEN), "self_attn.v_proj": (HEAD, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HEADS * HEAD), "self_attn.q_norm": (HEAD,),
    "self_attn.k_norm": (HEAD,), "post_attention_layernorm": (HIDDEN,),
    "pre_feedforward_layernorm": (HIDDEN,), "mlp.gate_proj": (FFN, HIDDEN),
    "mlp.up_proj": (FFN, HIDDEN), "mlp.down_proj": (HIDDEN, FFN),
    "post_feedforward_layernorm": (HIDDEN,),
}


def train_tokenizer(folder):
    rng = np.random.default_rng(SEED)
    letters = np.array(list("abcdefghij"))
    words = ["".join(rng.choice(letters, rng.integers(2, 8))) for _ in range(300)]
    text = folder / "text"
    text.write_text("\n".join(" ".join(rng.choice(words, 12)) for _ in range(400)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), model_type="bpe",
        vocab_size=N_PIECES, byte_fallback=True, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
        user_defined_symbols=["<mask>", "<unused0>", "\u2581\u2581", "<table>"],
        add_dummy_prefix=False, minloglevel=2)


def make_folder(folder):
    rng = np.random.default_rng(SEED)
    values = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    train_tokenizer(folder)
    declared = {str(i): {"content": text, "special": i < 4} for i, text in enumerate(
        ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused0>", "\u2581\u2581", "<table>"])}
    declared[str(N_VOCAB + 2)] = {"content": "<beyond>", "special": True}
    files = {
        "config.json": CONFIG,
        "tokenizer_config.json": {"add_bos_token": True, "add_eos_token": True,
                                  "added_tokens_decoder": declared},
        "added_tokens.json": {"<beyond>": N_VOCAB + 1, "<late>": N_VOCAB - 1},
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
        "modules.json": [{"type": f"sentence_transformers.models.{kind}"} for kind in
                         ("Transformer", "Pooling", "Dense", "Dense", "Normalize")],
        "2_Dense/config.json": {"in_features": HIDDEN, "out_features": DENSE, "bias": False,
                                "activation_function": "torch.nn.modules.linear.Identity"},
        "3_Dense/config.json": {"in_features": DENSE, "out_features": HIDDEN},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    tensors = {"embed_tokens.weight": values(N_VOCAB, HIDDEN), "norm.weight": values(HIDDEN)}
    for layer in range(LAYERS):
        for name, shape in SHAPES.items():
            tensors[f"layers.{layer}.{name}.weight"] = values(*shape)
    save_file(tensors, folder / "model.safetensors")
    dense = {"2_Dense": values(DENSE, HIDDEN), "3_Dense": values(HIDDEN, DENSE)}
    for name, weight in dense.items():
        save_file({"linear.weight": weight}, folder / name / "model.safetensors")
    return tensors, dense


def convert(folder, out, *options):
    return subprocess.run([sys.executable, CONVERT, *options, folder, out], text=True,
                          capture_output=True, check=False)


def dequantize(tensor):
    """Q8_0 by its definition: a half precision scale, then 32 signed bytes."""
    blocks = np.frombuffer(tensor.data.tobytes(), np.dtype([("d", "<f2"), ("q", "i1", 32)]))
    values = blocks["d"].astype(np.float32)[:, None] * blocks["q"]
    return values.reshape([int(n) for n in reversed(tensor.shape)])


class Convert(unittest.TestCase):
    """EmbeddingGemma, of which there is one type of file."""

    @classmethod
    def setUpClass(cls):
        print(f"seed {SEED}")
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = Path(cls.temporary.name)
        cls.source, cls.dense = make_folder(cls.folder)
        cls.out = cls.folder / "out.gguf"
        run = convert(cls.folder, cls.out)
        assert run.returncode == 0, run.stderr
        cls.reader = GGUFReader(cls.out)
        cls.tensors = {t.name: t for t in cls.reader.tensors}

    @classmethod
    def tearDownClass(cls):
        del cls.tensors, cls.reader
        cls.temporary.cleanup()

    def key(self, name):
        return self.reader.fields[name].contents()

    def check_matrix(self, name, wanted):
        tensor = self.tensors[name]
        self.assertEqual(tensor.tensor_type.name, "Q8_0", name)
        found = dequantize(tensor)
        self.assertEqual(found.shape, wanted.shape, name)
        step = np.abs(wanted.reshape(-1, 32)).max(axis=1) / 127
        error = np.abs(found - wanted).reshape(-1, 32).max(axis=1)
        self.assertTrue((error <= step * 0.57).all(), f"{name}: {(error / step).max()} steps off")

    def check_norm(self, name, wanted):
        self.assertEqual(self.tensors[name].tensor_type.name, "F32", name)
        np.testing.assert_array_equal(self.tensors[name].data, wanted + np.float32(1), name)

    def test_every_tensor(self):
        names = {"token_embd.weight", "output_norm.weight", "dense_2.weight", "dense_3.weight"}
        self.check_matrix("token_embd.weight", self.source["embed_tokens.weight"])
        self.check_norm("output_norm.weight", self.source["norm.weight"])
        self.check_matrix("dense_2.weight", self.dense["2_Dense"])
        self.check_matrix("dense_3.weight", self.dense["3_Dense"])
        places = dict(zip(SHAPES, ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output",
                                   "attn_q_norm", "attn_k_norm", "post_attention_norm", "ffn_norm",
                                   "ffn_gate", "ffn_up", "ffn_down", "post_ffw_norm"]))
        for layer in range(LAYERS):
            for source_name, place in places.items():
                name = f"blk.{layer}.{place}.weight"
                wanted = self.source[f"layers.{layer}.{source_name}.weight"]
                (self.check_norm if wanted.ndim == 1 else self.check_matrix)(name, wanted)
                names.add(name)
        self.assertEqual(names, set(self.tensors))

    def test_keys(self):
        wanted = {"context_length": 128, "embedding_length": HIDDEN, "block_count": LAYERS,
                  "feed_forward_length": FFN, "attention.head_count": HEADS,
                  "attention.head_count_kv": 1, "attention.key_length": HEAD,
                  "attention.value_length": HEAD, "attention.sliding_window": 512,
                  "rope.freq_base": 1e6, "rope.freq_base_swa": 1e4, "pooling_type": 1,
                  "dense_2_feat_in": HIDDEN, "dense_2_feat_out": DENSE,
                  "dense_3_feat_in": DENSE, "dense_3_feat_out": HIDDEN}
        for name, value in wanted.items():
            self.assertEqual(self.key(f"gemma-embedding.{name}"), value, name)
        for name, value in {"bos_token_id": 2, "eos_token_id": 1, "unknown_token_id": 3,
                            "padding_token_id": 0, "add_bos_token": True, "add_eos_token": True,
                            "add_space_prefix": False, "model": "llama"}.items():
            self.assertEqual(self.key(f"tokenizer.ggml.{name}"), value, name)

    def test_vocabulary(self):
        tokens, scores, types = (self.key(f"tokenizer.ggml.{n}")
                                 for n in ("tokens", "scores", "token_type"))
        self.assertEqual([len(tokens), len(scores), len(types)], [N_VOCAB] * 3)
        self.assertEqual(tokens[:8], ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused0>",
                                      "  ", "<table>"])
        self.assertEqual(types[:8], [TokenType.CONTROL] * 6 + [TokenType.USER_DEFINED] * 2)
        self.assertEqual(scores[:8], [-1000.0] * 8)
        self.assertEqual(types[8:264], [TokenType.BYTE] * 256)
        self.assertEqual(tokens[8], "<0x00>")
        pieces = sentencepiece.SentencePieceProcessor(str(self.folder / "tokenizer.model"))
        for i in range(264, N_PIECES):
            self.assertEqual((tokens[i], scores[i], types[i]),
                             (pieces.IdToPiece(i), pieces.GetScore(i), TokenType.NORMAL))
        self.assertEqual(tokens[N_PIECES], f"[PAD{N_PIECES}]")
        self.assertEqual(types[N_PIECES], TokenType.UNUSED)
        self.assertEqual((tokens[-1], types[-1]), ("<late>", TokenType.USER_DEFINED))

    def test_refuses(self):
        with tempfile.TemporaryDirectory() as name:
            folder, out = Path(name), Path(name) / "out.gguf"
            make_folder(folder)
            for file, content, complaint in [
                    ("config.json", json.dumps({**CONFIG, "model_type": "llama"}), "model_type"),
                    ("config.json", "{", "not valid JSON"),
                    ("model.safetensors", "short", ""),
                    ("1_Pooling/config.json", "{}", "mean"),
                    ("modules.json", json.dumps([{"type": "sentence_transformers.models.LSTM"}]),
                     "models.LSTM"),
                    ("2_Dense/config.json", json.dumps({
                        "in_features": HIDDEN, "out_features": DENSE, "bias": False,
                        "activation_function": "torch.nn.modules.activation.Tanh"}), "Tanh"),
                    ("3_Dense/config.json", json.dumps({
                        "in_features": DENSE, "out_features": HIDDEN, "bias": True}), "bias")]:
                before = (folder / file).read_bytes()
                (folder / file).write_text(content)
                run = convert(folder, out)
                self.assertNotEqual(run.returncode, 0, file)
                self.assertIn(complaint, run.stderr)
                self.assertEqual(list(folder.glob("*.gguf*")) + list(folder.glob(".*")), [], file)
                (folder / file).write_bytes(before)
            self.assertEqual(convert(folder, out).returncode, 0)


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
                ("modules.json", json.dumps([{"type": "sentence_transformers.models.Pooling"},
                                             {"type": "sentence_transformers.models.Dense"}]),
                 "models.Dense"),
                ("tokenizer_config.json", json.dumps({"do_lower_case": False}), "case"),
                ("tokenizer_config.json", json.dumps({"strip_accents": False}), "accents"),
                ("tokenizer_config.json", json.dumps({"tokenize_chinese_chars": False}), "Chinese"),
                ("tokenizer_config.json", json.dumps({"tokenizer_class": "MPNetTokenizer"}),
                 "MPNetTokenizer"),
                ("tokenizer_config.json",
                 json.dumps({"added_tokens_decoder": {"11": {"content": "[Q]"}}}), "[Q]"),
                ("added_tokens.json", json.dumps({"[R]": 1}), "[R]"),
                ("1_Pooling/config.json", json.dumps({"pooling_mode_max_tokens": True}), "mean"),
                ("1_Pooling/config.json", json.dumps({"pooling_mode_mean_tokens": True,
                                                      "pooling_mode_cls_token": True}), "one"),
                ("vocab.txt", "a\nb\n", "[UNK]"),
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
