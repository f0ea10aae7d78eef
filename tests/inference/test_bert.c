/*
 * test_bert.c: the BERT family, on a random model of every weight type: against its definition in
 * double, on every kernel table of this CPU; and everything a file can lack.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "inference/embed.h"
#include "inference/gguf.h"
#include "tests/support/tiny_bert.h"
#include "tests/support/embed_rows.h"

enum { SEED = 20261124, DIM = TINY_BERT_DIM, N_TEXTS = 9 };

static char path[] = "/tmp/embedmill-bert-XXXXXX";
static char err[600];

static const char *const texts[N_TEXTS] = {
    "",
    "a",
    "abc the cafe",
    "The Caf\xc3\xa9, 'abc'; abcabc-cab.",
    "a b c a b c a b c a b c a b c",
    "the the the the the the the the the the the the the the the the the",
    "ca",
    "cab cab. cab",
    "1 11 111 1111 11111 111111 1111111 11111111 111111111 1111111111 11111111111 111111111111"};

static const uint32_t types[] = {GGUF_TENSOR_Q8_0, GGUF_TENSOR_Q4_0, GGUF_TENSOR_F16,
                                 GGUF_TENSOR_F32};
static const char *const tables[] = {"generic",     "avx2", "avx512",
                                     "avx512-bf16", "neon", "neon-i8mm"};

static int setup(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static struct session *session_of(const struct model *model)
{
    struct session *session = NULL;
    const struct session_options options = {0};
    assert_int_equal(session_open(&session, model, &options), 0);
    return session;
}

static struct model *model_of(const struct tiny_bert *bert, const char *kernels)
{
    struct model *model = NULL;
    assert_int_equal(gguf_writer_save(&bert->file, path), 0);
    int rc = model_open(&model, path, kernels, PRECISION_EXACT, err, sizeof err);
    if (rc == -ENOTSUP)
        return NULL;
    if (rc)
        fail_msg("%d %s", rc, err);
    return model;
}

static void check_definition(const struct tiny_bert *bert, const struct model *model)
{
    struct session *session = session_of(model);
    for (size_t i = 0; i < N_TEXTS; i++) {
        struct text text = {texts[i], strlen(texts[i])};
        struct embed_result result;
        int32_t ids[TINY_BERT_CONTEXT];
        size_t n_ids;
        float row[DIM];
        double expected[DIM], dot = 0, length = 0;
        assert_int_equal(session_tokenize(session, text, ids, TINY_BERT_CONTEXT, &n_ids, &result),
                         0);
        session_embed(session, &text, 1, (float *[]){row}, &result);
        assert_int_equal(result.status, 0);
        tiny_bert_embed(bert, ids, n_ids, expected);
        for (size_t d = 0; d < DIM; d++) {
            dot += (double)row[d] * expected[d];
            length += (double)row[d] * (double)row[d];
        }
        if (!(dot / sqrt(length) >= 0.999999 && fabs(length - 1) < 1e-5))
            fail_msg("type %u, pooling %u, %s, text %zu (seed %d): cosine %.8f, length %.6f",
                     bert->tensors[0].type, bert->pooling, model_info(model)->kernels, i, SEED,
                     dot / sqrt(length), sqrt(length));
    }
    session_close(session);
}

static void test_definition(void **state)
{
    (void)state;
    for (size_t type = 0; type < 4; type++)
        for (uint32_t pooling = 1; pooling <= 2; pooling++) {
            struct tiny_bert bert;
            const struct tiny_bert_options options = {
                .type = types[type], .pooling = pooling, .seed = SEED + type};
            tiny_bert_make(&bert, &options);
            for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
                struct model *model = model_of(&bert, tables[k]);
                if (model)
                    check_definition(&bert, model);
                model_close(model);
            }
            tiny_bert_free(&bert);
        }
}

/* Alone and among others, in any order: the same bytes. */
static void test_same_bytes(void **state)
{
    (void)state;
    for (size_t type = 0; type < 4; type++) {
        struct tiny_bert bert;
        const struct tiny_bert_options options = {.type = types[type], .pooling = 1, .seed = 7};
        struct text mixed[N_TEXTS];
        struct embed_result results[N_TEXTS];
        float alone[N_TEXTS][DIM], together[N_TEXTS][DIM];
        tiny_bert_make(&bert, &options);
        struct model *model = model_of(&bert, NULL);
        struct session *session = session_of(model);
        for (size_t i = 0; i < N_TEXTS; i++)
            session_embed(session, &(struct text){texts[i], strlen(texts[i])}, 1,
                          (float *[]){alone[i]}, results);
        for (size_t turn = 0; turn < N_TEXTS; turn++) {
            for (size_t i = 0; i < N_TEXTS; i++) {
                const char *text = texts[(i + turn) % N_TEXTS];
                mixed[i] = (struct text){text, strlen(text)};
            }
            embed_rows(session, mixed, N_TEXTS, DIM, together[0], results);
            for (size_t i = 0; i < N_TEXTS; i++)
                assert_memory_equal(together[i], alone[(i + turn) % N_TEXTS], sizeof alone[0]);
        }
        session_close(session);
        model_close(model);
        tiny_bert_free(&bert);
    }
}

static void test_info(void **state)
{
    (void)state;
    struct tiny_bert bert;
    const struct tiny_bert_options options = {.type = GGUF_TENSOR_F16, .pooling = 2, .seed = 1};
    tiny_bert_make(&bert, &options);
    struct model *model = model_of(&bert, NULL);
    const struct model_info *info = model_info(model);
    assert_string_equal(info->architecture, "bert");
    assert_string_equal(info->name, "tiny bert");
    assert_int_equal(info->dim, DIM);
    assert_int_equal(info->max_tokens, TINY_BERT_CONTEXT);
    assert_null(info->prompts);
    assert_true(info->has_dense);
    model_close(model);
    tiny_bert_free(&bert);
}

/* Of e5, whose texts must begin with a prefix, and of no other. */
static void test_prefix_is_missing(void **state)
{
    (void)state;
    struct tiny_bert bert;
    const struct tiny_bert_options options = {.type = GGUF_TENSOR_F32, .pooling = 1, .seed = 1};
    tiny_bert_make(&bert, &options);
    struct model *model = model_of(&bert, NULL);
    assert_null(model_info(model)->warning);
    model_close(model);
    char *name = memmem(bert.file.bytes, bert.file.len, "tiny bert", 9);
    assert_non_null(name);
    memcpy(name, "tiny e5v2", 9);
    model = model_of(&bert, NULL);
    assert_non_null(model_info(model)->warning);
    assert_non_null(strstr(model_info(model)->warning, "'query: ' or 'passage: '"));
    assert_non_null(strstr(model_info(model)->warning, "docs/models.md")); /* not cut */
    model_close(model);
    tiny_bert_free(&bert);
}

static void refused(const struct tiny_bert *bert, const char *first, const char *second)
{
    struct model *model = NULL;
    assert_int_equal(gguf_writer_save(&bert->file, path), 0);
    int rc = model_open(&model, path, NULL, PRECISION_EXACT, err, sizeof err);
    if (rc != -EINVAL || !strstr(err, first) || !strstr(err, second))
        fail_msg("expected '%s' and '%s', got %d '%s'", first, second, rc, err);
}

/* Each tensor of the file absent, of another shape, of another type. */
static void test_tensors_are_checked(void **state)
{
    (void)state;
    struct tiny_bert whole, bert;
    const struct tiny_bert_options options = {.type = GGUF_TENSOR_Q8_0, .pooling = 1, .seed = 1};
    tiny_bert_make(&whole, &options);
    assert_int_equal(whole.n_tensors, 5 + 16 * TINY_BERT_LAYERS);
    for (size_t i = 0; i < whole.n_tensors; i++) {
        const char *name = whole.tensors[i].name;
        struct tiny_bert_options damaged = options;
        damaged.leave_out = name;
        tiny_bert_make(&bert, &damaged);
        refused(&bert, "missing tensor", name);
        tiny_bert_free(&bert);
        damaged = options;
        damaged.odd = name;
        tiny_bert_make(&bert, &damaged);
        refused(&bert, "unexpected shape of tensor", name);
        tiny_bert_free(&bert);
        damaged = options;
        damaged.other = name;
        tiny_bert_make(&bert, &damaged);
        refused(&bert, "which cannot be used there", name);
        tiny_bert_free(&bert);
    }
    tiny_bert_free(&whole);
}

/* The value of a key of 4 bytes, where it stands in the file. */
static uint8_t *value_find(struct tiny_bert *bert, const char *key)
{
    uint8_t *at = memmem(bert->file.bytes, bert->file.len, key, strlen(key));
    assert_non_null(at);
    return at + strlen(key) + 4;
}

static void test_keys_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint32_t value;
        const char *complaint;
    } cases[] = {
        {"bert.pooling_type", 0, "neither mean (1) nor first token (2)"},
        {"bert.pooling_type", 3, "neither mean (1) nor first token (2) nor rank (4)"},
        {"bert.pooling_type", 4, "missing tensor 'cls.weight'"},
        {"bert.block_count", 0, "is not between"},
        {"bert.block_count", 3, "missing tensor 'blk.2.attn_q.weight'"},
        {"bert.block_count", 1, "not part of such a model: tensor 'blk.1.attn_q.weight'"},
        {"bert.context_length", 49, "unexpected shape of tensor 'position_embd.weight'"},
        {"bert.embedding_length", 128, "unexpected shape of tensor 'token_embd.weight'"},
        {"bert.embedding_length", 72, "heads are not a multiple of 32 wide"},
        {"bert.attention.head_count", 4, "heads are not a multiple of 32 wide"},
        {"bert.feed_forward_length", 100, "not a multiple of 32"},
        {"bert.attention.layer_norm_epsilon", 0x7fc00000, "is not between"},
    };
    struct tiny_bert bert;
    const struct tiny_bert_options options = {.type = GGUF_TENSOR_F32, .pooling = 1, .seed = 1};
    tiny_bert_make(&bert, &options);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t before;
        uint8_t *value = value_find(&bert, cases[i].key);
        memcpy(&before, value, 4);
        memcpy(value, &cases[i].value, 4);
        refused(&bert, cases[i].complaint, i < 2 ? cases[i].key : "");
        memcpy(value, &before, 4);
        uint8_t *name = value - 4 - 1; /* its last letter: the key is gone */
        uint8_t letter = *name;
        *name = '_';
        refused(&bert, "missing", cases[i].key + strlen("bert."));
        *name = letter;
    }
    uint8_t *causal = value_find(&bert, "bert.attention.causal");
    *causal = 1;
    refused(&bert, "not false", "bert.attention.causal");
    tiny_bert_free(&bert);
}

/* Where a tensor's values are in the file. */
static uint8_t *values_find(struct tiny_bert *bert, const char *name, uint32_t *type)
{
    struct gguf *gguf;
    void *copy = NULL;
    assert_int_equal(posix_memalign(&copy, 64, bert->file.len), 0);
    memcpy(copy, bert->file.bytes, bert->file.len);
    assert_int_equal(gguf_open_memory(&gguf, copy, bert->file.len, "bert", err, sizeof err), 0);
    const struct gguf_tensor *tensor = gguf_tensor_find(gguf, name);
    assert_non_null(tensor);
    size_t at = (uintptr_t)tensor->data - (uintptr_t)copy;
    *type = tensor->type;
    gguf_close(gguf);
    free(copy);
    return bert->file.bytes + at;
}

/* Does the vector of a text hold numbers only? False, too, where the CPU has no such kernels. */
static bool gives_numbers(const struct tiny_bert *bert, const char *kernels)
{
    struct model *model = model_of(bert, kernels);
    struct embed_result result;
    struct text text = {texts[1], strlen(texts[1])};
    float row[DIM] = {0}, nothing = 0;
    if (!model)
        return false;
    struct session *session = session_of(model);
    session_embed(session, &text, 1, (float *[]){row}, &result);
    assert_int_equal(result.status, 0);
    session_close(session);
    model_close(model);
    for (size_t d = 0; d < DIM; d++)
        nothing += row[d] * 0.0f;
    return nothing == 0;
}

static void check_damaged(const char *name, uint32_t type, const void *value, size_t size)
{
    struct tiny_bert bert;
    uint32_t found;
    const struct tiny_bert_options options = {.type = type, .pooling = 1, .seed = 1};
    tiny_bert_make(&bert, &options);
    uint8_t *values = values_find(&bert, name, &found);
    if (found == type) {
        memcpy(values + 2 * size, value, size);
        for (size_t k = 0; k < sizeof tables / sizeof *tables; k++)
            if (gives_numbers(&bert, tables[k]))
                fail_msg("%s of type %u, %s: a vector", name, type, tables[k]);
    }
    tiny_bert_free(&bert);
}

/* One weight that is not a number, or too large for Q8_0: never a vector that looks like one. */
static void test_damaged_weights(void **state)
{
    (void)state;
    static const char *const names[] = {"blk.0.attn_v.weight", "blk.1.ffn_up.weight",
                                        "blk.1.ffn_down.weight", "position_embd.weight"};
    static const uint32_t floats[] = {0x7fc00000, 0x7f800000, 0xff800000, 0x7f000000};
    static const uint16_t halves[] = {0x7e00, 0x7c00, 0xfc00, 0xffff};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t v = 0; v < (i < 3 ? 4 : 3); v++) { /* what is only added may be large */
            check_damaged(names[i], GGUF_TENSOR_F32, &floats[v], sizeof floats[v]);
            check_damaged(names[i], GGUF_TENSOR_F16, &halves[v], sizeof halves[v]);
        }
}

static void test_cut(void **state)
{
    (void)state;
    struct tiny_bert bert;
    const struct tiny_bert_options options = {.type = GGUF_TENSOR_F32, .pooling = 1, .seed = 1};
    char text[201];
    tiny_bert_make(&bert, &options);
    struct model *model = model_of(&bert, NULL);
    struct session *session = session_of(model);
    for (size_t i = 0; i < 100; i++)
        memcpy(text + 2 * i, "a ", 3);
    struct embed_result result;
    int32_t ids[TINY_BERT_CONTEXT];
    size_t n_ids;
    assert_int_equal(session_tokenize(session, (struct text){text, 200}, ids, TINY_BERT_CONTEXT,
                                      &n_ids, &result),
                     0);
    assert_int_equal(result.n_tokens, 102);
    assert_true(result.truncated);
    assert_int_equal(n_ids, TINY_BERT_CONTEXT);
    assert_string_equal(tiny_bert_token((uint32_t)ids[n_ids - 1]), "[SEP]");
    session_close(session);
    model_close(model);
    tiny_bert_free(&bert);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_prefix_is_missing),
        cmocka_unit_test(test_tensors_are_checked),
        cmocka_unit_test(test_keys_are_checked),
        cmocka_unit_test(test_damaged_weights),
        cmocka_unit_test(test_cut),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
