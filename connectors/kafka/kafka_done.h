/*
 * kafka_done.h: which offsets of a partition are dealt with, when it is not simply all below one.
 *
 * Owns:    the base below which all is done, the ranges done above it, their form as text.
 * Refuses: where the text is kept: kafka_dead_letters.c.
 * Threads: no state.
 * Why:     a group has one offset for each partition, and room for a text beside it.
 */
#ifndef KAFKA_DONE_H
#define KAFKA_DONE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KAFKA_DONE_MAX  96   /* ranges ... */
#define KAFKA_DONE_SIZE 4096 /* ... whose text fits into what brokers keep beside an offset */

struct kafka_range {
    int64_t from, to; /* [from, to) */
};

/* Zero-initialise, then kafka_done_open. */
struct kafka_done {
    int64_t base;
    int64_t seen;           /* the offset met last in this run; -1: none */
    bool has_undone;        /* one that was met stays undone ... */
    bool is_last_done;      /* ... but the last one is done */
    size_t n_before, n_now; /* ranges known before this run; found or made by it */
    struct kafka_range before[KAFKA_DONE_MAX], now[KAFKA_DONE_MAX + 1];
};

/* text: what kafka_done_print wrote, or nothing. What is not such a text counts as nothing. */
void kafka_done_open(struct kafka_done *done, int64_t base, const char *text, size_t len);
/* Whether it was done before this run. */
bool kafka_done_has(const struct kafka_done *done, int64_t offset);

/* Each offset of a run is met once, in order, and then is done or stays undone. */
void kafka_done_meet(struct kafka_done *done, int64_t offset);
void kafka_done_note(struct kafka_done *done); /* the one met last is done */
void kafka_done_pass(struct kafka_done *done); /* it is not */
/* False: noting the one met last would need one range too many. */
bool kafka_done_has_room(const struct kafka_done *done);

void kafka_done_print(const struct kafka_done *done, char out[KAFKA_DONE_SIZE]);

#endif
