/*
 * test_rerank.c: scores of pairs: against the definition in double on every kernel table of this
 * CPU, how pairs too long are cut, what a file can lack; and small random rerankers against what
 * transformers gives for them.
 */
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

enum { SEED = 20261130, N_TEXTS = 8, CONTEXT = TINY_BERT_CONTEXT, ENDS = 3 };
#define TEN_A   "a a a a a a a a a a "
#define TEN_THE "the the the the the the the the the the "

static char path[] = "/tmp/embedmill-rerank-XXXXXX";
static char err[600];

/* With the queries: both short; the text, the query or both too long. */
static const char *const texts[N_TEXTS] = {"",
                                           "a",
                                           "abc the cafe",
                                           "The Caf\xc3\xa9, 'abc'; abcabc-cab.",
                                           TEN_A TEN_A,
                                           TEN_A TEN_THE TEN_A TEN_THE TEN_A TEN_THE,
                                           "ca [SEP] b",
                                           "the c b a"};
static const char *const queries[] = {"", "abc cab", TEN_THE TEN_A "b", TEN_A TEN_A TEN_A TEN_A,
                                      TEN_THE TEN_THE TEN_THE TEN_THE TEN_A TEN_A "c"};

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

static struct text text_of(const char *string)
{
    return (struct text){string, strlen(string)};
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

static struct session *session_of(const struct model *model, enum too_long too_long)
{
    struct session *session = NULL;
    const struct session_options options = {.too_long = too_long};
    assert_int_equal(session_open(&session, model, &options), 0);
    return session;
}

/* Ids of one part without its ends; the vocabulary is small, so parts of any length are taken from
 * a model of more tokens: here from short pieces, word by word. */
static size_t words_of(struct session *session, const char *string, int32_t *ids, size_t room)
{
    size_t n = 0;
    char word[64];
    while (*string) {
        size_t len = strcspn(string, " "), n_ids;
        int32_t some[CONTEXT];
        struct embed_result result;
        assert_true(len < sizeof word);
        assert_int_equal(
            session_tokenize(session, (struct text){string, len}, some, CONTEXT, &n_ids, &result),
            0);
        for (size_t i = 1; i + 1 < n_ids; i++) {
            assert_true(n < room);
            ids[n++] = some[i];
        }
        string += len + strspn(string + len, " ");
    }
    return n;
}

/* One at a time from the longer, the text where they are equal: what "longest_first" means. */
static void cut(size_t *query, size_t *text)
{
    size_t q = *query, t = *text, room = CONTEXT - ENDS;
    while (q + t > room)
        if (q > t)
            q--;
        else
            t--;
    /* Where both lose, an odd one is left to the one that was longer, the text when in doubt. */
    if (q < *query && t < *text) {
        q = *query > *text ? room - room / 2 : room / 2;
        t = room - q;
    }
    *query = q;
    *text = t;
}

static double expect(const struct tiny_bert *bert, struct session *session, const char *query,
                     const char *text, size_t *n_whole)
{
    static int32_t q[256], t[256];
    int32_t ids[CONTEXT];
    uint8_t token_types[CONTEXT] = {0};
    size_t n_query = words_of(session, query, q, 256), n_text = words_of(session, text, t, 256);
    size_t n = 0;
    *n_whole = n_query + n_text + ENDS;
    cut(&n_query, &n_text);
    ids[n++] = 2; /* [CLS] */
    for (size_t i = 0; i < n_query; i++)
        ids[n++] = q[i];
    ids[n++] = 3; /* [SEP] */
    for (size_t i = 0; i <= n_text; i++) {
        token_types[n] = 1;
        ids[n++] = i < n_text ? t[i] : 3;
    }
    return tiny_bert_score(bert, ids, token_types, n);
}

static void check_definition(const struct tiny_bert *bert, const struct model *model)
{
    struct session *session = session_of(model, TOO_LONG_TRUNCATE);
    struct text all[N_TEXTS];
    struct embed_result results[N_TEXTS];
    float scores[N_TEXTS], alone;
    for (size_t i = 0; i < N_TEXTS; i++)
        all[i] = text_of(texts[i]);
    for (size_t q = 0; q < sizeof queries / sizeof *queries; q++) {
        session_rerank(session, text_of(queries[q]), all, N_TEXTS, scores, results);
        for (size_t i = 0; i < N_TEXTS; i++) {
            size_t n_whole;
            double expected = expect(bert, session, queries[q], texts[i], &n_whole);
            assert_int_equal(results[i].status, 0);
            assert_int_equal(results[i].n_tokens, n_whole);
            assert_int_equal(results[i].truncated, n_whole > CONTEXT);
            if (!(fabs(expected - (double)scores[i]) < 2e-4))
                fail_msg("type %u, %s, query %zu, text %zu (seed %d): %.7f, expected %.7f",
                         bert->tensors[0].type, model_info(model)->kernels, q, i, SEED,
                         (double)scores[i], expected);
            session_rerank(session, text_of(queries[q]), &all[i], 1, &alone, results + i);
            assert_memory_equal(&alone, &scores[i], sizeof alone);
        }
    }
    session_close(session);
}

static void test_definition(void **state)
{
    (void)state;
    for (size_t type = 0; type < 4; type++) {
        struct tiny_bert bert;
        const struct tiny_bert_options options = {
            .type = types[type], .pooling = 4 + type % 2, .seed = SEED + type};
        tiny_bert_make(&bert, &options);
        for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
            struct model *model = model_of(&bert, tables[k]);
            if (model) {
                assert_true(model_info(model)->is_reranker);
                assert_true(model_info(model)->is_sigmoid);
                check_definition(&bert, model);
            }
            model_close(model);
        }
        tiny_bert_free(&bert);
    }
}

static void test_statuses(void **state)
{
    (void)state;
    struct tiny_bert bert;
    const struct tiny_bert_options options = {.type = GGUF_TENSOR_F32, .pooling = 4, .seed = 5};
    const struct text given[] = {text_of("a"), text_of(texts[5]), text_of("b \xff c")};
    struct embed_result results[3];
    float scores[3];
    tiny_bert_make(&bert, &options);
    struct model *model = model_of(&bert, NULL);
    struct session *session = NULL;
    const struct session_options strict = {.too_long = TOO_LONG_ERROR, .bad_utf8 = BAD_UTF8_ERROR};
    assert_int_equal(session_open(&session, model, &strict), 0);
    session_rerank(session, text_of("the"), given, 3, scores, results);
    assert_int_equal(results[0].status, 0);
    assert_int_equal(results[1].status, -E2BIG);
    assert_int_equal(results[2].status, -EILSEQ);
    assert_true(scores[0] != 0 && scores[1] == 0 && scores[2] == 0);
    session_rerank(session, text_of("\xc3"), given, 3, scores, results);
    for (int i = 0; i < 3; i++)
        assert_true(results[i].status == -EILSEQ && scores[i] == 0);
    session_rerank(session, text_of("the"), NULL, 0, NULL, NULL);
    session_close(session);
    model_close(model);
    tiny_bert_free(&bert);
    assert_true(fabs((double)rerank_sigmoid(0) - 0.5) < 1e-7);
    assert_true(rerank_sigmoid(-200) >= 0 && rerank_sigmoid(200) <= 1);
    assert_true(fabs((double)rerank_sigmoid(2) - 0.8807970779778823) < 1e-7);
}

static void check_refused(const struct tiny_bert_options *options, const char *complaint)
{
    struct tiny_bert bert;
    struct model *model = NULL;
    tiny_bert_make(&bert, options);
    assert_int_equal(gguf_writer_save(&bert.file, path), 0);
    int rc = model_open(&model, path, NULL, PRECISION_EXACT, err, sizeof err);
    if (rc != -EINVAL || !strstr(err, complaint))
        fail_msg("expected '%s', got %d '%s'", complaint, rc, err);
    tiny_bert_free(&bert);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *left_out, *odd, *complaint;
    } cases[] = {
        {"cls.weight", NULL, "the first layer of the reranker's head is missing"},
        {"cls.bias", NULL, "missing tensor 'cls.bias'"},
        {"cls.output.weight", NULL, "missing tensor 'cls.output.weight'"},
        {"cls.output.bias", NULL, "missing tensor 'cls.output.bias'"},
        {NULL, "cls.weight", "unexpected shape of tensor 'cls.weight'"},
        {NULL, "cls.output.weight", "unexpected shape of tensor 'cls.output.weight'"},
        {NULL, "cls.output.bias", "unexpected shape of tensor 'cls.output.bias'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct tiny_bert_options options = {.type = GGUF_TENSOR_F32,
                                                  .pooling = 4,
                                                  .seed = 3,
                                                  .leave_out = cases[i].left_out,
                                                  .odd = cases[i].odd};
        check_refused(&options, cases[i].complaint);
    }
}

static uint32_t take_u32(const char **at)
{
    uint32_t value;
    memcpy(&value, *at, sizeof value);
    *at += sizeof value;
    return value;
}

static struct text take_text(const char **at)
{
    struct text text = {.len = take_u32(at)};
    text.ptr = *at;
    *at += text.len;
    return text;
}

/* Scores of transformers in float64, of models that sentence-transformers saved (make_models.py).
 */
static void check_judged(const char *name, const char *kernels)
{
    char file_name[300], bytes[16384];
    struct model *model = NULL;
    snprintf(file_name, sizeof file_name, TESTS_DIR "/data/models/%s.gguf", name);
    int rc = model_open(&model, file_name, kernels, PRECISION_EXACT, err, sizeof err);
    if (rc == -ENOTSUP)
        return;
    if (rc)
        fail_msg("%s", err);
    struct session *session = session_of(model, TOO_LONG_TRUNCATE);
    snprintf(file_name, sizeof file_name, TESTS_DIR "/data/models/%s.pairs", name);
    FILE *file = fopen(file_name, "rb");
    assert_non_null(file);
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    const char *at = bytes;
    uint32_t n = take_u32(&at);
    assert_true(n >= 8 && size < sizeof bytes);
    for (uint32_t i = 0; i < n; i++) {
        struct text query = take_text(&at), text = take_text(&at);
        uint32_t n_ids = take_u32(&at);
        float expected, score;
        struct embed_result result;
        memcpy(&expected, at, sizeof expected);
        at += sizeof expected;
        session_rerank(session, query, &text, 1, &score, &result);
        assert_int_equal(result.status, 0);
        assert_true(result.truncated ? result.n_tokens > n_ids : result.n_tokens == n_ids);
        /* Activations of 15 bits, in a head whose weights add up to about 8. */
        if (!(fabs((double)score - (double)expected) < 3e-4))
            fail_msg("%s, %s: pair %u has %.7f, expected %.7f", name, kernels, i, (double)score,
                     (double)expected);
    }
    assert_ptr_equal(at, bytes + size);
    session_close(session);
    model_close(model);
}

static void test_judged(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        check_judged("tiny-bert-reranker", tables[k]);
        check_judged("tiny-xlm-reranker", tables[k]);
        check_judged("tiny-gte-reranker", tables[k]);
        check_judged("tiny-roberta-reranker", tables[k]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_judged),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
