/*
 * team.c: see team.h.
 *
 * A claim is one compare-and-swap of the whole ticket, so whoever holds a part knows that it is of
 * the step in hand: the leader cannot offer another before that part is done. Step and argument may
 * therefore be read without a lock after the claim. The leader announces its sleep before it looks
 * once more, helpers look for a sleeper after the last part; both orders are sequentially
 * consistent, so one of the two sees the other.
 */
#include "worker/pipeline/team.h"

#include <assert.h>
#include <sched.h>

/*
 * A wait within a step is for a part that some thread has begun, most often a group of weight rows
 * times a few tokens: microseconds. Longer when parts are large, where a sleep does not matter, or
 * when that thread has lost its CPU, and then ours may be what it needs. (Measured: 15 to 150 give
 * the same times on idle cores; on busy ones 60 costs a sixth more CPU time, 15 a twentieth.)
 */
enum { SPIN_US = 20, PAUSES = 16 };

static uint64_t ticket_make(uint64_t number, size_t n_parts)
{
    return number << 32 | (uint64_t)n_parts << 16;
}

static uint64_t ticket_number(uint64_t ticket)
{
    return ticket >> 32;
}

static size_t ticket_parts(uint64_t ticket)
{
    return ticket >> 16 & 0xffff;
}

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* yield is a no-op on most cores; this takes about as long as pause */
#endif
}

int team_open(struct team *t)
{
    atomic_init(&t->ticket, 0);
    atomic_init(&t->n_done, 0);
    atomic_init(&t->n_helpers, 0);
    atomic_init(&t->leader_asleep, false);
    int err = uv_mutex_init(&t->lock);
    if (err)
        return err;
    err = uv_cond_init(&t->done);
    if (err)
        uv_mutex_destroy(&t->lock);
    return err;
}

void team_close(struct team *t)
{
    uv_cond_destroy(&t->done);
    uv_mutex_destroy(&t->lock);
}

size_t team_helpers(const struct team *t)
{
    return atomic_load_explicit(&t->n_helpers, memory_order_relaxed);
}

bool team_has_parts(struct team *t)
{
    uint64_t ticket = atomic_load(&t->ticket);
    return ticket_parts(ticket) != (ticket & 0xffff);
}

/* Claim and run parts while there are any. Returns whether there was one. */
static bool parts_run(struct team *t, struct session *mine, const atomic_bool *leave,
                      void (*pause)(void *ctx), void *ctx)
{
    bool any = false;
    uint64_t ticket = atomic_load(&t->ticket);
    for (;;) {
        size_t n_parts = ticket_parts(ticket), part = ticket & 0xffff;
        if (part == n_parts)
            return any;
        /* The number of the step is in the ticket, so a part of a step that is over is never
         * claimed. */
        assert(part < n_parts);
        if (!atomic_compare_exchange_weak(&t->ticket, &ticket, ticket + 1))
            continue;
        t->step(t->arg, part, mine);
        any = true;
        if (atomic_fetch_add(&t->n_done, 1) + 1 == n_parts && atomic_load(&t->leader_asleep)) {
            uv_mutex_lock(&t->lock);
            uv_cond_signal(&t->done);
            uv_mutex_unlock(&t->lock);
        }
        if (leave && atomic_load_explicit(leave, memory_order_relaxed))
            return any;
        if (pause)
            pause(ctx);
        ticket = atomic_load(&t->ticket);
    }
}

static bool is_done(struct team *t, size_t n_parts)
{
    return atomic_load(&t->n_done) == n_parts;
}

/* For the parts that others have claimed. */
static void wait_done(struct team *t, size_t n_parts)
{
    if (is_done(t, n_parts))
        return;
    for (uint64_t began = uv_hrtime(); uv_hrtime() - began < SPIN_US * 1000u;)
        for (size_t i = 0; i < PAUSES; i++) {
            if (is_done(t, n_parts))
                return;
            cpu_relax();
        }
    uv_mutex_lock(&t->lock);
    /* Before the last look: who ends the last part sees it, or we see that it is done. */
    atomic_store(&t->leader_asleep, true);
    while (!is_done(t, n_parts))
        uv_cond_wait(&t->done, &t->lock);
    atomic_store(&t->leader_asleep, false);
    uv_mutex_unlock(&t->lock);
}

void team_offer(struct team *t, session_part *step, void *arg, size_t n_parts)
{
    assert(n_parts <= TEAM_PARTS_MAX);
    uint64_t ticket = atomic_load_explicit(&t->ticket, memory_order_relaxed);
    assert(!team_has_parts(t)); /* team_finish was called */
    t->step = step;
    t->arg = arg;
    /* Nobody claims a part before the ticket below says that there are some. */
    atomic_store_explicit(&t->n_done, 0, memory_order_relaxed);
    /* A number comes again after 2^32 steps: no claim is interrupted for so long. */
    atomic_store(&t->ticket, ticket_make((ticket_number(ticket) + 1) & UINT32_MAX, n_parts));
}

void team_finish(struct team *t, struct session *mine, void (*pause)(void *ctx), void *ctx)
{
    size_t n_parts = ticket_parts(atomic_load_explicit(&t->ticket, memory_order_relaxed));
    parts_run(t, mine, NULL, pause, ctx);
    wait_done(t, n_parts);
}

/* True: another step than number `seen` is there. */
static bool step_comes(struct team *t, uint64_t seen, const atomic_bool *leave)
{
    for (uint64_t began = uv_hrtime(); uv_hrtime() - began < SPIN_US * 1000u;)
        for (size_t i = 0; i < PAUSES; i++) {
            if (atomic_load_explicit(leave, memory_order_relaxed))
                return false;
            if (ticket_number(atomic_load(&t->ticket)) != seen)
                return true;
            cpu_relax();
        }
    return false;
}

void team_join(struct team *t)
{
    atomic_fetch_add(&t->n_helpers, 1);
}

void team_wait_alone(struct team *t)
{
    assert(!team_has_parts(t));
    /* One that has lost its CPU may need ours to see that there is nothing to do. */
    while (atomic_load(&t->n_helpers))
        sched_yield();
}

void team_help(struct team *t, struct session *mine, const atomic_bool *leave)
{
    uint64_t seen;
    do {
        seen = ticket_number(atomic_load(&t->ticket));
    } while ((parts_run(t, mine, leave, NULL, NULL) || step_comes(t, seen, leave)) &&
             !atomic_load_explicit(leave, memory_order_relaxed));
    atomic_fetch_sub(&t->n_helpers, 1);
}
