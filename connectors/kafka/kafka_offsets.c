/*
 * kafka_offsets.c: see kafka_offsets.h. A ring in the order of offsets, so that finding one is a
 * binary search and what is done at the front is forgotten at once.
 */
#include "connectors/kafka/kafka_offsets.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct kafka_offset {
    int64_t at;
    bool done;
};

static struct kafka_offset *nth(const struct kafka_offsets *offsets, size_t i)
{
    return &offsets->ring[(offsets->first + i) & (offsets->room - 1)];
}

void kafka_offsets_close(struct kafka_offsets *offsets)
{
    free(offsets->ring);
    memset(offsets, 0, sizeof *offsets);
}

static int grow(struct kafka_offsets *offsets)
{
    size_t room = offsets->room ? 2 * offsets->room : 64;
    struct kafka_offset *ring = calloc(room, sizeof *ring);
    if (!ring)
        return -ENOMEM;
    for (size_t i = 0; i < offsets->n; i++)
        /* In order from 0 on: the ring may have gone round its end. */
        ring[i] = *nth(offsets, i);
    free(offsets->ring);
    offsets->ring = ring;
    offsets->room = room;
    offsets->first = 0;
    return 0;
}

int kafka_offsets_take(struct kafka_offsets *offsets, int64_t offset)
{
    /* Offsets of one log only rise; gaps are compaction's and transactions'. */
    if (offset < offsets->next)
        return -EINVAL;
    assert(offsets->n <= offsets->room);
    if (offsets->n == offsets->room && grow(offsets))
        return -ENOMEM;
    offsets->n++;
    *nth(offsets, offsets->n - 1) = (struct kafka_offset){offset, false};
    offsets->next = offset + 1;
    return 0;
}

void kafka_offsets_skip(struct kafka_offsets *offsets, int64_t next)
{
    if (next > offsets->next)
        offsets->next = next;
}

/* The index of an offset under way. */
static size_t find(const struct kafka_offsets *offsets, int64_t offset)
{
    size_t low = 0, high = offsets->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (nth(offsets, middle)->at < offset)
            low = middle + 1;
        else
            high = middle;
    }
    assert(low < offsets->n && nth(offsets, low)->at == offset);
    return low;
}

static void forget(struct kafka_offsets *offsets)
{
    while (offsets->n && nth(offsets, 0)->done) {
        offsets->first++;
        assert(offsets->n > 0);
        offsets->n--;
    }
}

void kafka_offsets_done(struct kafka_offsets *offsets, int64_t offset)
{
    struct kafka_offset *found = nth(offsets, find(offsets, offset));
    assert(!found->done);
    found->done = true;
    forget(offsets);
}

int64_t kafka_offsets_lowest(const struct kafka_offsets *offsets)
{
    if (offsets->n)
        return nth(offsets, 0)->at;
    /* Nothing is under way: all that was read is done. */
    return offsets->next ? offsets->next : -1;
}

bool kafka_offsets_begin(struct kafka_offsets *offsets, int64_t offset)
{
    if (offsets->n_begun == offsets->n || nth(offsets, offsets->n_begun)->at != offset)
        return false;
    offsets->n_begun++;
    return true;
}

void kafka_offsets_end(struct kafka_offsets *offsets, bool committed)
{
    if (committed)
        for (size_t i = 0; i < offsets->n_begun; i++)
            nth(offsets, i)->done = true;
    offsets->n_begun = 0;
    forget(offsets);
}

int64_t kafka_offsets_begun(const struct kafka_offsets *offsets)
{
    if (!offsets->n_begun)
        return -1;
    if (offsets->n_begun == offsets->n)
        /* All that was read: the gap behind the last one is committed with it. */
        return offsets->next;
    return nth(offsets, offsets->n_begun - 1)->at + 1;
}
