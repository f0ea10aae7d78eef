/*
 * backlog.c: see backlog.h.
 */
#include "worker/pipeline/backlog.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int backlog_add(struct backlog *backlog, struct message *const *messages, size_t n)
{
    if (backlog->first && backlog->first + backlog->n + n > backlog->room) {
        /* What was taken left room at the front. */
        memmove(backlog->messages, backlog->messages + backlog->first,
                backlog->n * sizeof(struct message *));
        backlog->first = 0;
    }
    if (backlog->n + n > backlog->room) {
        size_t room = 2 * (backlog->n + n);
        if (room > SIZE_MAX / sizeof(struct message *))
            return -ENOMEM;
        struct message **grown = realloc(backlog->messages, room * sizeof(struct message *));
        if (!grown)
            return -ENOMEM;
        backlog->messages = grown;
        backlog->room = room;
    }
    assert(backlog->first + backlog->n + n <= backlog->room);
    for (size_t i = 0; i < n; i++)
        backlog->messages[backlog->first + backlog->n++] = messages[i];
    return 0;
}

int backlog_put_back(struct backlog *backlog, struct message *message)
{
    if (backlog->first == 0) { /* most often there is room where it was taken from */
        /* Half as much again: a batch gives its messages back one by one. */
        size_t gap = 1 + backlog->n / 2;
        if (gap > SIZE_MAX / sizeof(struct message *) - backlog->room)
            return -ENOMEM;
        struct message **grown =
            realloc(backlog->messages, (backlog->room + gap) * sizeof(struct message *));
        if (!grown)
            return -ENOMEM;
        memmove(grown + gap, grown, backlog->n * sizeof(struct message *));
        backlog->messages = grown;
        backlog->room += gap;
        backlog->first = gap;
    }
    assert(backlog->first > 0);
    backlog->messages[--backlog->first] = message;
    backlog->n++;
    return 0;
}

struct message *backlog_take(struct backlog *backlog)
{
    if (backlog->n == 0)
        return NULL;
    assert(backlog->n > 0);
    backlog->n--;
    return backlog->messages[backlog->first++];
}

void backlog_close(struct backlog *backlog)
{
    free(backlog->messages);
    memset(backlog, 0, sizeof *backlog);
}
