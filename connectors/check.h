/*
 * check.h: what a connector can say about its library and its broker, for people.
 *
 * Owns:    the contract of `embedmill doctor`; settings are checked by source_ops and sink_ops.
 * Refuses: changing anything over there: a check leaves no key, entry, group or offset behind.
 * Threads: the main thread, without a loop: a check may block, but each wait has a limit.
 * Why:     only a connector knows what its broker needs; only the worker knows how to tell it.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/settings.h"

enum finding {
    FINDING_OK,
    FINDING_WARN, /* works, but somebody should know */
    FINDING_BAD,  /* `run` would fail, or wait for it to be mended */
};

/* what: two words or so; said: what was found and, unless OK, what to do about it. */
typedef void (*finding_cb)(void *ctx, enum finding how, const char *what, const char *said);

/* Report a sentence that is printed as by printf. */
__attribute__((format(printf, 5, 6))) void check_say(finding_cb report, void *ctx, enum finding how,
                                                     const char *what, const char *format, ...);

/* Any function may be NULL. */
struct connector_check {
    /* Versions of the library in use and known faults of it. */
    void (*library)(finding_cb report, void *ctx);
    /* Reachable, allowed, and all there? Which sides of it are used. */
    void (*broker)(const struct settings *settings, bool is_source, bool is_sink, finding_cb report,
                   void *ctx);
};

#endif
