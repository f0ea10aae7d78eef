/*
 * prompt.c: see prompt.h. The strings are those of the model card and of the model's
 * config_sentence_transformers.json, space by space.
 */
#include "worker/prompt.h"

#include <stdbool.h>
#include <string.h>

enum {
    DOCUMENT,
    QUERY,
    QUESTION_ANSWERING,
    FACT_CHECKING,
    CLASSIFICATION,
    CLUSTERING,
    SENTENCE_SIMILARITY,
    CODE_RETRIEVAL,
    SUMMARIZATION,
    NONE,
};

static const struct prompt prompts[] = {
    [DOCUMENT] = {"document", "title: ", " | text: "},
    [QUERY] = {"query", "task: search result | query: ", NULL},
    [QUESTION_ANSWERING] = {"question_answering", "task: question answering | query: ", NULL},
    [FACT_CHECKING] = {"fact_checking", "task: fact checking | query: ", NULL},
    [CLASSIFICATION] = {"classification", "task: classification | query: ", NULL},
    [CLUSTERING] = {"clustering", "task: clustering | query: ", NULL},
    [SENTENCE_SIMILARITY] = {"sentence_similarity", "task: sentence similarity | query: ", NULL},
    [CODE_RETRIEVAL] = {"code_retrieval", "task: code retrieval | query: ", NULL},
    [SUMMARIZATION] = {"summarization", "task: summarization | query: ", NULL},
    [NONE] = {"none", "", NULL},
};

static const struct {
    const char *name;
    int is;
} aliases[] = {
    {"Retrieval", QUERY},
    {"Retrieval-query", QUERY},
    {"Retrieval-document", DOCUMENT},
    {"Reranking", QUERY},
    {"BitextMining", QUERY},
    {"MultilabelClassification", CLASSIFICATION},
    {"PairClassification", SENTENCE_SIMILARITY},
    {"STS", SENTENCE_SIMILARITY},
    {"InstructionRetrieval", CODE_RETRIEVAL},
};

static char fold(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c - 'A' + 'a');
    return c == '-' ? '_' : c;
}

static bool is_named(struct bytes given, const char *name)
{
    if (given.len != strlen(name))
        return false;
    for (size_t i = 0; i < given.len; i++)
        if (fold(given.ptr[i]) != fold(name[i]))
            return false;
    return true;
}

const struct prompt *prompt_find(struct bytes name)
{
    for (size_t i = 0; i < sizeof prompts / sizeof prompts[0]; i++)
        if (is_named(name, prompts[i].name))
            return &prompts[i];
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++)
        if (is_named(name, aliases[i].name))
            return &prompts[aliases[i].is];
    return NULL;
}

const char *prompt_names(void)
{
    return "document, query, question_answering, fact_checking, classification, clustering, "
           "sentence_similarity, code_retrieval, summarization, none";
}

static size_t append(char *out, size_t size, size_t at, const char *from, size_t len)
{
    if (at < size && len)
        memcpy(out + at, from, len < size - at ? len : size - at);
    return at + len;
}

size_t prompt_render(const struct prompt *prompt, struct bytes title, struct bytes text, char *out,
                     size_t size)
{
    size_t at = append(out, size, 0, prompt->lead, strlen(prompt->lead));
    if (prompt->between) {
        if (title.len == 0)
            title = (struct bytes){"none", 4};
        at = append(out, size, at, title.ptr, title.len);
        at = append(out, size, at, prompt->between, strlen(prompt->between));
    }
    return append(out, size, at, text.ptr, text.len);
}
