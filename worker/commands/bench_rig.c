/*
 * bench_rig.c: see bench_rig.h.
 */
#include "worker/commands/bench_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <uv.h>

#include "worker/pipeline/batch.h"
#include "worker/pipeline/shares.h"

/* What a pool thread has for itself. */
struct pool_thread {
    struct bench_rig *rig;
    size_t index; /* at the pool */
    struct session *session;
    struct scratch scratch;
};

struct bench_rig {
    const struct prompt *prompt;
    struct batch batch;
    struct shares shares;
    struct item *items; /* [items_room] */
    size_t items_room;
    size_t n_threads;
    struct pool_thread threads[]; /* [n_threads] */
};

/* On a pool thread. */
static void embed_slice(struct job *job, struct pool_thread *thread)
{
    struct slice *slice = (struct slice *)job;
    int err = slice_load(slice, &thread->scratch);
    if (!err)
        session_embed(thread->session, thread->scratch.texts, slice->n, thread->scratch.rows,
                      thread->scratch.results);
    slice_store(slice, &thread->scratch, err);
}

/* As stages_share. */
static size_t share(void *arg, session_part *step, void *step_arg, size_t n_parts)
{
    const struct pool_thread *thread = arg;
    return pool_share(thread->rig->shares.pool, thread->index, step, step_arg, n_parts);
}

static int open_threads(struct bench_rig *rig, const struct model *model)
{
    struct pool_place *places = calloc(rig->n_threads, sizeof *places);
    int rc = places ? 0 : -ENOMEM;
    for (size_t i = 0; i < rig->n_threads && rc == 0; i++) {
        struct pool_thread *thread = &rig->threads[i];
        const struct session_options options = {.parallel = share, .parallel_ctx = thread};
        thread->rig = rig;
        thread->index = i;
        rc = session_open(&thread->session, model, &options);
        places[i] = (struct pool_place){thread, thread->session};
    }
    if (rc == 0)
        rc = shares_open(&rig->shares, rig->n_threads, places);
    free(places);
    return rc;
}

int bench_rig_open(struct bench_rig **out, const struct model *model, size_t n_threads,
                   const struct prompt *prompt)
{
    struct bench_rig *rig = calloc(1, sizeof *rig + n_threads * sizeof rig->threads[0]);
    if (!rig)
        return -ENOMEM;
    rig->prompt = prompt;
    rig->n_threads = n_threads;
    batch_open(&rig->batch, model_info(model)->dim, model_info(model)->max_tokens);
    int rc = open_threads(rig, model);
    if (rc != 0) {
        bench_rig_close(rig);
        return rc;
    }
    *out = rig;
    return 0;
}

void bench_rig_close(struct bench_rig *rig)
{
    if (!rig)
        return;
    shares_close(&rig->shares);
    for (size_t i = 0; i < rig->n_threads; i++) {
        session_close(rig->threads[i].session);
        scratch_close(&rig->threads[i].scratch);
    }
    batch_close(&rig->batch);
    free(rig->items);
    free(rig);
}

static int batch_fill(struct bench_rig *rig, const struct text *texts, size_t n)
{
    if (n > rig->items_room) {
        struct item *items = realloc(rig->items, n * sizeof *items);
        if (!items)
            return -ENOMEM;
        rig->items = items;
        rig->items_room = n;
    }
    for (size_t i = 0; i < n; i++)
        rig->items[i] = (struct item){.text = {texts[i].ptr, texts[i].len}};
    batch_reset(&rig->batch);
    struct entry *entry = batch_add(&rig->batch, NULL);
    if (!entry)
        return -ENOMEM;
    entry->request = (struct request){.items = rig->items, .n_items = n, .many = true};
    entry->prompt = rig->prompt;
    batch_count(&rig->batch, entry);
    return batch_slice(&rig->batch, rig->n_threads);
}

int bench_rig_embed(struct bench_rig *rig, const struct text *texts, size_t n)
{
    struct batch *batch = &rig->batch;
    int rc = batch_fill(rig, texts, n);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < batch->n_slices; i++) {
        batch->slices[i].job.job.run = embed_slice;
        pool_submit(rig->shares.pool, &batch->slices[i].job.job);
    }
    shares_wait(&rig->shares, batch->n_slices);
    for (size_t i = 0; i < n; i++)
        if (batch->results[i].status != 0)
            return batch->results[i].status;
    return 0;
}

const float *bench_rig_vectors(const struct bench_rig *rig)
{
    return rig->batch.vectors;
}

const struct embed_result *bench_rig_results(const struct bench_rig *rig)
{
    return rig->batch.results;
}
