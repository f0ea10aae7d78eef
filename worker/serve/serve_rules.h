/*
 * serve_rules.h: the models of a server: what holds for requests to each, by which names clients
 * know it, and which one a request means.
 *
 * Threads: no state; rules do not change after open.
 */
#ifndef SERVE_RULES_H
#define SERVE_RULES_H

#include "worker/serve/serve_request.h"

enum { SERVE_NAMES_MAX = 16 };

/* The same for all requests to one model. A server's models are an array of these, [n_models]: the
 * first that does what is asked is the one where a request names none. */
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
 * do not count; the fingerprint is its first name. NULL: none of them. */
const char *serve_rules_find(const struct serve_rules *rules, struct bytes name);
/* The model that has a name; NULL: there is none, and that is the request's answer. */
const struct serve_rules *serve_rules_named(struct serve_request *request,
                                            const struct serve_rules *rules, size_t n_models,
                                            struct bytes name);
/* The one where a request of this kind names none. */
const struct serve_rules *serve_rules_default(const struct serve_rules *rules, size_t n_models,
                                              enum serve_kind kind);
/* False: it is not what request->rules, one of rules [n_models], is for, and that is its answer. */
bool serve_rules_can(struct serve_request *request, const struct serve_rules *rules,
                     size_t n_models);

#endif
