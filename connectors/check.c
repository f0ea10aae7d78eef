/*
 * check.c: see check.h.
 *
 * Threads: no state.
 */
#include "connectors/check.h"

#include <stdarg.h>
#include <stdio.h>

void check_say(finding_cb report, void *ctx, enum finding how, const char *what, const char *format,
               ...)
{
    char said[700];
    va_list args;
    va_start(args, format);
    vsnprintf(said, sizeof said, format, args);
    va_end(args);
    report(ctx, how, what, said);
}
