/*
 * test_serve_queue.c: the parts of the server without a socket: keys, names of the model, and the
 * queue, which takes turns, gives back what is dropped, and knows how long things take.
 */
#define _GNU_SOURCE /* memmem */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "worker/serve/serve_keys.h"
#include "worker/serve/serve_queue.h"
#include "worker/serve/serve_read.h"

/* 1. Keys. */

static int keys_from(struct serve_keys **out, const char *text, char *err, size_t err_size)
{
    char path[] = "/tmp/embedmill-keys-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    int rc = serve_keys_open(out, path, err, err_size);
    unlink(path);
    return rc;
}

static void test_keys(void **state)
{
    struct serve_keys *keys;
    char err[300];
    (void)state;
    assert_int_equal(
        keys_from(&keys, "\xef\xbb\xbf# who\n\nfirst-key\n  second-key\r\n", err, sizeof err), 0);
    assert_true(serve_keys_allow(keys, "Bearer first-key"));
    assert_true(serve_keys_allow(keys, "bearer  second-key"));
    static const char *const wrong[] = {NULL,
                                        "",
                                        "first-key",
                                        "Bearer",
                                        "Bearer first",
                                        "Bearer ",
                                        "Bearer # who",
                                        "Bearer first-key2",
                                        "Basic first-key"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(serve_keys_allow(keys, wrong[i]));
    serve_keys_close(keys);
    assert_true(keys_from(&keys, "\n# none\n", err, sizeof err) < 0 && strstr(err, "no key"));
    assert_true(keys_from(&keys, "good-enough\nshort\n", err, sizeof err) < 0 &&
                strstr(err, ":2:"));
    assert_true(serve_keys_open(&keys, "/nonexistent", err, sizeof err) < 0);
    assert_true(serve_keys_open(&keys, "/tmp", err, sizeof err) < 0 && strstr(err, "directory"));
    serve_keys_close(NULL);
}

/* A line that is longer than a key may be is one line: the end of a comment is no key. */
static void test_long_lines(void **state)
{
    enum { LONG = 5000, READ_AT_ONCE = 4097 };
    char text[LONG + 20], bearer[LONG + 20], err[300];
    struct serve_keys *keys;
    (void)state;
    /* The last byte of what is read at once is any, or one that a signed char has like EOF. */
    for (const char *last = "x\xff"; *last; last++) {
        memset(text, 'x', LONG);
        text[0] = '#';
        text[READ_AT_ONCE - 1] = *last;
        strcpy(text + LONG, "\ngood-enough\n");
        assert_int_equal(keys_from(&keys, text, err, sizeof err), 0);
        assert_true(serve_keys_allow(keys, "Bearer good-enough"));
        snprintf(bearer, sizeof bearer, "Bearer %.*s", LONG - READ_AT_ONCE, text + READ_AT_ONCE);
        assert_false(serve_keys_allow(keys, bearer));
        serve_keys_close(keys);
    }
    memset(text, ' ', LONG);
    assert_int_equal(keys_from(&keys, text, err, sizeof err), -EINVAL);
    assert_non_null(strstr(err, ":1:"));
}

/* 2. Names. */

static bool has(const struct serve_rules *rules, const char *name)
{
    return serve_rules_find(rules, (struct bytes){name, strlen(name)}) != NULL;
}

static void test_names(void **state)
{
    static const struct model_info info = {.name = "Embeddinggemma 300m", .fingerprint = "0f1e"};
    struct serve_rules rules = {.info = &info};
    char err[200];
    (void)state;
    assert_int_equal(serve_rules_name(&rules, "", err, sizeof err), 0);
    assert_string_equal(rules.name[0], "embeddinggemma-300m");
    assert_true(has(&rules, "google/EmbeddingGemma-300M") && has(&rules, "embeddinggemma-300m"));
    assert_true(has(&rules, "0f1e") && has(&rules, "0F1E") && !has(&rules, "0f1"));
    assert_false(has(&rules, "") || has(&rules, "embeddinggemma-300") || has(&rules, "gpt") ||
                 has(&rules, "embeddinggemma-300m-x"));
    rules = (struct serve_rules){.info = &info};
    assert_int_equal(serve_rules_name(&rules, "a/one, two", err, sizeof err), 0);
    assert_true(has(&rules, "one") && has(&rules, "TWO") && !has(&rules, "embeddinggemma-300m"));
    rules = (struct serve_rules){.info = &info};
    assert_int_equal(serve_rules_name(&rules, "*", err, sizeof err), 0);
    assert_true(has(&rules, "anything"));
    assert_string_equal(rules.name[0], "Embeddinggemma 300m");
}

static void test_which_model(void **state)
{
    static const struct model_info infos[3] = {
        {.name = "One", .fingerprint = "01"},
        {.name = "Two", .fingerprint = "02", .is_reranker = true},
        {.name = "Three", .fingerprint = "03"}};
    static const struct serve_route scores = {.kind = SERVE_RERANK, .dialect = DIALECT_TEI};
    struct serve_rules rules[3] = {{.info = infos}, {.info = infos + 1}, {.info = infos + 2}};
    struct serve_request request = {.route = &scores};
    char err[200];
    (void)state;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(serve_rules_name(&rules[i], "", err, sizeof err), 0);
    assert_ptr_equal(serve_rules_named(&request, rules, 3, (struct bytes){"x/THREE", 7}),
                     rules + 2);
    assert_ptr_equal(serve_rules_named(&request, rules, 3, (struct bytes){"02", 2}), rules + 1);
    assert_ptr_equal(serve_rules_default(rules, 3, SERVE_EMBED), rules);
    assert_ptr_equal(serve_rules_default(rules, 3, SERVE_RERANK), rules + 1);
    assert_ptr_equal(serve_rules_default(rules, 3, SERVE_TOKENIZE), rules);
    assert_ptr_equal(serve_rules_default(rules, 1, SERVE_RERANK), rules);
    request.rules = rules + 1;
    assert_true(serve_rules_can(&request, rules, 3));
    request.rules = rules;
    assert_false(serve_rules_can(&request, rules, 3));
    assert_int_equal(request.status, 424);
    assert_non_null(memmem(request.answer.ptr, request.answer.len, "like `two`", 10));
    buffer_close(&request.answer);
    request = (struct serve_request){.route = &scores, .rules = rules};
    assert_false(serve_rules_can(&request, rules, 1));
    assert_non_null(memmem(request.answer.ptr, request.answer.len, "start a server", 14));
    buffer_close(&request.answer);
    request = (struct serve_request){.route = &scores};
    assert_null(serve_rules_named(&request, rules, 3, (struct bytes){"four", 4}));
    assert_true(request.status == 404 &&
                memmem(request.answer.ptr, request.answer.len, "`one`, `two`, `three`", 21));
    buffer_close(&request.answer);
}

/* 3. The queue. */

enum { N_THREADS = 2, TEXTS_MAX = 200 };

static struct serve_queue queue;
static struct serve_request requests[4];
static struct serve_text texts[TEXTS_MAX];

/* n texts of 48 bytes, which count 24 tokens each. */
static struct job *enter(size_t which, size_t n)
{
    struct serve_request *request = &requests[which];
    memset(request, 0, sizeof *request);
    request->texts = texts;
    request->n_texts = n;
    request->deadline_ns = UINT64_MAX;
    request->max_tokens = 2048;
    return serve_queue_add(&queue, request);
}

static size_t count(struct job *jobs)
{
    size_t n = 0;
    for (; jobs; jobs = jobs->next)
        n++;
    return n;
}

static size_t of(const struct serve_slice *slice, size_t which)
{
    size_t n = 0;
    for (size_t i = 0; i < slice->n; i++)
        n += slice->picks[i].request == &requests[which];
    return n;
}

static int queue_setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < TEXTS_MAX; i++)
        texts[i] =
            (struct serve_text){.text = {"a text of forty-eight bytes, as all here are....", 48}};
    return serve_queue_open(&queue, NULL, POOL_QUERY, N_THREADS, NULL);
}

static int queue_teardown(void **state)
{
    (void)state;
    while (serve_queue_finished(&queue)) {
    }
    serve_queue_close(&queue);
    return 0;
}

static void test_together(void **state)
{
    struct serve_slice slice;
    struct serve_request *done[SERVE_SLICE_TEXTS];
    struct job *more;
    (void)state;
    assert_int_equal(count(enter(0, 1)), 1);
    assert_int_equal(count(enter(1, 1)), 0); /* the thread that comes takes both */
    serve_queue_take(&queue, &slice, 1, &more);
    assert_true(slice.n == 2 && of(&slice, 0) == 1 && of(&slice, 1) == 1 && !more);
    assert_int_equal(serve_queue_done(&queue, &slice, 2, done), 2);
    assert_true(done[0] == &requests[0] && done[1] == &requests[1]);
    serve_queue_finish(&queue, done[1]);
    serve_queue_finish(&queue, done[0]);
    assert_ptr_equal(serve_queue_finished(&queue), &requests[1]);
    assert_ptr_equal(serve_queue_finished(&queue), &requests[0]);
    assert_null(serve_queue_finished(&queue));
    assert_int_equal(serve_queue_load(&queue).n_tokens, 0);
}

/* A list of many texts: the text that comes behind it is in the second slice. */
static void test_turns(void **state)
{
    struct serve_slice first, second, third;
    struct serve_request *done[SERVE_SLICE_TEXTS];
    struct job *more;
    (void)state;
    assert_int_equal(count(enter(0, 150)), N_THREADS);
    serve_queue_take(&queue, &first, 1, &more);
    assert_true(first.n >= 20 && first.n_tokens <= 600 && of(&first, 0) == first.n);
    assert_int_equal(count(more), 1); /* in the place of the one that has begun */
    enter(1, 1);
    serve_queue_take(&queue, &second, 2, &more);
    assert_true(of(&second, 0) > 0);
    serve_queue_take(&queue, &third, 3, &more);
    assert_int_equal(of(&second, 1) + of(&third, 1), 1);
    serve_queue_done(&queue, &first, 4, done);
    serve_queue_done(&queue, &second, 5, done);
    serve_queue_done(&queue, &third, 6, done);
    assert_true(serve_queue_drop(&queue, &requests[0]));
    assert_int_equal(serve_queue_load(&queue).n_tokens, 0);
}

static void test_drop(void **state)
{
    struct serve_slice slice;
    struct serve_request *done[SERVE_SLICE_TEXTS];
    struct job *more;
    (void)state;
    enter(0, 100);
    serve_queue_take(&queue, &slice, 1, &more);
    assert_false(serve_queue_drop(&queue, &requests[0])); /* some are at a thread */
    assert_int_equal(serve_queue_load(&queue).n_tokens, 0);
    assert_null(serve_queue_finished(&queue));
    assert_int_equal(serve_queue_done(&queue, &slice, 2, done), 0); /* nobody writes its answer */
    assert_ptr_equal(serve_queue_finished(&queue), &requests[0]);
    enter(1, 1);
    assert_true(serve_queue_drop(&queue, &requests[1]));
    assert_ptr_equal(serve_queue_finished(&queue), &requests[1]);
    serve_queue_take(&queue, &slice, 3, &more); /* a thread comes in vain */
    assert_true(slice.n == 0 && !more);
    enter(2, 1);
    requests[2].deadline_ns = 100;
    assert_null(serve_queue_expire(&queue, 99));
    assert_ptr_equal(serve_queue_expire(&queue, 100), &requests[2]);
    assert_null(serve_queue_expire(&queue, 100));
}

static void test_admission(void **state)
{
    struct serve_request *asks = requests, *done[SERVE_SLICE_TEXTS];
    struct serve_slice slice;
    struct job *more;
    uint32_t after;
    (void)state;
    memset(requests, 0, sizeof requests);
    for (size_t i = 0; i < 4; i++)
        asks[i].n_bytes_in = 4000;
    assert_true(serve_queue_admit(&queue, &asks[0], 100, 1000000000, &after)); /* nobody waits */
    assert_false(serve_queue_admit(&queue, &asks[1], 100, 1000000000, &after));
    assert_true(serve_queue_admit(&queue, &asks[1], 5000, 1000000000, &after));
    asks[0].status = asks[1].status = 400; /* and out again */
    serve_queue_add(&queue, &asks[0]);
    serve_queue_add(&queue, &asks[1]);
    assert_int_equal(serve_queue_load(&queue).n_tokens, 0);
    /* Two seconds for what a thread took: what waits then takes as long by the same measure. */
    enter(2, 20);
    serve_queue_take(&queue, &slice, 1000000000, &more);
    serve_queue_done(&queue, &slice, 3000000000, done);
    assert_true(serve_queue_load(&queue).tokens_per_second == (double)slice.n_tokens / 2);
    /* A thread that looked at the clock before another, and comes to the lock after it. */
    queue.n_working++;
    slice.n = 0;
    serve_queue_done(&queue, &slice, 2999999999, done);
    assert_true(serve_queue_load(&queue).tokens_per_second >= (double)slice.n_tokens / 2);
    enter(3, 160);
    assert_false(serve_queue_admit(&queue, &asks[0], 1000, 1000000000, &after));
    struct serve_load load = serve_queue_load(&queue);
    assert_true(load.n_tokens >= 160 * 24);
    assert_int_equal(after, (uint32_t)((double)load.n_tokens / load.tokens_per_second + 1));
    asks[0].n_tokens_admitted = 0;
    serve_queue_drop(&queue, &requests[3]);
    serve_queue_drop(&queue, &requests[2]);
}

/* What the model does not take of a text keeps nobody waiting. */
static void test_long_texts(void **state)
{
    static const int32_t ids[5000];
    struct serve_slice slice;
    struct serve_request *done[SERVE_SLICE_TEXTS];
    struct job *more;
    (void)state;
    texts[0].text = (struct bytes){"", 1000000};
    texts[1] = (struct serve_text){.ids = ids, .n_ids = 5000};
    enter(0, 2);
    assert_int_equal(serve_queue_load(&queue).n_tokens, 2 * 2048);
    for (size_t i = 0; i < 2; i++) {
        serve_queue_take(&queue, &slice, 1, &more);
        assert_true(slice.n == 1 && slice.n_tokens == 2048);
        assert_int_equal(serve_queue_done(&queue, &slice, 2, done), i);
    }
    serve_queue_finish(&queue, done[0]);
    /* Pairs of a reranker, too. */
    requests[1] = (struct serve_request){
        .texts = texts + 2, .n_texts = 3, .query = {"", 1000000}, .max_tokens = 512};
    requests[1].deadline_ns = UINT64_MAX;
    serve_queue_add(&queue, &requests[1]);
    assert_int_equal(serve_queue_load(&queue).n_tokens, 3 * 512);
    assert_true(serve_queue_drop(&queue, &requests[1]));
}

/* Two models: what waits for one is nothing to the other, and a request that is dropped is found
 * whichever of them it waits for. */
static void test_two_models(void **state)
{
    struct serve_queue other;
    struct serve_slice slice;
    struct serve_request *done[SERVE_SLICE_TEXTS];
    struct job *more;
    uint32_t after;
    (void)state;
    assert_int_equal(serve_queue_open(&other, &queue, POOL_QUERY, N_THREADS, NULL), 0);
    enter(0, 100);
    memset(&requests[1], 0, sizeof requests[1]);
    requests[1].n_bytes_in = 4000;
    requests[1].max_tokens = 2048;
    assert_false(serve_queue_drop(&queue, &requests[1])); /* while it is read */
    assert_true(requests[1].is_dropped);
    requests[1].is_dropped = false;
    assert_false(serve_queue_admit(&queue, &requests[1], 100, UINT64_MAX, &after));
    assert_true(serve_queue_admit(&other, &requests[1], 100, UINT64_MAX, &after));
    requests[1].texts = texts;
    requests[1].n_texts = 2;
    assert_int_equal(count(serve_queue_add(&other, &requests[1])), 1);
    serve_queue_take(&other, &slice, 1, &more);
    assert_true(slice.n == 2 && of(&slice, 1) == 2);
    assert_int_equal(serve_queue_done(&other, &slice, 2, done), 1);
    serve_queue_finish(&other, done[0]);
    assert_ptr_equal(serve_queue_finished(&other), &requests[1]);
    memset(&requests[2], 0, sizeof requests[2]);
    requests[2].max_tokens = 2048;
    requests[2].texts = texts;
    requests[2].n_texts = 3;
    serve_queue_add(&other, &requests[2]);
    assert_true(serve_queue_drop(&queue, &requests[2]));
    assert_int_equal(serve_queue_load(&other).n_tokens, 0);
    assert_null(serve_queue_finished(&queue));
    assert_ptr_equal(serve_queue_finished(&other), &requests[2]);
    assert_true(serve_queue_drop(&other, &requests[0])); /* any queue of the lane will do */
    assert_ptr_equal(serve_queue_finished(&queue), &requests[0]);
    serve_queue_close(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_which_model),
        cmocka_unit_test_setup_teardown(test_together, queue_setup, queue_teardown),
        cmocka_unit_test_setup_teardown(test_turns, queue_setup, queue_teardown),
        cmocka_unit_test_setup_teardown(test_drop, queue_setup, queue_teardown),
        cmocka_unit_test_setup_teardown(test_admission, queue_setup, queue_teardown),
        cmocka_unit_test_setup_teardown(test_long_texts, queue_setup, queue_teardown),
        cmocka_unit_test_setup_teardown(test_two_models, queue_setup, queue_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
