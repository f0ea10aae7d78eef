/*
 * serve_read.h: the body of a request, read.
 *
 * Owns:    fields of all dialects and their limits.
 * Refuses: sockets; what a field that it does not know is for: those are ignored, as everywhere.
 * Threads: no state.
 */
#ifndef SERVE_READ_H
#define SERVE_READ_H

#include "worker/serve/serve_rules.h"

enum { SERVE_TOKENS_MAX = 1 << 20 };

/* The field that holds the texts: "input". */
const char *serve_input_name(const struct serve_route *route);

/* Reads request->body, and sets request->rules. What is wrong is the request's answer then
 * (serve_fail). */
void serve_read(struct serve_request *request, const struct serve_rules *rules, size_t n_models);

/* A text with its prompt, as prompt_render. */
size_t serve_render(const struct serve_request *request, size_t text, char *to, size_t size);

#endif
