/*
 * serve_internal.h: what serve.c (the way of a request) and serve_life.c (opening and closing)
 * share. Nobody else includes it.
 */
#ifndef SERVE_INTERNAL_H
#define SERVE_INTERNAL_H

#include "connectors/wakeup.h"
#include "worker/http/http_server.h"
#include "worker/serve/serve.h"
#include "worker/serve/serve_embed.h"
#include "worker/serve/serve_keys.h"

/* One of two ways to the same threads; what waits and who works is apart for each model. */
struct serve_lane {
    struct serve_queue queues[SERVE_MODELS_MAX];
    struct serve_threads threads[SERVE_MODELS_MAX];
};

struct serve {
    struct serve_options options;
    uv_loop_t *loop;
    struct http_server *http;
    struct serve_keys *keys; /* NULL: everybody may ask */
    struct serve_model models[SERVE_MODELS_MAX];
    struct serve_rules rules[SERVE_MODELS_MAX];
    size_t n_models;
    struct pool *pool; /* its own; NULL: another's */
    struct serve_lane queries, lists;
    struct wakeup wakeup;
    uv_timer_t tick; /* deadlines */
    size_t n_handles;
    LIST_HEAD(, serve_request) all;
    size_t n_bytes_out;    /* of answers that clients have not taken yet */
    size_t n_bytes_unread; /* of requests that wait in no queue before they are read */
    size_t n_open;         /* requests with texts, from admission to their end */
    struct serve_stats stats;
    bool is_draining, is_closing, in_time;
    void (*close)(struct serve *serve, bool in_time); /* all of it, once it is drained */
    uint64_t drained_by_ms;
    void (*ended)(void *ctx, bool in_time);
    void *ended_ctx;
};

/* serve.c */
bool serve_wants_body(void *ctx, struct http_request *http); /* as http_server_options */
void serve_on_request(void *ctx, struct http_request *http);
void serve_on_refused(void *ctx, struct http_request *http, unsigned status, const char *why);
void serve_on_gone(void *ctx, struct http_request *http);
void serve_on_done(void *ctx, struct http_request *http);
void serve_on_jobs(void *ctx);         /* some have ended */
void serve_on_tick(uv_timer_t *timer); /* every SERVE_TICK_MS: deadlines */
void serve_answer(struct serve *serve, struct serve_request *request);
void serve_request_free(struct serve_request *request); /* once everybody has let go of it */

enum { SERVE_TICK_MS = 250 };

#endif
