/*
 * pipeline_rig.c: see pipeline_rig.h.
 */
#define _GNU_SOURCE /* memmem */
#include "tests/support/pipeline_rig.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "worker/pipeline/batch.h"
#include "inference/architecture.h"
#include "worker/codec/prompt.h"

enum { PATIENCE_MS = 20000 };

struct session {
    char scratch[64]; /* written by every call: a session used by two threads is seen by TSan */
};

static struct {
    uv_once_t once;
    uv_mutex_t lock;
    uv_cond_t changed;
    bool hold;
    size_t n_held, n_embedded;
} gate = {.once = UV_ONCE_INIT};

static void gate_init(void)
{
    uv_mutex_init(&gate.lock);
    uv_cond_init(&gate.changed);
}

void rig_hold(bool hold)
{
    uv_mutex_lock(&gate.lock);
    gate.hold = hold;
    uv_cond_broadcast(&gate.changed);
    uv_mutex_unlock(&gate.lock);
}

size_t rig_held(void)
{
    uv_mutex_lock(&gate.lock);
    size_t n = gate.n_held;
    uv_mutex_unlock(&gate.lock);
    return n;
}

size_t rig_embedded(void)
{
    uv_mutex_lock(&gate.lock);
    size_t n = gate.n_embedded;
    uv_mutex_unlock(&gate.lock);
    return n;
}

static void gate_pass(size_t n_texts)
{
    uv_mutex_lock(&gate.lock);
    gate.n_held++;
    while (gate.hold)
        uv_cond_wait(&gate.changed, &gate.lock);
    gate.n_held--;
    gate.n_embedded += n_texts;
    uv_mutex_unlock(&gate.lock);
}

static void vector_of(const char *text, size_t len, float out[RIG_DIM])
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
    double sum = 0, values[RIG_DIM];
    for (size_t i = 0; i < RIG_DIM; i++) {
        hash = hash * 6364136223846793005u + 1442695040888963407u;
        values[i] = (double)(hash >> 40) / (1 << 24) + 0.01;
        sum += values[i] * values[i];
    }
    for (size_t i = 0; i < RIG_DIM; i++)
        out[i] = (float)(values[i] / sqrt(sum));
}

static const struct model_info *fake_info(const struct model *model)
{
    static const struct model_info info = {.name = "fake-model",
                                           .architecture = "none",
                                           .fingerprint = "00112233445566778899aabbccddeeff",
                                           .precision = "exact",
                                           .kernels = "none",
                                           .dim = RIG_DIM,
                                           .max_tokens = RIG_MAX_TOKENS,
                                           .prompts = gemma_prompts};
    (void)model;
    return &info;
}

static int fake_session_open(struct session **out, const struct model *model,
                             const struct session_options *options)
{
    (void)model;
    if (options->dim > RIG_DIM)
        return -EINVAL;
    *out = calloc(1, sizeof **out);
    return *out ? 0 : -ENOMEM;
}

static void fake_session_close(struct session *session)
{
    free(session);
}

static bool says(const struct text *text, const char *word)
{
    return memmem(text->ptr, text->len, word, strlen(word)) != NULL;
}

static void fake_embed(struct session *session, const struct text *texts, size_t n,
                       float *const *rows, struct embed_result *results)
{
    gate_pass(n);
    for (size_t i = 0; i < n; i++) {
        memset(session->scratch, (int)texts[i].len, sizeof session->scratch);
        float *row = rows[i];
        vector_of(texts[i].ptr, texts[i].len, row);
        results[i] = (struct embed_result){.n_tokens = (uint32_t)texts[i].len};
        results[i].truncated = texts[i].len > RIG_MAX_TOKENS;
        if (says(&texts[i], "@long"))
            results[i].status = -E2BIG;
        else if (says(&texts[i], "@bytes"))
            results[i].status = -EILSEQ;
        else if (says(&texts[i], "@memory"))
            results[i].status = -ENOMEM;
        else if (says(&texts[i], "@nan"))
            row[n % RIG_DIM] = NAN;
        if (results[i].status)
            memset(row, 0, RIG_DIM * sizeof *row);
    }
}

static const struct embedder fake_embedder = {
    .info = fake_info, .open = fake_session_open, .embed = fake_embed, .close = fake_session_close};

static void on_link(void *ctx, enum side side, enum link_state state, const char *why)
{
    struct rig *rig = ctx;
    assert_in_range(side, 0, N_SIDES - 1);
    assert_true(state == LINK_UP || why[0]);
    rig->n_link_reported++;
}

static void on_dead_letter(void *ctx, const struct message *message, const char *code,
                           const char *reason)
{
    struct rig *rig = ctx;
    assert_non_null(message->position.ptr);
    assert_true(code[0] && reason[0]);
    rig->n_dead_reported++;
}

static void on_undeliverable(void *ctx, const struct message *message, const char *code,
                             const char *reason)
{
    struct rig *rig = ctx;
    assert_non_null(message->position.ptr);
    assert_true(code[0] && strstr(reason, "its dead letter is refused"));
    rig->n_undeliverable_reported++;
}

/* The times of a batch are in the order in which they happened. */
static void on_embedded(void *ctx, const struct batch *batch)
{
    struct rig *rig = ctx;
    for (size_t i = 0; i < batch->n_slices; i++) {
        assert_true(batch->taken_ns <= batch->slices[i].began_ns);
        assert_true(batch->slices[i].began_ns <= batch->slices[i].ended_ns);
        assert_true(batch->slices[i].ended_ns <= uv_hrtime());
    }
    rig->n_embedded_reported += batch->n_texts;
}

static void on_published(void *ctx, const struct entry *entry)
{
    struct rig *rig = ctx;
    assert_true(entry->batch->taken_ns <= entry->batch->published_ns);
    assert_true(entry->batch->published_ns <= uv_hrtime());
    rig->n_published_reported++;
}

void rig_open(struct rig *rig, size_t n)
{
    memset(rig, 0, sizeof *rig);
    uv_once(&gate.once, gate_init);
    rig_hold(false);
    gate.n_embedded = 0;
    fake_open(&rig->fake, n);
    assert_int_equal(uv_loop_init(&rig->loop), 0);
    rig->options = (struct pipeline_options){
        .n_threads = 2,
        .n_batches = 3,
        .batch_texts = 8,
        .batch_bytes = 4096,
        .linger_ms = 5,
        .drain_ms = 10000,
        .prompt = "document",
        .decode = {.format = INPUT_AUTO, .max_texts = 1000, .max_text_bytes = 100000},
        .embedder = &fake_embedder,
        .observer = {.on_link = on_link},
        .on_dead_letter = on_dead_letter,
        .on_undeliverable = on_undeliverable,
        .on_embedded = on_embedded,
        .on_published = on_published,
    };
}

void rig_close(struct rig *rig)
{
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    fake_close(&rig->fake);
}

void rig_number_texts(struct rig *rig)
{
    static char texts[4000][32];
    for (size_t i = 0; i < rig->fake.n; i++) {
        assert_true(i < sizeof texts / sizeof texts[0]);
        snprintf(texts[i], sizeof texts[i], "text %zu", i);
        rig->fake.messages[i].value = texts[i];
    }
}

static void on_ended(void *ctx, enum pipeline_end how)
{
    struct rig *rig = ctx;
    assert_false(rig->ended);
    assert_false(rig->fake.source_open);
    assert_false(rig->fake.sink_open);
    rig->ended = true;
    rig->how = how;
}

void rig_start(struct rig *rig)
{
    char err[300] = "";
    rig->ended = false;
    rig->fake.script.max_unfinished = rig->options.n_batches * rig->options.batch_texts;
    fake_use(&rig->fake);
    int status = pipeline_open(&rig->pipeline, &rig->loop, rig->model, &fake_source_ops,
                               &fake_sink_ops, NULL, &rig->options, on_ended, rig, err, sizeof err);
    if (status)
        fail_msg("pipeline_open: %d, %s", status, err);
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer; /* wakes the loop */
}

void rig_until(struct rig *rig, bool (*done)(struct rig *rig), const char *what)
{
    uv_timer_t tick;
    uv_timer_init(&rig->loop, &tick);
    uv_timer_start(&tick, on_tick, 5, 5);
    uint64_t deadline = uv_hrtime() + PATIENCE_MS * 1000000ull;
    while (!done(rig) && uv_hrtime() < deadline)
        uv_run(&rig->loop, UV_RUN_ONCE);
    bool reached = done(rig);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&rig->loop, UV_RUN_NOWAIT);
    if (!reached)
        fail_msg("seed %llu: after %d ms still not: %s", (unsigned long long)rig->fake.script.seed,
                 PATIENCE_MS, what);
}

void rig_turn(struct rig *rig, unsigned ms)
{
    uv_timer_t tick;
    uv_timer_init(&rig->loop, &tick);
    uv_timer_start(&tick, on_tick, 1, 1);
    uint64_t deadline = uv_hrtime() + ms * 1000000ull;
    while (uv_hrtime() < deadline)
        uv_run(&rig->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&rig->loop, UV_RUN_NOWAIT);
}

static bool has_ended(struct rig *rig)
{
    return rig->ended;
}

void rig_finish(struct rig *rig, enum pipeline_end how)
{
    rig_until(rig, has_ended, "ended");
    rig->stats = *pipeline_stats(rig->pipeline);
    snprintf(rig->failure, sizeof rig->failure, "%s", pipeline_failure(rig->pipeline));
    pipeline_close(rig->pipeline);
    rig->pipeline = NULL;
    if (rig->how != how)
        fail_msg("seed %llu: ended %d and not %d: %s", (unsigned long long)rig->fake.script.seed,
                 rig->how, how, rig->failure);
    assert_int_equal((rig->failure[0] != '\0'),
                     how == PIPELINE_FAILED || how == PIPELINE_UNFLUSHED);
    assert_int_equal(fake_count(&rig->fake, FAKE_GIVEN), 0);
    assert_int_equal(rig->fake.n_unfinished, 0);
}

void rig_vector(const char *prompt, const char *title, const char *text, float out[RIG_DIM])
{
    char prompted[8192];
    const struct prompt *found =
        prompt_find(fake_info(NULL), (struct bytes){prompt, strlen(prompt)});
    assert_non_null(found);
    struct bytes title_bytes = {title, title ? strlen(title) : 0};
    size_t len = prompt_render(found, title_bytes, (struct bytes){text, strlen(text)}, prompted,
                               sizeof prompted);
    assert_true(len <= sizeof prompted);
    vector_of(prompted, len, out);
}

bool rig_output_has(const struct rig *rig, size_t i, const float vector[RIG_DIM])
{
    const struct fake_message *message = &rig->fake.messages[i];
    return message->value_out &&
           memmem(message->value_out, message->value_out_len, vector, RIG_DIM * sizeof *vector);
}
