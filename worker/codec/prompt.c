/*
 * prompt.c: see prompt.h.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include "worker/codec/prompt.h"

#include <stdbool.h>
#include <string.h>

static const struct prompt none = {"none", "", NULL};

static const struct {
    const char *name, *means;
} names[] = {
    {"document", "document"},
    {"query", "query"},
    {"question_answering", "question_answering"},
    {"fact_checking", "fact_checking"},
    {"classification", "classification"},
    {"clustering", "clustering"},
    {"sentence_similarity", "sentence_similarity"},
    {"code_retrieval", "code_retrieval"},
    {"summarization", "summarization"},
    {"none", "none"},
    {"passage", "document"},
    {"Retrieval", "query"},
    {"Retrieval-query", "query"},
    {"Retrieval-document", "document"},
    {"Reranking", "query"},
    {"BitextMining", "query"},
    {"MultilabelClassification", "classification"},
    {"PairClassification", "sentence_similarity"},
    {"STS", "sentence_similarity"},
    {"InstructionRetrieval", "code_retrieval"},
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

static const char *meaning(struct bytes name)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (is_named(name, names[i].name))
            return names[i].means;
    return NULL;
}

bool prompt_is_known(struct bytes name)
{
    return meaning(name) != NULL;
}

const struct prompt *prompt_find(const struct model_info *info, struct bytes name)
{
    const char *means = meaning(name);
    if (!means)
        return NULL;
    for (const struct prompt *p = info->prompts; p && p->name; p++)
        if (strcmp(p->name, means) == 0)
            return p;
    return &none;
}

const char *prompt_missing(const struct model_info *info, struct bytes name)
{
    const char *means = meaning(name);
    if (!means || prompt_find(info, name) != &none || strcmp(means, "none") == 0 ||
        strcmp(means, "document") == 0)
        return NULL;
    return means;
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
        /* As the model card has it for texts without a title. */
        if (title.len == 0)
            title = (struct bytes){"none", 4};
        at = append(out, size, at, title.ptr, title.len);
        at = append(out, size, at, prompt->between, strlen(prompt->between));
    }
    return append(out, size, at, text.ptr, text.len);
}

/* The length of words without the white space at their end, which may be missing in a text. */
static size_t words_len(const char *words)
{
    size_t len = strlen(words);
    while (len && (words[len - 1] == ' ' || words[len - 1] == '\n'))
        len--;
    return len;
}

static bool has_words(const struct prompt *prompt, struct bytes text)
{
    enum { LEAST = 3, TITLE_MAX = 1000 };
    size_t len = words_len(prompt->lead);
    if (len < LEAST || text.len < len || memcmp(text.ptr, prompt->lead, len) != 0)
        return false;
    /* A title stands between the two halves; in a whole book the second might be found by
     * chance. */
    size_t rest = text.len - len < TITLE_MAX ? text.len - len : TITLE_MAX;
    return !prompt->between ||
           memmem(text.ptr + len, rest, prompt->between, words_len(prompt->between));
}

const struct prompt *prompt_doubled(const struct model_info *info, const struct prompt *prompt,
                                    struct bytes text)
{
    if (!prompt->lead[0])
        return NULL;
    for (const struct prompt *p = info->prompts; p && p->name; p++)
        if (has_words(p, text))
            return p;
    return NULL;
}
