/*
 * file_lines.c: see file_lines.h.
 */
#include "connectors/file/file_lines.h"

#include <string.h>

#define LOOK ((size_t)64 * 1024)

enum line_ends file_lines_ends(const char *bytes, size_t n, size_t max, bool ended)
{
    size_t most = max < LOOK ? max : LOOK;
    bool is_enough = n >= most || ended;
    most = n < most ? n : most;
    if (most > 0 && memchr(bytes, '\n', most))
        /* One LF in the first 64 KiB decides: progress bars put CRs inside their lines. */
        return ENDS_LF;
    if (!is_enough)
        return ENDS_UNKNOWN;
    /* One that comes last may be the first half of a CRLF. */
    return most > 1 && memchr(bytes, '\r', most - 1) ? ENDS_CR : ENDS_LF;
}

const char *file_lines_next(enum line_ends ends, const char **at, const char *end, bool ended,
                            size_t *len)
{
    const char *found = *at;
    *len = 1;
    if (*at == end)
        return NULL;
    if (ends == ENDS_LF) {
        found = memchr(*at, '\n', (size_t)(end - *at));
        /* What was searched is not searched again when more bytes come. */
        *at = found ? found : end;
        return found;
    }
    while (found < end && *found != '\r' && *found != '\n')
        found++;
    *at = found;
    bool is_cr = found < end && *found == '\r', is_last = found + 1 >= end;
    /* A CR at the very end is kept until the next byte shows whether an LF belongs to it. */
    if (found == end || (is_cr && is_last && !ended))
        return NULL;
    *len = is_cr && !is_last && found[1] == '\n' ? 2 : 1;
    return found;
}
