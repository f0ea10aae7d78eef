/*
 * queue_target.h: the queue that a URL on the command line names.
 *
 * Owns:    which connector a URL is of, and the options that it stands for.
 * Refuses: what goes into the queue or out of it.
 * Threads: the main thread.
 */
#ifndef QUEUE_TARGET_H
#define QUEUE_TARGET_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/connector.h"
#include "connectors/queue.h"
#include "worker/config/options.h"

struct queue_target {
    const char *url, *name; /* name: of the stream, topic or queue; NULL: what the URL says */
    const char *flag;       /* by which the URL was given: "--to" */
    bool is_pull;           /* what workers wrote is read; else where workers read is written */
};

/* NULL and a sentence, which does not show what may be a password. */
const struct connector *queue_target_find(const struct queue_target *target, char *err,
                                          size_t err_size);
/* Set the options that the URL stands for, and n more. A flag of its own overrides what the URL
 * says, environment and file do not: they are shared with the workers, and what they say of a
 * worker's ends is not meant here. 0; -EINVAL and a sentence; -ENOMEM. */
int queue_target_set(struct options *options, const struct connector *connector,
                     const struct queue_target *target, const struct queue_option *more, size_t n,
                     char *err, size_t err_size);
/* The forms of such URLs, with "or" between, of all connectors that are queues. */
void queue_target_forms(char *out, size_t size);

#endif
