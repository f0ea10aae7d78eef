/*
 * team.h: the parts of one thread's work that other threads may take over for a while.
 *
 * Owns:    the meeting point of a leader and its helpers: which step is in hand, who does which
 *          part of it, who waits for whom.
 * Refuses: to start threads or to wake them (pool.c does), to know what a step computes, to need
 *          anyone: a leader whom nobody helps does all parts itself and waits for nothing.
 * Threads: team_offer, team_finish and team_wait_alone by the leader; team_join and then team_help
 *          by any number of others, at any time between team_open and team_close.
 * Why:     one short text has enough work for all threads only inside its matrix products, which
 *          take some tens of microseconds each. Parts are claimed one by one from an atomic
 *          counter, so threads that come late, are slow or leave cost nothing but what they do not
 *          do.
 */
#ifndef TEAM_H
#define TEAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "inference/embed.h"

enum { TEAM_PARTS_MAX = UINT16_MAX };

struct team {
    /* Number of the step << 32 | its parts << 16 | parts claimed: all a claim depends on. */
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) atomic_size_t n_done; /* parts of the step in hand */
    atomic_size_t n_helpers;
    atomic_bool leader_asleep;
    session_part *step; /* written by the leader while no part is claimed */
    void *arg;
    uv_mutex_t lock; /* for the leader's sleep only */
    uv_cond_t done;
};

int team_open(struct team *team);   /* 0 or negative errno */
void team_close(struct team *team); /* nobody helps any more */

/* Threads that help now, or are about to: from team_join to the end of team_help. */
size_t team_helpers(const struct team *team);

/* Are there parts that nobody has claimed? */
bool team_has_parts(struct team *team);

/* Offer parts 0 .. n_parts - 1 of a step, n_parts <= TEAM_PARTS_MAX, to whoever comes ... */
void team_offer(struct team *team, session_part *step, void *arg, size_t n_parts);
/* ... and take part until all are done. What a part has written can then be read by every part of
 * the next step. pause: called between two parts, for what is more urgent; NULL: nothing is. */
void team_finish(struct team *team, struct session *mine, void (*pause)(void *ctx), void *ctx);

/* By the leader between two steps: returns when those who helped are gone, which takes them
 * microseconds when they find no parts. What is offered then is for sessions of another kind. */
void team_wait_alone(struct team *team);

/* A helper says that it comes, while it is sure for whom: before team_help. */
void team_join(struct team *team);
/* Take part until no step has come for a moment, or until *leave: after the part in hand. */
void team_help(struct team *team, struct session *mine, const atomic_bool *leave);

#endif
