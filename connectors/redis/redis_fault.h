/*
 * redis_fault.h: what an error reply of a Redis server means.
 *
 * Owns:    the one place that knows how servers word their refusals.
 * Refuses: what to do about it for one record or one connection; its callers know that.
 * Threads: no state.
 */
#ifndef REDIS_FAULT_H
#define REDIS_FAULT_H

/* What to do about an error reply. */
enum redis_remedy {
    REMEDY_RETRY,     /* the same again on this connection, after a pause */
    REMEDY_RECONNECT, /* this server cannot serve us now; connect anew (a name may have moved) */
    REMEDY_GROUP,     /* the consumer group is gone: make it again */
    REMEDY_SCRIPT,    /* the script cache is empty: send the script itself */
    REMEDY_TOO_LARGE, /* this value can never be written */
    REMEDY_FATAL,     /* can never work as configured; advice says what to do */
    REMEDY_UNKNOWN,   /* retried too, but it may be the record that the server does not like */
};

struct redis_fault {
    enum redis_remedy remedy;
    /* "NOPERM", "WRONGTYPE" ...: the code that the server gave, or that it would give outside a
     * script; "ERR" when it has none of its own. Never NULL. */
    const char *code;
    const char *advice; /* what to do about it, for people; never NULL */
};

/*
 * text: of an error reply ("LOADING Redis is ..."), as it came.
 *
 * The code decides, wherever a server puts it: Redis 6 wraps what a command in a script answered,
 * imitations put ERR before it. Words decide only where servers give no code: a right missing
 * inside a script, limits. Anything unknown is
 * retried: no message fails for it unless others pass.
 */
struct redis_fault redis_fault_find(const char *text);

#endif
