/*
 * lines_rig.h: stands where the pipeline stands, between the source stdin and the sink stdout.
 *
 * Owns:    the descriptors 0, 1 and 2 of the test while it is open, the loop, a ledger of events;
 *          fails the test when an event fires inside a call or after a deadline.
 * Threads: one.
 */
#ifndef LINES_RIG_H
#define LINES_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "connectors/connector.h"
#include "connectors/file/lines.h"

/* What the source gave and what became of the sink's records. */
struct lines_rig {
    uv_loop_t loop;
    uv_timer_t watchdog;
    struct settings *settings;
    struct source *source;
    struct sink *sink;
    int saved[3]; /* descriptors 0, 1, 2 before redirect */
    struct message **messages;
    size_t n_messages, room;
    size_t credit_each; /* asked for again after each event; 0: only what the test asks */
    size_t credit_bytes;
    size_t most_at_once;
    bool ended, in_call, closed, timed_out;
    int failed;
    char why[300];
    struct record *published[1024];
    size_t n_published;
};

void lines_rig_open(struct lines_rig *rig, const char *max_line);
/* Closes sink and source within a second each, and everything else. */
void lines_rig_close(struct lines_rig *rig);
/* The rig takes fd over as its descriptor 0, 1 or 2 until it is closed or restored. */
void lines_rig_redirect(int fd, int to);
void lines_rig_restore(struct lines_rig *rig);
void lines_rig_open_source(struct lines_rig *rig);
void lines_rig_open_sink(struct lines_rig *rig);
void lines_rig_publish(struct lines_rig *rig, struct record *record);
/* Turn the loop until *done, a failure or the deadline; for a while when done is NULL. */
void lines_rig_turn(struct lines_rig *rig, const bool *done);
/* Turn the loop until n records are confirmed. */
void lines_rig_wait_published(struct lines_rig *rig, size_t n);
/* An unlinked file with these bytes, at its beginning. */
int lines_rig_file(const char *bytes, size_t len);

#endif
