/*
 * serve.h: embeddings over HTTP: requests in, vectors out, by the same model and threads as all
 * else.
 *
 * Owns:    routes, admission, keys, drain; how requests of many connections become slices of work.
 * Refuses: sockets (worker/http), what a text becomes (worker/pipeline), the log.
 * Threads: the loop thread.
 * Why:     whoever indexes by a queue must embed queries with the same model, prompts and kernels;
 *          in the same process that takes no second copy and no second configuration.
 */
#ifndef SERVE_H
#define SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "inference/embed.h"
#include "worker/pipeline/pool.h"

struct cache;
struct embedder;
struct serve;

/* One request that has ended, for the access log and metrics. */
struct serve_seen {
    const char *method, *path; /* path: of a route, "other" where there is none */
    size_t model;              /* its place, for one with texts; the first's for others */
    const char *model_name;    /* NULL: there is but one */
    unsigned status;
    bool is_list; /* which of the two lanes */
    bool is_gone; /* the client was, before it had its answer */
    size_t n_texts, n_tokens, n_truncated, n_cached;
    size_t n_bytes_in, n_bytes_out;
    const struct prompt *doubled, *prompt; /* that a text had already, and that it got; or NULL */
    double wait_s; /* from a whole request to the first of its texts at a thread */
    double took_s; /* ... to its answer, the writing of which is not counted */
};

/* A model that is served. */
struct serve_model {
    const char *name; /* the one that clients give; NULL: those of serve_options.models */
    const struct model *model;
    struct cache *cache; /* borrowed until close; NULL: none */
};
enum { SERVE_MODELS_MAX = 8 };

struct serve_options {
    const char *where;     /* as for http_server_open */
    const char *key_file;  /* NULL or "": whoever connects is served */
    bool has_page;         /* for browsers, at / */
    const char *prompt;    /* name; where a request names none */
    const char *models;    /* "a,b": names for one without; NULL or "": those of the model */
    size_t connections;    /* at once */
    size_t body_bytes;     /* largest request */
    size_t max_texts;      /* in one request */
    size_t max_text_bytes; /* of one text */
    size_t queue_tokens;   /* that may wait for a model; more is answered by 429 */
    uint64_t timeout_ms;   /* a request that is not finished by then is answered by 503 */
    uint64_t drain_ms;
    size_t n_threads;
    struct pool *pool; /* of n_threads, borrowed until the end; NULL: one of its own */
    struct session_options session;
    const struct embedder *embedder;                           /* NULL: the sessions of embed.h */
    void (*on_seen)(void *ctx, const struct serve_seen *seen); /* may be NULL */
    void *ctx;
};

/* Counters since start, and what is there now. */
struct serve_stats {
    uint64_t requests, texts, tokens, truncated;
    uint64_t memory_hits, disk_hits, cache_misses; /* texts */
    size_t open_requests;                          /* now */
    struct serve_lane_stats {
        size_t waiting_tokens;
        double tokens_per_second;     /* lately, while there was work; 0: not known yet */
        uint64_t slices, slice_texts; /* taken by threads since start, and the texts in them */
    } queries, lists;                 /* requests of a few texts, and of many */
    struct serve_model_stats {
        const char *name; /* the first that clients may give */
        const struct model_info *info;
        uint64_t requests, texts, tokens, truncated, cached; /* that were answered by vectors */
    } models[SERVE_MODELS_MAX];
    size_t n_models;
    size_t connections;
    struct pool_lane_stats lanes[POOL_LANES]; /* of the pool, whoever uses it */
};

/* models [n_models], 1 to SERVE_MODELS_MAX; a request that names none gets the first that does what
 * it asks for. Does not keep the loop alive while nothing is asked. 0; -EINVAL: an option is wrong;
 * negative errno of the socket; -ENOMEM; err says what to do. */
int serve_open(struct serve **out, uv_loop_t *loop, const struct serve_model *models,
               size_t n_models, const struct serve_options *options, char *err, size_t err_size);
const char *serve_address(const struct serve *serve);
struct serve_stats serve_stats(struct serve *serve);
bool serve_is_draining(const struct serve *serve);
/*
 * From now on requests are answered by 503. ended fires once all that were taken before are
 * answered, or drain_ms have passed, and everything is closed; in_time: it was the former. serve is
 * gone then.
 */
void serve_drain(struct serve *serve, void (*ended)(void *ctx, bool in_time), void *ctx);

#endif
