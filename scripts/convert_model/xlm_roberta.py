"""XLM-RoBERTa: multilingual-e5-base and -large, bge-m3 (dense vectors), paraphrase-multilingual,
and rerankers like bge-reranker-v2-m3.

A BERT whose positions begin behind the padding token's, with a tokenizer of its own. The rows of
positions that no token has are left out, so that readers of the file count from 0."""

from . import bert, rerank
from .source import fail
from .unigram_tokens import add_tokens, is_unigram

ARCHITECTURE = "bert"


def convert(out, source, options):
    del options
    rerank.check_modules(source)
    source.expect({"hidden_act": "gelu", "position_embedding_type": "absolute",
                   "is_decoder": False})
    if not is_unigram(source.tokenizer_json()):
        fail("there is no tokenizer.json with a unigram vocabulary: save the model again together "
             "with its tokenizer")
    n_skipped = source.config.get("pad_token_id", 1) + 1
    source.config["max_position_embeddings"] = source.number("max_position_embeddings") - n_skipped
    bert.add_keys(out, source)
    add_tokens(out, source, source.number("vocab_size"))
    bert.add_tensors(out, source, ["", "roberta.", "xlm_roberta."], n_skipped)
    if rerank.is_reranker(source):
        rerank.add_head(out, source, {"cls": "classifier.dense",
                                      "cls.output": "classifier.out_proj"})
