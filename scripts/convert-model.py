#!/usr/bin/env python3
"""Turn a sentence-transformers folder into a GGUF file for embedmill.

Usage: convert-model.py [--type q8_0|q4_0|bf16|f16|f32] [--name NAME] FOLDER OUT.gguf

FOLDER is as any version of sentence-transformers or transformers has saved it, or as the model was
published. Which kind of model it is says model_type in its config.json:
  gemma3_text  EmbeddingGemma 300M and what was trained from it, with its two dense layers
  embedding_gemma2
               EmbeddingGemma 2, the text part of it
  bert         a BERT (all-MiniLM, bge, e5, gte, snowflake-arctic-embed, mxbai-embed),
               multilingual-e5-small, ms-marco-MiniLM
  distilbert   multi-qa-distilbert, msmarco-distilbert
  roberta      all-distilroberta-v1, Granite Embedding R1 (English)
  xlm-roberta  multilingual-e5-base and -large, bge-m3, paraphrase-multilingual-MiniLM, bge-reranker
  mpnet        all-mpnet-base-v2, multi-qa-mpnet-base
  nomic_bert   nomic-embed-text v1 and v1.5, snowflake-arctic-embed-m-long
  gte, new     gte-multilingual-base, gte-base-en-v1.5, gte-large-en-v1.5,
               snowflake-arctic-embed-m-v2.0, gte-multilingual-reranker-base
  modernbert   gte-modernbert-base, Granite Embedding R2 (English), modernbert-embed
  qwen3        Qwen3-Embedding 0.6B
Weights may be float32, float16 or bfloat16, in one file or several. Matrices are stored as Q8_0
(blocks of 32 values with one half precision scale) or what --type says, norms, biases and positions
as float32. Names, keys, types and vocabulary are those of llama.cpp's own conversion, so the file
also runs there, but for MPNet, GTE and EmbeddingGemma 2, which llama.cpp does not read.

The file appears under its name only when it is complete.
"""

import argparse
import os
import sys
from pathlib import Path

sys.dont_write_bytecode = True # the folder of scripts may be read-only, or an image's

# pylint: disable=wrong-import-position
from convert_model import (bert, distilbert, gemma, gemma2, gte, modernbert, mpnet, nomic, qwen3,
                           roberta, xlm_roberta)
from convert_model.output import TYPES, Output
from convert_model.source import Source, fail

KINDS = { # by model_type
    "gemma3_text": gemma, "embedding_gemma2": gemma2, "embedding_gemma2_text": gemma2,
    "bert": bert, "distilbert": distilbert, "roberta": roberta, "xlm-roberta": xlm_roberta,
    "mpnet": mpnet, "nomic_bert": nomic, "gte": gte, "new": gte, "modernbert": modernbert,
    "qwen3": qwen3}


def convert(options):
    source = Source(options.folder, options.name)
    kind = KINDS.get(source.config.get("model_type"))
    if not kind:
        fail(f"config.json has model_type = {source.config.get('model_type')!r}: only "
             f"{', '.join(KINDS)} can be converted")
    if kind not in (bert, distilbert, mpnet, nomic, gte): # which have a tokenizer that can do it
        source.refuse_lowering()
    partial = options.out.with_name(f".{options.out.name}.{os.getpid()}.partial")
    out = Output(partial, kind.ARCHITECTURE, options.type)
    try:
        kind.convert(out, source, options)
        out.finish()
        with open(partial, "rb") as f:
            os.fsync(f.fileno())
        os.replace(partial, options.out)
    finally:
        partial.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(
        description="Turn a sentence-transformers folder into a GGUF file.")
    parser.add_argument("--type", choices=TYPES, default="q8_0", help="of matrices")
    parser.add_argument("--name", help="of the model in the file (default: the folder's)")
    parser.add_argument("--without-dense", action="store_true",
                        help="convert an EmbeddingGemma that was trained without dense layers")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    if not options.folder.is_dir():
        fail(f"{options.folder} is not a folder")
    convert(options)


if __name__ == "__main__":
    main()
