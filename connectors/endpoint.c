/*
 * endpoint.c: see endpoint.h.
 */
#include "connectors/endpoint.h"

#include <assert.h>
#include <errno.h>

/* Of a doubt: pauses of at most 1.6 s. */
#define DOUBT_ATTEMPTS 4

/* After failing and while closing nobody wants to hear of it. */
static void on_state_changed(void *ctx, enum link_state state, const char *why)
{
    struct endpoint *endpoint = ctx;
    if (!endpoint->failed && !endpoint->closing)
        endpoint->on_state(endpoint->ctx, state, why);
}

void endpoint_fail(struct endpoint *endpoint, int err, const char *why)
{
    bool is_news = !endpoint->failed && !endpoint->closing;
    /* Reported once. While closing, a failure only means that nothing needs flushing any more. */
    endpoint->failed = true;
    if (is_news)
        endpoint->on_failed(endpoint->ctx, err, why);
    else
        endpoint_pump_soon(endpoint); /* it need not be flushed any more */
}

void endpoint_fail_soon(struct endpoint *endpoint)
{
    /* Nothing to allocate here: the text is static, and the timer is a member. */
    endpoint->deferred = "out of memory";
    endpoint_pump_soon(endpoint);
}

void endpoint_unflushed(struct endpoint *endpoint, const char *why)
{
    /* A failure that ended the worker was reported before close; a second reason would hide it. */
    if (endpoint->closing && !endpoint->is_reported)
        endpoint->on_failed(endpoint->ctx, -ETIMEDOUT, why);
}

void endpoint_notice(const struct endpoint *endpoint, enum notice level, const char *code,
                     const char *text)
{
    if (endpoint->on_notice && !endpoint->closing)
        endpoint->on_notice(endpoint->ctx, level, code, text);
}

void endpoint_doubt(struct endpoint *endpoint)
{
    /* What comes beside it shows whose fault it is, one message for each doubt: a long pause each
     * time would hold a crowd of them up for minutes. */
    if (endpoint->backoff.attempts > DOUBT_ATTEMPTS)
        endpoint->backoff.attempts = DOUBT_ATTEMPTS;
    if (endpoint->on_doubt && !endpoint->failed && !endpoint->closing)
        endpoint->on_doubt(endpoint->ctx);
}

void endpoint_pump(struct endpoint *endpoint)
{
    const char *deferred = endpoint->deferred;
    /* Failed inside a call of the pipeline, where no event may fire: it fires here. */
    endpoint->deferred = NULL;
    if (deferred)
        endpoint_fail(endpoint, -ENOMEM, deferred);
    /* on_failed above may have closed us, never finished: that takes the loop. */
    if (!endpoint->finished)
        endpoint->ops->pump(endpoint->owner);
}

static void on_pump(uv_timer_t *timer)
{
    endpoint_pump(timer->data);
}

void endpoint_pump_in(struct endpoint *endpoint, uint64_t ms)
{
    /* A pump that is due later is not brought forward: Redis and Kafka ask for one in at most 20
     * ms. */
    if (!endpoint->finished && !uv_is_active((uv_handle_t *)&endpoint->pump_timer))
        uv_timer_start(&endpoint->pump_timer, on_pump, ms, 0);
}

void endpoint_pump_soon(struct endpoint *endpoint)
{
    endpoint_pump_in(endpoint, 0);
}

static void on_pause_over(uv_timer_t *timer)
{
    struct endpoint *endpoint = timer->data;
    endpoint->paused = false;
    if (endpoint->ops->resume)
        endpoint->ops->resume(endpoint->owner);
    endpoint_pump(endpoint);
}

void endpoint_pause(struct endpoint *endpoint)
{
    if (endpoint->paused || endpoint->finished)
        return;
    /* Two refusals of one attempt are one pause: the first has counted it. */
    endpoint->paused = true;
    uv_timer_start(&endpoint->pause_timer, on_pause_over, backoff_next(&endpoint->backoff), 0);
}

/* ---- the end */

static void on_close_deadline(uv_timer_t *timer)
{
    struct endpoint *endpoint = timer->data;
    endpoint->is_late = true;
    endpoint_finish(endpoint);
}

void endpoint_close(struct endpoint *endpoint, uint64_t deadline_ms, void (*closed)(void *ctx),
                    void *ctx)
{
    assert(!endpoint->closing);
    endpoint->closing = true;
    endpoint->is_reported = endpoint->failed;
    endpoint->closed = closed;
    endpoint->closed_ctx = ctx;
    endpoint->backoff.attempts = 0; /* there may be no time for a long pause */
    uv_timer_start(&endpoint->close_timer, on_close_deadline, deadline_ms, 0);
    /* Not endpoint_pump_soon: a pump that is due in a while would delay the flush. */
    uv_timer_start(&endpoint->pump_timer, on_pump, 0, 0);
}

void endpoint_finish(struct endpoint *endpoint)
{
    if (endpoint->finished)
        return;
    /* Before the callback: what it drops may come back here, and no timer may start any more. */
    endpoint->finished = true;
    if (endpoint->ops->finish)
        /* The owner closes what is its own; the last endpoint_drop frees it. */
        endpoint->ops->finish(endpoint->owner, endpoint->is_late);
    endpoint_close_handle(endpoint, (uv_handle_t *)&endpoint->pump_timer);
    endpoint_close_handle(endpoint, (uv_handle_t *)&endpoint->pause_timer);
    endpoint_close_handle(endpoint, (uv_handle_t *)&endpoint->close_timer);
}

void endpoint_hold(struct endpoint *endpoint)
{
    endpoint->n_held++;
}

void endpoint_drop(void *arg)
{
    struct endpoint *endpoint = arg;
    void (*closed)(void *) = endpoint->closed;
    void *ctx = endpoint->closed_ctx;
    assert(endpoint->n_held > 0);
    if (--endpoint->n_held > 0)
        return;
    /* Everything that could still call back is closed: `closed` may even end the program. */
    assert(endpoint->finished);
    endpoint->ops->free(endpoint->owner);
    if (closed)
        closed(ctx);
}

static void on_handle_closed(uv_handle_t *handle)
{
    endpoint_drop(handle->data);
}

void endpoint_close_handle(struct endpoint *endpoint, uv_handle_t *handle)
{
    handle->data = endpoint; /* nothing but its close callback comes any more */
    /* A second uv_close of one handle would call back twice, and free the owner under the rest. */
    assert(!uv_is_closing(handle));
    uv_close(handle, on_handle_closed);
}

void endpoint_timer(struct endpoint *endpoint, uv_timer_t *timer)
{
    uv_timer_init(endpoint->loop, timer);
    timer->data = endpoint->owner;
    endpoint_hold(endpoint);
}

/* ---- the beginning */

static void open_any(struct endpoint *endpoint, unsigned parts)
{
    uv_timer_t *timers[] = {&endpoint->pump_timer, &endpoint->pause_timer, &endpoint->close_timer};
    health_open(&endpoint->health, parts, on_state_changed, endpoint);
    for (size_t i = 0; i < sizeof timers / sizeof timers[0]; i++) {
        endpoint_timer(endpoint, timers[i]);
        /* These call us and not the owner. */
        timers[i]->data = endpoint;
    }
}

void endpoint_open_source(struct endpoint *endpoint, uv_loop_t *loop, const struct source *source,
                          unsigned parts, const struct endpoint_ops *ops, void *owner)
{
    *endpoint = (struct endpoint){.loop = loop,
                                  .ops = ops,
                                  .owner = owner,
                                  .on_state = source->events->on_state,
                                  .on_failed = source->events->on_failed,
                                  .on_notice = source->events->on_notice,
                                  .ctx = source->ctx};
    open_any(endpoint, parts);
}

void endpoint_open_sink(struct endpoint *endpoint, uv_loop_t *loop, const struct sink *sink,
                        unsigned parts, const struct endpoint_ops *ops, void *owner)
{
    *endpoint = (struct endpoint){.loop = loop,
                                  .ops = ops,
                                  .owner = owner,
                                  .on_state = sink->events->on_state,
                                  .on_failed = sink->events->on_failed,
                                  .on_doubt = sink->events->on_doubt,
                                  .on_notice = sink->events->on_notice,
                                  .ctx = sink->ctx};
    open_any(endpoint, parts);
}
