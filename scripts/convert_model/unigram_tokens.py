"""The vocabulary of XLM-RoBERTa and its kin, as tokenizer.ggml.model "t5" has it: SentencePiece
unigram with its normalisation map. It comes from tokenizer.json, which every publisher of such
models gives and every version of transformers writes."""

import base64

import gguf

from .source import fail

SCORE_OF_PADS = -10000.0
ENDS = ("<s>", "</s>", "<unk>", "<pad>")


def is_unigram(tokenizer):
    return bool(tokenizer) and tokenizer["model"].get("type") == "Unigram"


def steps_of(part, key):
    """A step, or the steps of a sequence."""
    part = part or {}
    return part.get(key, []) if part.get("type") == "Sequence" else [part]


def charsmap_of(tokenizer):
    """Beside the map there may be steps that change nothing for words between white space."""
    steps = steps_of(tokenizer.get("normalizer"), "normalizers")
    maps = [step for step in steps if step.get("type") == "Precompiled"]
    others = [step for step in steps if step.get("type") not in ("Precompiled", "Strip", "Replace")]
    runs = [step for step in steps if step.get("type") == "Replace"
            and step.get("pattern") not in ({"Regex": " {2,}"}, {"String": " "})]
    if len(maps) != 1 or others or runs:
        fail("tokenizer.json has another normalizer than a SentencePiece map (Precompiled): such "
             "models cannot be converted")
    return base64.b64decode(maps[0]["precompiled_charsmap"])


def check_words(tokenizer):
    steps = steps_of(tokenizer.get("pre_tokenizer"), "pretokenizers")
    kinds = [step.get("type") for step in steps]
    meta = steps[-1]
    prepends = meta.get("prepend_scheme", "always" if meta.get("add_prefix_space", True) else "no")
    if (kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"])
            or meta.get("replacement") != "\u2581" or prepends not in ("always", "first")):
        fail("tokenizer.json parts words in another way than XLM-RoBERTa's (Metaspace with a "
             "prefix): such models cannot be converted")


def check_ends(tokenizer):
    post = tokenizer.get("post_processor") or {}
    single = [list(part.values())[0]["id"] for part in post.get("single", [])]
    if post.get("type") in ("RobertaProcessing", "BertProcessing"):
        single = [post["cls"][0], "A", post["sep"][0]]
    if single != ["<s>", "A", "</s>"]:
        fail("tokenizer.json does not put a text between <s> and </s>: such models cannot be "
             "converted")


def kind_of(text):
    types = gguf.TokenType
    if text == "<unk>":
        return types.UNKNOWN
    return types.CONTROL if text in ("<s>", "</s>", "<pad>", "<mask>") else types.NORMAL


def add_tokens(out, source, n_vocab):
    tokenizer = source.tokenizer_json()
    model, keys = tokenizer["model"], out.keys
    charsmap = charsmap_of(tokenizer)
    check_words(tokenizer)
    check_ends(tokenizer)
    vocab = [tuple(entry) for entry in model["vocab"]]
    if len(vocab) > n_vocab:
        fail(f"the vocabulary has {len(vocab)} tokens and the model {n_vocab}: they do not belong "
             "together")
    if model.get("byte_fallback"):
        fail("tokenizer.json has bytes for unknown characters (byte_fallback): such models cannot "
             "be converted")
    ids = {text: i for i, (text, _) in enumerate(vocab)}
    for token in tokenizer.get("added_tokens", []):
        text = token["content"]
        if ids.get(text) != token["id"] or kind_of(text) == gguf.TokenType.NORMAL:
            fail(f"token {token['id']}, {text!r}, was added to the vocabulary: such models cannot "
                 "be converted")
    for text in ENDS:
        if text not in ids:
            fail(f"the vocabulary has no {text}")
    if model.get("unk_id") != ids["<unk>"]:
        fail("tokenizer.json has another unknown token than <unk>: such models cannot be converted")
    n_pads = n_vocab - len(vocab)
    keys.add_tokenizer_model("t5")
    keys.add_tokenizer_pre("default")
    keys.add_token_list([text for text, _ in vocab] +
                        [f"[PAD{i}]" for i in range(len(vocab), n_vocab)])
    keys.add_token_scores([score for _, score in vocab] + [SCORE_OF_PADS] * n_pads)
    keys.add_token_types([kind_of(text) for text, _ in vocab] +
                         [gguf.TokenType.UNUSED] * n_pads)
    keys.add_add_space_prefix(True)
    keys.add_remove_extra_whitespaces(True)
    keys.add_precompiled_charsmap(charsmap)
    keys.add_bos_token_id(ids["<s>"])
    keys.add_eos_token_id(ids["</s>"])
    keys.add_unk_token_id(ids["<unk>"])
    keys.add_sep_token_id(ids["</s>"])
    keys.add_pad_token_id(ids["<pad>"])
    if "<mask>" in ids:
        keys.add_mask_token_id(ids["<mask>"])
    keys.add_add_bos_token(True)
    keys.add_add_eos_token(True)
