"""RoBERTa: all-distilroberta-v1, all-roberta-large-v1, Granite Embedding R1 (English), and
rerankers. An XLM-RoBERTa with the tokenizer of GPT-2."""

from . import bert, rerank
from .byte_tokens import add_tokens
from .source import fail

ARCHITECTURE = "bert"


def convert(out, source, options):
    del options
    rerank.check_modules(source)
    source.expect({"hidden_act": "gelu", "position_embedding_type": "absolute",
                   "is_decoder": False})
    n_skipped = source.config.get("pad_token_id", 1) + 1
    source.config["max_position_embeddings"] = source.number("max_position_embeddings") - n_skipped
    bert.add_keys(out, source)
    before, _ = add_tokens(out, source, source.number("vocab_size"), is_roberta=True)
    if before is None:
        fail("tokenizer.json puts no token before a text: such models cannot be converted")
    bert.add_tensors(out, source, ["", "roberta."], n_skipped)
    if rerank.is_reranker(source):
        rerank.add_head(out, source, {"cls": "classifier.dense",
                                      "cls.output": "classifier.out_proj"})
