/*
 * kafka_offsets.h: which offsets of one partition are under way, and up to where all is done.
 *
 * Owns:    the offsets given out of one assignment of one partition, in their order.
 * Refuses: Kafka; offsets are numbers here.
 * Threads: the loop thread.
 * Why:     Kafka keeps one number for a partition: everything below is done. Outputs are confirmed
 *          in any order, so the number that may be stored is the lowest one not done yet; one more
 *          and a crash would lose a message.
 */
#ifndef KAFKA_OFFSETS_H
#define KAFKA_OFFSETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zero is an empty one. */
struct kafka_offsets {
    struct kafka_offset *ring; /* [room], a power of two */
    size_t room, first, n;     /* n: not forgotten yet, from first on */
    size_t n_begun;            /* of those, the first so many are in a transaction */
    int64_t next;              /* one behind the last one taken; 0: none yet */
};

void kafka_offsets_close(struct kafka_offsets *offsets);

/* Given out. 0; -ENOMEM; -EINVAL: not above all before, so this is not the same log any more. */
int kafka_offsets_take(struct kafka_offsets *offsets, int64_t offset);
/* Nothing is left to be read below `next`: what is between was no message. */
void kafka_offsets_skip(struct kafka_offsets *offsets, int64_t next);
/* Its output is confirmed. An offset that is not under way is our own mistake (assert). */
void kafka_offsets_done(struct kafka_offsets *offsets, int64_t offset);
/* Everything below this is done; -1 while nothing was taken or skipped. */
int64_t kafka_offsets_lowest(const struct kafka_offsets *offsets);

/*
 * For transactions, which commit a prefix: may this offset join, that is, have all before it?
 * Then it has joined, until all that did are done (committed) or are under way again.
 */
bool kafka_offsets_begin(struct kafka_offsets *offsets, int64_t offset);
void kafka_offsets_end(struct kafka_offsets *offsets, bool committed);
/* What committing all that joined amounts to; -1 when none did. */
int64_t kafka_offsets_begun(const struct kafka_offsets *offsets);

#endif
