/*
 * endpoint.h: the life of a source or a sink on the loop, beside what it says to its broker.
 *
 * Owns:    failing and closing, each reported once; the state reported; a pause with backoff after
 *          a refusal; doing later what a call of the pipeline asked for; counting what must be
 *          closed before the owner can be freed.
 * Refuses: what is sent and when: the owner's pump.
 * Threads: the loop thread.
 * Why:     what may be done next is decided in one place, the owner's pump: it runs after each
 *          answer of the broker and, by a timer of 0 ms, after each call of the pipeline, so that
 *          no event fires inside a call and nothing is done twice or forgotten.
 */
#ifndef ENDPOINT_H
#define ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/connector.h"
#include "connectors/health.h"

struct endpoint_ops {
    /* Do what can be done now. Of one that closes: endpoint_finish, once it has failed or all is
     * flushed. */
    void (*pump)(void *owner);
    /* A pause is over; pump follows. May be NULL. */
    void (*resume)(void *owner);
    /* No pump follows: drop what is not done and begin to close all that was opened or held.
     * is_late: the time to flush has passed. NULL: that ends by itself. */
    void (*finish)(void *owner, bool is_late);
    /* Everything is closed: free the owner, and the endpoint with it. */
    void (*free)(void *owner);
};

/* A member of the owner; fields are to be read, and health and backoff to be used. */
struct endpoint {
    uv_loop_t *loop;
    const struct endpoint_ops *ops;
    void *owner;
    struct health health;
    struct backoff backoff; /* of refusals: attempts = 0 once something was accepted */
    bool failed, closing, paused, finished;
    bool is_late;         /* the time to flush has passed */
    bool is_reported;     /* it had failed before it was closed: nothing more is reported */
    const char *deferred; /* failed inside a call: to be reported by the next pump */
    uv_timer_t pump_timer, pause_timer, close_timer;
    size_t n_held;
    /* Of the source's or sink's events, and the rest of close's arguments. */
    void (*on_state)(void *ctx, enum link_state state, const char *why);
    void (*on_failed)(void *ctx, int err, const char *why);
    void (*on_doubt)(void *ctx); /* of a sink; NULL: nobody asks */
    void (*on_notice)(void *ctx, enum notice level, const char *code, const char *text);
    void *ctx;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* parts: of health, that must become good before LINK_UP. From here on the owner is freed by
 * endpoint_finish alone, which an open that fails calls, too. */
void endpoint_open_source(struct endpoint *endpoint, uv_loop_t *loop, const struct source *source,
                          unsigned parts, const struct endpoint_ops *ops, void *owner);
void endpoint_open_sink(struct endpoint *endpoint, uv_loop_t *loop, const struct sink *sink,
                        unsigned parts, const struct endpoint_ops *ops, void *owner);

/* Gone for good: on_failed, unless it was or is closing. */
void endpoint_fail(struct endpoint *endpoint, int err, const char *why);
/* The same of want of memory inside a call of the pipeline: reported from the loop. */
void endpoint_fail_soon(struct endpoint *endpoint);
/* While closing: what was acked is not confirmed, so it comes again. */
void endpoint_unflushed(struct endpoint *endpoint, const char *why);
/* What the library says, unless nobody listens or it is about our own end. */
void endpoint_notice(const struct endpoint *endpoint, enum notice level, const char *code,
                     const char *text);
/* What is refused may be its own fault or everybody's: others are wanted to show it, and soon: the
 * next pauses are short. */
void endpoint_doubt(struct endpoint *endpoint);
/* Nothing is to be sent until the backoff has passed. */
void endpoint_pause(struct endpoint *endpoint);
/* Pump now, in a callback of the loop. */
void endpoint_pump(struct endpoint *endpoint);
/* Pump from the loop, at once or in a while, unless that is due anyway. */
void endpoint_pump_soon(struct endpoint *endpoint);
void endpoint_pump_in(struct endpoint *endpoint, uint64_t ms);

/* The method close of a source or a sink. */
void endpoint_close(struct endpoint *endpoint, uint64_t deadline_ms, void (*closed)(void *ctx),
                    void *ctx);
/* The end, once; what was held may go now. */
void endpoint_finish(struct endpoint *endpoint);

/* One more thing is to be closed before the owner is freed, and it is closed. drop takes the
 * endpoint, as the closed callback of whatever was held. */
void endpoint_hold(struct endpoint *endpoint);
void endpoint_drop(void *endpoint);
/* A timer of the owner's (its data), held; and the end of such a timer or of a handle held. */
void endpoint_timer(struct endpoint *endpoint, uv_timer_t *timer);
void endpoint_close_handle(struct endpoint *endpoint, uv_handle_t *handle);

#endif
