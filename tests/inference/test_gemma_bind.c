/*
 * test_gemma_bind.c: files of EmbeddingGemma that are nearly as they should be.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "inference/embed.h"
#include "tests/support/tiny_model.h"

enum { LAYERS = 2, CONTEXT = 1400 };

static char err[600];

/* A key, and the bytes of the value that the file is made to have. */
struct change {
    const char *key;
    const void *value;
    size_t size;
};

/* What model_open says of a model with these keys changed. */
static int open_changed(struct model **out, const struct change *changes, size_t n)
{
    struct gguf_writer file = {0};
    struct tiny_model_options options = TINY_MODEL_DEFAULTS;
    char path[] = "/tmp/embedmill-gemma-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    options.n_layers = LAYERS;
    options.n_ctx = CONTEXT;
    tiny_model_build(&file, &options);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(changes[i].key);
        uint8_t *at = memmem(file.bytes, file.len, changes[i].key, len);
        assert_non_null(at);
        memcpy(at + len + 4, changes[i].value, changes[i].size); /* 4: the type of the value */
    }
    assert_int_equal(gguf_writer_save(&file, path), 0);
    int rc = model_open(out, path, NULL, PRECISION_EXACT, err, sizeof err);
    unlink(path);
    gguf_writer_free(&file);
    return rc;
}

/* A model whose sliding window is what the file is made to say. */
static struct model *model_of(uint32_t window)
{
    const struct change change = {"gemma-embedding.attention.sliding_window", &window,
                                  sizeof window};
    struct model *model = NULL;
    if (open_changed(&model, &change, 1))
        fail_msg("%s", err);
    return model;
}

static void embed(const struct model *model, float out[TINY_MODEL_DIM])
{
    char text[1300];
    struct session *session = NULL;
    const struct session_options options = {0};
    struct embed_result result;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = "xyzzyqkjwv"[i * 7 % 10];
    assert_int_equal(session_open(&session, model, &options), 0);
    session_embed(session, &(struct text){text, sizeof text}, 1, (float *[]){out}, &result);
    assert_int_equal(result.status, 0);
    assert_true(result.n_tokens > 600); /* beyond both sides of any of these windows */
    session_close(session);
}

/* What transformers makes of 512 is read as 512, with a warning; other windows are as they say. */
static void test_halved_window(void **state)
{
    (void)state;
    static const uint32_t halved[] = {257, 129, 65, 33};
    float whole[TINY_MODEL_DIM], row[TINY_MODEL_DIM];
    struct model *model = model_of(512);
    assert_null(model_info(model)->warning);
    embed(model, whole);
    model_close(model);
    for (size_t i = 0; i < sizeof halved / sizeof *halved; i++) {
        model = model_of(halved[i]);
        assert_non_null(model_info(model)->warning);
        assert_non_null(strstr(model_info(model)->warning, "transformers 4.57 to 5.12"));
        embed(model, row);
        assert_memory_equal(row, whole, sizeof row);
        model_close(model);
    }
    model = model_of(256);
    assert_null(model_info(model)->warning);
    embed(model, row);
    assert_memory_not_equal(row, whole, sizeof row);
    model_close(model);
}

/* Without any token around it an empty text would be a text of no tokens; one is enough. */
static void test_ends(void **state)
{
    (void)state;
    const struct change changes[] = {{"tokenizer.ggml.add_bos_token", "", 1},
                                     {"tokenizer.ggml.add_eos_token", "", 1}};
    struct model *model = NULL;
    assert_int_equal(open_changed(&model, changes, 2), -EINVAL);
    assert_non_null(strstr(err, "tokenizer.ggml.add_bos_token"));
    for (size_t i = 0; i < 2; i++) {
        float rows[3][TINY_MODEL_DIM];
        struct session *session = NULL;
        const struct session_options options = {0};
        const struct text texts[3] = {{"", 0}, {"", 0}, {"a", 1}};
        struct embed_result results[3];
        assert_int_equal(open_changed(&model, &changes[i], 1), 0);
        assert_int_equal(session_open(&session, model, &options), 0);
        session_embed(session, texts, 3, (float *[]){rows[0], rows[1], rows[2]}, results);
        assert_int_equal(results[0].n_tokens, 1);
        assert_int_equal(results[2].n_tokens, 2);
        assert_memory_equal(rows[0], rows[1], sizeof rows[0]);
        session_close(session);
        model_close(model);
    }
}

/* A key that files may leave out is not read as left out when it says nonsense. */
static void test_rotation(void **state)
{
    (void)state;
    const float base = -5;
    const struct change change = {"gemma-embedding.rope.freq_base_swa", &base, sizeof base};
    struct model *model = NULL;
    assert_int_equal(open_changed(&model, &change, 1), -EINVAL);
    assert_non_null(strstr(err, "rope.freq_base_swa"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halved_window),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_rotation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
