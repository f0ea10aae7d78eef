/*
 * fake_redis.h: a Redis of one or two streams that misbehaves on command, on the test's own loop.
 *
 * Owns:    the few commands the connector uses, over FAKE_ENTRIES entries at most, in turns in one
 *          stream and the other under the same ids; rules that say which command is answered
 *          wrongly, how and how often.
 * Refuses: being right about anything else.
 * Threads: one, the loop's.
 */
#ifndef FAKE_REDIS_H
#define FAKE_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define FAKE_ENTRIES 64
#define FAKE_STREAMS "texts,more"

enum fake_action {
    FAKE_SAY,      /* answer `text` as it stands, do nothing */
    FAKE_SILENT,   /* never answer, do nothing */
    FAKE_RESET,    /* do nothing, reset the connection */
    FAKE_DO_RESET, /* do it, then reset without an answer */
    FAKE_DO_CLOSE, /* do it, then close in good order */
    FAKE_DO_HALF,  /* do it, send half of the answer, reset */
    FAKE_DO_TWICE, /* do it, answer twice: an unrequested reply */
};

struct fake_rule {
    const char *command; /* "XACK"; "*": any */
    enum fake_action action;
    const char *text;
    int times; /* left; -1: no limit */
};

struct fake_client;

struct fake_redis {
    uv_loop_t *loop;
    uv_tcp_t listener;
    int port;
    struct fake_client *clients;
    struct fake_rule rules[8];
    size_t n_rules;
    bool drip;        /* answers go out byte by byte */
    bool group;       /* the group exists */
    size_t n_streams; /* 1, or 2: those of FAKE_STREAMS */
    size_t n_entries;
    size_t n_most; /* entries in one answer to a read */
    struct {
        bool delivered, acked;
        int published;
    } entries[FAKE_ENTRIES];
    const char
        *elsewhere; /* what a command about keys is told unless ASKING is before it; or NULL */
    size_t n_asked; /* such commands that had it */
    size_t n_commands, n_connections;
    int next_client;
};

void fake_redis_open(struct fake_redis *fake, uv_loop_t *loop, int port, size_t n_entries);
void fake_redis_close(struct fake_redis *fake);
void fake_redis_rule(struct fake_redis *fake, const char *command, enum fake_action action,
                     const char *text, int times);
bool fake_redis_all_acked(const struct fake_redis *fake);

#endif
