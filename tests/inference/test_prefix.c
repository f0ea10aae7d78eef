/*
 * test_prefix.c: a prompt that is computed once, against the same texts computed whole: the same
 * bits, on every kernel table, in both precisions, in packs of all kinds.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "inference/embed.h"
#include "inference/model.h"
#include "inference/prefix.h"
#include "tests/support/embed_rows.h"

#define MODEL TESTS_DIR "/data/models/tiny-qwen3.gguf"

enum { DIM = 64, N_TEXTS = 14 };

static const char *const tables[] = {"generic", "avx2",        "avxvnni",  "avx512",
                                     "neon",    "avx512-bf16", "neon-i8mm"};
static char err[600];

/* The model has 64 tokens. */
static const struct prompt prompts[] = {
    {"query", "quick brown fox text:", NULL},
    {"other", "quick brown dog over the lazy model text:", NULL},
    {"same", "quick brown fox text:", NULL},
    {"short", "a", NULL},
    {"document", "", NULL},
    {NULL, NULL, NULL},
};

static const char *const texts[N_TEXTS] = {
    "",
    "quick brown fox text:the lazy dog",
    "quick brown fox text: and runs home",
    "the quick brown fox",
    "quick brown fox text:",
    "quick brown dog over the lazy model text:passage of words",
    "quick brown",
    "quick brown fox",
    "quick brown dog over a lazy",
    "quick brown fox text:x",
    "a",
    ("quick brown fox text:the the the the the the the the the the the the the the the the the the "
     "the the the the the the the the the the the the the the the the the the the the the the the"),
    "quick brown dog over the lazy model text:the the the the the the the the the the the the the",
    "words",
};

/* All parts of a step, the last first, in turn with the scratch of two sessions. */
struct turns {
    struct session *mine[2];
};

static size_t run_parts(void *ctx, session_part *step, void *arg, size_t n_parts)
{
    const struct turns *turns = ctx;
    for (size_t part = n_parts; part-- > 0;)
        step(arg, part, turns->mine[part % 2]);
    return 3;
}

static struct model *open_model(const char *table, enum precision precision)
{
    struct model *model = NULL;
    int rc = model_open(&model, MODEL, table, precision, err, sizeof err);
    if (rc == -ENOTSUP)
        return NULL;
    if (rc)
        fail_msg("%s", err);
    assert_int_equal(model_info(model)->dim, DIM);
    model->info.prompts = prompts;
    return model;
}

static void embed(const struct model *model, bool alone, bool shared, size_t n, float *out)
{
    struct turns turns;
    struct session_options options = {0};
    struct embed_result results[N_TEXTS];
    struct text all[N_TEXTS];
    struct session *session = NULL;
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(session_open(&turns.mine[i], model, &options), 0);
    options.parallel = shared ? run_parts : NULL;
    options.parallel_ctx = &turns;
    assert_int_equal(session_open(&session, model, &options), 0);
    for (size_t i = 0; i < n; i++)
        all[i] = (struct text){texts[i], strlen(texts[i])};
    if (alone)
        for (size_t i = 0; i < n; i++)
            session_embed(session, &all[i], 1, (float *[]){out + i * DIM}, &results[i]);
    else
        embed_rows(session, all, n, DIM, out, results);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(results[i].status, 0);
    session_close(session);
    session_close(turns.mine[0]);
    session_close(turns.mine[1]);
}

static void check_same(const float *got, const float *wanted, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(got + i * DIM, wanted + i * DIM, DIM * sizeof *got) != 0)
            fail_msg("%s: other bits of '%s'", what, texts[i]);
}

static void check_table(const char *table, enum precision precision)
{
    static float wanted[N_TEXTS * DIM], got[N_TEXTS * DIM];
    struct model *model = open_model(table, precision);
    if (!model)
        return;
    embed(model, true, false, N_TEXTS, wanted);
    assert_int_equal(model_prepare_prompts(model), 0);
    assert_int_equal(model->n_prefixes, 2); /* neither the same again nor what is too short */
    for (int how = 0; how < 4; how++)
        for (size_t n = 1; n <= N_TEXTS; n++) {
            char what[100];
            snprintf(what, sizeof what, "%s, way %d, %zu texts", table, how, n);
            memset(got, 0, sizeof got);
            embed(model, how & 1, how & 2, n, got);
            check_same(got, wanted, n, what);
        }
    model_close(model);
}

static void test_same_bits(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        check_table(tables[k], PRECISION_EXACT);
        check_table(tables[k], PRECISION_FAST);
    }
}

/* What is kept is what is used: with other rows, texts that have the prompt get other vectors, and
 * the others do not. */
static void test_is_used(void **state)
{
    (void)state;
    static const bool has_prompt[N_TEXTS] = {false, true, true, false, true, true, false,
                                             false, true, true, false, true, true, false};
    static float wanted[N_TEXTS * DIM], got[N_TEXTS * DIM];
    struct model *model = open_model("generic", PRECISION_EXACT);
    assert_int_equal(model_prepare_prompts(model), 0);
    embed(model, false, false, N_TEXTS, wanted);
    for (size_t i = 0; i < model->n_prefixes; i++)
        prefix_rows(&model->prefixes[i], model->n_layers - 1)[0] += 1;
    embed(model, false, false, N_TEXTS, got);
    for (size_t i = 0; i < N_TEXTS; i++)
        if ((memcmp(got + i * DIM, wanted + i * DIM, DIM * sizeof *got) != 0) != has_prompt[i])
            fail_msg("'%s' %s what was kept", texts[i], has_prompt[i] ? "is not made of" : "has");
    model_close(model);
}

/* Token ids, and a text that is cut. */
static void test_ids(void **state)
{
    (void)state;
    struct model *model = open_model("generic", PRECISION_EXACT);
    float rows[2][DIM];
    const struct session_options options = {0};
    for (int turn = 0; turn < 2; turn++) {
        struct session *session = NULL;
        int32_t ids[500];
        size_t n;
        struct embed_result result;
        assert_int_equal(session_open(&session, model, &options), 0);
        const struct text text = {texts[12], strlen(texts[12])};
        assert_int_equal(session_tokenize(session, text, ids, 64, &n, &result), 0);
        for (size_t i = n; i < 100; i++)
            ids[i] = ids[i % n];
        assert_int_equal(session_embed_ids(session, ids, 100, rows[turn], &result), 0);
        assert_true(result.truncated);
        session_close(session);
        if (turn == 0)
            assert_int_equal(model_prepare_prompts(model), 0);
    }
    assert_memory_equal(rows[0], rows[1], sizeof rows[0]);
    model_close(model);
}

/* Prompts longer than all that may be kept, and than the model takes; models that are not causal.
 */
static void test_limits(void **state)
{
    (void)state;
    static char lead[3000];
    static const struct prompt long_prompts[] = {{"long", lead, NULL}, {NULL, NULL, NULL}};
    float rows[2][DIM];
    for (size_t i = 0; i + 6 < sizeof lead; i += 6)
        memcpy(lead + i, " quick", 6);
    struct model *model = open_model("generic", PRECISION_EXACT);
    model->info.prompts = long_prompts;
    for (int turn = 0; turn < 2; turn++) {
        const struct session_options options = {0};
        struct session *session = NULL;
        const struct text text = {lead, strlen(lead)};
        struct embed_result result;
        assert_int_equal(session_open(&session, model, &options), 0);
        session_embed(session, &text, 1, (float *[]){rows[turn]}, &result);
        assert_int_equal(result.status, 0);
        assert_true(result.truncated);
        session_close(session);
        if (turn == 0)
            assert_int_equal(model_prepare_prompts(model), 0);
    }
    assert_int_equal(model->n_prefixes, 1);
    assert_in_range(model->prefixes[0].n, 30, 63);
    assert_memory_equal(rows[0], rows[1], sizeof rows[0]);
    model_close(model);

    assert_int_equal(model_open(&model, TESTS_DIR "/data/models/tiny-xlm-roberta.gguf", NULL,
                                PRECISION_EXACT, err, sizeof err),
                     0);
    assert_non_null(model_info(model)->prompts);
    assert_int_equal(model_prepare_prompts(model), 0);
    assert_int_equal(model->n_prefixes, 0);
    model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_is_used),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests_name("prefix", tests, NULL, NULL);
}
