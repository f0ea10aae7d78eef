/*
 * traceparent.h: the W3C trace context that came with a message.
 *
 * Owns:    what is one and what is not (W3C Trace Context, level 1 and 2, "traceparent").
 * Refuses: spans of our own: spans.h. The header goes on to outputs and dead letters as it came.
 * Threads: no state.
 * Why:     55 characters of a stranger may be anything, and neither a log nor a collector is the
 *          place for that.
 */
#ifndef TRACEPARENT_H
#define TRACEPARENT_H

#include <stdbool.h>
#include <stdint.h>

#include "connectors/connector.h"

struct traceparent {
    char text[56];     /* as it came, what a later version of the format added cut off */
    char trace_id[33]; /* lower-case hex, not all zeros */
    char span_id[17];
    uint8_t flags; /* bit 0: sampled */
};

/* False: the message has none, or one that is not of the form. */
bool traceparent_read(const struct message *message, struct traceparent *out);

#endif
