/*
 * test_bench.c: `embedmill bench` and what it measures with, on the tiny model.
 *
 * What is counted must be exact; what is timed must only be there and be possible, for no machine
 * promises a speed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inference/embed.h"
#include "tests/support/tiny_model.h"

static char folder[] = "/tmp/embedmill-test-XXXXXX";
static char path[100];

static int open_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/tiny.gguf", folder);
    return tiny_model_write(path, NULL);
}

static int close_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static struct model *open_model(const char *kernels)
{
    struct model *model = NULL;
    char err[300];
    int rc = model_open(&model, path, kernels, PRECISION_EXACT, err, sizeof err);
    assert_true(rc == 0 || (kernels && rc == -ENOTSUP));
    return model;
}

static const struct profile_stage *stage(const struct profile *profile, const char *name)
{
    for (size_t i = 0; i < PROFILE_STAGES; i++)
        if (strcmp(profile->stages[i].name, name) == 0)
            return &profile->stages[i];
    fail_msg("there is no stage '%s'", name);
    return NULL;
}

static void profile_counts_exactly(void **state)
{
    (void)state;
    static const struct text texts[] = {{"a b c d", 7}, {"the end of it all", 17}, {"x", 1}};
    enum { D = TINY_MODEL_DIM, KV = TINY_MODEL_HEAD_DIM, FFN = TINY_MODEL_FFN, LAYERS = 2 };
    enum { Q = TINY_MODEL_HEADS * TINY_MODEL_HEAD_DIM };
    struct model *model = open_model(NULL);
    struct profile p;
    assert_int_equal(model_profile(model, texts, 3, &p), 0);

    uint64_t n = p.n_tokens;
    assert_true(n >= 3 * 3 && n <= 2 * 3 + 7 + 17 + 1);
    assert_int_equal(stage(&p, "q, k, v products")->macs, n * LAYERS * D * (Q + 2 * KV));
    assert_int_equal(stage(&p, "output product")->macs, n * LAYERS * D * Q);
    assert_int_equal(stage(&p, "gate, up")->macs, n * LAYERS * D * FFN * 2);
    assert_int_equal(stage(&p, "down product")->macs, n * LAYERS * D * FFN);
    assert_int_equal(stage(&p, "pooling, dense")->macs, 3 * 2 * D * TINY_MODEL_DENSE);
    assert_int_equal(p.product_macs,
                     n * LAYERS * D * (2 * Q + 2 * KV + 3 * FFN) + 3 * 2 * D * TINY_MODEL_DENSE);
    const struct model_info *info = model_info(model);
    assert_int_equal(p.product_macs, n * info->macs_per_token + 3 * info->macs_per_text);
    assert_int_equal(stage(&p, "tokenise")->calls, 3);
    assert_int_equal(stage(&p, "token rows")->calls, n);
    model_close(model);
}

/* Keys a token sees, for a window the text is longer than and one it is not. */
static void profile_counts_attention(void **state)
{
    (void)state;
    enum { SIGNS = 20, REACH = TINY_MODEL_WINDOW / 2 };
    char text[2 * SIGNS + 1] = "";
    for (int i = 0; i < SIGNS; i++)
        strcat(text, "\xc2\xa7"); /* in no vocabulary of ours: two byte tokens */
    struct model *model = open_model(NULL);
    struct text one = {text, strlen(text)};
    struct profile p;
    assert_int_equal(model_profile(model, &one, 1, &p), 0);
    size_t n = p.n_tokens, pairs = 0;
    assert_int_equal(n, 2 + strlen(text));
    assert_true(n > 2 * REACH + 1);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            pairs += (i > j ? i - j : j - i) <= REACH;
    assert_int_equal(stage(&p, "attention")->macs,
                     2 * 2 * pairs * TINY_MODEL_HEADS * TINY_MODEL_HEAD_DIM);
    model_close(model);
}

static void profile_times_add_up(void **state)
{
    (void)state;
    static const struct text texts[] = {{"hello there", 11}, {"again", 5}};
    struct model *model = open_model(NULL);
    struct profile p;
    assert_int_equal(model_profile(model, texts, 2, &p), 0);
    double sum = 0;
    for (size_t i = 0; i < PROFILE_STAGES; i++) {
        assert_true(p.stages[i].seconds >= 0);
        sum += p.stages[i].seconds;
    }
    assert_true(p.seconds > 0);
    assert_true(sum > 0.999 * p.seconds); /* more: texts are tokenised once more to time that */
    model_close(model);
}

/* Measuring leaves the model as it was. */
static void profile_changes_nothing(void **state)
{
    (void)state;
    static const struct text one = {"the same", 8};
    const struct session_options options = {0};
    float rows[2][TINY_MODEL_DIM];
    struct embed_result result;
    struct profile p;
    struct session *session;
    struct model *model = open_model(NULL);
    assert_int_equal(session_open(&session, model, &options), 0);
    session_embed(session, &one, 1, (float *[]){rows[0]}, &result);
    assert_int_equal(model_profile(model, &one, 1, &p), 0);
    session_embed(session, &one, 1, (float *[]){rows[1]}, &result);
    assert_memory_equal(rows[0], rows[1], sizeof rows[0]);
    session_close(session);
    model_close(model);
}

static void every_table_has_a_ceiling(void **state)
{
    (void)state;
    static const char *const names[] = {"generic",     "avx2", "avx512",
                                        "avx512-bf16", "neon", "neon-i8mm"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct model *model = open_model(names[i]);
        if (!model) {
            print_message("%s: not on this CPU\n", names[i]);
            continue;
        }
        double peak = model_peak(model, 0.001);
        if (!(peak > 1e6 && peak < 1e13))
            fail_msg("%s: %g multiply-adds a second", names[i], peak);
        model_close(model);
    }
}

/* Runs `bench` and returns its exit code; what it prints goes to *out. */
static int run(const char *arguments, const char *input, char **out)
{
    char command[600];
    snprintf(command, sizeof command, "printf '%s' | '%s' bench --model %s --time 1ms %s 2>&1",
             input, EMBEDMILL_BINARY, path, arguments);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t size = 1 << 16;
    *out = calloc(1, size);
    assert_true(fread(*out, 1, size - 1, pipe) < size - 1);
    int status = pclose(pipe);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static double number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value))
        fail_msg("'%s' is no number", name);
    return json_number_value(value);
}

static void json_has_its_shape(void **state)
{
    (void)state;
    char *out;
    int code = run("--threads 3 --json --prompt none --corpus -", "one\\n\\ntwo words\\n", &out);
    if (code != 0)
        fail_msg("exit code %d: %s", code, out);
    json_t *report = json_loads(out, 0, NULL);
    assert_non_null(report);
    assert_int_equal(number(report, "n_texts"), 2);
    assert_int_equal(number(report, "shortest") + number(report, "longest"),
                     number(report, "n_tokens"));
    assert_true(number(report, "open_median_ms") > 0 && number(report, "peak_gmacs") > 0);
    assert_string_equal(json_string_value(json_object_get(report, "corpus")), "-");

    double share = 0;
    const json_t *stages = json_object_get(report, "stages");
    assert_int_equal(json_array_size(stages), PROFILE_STAGES);
    for (size_t i = 0; i < PROFILE_STAGES; i++)
        share += number(json_array_get(stages, i), "share");
    assert_true(share > 0.99);

    const json_t *threads = json_object_get(report, "threads");
    const json_t *latencies = json_object_get(report, "one_text");
    assert_int_equal(json_array_size(threads), 3); /* 1, 2 and all 3 */
    assert_int_equal(json_array_size(latencies), 3);
    for (size_t i = 0; i < 3; i++) {
        const json_t *latency = json_array_get(latencies, i);
        assert_int_equal(number(json_array_get(threads, i), "threads"), i + 1);
        assert_true(number(json_array_get(threads, i), "tokens_per_s") > 0);
        assert_true(number(json_array_get(threads, i), "cpu_us_per_token") > 0);
        assert_true(number(latency, "p50_ms") > 0);
        assert_true(number(latency, "p90_ms") >= number(latency, "p50_ms"));
        assert_true(number(latency, "p99_ms") >= number(latency, "p90_ms"));
    }
    /* 16, 32 and 64 tokens are what the tiny model takes; with one thread and with all */
    assert_int_equal(json_array_size(json_object_get(report, "lengths")), 6);
    json_decref(report);
    free(out);
}

static void tables_for_people(void **state)
{
    (void)state;
    char *out;
    assert_int_equal(run("--threads 1", "", &out), 0);
    static const char *const parts[] = {"made of common words", "128 texts", "gate, up",
                                        "of ceiling", "p99"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(out, parts[i]))
            fail_msg("'%s' is not in: %s", parts[i], out);
    free(out);
}

static void failures_have_their_codes(void **state)
{
    (void)state;
    static const struct {
        const char *arguments;
        int code;
        const char *part;
    } cases[] = {
        {"--corpus /does/not/exist", 65, "no such file"},
        {"--corpus -", 65, "there is no text in it"},
        {"--model /does/not/exist", 66, "/does/not/exist"},
        {"--prompt nonsense", 64, "unknown prompt 'nonsense'"},
        {"--corpuss -", 64, "did you mean --corpus?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *out;
        int code = run(cases[i].arguments, "", &out);
        if (code != cases[i].code || !strstr(out, cases[i].part))
            fail_msg("%s: exit code %d: %s", cases[i].arguments, code, out);
        free(out);
    }
}

/* This project's side of scripts/bench-peers. */
static void peer_obeys(void **state)
{
    (void)state;
    char command[2000], texts[100], line[500];
    snprintf(texts, sizeof texts, "%s/texts", folder);
    snprintf(command, sizeof command,
             "printf 'a b\\nthe end\\nx\\n' >%s; echo x >%s.2; "
             "printf 'batch\\ntokens\\none\\nmemory\\nids %s.ids\\ntexts %s.2\\ntokens\\n"
             "batch\\ntokens\\n' | '%s' %s %s 2 exact; wc -w <%s.ids; rm %s %s.2 %s.ids",
             texts, texts, texts, texts, BENCH_PEER, path, texts, texts, texts, texts, texts);
    FILE *pipe = popen(command, "r");
    double opened, took, cpu;
    unsigned long sum, one, a, b, c, n, resident, anonymous;
    assert_non_null(pipe);
    assert_non_null(fgets(line, sizeof line, pipe));
    assert_int_equal(sscanf(line, "ready %lf", &opened), 1);
    assert_non_null(fgets(line, sizeof line, pipe));
    assert_int_equal(sscanf(line, "%lf %lu %lf", &took, &sum, &cpu), 3);
    assert_non_null(fgets(line, sizeof line, pipe));
    assert_int_equal(sscanf(line, "%lu %lu %lu", &a, &b, &c), 3);
    assert_true(a > 2 && b > 2 && c > 2);
    assert_int_equal(a + b + c, sum);
    assert_non_null(fgets(line, sizeof line, pipe));
    assert_int_equal(sscanf(line, "%lf %lu %lf", &took, &one, &cpu), 3);
    assert_int_equal(one, a);
    assert_non_null(fgets(line, sizeof line, pipe));
    assert_int_equal(sscanf(line, "%lu %lu", &resident, &anonymous), 2);
    assert_true(resident >= anonymous && anonymous > 0);
    assert_non_null(fgets(line, sizeof line, pipe)); /* ids */
    assert_int_equal(atoi(line), 3);
    assert_non_null(fgets(line, sizeof line, pipe)); /* other texts, not embedded yet */
    assert_int_equal(atoi(line), 1);
    assert_non_null(fgets(line, sizeof line, pipe));
    assert_string_equal(line, "0\n");
    assert_non_null(fgets(line, sizeof line, pipe));
    assert_int_equal(sscanf(line, "%lf %lu %lf", &took, &n, &cpu), 3);
    assert_int_equal(n, c);
    assert_non_null(fgets(line, sizeof line, pipe));
    assert_int_equal(strtoul(line, NULL, 10), c);
    assert_non_null(fgets(line, sizeof line, pipe)); /* words of the file of ids */
    assert_int_equal(strtoul(line, NULL, 10), sum);
    assert_int_equal(pclose(pipe), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(profile_counts_exactly),
        cmocka_unit_test(profile_counts_attention),
        cmocka_unit_test(profile_times_add_up),
        cmocka_unit_test(profile_changes_nothing),
        cmocka_unit_test(every_table_has_a_ceiling),
        cmocka_unit_test(json_has_its_shape),
        cmocka_unit_test(tables_for_people),
        cmocka_unit_test(failures_have_their_codes),
        cmocka_unit_test(peer_obeys),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
