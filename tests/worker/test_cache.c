/*
 * test_cache.c: a tiny model behind the cache gives the bytes that it gives without; what was
 * embedded once is not embedded again; and whatever decides a vector is a part of its key.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/cache_folder.h"
#include "tests/support/pipeline_rig.h"
#include "tests/support/tiny_model.h"
#include "worker/pipeline/cache.h"
#include "tests/support/embed_rows.h"

enum { N = 40, N_CTX = 64 };

static char texts_of[2 * N][200];
static struct text texts[2 * N];

/* What one call came to. */
struct answer {
    float rows[2 * N * TINY_MODEL_DIM];
    struct embed_result results[2 * N];
    struct cache_hits hits;
};

static const struct session_options plain;
static const struct cache_options in_memory = {.memory_bytes = 1 << 20};

static struct cache_options on_disk(void)
{
    return (struct cache_options){.folder = cache_folder, .disk_bytes = 64 << 20};
}

/* Of all lengths, the longest beyond what the model takes; one empty, one not UTF-8. */
static void texts_make(void)
{
    unsigned random = 3;
    for (size_t i = 0; i < 2 * N; i++) {
        size_t len = i % 8 == 7 ? 150 : i % N;
        snprintf(texts_of[i], sizeof texts_of[i], "%zu", i);
        for (size_t at = strlen(texts_of[i]); at < len; at++) {
            random = random * 1103515245 + 12345;
            texts_of[i][at] = "the weather in June"[random / 65536 % 19];
        }
        texts[i] = (struct text){texts_of[i], strlen(texts_of[i])};
    }
    texts[3] = (struct text){NULL, 0};
    texts[4] = (struct text){"\xff\xc3", 2};
}

static struct cache *cache_make(const struct cache_options *options, const struct model *model,
                                const struct embedder *embedder,
                                const struct session_options *session)
{
    struct cache *cache = NULL;
    char err[300] = "";
    if (cache_open(&cache, options, model, embedder, session, err, sizeof err) != 0)
        fail_msg("%s", err);
    assert_non_null(cache);
    return cache;
}

/* Texts [first, first + n) through a lane of its own. */
static void ask(struct cache *cache, const struct model *model, const struct embedder *embedder,
                const struct session_options *options, size_t first, size_t n, struct answer *out)
{
    struct session *session;
    struct cache_lane *lane;
    memset(out, 0x55, sizeof *out);
    assert_int_equal(embedder->open(&session, model, options), 0);
    assert_int_equal(cache_lane_open(&lane, cache, embedder, session), 0);
    size_t dim = options->dim ? options->dim : TINY_MODEL_DIM;
    float *rows[N];
    for (size_t i = 0; i < n; i++)
        rows[i] = out->rows + i * dim;
    cache_embed(lane, texts + first, n, rows, out->results, &out->hits);
    cache_lane_close(lane);
    embedder->close(session);
    assert_int_equal(out->hits.memory + out->hits.disk + out->hits.misses, n);
}

static void assert_as_without(const struct model *model, const struct session_options *options,
                              size_t first, size_t n, const struct answer *got)
{
    static struct answer wanted;
    struct session *session;
    size_t dim = options->dim ? options->dim : TINY_MODEL_DIM, n_cut = 0;
    assert_int_equal(session_open(&session, model, options), 0);
    embed_rows(session, texts + first, n, dim, wanted.rows, wanted.results);
    session_close(session);
    assert_memory_equal(got->rows, wanted.rows, n * dim * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(got->results[i].status, wanted.results[i].status);
        assert_int_equal(got->results[i].n_tokens, wanted.results[i].n_tokens);
        assert_int_equal(got->results[i].truncated, wanted.results[i].truncated);
        n_cut += wanted.results[i].truncated;
    }
    assert_true(n_cut > 0 || n < 8 || options->too_long == TOO_LONG_ERROR);
}

static void test_same_bytes(void **state)
{
    const struct model *model = *state;
    const struct session_options options[] = {{.dim = 0}, {.dim = 32}};
    static struct answer got;
    for (size_t o = 0; o < 2; o++) {
        struct cache *cache = cache_make(&in_memory, model, &embedder_sessions, &options[o]);
        ask(cache, model, &embedder_sessions, &options[o], 0, N, &got);
        assert_int_equal(got.hits.misses, N);
        assert_as_without(model, &options[o], 0, N, &got);
        ask(cache, model, &embedder_sessions, &options[o], 0, N, &got);
        assert_int_equal(got.hits.memory, N);
        assert_as_without(model, &options[o], 0, N, &got);
        /* Known and unknown ones in one call. */
        ask(cache, model, &embedder_sessions, &options[o], N / 2, N, &got);
        assert_int_equal(got.hits.memory, N / 2);
        assert_as_without(model, &options[o], N / 2, N, &got);
        cache_close(cache);
    }
}

static size_t n_found(const struct cache_options *options, const struct model *model,
                      const struct embedder *embedder, const struct session_options *session)
{
    static struct answer got;
    struct cache *cache = cache_make(options, model, embedder, session);
    ask(cache, model, embedder, session, 0, N, &got);
    cache_close(cache);
    if (embedder == &embedder_sessions)
        assert_as_without(model, session, 0, N, &got);
    return got.hits.memory + got.hits.disk;
}

static void test_disk(void **state)
{
    const struct model *model = *state;
    struct cache_options disk = on_disk(), both = on_disk();
    static struct answer got;
    both.memory_bytes = 1 << 20;
    assert_int_equal(n_found(&disk, model, &embedder_sessions, &plain), 0);
    assert_int_equal(n_found(&disk, model, &embedder_sessions, &plain), N);
    struct cache *cache = cache_make(&both, model, &embedder_sessions, &plain);
    assert_int_equal(cache_on_disk(cache), N);
    ask(cache, model, &embedder_sessions, &plain, 0, N, &got);
    assert_int_equal(got.hits.disk, N);
    ask(cache, model, &embedder_sessions, &plain, 0, N, &got);
    assert_int_equal(got.hits.memory, N); /* what came from disk is in memory */
    assert_as_without(model, &plain, 0, N, &got);
    cache_close(cache);
}

/* An engine of another version: the same names, other numbers. */
static void embed_otherwise(struct session *session, const struct text *some, size_t n,
                            float *const *rows, struct embed_result *results)
{
    session_embed(session, some, n, rows, results);
    for (size_t i = 0; i < n; i++)
        for (size_t d = 0; d < TINY_MODEL_DIM; d++)
            rows[i][d] = -rows[i][d];
}

static void test_what_decides_a_vector_is_in_its_key(void **state)
{
    const struct model *model = *state;
    struct cache_options disk = on_disk();
    const struct session_options others[] = {
        {.dim = 32}, {.too_long = TOO_LONG_ERROR}, {.bad_utf8 = BAD_UTF8_ERROR}};
    assert_int_equal(n_found(&disk, model, &embedder_sessions, &plain), 0);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_int_equal(n_found(&disk, model, &embedder_sessions, &others[i]), 0);

    struct tiny_model_options tiny = {.n_layers = 2, .n_ctx = N_CTX, .with_dense = true, .seed = 9};
    struct model *other;
    assert_int_equal(tiny_model_open(&other, &tiny), 0);
    assert_int_equal(n_found(&disk, other, &embedder_sessions, &plain), 0);
    model_close(other);

    struct embedder newer = embedder_sessions;
    newer.embed = embed_otherwise;
    assert_int_equal(n_found(&disk, model, &newer, &plain), 0);
    assert_int_equal(n_found(&disk, model, &embedder_sessions, &plain), N);
}

static void test_failures_are_not_kept(void **state)
{
    const struct model *model = *state;
    const struct session_options strict = {.too_long = TOO_LONG_ERROR, .bad_utf8 = BAD_UTF8_ERROR};
    static struct answer got;
    struct cache *cache = cache_make(&in_memory, model, &embedder_sessions, &strict);
    for (size_t round = 0; round < 2; round++) {
        ask(cache, model, &embedder_sessions, &strict, 0, N, &got);
        assert_as_without(model, &strict, 0, N, &got);
        assert_int_equal(got.results[4].status, -EILSEQ);
        assert_int_equal(got.results[7].status, -E2BIG);
        assert_int_equal(got.hits.misses, round ? 1 + N / 8 : N);
    }
    cache_close(cache);
}

static void test_none(void **state)
{
    struct cache *cache = NULL;
    struct cache_options options = {.folder = ""};
    char err[300];
    assert_int_equal(
        cache_open(&cache, &options, *state, &embedder_sessions, &plain, err, sizeof err), 0);
    assert_null(cache);
    cache_flush(NULL);
    assert_false(cache_complaint(NULL, err, sizeof err));
    cache_close(NULL);
    options.folder = "/dev/null/cache";
    assert_int_equal(
        cache_open(&cache, &options, *state, &embedder_sessions, &plain, err, sizeof err), -EINVAL);
    assert_null(cache);
    assert_non_null(strstr(err, "/dev/null/cache"));
}

/* A pipeline twice over the same messages; a prompt is a part of the text. */
static void test_pipeline(void **state)
{
    static const char *const prompts[] = {"document", "document", "query"};
    struct cache_options disk = on_disk();
    for (size_t run = 0; run < 3; run++) {
        struct rig rig;
        rig_open(&rig, 500);
        rig_number_texts(&rig);
        rig.fake.script.finite = true;
        rig.model = *state;
        rig.options.embedder = NULL;
        rig.options.prompt = prompts[run];
        struct cache *cache = cache_make(&disk, rig.model, &embedder_sessions, &plain);
        rig.options.cache = cache;
        rig_start(&rig);
        rig_finish(&rig, PIPELINE_DRAINED);
        assert_int_equal(rig.stats.texts, 500);
        assert_int_equal(rig.stats.embedded_texts, 500);
        assert_int_equal(rig.stats.memory_hits, 0);
        assert_int_equal(rig.stats.disk_hits, run == 1 ? 500 : 0);
        assert_int_equal(rig.stats.cache_misses, run == 1 ? 0 : 500);
        rig_close(&rig);
        cache_close(cache);
    }
}

static int model_make(void **state)
{
    struct tiny_model_options options = TINY_MODEL_DEFAULTS;
    options.n_ctx = N_CTX;
    texts_make();
    return tiny_model_open((struct model **)state, &options);
}

static int model_end(void **state)
{
    model_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test_setup_teardown(test_disk, cache_folder_make, cache_folder_remove),
        cmocka_unit_test_setup_teardown(test_what_decides_a_vector_is_in_its_key, cache_folder_make,
                                        cache_folder_remove),
        cmocka_unit_test(test_failures_are_not_kept),
        cmocka_unit_test(test_none),
        cmocka_unit_test_setup_teardown(test_pipeline, cache_folder_make, cache_folder_remove),
    };
    return cmocka_run_group_tests(tests, model_make, model_end);
}
