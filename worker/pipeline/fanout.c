/*
 * fanout.c: see fanout.h.
 *
 * A message that names its model is decoded twice, here and in its pipeline, which is little beside
 * embedding it. One job is at work at a time, so that messages stay in their order; what comes
 * meanwhile waits for the next one.
 */
#include "worker/pipeline/fanout.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/wakeup.h"
#include "worker/codec/arena.h"
#include "worker/pipeline/backlog.h"
#include "worker/pipeline/stages.h"

/* The source of one pipeline. */
struct branch {
    struct source base;
    struct fanout *fanout;
    size_t n, n_bytes; /* credit */
    bool is_closing;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

enum { ROUTE_MAX = 256, TO_ALL = -1, TO_NOBODY_KNOWN = -2, NO_MEMORY = -3 };

/* Where so many messages go; belongs to the pool while it is there. */
struct route {
    struct job job;
    const struct fanout *fanout;
    struct arena arena;
    struct message *messages[ROUTE_MAX];
    int to[ROUTE_MAX];
    size_t n;
};

struct fanout {
    struct fanout_options options;
    struct source *source;
    struct branch *branches; /* [options.n] */
    size_t n_open;           /* joined and not closing */
    bool has_begun, is_closing, has_ended;
    bool is_end_given;    /* all drain, without a deadline */
    uint64_t deadline_ms; /* of closing */
    size_t asked, asked_bytes;
    char unknown[400]; /* the reason of a dead letter */

    struct backlog waiting; /* for the route */
    struct route route;     /* at the pool while route.n is not 0 */
    size_t waiting_bytes;   /* of both */
    struct pool_user *user; /* NULL: no message names a model */
    struct wakeup wakeup;
};

static struct branch *self(struct source *source)
{
    return (struct branch *)source;
}

/* ---- what is asked for */

static void ask(struct fanout *f)
{
    size_t n = SIZE_MAX, n_bytes = SIZE_MAX, n_waiting = f->waiting.n + f->route.n;
    if (!f->has_begun || f->is_closing)
        return;
    for (size_t i = 0; i < f->options.n; i++) {
        const struct branch *branch = &f->branches[i];
        /* One that closes takes none, so the source is asked for none: all are to drain. */
        size_t room = branch->is_closing || !branch->fanout ? 0 : branch->n;
        n = room < n ? room : n;
        n_bytes = branch->n_bytes < n_bytes ? branch->n_bytes : n_bytes;
    }
    /* What waits for its route is given out of the same credit. */
    n = n > n_waiting ? n - n_waiting : 0;
    n_bytes = n ? n_bytes : 0;
    if (f->waiting_bytes) { /* is given before what comes now */
        n_bytes = n_bytes > f->waiting_bytes ? n_bytes - f->waiting_bytes : 0;
        n = n_bytes ? n : 0;
    }
    if (n == f->asked && n_bytes == f->asked_bytes)
        return;
    f->asked = n;
    f->asked_bytes = n_bytes;
    f->source->ops->request(f->source, n, n_bytes);
}

/* ---- giving */

static void give(struct fanout *f, size_t i, struct message **messages, size_t n)
{
    struct branch *branch = &f->branches[i];
    branch->n -= n < branch->n ? n : branch->n;
    if (branch->fanout && !branch->is_closing) /* else nobody acks it, and it comes again */
        branch->base.events->on_messages(branch->base.ctx, messages, n);
}

static void give_all(struct fanout *f, struct message **messages, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        messages[i]->is_shared = true;
        messages[i]->was_released = false;
        messages[i]->n_holders = (uint32_t)f->options.n;
    }
    for (size_t i = 0; i < f->options.n; i++)
        give(f, i, messages, n);
}

static void end_if_done(struct fanout *f)
{
    /* The source may have ended while messages wait for their route. */
    if (!f->has_ended || f->waiting.n || f->route.n)
        return;
    f->is_end_given = true;
    for (size_t i = 0; i < f->options.n; i++)
        if (f->branches[i].fanout && !f->branches[i].is_closing)
            f->branches[i].base.events->on_end(f->branches[i].base.ctx);
}

/* ---- whom a message is for */

/* On a pool thread. */
static int find_branch(const struct fanout *f, struct arena *arena, const struct message *message)
{
    struct request request;
    struct refusal why;
    bool is_tombstone = stages_is_tombstone(message);
    /* The source could not read it: the first pipeline writes the dead letter. */
    if (message->problem.code && !is_tombstone)
        return 0;
    int err = (is_tombstone ? codec_tombstone : codec_decode)(message, &f->options.decode, arena,
                                                              &request, &why);
    if (err == -ENOMEM) /* the first might have some again, and embed what is another's */
        return NO_MEMORY;
    if (err) /* the first will find that out, too, and say it */
        return 0;
    if (!request.model.ptr)
        return request.is_deleted ? TO_ALL : 0;
    for (size_t i = 0; i < f->options.n; i++)
        if (bytes_are(request.model, f->options.names[i]))
            return (int)i;
    return TO_NOBODY_KNOWN;
}

static void route_run(struct job *job, struct pool_thread *thread)
{
    struct route *route = (struct route *)job;
    (void)thread;
    for (size_t i = 0; i < route->n; i++) {
        /* Of the message before only its route is needed any more. */
        arena_reset(&route->arena);
        route->to[i] = find_branch(route->fanout, &route->arena, route->messages[i]);
    }
}

static void route_next(struct fanout *f)
{
    struct route *route = &f->route;
    if (route->n || !f->waiting.n || f->is_closing)
        return;
    while (route->n < ROUTE_MAX && f->waiting.n)
        route->messages[route->n++] = backlog_take(&f->waiting);
    /* Urgent: no pipeline can begin with what has no route yet. */
    route->job = (struct job){.run = route_run, .lane = f->options.lane, .urgent = true};
    pool_user_submit(f->user, &route->job);
}

/* Runs of messages for one pipeline are one event of it. */
static void route_give(struct fanout *f)
{
    struct route *route = &f->route;
    for (size_t i = 0; i < route->n; i++) /* who gets them may be done with them at once */
        f->waiting_bytes -= route->messages[i]->value.len;
    for (size_t first = 0, n; first < route->n; first += n) {
        int to = route->to[first];
        for (n = 1; first + n < route->n && route->to[first + n] == to; n++) {
        }
        for (size_t i = first; to == TO_NOBODY_KNOWN && i < first + n; i++)
            route->messages[i]->problem = (struct problem){DEAD_LETTER(unknown_model), f->unknown};
        if (to == TO_ALL)
            give_all(f, route->messages + first, n);
        else
            give(f, to < 0 ? 0 : (size_t)to, route->messages + first, n);
    }
    route->n = 0;
}

static void close_source(struct fanout *f);

static void fail_all(struct fanout *f, int err, const char *why)
{
    for (size_t i = 0; i < f->options.n; i++)
        if (f->branches[i].fanout)
            f->branches[i].base.events->on_failed(f->branches[i].base.ctx, err, why);
}

static void on_routed(void *ctx)
{
    struct fanout *f = ctx;
    if (!f->user || !pool_user_finished(f->user))
        return;
    if (f->is_closing)
        return close_source(f);
    for (size_t i = 0; i < f->route.n; i++)
        if (f->route.to[i] == NO_MEMORY) /* nobody has any of them, so they come again */
            return fail_all(f, -ENOMEM, "out of memory");
    route_give(f);
    route_next(f);
    end_if_done(f);
    ask(f);
}

static void send_wakeup(void *ctx)
{
    wakeup_send(&((struct fanout *)ctx)->wakeup);
}

/* ---- events of the source */

static void on_messages(void *ctx, struct message **messages, size_t n)
{
    struct fanout *f = ctx;
    f->asked -= n < f->asked ? n : f->asked;
    f->asked_bytes = 0; /* as credit.c: it is asked for anew */
    if (f->is_closing || !f->n_open)
        return; /* the source is about to be closed, which releases them */
    if (!f->user) {
        give_all(f, messages, n);
    } else if (backlog_add(&f->waiting, messages, n)) {
        fail_all(f, -ENOMEM, "out of memory");
        return;
    } else {
        for (size_t i = 0; i < n; i++)
            f->waiting_bytes += messages[i]->value.len;
        route_next(f);
    }
    ask(f);
}

static void on_end(void *ctx)
{
    struct fanout *f = ctx;
    f->has_ended = true;
    end_if_done(f);
}

static void on_failed(void *ctx, int err, const char *why)
{
    fail_all(ctx, err, why);
}

/* What is for people and metrics is said once: to the first that is there. */
static const struct branch *listener(const struct fanout *f)
{
    for (size_t i = 0; i < f->options.n; i++)
        if (f->branches[i].fanout)
            return &f->branches[i];
    return NULL;
}

static void on_state(void *ctx, enum link_state state, const char *why)
{
    const struct branch *to = listener(ctx);
    if (to)
        to->base.events->on_state(to->base.ctx, state, why);
}

static void on_lag(void *ctx, const char *part, int64_t lag)
{
    const struct branch *to = listener(ctx);
    if (to && to->base.events->on_lag)
        to->base.events->on_lag(to->base.ctx, part, lag);
}

static void on_count(void *ctx, enum counter what, uint64_t n)
{
    const struct branch *to = listener(ctx);
    if (to)
        source_count(&to->base, what, n);
}

static void on_skipped(void *ctx, const struct skipped *skipped)
{
    const struct branch *to = listener(ctx);
    if (to)
        source_skipped(&to->base, skipped);
}

static void on_notice(void *ctx, enum notice level, const char *code, const char *text)
{
    const struct branch *to = listener(ctx);
    if (to && to->base.events->on_notice)
        to->base.events->on_notice(to->base.ctx, level, code, text);
}

static const struct source_events events = {
    .on_messages = on_messages,
    .on_state = on_state,
    .on_end = on_end,
    .on_failed = on_failed,
    .on_lag = on_lag,
    .on_count = on_count,
    .on_skipped = on_skipped,
    .on_notice = on_notice,
};

/* ---- what the pipelines call */

static void branch_request(struct source *source, size_t n, size_t n_bytes)
{
    self(source)->n = n;
    self(source)->n_bytes = n_bytes;
    ask(self(source)->fanout);
}

/* True: nobody else has it any more. */
static bool is_last(struct message *message, bool is_released)
{
    if (!message->is_shared)
        return true;
    assert(message->n_holders > 0);
    message->was_released |= is_released;
    return --message->n_holders == 0;
}

static void branch_ack(struct source *source, struct message *message)
{
    struct source *real = self(source)->fanout->source;
    if (!is_last(message, false))
        return;
    /* The output of one pipeline found it another worker's by now: no ack from here may end it. */
    if (message->is_shared && message->was_released)
        real->ops->release(real, message);
    else
        real->ops->ack(real, message);
}

static void branch_release(struct source *source, struct message *message)
{
    struct source *real = self(source)->fanout->source;
    if (is_last(message, true))
        real->ops->release(real, message);
}

static void on_wakeup_closed(void *ctx)
{
    (void)ctx; /* fanout_free takes the rest */
}

static void on_source_closed(void *ctx)
{
    struct fanout *f = ctx;
    f->source = NULL;
    if (f->user) {
        /* Before the wakeup closes: no thread sends it once the pool is left. */
        pool_leave(f->user);
        f->user = NULL;
        wakeup_close(&f->wakeup, on_wakeup_closed);
    }
    for (size_t i = 0; i < f->options.n; i++)
        if (f->branches[i].closed)
            f->branches[i].closed(f->branches[i].closed_ctx);
}

/* Once no thread reads the bytes of messages any more. */
static void close_source(struct fanout *f)
{
    if (!f->user || pool_user_jobs(f->user) == 0)
        f->source->ops->close(f->source, f->deadline_ms, on_source_closed, f);
}

static void close_if_done(struct fanout *f)
{
    if (!f->has_begun || f->n_open || f->is_closing)
        return;
    f->is_closing = true;
    if (f->user)
        pool_user_cancel(f->user);
    close_source(f);
}

static void branch_close(struct source *source, uint64_t deadline_ms, void (*closed)(void *ctx),
                         void *ctx)
{
    struct branch *branch = self(source);
    struct fanout *f = branch->fanout;
    assert(!branch->is_closing && f->n_open > 0);
    branch->is_closing = true;
    branch->closed = closed;
    branch->closed_ctx = ctx;
    f->n_open--;
    f->deadline_ms = deadline_ms > f->deadline_ms ? deadline_ms : f->deadline_ms;
    ask(f);
    if (f->n_open && !f->is_end_given) /* else they are about to end by themselves */
        f->options.on_ending(f->options.ctx);
    close_if_done(f);
}

static const struct source_ops branch_ops = {
    .request = branch_request,
    .ack = branch_ack,
    .release = branch_release,
    .close = branch_close,
};

/* ---- life */

static void print_unknown(struct fanout *f)
{
    size_t size = sizeof f->unknown;
    size_t at = (size_t)snprintf(f->unknown, size, "'%.60s' is not the name of a model; known are",
                                 f->options.decode.model_field);
    for (size_t i = 0; i < f->options.n && at < size; i++)
        at += (size_t)snprintf(f->unknown + at, size - at, "%s %s", i ? "," : "",
                               f->options.names[i]);
}

static void free_closed(void *ctx)
{
    fanout_free(ctx);
}

int fanout_open(struct fanout **out, uv_loop_t *loop, const struct source_ops *source,
                const struct settings *settings, const struct fanout_options *options, char *err,
                size_t err_size)
{
    struct fanout *f = calloc(1, sizeof *f);
    assert(options->n > 1 && options->pool && options->on_ending);
    snprintf(err, err_size, "out of memory");
    if (!f)
        return -ENOMEM;
    f->options = *options;
    f->route.fanout = f;
    f->branches = calloc(options->n, sizeof *f->branches);
    int rc = f->branches ? 0 : -ENOMEM;
    bool has_names = options->decode.model_field != NULL, is_awake = false;
    if (rc == 0 && has_names) {
        print_unknown(f);
        rc = wakeup_open(&f->wakeup, loop, on_routed, f);
        is_awake = rc == 0;
        if (rc != 0)
            snprintf(err, err_size, "the threads cannot wake the loop: %s", uv_strerror(rc));
    }
    if (is_awake)
        rc = pool_join(&f->user, options->pool, NULL, send_wakeup, f);
    if (rc == 0)
        /* Last: its first event may need all the rest. */
        rc = source->open(&f->source, loop, settings, &events, f, err, err_size);
    if (rc == 0) {
        *out = f;
        return 0;
    }
    pool_leave(f->user);
    f->user = NULL;
    if (is_awake) /* its memory is needed for one more turn of the loop */
        wakeup_close(&f->wakeup, free_closed);
    else
        fanout_free(f);
    return rc;
}

struct source *fanout_join(struct fanout *f, size_t i, const struct source_events *to, void *ctx)
{
    struct branch *branch = &f->branches[i];
    assert(to && to->on_messages && to->on_end && to->on_failed && to->on_state);
    assert(i < f->options.n && !branch->fanout && !f->has_begun);
    *branch = (struct branch){.base = {.ops = &branch_ops, .events = to, .ctx = ctx}, .fanout = f};
    f->n_open++;
    return &branch->base;
}

struct source *fanout_source(struct fanout *f)
{
    return f->source;
}

void fanout_begin(struct fanout *f)
{
    f->has_begun = true;
    ask(f);
    /* Pipelines that failed as they opened have closed already: perhaps all of them. */
    close_if_done(f);
}

void fanout_free(struct fanout *f)
{
    if (!f)
        return;
    backlog_close(&f->waiting);
    arena_close(&f->route.arena);
    free(f->branches);
    free(f);
}
