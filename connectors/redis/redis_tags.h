/*
 * redis_tags.h: are the keys of a worker in one hash slot of the cluster?
 *
 * Owns:    the slot of all keys that one connection uses, and the sentence that shows which names
 *          to use when there is none.
 * Refuses: keys all over the cluster: what reads, publishes and acks is one script, which is what
 *          exactly once is made of, and a script runs on one node over the keys of one slot.
 * Threads: no state.
 */
#ifndef REDIS_TAGS_H
#define REDIS_TAGS_H

#include "connectors/redis/redis.h"

/* Which of the keys in a configuration are used, of clusters alone. */
struct redis_tags_use {
    bool is_read, is_written;                     /* the input streams; outputs and dead letters */
    bool is_same;                                 /* input and output are one cluster */
    bool output_is_named, dead_letters_are_named; /* else their names follow from the input's */
};

/* Sets config->slot and output_slot. 0; -EINVAL with the sentence in err and the option to change
 * in *bad_option. */
int redis_tags_check(struct redis_config *config, const struct redis_tags_use *use,
                     const char **bad_option, char *err, size_t err_size);

#endif
