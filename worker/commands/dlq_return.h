/*
 * dlq_return.h: dead letters that go back to another system than the one they lie on.
 *
 * Owns:    a sink of the system that the input is on, and one letter at a time on its way there.
 * Refuses: to take a letter off; that is for its own connector, once it is confirmed here.
 * Threads: the calling one; the calls block.
 */
#ifndef DLQ_RETURN_H
#define DLQ_RETURN_H

#include <stddef.h>

#include "connectors/connector.h"
#include "connectors/dead_letters.h"

struct dlq_return;

/* The settings say where letters go, as a push sets them. 0; a negative errno and a sentence. */
int dlq_return_open(struct dlq_return **out, const struct connector *connector,
                    const struct settings *settings, char *err, size_t err_size);
/* 1: it is stored there; 0: it is refused, err says why; a negative errno and a sentence: it may be
 * stored or not, and no more can be put back. */
int dlq_return_put(struct dlq_return *way, const struct dead_letter *letter, char *err,
                   size_t err_size);
void dlq_return_close(struct dlq_return *way); /* accepts NULL */

#endif
