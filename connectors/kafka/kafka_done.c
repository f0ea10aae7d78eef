/*
 * kafka_done.c: see kafka_done.h.
 */
#include "connectors/kafka/kafka_done.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

void kafka_done_open(struct kafka_done *done, int64_t base, const char *text, size_t len)
{
    char copy[KAFKA_DONE_SIZE];
    struct kafka_range range;
    int used;
    *done = (struct kafka_done){.base = base, .seen = -1};
    /* Not ours, or cut: what is longer than we write is taken for nothing. */
    snprintf(copy, sizeof copy, "%.*s", len < sizeof copy ? (int)len : 0, text);
    for (const char *at = copy; done->n_before < KAFKA_DONE_MAX; at += used) {
        used = 0;
        if (sscanf(at, "%" SCNd64 "-%" SCNd64 ",%n", &range.from, &range.to, &used) != 2 || !used)
            return;
        done->before[done->n_before++] = range;
    }
}

bool kafka_done_has(const struct kafka_done *done, int64_t offset)
{
    if (offset < done->base)
        return true;
    for (size_t i = 0; i < done->n_before; i++)
        if (offset >= done->before[i].from && offset < done->before[i].to)
            return true;
    return false;
}

void kafka_done_meet(struct kafka_done *done, int64_t offset)
{
    assert(offset > done->seen);
    /* Neither done nor undone yet: note or pass follows. */
    done->seen = offset;
}

/* What lies between two that were met (gaps of compaction, marks of transactions) is as done as
 * the first of them. */
void kafka_done_note(struct kafka_done *done)
{
    if (!done->has_undone)
        done->base = done->seen + 1;
    else if (done->is_last_done)
        done->now[done->n_now - 1].to = done->seen + 1;
    else
        done->now[done->n_now++] = (struct kafka_range){done->seen, done->seen + 1};
    done->is_last_done = true;
}

void kafka_done_pass(struct kafka_done *done)
{
    done->has_undone = true;
    done->is_last_done = false;
}

/* Of this run, and older ones that it has not come to. */
static size_t collect(const struct kafka_done *done, struct kafka_range out[2 * KAFKA_DONE_MAX + 1])
{
    size_t n = 0;
    for (size_t i = 0; i < done->n_now; i++)
        out[n++] = done->now[i];
    for (size_t i = 0; i < done->n_before; i++) {
        struct kafka_range range = done->before[i];
        if (range.from <= done->seen)
            /* This run has looked at all up to there, and says by itself what is done of it. */
            range.from = done->seen + 1;
        if (range.from < range.to)
            out[n++] = range;
    }
    return n;
}

bool kafka_done_has_room(const struct kafka_done *done)
{
    struct kafka_range ranges[2 * KAFKA_DONE_MAX + 1];
    return !done->has_undone || done->is_last_done || collect(done, ranges) < KAFKA_DONE_MAX;
}

void kafka_done_print(const struct kafka_done *done, char out[KAFKA_DONE_SIZE])
{
    struct kafka_range ranges[2 * KAFKA_DONE_MAX + 1];
    size_t n = collect(done, ranges), len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < n; i++)
        len += (size_t)snprintf(out + len, KAFKA_DONE_SIZE - len, "%" PRId64 "-%" PRId64 ",",
                                ranges[i].from, ranges[i].to);
}
