/*
 * serve_rules.c: see serve_rules.h.
 */
#define _GNU_SOURCE /* memrchr */
#include "worker/serve/serve_rules.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "worker/http/http_server.h"

static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_same(struct bytes name, const char *known)
{
    size_t at = 0;
    while (at < name.len && known[at] && fold(name.ptr[at]) == fold(known[at]))
        at++;
    return at == name.len && !known[at];
}

/* "google/EmbeddingGemma-300M" is "embeddinggemma-300m". */
const char *serve_rules_find(const struct serve_rules *rules, struct bytes name)
{
    const char *slash = memrchr(name.ptr, '/', name.len);
    if (slash)
        name = (struct bytes){slash + 1, name.len - (size_t)(slash + 1 - name.ptr)};
    for (size_t i = 0; rules->name[i]; i++) {
        const char *known = strrchr(rules->name[i], '/');
        if (is_same(name, known ? known + 1 : rules->name[i]))
            return rules->name[i];
    }
    if (is_same(name, rules->info->fingerprint))
        return rules->name[0];
    return rules->any_name ? rules->name[0] : NULL;
}

const struct serve_rules *serve_rules_named(struct serve_request *request,
                                            const struct serve_rules *rules, size_t n_models,
                                            struct bytes name)
{
    /* serve_fail has room for 600 bytes, its sentence included. */
    char known[540] = "";
    size_t used = 0;
    for (size_t i = 0; i < n_models; i++)
        if (serve_rules_find(&rules[i], name))
            return &rules[i];
    for (size_t i = 0; i < n_models && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s`%s`", i ? ", " : "",
                                 rules[i].name[0]);
    serve_fail(request, HTTP_NOT_FOUND, "model", "model_not_found",
               "this server has no such model; it has %s", known);
    return NULL;
}

/* Texts are tokenised by any model. */
static bool is_for(const struct serve_rules *rules, enum serve_kind kind)
{
    return kind != SERVE_EMBED ? kind != SERVE_RERANK || rules->info->is_reranker
                               : !rules->info->is_reranker;
}

const struct serve_rules *serve_rules_default(const struct serve_rules *rules, size_t n_models,
                                              enum serve_kind kind)
{
    for (size_t i = 0; i < n_models; i++)
        if (is_for(&rules[i], kind))
            return &rules[i];
    /* None is: serve_rules_can refuses the request. */
    return rules;
}

/* Codes are those of other servers in the same place. */
bool serve_rules_can(struct serve_request *request, const struct serve_rules *rules,
                     size_t n_models)
{
    unsigned status = request->route->dialect == DIALECT_TEI ? HTTP_FAILED : HTTP_BAD_REQUEST;
    enum serve_kind kind = request->route->kind;
    bool is_reranker = request->rules->info->is_reranker;
    const struct serve_rules *other = serve_rules_default(rules, n_models, kind);
    if (is_for(request->rules, kind))
        return !request->status;
    if (is_for(other, kind))
        serve_fail(request, status, "model", "wrong_model",
                   is_reranker ? "this model is a reranker and gives no embeddings; name one that "
                                 "does, like `%s`"
                               : "this model gives embeddings and no scores; name a reranker, "
                                 "like `%s`",
                   other->name[0]);
    else
        serve_fail(request, status, NULL, "wrong_model",
                   is_reranker
                       ? "this server's model is a reranker: it gives scores of texts for a query "
                         "(POST /v1/rerank or /rerank) and no embeddings"
                       : "this server's model gives embeddings (POST /v1/embeddings) and no "
                         "scores; start a server with a reranker for these");
    return false;
}

int serve_rules_name(struct serve_rules *rules, const char *names, char *err, size_t err_size)
{
    size_t n = 0;
    if (!names || !names[0]) {
        snprintf(rules->names, sizeof rules->names, "%s", rules->info->name);
        for (char *c = rules->names; *c; c++)
            *c = *c == ' ' ? '-' : fold(*c);
    } else if (strlen(names) < sizeof rules->names) {
        strcpy(rules->names, names);
    } else {
        snprintf(err, err_size, "names of more than %zu bytes", sizeof rules->names - 1);
        return -EINVAL;
    }
    for (char *save, *name = strtok_r(rules->names, ",", &save); name;
         name = strtok_r(NULL, ",", &save)) {
        name += strspn(name, " ");
        if (strcmp(name, "*") == 0)
            rules->any_name = true;
        else if (n < SERVE_NAMES_MAX)
            rules->name[n++] = name;
    }
    if (n == 0)
        /* Any name is taken, and answers need one. */
        rules->name[n++] = rules->info->name;
    return 0;
}
