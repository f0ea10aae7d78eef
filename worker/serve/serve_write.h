/*
 * serve_write.h: answers, in the form of each dialect.
 *
 * Threads: pool threads for requests with texts, the loop thread for the rest.
 */
#ifndef SERVE_WRITE_H
#define SERVE_WRITE_H

#include "worker/serve/serve_embed.h"

/* All texts have their results: the answer, or the error of the first that has none. */
void serve_write_results(struct serve_request *request, const struct serve_threads *threads);
/* The ids of its texts, as the thread's session finds them. */
void serve_write_tokens(struct serve_request *request, const struct pool_thread *thread);
/* What this server is, for clients that adapt to it. */
void serve_write_info(struct serve_request *request, const struct serve_rules *rules,
                      size_t max_tokens_waiting);
/* The description of all paths (openapi.json). */
void serve_write_openapi(struct serve_request *request);
/* For a person's browser (page.html). */
void serve_write_page(struct serve_request *request);
/* rules [n_models]. */
void serve_write_models(struct serve_request *request, const struct serve_rules *rules,
                        size_t n_models);
/* One of them, by the name in the path. */
void serve_write_model(struct serve_request *request, const struct serve_rules *rules,
                       size_t n_models, const char *name);

#endif
