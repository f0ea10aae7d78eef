/*
 * migrate_steps.c: see migrate_steps.h.
 */
#include "worker/commands/migrate_steps.h"

#include <stdio.h>
#include <string.h>

#include "worker/telemetry/log.h"

enum { SAMPLE_TEXTS = 256, SAMPLE_EVERY_MIN = 2 };
#define LEAST_COSINE 0.999

size_t migrate_sample_every(size_t texts)
{
    size_t every = texts / SAMPLE_TEXTS;
    return every < SAMPLE_EVERY_MIN ? SAMPLE_EVERY_MIN : every;
}

int migrate_fail(int code, const char *why)
{
    log_event(LOG_ERROR, "cannot migrate", LOG_TEXT("error", why));
    return code;
}

int migrate_set(struct options *options, const char *name, const char *value)
{
    char err[300];
    if (options_set(options, name, value, ORIGIN_FLAG, "migrate", err, sizeof err) == 0)
        return COMMAND_OK;
    return migrate_fail(COMMAND_INTERNAL, err);
}

int migrate_set_default(struct options *options, const char *name, const char *value,
                        const char *place, char *err, size_t err_size)
{
    return options_origin(options, name) != ORIGIN_DEFAULT
               ? 0
               : options_set(options, name, value, ORIGIN_DEFAULT, place, err, err_size);
}

int migrate_set_chunks(struct options *options, const char *line, const char *place, char *err,
                       size_t err_size)
{
    size_t n_tokens, overlap;
    char number[24];
    if (sscanf(line, "%zu, %zu", &n_tokens, &overlap) != 2 &&
        sscanf(line, "%zu tokens, %zu", &n_tokens, &overlap) != 2)
        return 0;
    snprintf(number, sizeof number, "%zu", n_tokens);
    int rc = migrate_set_default(options, "chunk_tokens", number, place, err, err_size);
    snprintf(number, sizeof number, "%zu", overlap);
    if (rc == 0)
        rc = migrate_set_default(options, "chunk_overlap", number, place, err, err_size);
    if (rc == 0 && strstr(line, "by headings"))
        rc = migrate_set_default(options, "chunk_by", "markdown", place, err, err_size);
    return rc;
}

void migrate_log_estimate(size_t texts, const struct pipeline_stats *stats, double seconds)
{
    /* The sample stands for all: the same mix of lengths is assumed. */
    double factor = (double)texts / (double)(stats->messages ? stats->messages : 1);
    log_event(LOG_INFO, "estimate", LOG_INTEGER("texts", texts),
              LOG_REAL("vectors", (double)stats->texts * factor),
              LOG_REAL("tokens", (double)stats->tokens * factor),
              LOG_REAL("tokens_per_second", (double)stats->computed_tokens / seconds),
              LOG_REAL("hours", seconds * factor / 3600), LOG_INTEGER("sampled", stats->messages));
}

int migrate_judge(const char *old, const char *fresh, const char *errors, const struct verified *is)
{
    char err[1000];
    log_event(
        LOG_INFO, "compared", LOG_INTEGER("texts_before", is->texts_before),
        LOG_INTEGER("texts_after", is->texts_after), LOG_INTEGER("missing", is->missing),
        LOG_INTEGER("added", is->added), LOG_INTEGER("vectors", is->vectors),
        LOG_INTEGER("embedded_twice", is->sampled), LOG_REAL("least_cosine", is->least_cosine),
        LOG_INTEGER("neighbours_of", is->n_queries), LOG_REAL("neighbours_kept", is->overlap));
    if (is->missing > 0) {
        snprintf(err, sizeof err,
                 "%zu texts of %.100s are not in %.100s, as %.60s: the corpus does not have them "
                 "any more, or %.100s says why not. Complete the corpus, or make an "
                 "index of its own with `embedmill index`",
                 is->missing, old, fresh, is->missing_id, errors);
        return migrate_fail(COMMAND_DATA, err);
    }
    if (is->not_found > 0 || is->least_cosine < LEAST_COSINE ||
        (is->sampled == 0 && is->vectors > 0)) {
        snprintf(err, sizeof err,
                 "%.200s does not hold what embedding the corpus gives (a second embedding of %zu "
                 "texts: least cosine %.6f, %zu not found): remove it, and check memory and disk",
                 fresh, is->sampled, is->least_cosine, is->not_found);
        return migrate_fail(COMMAND_DATA, err);
    }
    return COMMAND_OK;
}
