#!/usr/bin/env python3
"""Make tests/data/models: small random models as transformers saves them, converted, with the ids
and vectors that transformers gives in float64.

Usage: make_models.py [NAME...]

Norms, biases and scales get values of their own, so that one which is left out is seen. Needs
torch, transformers, sentence-transformers, sentencepiece, gguf and safetensors, as in
scripts/check-models.

NAME.cases, little-endian: u32 cases, u32 values; each case: u32 bytes, the text, u32 ids, i32 each,
float32 values.
"""

import base64
import io
import json
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import sentencepiece
import torch
import transformers
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers,
                        processors, trainers)
from tokenizers.implementations import BertWordPieceTokenizer
from tokenizers.models import BPE, WordPiece

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data" / "models"
sys.path.insert(0, str(ROOT / "scripts"))
from convert_model.byte_tokens import QWEN2_WORDS # pylint: disable=wrong-import-position
SEED = 20261129
WORDS = ("the quick brown fox jumps over a lazy dog and runs home über straße naïve café слово дом "
         "мир 日本 語 東京 한국 말 שלום कमल ไทย query passage text model of words").split()
# Of the map: some of each kind of rule that the real one has.
RULES = {"\u00aa": "a", "\uff21": "A", "\ufb01": "fi", "\u2460": "1", "e\u0301": "\u00e9",
         "a\u0301": "\u00e1", "\t": " ", "\n": " ", "\u00a0": " ", "\u3000": " ", "\u200b": " ",
         "\x01": "", "\ufffd": " ", "\uff76": "\u30ab", "\uff9e": "\u3099"}


def randomize(model):
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, values in [*model.named_parameters(), *model.named_buffers()]:
            if not values.is_floating_point() or "inv_freq" in name or "embed_scale" in name:
                continue
            noise = torch.randn(values.shape, generator=generator)
            is_norm = ("norm" in name.lower() and "bias" not in name) or "scalar" in name
            if values.ndim == 1 or values.ndim == 0:
                values.copy_((1 if is_norm else 0) + 0.2 * noise)
            else:
                values.copy_((noise * values.shape[-1] ** -0.5).half()) # so that f16 is exact


def texts_of(rng, words, longest):
    """Short and long, and what a normaliser must deal with."""
    odd = ["", " ", "the", "  the\tquick\n fox ", "\uff21\ufb01\u2460 e\u0301 \u2460\u0301",
           "\uff76\uff9e the\u2581quick \u2581", "unknown \U0001f600\U0001f600 \u4e01", "<s> </s>",
           "a\x01b\u200bc", "<mask>the"]
    return odd + [" ".join(rng.choice(words) for _ in range(n))
                  for n in (1, 3, 8, 20, longest // 2, longest, longest * 2)]


def unigram_tokenizer(folder):
    """A tokenizer.json as XLM-RoBERTa's."""
    rng, model = random.Random(SEED), io.BytesIO()
    rules = folder / "rules.tsv"
    rules.write_text("".join(
        " ".join(f"{ord(c):X}" for c in key) + "\t" + " ".join(f"{ord(c):X}" for c in value) + "\n"
        for key, value in RULES.items()))
    lines = (" ".join(rng.choice(WORDS) for _ in range(9)) for _ in range(400))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, model_type="unigram", vocab_size=170,
        normalization_rule_tsv=str(rules), hard_vocab_limit=False, minloglevel=2)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    pieces = [[p.piece, p.score] for p in proto.pieces if p.type == 1]
    vocab = [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], *pieces, ["<mask>", 0.0]]
    added = [{"id": i, "content": text, "single_word": False, "lstrip": text == "<mask>",
              "rstrip": False, "normalized": False, "special": True}
             for i, (text, _) in enumerate(vocab) if text[0] == "<" and text[-1] == ">"]
    special = lambda text: {"SpecialToken": {"id": text, "type_id": 0}}
    charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
    single = [special("<s>"), {"Sequence": {"id": "A", "type_id": 0}}, special("</s>")]
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "WhitespaceSplit"},
            {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always",
             "split": True}]},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single,
                           "special_tokens": {
                               text: {"id": text, "ids": [i], "tokens": [text]}
                               for i, text in ((0, "<s>"), (2, "</s>"))}},
        "decoder": None,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "XLMRobertaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>", "sep_token": "</s>", "cls_token": "<s>", "pad_token": "<pad>",
        "mask_token": "<mask>"}))
    return len(vocab)


def save(folder, model, pooling):
    """As sentence-transformers saves it; what it saves is what is converted."""
    model.save_pretrained(folder / "plain")
    transformer = Transformer(str(folder / "plain"))
    whole = SentenceTransformer(device="cpu", prompts={"query": "the query: ", "passage": ""},
                                modules=[transformer,
                                         Pooling(model.config.hidden_size, pooling_mode=pooling),
                                         Normalize()])
    whole.save(str(folder / "saved"))
    return folder / "saved"


def convert(name, saved, title):
    DATA.mkdir(exist_ok=True)
    subprocess.run([sys.executable, ROOT / "scripts" / "convert-model.py", "--type", "f16",
                    "--name", title or name, saved, DATA / f"{name}.gguf"], check=True)


def write(name, saved, cases, title=None):
    convert(name, saved, title)
    with open(DATA / f"{name}.cases", "wb") as file:
        file.write(struct.pack("<II", len(cases), len(cases[0][2])))
        for text, ids, vector in cases:
            text = text.encode()
            file.write(struct.pack("<I", len(text)) + text + struct.pack("<I", len(ids)))
            file.write(struct.pack(f"<{len(ids)}i", *ids))
            file.write(struct.pack(f"<{len(vector)}f", *vector))
    print(f"{name}: {len(cases)} cases, longest of {max(len(ids) for _, ids, _ in cases)} tokens")


def cases_of(model, tokenizer, texts, most, pool):
    model = model.double().eval()
    for text in texts:
        ids = tokenizer.encode(text).ids
        if len(ids) > most:
            ids = ids[:most - 1] + ids[-1:]
        with torch.no_grad():
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
            vector = pool(states)
        yield text, ids, (vector / vector.norm()).tolist()


def make_xlm_roberta(folder, name="tiny-xlm-roberta"):
    (folder / "plain").mkdir()
    n_vocab = unigram_tokenizer(folder / "plain")
    config = transformers.XLMRobertaConfig(
        vocab_size=n_vocab + 3, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=96, max_position_embeddings=50, type_vocab_size=1, pad_token_id=1,
        layer_norm_eps=1e-5)
    torch.manual_seed(SEED)
    model = transformers.XLMRobertaModel(config, add_pooling_layer=False)
    randomize(model)
    saved = save(folder, model, "cls")
    tokenizer = Tokenizer.from_file(str(saved / "tokenizer.json"))
    texts = texts_of(random.Random(SEED), WORDS, 40)
    write(name, saved, list(cases_of(model, tokenizer, texts, 48, lambda states: states[0])))


def gemma_tokenizer(folder):
    """A tokenizer.json as EmbeddingGemma's: the merges that SentencePiece's scores lead to."""
    rng, model = random.Random(SEED), io.BytesIO()
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    lines = (" ".join(rng.choice(WORDS) for _ in range(9)) for _ in range(400))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, model_type="bpe", vocab_size=440,
        byte_fallback=True, pad_id=0, eos_id=1, bos_id=2, unk_id=3, add_dummy_prefix=False,
        user_defined_symbols=["<mask>", "\u2581\u2581", "\u2581\u2581\u2581", "<table>"],
        minloglevel=2, normalization_rule_name="identity", remove_extra_whitespaces=False)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = {(special[i] if i < 4 else pieces.IdToPiece(i)): i for i in range(pieces.vocab_size())}
    added = [text for text, i in ids.items() if i < 8]
    merges = [(pieces.GetScore(i), at, len(text) - at, [text[:at], text[at:]])
              for text, i in ids.items() for at in range(1, len(text))
              if text[:at] in ids and text[at:] in ids and not pieces.IsByte(i)]
    merges.sort(key=lambda m: m[:3], reverse=True)
    token = lambda text: {"SpecialToken": {"id": text, "type_id": 0}}
    single = [token("<bos>"), {"Sequence": {"id": "A", "type_id": 0}}, token("<eos>")]
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": ids[text], "content": text, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": ids[text] < 4}
                         for text in added],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
                          "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single,
                           "special_tokens": {
                               text: {"id": text, "ids": [ids[text]], "tokens": [text]}
                               for text in ("<bos>", "<eos>")}},
        "decoder": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True,
                  "byte_fallback": True, "ignore_merges": False, "vocab": ids,
                  "merges": [m[3] for m in merges]}}))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {f"{name}_token": f"<{name}>" for name in ("bos", "eos", "pad", "unk")}))
    return len(ids)


def make_gemma2(folder, name="tiny-gemma2"):
    """Two kinds of heads, a window of 5 on either side, and texts around it."""
    n_vocab = gemma_tokenizer(folder)
    text_config = {
        "vocab_size": n_vocab + 2, "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
        "global_head_dim": 64, "num_global_key_value_heads": 1, "hidden_size_per_layer_input": 32,
        "embedding_dim": 96, "sliding_window": 5, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-3}
    config = transformers.EmbeddingGemma2Config(text_config=text_config)
    torch.manual_seed(SEED)
    model = transformers.EmbeddingGemma2Model(config)
    randomize(model)
    model.save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(
        {"embedding_dimension": 96, "pooling_mode": "mean", "include_prompt": True}))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rng = random.Random(SEED)
    texts = texts_of(rng, WORDS, 60) + [" ".join(rng.choice(WORDS) for _ in range(n))
                                        for n in range(2, 14)]
    write(name, folder, list(cases_of(model.language_model, tokenizer, texts, 64,
                                      lambda states: states.mean(0))))


ROBERTA_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def byte_tokenizer(folder, name):
    """A tokenizer.json of byte-level BPE: as ModernBERT's, as Qwen3's, or as RoBERTa's."""
    is_qwen, is_roberta, rng = name == "qwen3", name == "roberta", random.Random(SEED)
    tokenizer = Tokenizer(BPE())
    if not is_roberta:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2_WORDS), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]) if is_qwen else (
            pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.decoder = decoders.ByteLevel()
    lines = [" ".join(rng.choice(WORDS) for _ in range(9)) for _ in range(400)]
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=ROBERTA_TOKENS if is_roberta else []))
    if is_roberta:
        return roberta_tokenizer(folder, tokenizer)
    special = ["<|endoftext|>", "<|im_end|>"] if is_qwen else [
        "<|padding|>", "<|endoftext|>", "[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in special])
    if is_qwen:
        tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
        single = "$A <|endoftext|>"
        ends = ["<|endoftext|>"]
    else:
        tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True)])
        tokenizer.add_tokens([AddedToken(text, normalized=True)
                              for text in (" " * 3, " " * 2, "|||IP_ADDRESS|||")])
        single = "[CLS] $A [SEP]"
        ends = ["[CLS]", "[SEP]"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(text, tokenizer.token_to_id(text)) for text in ends])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": special[-1 if is_qwen else 4],
        "pad_token": special[0 if is_qwen else 5]}))
    return tokenizer


def roberta_tokenizer(folder, tokenizer):
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "RobertaTokenizer", "bos_token": "<s>", "eos_token": "</s>",
        "unk_token": "<unk>", "sep_token": "</s>", "cls_token": "<s>", "pad_token": "<pad>",
        "mask_token": "<mask>", "model_max_length": 48}))
    return tokenizer


def byte_texts(rng, longest):
    odd = ["I'm here, it's HE'LL they've'", " \u3000 wide", "tabs\t\tand \n\n  newlines\r\n x",
           "12345 6 \u0967\u00bd", "e\u0301 \u212b \u1100\u1161\u11a8 a\u0323\u0302 \u0958",
           "the   quick  [MASK]  fox \n [MASK]",
           "<think> quick <|im_end|>",
           "|||IP_ADDRESS||| a   b    c", "trailing  "]
    return texts_of(rng, WORDS, longest) + odd


def make_modernbert(folder, name="tiny-modernbert", activation="gelu", n_layers=5):
    """A window of 4 on either side in two of three layers, and texts around it."""
    tokenizer = byte_tokenizer(folder, "modernbert")
    config = transformers.ModernBertConfig(
        vocab_size=tokenizer.get_vocab_size() + 3, hidden_size=64, intermediate_size=96,
        hidden_activation=activation, num_hidden_layers=n_layers, num_attention_heads=2,
        max_position_embeddings=64, local_attention=8,
        norm_eps=1e-3, pad_token_id=0, bos_token_id=0, eos_token_id=0, cls_token_id=0,
        sep_token_id=0)
    torch.manual_seed(SEED)
    model = transformers.ModernBertModel(config)
    randomize(model)
    model.save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(
        {"embedding_dimension": 64, "pooling_mode": "cls", "include_prompt": True}))
    rng = random.Random(SEED)
    texts = byte_texts(rng, 60) + [" ".join(rng.choice(WORDS) for _ in range(n))
                                   for n in range(2, 14)]
    write(name, folder, list(cases_of(model, tokenizer, texts, 64, lambda states: states[0])))


def make_qwen3(folder, name="tiny-qwen3"):
    """Heads wider together than the model, two for each of keys."""
    tokenizer = byte_tokenizer(folder, "qwen3")
    config = transformers.Qwen3Config(
        vocab_size=tokenizer.get_vocab_size() + 3, hidden_size=64, intermediate_size=96,
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        max_position_embeddings=64, rms_norm_eps=1e-3, rope_theta=1000000.0,
        tie_word_embeddings=True)
    torch.manual_seed(SEED)
    model = transformers.Qwen3Model(config)
    randomize(model)
    model.save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(
        {"embedding_dimension": 64, "pooling_mode": "lasttoken", "include_prompt": True}))
    texts = byte_texts(random.Random(SEED), 60)
    write(name, folder, list(cases_of(model, tokenizer, texts, 64, lambda states: states[-1])))


def make_modernbert_silu(folder, name="tiny-modernbert-silu"):
    make_modernbert(folder, name, "silu", 2)


def make_roberta(folder, name="tiny-roberta"):
    (folder / "plain").mkdir()
    tokenizer = byte_tokenizer(folder / "plain", "roberta")
    config = transformers.RobertaConfig(
        vocab_size=tokenizer.get_vocab_size() + 3, hidden_size=64, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=96, max_position_embeddings=50,
        type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5)
    torch.manual_seed(SEED)
    model = transformers.RobertaModel(config, add_pooling_layer=False)
    randomize(model)
    saved = save(folder, model, "mean")
    tokenizer = Tokenizer.from_file(str(saved / "tokenizer.json"))
    tokenizer.no_truncation()
    texts = byte_texts(random.Random(SEED), 40)
    write(name, saved, list(cases_of(model, tokenizer, texts, 48, lambda states: states.mean(0))))


def make_distilbert(folder, name="tiny-distilbert"):
    (folder / "plain").mkdir()
    n_vocab = word_tokenizer(folder / "plain")
    torch.manual_seed(SEED)
    model = transformers.DistilBertModel(transformers.DistilBertConfig(
        vocab_size=n_vocab + 2, dim=64, n_layers=2, n_heads=2, hidden_dim=96,
        max_position_embeddings=48))
    make_wordpiece(folder, name, model)


def make_mpnet(folder, name="tiny-mpnet"):
    """Texts longer than the distances that have buckets of their own."""
    (folder / "plain").mkdir()
    n_vocab = word_tokenizer(folder / "plain", is_mpnet=True)
    torch.manual_seed(SEED)
    model = transformers.MPNetModel(transformers.MPNetConfig(
        vocab_size=n_vocab + 2, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=96, max_position_embeddings=202), add_pooling_layer=False)
    make_wordpiece(folder, name, model, most=200)


def make_nomic(folder, name="tiny-nomic"):
    (folder / "plain").mkdir()
    n_vocab = word_tokenizer(folder / "plain")
    torch.manual_seed(SEED)
    model = transformers.NomicBertModel(transformers.NomicBertConfig(
        vocab_size=n_vocab + 2, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=96, max_position_embeddings=48, layer_norm_eps=1e-5))
    make_wordpiece(folder, name, model, "nomic-embed-text-tiny") # whose name says its prompts


GTE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}


def make_gte(folder, name="tiny-gte"):
    """As gte-multilingual-base: rotations of another base and slower."""
    (folder / "plain").mkdir()
    n_vocab = unigram_tokenizer(folder / "plain")
    model = transformers.GteModel(transformers.GteConfig(
        vocab_size=n_vocab + 3, max_position_embeddings=48, **GTE, rope_parameters={
            "rope_type": "linear", "rope_theta": 1600.0, "factor": 8 ** (2 / 32)}))
    randomize(model)
    saved = save(folder, model, "cls")
    tokenizer = Tokenizer.from_file(str(saved / "tokenizer.json"))
    tokenizer.no_truncation()
    texts = texts_of(random.Random(SEED), WORDS, 40)
    write(name, saved, list(cases_of(model, tokenizer, texts, 48, lambda states: states[0])))


def make_gte_english(folder, name="tiny-gte-english"):
    """As gte-base-en-v1.5: WordPiece, no types of tokens."""
    (folder / "plain").mkdir()
    n_vocab = word_tokenizer(folder / "plain")
    make_wordpiece(folder, name, transformers.GteModel(transformers.GteConfig(
        vocab_size=n_vocab + 2, max_position_embeddings=48, type_vocab_size=0, **GTE,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0})))


def make_wordpiece(folder, name, model, title=None, most=48):
    randomize(model)
    saved, rng = save(folder, model, "mean"), random.Random(SEED)
    tokenizer = Tokenizer.from_file(str(saved / "tokenizer.json"))
    tokenizer.no_truncation()
    texts = ["", "the", "The quick, brown fox's [MASK].", "<mask> <s>the [CLS]</s>"] + [
        " ".join(rng.choice(WORDS) for _ in range(n)) for n in (1, 2, 3, 5, 8, 13, 21, 40, 90)]
    write(name, saved, list(cases_of(model, tokenizer, texts, most, lambda states: states.mean(0))),
          title)


def word_tokenizer(folder, is_mpnet=False):
    """A tokenizer.json as an uncased BERT's, or as MPNet's."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.,'",
              *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"), "the", "quick", "brown", "fox"]
    if is_mpnet:
        return mpnet_tokenizer(folder, ["<s>", "<pad>", "</s>", "<unk>", *pieces, "<mask>"])
    wordpiece = BertWordPieceTokenizer({text: i for i, text in enumerate(pieces)}, lowercase=True)
    wordpiece.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 48}))
    return len(pieces)


def mpnet_tokenizer(folder, pieces):
    """[CLS] and its like are ordinary tokens here, which no text has."""
    tokenizer = Tokenizer(WordPiece({text: i for i, text in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken(text, special=True, lstrip=text == "<mask>")
                                  for text in ("<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>")])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "MPNetTokenizer", "do_lower_case": True, "bos_token": "<s>",
        "eos_token": "</s>", "unk_token": "[UNK]", "sep_token": "</s>", "cls_token": "<s>",
        "pad_token": "<pad>", "mask_token": "<mask>", "model_max_length": 200}))
    return len(pieces)


def make_reranker(folder, name, model, most):
    """name.pairs: u32 pairs; each: u32 bytes, the query, u32 bytes, the text, u32 ids, float32."""
    randomize(model)
    model.save_pretrained(folder / "plain")
    CrossEncoder(str(folder / "plain"), device="cpu", max_length=most).save(str(folder / "saved"))
    tokenizer = Tokenizer.from_file(str(folder / "saved" / "tokenizer.json"))
    tokenizer.enable_truncation(most, strategy="longest_first")
    model, rng, pairs = model.double().eval(), random.Random(SEED), []
    latin = [word for word in WORDS if word.isascii()]
    for n_query, n_text in ((0, 3), (1, 0), (2, 5), (5, 40), (40, 5), (40, 40), (41, 40), (9, 9)):
        query = " ".join(rng.choice(latin) for _ in range(n_query))
        text = " ".join(rng.choice(latin) for _ in range(n_text))
        encoded = tokenizer.encode(query, text)
        with torch.no_grad():
            score = model(input_ids=torch.tensor([encoded.ids]),
                          token_type_ids=torch.tensor([encoded.type_ids])).logits.item()
        pairs.append((query.encode(), text.encode(), len(encoded.ids), score))
    convert(name, folder / "saved", None)
    with open(DATA / f"{name}.pairs", "wb") as file:
        file.write(struct.pack("<I", len(pairs)))
        for query, text, n_ids, score in pairs:
            file.write(struct.pack("<I", len(query)) + query + struct.pack("<I", len(text)) + text)
            file.write(struct.pack("<If", n_ids, score))
    print(f"{name}: {len(pairs)} pairs, scores {[round(pair[3], 3) for pair in pairs]}")


def make_bert_reranker(folder, name="tiny-bert-reranker"):
    (folder / "plain").mkdir()
    n_vocab = word_tokenizer(folder / "plain")
    torch.manual_seed(SEED)
    make_reranker(folder, name, transformers.BertForSequenceClassification(transformers.BertConfig(
        vocab_size=n_vocab, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=96, max_position_embeddings=48, num_labels=1)), 48)


def make_roberta_reranker(folder, name="tiny-roberta-reranker"):
    (folder / "plain").mkdir()
    tokenizer = byte_tokenizer(folder / "plain", "roberta")
    torch.manual_seed(SEED)
    make_reranker(folder, name, transformers.RobertaForSequenceClassification(
        transformers.RobertaConfig(
            vocab_size=tokenizer.get_vocab_size(), hidden_size=64, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=96, max_position_embeddings=50,
            type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5,
            num_labels=1)), 48)


def make_gte_reranker(folder, name="tiny-gte-reranker"):
    """As gte-large-en-v1.5, which has types of tokens, with a head."""
    (folder / "plain").mkdir()
    n_vocab = word_tokenizer(folder / "plain")
    torch.manual_seed(SEED)
    make_reranker(folder, name, transformers.GteForSequenceClassification(transformers.GteConfig(
        vocab_size=n_vocab, max_position_embeddings=48, type_vocab_size=2, num_labels=1, **GTE)),
                  48)


def make_xlm_reranker(folder, name="tiny-xlm-reranker"):
    (folder / "plain").mkdir()
    n_vocab = unigram_tokenizer(folder / "plain")
    torch.manual_seed(SEED)
    make_reranker(folder, name, transformers.XLMRobertaForSequenceClassification(
        transformers.XLMRobertaConfig(
            vocab_size=n_vocab, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=96, max_position_embeddings=50, type_vocab_size=1, pad_token_id=1,
            layer_norm_eps=1e-5, num_labels=1)), 48)


MODELS = {"xlm-roberta": make_xlm_roberta, "gemma2": make_gemma2, "modernbert": make_modernbert,
          "modernbert-silu": make_modernbert_silu, "qwen3": make_qwen3, "nomic": make_nomic,
          "mpnet": make_mpnet, "gte": make_gte, "gte-english": make_gte_english,
          "gte-reranker": make_gte_reranker,
          "distilbert": make_distilbert, "roberta": make_roberta,
          "bert-reranker": make_bert_reranker, "xlm-reranker": make_xlm_reranker,
          "roberta-reranker": make_roberta_reranker}


def main():
    for name in sys.argv[1:] or MODELS:
        with tempfile.TemporaryDirectory() as work:
            MODELS[name](Path(work))


if __name__ == "__main__":
    main()
