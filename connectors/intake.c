/*
 * intake.c: see intake.h.
 */
#include "connectors/intake.h"

#include <assert.h>

enum { GIVE_MAX = 64 }; /* messages in one event */

void taken_push(struct taken_list *list, struct taken *taken)
{
    taken->prev = list->last;
    taken->next = NULL;
    if (list->last)
        list->last->next = taken;
    else
        list->first = taken;
    list->last = taken;
    list->n++;
    list->bytes += taken->size;
}

void taken_remove(struct taken_list *list, struct taken *taken)
{
    assert(list->n > 0 && list->bytes >= taken->size);
    assert(taken->prev ? taken->prev->next == taken : list->first == taken);
    assert(taken->next ? taken->next->prev == taken : list->last == taken);
    if (taken->prev)
        taken->prev->next = taken->next;
    else
        list->first = taken->next;
    if (taken->next)
        taken->next->prev = taken->prev;
    else
        list->last = taken->prev;
    list->n--;
    list->bytes -= taken->size;
}

struct taken *taken_pop(struct taken_list *list)
{
    struct taken *taken = list->first;
    if (taken)
        taken_remove(list, taken);
    return taken;
}

bool credit_left_any(const struct credit_left *credit)
{
    return credit->n > 0 && credit->n_bytes > 0;
}

void credit_left_spend(struct credit_left *credit, size_t size)
{
    assert(credit->n > 0);
    credit->n--;
    /* One message larger than what is left still passes: else it would never be given. */
    credit->n_bytes -= size < credit->n_bytes ? size : credit->n_bytes;
}

static bool may_give(const struct intake *intake, const struct endpoint *endpoint)
{
    /* Asked again after each event: in it the pipeline may close us or take credit back. */
    return intake->held.n > 0 && credit_left_any(&intake->credit) && !endpoint->closing &&
           !endpoint->failed;
}

void intake_give(struct intake *intake, const struct source *source,
                 const struct endpoint *endpoint)
{
    struct message *messages[GIVE_MAX];
    while (may_give(intake, endpoint)) {
        size_t n = 0;
        while (n < GIVE_MAX && may_give(intake, endpoint)) {
            struct taken *taken = taken_pop(&intake->held);
            /* At least a byte, so that empty messages use up credit, too. */
            credit_left_spend(&intake->credit, taken->size ? taken->size : 1);
            /* Moved before the event: the pipeline may ack or release inside it. */
            taken_push(&intake->given, taken);
            messages[n++] = &taken->message;
        }
        source->events->on_messages(source->ctx, messages, n);
    }
}
