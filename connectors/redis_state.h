/*
 * redis_state.h: the state a connector reports, once per change.
 *
 * Owns:    which parts are in trouble and what was last said; how long to wait before a retry.
 * Threads: the loop thread.
 * Why:     a connector has several connections and commands that may be refused at the same time;
 *          people want one sentence when it begins and one when it is over, not one per attempt.
 */
#ifndef REDIS_STATE_H
#define REDIS_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "connectors/connector.h"

#define REDIS_WHY_SIZE 720 /* holds a Redis error, its advice and a place */

struct redis_state {
    void (*on_state)(void *ctx, enum link_state state, const char *why);
    void *ctx;
    unsigned troubles; /* a bit for each part that is not well */
    bool told, up;
    char why[REDIS_WHY_SIZE]; /* the last reason told */
};

/* parts: the bits that must become good before LINK_UP is told. */
void redis_state_open(struct redis_state *state, unsigned parts,
                      void (*on_state)(void *ctx, enum link_state state, const char *why),
                      void *ctx);
void redis_state_wait(struct redis_state *state, unsigned part, const char *why);
void redis_state_good(struct redis_state *state, unsigned part);

#define REDIS_BACKOFF_FIRST_MS 100
#define REDIS_BACKOFF_MAX_MS   10000

/* Counts failed attempts; 0 after a success. */
struct redis_backoff {
    unsigned attempts;
    uint64_t random; /* state of the jitter */
};

/* The pause before the next attempt: doubles up to the maximum, half of it random, so that many
 * workers do not come back at once. */
uint64_t redis_backoff_next(struct redis_backoff *backoff);

#endif
