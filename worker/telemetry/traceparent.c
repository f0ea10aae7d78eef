/*
 * traceparent.c: see traceparent.h. "00-" 32 hex "-" 16 hex "-" 2 hex.
 */
#include "worker/telemetry/traceparent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEN = 55 };

static bool is_hex(const char *text, size_t len, bool may_be_zero)
{
    size_t n_zeros = 0;
    for (size_t i = 0; i < len; i++) {
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
            return false;
        n_zeros += text[i] == '0';
    }
    return may_be_zero || n_zeros < len;
}

static bool parse(struct bytes value, struct traceparent *out)
{
    /* Lengths of W3C's Trace Context: version 2, trace 32, parent 16, flags 2 hex digits, in lower
     * case. */
    const char *text = value.ptr;
    if (value.len < LEN || text[2] != '-' || text[35] != '-' || text[52] != '-' ||
        !is_hex(text, 2, true) || memcmp(text, "ff", 2) == 0 || !is_hex(text + 3, 32, false) ||
        !is_hex(text + 36, 16, false) || !is_hex(text + 53, 2, true))
        return false;
    bool is_first = memcmp(text, "00", 2) == 0; /* later versions may add to it */
    if (value.len > LEN && (is_first || text[LEN] != '-'))
        return false;
    snprintf(out->text, sizeof out->text, "%.*s", (int)LEN, text);
    snprintf(out->trace_id, sizeof out->trace_id, "%.32s", text + 3);
    snprintf(out->span_id, sizeof out->span_id, "%.16s", text + 36);
    out->flags = (uint8_t)strtoul(out->text + 53, NULL, 16);
    return true;
}

bool traceparent_read(const struct message *message, struct traceparent *out)
{
    static const char name[] = "traceparent";
    for (size_t i = message->n_headers; i > 0; i--) { /* of equal headers the last counts */
        const struct header *header = &message->headers[i - 1];
        if (header->name.len == sizeof name - 1 && header->value.ptr &&
            memcmp(header->name.ptr, name, sizeof name - 1) == 0)
            return parse(header->value, out);
    }
    return false;
}
