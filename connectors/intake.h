/*
 * intake.h: the messages of a source that are with us, and how many more may be given.
 *
 * Owns:    lists of them in the order they came; the credit of the contract's request; giving.
 * Refuses: their memory, acks, and when to ask the broker for more: the sources.
 * Threads: the loop thread.
 * Why:     the lists of <sys/queue.h> have no count, by which more is asked for.
 */
#ifndef INTAKE_H
#define INTAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/connector.h"
#include "connectors/endpoint.h"

/* First member of what a source keeps of each message. */
struct taken {
    struct message message; /* first member */
    struct taken *prev, *next;
    size_t size; /* bytes, for credit */
};

/* From the oldest to the newest. Zeroed: empty. */
struct taken_list {
    struct taken *first, *last;
    size_t n, bytes;
};
void taken_push(struct taken_list *list, struct taken *taken);
void taken_remove(struct taken_list *list, struct taken *taken);
struct taken *taken_pop(struct taken_list *list); /* NULL: it is empty */

/* Of request: so many messages, of about so many bytes in all. */
struct credit_left {
    size_t n, n_bytes;
};
bool credit_left_any(const struct credit_left *credit);
void credit_left_spend(struct credit_left *credit, size_t size);

/* Zeroed: nothing is here, and nothing may be given. */
struct intake {
    struct taken_list held;  /* not given yet */
    struct taken_list given; /* and neither acked nor released */
    struct credit_left credit;
};
/* Give what is held, as far as the credit goes and until the endpoint closes or fails: which the
 * pipeline may bring about by what it is given. */
void intake_give(struct intake *intake, const struct source *source,
                 const struct endpoint *endpoint);

#endif
