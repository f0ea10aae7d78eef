"""The BERT family: all-MiniLM, bge, e5, gte, rerankers like ms-marco-MiniLM; and
multilingual-e5-small, a BERT with the tokenizer of XLM-RoBERTa."""

import gguf

from . import rerank, unigram_tokens
from .output import POOLING
from .source import Tensors, fail, read_json

ARCHITECTURE = "bert"

OUTER_TENSORS = [
    ("token_embd.weight", "embeddings.word_embeddings.weight"),
    ("token_types.weight", "embeddings.token_type_embeddings.weight"),
    ("position_embd.weight", "embeddings.position_embeddings.weight"),
    ("token_embd_norm.weight", "embeddings.LayerNorm.weight"),
    ("token_embd_norm.bias", "embeddings.LayerNorm.bias"),
]

# Each has a weight and a bias.
BLOCK_TENSORS = [
    ("attn_q", "attention.self.query"),
    ("attn_k", "attention.self.key"),
    ("attn_v", "attention.self.value"),
    ("attn_output", "attention.output.dense"),
    ("attn_output_norm", "attention.output.LayerNorm"),
    ("ffn_up", "intermediate.dense"),
    ("ffn_down", "output.dense"),
    ("layer_output_norm", "output.LayerNorm"),
]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SPECIAL_OF_MPNET = ("<pad>", "[UNK]", "<s>", "</s>", "<mask>")
CLASSES = ("BertTokenizer", "DistilBertTokenizer", "MPNetTokenizer")


def check_options(options):
    """What BertTokenizer may be told and embedmill's WordPiece does not do."""
    if not options.get("tokenize_chinese_chars", True):
        fail("tokenizer_config.json says that Chinese characters are not words of their own: such "
             "models cannot be converted")
    kind = options.get("tokenizer_class", "BertTokenizer")
    if kind.removesuffix("Fast") not in (*CLASSES, "TokenizersBackend", "PreTrainedTokenizer"):
        fail(f"tokenizer_config.json asks for a {kind}: only BertTokenizer can be converted")


def steps_of(options, lower_key):
    """Lower case, and no accents; without more words accents go with lower case."""
    lower, strip = options.get(lower_key, True), options.get("strip_accents")
    return lower, lower if strip is None else strip


def read_steps(source, options, tokenizer):
    """Whether texts are read in lower case, and without accents. BertTokenizer goes by
    tokenizer_config.json, whatever tokenizer.json says; other classes by tokenizer.json."""
    lower, strip = said = steps_of(options, "do_lower_case")
    if tokenizer:
        lower, strip = steps_of(tokenizer["normalizer"], "lowercase")
    kind = options.get("tokenizer_class", "BertTokenizer")
    if "BertTokenizer" in kind and said != (lower, strip):
        fail("tokenizer_config.json (do_lower_case, strip_accents; when they are missing, lower "
             "case without accents) and tokenizer.json disagree about case or accents: make them "
             "say what the model was trained with")
    return lower or source.lowers_texts, strip


def check_added(added, lines):
    for i, text in added.items():
        if i >= len(lines) or lines[i] != text:
            fail(f"token {i}, {text!r}, was added to the vocabulary: such models cannot be "
                 "converted")


def ends_of(tokenizer):
    """The tokens around a text: of either kind of post-processor that BERTs are saved with."""
    post = tokenizer.get("post_processor") or {}
    if post.get("type") in ("BertProcessing", "RobertaProcessing"):
        return [post["cls"][0], "A", post["sep"][0]]
    return [list(part.values())[0]["id"] for part in post.get("single", [])]


def read_tokenizer(tokenizer, special):
    """Texts by id, from tokenizer.json: the tokenizer that sentence-transformers runs."""
    model, normalizer = tokenizer["model"], tokenizer.get("normalizer") or {}
    if (model.get("type", "WordPiece") != "WordPiece" or normalizer.get("type") != "BertNormalizer"
            or (tokenizer.get("pre_tokenizer") or {}).get("type") != "BertPreTokenizer"):
        fail("tokenizer.json is not a BERT's: only WordPiece with BertNormalizer and "
             "BertPreTokenizer can be converted")
    check_options({"tokenize_chinese_chars": normalizer.get("handle_chinese_chars", True)})
    for key, usual in (("continuing_subword_prefix", "##"), ("max_input_chars_per_word", 100),
                       ("unk_token", "[UNK]")):
        if model.get(key, usual) != usual:
            fail(f"tokenizer.json has {key} = {model[key]!r}, expected {usual!r}: such models "
                 "cannot be converted")
    if not normalizer.get("clean_text", True):
        fail("tokenizer.json keeps control characters (clean_text): such models cannot be "
             "converted")
    if ends_of(tokenizer) != [special[2], "A", special[3]]:
        fail(f"tokenizer.json does not put a text between {special[2]} and {special[3]}: such "
             "models cannot be converted")
    lines = [""] * (max(model["vocab"].values(), default=-1) + 1)
    for text, i in model["vocab"].items():
        lines[i] = text
    return lines, {token["id"]: token["content"] for token in tokenizer.get("added_tokens", [])}


def read_lines(path):
    try:
        return path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except FileNotFoundError:
        fail(f"{path} is missing, and so is tokenizer.json: only WordPiece vocabularies can be "
             "converted")
    except UnicodeDecodeError as e:
        fail(f"{path} is not UTF-8 ({e}): fetch the folder again")


def read_word_pieces(source, n_vocab, special):
    """Texts, types, and the steps before. What goes on with a word loses its ##, what begins one
    gets a U+2581."""
    tokenizer, options, folder = source.tokenizer_json(), source.tokenizer_config(), source.model
    check_options(options)
    if tokenizer:
        lines, added = read_tokenizer(tokenizer, special)
    else:
        lines = read_lines(folder / "vocab.txt")
        added = {int(i): token["content"]
                 for i, token in options.get("added_tokens_decoder", {}).items()}
    if (folder / "added_tokens.json").exists():
        added |= {i: text for text, i in read_json(folder / "added_tokens.json").items()}
    if len(lines) > n_vocab:
        fail(f"the vocabulary has {len(lines)} tokens and the model {n_vocab}: they do not belong "
             "together")
    check_added(added, lines)
    control = {*special, *(added.values() if special == SPECIAL_OF_MPNET else ())}
    tokens, kinds = [], []
    for i, text in enumerate(lines + [""] * (n_vocab - len(lines))):
        if text in ("", "##"): # of no text
            tokens.append(f"[PAD{i}]")
            kinds.append(gguf.TokenType.UNUSED)
            continue
        is_control = text in control
        kinds.append(gguf.TokenType.CONTROL if is_control else gguf.TokenType.NORMAL)
        tokens.append(text if is_control else
                      text[2:] if text.startswith("##") else "\u2581" + text)
    return tokens, kinds, read_steps(source, options, tokenizer)


def add_sizes(out, source):
    config, keys = source.config, out.keys
    hidden, heads = source.number("hidden_size"), source.number("num_attention_heads")
    if hidden % (32 * heads) or source.number("intermediate_size") % 32:
        fail(f"heads of {hidden / heads:g} values, {config['intermediate_size']} within a layer: "
             "only multiples of 32 can be converted")
    keys.add_type("model")
    keys.add_name(source.name)
    keys.add_file_type(out.file_type)
    keys.add_quantization_version(gguf.GGML_QUANT_VERSION)

    return hidden, heads


def add_keys(out, source):
    hidden, heads = add_sizes(out, source)
    keys = out.keys
    keys.add_context_length(source.number("max_position_embeddings"))
    keys.add_embedding_length(hidden)
    keys.add_block_count(source.number("num_hidden_layers"))
    keys.add_feed_forward_length(source.number("intermediate_size"))
    keys.add_head_count(heads)
    keys.add_layer_norm_eps(source.number("layer_norm_eps"))
    keys.add_causal_attention(False)
    if rerank.is_reranker(source):
        rerank.add_keys(out, source)
    else:
        add_pooling(out, source)
    keys.add_token_type_count(source.number("type_vocab_size"))


def add_pooling(out, source, known=("mean", "cls")):
    keys = out.keys
    keys.add_pooling_type(POOLING[source.pooling(known)])
    prompts = source.prompts()
    if "passage" in prompts: # what embedmill calls a document
        prompts.setdefault("document", prompts.pop("passage"))
    if prompts:
        keys.add_array("embedmill.prompt.names", list(prompts))
        keys.add_array("embedmill.prompt.texts", list(prompts.values()))


def add_tokens(out, source, special=SPECIAL):
    keys = out.keys
    tokens, kinds, (lower, strip) = read_word_pieces(source, source.number("vocab_size"), special)
    keys.add_tokenizer_model("bert")
    keys.add_tokenizer_pre("default")
    is_usual = lower and strip and special == SPECIAL and "\u2581A" not in tokens
    if not is_usual: # what a file that does not say does
        keys.add_bool("tokenizer.ggml.normalizer.lowercase", lower)
        keys.add_bool("tokenizer.ggml.normalizer.strip_accents", strip)
    keys.add_token_list(tokens)
    keys.add_token_types(kinds)
    for text, add in zip(special, (keys.add_pad_token_id, keys.add_unk_token_id,
                                   keys.add_bos_token_id, keys.add_sep_token_id,
                                   keys.add_mask_token_id)):
        if text not in tokens:
            fail(f"the vocabulary has no {text}")
        add(tokens.index(text))


def add_tensors(out, source, prefixes, n_skipped=0):
    """n_skipped: rows of positions that no token has."""
    tensors = Tensors(source.model)
    prefix = tensors.prefix_of("embeddings.LayerNorm.weight", prefixes)
    for name, source_name in OUTER_TENSORS:
        values = tensors.load(prefix + source_name)
        out.add_tensor(name, values[n_skipped:] if name == "position_embd.weight" else values)
    for layer in range(source.config["num_hidden_layers"]):
        for name, source_name in BLOCK_TENSORS:
            for part in ("weight", "bias"):
                out.add_tensor(f"blk.{layer}.{name}.{part}",
                               tensors.load(f"{prefix}encoder.layer.{layer}.{source_name}.{part}"))


def convert(out, source, options):
    del options
    rerank.check_modules(source)
    source.expect({"hidden_act": "gelu", "position_embedding_type": "absolute",
                   "is_decoder": False})
    add_keys(out, source)
    if unigram_tokens.is_unigram(source.tokenizer_json()): # multilingual-e5-small
        source.refuse_lowering()
        unigram_tokens.add_tokens(out, source, source.number("vocab_size"))
    else:
        add_tokens(out, source)
    add_tensors(out, source, ["", "bert."])
    if rerank.is_reranker(source):
        rerank.add_head(out, source, {"cls": "bert.pooler.dense", "cls.output": "classifier"})
