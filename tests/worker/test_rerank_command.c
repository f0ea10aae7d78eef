/*
 * test_rerank_command.c: `embedmill rerank` as users meet it, with a tiny random reranker.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "inference/embed.h"
#include "inference/gguf.h"
#include "tests/support/program.h"
#include "tests/support/tiny_bert.h"

enum { N = 300 };

static char path[200];

struct result {
    int code;
    char *out, *err;
};

static struct result run(const char *arguments, const char *input)
{
    struct result result;
    char line[500];
    int in = program_scratch(), out = program_scratch(), err = program_scratch();
    assert_int_equal(write(in, input, strlen(input)), strlen(input));
    lseek(in, 0, SEEK_SET);
    snprintf(line, sizeof line, arguments, path);
    result.code = program_wait(program_start(line, NULL, in, dup(out), err));
    result.out = program_said(out, NULL);
    result.err = program_said(err, NULL);
    return result;
}

static void free_result(struct result result)
{
    free(result.out);
    free(result.err);
}

static int setup(void **state)
{
    if (program_setup(state) != 0)
        return -1;
    struct tiny_bert bert;
    const struct tiny_bert_options options = {.type = GGUF_TENSOR_F32, .pooling = 4, .seed = 9};
    tiny_bert_make(&bert, &options);
    snprintf(path, sizeof path, "%s/reranker.gguf", program_folder);
    int rc = gguf_writer_save(&bert.file, path);
    tiny_bert_free(&bert);
    return rc;
}

static int teardown(void **state)
{
    unlink(path);
    return program_teardown(state);
}

/* By the library, one at a time. */
static void score_alone(const char *const *texts, size_t n, float *scores)
{
    char err[500];
    struct model *model = NULL;
    struct session *session = NULL;
    const struct session_options options = {0};
    assert_int_equal(model_open(&model, path, NULL, PRECISION_EXACT, err, sizeof err), 0);
    assert_int_equal(session_open(&session, model, &options), 0);
    for (size_t i = 0; i < n; i++) {
        struct embed_result result;
        session_rerank(session, (struct text){"abc", 3}, &(struct text){texts[i], strlen(texts[i])},
                       1, &scores[i], &result);
    }
    session_close(session);
    model_close(model);
}

/* The objects of the output: their scores, and ids side by side in ids. */
static size_t read_scores(const char *out, double *scores, char *ids)
{
    size_t n = 0;
    for (const char *line = out; *line; n++) {
        const char *end = strchr(line, '\n');
        json_t *object = json_loadb(line, (size_t)(end - line), 0, NULL);
        assert_non_null(object);
        json_t *id = json_object_get(object, "id");
        if (json_is_string(id))
            ids += sprintf(ids, "%s ", json_string_value(id));
        else
            ids += sprintf(ids, "%lld ", json_integer_value(id));
        assert_true(json_integer_value(json_object_get(object, "tokens")) >= 3);
        scores[n] = json_real_value(json_object_get(object, "score"));
        json_decref(object);
        line = end + 1;
    }
    return n;
}

static void scores_are_the_models(void **state)
{
    (void)state;
    static const char *const texts[] = {"a b c", "cafe", "the cab", "ca ca"};
    char ids[100];
    double scores[5];
    float expected[4];
    score_alone(texts, 4, expected);
    const char *input = "a b c\n\n{\"id\": \"x\", \"text\": \"cafe\"}\n"
                        "{\"ids\": [7, 8], \"texts\": [\"the cab\", \"ca ca\"]}\n";
    struct result raw = run("rerank abc --scores raw --model %s", input);
    assert_string_equal(raw.err, "");
    assert_int_equal(raw.code, 0);
    assert_int_equal(read_scores(raw.out, scores, ids), 4);
    assert_string_equal(ids, "1 x 7 8 ");
    for (int i = 0; i < 4; i++)
        assert_true(fabs(scores[i] - (double)expected[i]) < 1e-6);
    struct result usual = run("rerank abc --model %s", input);
    assert_int_equal(read_scores(usual.out, scores, ids), 4);
    for (int i = 0; i < 4; i++)
        assert_true(fabs(scores[i] - 1 / (1 + exp(-(double)expected[i]))) < 1e-6);
    free_result(raw);
    free_result(usual);
}

/* Many batches and threads: the same bytes as with one thread; --top is the sorted beginning. */
static void many_lines(void **state)
{
    (void)state;
    char *input = malloc(N * 40), *ids = malloc(N * 8), *best_ids = malloc(N * 8), wanted[200] = "";
    double scores[N], best[N];
    size_t len = 0;
    for (int i = 0; i < N; i++)
        len += (size_t)sprintf(input + len, "%.*s%s\n", i % 31 + 1,
                               "a b c the cab cafe a a c b abc c", i % 7 ? " ca" : "");
    struct result two = run("rerank abc --threads 2 --model %s", input);
    struct result one = run("rerank abc --threads 1 --model %s", input);
    struct result top = run("rerank abc --top 5 --model %s", input);
    assert_int_equal(two.code, 0);
    assert_string_equal(two.out, one.out);
    assert_int_equal(read_scores(two.out, scores, ids), N);
    assert_int_equal(read_scores(top.out, best, best_ids), 5);
    for (int place = 0; place < 5; place++) {
        int found = 0;
        for (int i = 1; i < N; i++)
            found = scores[i] > scores[found] ? i : found;
        assert_true(fabs(scores[found] - best[place]) < 1e-9);
        sprintf(wanted + strlen(wanted), "%d ", found + 1);
        scores[found] = -1;
    }
    assert_string_equal(best_ids, wanted);
    free(input);
    free(ids);
    free(best_ids);
    free_result(one);
    free_result(two);
    free_result(top);
}

static void what_is_wrong_is_said(void **state)
{
    (void)state;
    static const struct {
        const char *arguments, *input;
        int code;
        const char *said;
    } cases[] = {
        {"rerank --model %s", "a\n", 64, "expected a query"},
        {"rerank abc", "a\n", 66, "gives vectors and no scores"},
        {"rerank abc --model /no/such/file", "a\n", 66, "/no/such/file"},
        {"rerank abc --model %s --scores best", "a\n", 64, "--scores: expected"},
        {"rerank abc --model %s", "a\n{\"text\": 3}\n", 65, "line 2: "},
        {"rerank abc --model %s", "a\n{\"id\":1,\"delete\":true}\n", 65, "line 2: no_text: "},
        {"embed --model %s", "a\n", 66, "is a reranker"},
        {"search x y --model %s", "a\n", 66, "is a reranker"},
        {"bench --model %s", "a\n", 66, "is a reranker"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct result result = run(cases[i].arguments, cases[i].input);
        if (result.code != cases[i].code || !strstr(result.err, cases[i].said))
            fail_msg("%s: %d %s", cases[i].arguments, result.code, result.err);
        free_result(result);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_the_models),
        cmocka_unit_test(many_lines),
        cmocka_unit_test(what_is_wrong_is_said),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
