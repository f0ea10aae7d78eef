/*
 * test_models.c: small random models that transformers saved and tests/make_models.py converted,
 * against the ids and the vectors that transformers gives in float64, on every kernel table.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pwrite, memmem */
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

enum { CASES_MAX = 64, IDS_MAX = 4096 };

static const char *const tables[] = {"generic", "avx2", "avx512", "neon", "neon-i8mm"};
static char err[600];

struct expected {
    struct text text;
    const int32_t *ids;
    uint32_t n_ids;
    const float *vector;
};

/* What a .cases file holds; see tests/make_models.py. */
struct cases {
    char *bytes;
    uint32_t n, dim;
    struct expected all[CASES_MAX];
};

static uint32_t take_u32(const char **at)
{
    uint32_t value;
    memcpy(&value, *at, sizeof value);
    *at += sizeof value;
    return value;
}

/* Numbers may lie unaligned in the file: copied behind it. */
static void *copy(const char **at, size_t size)
{
    void *to = malloc(size + 1);
    assert_non_null(to);
    memcpy(to, *at, size);
    *at += size;
    return to;
}

static struct cases *cases_read(const char *name)
{
    char path[300];
    struct cases *cases = calloc(1, sizeof *cases);
    snprintf(path, sizeof path, TESTS_DIR "/data/models/%s.cases", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size_t size = (size_t)ftell(file);
    rewind(file);
    cases->bytes = malloc(size);
    assert_int_equal(fread(cases->bytes, 1, size, file), size);
    fclose(file);
    const char *at = cases->bytes;
    cases->n = take_u32(&at);
    cases->dim = take_u32(&at);
    assert_in_range(cases->n, 1, CASES_MAX);
    for (uint32_t i = 0; i < cases->n; i++) {
        struct expected *e = &cases->all[i];
        e->text.len = take_u32(&at);
        e->text.ptr = at;
        at += e->text.len;
        e->n_ids = take_u32(&at);
        e->ids = copy(&at, e->n_ids * sizeof *e->ids);
        e->vector = copy(&at, cases->dim * sizeof *e->vector);
    }
    assert_ptr_equal(at, cases->bytes + size);
    return cases;
}

static void cases_free(struct cases *cases)
{
    for (uint32_t i = 0; i < cases->n; i++) {
        free((void *)(uintptr_t)cases->all[i].ids);
        free((void *)(uintptr_t)cases->all[i].vector);
    }
    free(cases->bytes);
    free(cases);
}

static void check_case(struct session *session, const struct expected *e, size_t max_ids,
                       uint32_t dim, const char *what)
{
    static int32_t ids[IDS_MAX];
    size_t n_ids;
    struct embed_result result;
    float *row = malloc(dim * sizeof *row);
    double dot = 0, length = 0;
    assert_int_equal(session_tokenize(session, e->text, ids, max_ids, &n_ids, &result), 0);
    if (n_ids != e->n_ids || memcmp(ids, e->ids, n_ids * sizeof *ids) != 0)
        fail_msg("%s: other ids for '%.*s' (%zu, not %u)", what, (int)e->text.len, e->text.ptr,
                 n_ids, e->n_ids);
    session_embed(session, &e->text, 1, (float *[]){row}, &result);
    assert_int_equal(result.status, 0);
    for (uint32_t i = 0; i < dim; i++) {
        dot += (double)row[i] * (double)e->vector[i];
        length += (double)row[i] * (double)row[i];
    }
    free(row);
    if (!(dot >= 0.99999 && fabs(length - 1) < 1e-5))
        fail_msg("%s: cosine %.8f, length %.6f for %u tokens of '%.40s'", what, dot, sqrt(length),
                 e->n_ids, e->text.ptr);
}

static void check_model(const char *name)
{
    struct cases *cases = cases_read(name);
    char path[300], what[100];
    const struct session_options options = {0};
    size_t n_tables = 0;
    snprintf(path, sizeof path, TESTS_DIR "/data/models/%s.gguf", name);
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        struct model *model = NULL;
        struct session *session = NULL;
        int rc = model_open(&model, path, tables[k], PRECISION_EXACT, err, sizeof err);
        if (rc == -ENOTSUP)
            continue;
        if (rc)
            fail_msg("%s", err);
        assert_int_equal(model_info(model)->dim, cases->dim);
        assert_true(model_info(model)->max_tokens <= IDS_MAX);
        assert_int_equal(session_open(&session, model, &options), 0);
        snprintf(what, sizeof what, "%s, %s", name, tables[k]);
        for (uint32_t i = 0; i < cases->n; i++)
            check_case(session, &cases->all[i], model_info(model)->max_tokens, cases->dim, what);
        session_close(session);
        model_close(model);
        n_tables++;
    }
    assert_true(n_tables > 0);
    cases_free(cases);
}

static void test_xlm_roberta(void **state)
{
    (void)state;
    check_model("tiny-xlm-roberta");
}

/* Two kinds of heads, a window, layers that add something of the token, a projection. */
static void test_gemma2(void **state)
{
    (void)state;
    check_model("tiny-gemma2");
}

/* Byte-level BPE, a window in two of three layers, two rotations, GeGLU. */
static void test_modernbert(void **state)
{
    (void)state;
    check_model("tiny-modernbert");
}

/* The same with SiLU in its gate. */
static void test_modernbert_silu(void **state)
{
    (void)state;
    check_model("tiny-modernbert-silu");
}

/* WordPiece, rotations, a gate, no biases but those of norms. */
static void test_nomic(void **state)
{
    (void)state;
    check_model("tiny-nomic");
}

/* Rotations that are stretched, a gate of GELU, biases; unigram tokens. */
static void test_gte(void **state)
{
    (void)state;
    check_model("tiny-gte");
}

/* The same with WordPiece, and without types of tokens. */
static void test_gte_english(void **state)
{
    (void)state;
    check_model("tiny-gte-english");
}

/* A bias of attention by distance, near and far. */
static void test_mpnet(void **state)
{
    (void)state;
    check_model("tiny-mpnet");
}

/* A BERT without token types. */
static void test_distilbert(void **state)
{
    (void)state;
    check_model("tiny-distilbert");
}

/* Byte-level BPE of texts as they are, not composed; positions from 2. */
static void test_roberta(void **state)
{
    (void)state;
    check_model("tiny-roberta");
}

/* Causal, grouped heads, the last token. */
static void test_qwen3(void **state)
{
    (void)state;
    check_model("tiny-qwen3");
}

/* Those of the folder that are not empty, and none by the name of another architecture. */
static void test_prompts(void **state)
{
    (void)state;
    struct model *model = NULL;
    assert_int_equal(model_open(&model, TESTS_DIR "/data/models/tiny-xlm-roberta.gguf", NULL,
                                PRECISION_EXACT, err, sizeof err),
                     0);
    const struct prompt *prompts = model_info(model)->prompts;
    assert_non_null(prompts);
    assert_string_equal(prompts[0].name, "query");
    assert_string_equal(prompts[0].lead, "the query: ");
    assert_null(prompts[0].between);
    assert_null(prompts[1].name);
    model_close(model);
}

static char *file_read(const char *name, size_t *size)
{
    char path[300];
    snprintf(path, sizeof path, TESTS_DIR "/data/models/%s.gguf", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *size = (size_t)ftell(file);
    rewind(file);
    char *bytes = aligned_alloc(64, (*size + 63) / 64 * 64);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    fclose(file);
    return bytes;
}

/* A file that names no prompts: those of the card, by the name of the model. */
static void test_card_prompts(void **state)
{
    (void)state;
    static const char key[] = "embedmill.prompt.names";
    size_t size;
    struct model *model = NULL;
    char path[] = "/tmp/embedmill-models-XXXXXX", *bytes = file_read("tiny-nomic", &size);
    int fd = mkstemp(path);
    char *place = memmem(bytes, size, key, strlen(key));
    assert_true(fd >= 0);
    assert_non_null(place);
    place[sizeof key - 2] = '_';
    assert_int_equal(pwrite(fd, bytes, size, 0), size);
    assert_int_equal(model_open(&model, path, NULL, PRECISION_EXACT, err, sizeof err), 0);
    const struct prompt *prompts = model_info(model)->prompts;
    assert_non_null(prompts);
    assert_string_equal(prompts[0].name, "document");
    assert_string_equal(prompts[0].lead, "search_document: ");
    assert_string_equal(prompts[1].lead, "search_query: ");
    model_close(model);
    free(bytes);
    close(fd);
    unlink(path);
}

/* Each tensor of a file under another name: one is missing, and one is of no use. */
static void check_names(const char *name)
{
    size_t size;
    char path[] = "/tmp/embedmill-models-XXXXXX", *bytes = file_read(name, &size);
    struct gguf *gguf = NULL;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(gguf_open_memory(&gguf, bytes, size, name, err, sizeof err), 0);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        struct model *model = NULL;
        struct gguf_str text = gguf_tensor_at(gguf, i)->name;
        char shown[80], *letter = (char *)(uintptr_t)text.ptr + text.len - 1, before = *letter;
        snprintf(shown, sizeof shown, "tensor '%.*s", (int)text.len - 1, text.ptr);
        *letter = '_';
        assert_int_equal(pwrite(fd, bytes, size, 0), size);
        int rc = model_open(&model, path, NULL, PRECISION_EXACT, err, sizeof err);
        *letter = before;
        if (rc != -EINVAL || !strstr(err, shown))
            fail_msg("%s without %s: %d %s", name, shown, rc, err);
    }
    gguf_close(gguf);
    free(bytes);
    close(fd);
    unlink(path);
}

/* The file with one byte of this text of its metadata changed. */
static void check_changed(const char *name, const char *text, size_t at, char to,
                          const char *complaint)
{
    size_t size;
    struct model *model = NULL;
    char path[] = "/tmp/embedmill-models-XXXXXX", *bytes = file_read(name, &size);
    int fd = mkstemp(path);
    char *place = memmem(bytes, size, text, strlen(text));
    assert_true(fd >= 0);
    assert_non_null(place);
    place[at] = to;
    assert_int_equal(pwrite(fd, bytes, size, 0), size);
    int rc = model_open(&model, path, NULL, PRECISION_EXACT, err, sizeof err);
    if (rc != -EINVAL || !strstr(err, complaint))
        fail_msg("%s: expected '%s', got %d '%s'", text, complaint, rc, err);
    free(bytes);
    close(fd);
    unlink(path);
}

static void test_damaged_keys(void **state)
{
    (void)state;
    static const char map[] = "tokenizer.ggml.precompiled_charsmap";
    static const char pattern[] = "gemma-embedding2.attention.sliding_window_pattern";
    /* Behind a key: its type, that of the elements, how many there are, the elements. */
    check_changed("tiny-xlm-roberta", "embedmill.prompt.texts", 21, '_', "as there are names");
    check_changed("tiny-xlm-roberta", map, sizeof map - 2, '_', "normalisation map");
    check_changed("tiny-xlm-roberta", map, sizeof map - 1 + 16 + 3, 1, "normalisation map");
    check_changed("tiny-xlm-roberta", "tokenizer.ggml.unknown_token_id", 30, '_',
                  "tokenizer.ggml.unknown_token_id is missing");
    check_changed("tiny-gemma2", pattern, sizeof pattern - 1 + 16 + 2, 0, "every sixth layer");
    check_changed("tiny-gemma2", "tokenizer.ggml.merges", 20, '_', "not an array of strings");
    check_changed("tiny-gemma2", "gemma-embedding2.block_count", 27, '_', "missing integer key");
    check_changed("tiny-xlm-roberta", "embedmill.prompt.names", 22 + 16 + 8, '\x1b',
                  "a control character in key 'embedmill.prompt.names'");
    /* Bytes that a terminal would obey are not shown. */
    check_changed("tiny-gemma2", "gemma-embedding2", 0, '\x1b', "architecture, '?emma-embedding2'");
    check_changed("tiny-gemma2", "tokenizer.ggml.model", 20 + 4 + 8, '\x1b', "is '?emma4'");
    check_changed("tiny-qwen3", "tokenizer.ggml.pre", 18 + 4 + 8, '\x1b', "is '?wen2'");
}

/* The same bytes at a new place of the file, which is opened then. */
static struct model *open_bytes(const char *bytes, size_t size)
{
    struct model *model = NULL;
    char path[] = "/tmp/embedmill-models-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, 0), size);
    int rc = model_open(&model, path, NULL, PRECISION_EXACT, err, sizeof err);
    close(fd);
    unlink(path);
    assert_true(rc == 0 || rc == -EINVAL);
    return model;
}

/* Dimension `i` of a tensor: behind its name the number of dimensions, then these. */
static void shape_set(char *bytes, size_t size, const char *name, size_t i, uint64_t to)
{
    char *at = memmem(bytes, size, name, strlen(name));
    assert_non_null(at);
    memcpy(at + strlen(name) + 4 + i * sizeof to, &to, sizeof to);
}

/* Layers with a window whose queries are wider than those of full layers, by which a session is
 * measured, although their rows are not: a file that is sound in all else. */
static void test_gemma2_shapes(void **state)
{
    (void)state;
    size_t size;
    char *bytes = file_read("tiny-gemma2", &size), name[64];
    for (int layer = 0; layer < 5; layer++) {
        snprintf(name, sizeof name, "blk.%d.attn_k.weight", layer);
        shape_set(bytes, size, name, 1, 32);
        snprintf(name, sizeof name, "blk.%d.attn_v.weight", layer);
        shape_set(bytes, size, name, 1, 32);
    }
    shape_set(bytes, size, "blk.5.attn_q.weight", 1, 64);
    shape_set(bytes, size, "blk.5.attn_output.weight", 0, 64);
    assert_null(open_bytes(bytes, size));
    assert_non_null(strstr(err, "narrower heads than in the layer before it"));
    free(bytes);
}

/* A list of merges without one: the token it would make is not made. */
static void test_missing_merge(void **state)
{
    (void)state;
    static const char merge[] = "\3\0\0\0\0\0\0\0d o";
    size_t size, n_ids;
    int32_t ids[8];
    char *bytes = file_read("tiny-gemma2", &size);
    char *at = memmem(bytes, size, merge, sizeof merge - 1);
    assert_non_null(at);
    for (size_t i = 0; i < 2; i++) {
        const struct session_options options = {0};
        struct session *session = NULL;
        struct embed_result result;
        struct model *model = open_bytes(bytes, size);
        assert_non_null(model);
        assert_int_equal(session_open(&session, model, &options), 0);
        session_tokenize(session, (struct text){"do", 2}, ids, 8, &n_ids, &result);
        assert_int_equal(n_ids, i == 0 ? 3 : 4); /* the ends, and "do", or "d" and "o" */
        session_close(session);
        model_close(model);
        at[8] = 1; /* no token is called so */
    }
    free(bytes);
}

/* A model's own name has no control characters, and ends with a character. */
static void test_shown_name(void **state)
{
    (void)state;
    size_t size;
    char *bytes = file_read("tiny-gemma2", &size), *at = memmem(bytes, size, "tiny-gemma2", 11);
    assert_non_null(at);
    at[0] = '\x1b';
    struct model *model = open_bytes(bytes, size);
    assert_non_null(model);
    assert_string_equal(model_info(model)->name, "?iny-gemma2");
    model_close(model);
    free(bytes);
}

static void test_names(void **state)
{
    (void)state;
    check_names("tiny-gemma2");
    check_names("tiny-xlm-roberta");
    check_names("tiny-modernbert");
    check_names("tiny-modernbert-silu");
    check_names("tiny-qwen3");
    check_names("tiny-nomic");
    check_names("tiny-gte-english");
    check_names("tiny-mpnet");
    check_names("tiny-distilbert");
    check_names("tiny-roberta");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),           cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_damaged_keys),    cmocka_unit_test(test_gemma2),
        cmocka_unit_test(test_xlm_roberta),     cmocka_unit_test(test_modernbert),
        cmocka_unit_test(test_qwen3),           cmocka_unit_test(test_nomic),
        cmocka_unit_test(test_distilbert),      cmocka_unit_test(test_roberta),
        cmocka_unit_test(test_modernbert_silu), cmocka_unit_test(test_card_prompts),
        cmocka_unit_test(test_mpnet),           cmocka_unit_test(test_gte),
        cmocka_unit_test(test_gte_english),     cmocka_unit_test(test_gemma2_shapes),
        cmocka_unit_test(test_missing_merge),   cmocka_unit_test(test_shown_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
