"""The vocabulary of byte-level BPE, as tokenizer.ggml.model "gpt2" has it: that of ModernBERT, of
Qwen3 and of RoBERTa. It comes from tokenizer.json, which is what sentence-transformers runs."""

import gguf

from .source import fail
from .unigram_tokens import steps_of

QWEN2_WORDS = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
               " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")


def check_bytes(step, use_regex):
    if (step.get("type") != "ByteLevel" or step.get("add_prefix_space", True)
            or step.get("use_regex", True) != use_regex):
        fail("tokenizer.json turns words into bytes in another way than ModernBERT's and Qwen3's: "
             "such models cannot be converted")


def words_of(tokenizer, is_roberta):
    """What tokenizer.ggml.pre calls the pattern of words and, of RoBERTa's, that texts are not
    composed first."""
    steps = steps_of(tokenizer.get("pre_tokenizer"), "pretokenizers")
    if len(steps) == 1:
        check_bytes(steps[0], True)
        return "roberta-bpe" if is_roberta else "modern-bert"
    if (len(steps) == 2 and steps[0].get("type") == "Split"
            and steps[0].get("pattern") == {"Regex": QWEN2_WORDS}
            and steps[0].get("behavior") == "Isolated" and not steps[0].get("invert")):
        check_bytes(steps[1], False)
        return "qwen2"
    fail("tokenizer.json parts words in another way than ModernBERT's and Qwen3's: such models "
         "cannot be converted")


def check_model(tokenizer, is_roberta):
    model, normalizer = tokenizer["model"], tokenizer.get("normalizer") or {}
    if model.get("type") != "BPE":
        fail(f"tokenizer.json has a {model.get('type')} vocabulary: for this kind of model only "
             "byte-level BPE can be converted")
    wanted = None if is_roberta else "NFC"
    if normalizer.get("type") != wanted:
        fail(f"tokenizer.json has the normalizer {normalizer.get('type')}: only {wanted} can be "
             "converted for this kind of model")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback",
                "ignore_merges"):
        if model.get(key):
            fail(f"tokenizer.json has {key} = {model[key]!r}: such models cannot be converted")


def single_of(tokenizer):
    """The tokens before and behind a text."""
    steps = steps_of(tokenizer.get("post_processor"), "processors")
    if len(steps) == 1 and steps[0].get("type") == "RobertaProcessing":
        return steps[0]["cls"][0], steps[0]["sep"][0]
    templates = [step for step in steps if step.get("type") == "TemplateProcessing"]
    others = [step for step in steps if step.get("type") not in ("TemplateProcessing", "ByteLevel")]
    if len(templates) != 1 or others:
        fail("tokenizer.json has another post-processor than a template: such models cannot be "
             "converted")
    single = [list(part.values())[0]["id"] for part in templates[0]["single"]]
    at = single.index("A") if "A" in single else -1
    if at < 0 or at > 1 or len(single) != at + 2:
        fail("tokenizer.json does not put one token behind a text: such models cannot be converted")
    return (single[0] if at else None), single[-1]


def check_added(token, mask):
    strips = token.get("lstrip"), token.get("rstrip"), token.get("single_word")
    if strips[1] or strips[2] or (strips[0] and token["content"] != mask):
        fail(f"token {token['id']}, {token['content']!r}, takes what is around it along: such "
             "models cannot be converted")


def add_tokens(out, source, n_vocab, is_roberta=False):
    """Returns the token before a text, or None, and the one behind it."""
    tokenizer, keys = source.tokenizer_json(), out.keys
    if not tokenizer:
        fail("there is no tokenizer.json: save the model again together with its tokenizer")
    check_model(tokenizer, is_roberta)
    words, (before, behind) = words_of(tokenizer, is_roberta), single_of(tokenizer)
    added = {token["content"]: token for token in tokenizer.get("added_tokens", [])}
    mask = next((text for text in ("[MASK]", "<mask>") if text in added), None)
    texts = [None] * n_vocab
    kinds = [gguf.TokenType.UNUSED] * n_vocab
    for text, i in [*tokenizer["model"]["vocab"].items(),
                    *((text, token["id"]) for text, token in added.items())]:
        if i >= n_vocab:
            fail(f"token {i} is beyond the model's {n_vocab}: they do not belong together")
        texts[i], kinds[i] = text, gguf.TokenType.NORMAL
    for text, token in added.items():
        check_added(token, mask)
        kinds[token["id"]] = (gguf.TokenType.CONTROL if token.get("special")
                              else gguf.TokenType.USER_DEFINED)
    keys.add_tokenizer_model("gpt2")
    keys.add_tokenizer_pre(words)
    keys.add_token_list([f"[PAD{i}]" if text is None else text for i, text in enumerate(texts)])
    keys.add_token_types(kinds)
    merges = [merge if isinstance(merge, str) else " ".join(merge)
              for merge in tokenizer["model"]["merges"]]
    keys.add_token_merges(merges)
    ids = {text: token["id"] for text, token in added.items()}
    if before is not None:
        keys.add_bos_token_id(ids[before])
    keys.add_eos_token_id(ids[behind])
    keys.add_add_bos_token(before is not None)
    keys.add_add_eos_token(True)
    if before is not None:
        keys.add_sep_token_id(ids[behind])
    if mask:
        keys.add_mask_token_id(ids[mask])
    for pad in ("[PAD]", "<pad>"):
        if pad in ids:
            keys.add_pad_token_id(ids[pad])
    return before, behind
