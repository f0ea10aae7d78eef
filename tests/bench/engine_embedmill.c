/*
 * engine_embedmill.c: this project's side of the paired benchmark, through the worker's own batch,
 * pool and sessions.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/engine.h"
#include "worker/commands/bench_rig.h"

struct engine {
    struct model *model;
    struct bench_rig *rig;
    struct session *session; /* tokenises */
};

int engine_open(struct engine **out, const char *model, size_t n_threads, const char *setting,
                char *err, size_t err_size)
{
    bool is_fast = strcmp(setting, "fast") == 0;
    if (!is_fast && strcmp(setting, "exact") != 0) {
        snprintf(err, err_size, "%s: expected exact or fast", setting);
        return -EINVAL;
    }
    struct engine *e = calloc(1, sizeof *e);
    if (!e)
        return -ENOMEM;
    int rc = model_open(&e->model, model, getenv("EMBEDMILL_KERNELS"),
                        is_fast ? PRECISION_FAST : PRECISION_EXACT, err, err_size);
    if (rc == 0)
        rc = bench_rig_open(&e->rig, e->model, n_threads,
                            prompt_find(model_info(e->model), (struct bytes){"none", 4}));
    if (rc == 0)
        rc = session_open(&e->session, e->model, &(struct session_options){0});
    if (rc < 0) {
        engine_close(e);
        return rc;
    }
    *out = e;
    return 0;
}

void engine_close(struct engine *e)
{
    if (!e)
        return;
    session_close(e->session);
    bench_rig_close(e->rig);
    model_close(e->model);
    free(e);
}

size_t engine_dim(const struct engine *e)
{
    return model_info(e->model)->dim;
}

int engine_embed(struct engine *e, const struct text *texts, size_t n, float *out,
                 uint32_t *n_tokens)
{
    int rc = bench_rig_embed(e->rig, texts, n);
    if (rc < 0)
        return rc;
    memcpy(out, bench_rig_vectors(e->rig), n * engine_dim(e) * sizeof *out);
    for (size_t i = 0; i < n; i++)
        n_tokens[i] = bench_rig_results(e->rig)[i].n_tokens;
    return 0;
}

int engine_ids(struct engine *e, struct text text, int32_t *ids, size_t max_ids, size_t *n_ids)
{
    struct embed_result result;
    return session_tokenize(e->session, text, ids, max_ids, n_ids, &result);
}
