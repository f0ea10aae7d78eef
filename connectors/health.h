/*
 * health.h: the state a connector reports, once per change.
 *
 * Owns:    which parts are in trouble and what was last said; how long to wait before a retry.
 * Threads: the loop thread.
 * Why:     a connector has several connections and commands that may be refused at the same time;
 *          people want one sentence when it begins and one when it is over, not one per attempt.
 */
#ifndef HEALTH_H
#define HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "connectors/connector.h"

#define HEALTH_WHY_SIZE 720 /* holds a Redis error, its advice and a place */

struct health {
    void (*on_state)(void *ctx, enum link_state state, const char *why);
    void *ctx;
    unsigned troubles; /* a bit for each part that is not well */
    bool reported, up;
    char why[HEALTH_WHY_SIZE]; /* the last reason told */
};

/* parts: the bits that must become good before LINK_UP is told. */
void health_open(struct health *state, unsigned parts,
                 void (*on_state)(void *ctx, enum link_state state, const char *why), void *ctx);
void health_wait(struct health *state, unsigned part, const char *why);
void health_good(struct health *state, unsigned part);

#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS   10000

/* Counts failed attempts; 0 after a success. */
struct backoff {
    unsigned attempts;
    uint64_t random; /* state of the jitter */
};

/* The pause before the next attempt: doubles up to the maximum, half of it random, so that many
 * workers do not come back at once. */
uint64_t backoff_next(struct backoff *backoff);

#endif
