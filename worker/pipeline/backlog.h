/*
 * backlog.h: messages a source has given and no batch has room for yet, oldest first.
 *
 * Owns:    the order of them; never the messages' ends.
 * Threads: the loop thread.
 * Why:     one message may hold thousands of texts, which is known only once it is decoded; until
 *          a batch is free it waits here as it came.
 */
#ifndef BACKLOG_H
#define BACKLOG_H

#include <stddef.h>

#include "connectors/connector.h"

/* Zero-initialise to open. */
struct backlog {
    struct message **messages; /* [room], those waiting are [first, first + n) */
    size_t first, n, room;
};

/* 0 or -ENOMEM (then none was added). */
int backlog_add(struct backlog *backlog, struct message *const *messages, size_t n);
/* Before all others. 0 or -ENOMEM. */
int backlog_put_back(struct backlog *backlog, struct message *message);
/* The oldest; NULL when there is none. */
struct message *backlog_take(struct backlog *backlog);
void backlog_close(struct backlog *backlog);

#endif
