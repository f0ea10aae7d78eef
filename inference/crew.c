/*
 * crew.c: see crew.h.
 *
 * A claim is one compare-and-swap of the whole ticket, so whoever holds a part knows that it is of
 * the step in hand: the leader cannot publish another before that part is done. Step and argument
 * may therefore be read without a lock after the claim. Sleepers announce themselves before they
 * look once more, wakers look for sleepers after their change; both orders are sequentially
 * consistent, so one of the two sees the other.
 */
#include "inference/crew.h"

#include <assert.h>
#include <time.h>

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

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* yield is a no-op on most cores; this takes about as long as pause */
#endif
}

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

int crew_init(struct crew *c)
{
    atomic_init(&c->ticket, 0);
    atomic_init(&c->n_done, 0);
    atomic_init(&c->n_assistants, 0);
    atomic_init(&c->n_asleep, 0);
    atomic_init(&c->leader_asleep, false);
    atomic_init(&c->is_open, false);
    int err = pthread_mutex_init(&c->lock, NULL);
    if (err)
        return -err;
    err = pthread_cond_init(&c->published, NULL);
    if (!err) {
        err = pthread_cond_init(&c->done, NULL);
        if (err)
            pthread_cond_destroy(&c->published);
    }
    if (err)
        pthread_mutex_destroy(&c->lock);
    return -err;
}

void crew_end(struct crew *c)
{
    pthread_cond_destroy(&c->done);
    pthread_cond_destroy(&c->published);
    pthread_mutex_destroy(&c->lock);
}

static void wake_assistants(struct crew *c)
{
    if (atomic_load(&c->n_asleep) == 0)
        return;
    pthread_mutex_lock(&c->lock);
    pthread_cond_broadcast(&c->published);
    pthread_mutex_unlock(&c->lock);
}

void crew_open(struct crew *c)
{
    atomic_store(&c->is_open, true);
}

void crew_shut(struct crew *c)
{
    atomic_store(&c->is_open, false);
    wake_assistants(c);
}

size_t crew_size(struct crew *c)
{
    return 1 + atomic_load_explicit(&c->n_assistants, memory_order_relaxed);
}

/* Claim and run parts while there are any. Returns whether there was one. */
static bool parts_run(struct crew *c, void *mine, const atomic_bool *leave)
{
    bool any = false;
    uint64_t ticket = atomic_load(&c->ticket);
    for (;;) {
        size_t n_parts = ticket >> 16 & 0xffff, part = ticket & 0xffff;
        if (part == n_parts)
            return any;
        if (!atomic_compare_exchange_weak(&c->ticket, &ticket, ticket + 1))
            continue;
        c->step(c->arg, part, mine);
        any = true;
        if (atomic_fetch_add(&c->n_done, 1) + 1 == n_parts && atomic_load(&c->leader_asleep)) {
            pthread_mutex_lock(&c->lock);
            pthread_cond_signal(&c->done);
            pthread_mutex_unlock(&c->lock);
        }
        if (leave && atomic_load_explicit(leave, memory_order_relaxed))
            return any;
        ticket = atomic_load(&c->ticket);
    }
}

static bool is_done(struct crew *c, size_t n_parts)
{
    return atomic_load(&c->n_done) == n_parts;
}

/* For the parts that others have claimed. */
static void wait_done(struct crew *c, size_t n_parts)
{
    if (is_done(c, n_parts))
        return;
    for (uint64_t began = now_us(); now_us() - began < SPIN_US;)
        for (size_t i = 0; i < PAUSES; i++) {
            if (is_done(c, n_parts))
                return;
            cpu_relax();
        }
    pthread_mutex_lock(&c->lock);
    atomic_store(&c->leader_asleep, true);
    while (!is_done(c, n_parts))
        pthread_cond_wait(&c->done, &c->lock);
    atomic_store(&c->leader_asleep, false);
    pthread_mutex_unlock(&c->lock);
}

void crew_run(struct crew *c, crew_step *step, void *arg, size_t n_parts, void *mine)
{
    assert(n_parts <= CREW_PARTS_MAX);
    if (n_parts == 0)
        return;
    uint64_t number = ticket_number(atomic_load_explicit(&c->ticket, memory_order_relaxed)) + 1;
    c->step = step;
    c->arg = arg;
    atomic_store_explicit(&c->n_done, 0, memory_order_relaxed);
    atomic_store(&c->ticket, ticket_make(number & UINT32_MAX, n_parts));
    if (n_parts > 1)
        wake_assistants(c);
    parts_run(c, mine, NULL);
    wait_done(c, n_parts);
}

/* Until there is another step than number `seen`, or no reason to wait for one. */
static bool must_wait(struct crew *c, uint64_t seen, const atomic_bool *leave)
{
    return ticket_number(atomic_load(&c->ticket)) == seen && atomic_load(&c->is_open) &&
           !atomic_load_explicit(leave, memory_order_relaxed);
}

static void wait_step(struct crew *c, uint64_t seen, const atomic_bool *leave)
{
    for (uint64_t began = now_us(); now_us() - began < SPIN_US;)
        for (size_t i = 0; i < PAUSES; i++) {
            if (!must_wait(c, seen, leave))
                return;
            cpu_relax();
        }
    pthread_mutex_lock(&c->lock);
    atomic_fetch_add(&c->n_asleep, 1);
    while (must_wait(c, seen, leave))
        pthread_cond_wait(&c->published, &c->lock);
    atomic_fetch_sub(&c->n_asleep, 1);
    pthread_mutex_unlock(&c->lock);
}

bool crew_assist(struct crew *c, void *mine, const atomic_bool *leave)
{
    atomic_fetch_add_explicit(&c->n_assistants, 1, memory_order_relaxed);
    while (atomic_load(&c->is_open) && !atomic_load_explicit(leave, memory_order_relaxed)) {
        uint64_t seen = ticket_number(atomic_load(&c->ticket));
        if (!parts_run(c, mine, leave))
            wait_step(c, seen, leave);
    }
    atomic_fetch_sub_explicit(&c->n_assistants, 1, memory_order_relaxed);
    return atomic_load(&c->is_open);
}
