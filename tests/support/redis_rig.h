/*
 * redis_rig.h: a loop with Redis sources and a sink, playing the pipeline's part for tests.
 *
 * Owns:    what the pipeline would own: messages given, records under way.
 * Threads: one; the loop runs inside redis_rig_wait only.
 */
#ifndef REDIS_RIG_H
#define REDIS_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/connector.h"

#define RIG_MESSAGES 16384

struct rig;

/* A source (and perhaps a sink) with all events noted. */
struct station {
    struct rig *rig;
    struct settings *settings;
    struct source *source;
    struct sink *sink;
    struct message *inbox[RIG_MESSAGES]; /* given and not yet taken by the test */
    size_t n_inbox;
    size_t n_given, n_published, n_acked_too, n_not_ours, n_too_large;
    size_t n_refused, n_dead; /* records refused, and published as dead letters then */
    char refused_code[40], refused_reason[800]; /* of the last one */
    size_t n_deleted;                           /* told of by on_count */
    size_t n_ups, n_waits, n_failed;
    enum link_state state;
    char why[512]; /* of the last wait or failure */
    bool closing, closed, sink_closed;
    bool buries;        /* publishes what was refused as a dead letter, as the pipeline does */
    bool is_worker;     /* publishes "out:" + value of what it is given, by itself */
    size_t n_credit;    /* of a worker: asked for again and again */
    size_t n_under_way; /* of a worker */
    unsigned work_ms;   /* of a worker: how long its work takes */
};

struct rig {
    uv_loop_t loop;
    uv_timer_t tick;
    bool overdue;
};

void redis_rig_open(struct rig *rig);
void redis_rig_close(struct rig *rig); /* fails when anything is left on the loop */

/* Options end with NULL: "redis.url", "redis://...", ... */
void station_open(struct station *station, struct rig *rig, bool with_sink, const char *const *set);
/* Close sink and source in the pipeline's order and wait. */
void station_close(struct station *station, uint64_t deadline_ms);
/* Give up without a word: what a kill -9 leaves (nothing acked, nothing released). */
void station_crash(struct station *station);

/* Run the loop until the condition holds; false after ms. */
bool redis_rig_wait(struct rig *rig, uint64_t ms, bool (*is_done)(void *ctx), void *ctx);
/* Run the loop for ms. */
void redis_rig_run(struct rig *rig, uint64_t ms);

/* Conditions on a station */
bool station_has(struct station *station, size_t n, uint64_t ms); /* n messages in the inbox */
/* Take the oldest message of the inbox. */
struct message *station_take(struct station *station);
/* Publish `value` for a message as one part of that id; the message is acked or released as the
 * pipeline does it. code: a dead letter. */
void station_publish(struct station *station, struct message *message, const char *id,
                     const char *value, const char *code);
/* The same with any parts; their bytes must outlive the record. */
void station_publish_parts(struct station *station, struct message *message,
                           const struct part *parts, size_t n);
bool station_quiet(struct station *station, uint64_t ms); /* nothing under way */

#endif
