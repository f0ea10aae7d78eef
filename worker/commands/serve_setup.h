/*
 * serve_setup.h: a server of embeddings from options, for `serve` and for `run --http-listen`.
 *
 * Threads: the main thread, which is the loop thread.
 */
#ifndef SERVE_SETUP_H
#define SERVE_SETUP_H

#include "connectors/settings.h"
#include "worker/commands/model_load.h"
#include "worker/serve/serve.h"

struct cache;
struct monitor;
struct pool;

/* What it shares with others of the process. */
struct serve_setup {
    const struct settings *settings;
    const struct model_set *set;
    struct cache *const *caches; /* [set->n], as of serve_setup_caches */
    size_t n_threads;
    struct session_options session;
    struct pool *pool;       /* NULL: one of its own */
    struct monitor *monitor; /* which shows it */
};
/* COMMAND_OK, or the exit code and all is said. */
int serve_setup_open(struct serve **out, uv_loop_t *loop, const struct serve_setup *setup);

/* The caches of the models, [set->n]: one folder for all, and a share of the memory for each;
 * rerankers have none. Returns as serve_setup_open, also for a dimension that a model does not
 * have. */
int serve_setup_caches(struct cache *out[], const struct settings *settings,
                       const struct model_set *set, const struct session_options *session);
void serve_setup_caches_close(struct cache *caches[], size_t n);

/* The monitor is about to be closed. */
void serve_setup_forget_monitor(void);

/* As fail of a command, for what is opened by several: says it, and returns the exit code. */
int serve_setup_fail(const char *option, const char *err, int rc);

#endif
