/*
 * profile.c: where the time of embedding goes, and how fast this CPU could multiply.
 *
 * Owns:    a kernel table whose functions take the time and call the model's own.
 * Refuses: to be in the way: the model and its table stay as they are, so nothing is measured and
 *          nothing is paid for outside model_profile.
 * Threads: any; the table finds what it measures for in a variable of its thread.
 * Why:     kernels are the stages of the forward pass, so a table is the one place that sees all
 *          of them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "inference/embed.h"
#include "inference/matrix.h"
#include "inference/model.h"

enum stage {
    STAGE_TOKENISE,
    STAGE_ROWS,
    STAGE_QKV,
    STAGE_ROPE,
    STAGE_ATTENTION,
    STAGE_O,
    STAGE_GATE_UP,
    STAGE_GEGLU,
    STAGE_DOWN,
    STAGE_NORM,
    STAGE_POOL,
    STAGE_REST,
};

enum { WARM = 8 }; /* texts embedded before the clock runs */

static const char *const stage_names[PROFILE_STAGES] = {
    "tokenise",     "token rows",     "q, k, v products", "q, k norm RoPE",
    "attention",    "output product", "gate, up",         "GELU, quantise",
    "down product", "norm, quantise", "pooling, dense",   "all else",
};

struct watch {
    const struct model *model; /* its kernels are the real ones */
    struct profile *profile;
    const uint8_t *high, *low; /* where rows were widened to, and which product they are of: */
    enum stage stage;
};

static _Thread_local struct watch watch;

/* The table that product is of. */
static const struct kernels *table_of(enum stage stage)
{
    return stage == STAGE_POOL ? watch.model->exact : watch.model->kernels;
}

/* Of this thread's own work: on a machine that is busy otherwise, shares stay what they are. */
static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void count(enum stage stage, double began, uint64_t macs)
{
    struct profile_stage *s = &watch.profile->stages[stage];
    s->seconds += seconds() - began;
    s->macs += macs;
    s->calls++;
}

static bool is_within(const uint8_t *data, const struct matrix *whole)
{
    return whole->data && data >= whole->data && data < whole->data + matrix_size(whole);
}

/* Which product it is. By address within the file, so that a part of a matrix counts as it. */
static enum stage stage_of(const uint8_t *data)
{
    for (size_t l = 0; l < watch.model->n_layers; l++) {
        const struct layer *layer = &watch.model->layers[l];
        if (is_within(data, &layer->q) || is_within(data, &layer->k) || is_within(data, &layer->v))
            return STAGE_QKV;
        if (is_within(data, &layer->o))
            return STAGE_O;
        if (is_within(data, &layer->gate) || is_within(data, &layer->up) ||
            is_within(data, &layer->ple_gate) || is_within(data, &layer->ple_model))
            return STAGE_GATE_UP;
        if (is_within(data, &layer->down) || is_within(data, &layer->ple_out))
            return STAGE_DOWN;
    }
    /* In no layer: what stands behind the pooling, or a head. */
    return STAGE_POOL;
}

/* What the model needs for the queries of some tokens of a text of n; a table may do more and throw
 * it away. Products q k and p v. */
static uint64_t attention_macs(size_t n, size_t reach, const struct attention_shape *shape,
                               struct span tokens)
{
    uint64_t pairs = 0;
    size_t ahead = shape->is_causal ? 0 : reach;
    for (size_t i = tokens.first; i < tokens.last; i++) {
        /* Written so that nothing overflows, however far a token sees. */
        size_t first = i > reach ? i - reach : 0, last = n - 1 - i > ahead ? i + ahead : n - 1;
        pairs += last - first + 1;
    }
    return 2 * pairs * shape->n_heads * shape->head_dim;
}

static void quantize(void *packed, const float *x, size_t ld, size_t n, size_t k,
                     struct span tokens)
{
    double began = seconds();
    watch.model->kernels->quantize(packed, x, ld, n, k, tokens);
    count(STAGE_NORM, began, 0);
}

static void quantize_exact(void *packed, const float *x, size_t ld, size_t n, size_t k,
                           struct span tokens)
{
    double began = seconds();
    watch.model->exact->quantize(packed, x, ld, n, k, tokens);
    count(STAGE_POOL, began, 0);
}

static void rms_norm_quantize(void *packed, const float *x, const float *weight, float eps,
                              size_t n, size_t k, struct span tokens)
{
    double began = seconds();
    watch.model->kernels->rms_norm_quantize(packed, x, weight, eps, n, k, tokens);
    count(STAGE_NORM, began, 0);
}

static void geglu_quantize(void *packed, const float *gate_up, size_t n, size_t k,
                           struct span tokens)
{
    double began = seconds();
    watch.model->kernels->geglu_quantize(packed, gate_up, n, k, tokens);
    count(STAGE_GEGLU, began, 0);
}

static void glu_quantize(void *packed, const float *gate_up, size_t n, size_t k, enum glu glu,
                         struct span tokens)
{
    double began = seconds();
    watch.model->kernels->glu_quantize(packed, gate_up, n, k, glu, tokens);
    count(STAGE_GEGLU, began, 0);
}

static void gelu_quantize(void *packed, const float *x, const float *bias, size_t n, size_t k,
                          struct span tokens)
{
    double began = seconds();
    watch.model->kernels->gelu_quantize(packed, x, bias, n, k, tokens);
    count(STAGE_GEGLU, began, 0);
}

static void matmul(float *out, size_t ld, const void *packed, size_t n, const struct q8_matrix *w,
                   struct span rows, void *panel)
{
    /* Rows that were widened lie in scratch, and no address says of which matrix they are. */
    bool is_high = w->blocks == watch.high, is_low = w->blocks == watch.low;
    enum stage stage = is_high || is_low ? watch.stage : stage_of(w->blocks);
    double began = seconds();
    table_of(stage)->matmul(out, ld, packed, n, w, rows, panel);
    /* The second digit is part of the first one's products, and takes time but does no more of
     * them. */
    uint64_t macs = is_low ? 0 : n * w->n_in * (rows.last - rows.first);
    count(stage, began, macs);
}

static void widen(uint8_t *high, uint8_t *low, const struct matrix *w, size_t row)
{
    double began = seconds();
    watch.model->kernels->widen(high, low, w, row);
    watch.high = high;
    watch.low = low;
    watch.stage = stage_of(w->data);
    count(watch.stage, began, 0);
}

static void add_rms_norm(float *x, const float *y, const float *weight, float eps, size_t n,
                         size_t k)
{
    double began = seconds();
    watch.model->kernels->add_rms_norm(x, y, weight, eps, n, k);
    count(STAGE_NORM, began, 0);
}

static void rms_norm(float *x, const float *weight, float eps, size_t n, size_t k)
{
    double began = seconds();
    watch.model->kernels->rms_norm(x, weight, eps, n, k);
    count(STAGE_NORM, began, 0);
}

static void bias_scale(float *x, size_t ld, size_t n, const float *bias, size_t k, float scale)
{
    double began = seconds();
    watch.model->kernels->bias_scale(x, ld, n, bias, k, scale);
    count(STAGE_ROPE, began, 0);
}

static void add_layer_norm(float *x, const float *y, const float *bias, const float *weight,
                           const float *shift, float eps, size_t n, size_t k)
{
    double began = seconds();
    watch.model->kernels->add_layer_norm(x, y, bias, weight, shift, eps, n, k);
    count(STAGE_NORM, began, 0);
}

static void norm_rope(float *x, size_t ld, size_t n, size_t n_heads, size_t head_dim,
                      const float *weight, float eps, const float *cos_sin,
                      const uint32_t *positions, float scale)
{
    double began = seconds();
    watch.model->kernels->norm_rope(x, ld, n, n_heads, head_dim, weight, eps, cos_sin, positions,
                                    scale);
    count(STAGE_ROPE, began, 0);
}

static void attention(float *q, const float *k, const float *v, size_t n, size_t reach,
                      const struct attention_shape *shape, struct span tokens, void *scratch)
{
    double began = seconds();
    watch.model->kernels->attention(q, k, v, n, reach, shape, tokens, scratch);
    count(STAGE_ATTENTION, began, attention_macs(n, reach, shape, tokens));
}

static void embed_row(float *out, const struct matrix *w, size_t id, float scale)
{
    double began = seconds();
    watch.model->kernels->embed_row(out, w, id, scale);
    count(STAGE_ROWS, began, 0);
}

static void mean_rows(float *out, const float *x, size_t n, size_t k)
{
    double began = seconds();
    watch.model->kernels->mean_rows(out, x, n, k);
    count(STAGE_POOL, began, 0);
}

/* Functions that return sizes are the real table's. */
static struct kernels table_timed(const struct kernels *real)
{
    struct kernels table = *real;
    table.quantize = quantize;
    table.rms_norm_quantize = rms_norm_quantize;
    table.geglu_quantize = geglu_quantize;
    table.glu_quantize = glu_quantize;
    table.gelu_quantize = gelu_quantize;
    table.widen = widen;
    table.matmul = matmul;
    table.add_rms_norm = add_rms_norm;
    table.rms_norm = rms_norm;
    table.bias_scale = bias_scale;
    table.add_layer_norm = add_layer_norm;
    table.norm_rope = norm_rope;
    table.attention = attention;
    table.embed_row = embed_row;
    table.mean_rows = mean_rows;
    return table;
}

static void profile_run(struct session *session, const struct text *texts, size_t n,
                        float *const *rows, struct embed_result *results, struct profile *profile)
{
    struct profile_stage *stages = profile->stages;
    double began = seconds();
    for (size_t i = 0; i < n; i++) {
        size_t n_ids;
        /* By itself: no kernel says where tokenising begins and ends in session_embed. */
        session_tokenize(session, texts[i], NULL, 0, &n_ids, &results[i]);
    }
    double tokenise = seconds() - began;
    session_embed(session, texts, n < WARM ? n : WARM, rows, results);

    /* What the warm-up counted goes. */
    memset(stages, 0, sizeof profile->stages);
    began = seconds();
    session_embed(session, texts, n, rows, results);
    profile->seconds = seconds() - began;
    /* The call above tokenised, too, and is taken to have been as long at it. */
    stages[STAGE_TOKENISE] = (struct profile_stage){.seconds = tokenise, .calls = n};
    double known = 0;
    for (size_t i = 0; i < PROFILE_STAGES; i++)
        known += stages[i].seconds;
    stages[STAGE_REST].seconds = profile->seconds > known ? profile->seconds - known : 0;
    for (size_t i = 0; i < PROFILE_STAGES; i++) {
        stages[i].name = stage_names[i];
        stages[i].is_product = i == STAGE_QKV || i == STAGE_O || i == STAGE_GATE_UP ||
                               i == STAGE_DOWN || i == STAGE_POOL;
        profile->product_macs += stages[i].is_product ? stages[i].macs : 0;
    }
    for (size_t i = 0; i < n; i++)
        profile->n_tokens += results[i].n_tokens < watch.model->info.max_tokens
                                 ? results[i].n_tokens
                                 : watch.model->info.max_tokens;
}

int model_profile(const struct model *model, const struct text *texts, size_t n,
                  struct profile *out)
{
    const struct kernels table = table_timed(model->kernels);
    struct kernels exact = table_timed(model->exact);
    /* The exact table packs for products behind the pooling alone, which are counted there. */
    exact.quantize = quantize_exact;
    const struct session_options options = {0};
    struct session *session = NULL;
    /* A copy with other tables: what it points to is the model's, and so are the addresses. */
    struct model timed = *model;
    timed.kernels = &table;
    timed.exact = &exact;
    float *all = calloc(n, model->info.dim * sizeof *all), **rows = calloc(n, sizeof *rows);
    struct embed_result *results = calloc(n, sizeof *results);
    int rc = all && rows && results ? session_open(&session, &timed, &options) : -ENOMEM;
    for (size_t i = 0; i < n && rc == 0; i++)
        rows[i] = all + i * model->info.dim;
    if (rc == 0) {
        memset(out, 0, sizeof *out);
        watch = (struct watch){.model = model, .profile = out};
        profile_run(session, texts, n, rows, results, out);
        watch = (struct watch){0};
    }
    session_close(session);
    free(all);
    free(rows);
    free(results);
    return rc;
}

double model_peak(const struct model *model, double at_least)
{
    enum { ROUNDS = 200000, TURNS = 20 }; /* some tenths of a millisecond each */
    const struct kernels *k = model->kernels;
    double best = 0, end = seconds() + at_least;
    k->peak(5 * ROUNDS); /* the clock rises under load */
    for (size_t i = 0; i < TURNS || seconds() < end; i++) {
        double began = seconds();
        uint64_t macs = k->peak(ROUNDS);
        double rate = (double)macs / (seconds() - began);
        /* The best turn: others were disturbed. */
        best = rate > best ? rate : best;
    }
    return best;
}
