/*
 * serve_setup.h: a server of embeddings from options, for `serve` and for `run --http-listen`.
 *
 * Threads: the main thread, which is the loop thread.
 */
#ifndef SERVE_SETUP_H
#define SERVE_SETUP_H

#include "connectors/settings.h"
#include "worker/serve/serve.h"

struct cache;
struct monitor;
struct pool;

/* What it shares with others of the process. */
struct serve_setup {
    const struct settings *settings;
    const struct model *model;
    size_t n_threads;
    struct session_options session;
    struct cache *cache;     /* NULL: none */
    struct pool *pool;       /* NULL: one of its own */
    struct monitor *monitor; /* which shows it */
};
/* COMMAND_OK, or the exit code and all is said. */
int serve_setup_open(struct serve **out, uv_loop_t *loop, const struct serve_setup *setup);

/* The monitor is about to be closed. */
void serve_setup_forget_monitor(void);

/* As fail of a command, for what is opened by several: says it, and returns the exit code. */
int serve_setup_fail(const char *option, const char *err, int rc);

#endif
