/*
 * test_embed.c: the judge. Every reference text on the real model, on every kernel table of this
 * CPU.
 *
 * - token ids equal the reference's,
 * - cosine to embeddings_q8.f32 (the same Q8_0 weights, float32 activations) at least 0.99999 for
 *   each text, to embeddings.f32 (float32 weights) at least 0.9997 on average and 0.999 each,
 * - the same text gives the same bytes whatever its batch-mates, its place, its thread.
 *
 * The model is EMBEDMILL_TEST_MODEL or the cache's file; without it the tests are skipped, and say
 * so.
 */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "inference/embed.h"
#include "tests/support/tokenizer_toy.h"
#include "tests/support/embed_rows.h"

enum { TEXTS = 83, DIM = 768, QUICK = 76 /* texts before the long ones */ };

static struct text texts[TEXTS];
static float reference[TEXTS * DIM], reference_q8[TEXTS * DIM];
static char model_path[1024];

static void floats_read(const char *name, float *out)
{
    char path[1024];
    snprintf(path, sizeof path, TESTS_DIR "/data/%s", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(out, sizeof *out, TEXTS * DIM, f), TEXTS * DIM);
    fclose(f);
}

static int texts_read(void **state)
{
    (void)state;
    FILE *f = fopen(TESTS_DIR "/data/texts.jsonl", "r");
    assert_non_null(f);
    char *line = NULL;
    size_t room = 0, n = 0;
    while (getline(&line, &room, f) > 0) {
        json_t *object = json_loads(line, JSON_ALLOW_NUL, NULL);
        json_t *text = json_object_get(object, "text");
        assert_non_null(text);
        size_t len = json_string_length(text);
        char *copy = malloc(len + 1);
        assert_non_null(copy);
        memcpy(copy, json_string_value(text), len);
        texts[n++] = (struct text){copy, len};
        json_decref(object);
    }
    free(line);
    fclose(f);
    assert_int_equal(n, TEXTS);
    floats_read("embeddings.f32", reference);
    floats_read("embeddings_q8.f32", reference_q8);
    return 0;
}

static int texts_free(void **state)
{
    (void)state;
    for (size_t i = 0; i < TEXTS; i++)
        free((void *)(uintptr_t)texts[i].ptr);
    return 0;
}

/* The model on one kernel table, or NULL when this CPU lacks it. */
static struct model *model_get(const char *kernels)
{
    char err[512];
    struct model *model = NULL;
    if (!real_model_path(model_path, sizeof model_path))
        skip();
    int rc = model_open(&model, model_path, kernels, PRECISION_EXACT, err, sizeof err);
    if (rc < 0 && kernels) {
        print_message("not tested on this machine: %s\n", err);
        return NULL;
    }
    if (rc < 0)
        fail_msg("%s", err);
    return model;
}

static double cosine(const float *a, const float *b)
{
    double ab = 0, aa = 0, bb = 0;
    for (size_t i = 0; i < DIM; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return ab / sqrt(aa * bb);
}

static void judge(const struct model *model, size_t n)
{
    static float out[TEXTS * DIM];
    struct embed_result results[TEXTS];
    struct session_options options = {0};
    struct session *session;
    assert_int_equal(session_open(&session, model, &options), 0);
    embed_rows(session, texts, n, DIM, out, results);
    double least_q8 = 1, least = 1, mean = 0;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(results[i].status, 0);
        double q8 = cosine(out + i * DIM, reference_q8 + i * DIM);
        double f32 = cosine(out + i * DIM, reference + i * DIM);
        if (!(q8 >= 0.99999 && f32 >= 0.999))
            fail_msg("%s, text %zu: cosine %.7f to the Q8_0 reference, %.7f to the float32 one",
                     model_info(model)->kernels, i, q8, f32);
        least_q8 = fmin(least_q8, q8);
        least = fmin(least, f32);
        mean += f32 / (double)n;
    }
    print_message(
        "%s, %zu texts: cosine to Q8_0 reference min %.8f; to float32 mean %.6f min %.6f\n",
        model_info(model)->kernels, n, least_q8, mean, least);
    assert_true(mean >= 0.9997);
    assert_int_equal(results[n - 1].truncated, n == TEXTS); /* the last one has 3,512 tokens */
    if (n == TEXTS)
        assert_int_equal(results[n - 1].n_tokens, 3512);
    session_close(session);
}

static void test_judge(void **state)
{
    (void)state;
    static const char *const names[] = {"avx512-bf16", "avx512",    "avxvnni",
                                        "avx2",        "neon-i8mm", "neon"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct model *model = model_get(names[i]);
        if (model)
            judge(model, TEXTS);
        model_close(model);
    }
}

static void test_judge_generic(void **state) /* slow: the long texts are left to the others */
{
    (void)state;
    struct model *model = model_get("generic");
    judge(model, QUICK);
    model_close(model);
}

/* Ten texts of all kinds, alone and among others, in any order: the same bytes. */
static void test_same_bytes(void **state)
{
    (void)state;
    static const char *const names[] = {"avx512-bf16", "avx512", "avxvnni", "avx2",
                                        "neon-i8mm",   "neon",   "generic"};
    static const size_t picked[] = {0, 8, 20, 28, 30, 31, 36, 64, 72, 75};
    enum { N = 10 };
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        struct model *model = model_get(names[k]);
        if (!model)
            continue;
        struct session *session;
        struct session_options options = {0};
        struct embed_result results[N];
        static float alone[N * DIM], together[N * DIM];
        struct text mixed[N];
        assert_int_equal(session_open(&session, model, &options), 0);
        for (size_t i = 0; i < N; i++)
            session_embed(session, &texts[picked[i]], 1, (float *[]){alone + i * DIM}, results);
        for (size_t turn = 0; turn < 3; turn++) {
            for (size_t i = 0; i < N; i++)
                mixed[i] = texts[picked[(i * 7 + turn * 3) % N]];
            embed_rows(session, mixed, N, DIM, together, results);
            for (size_t i = 0; i < N; i++)
                assert_memory_equal(together + i * DIM, alone + (i * 7 + turn * 3) % N * DIM,
                                    DIM * sizeof(float));
        }
        session_close(session);
        model_close(model);
    }
}

struct on_thread {
    const struct model *model;
    float out[8 * DIM];
};

static void *embed_some(void *arg)
{
    struct on_thread *t = arg;
    struct session *session;
    struct session_options options = {0};
    struct embed_result results[8];
    if (session_open(&session, t->model, &options) == 0) {
        embed_rows(session, texts, 8, DIM, t->out, results);
        session_close(session);
    }
    return NULL;
}

static void test_threads_share_a_model(void **state)
{
    (void)state;
    static struct on_thread threads[3];
    struct model *model = model_get(NULL);
    pthread_t ids[3];
    for (size_t i = 0; i < 3; i++) {
        threads[i].model = model;
        assert_int_equal(pthread_create(&ids[i], NULL, embed_some, &threads[i]), 0);
    }
    for (size_t i = 0; i < 3; i++)
        pthread_join(ids[i], NULL);
    for (size_t i = 1; i < 3; i++)
        assert_memory_equal(threads[0].out, threads[i].out, sizeof threads[0].out);
    model_close(model);
}

static void test_policies(void **state)
{
    (void)state;
    struct model *model = model_get(NULL);
    struct session *session;
    struct session_options strict = {
        .too_long = TOO_LONG_ERROR, .bad_utf8 = BAD_UTF8_ERROR, .dim = 256};
    struct session_options cut = {.dim = 256};
    struct text bad = {"caf\xe9", 4}, replaced = {"caf\xef\xbf\xbd", 6};
    struct text some[4] = {texts[82], bad, texts[0], replaced};
    struct embed_result results[4];
    static float out[4 * 256], again[4 * 256], zero[256];
    assert_int_equal(session_open(&session, model, &strict), 0);
    embed_rows(session, some, 4, 256, out, results);
    assert_int_equal(results[0].status, -E2BIG);
    assert_int_equal(results[0].n_tokens, 3512);
    assert_int_equal(results[1].status, -EILSEQ);
    assert_int_equal(results[2].status, 0);
    assert_memory_equal(out, zero, sizeof zero);
    assert_memory_equal(out + 256, zero, sizeof zero);
    session_close(session);
    assert_int_equal(session_open(&session, model, &cut), 0);
    embed_rows(session, some + 1, 3, 256, again, results);
    assert_memory_equal(again + 256, out + 2 * 256, 256 * sizeof(float));
    assert_memory_equal(again, again + 2 * 256, 256 * sizeof(float));
    double length = 0;
    for (size_t i = 0; i < 256; i++)
        length += (double)again[i] * (double)again[i];
    assert_true(fabs(length - 1) < 1e-5); /* Matryoshka: unit length again */
    session_close(session);
    struct session_options odd = {.dim = 100};
    assert_int_equal(session_open(&session, model, &odd), -EINVAL);
    model_close(model);
}

static void test_open_errors(void **state)
{
    (void)state;
    struct model *model = NULL;
    char err[512] = "";
    assert_int_equal(
        model_open(&model, "/no/such/model.gguf", NULL, PRECISION_EXACT, err, sizeof err), -ENOENT);
    assert_non_null(strstr(err, "/no/such/model.gguf"));
    assert_int_equal(model_open(&model, "/dev/null", "mmx", PRECISION_EXACT, err, sizeof err),
                     -ENOTSUP);
    assert_non_null(strstr(err, "generic"));
    assert_null(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_errors),           cmocka_unit_test(test_judge),
        cmocka_unit_test(test_judge_generic),         cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_threads_share_a_model), cmocka_unit_test(test_policies),
    };
    return cmocka_run_group_tests(tests, texts_read, texts_free);
}
