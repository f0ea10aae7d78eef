"""The tokenizer of EmbeddingGemma as tokenizer.json, made of the tokens and scores of its GGUF
file: the published file is in no small package. Its list of merges is what the scores lead to."""

import json

from gguf import GGUFReader, TokenType

SPACE = "\u2581"


def read_tokens(model):
    """[(text, score, type)] by id."""
    fields = GGUFReader(model).fields
    texts = fields["tokenizer.ggml.tokens"]
    scores, kinds = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("scores", "token_type"))
    names = [bytes(texts.parts[part]).decode() for part in texts.data]
    return list(zip(names, scores, kinds))


def merges_of(ids, tokens):
    """In order of their scores, runs of spaces before all; of equal ones the longest left part
    first."""
    scores = {text: score for text, score, kind in tokens if kind == TokenType.NORMAL}
    scores |= {text: 1.0 for text in ids if text and not text.strip(SPACE)}
    found = [(score, at, len(text) - at, text) for text, score in scores.items()
             for at in range(1, len(text)) if text[:at] in scores and text[at:] in scores]
    found.sort(key=lambda merge: merge[:3], reverse=True)
    return [[text[:at], text[at:]] for _, at, _, text in found]


def write(model, path):
    """Returns how many tokens there are."""
    tokens = [(text.replace(" ", SPACE) if kind == TokenType.USER_DEFINED else text, score, kind)
              for text, score, kind in read_tokens(model)]
    ids = {text: i for i, (text, _, kind) in enumerate(tokens) if kind != TokenType.UNUSED}
    kinds = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
    added = [(i, text, kind) for i, (text, _, kind) in enumerate(tokens) if kind in kinds]
    special = lambda text: {"SpecialToken": {"id": text, "type_id": 0}}
    single = [special("<bos>"), {"Sequence": {"id": "A", "type_id": 0}}, special("<eos>")]
    path.write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": text, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False,
                          "special": kind == TokenType.CONTROL} for i, text, kind in added],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
                          "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single,
                           "special_tokens": {
                               text: {"id": text, "ids": [ids[text]], "tokens": [text]}
                               for text in ("<bos>", "<eos>")}},
        "decoder": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True,
                  "byte_fallback": True, "ignore_merges": False, "vocab": ids,
                  "merges": merges_of(ids, tokens)}}))
    return len(tokens)
