/*
 * catalog.c: see catalog.h.
 */
#include "worker/config/catalog.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define MANY "many"

/* Sizes are 34 bytes for each 32 parameters. */
const struct catalog_model catalog[] = {
    {"embeddinggemma-300m", "embeddinggemma-300m-q8_0.gguf", false, 768, 2048, 333, "Gemma", MANY,
     "scripts/get-model", "google/embeddinggemma-300m"},
    {"embeddinggemma-2", "embeddinggemma-2-q8_0.gguf", false, 768, 8192, 310, "Apache-2.0", MANY,
     "scripts/get-model --model embeddinggemma-2", "google/embeddinggemma-2"},
    {"all-minilm-l6-v2", "all-minilm-l6-v2-q8_0.gguf", false, 384, 512, 25, "Apache-2.0", "English",
     "scripts/get-minilm", "sentence-transformers/all-MiniLM-L6-v2"},
    {"all-mpnet-base-v2", "all-mpnet-base-v2-q8_0.gguf", false, 768, 512, 116, "Apache-2.0",
     "English", NULL, "sentence-transformers/all-mpnet-base-v2"},
    {"bge-small-en-v1.5", "bge-small-en-v1.5-q8_0.gguf", false, 384, 512, 36, "MIT", "English",
     NULL, "BAAI/bge-small-en-v1.5"},
    {"nomic-embed-text-v1.5", "nomic-embed-text-v1.5-q8_0.gguf", false, 768, 2048, 145,
     "Apache-2.0", "English", NULL, "nomic-ai/nomic-embed-text-v1.5"},
    {"snowflake-arctic-embed-s", "snowflake-arctic-embed-s-q8_0.gguf", false, 384, 512, 36,
     "Apache-2.0", "English", NULL, "Snowflake/snowflake-arctic-embed-s"},
    {"mxbai-embed-large-v1", "mxbai-embed-large-v1-q8_0.gguf", false, 1024, 512, 356, "Apache-2.0",
     "English", NULL, "mixedbread-ai/mxbai-embed-large-v1"},
    {"multilingual-e5-small", "multilingual-e5-small-q8_0.gguf", false, 384, 512, 125, "MIT", MANY,
     NULL, "intfloat/multilingual-e5-small"},
    {"multilingual-e5-base", "multilingual-e5-base-q8_0.gguf", false, 768, 512, 295, "MIT", MANY,
     NULL, "intfloat/multilingual-e5-base"},
    {"multilingual-e5-large", "multilingual-e5-large-q8_0.gguf", false, 1024, 512, 595, "MIT", MANY,
     NULL, "intfloat/multilingual-e5-large"},
    {"bge-m3", "bge-m3-q8_0.gguf", false, 1024, 8192, 604, "MIT", MANY, NULL, "BAAI/bge-m3"},
    {"paraphrase-multilingual-minilm-l12-v2", "paraphrase-multilingual-minilm-l12-v2-q8_0.gguf",
     false, 384, 512, 125, "Apache-2.0", MANY, NULL,
     "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"},
    {"gte-multilingual-base", "gte-multilingual-base-q8_0.gguf", false, 768, 8192, 325,
     "Apache-2.0", MANY, NULL, "Alibaba-NLP/gte-multilingual-base"},
    {"gte-base-en-v1.5", "gte-base-en-v1.5-q8_0.gguf", false, 768, 8192, 145, "Apache-2.0",
     "English", NULL, "Alibaba-NLP/gte-base-en-v1.5"},
    {"gte-modernbert-base", "gte-modernbert-base-q8_0.gguf", false, 768, 8192, 159, "Apache-2.0",
     "English", NULL, "Alibaba-NLP/gte-modernbert-base"},
    {"granite-embedding-english-r2", "granite-embedding-english-r2-q8_0.gguf", false, 768, 8192,
     159, "Apache-2.0", "English", NULL, "ibm-granite/granite-embedding-english-r2"},
    {"granite-embedding-small-english-r2", "granite-embedding-small-english-r2-q8_0.gguf", false,
     384, 8192, 51, "Apache-2.0", "English", NULL,
     "ibm-granite/granite-embedding-small-english-r2"},
    {"qwen3-embedding-0.6b", "qwen3-embedding-0.6b-q8_0.gguf", false, 1024, 8192, 633, "Apache-2.0",
     MANY, NULL, "Qwen/Qwen3-Embedding-0.6B"},
    {"ms-marco-minilm-l6-v2", "ms-marco-minilm-l6-v2-q8_0.gguf", true, 1, 512, 25, "Apache-2.0",
     "English", NULL, "cross-encoder/ms-marco-MiniLM-L6-v2"},
    {"bge-reranker-v2-m3", "bge-reranker-v2-m3-q8_0.gguf", true, 1, 8192, 604, "Apache-2.0", MANY,
     NULL, "BAAI/bge-reranker-v2-m3"},
    {NULL, NULL, false, 0, 0, 0, NULL, NULL, NULL, NULL},
};

const struct catalog_model *catalog_find(const char *name)
{
    for (const struct catalog_model *model = catalog; model->name; model++)
        if (strcasecmp(model->name, name) == 0)
            return model;
    return NULL;
}

const struct catalog_model *catalog_of_file(const char *path)
{
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
    for (const struct catalog_model *model = catalog; model->name; model++)
        if (strcmp(model->file, file) == 0)
            return model;
    return NULL;
}

void catalog_advise(const struct catalog_model *model, const char *path, char *out, size_t size)
{
    if (model->script)
        snprintf(out, size, "fetch it with %s", model->script);
    else
        snprintf(out, size,
                 "fetch the folder huggingface.co/%s and run scripts/convert-model.py FOLDER %s",
                 model->repository, path);
}
