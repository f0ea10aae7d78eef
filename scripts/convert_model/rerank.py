"""Cross-encoders: a BERT or XLM-RoBERTa with a head that gives one score of query and text."""

import gguf

from .source import Tensors, fail, read_json

SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"

# Of tokenizer.json: the ends of a pair, and the type of each part.
PAIRS = (
    [("[CLS]", 0), ("A", 0), ("[SEP]", 0), ("B", 1), ("[SEP]", 1)],
    [("<s>", 0), ("A", 0), ("</s>", 0), ("</s>", 0), ("B", 0), ("</s>", 0)],
)


def is_reranker(source):
    return any(name.endswith("ForSequenceClassification")
               for name in source.config.get("architectures") or [])


def check_modules(source):
    source.check_modules({"Transformer"} if is_reranker(source)
                         else {"Transformer", "Pooling", "Normalize"})


def activation_of(source):
    """What sentence-transformers' CrossEncoder does with a score, of all forms it has been saved
    in; without a word, for one score, the logistic function."""
    path = source.folder / "config_sentence_transformers.json"
    own = read_json(path) if path.exists() else {}
    older = source.config.get("sentence_transformers") or {}
    return (own.get("activation_fn") or older.get("activation_fn")
            or source.config.get("sbert_ce_default_activation_function") or SIGMOID)


def check_pair(source):
    post = (source.tokenizer_json() or {}).get("post_processor") or {}
    kind = source.config.get("model_type")
    if post.get("type") == "RobertaProcessing" and kind == "bert":
        fail("tokenizer.json puts query and text together as RoBERTa does: such a BERT cannot be "
             "converted")
    if post.get("type") != "TemplateProcessing":
        return # BertProcessing and RobertaProcessing know no other pairs
    pair = [(part["id"], part["type_id"]) for step in post.get("pair", [])
            for part in step.values()]
    types = source.config.get("type_vocab_size", 1)
    if types == 1:
        pair = [(name, 0) for name, _ in pair]
    known = list(PAIRS[1:]) if kind == "roberta" else [*PAIRS]
    if types == 1 and kind != "roberta":
        known.append([(name, 0) for name, _ in PAIRS[0]])
    if pair not in known:
        fail("tokenizer.json puts query and text together in another way than BERT's and "
             "XLM-RoBERTa's: such models cannot be converted")


def add_keys(out, source):
    labels = source.config.get("num_labels", len(source.config.get("id2label") or "ab"))
    if labels != 1:
        fail(f"config.json has {labels} labels: of models with a classification head only "
             "rerankers, which give one score, can be converted")
    activation = activation_of(source)
    if activation not in (SIGMOID, IDENTITY):
        fail(f"scores go through {activation}: only Sigmoid and Identity can be converted")
    check_pair(source)
    out.keys.add_pooling_type(gguf.PoolingType.RANK)
    out.keys.add_bool("embedmill.rerank.sigmoid", activation == SIGMOID)


def add_head(out, source, names):
    tensors = Tensors(source.model)
    for name, source_name in names.items():
        for part in ("weight", "bias"):
            out.add_tensor(f"{name}.{part}", tensors.load(f"{source_name}.{part}"))
