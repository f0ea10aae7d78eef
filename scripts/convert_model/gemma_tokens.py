"""The vocabulary of Gemma, as tokenizer.ggml.model "llama" has it: texts, scores and types.

transformers 5 saves a tokenizer.json alone, those before 5 a tokenizer.model, too, which must then
say the same. A tokenizer.json has no scores but the list of merges they lead to. Gemma's scores
fall from each token to the next, so ids give their order; that it leads to the very list of the
file is checked."""

import re

import gguf

from .source import fail, read_json

SCORE_OF_PADS = -10000.0
SCORE_OF_ADDED_TOKENS = -1000.0
BYTE = re.compile("<0x[0-9A-F]{2}>")


def is_special(text, declared_special):
    """Tokens that never stand for text of their own, although not all are declared special."""
    return declared_special or text in ("<pad>", "<mask>") or (
        text.startswith("<unused") and text.endswith(">"))


class Vocabulary:
    """Rows that no token belongs to are pads."""

    def __init__(self, n):
        self.texts = [f"[PAD{i}]".encode() for i in range(n)]
        self.scores = [SCORE_OF_PADS] * n
        self.kinds = [gguf.TokenType.UNUSED] * n

    def put(self, i, text, score, kind):
        if i < len(self.texts): # the image token of the multimodal family lies beyond the matrix
            self.texts[i], self.scores[i], self.kinds[i] = text.encode(), score, kind

    def put_added(self, i, text, special):
        if is_special(text, special):
            self.put(i, text, SCORE_OF_ADDED_TOKENS, gguf.TokenType.CONTROL)
        else:
            self.put(i, text.replace("\u2581", " "), SCORE_OF_ADDED_TOKENS,
                     gguf.TokenType.USER_DEFINED)


def read_pieces(source, n_vocab):
    """From the SentencePiece model, overlaid with the added tokens. Returns the ends, too."""
    from sentencepiece import SentencePieceProcessor # only this form of a model needs it
    processor = SentencePieceProcessor(model_file=str(source.model / "tokenizer.model"))
    types, vocabulary = gguf.TokenType, Vocabulary(n_vocab)
    for i in range(processor.vocab_size()):
        vocabulary.put(i, processor.IdToPiece(i), processor.GetScore(i),
                       types.UNKNOWN if processor.IsUnknown(i) else
                       types.CONTROL if processor.IsControl(i) else
                       types.UNUSED if processor.IsUnused(i) else
                       types.BYTE if processor.IsByte(i) else types.NORMAL)
    added_path = source.model / "added_tokens.json"
    if added_path.is_file():
        for text, i in read_json(added_path).items():
            vocabulary.put(i, text, SCORE_OF_ADDED_TOKENS, types.USER_DEFINED)
    config = source.tokenizer_config()
    for key, entry in config.get("added_tokens_decoder", {}).items():
        vocabulary.put_added(int(key), entry["content"], entry.get("special", False))
    ends = {"bos": processor.bos_id(), "eos": processor.eos_id(), "unk": processor.unk_id(),
            "pad": processor.pad_id()}
    return vocabulary, ends, (config.get("add_bos_token", True), config.get("add_eos_token", True))


def template_of(tokenizer):
    """What stands before and after a text, as tokens."""
    post = tokenizer.get("post_processor") or {}
    steps = post.get("processors", [post]) if post.get("type") == "Sequence" else [post]
    found = [step for step in steps if step.get("type") == "TemplateProcessing"]
    names = [list(part.values())[0]["id"] for part in (found[0]["single"] if found else [])
             if "SpecialToken" in part]
    place = next((i for i, part in enumerate(found[0]["single"] if found else [])
                  if "Sequence" in part), 0)
    return names[:place], names[place:]


def expected_merges(ids, normal):
    """The list that SentencePiece's scores lead to: tokens in order, of each its splits, the
    longest left part first."""
    for text in normal:
        for at in range(len(text) - 1, 0, -1):
            if text[:at] in ids and text[at:] in ids:
                yield text[:at], text[at:]


def check_merges(model, normal):
    ids = set(normal)
    merges = (tuple(m) if isinstance(m, list) else tuple(m.split(" ", 1)) for m in model["merges"])
    found = (m for m in merges if m[0] in ids and m[1] in ids and m[0] + m[1] in ids)
    for wanted in expected_merges(ids, normal):
        if next(found, None) != wanted:
            fail("tokenizer.json: the merges are not in the order of the tokens' ids, so their "
                 "scores are not known: save the tokenizer again, or restore the published one")
    if next(found, None) is not None:
        fail("tokenizer.json has merges that its vocabulary does not lead to: save the tokenizer "
             "again, or restore the published one")


def read_tokenizer(source, tokenizer, n_vocab):
    """From tokenizer.json."""
    model, normalizer = tokenizer["model"], tokenizer.get("normalizer") or {}
    if (model.get("type") != "BPE" or not model.get("byte_fallback") or model.get("ignore_merges")
            or normalizer.get("pattern") != {"String": " "}
            or normalizer.get("content") != "\u2581"):
        fail("tokenizer.json is not one of EmbeddingGemma (BPE with bytes, spaces replaced by "
             "U+2581): such models cannot be converted")
    vocabulary, ids = Vocabulary(n_vocab), model["vocab"]
    added = {token["content"]: token for token in tokenizer["added_tokens"]}
    normal = [text for text in sorted(ids, key=ids.get)
              if text not in added and not BYTE.fullmatch(text)]
    check_merges(model, normal)
    for score, text in enumerate(normal):
        vocabulary.put(ids[text], text, -float(score), gguf.TokenType.NORMAL)
    for text, i in ids.items():
        if BYTE.fullmatch(text) and text not in added:
            vocabulary.put(i, text, 0.0, gguf.TokenType.BYTE)
    for text, token in added.items():
        vocabulary.put_added(token["id"], text, token.get("special", False))
    config = source.tokenizer_config()
    all_ids = ids | {text: token["id"] for text, token in added.items()}
    ends = {}
    for name in ("bos", "eos", "unk", "pad"):
        text = config.get(f"{name}_token", f"<{name}>")
        text = text["content"] if isinstance(text, dict) else text
        if text not in all_ids:
            fail(f"tokenizer.json has no token {text}: save the tokenizer again")
        ends[name] = all_ids[text]
    before, after = template_of(tokenizer)
    for names, name in ((before, "bos"), (after, "eos")):
        if names and [all_ids.get(text) for text in names] != [ends[name]]:
            fail(f"tokenizer.json puts {', '.join(names)} around a text: only one {name} token can "
                 "be converted")
    return vocabulary, ends, (bool(before), bool(after))


def take_scores(vocabulary, pieces):
    """Of ordinary tokens. Added tokens are those of tokenizer.json."""
    normal = gguf.TokenType.NORMAL
    for i, text in enumerate(vocabulary.texts):
        if vocabulary.kinds[i] == normal:
            if pieces.kinds[i] != normal or pieces.texts[i] != text:
                fail(f"token {i} is {text.decode()!r} in tokenizer.json and "
                     f"{pieces.texts[i].decode()!r} in tokenizer.model, or of another kind there: "
                     "take out the file that is not the model's")
            vocabulary.scores[i] = pieces.scores[i]


def read(source, n_vocab):
    """Vocabulary, ids of the ends, whether they are added."""
    tokenizer, has_pieces = source.tokenizer_json(), (source.model / "tokenizer.model").exists()
    if not tokenizer and not has_pieces:
        fail("there is neither tokenizer.json nor tokenizer.model: save the model again together "
             "with its tokenizer")
    pieces = read_pieces(source, n_vocab) if has_pieces else None
    if not tokenizer:
        return pieces
    result = read_tokenizer(source, tokenizer, n_vocab)
    if pieces:
        take_scores(result[0], pieces[0])
    return result


def add_tokens(out, source, merges=False):
    """merges: in the form of Gemma 4, which carries the list of merges."""
    vocabulary, ends, (add_bos, add_eos) = read(source, source.number("vocab_size"))
    keys = out.keys
    keys.add_tokenizer_model("gemma4" if merges else "llama")
    keys.add_tokenizer_pre("gemma4" if merges else "default")
    keys.add_token_list(vocabulary.texts)
    if merges:
        tokenizer = source.tokenizer_json()
        if not tokenizer:
            fail("there is no tokenizer.json: save the model again together with its tokenizer")
        keys.add_token_merges([" ".join(m) if isinstance(m, list) else m
                               for m in tokenizer["model"]["merges"]])
    keys.add_token_scores(vocabulary.scores)
    keys.add_token_types(vocabulary.kinds)
    keys.add_bos_token_id(ends["bos"])
    keys.add_eos_token_id(ends["eos"])
    keys.add_unk_token_id(ends["unk"])
    keys.add_pad_token_id(ends["pad"])
    keys.add_add_bos_token(add_bos)
    keys.add_add_eos_token(add_eos)
    keys.add_add_sep_token(False)
    keys.add_add_space_prefix(False)
