"""WordPiece vocabularies in which case and accents count or do not, as GGUF files that hold nothing
else, and as tokenizer.json: published cased models are in no package."""

import random

import gguf
from tokenizers.implementations import BertWordPieceTokenizer
from tokenizers.processors import TemplateProcessing

import many_scripts
from check_tokenizer import clusters, message_catalogues, random_unicode

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SEED, SIZE = 20261130, 20000


def make(folder, lowercase, strip_accents):
    """Returns tokenizer.json and the model."""
    rng, ends = random.Random(SEED), SPECIAL[2:4]
    texts = [text.decode("utf-8", "replace")
             for some in (message_catalogues(), random_unicode(rng, 2000), clusters(rng, 2000))
             for text in some]
    tokenizer = BertWordPieceTokenizer(lowercase=lowercase, strip_accents=strip_accents)
    tokenizer.train_from_iterator([*texts, *many_scripts.texts()], vocab_size=SIZE,
                                  min_frequency=1, limit_alphabet=6000, show_progress=False)
    ids = tokenizer.get_vocab()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(text, ids[text]) for text in ends])
    name = folder / f"wordpiece-{lowercase:d}{strip_accents:d}"
    tokenizer.save(f"{name}.json")
    tokens = sorted(ids, key=ids.get)
    out = gguf.GGUFWriter(f"{name}.gguf", "bert")
    out.add_tokenizer_model("bert")
    out.add_token_list([text if text in SPECIAL else
                        text[2:] if text.startswith("##") else "\u2581" + text for text in tokens])
    out.add_token_types([gguf.TokenType.CONTROL if text in SPECIAL else gguf.TokenType.NORMAL
                         for text in tokens])
    out.add_bool("tokenizer.ggml.normalizer.lowercase", lowercase)
    out.add_bool("tokenizer.ggml.normalizer.strip_accents", strip_accents)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()
    return f"{name}.json", f"{name}.gguf"
