/*
 * serve_setup.h: a server of embeddings from options, for `serve` and for `run --http-listen`.
 *
 * Threads: the main thread, which is the loop thread.
 */
#ifndef SERVE_SETUP_H
#define SERVE_SETUP_H

#include "connectors/settings.h"
#include "worker/serve/serve.h"

/* All but threads, session and cache, which are the caller's to fill in. */
struct serve_options serve_setup_options(const struct settings *settings);

#endif
