#!/usr/bin/env python3
"""scripts/convert-model.py on small models made here, checked against arithmetic done here.

Needs gguf, safetensors, sentencepiece and numpy; scripts/test makes a virtual environment for it.
"""

import json
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

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


OLD = "sentence_transformers.models." # of sentence-transformers 5
NEW = "sentence_transformers.base.modules.some." # of 6: longer, and not the same for all


def modules_of(prefix, kinds):
    return [{"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": prefix + kind}
            for i, kind in enumerate(kinds)]


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
        "modules.json": modules_of(OLD, ["Transformer", "Pooling", "Dense", "Dense", "Normalize"]),
        "2_Dense/config.json": {"in_features": HIDDEN, "out_features": DENSE, "bias": False,
                                "activation_function": "torch.nn.modules.linear.Identity"},
        "3_Dense/config.json": {"in_features": DENSE, "out_features": HIDDEN, "bias": False,
                                "activation_function": "torch.nn.modules.linear.Identity"},
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


def merges_of(pieces):
    """As transformers makes the list of a tokenizer.json from the scores of a tokenizer.model."""
    scores = {pieces.IdToPiece(i): pieces.GetScore(i) for i in range(pieces.vocab_size())}
    merges = [(score, len(text[:at]), len(text) - at, [text[:at], text[at:]])
              for text, score in scores.items() for at in range(1, len(text))
              if text[:at] in scores and text[at:] in scores]
    merges.sort(key=lambda m: m[:3], reverse=True)
    return [m[3] for m in merges]


def renew(folder):
    """A folder of make_folder as sentence-transformers 6.2 with transformers 5.24 saves it."""
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    declared = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    added = [{"id": int(i), **token} for i, token in declared.items()]
    added.append({"id": N_VOCAB - 1, "content": "<late>", "special": False})
    special = lambda text: {"SpecialToken": {"id": text, "type_id": 0}}
    tokenizer = {
        "added_tokens": added, "normalizer": {"type": "Replace", "pattern": {"String": " "},
                                              "content": "\u2581"},
        "post_processor": {"type": "TemplateProcessing", "single": [
            special("<bos>"), {"Sequence": {"id": "A", "type_id": 0}}, special("<eos>")]},
        "model": {"type": "BPE", "byte_fallback": True, "ignore_merges": False,
                  "vocab": {pieces.IdToPiece(i): i for i in range(N_PIECES)},
                  "merges": merges_of(pieces)}}
    config = {k: v for k, v in CONFIG.items() if not k.startswith("rope")}
    config["rope_parameters"] = {
        "full_attention": {"rope_theta": 1e6, "rope_type": "default"},
        "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}
    files = {
        "config.json": config, "tokenizer.json": tokenizer,
        "tokenizer_config.json": {f"{n}_token": f"<{n}>" for n in ("bos", "eos", "pad", "unk")},
        "1_Pooling/config.json": {"embedding_dimension": HIDDEN, "pooling_mode": "mean",
                                  "include_prompt": True},
        "modules.json": modules_of(NEW, ["Transformer", "Pooling", "Dense", "Dense", "Normalize"]),
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    for name in ("tokenizer.model", "added_tokens.json"):
        (folder / name).unlink()


def split(folder, tensors, as_bfloat16):
    """Save the tensors in two files with an index; returns them as they are then."""
    if as_bfloat16:
        tensors = {name: (values.view(np.uint32) & 0xffff0000).view(np.float32)
                   for name, values in tensors.items()}
    names = sorted(tensors)
    index = {"metadata": {}, "weight_map": {}}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{i:05}-of-00002.safetensors"
        index["weight_map"] |= dict.fromkeys(part, file)
        if as_bfloat16:
            save_bfloat16({name: tensors[name] for name in part}, folder / file)
        else:
            save_file({name: tensors[name] for name in part}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return tensors


def save_bfloat16(tensors, path):
    header, data = {}, b""
    for name, values in tensors.items():
        part = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": values.shape,
                        "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


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
                    ("modules.json", json.dumps(modules_of(OLD, ["Transformer", "LSTM"])),
                     "the step LSTM"),
                    ("modules.json", json.dumps(modules_of(OLD, ["WordEmbeddings"])),
                     "begins with WordEmbeddings"),
                    ("modules.json", json.dumps(modules_of(OLD, ["Transformer", "Pooling",
                                                                 "Dense"])), "1 dense layer"),
                    ("modules.json", json.dumps(modules_of(OLD, ["Transformer", "Pooling"])),
                     "--without-dense"),
                    ("config.json", json.dumps({**CONFIG, "query_pre_attn_scalar": 64}),
                     "query_pre_attn_scalar"),
                    ("config.json", json.dumps({**CONFIG, "layer_types": ["full_attention"] * 2}),
                     "layer_types"),
                    ("config.json", json.dumps({**CONFIG, "rope_scaling": {"factor": 8}}),
                     "rope_scaling"),
                    ("config.json", json.dumps({**CONFIG, "use_bidirectional_attention": False}),
                     "use_bidirectional_attention"),
                    ("2_Dense/config.json", json.dumps({
                        "in_features": HIDDEN, "out_features": DENSE, "bias": False}), "Tanh"),
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


class ConvertNew(unittest.TestCase):
    """EmbeddingGemma in the forms that today's libraries save."""

    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.folder = Path(self.temporary.name) / "model"
        self.folder.mkdir()
        self.tensors, _ = make_folder(self.folder)
        self.out = Path(self.temporary.name) / "out.gguf"

    def convert(self, *options):
        run = convert(self.folder, self.out, *options)
        self.assertEqual(run.returncode, 0, run.stderr)
        return GGUFReader(self.out), run.stderr

    def test_same_as_old(self):
        old, _ = self.convert()
        old = {name: field.contents() for name, field in old.fields.items()}
        before = {t.name: t.data.tobytes() for t in GGUFReader(self.out).tensors}
        renew(self.folder)
        new, _ = self.convert()
        scores = "tokenizer.ggml.scores"
        for name, value in old.items():
            if name != scores:
                self.assertEqual(new.fields[name].contents(), value, name)
        self.assertEqual({t.name: t.data.tobytes() for t in new.tensors}, before)
        order = lambda values: sorted(range(264, N_PIECES), key=lambda i: values[i])
        self.assertEqual(order(new.fields[scores].contents()), order(old[scores]))

    def test_both_tokenizers(self):
        pieces = (self.folder / "tokenizer.model").read_bytes()
        plain = self.convert()[0].fields["tokenizer.ggml.scores"].contents()
        renew(self.folder)
        (self.folder / "tokenizer.model").write_bytes(pieces)
        both = self.convert()[0].fields["tokenizer.ggml.scores"].contents()
        self.assertEqual(both[8:N_PIECES], plain[8:N_PIECES])
        path = self.folder / "tokenizer.json"
        ids = json.loads(path.read_text())["model"]["vocab"]
        other, tokenizer = list(ids)[-1], json.loads(path.read_text())
        tokenizer["model"]["vocab"] = {("\u00e9" if text == other else text): i
                                       for text, i in ids.items()}
        path.write_text(json.dumps(tokenizer))
        run = convert(self.folder, self.out)
        self.assertIn(f"token {ids[other]}", run.stderr)
        self.assertNotEqual(run.returncode, 0)

    def test_merges_are_checked(self):
        renew(self.folder)
        path = self.folder / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        merges = tokenizer["model"]["merges"]
        merges[10], merges[20] = merges[20], merges[10]
        path.write_text(json.dumps(tokenizer))
        run = convert(self.folder, self.out)
        self.assertIn("the merges are not in the order", run.stderr)
        self.assertNotEqual(run.returncode, 0)

    def test_split(self):
        for as_bfloat16 in (False, True):
            make_folder(self.folder)
            wanted = split(self.folder, self.tensors, as_bfloat16)
            found = {t.name: t for t in self.convert("--type", "f32")[0].tensors}
            for name, source in (("token_embd.weight", "embed_tokens.weight"),
                                 ("blk.1.ffn_down.weight", "layers.1.mlp.down_proj.weight")):
                np.testing.assert_array_equal(found[name].data, wanted[source], name)
        (self.folder / "model-00002-of-00002.safetensors").unlink()
        run = convert(self.folder, self.out)
        self.assertIn("model-00002-of-00002.safetensors is missing", run.stderr)

    def test_halved_window(self):
        for window, written in ((257, 512), (129, 512), (65, 512), (256, 256)):
            (self.folder / "config.json").write_text(
                json.dumps({**CONFIG, "sliding_window": window}))
            reader, warning = self.convert()
            self.assertEqual(
                reader.fields["gemma-embedding.attention.sliding_window"].contents(), written)
            self.assertEqual("transformers 4.57 to 5.12" in warning, window != written)

    def test_without_dense(self):
        (self.folder / "modules.json").write_text(
            json.dumps(modules_of(NEW, ["Transformer", "Pooling", "Normalize"])))
        reader, _ = self.convert("--without-dense")
        self.assertEqual(reader.fields["gemma-embedding.dense_layers"].contents(), 0)
        self.assertFalse([t.name for t in reader.tensors if t.name.startswith("dense")])

if __name__ == "__main__":
    unittest.main()
