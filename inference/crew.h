/*
 * crew.h: the parts of one thread's work that other threads may take over for a while.
 *
 * Owns:    the meeting point of a leader and its assistants: which step is in hand, who does which
 *          part of it, who waits for whom.
 * Refuses: to start threads, to know what a step computes, to need anyone: a leader whom nobody
 *          assists does all parts itself and waits for nothing.
 * Threads: crew_open, crew_run and crew_shut by the leader; crew_assist by any number of others, at
 *          any time between crew_init and crew_end.
 * Why:     one short text has enough work for all threads only inside its matrix products, which
 *          take some tens of microseconds each. Parts are claimed one by one from an atomic
 *          counter, so threads that come late, are slow or leave cost nothing but what they do not
 *          do; a wait is a short spin and then a sleep, so that waiting takes no CPU from others.
 */
#ifndef CREW_H
#define CREW_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Part `part` of a step. mine: what the thread that runs it has for itself. */
typedef void crew_step(void *arg, size_t part, void *mine);

enum { CREW_PARTS_MAX = UINT16_MAX };

struct crew {
    /* Number of the step << 32 | its parts << 16 | parts claimed: all a claim depends on. */
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) atomic_size_t n_done; /* parts of the step in hand */
    atomic_size_t n_assistants;
    atomic_size_t n_asleep; /* of these, waiting for a step */
    atomic_bool leader_asleep, is_open;
    crew_step *step; /* written by the leader while no part is claimed */
    void *arg;
    pthread_mutex_t lock; /* for sleeping and waking only */
    pthread_cond_t published, done;
};

int crew_init(struct crew *crew); /* 0 or negative errno */
void crew_end(struct crew *crew); /* nobody assists any more */

/* From here until crew_shut assistants stay and wait for steps. */
void crew_open(struct crew *crew);
void crew_shut(struct crew *crew);

/* Threads that are here now, the leader included. */
size_t crew_size(struct crew *crew);

/* Run parts 0 .. n_parts - 1 of a step, n_parts <= CREW_PARTS_MAX; returns when all are done. What
 * a part has written can then be read by every part of the next step. */
void crew_run(struct crew *crew, crew_step *step, void *arg, size_t n_parts, void *mine);

/*
 * Take part until the crew is shut, or until *leave: then the part in hand is finished first, and a
 * sleep for want of steps lasts until the next one. Returns whether the crew is still open.
 */
bool crew_assist(struct crew *crew, void *mine, const atomic_bool *leave);

#endif
