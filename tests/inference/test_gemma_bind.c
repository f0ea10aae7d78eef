/*
 * test_gemma_bind.c: files of EmbeddingGemma that are nearly as they should be.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
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

/* A model whose sliding window is what the file is made to say. */
static struct model *model_of(uint32_t window)
{
    static const char key[] = "gemma-embedding.attention.sliding_window";
    struct gguf_writer file = {0};
    struct tiny_model_options options = TINY_MODEL_DEFAULTS;
    char path[] = "/tmp/embedmill-gemma-XXXXXX";
    struct model *model = NULL;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    options.n_layers = LAYERS;
    options.n_ctx = CONTEXT;
    tiny_model_build(&file, &options);
    uint8_t *at = memmem(file.bytes, file.len, key, strlen(key));
    assert_non_null(at);
    memcpy(at + strlen(key) + 4, &window, sizeof window);
    assert_int_equal(gguf_writer_save(&file, path), 0);
    int rc = model_open(&model, path, NULL, PRECISION_EXACT, err, sizeof err);
    unlink(path);
    gguf_writer_free(&file);
    if (rc)
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halved_window),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
