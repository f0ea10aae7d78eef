/*
 * health.c: see health.h.
 *
 * Threads: the loop thread.
 */
#include "connectors/health.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void health_open(struct health *state, unsigned parts,
                 void (*on_state)(void *ctx, enum link_state state, const char *why), void *ctx)
{
    *state = (struct health){.on_state = on_state, .ctx = ctx, .troubles = parts};
}

void health_wait(struct health *state, unsigned part, const char *why)
{
    bool is_news = !state->reported || state->up || strcmp(state->why, why) != 0;

    state->troubles |= part;
    state->reported = true;
    state->up = false;
    if (!is_news)
        return;
    /* Copied: the caller's sentence is often on its stack, and repeats are told from it. */
    snprintf(state->why, sizeof(state->why), "%s", why);
    state->on_state(state->ctx, LINK_WAIT, state->why);
}

void health_good(struct health *state, unsigned part)
{
    state->troubles &= ~part;
    /* Up only when every part is: a source whose reader is back may still not be able to ack. */
    if (state->troubles || (state->reported && state->up))
        return;
    state->reported = true;
    state->up = true;
    state->on_state(state->ctx, LINK_UP, "connected");
}

uint64_t backoff_next(struct backoff *backoff)
{
    /* More than 10 s anyway from 7 attempts on; the limit keeps the shift defined. */
    unsigned shift = backoff->attempts < 16 ? backoff->attempts : 16;
    uint64_t pause = (uint64_t)BACKOFF_FIRST_MS << shift;

    /* Workers that lost the same broker at the same time must not keep step. */
    if (!backoff->random)
        backoff->random = uv_hrtime() ^ (uint64_t)getpid() << 32 ^ (uintptr_t)backoff;
    /* xorshift64; 0 would stay 0, so it is what says that there is no seed yet. */
    backoff->random ^= backoff->random << 13;
    backoff->random ^= backoff->random >> 7;
    backoff->random ^= backoff->random << 17;
    backoff->attempts++;
    if (pause > BACKOFF_MAX_MS)
        pause = BACKOFF_MAX_MS;
    return pause / 2 + backoff->random % (pause / 2 + 1);
}
