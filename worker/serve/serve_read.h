/*
 * serve_read.h: the body of a request, read.
 *
 * Owns:    fields of all dialects and their limits.
 * Refuses: sockets; what a field that it does not know is for: those are ignored, as everywhere.
 * Threads: no state.
 */
#ifndef SERVE_READ_H
#define SERVE_READ_H

#include "worker/serve/serve_request.h"

enum { SERVE_NAMES_MAX = 16, SERVE_TOKENS_MAX = 1 << 20 };

/* The same for all requests. */
struct serve_rules {
    const struct model_info *info;
    const struct prompt *prompt; /* where a request names none */
    size_t dim;                  /* most, and where a request asks for none */
    size_t max_texts, max_text_bytes;
    bool refuses_long;                     /* where a request does not say */
    int32_t ends[2];                       /* bos and eos ... */
    size_t n_ends;                         /* ... 2, or 0: the model has none */
    char names[1024];                      /* of the model, each ended by a zero */
    const char *name[SERVE_NAMES_MAX + 1]; /* NULL behind the last; the first is the model's own */
    bool any_name;
};

/* names: "a,b" or "": of the model itself. file: its path, or NULL. 0 or -EINVAL and a sentence. */
int serve_rules_name(struct serve_rules *rules, const char *names, char *err, size_t err_size);
/* Which of the model's names a client has given: letter case and what comes before the last slash
 * do not count. NULL: none of them. */
const char *serve_rules_find(const struct serve_rules *rules, struct bytes name);

/* The field that holds the texts: "input". */
const char *serve_input_name(const struct serve_route *route);

/* Reads request->body. What is wrong is the request's answer then (serve_fail). */
void serve_read(struct serve_request *request, const struct serve_rules *rules);

/* A text with its prompt, as prompt_render. */
size_t serve_render(const struct serve_request *request, size_t text, char *to, size_t size);

#endif
