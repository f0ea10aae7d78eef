/*
 * bench_texts.c: texts to measure with. See bench.h.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "worker/commands/bench.h"

enum { WORD_MAX = 12 };

static const char *const words[] = {
    "the",     "river",   "is",      "slow",     "in",      "summer", "and",    "boats",
    "wait",    "for",     "rain",    "a",        "library", "that",   "reads",  "files",
    "server",  "which",   "answers", "many",     "small",   "queue",  "of",     "messages",
    "between", "two",     "towns",   "mountain", "road",    "was",    "closed", "after",
    "storm",   "engine",  "needs",   "new",      "parts",   "before", "winter", "package",
    "with",    "tools",   "to",      "draw",     "maps",    "from",   "old",    "letters",
    "she",     "wrote",   "about",   "bridges",  "their",   "cost",   "grows",  "every",
    "year",    "network", "without", "wires",    "keeps",   "its",    "clock",  "exact",
};

enum { N_WORDS = sizeof words / sizeof *words };

static uint64_t random_next(uint64_t *state) /* xorshift64*, Vigna 2016 */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 2685821657736338717u;
}

/* All these words are one token each in the model's vocabulary. */
static int text_make(struct bench_texts *out, size_t n_words, uint64_t *state)
{
    char *text = malloc((n_words + 1) * WORD_MAX), *end = text;
    if (!text)
        return -ENOMEM;
    for (size_t i = 0; i < n_words; i++)
        end += sprintf(end, "%s%s", i ? " " : "", words[(random_next(state) >> 32) % N_WORDS]);
    *end = '\0';
    out->texts[out->n++] = (struct text){text, (size_t)(end - text)};
    return 0;
}

int bench_texts_make(struct bench_texts *out, size_t n, size_t n_tokens)
{
    uint64_t state = 20261 + n_tokens;
    const size_t around = 8; /* tokens of the document prompt, bos and eos */
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < n && i < BENCH_TEXTS_MAX; i++)
        if (text_make(out, n_tokens > around ? n_tokens - around : 1, &state) != 0) {
            bench_texts_close(out);
            return -ENOMEM;
        }
    return 0;
}

/* 3 to 300 words, spread evenly over the logarithm, the short half twice as often. */
int bench_texts_make_mixed(struct bench_texts *out)
{
    uint64_t state = 20261;
    memset(out, 0, sizeof *out);
    while (out->n < BENCH_TEXTS) {
        double at = (double)(random_next(&state) >> 11) * 0x1p-53;
        size_t n_words = (size_t)(3 * exp(at * at * log(100)));
        if (text_make(out, n_words, &state) != 0) {
            bench_texts_close(out);
            return -ENOMEM;
        }
    }
    return 0;
}

/* A batch embeds equal texts once; as work they would be counted each. */
static bool is_known(const struct bench_texts *texts, const char *text, size_t len)
{
    for (size_t i = 0; i < texts->n; i++)
        if (texts->texts[i].len == len && memcmp(texts->texts[i].ptr, text, len) == 0)
            return true;
    return false;
}

static int read_lines(struct bench_texts *out, FILE *from)
{
    char *line = NULL;
    size_t room = 0;
    int rc = 0;
    for (ssize_t len; rc == 0 && out->n < BENCH_TEXTS && (len = getline(&line, &room, from)) > 0;) {
        len -= line[len - 1] == '\n';
        if (len == 0 || is_known(out, line, (size_t)len))
            continue;
        char *copy = strndup(line, (size_t)len);
        if (copy)
            out->texts[out->n++] = (struct text){copy, strlen(copy)};
        else
            rc = -ENOMEM;
    }
    if (rc == 0 && ferror(from))
        rc = -EIO;
    free(line);
    return rc;
}

int bench_texts_read(struct bench_texts *out, const char *path)
{
    bool is_stdin = strcmp(path, "-") == 0;
    memset(out, 0, sizeof *out);
    FILE *from = is_stdin ? stdin : fopen(path, "re");
    if (!from)
        return -errno;
    int rc = read_lines(out, from);
    if (!is_stdin)
        fclose(from);
    if (rc == 0 && out->n == 0)
        rc = -ENODATA;
    if (rc != 0)
        bench_texts_close(out);
    return rc;
}

void bench_texts_close(struct bench_texts *texts)
{
    for (size_t i = 0; i < texts->n; i++)
        free((char *)texts->texts[i].ptr);
    texts->n = 0;
}
