/*
 * test_fanout.c: whom messages go to, and when they are done, where several pipelines share a
 * source.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <uv.h>

#include "connectors/dead_letter_codes.h"
#include "worker/pipeline/fanout.h"

enum { N = 2, MOST = 64 };

/* A source that gives what the test says, and keeps what it is told. */
static struct {
    struct source base;
    struct message messages[MOST];
    int acked[MOST], released[MOST];
    size_t n_requests, asked, asked_bytes;
    bool is_closed;
    uint64_t deadline_ms;
    void (*closed)(void *ctx);
    void *closed_ctx;
    uv_idle_t idle;
} from;

/* Two pipelines, as far as a source knows them. */
static struct pipe {
    struct source *source;
    struct message *got[MOST];
    size_t n;
    int n_failed, n_ended, n_closed;
} pipes[N];

static struct {
    uv_loop_t loop;
    struct pool *pool;
    struct fanout *fanout;
    int n_ending;
} rig;

static char err[200];

static int source_open(struct source **out, uv_loop_t *loop, const struct settings *settings,
                       const struct source_events *events, void *ctx, char *why, size_t size)
{
    (void)loop, (void)settings, (void)why, (void)size;
    from.base.events = events;
    from.base.ctx = ctx;
    *out = &from.base;
    return 0;
}

static void source_request(struct source *source, size_t n, size_t n_bytes)
{
    (void)source;
    from.n_requests++;
    from.asked = n;
    from.asked_bytes = n_bytes;
}

static void source_ack(struct source *source, struct message *message)
{
    assert_ptr_equal(source, &from.base);
    from.acked[message - from.messages]++;
}

static void source_release(struct source *source, struct message *message)
{
    assert_ptr_equal(source, &from.base);
    from.released[message - from.messages]++;
}

static void on_idle(uv_idle_t *idle)
{
    uv_close((uv_handle_t *)idle, NULL);
    from.closed(from.closed_ctx);
}

static void source_close(struct source *source, uint64_t deadline_ms, void (*closed)(void *ctx),
                         void *ctx)
{
    (void)source;
    assert_false(from.is_closed);
    from.is_closed = true;
    from.deadline_ms = deadline_ms;
    from.closed = closed;
    from.closed_ctx = ctx;
    uv_idle_init(&rig.loop, &from.idle);
    uv_idle_start(&from.idle, on_idle);
}

static const struct source_ops ops = {.open = source_open,
                                      .request = source_request,
                                      .ack = source_ack,
                                      .release = source_release,
                                      .close = source_close};

static void on_messages(void *ctx, struct message **messages, size_t n)
{
    struct pipe *pipe = ctx;
    for (size_t i = 0; i < n; i++)
        pipe->got[pipe->n++] = messages[i];
}

static void on_state(void *ctx, enum link_state state, const char *why)
{
    (void)ctx, (void)state, (void)why;
}

static void on_end(void *ctx)
{
    ((struct pipe *)ctx)->n_ended++;
}

static void on_failed(void *ctx, int code, const char *why)
{
    (void)code;
    assert_string_equal(why, "gone");
    ((struct pipe *)ctx)->n_failed++;
}

static void on_closed(void *ctx)
{
    ((struct pipe *)ctx)->n_closed++;
}

static const struct source_events events = {
    .on_messages = on_messages, .on_state = on_state, .on_end = on_end, .on_failed = on_failed};

static void on_ending(void *ctx)
{
    assert_ptr_equal(ctx, &rig);
    rig.n_ending++;
}

/* field: NULL: all messages go to both. */
static void begin(const char *field)
{
    static const char *const names[N] = {"one", "two"};
    memset(&from, 0, sizeof from);
    memset(pipes, 0, sizeof pipes);
    memset(&rig, 0, sizeof rig);
    assert_int_equal(uv_loop_init(&rig.loop), 0);
    assert_int_equal(pool_open(&rig.pool, 2, NULL, NULL, NULL), 0);
    const struct fanout_options options = {
        .pool = rig.pool,
        .names = names,
        .n = N,
        .decode = {.max_texts = 10, .max_text_bytes = 1000, .model_field = field},
        .on_ending = on_ending,
        .ctx = &rig};
    assert_int_equal(fanout_open(&rig.fanout, &rig.loop, &ops, NULL, &options, err, sizeof err), 0);
    for (size_t i = 0; i < N; i++)
        pipes[i].source = fanout_join(rig.fanout, i, &events, &pipes[i]);
    from.base.ops = &ops;
    assert_ptr_equal(fanout_source(rig.fanout), &from.base);
    fanout_begin(rig.fanout);
}

static void request(size_t i, size_t n, size_t n_bytes)
{
    pipes[i].source->ops->request(pipes[i].source, n, n_bytes);
}

/* Message i of the source, with that value; key: NULL: none. */
static struct message *message(size_t i, const char *value, const char *key)
{
    struct message *m = &from.messages[i];
    *m = (struct message){.source = &from.base, .position = bytes_of("here"), .timestamp_ms = -1};
    if (value)
        m->value = bytes_of(value);
    if (key)
        m->key = bytes_of(key);
    return m;
}

static void give(struct message *first, size_t n)
{
    struct message *list[MOST];
    for (size_t i = 0; i < n; i++)
        list[i] = first + i;
    from.base.events->on_messages(from.base.ctx, list, n);
}

static void turn_until(size_t n_one, size_t n_two)
{
    for (int i = 0; i < 20000 && (pipes[0].n < n_one || pipes[1].n < n_two); i++) {
        uv_run(&rig.loop, UV_RUN_NOWAIT);
        uv_sleep(1);
    }
    assert_int_equal(pipes[0].n, n_one);
    assert_int_equal(pipes[1].n, n_two);
}

static void ack(size_t i, size_t n)
{
    pipes[i].source->ops->ack(pipes[i].source, pipes[i].got[n]);
}

static void finish(void)
{
    for (size_t i = 0; i < N; i++)
        pipes[i].source->ops->close(pipes[i].source, 10 * (i + 1), on_closed, &pipes[i]);
    uv_run(&rig.loop, UV_RUN_DEFAULT);
    assert_true(from.is_closed);
    assert_int_equal(from.deadline_ms, 20); /* the longest of theirs */
    assert_int_equal(pipes[0].n_closed + pipes[1].n_closed, 2);
    /* The first, and nobody is left to be told of the last; none when the source has ended, for
     * then all end by themselves and may take their time. */
    assert_int_equal(rig.n_ending, pipes[0].n_ended ? 0 : 1);
    fanout_free(rig.fanout);
    pool_close(rig.pool);
    assert_int_equal(uv_loop_close(&rig.loop), 0);
}

static void test_credit_is_the_least(void **state)
{
    (void)state;
    begin(NULL);
    request(0, 10, 5000);
    assert_int_equal(from.asked, 0); /* the other one takes nothing yet */
    request(1, 6, 7000);
    assert_int_equal(from.asked, 6);
    assert_int_equal(from.asked_bytes, 5000);
    for (size_t i = 0; i < 4; i++)
        message(i, "x", NULL);
    give(from.messages, 4);
    assert_int_equal(from.asked, 2); /* until one asks anew */
    request(0, 12, 4000);
    request(1, 12, 4000);
    assert_int_equal(from.asked, 12);
    request(1, 0, 0);
    assert_int_equal(from.asked, 0);
    finish();
}

static void test_done_when_all_are(void **state)
{
    (void)state;
    begin(NULL);
    for (size_t i = 0; i < 3; i++)
        message(i, "x", NULL);
    request(0, 9, 900);
    request(1, 9, 900);
    give(from.messages, 3);
    turn_until(3, 3);
    assert_true(from.messages[0].is_shared);
    ack(0, 0);
    assert_int_equal(from.acked[0], 0);
    ack(1, 1); /* in any order */
    ack(0, 1);
    assert_int_equal(from.acked[1], 1);
    ack(1, 0);
    assert_int_equal(from.acked[0], 1);
    /* One that is not done by one of them comes again. */
    pipes[0].source->ops->release(pipes[0].source, pipes[0].got[2]);
    assert_int_equal(from.released[2], 0);
    ack(1, 2);
    assert_int_equal(from.released[2], 1);
    assert_int_equal(from.acked[2], 0);
    finish();
}

static void test_by_name(void **state)
{
    static const char *const values[] = {
        "{\"id\":0,\"text\":\"x\",\"who\":\"two\"}",
        "{\"id\":1,\"text\":\"x\",\"who\":\"one\"}",
        "{\"id\":2,\"text\":\"x\"}",
        "plain",
        "{\"id\":4,\"text\":",
        "{\"id\":5,\"text\":\"x\",\"who\":\"three\"}",
        "{\"id\":6,\"text\":\"x\",\"who\":7}",
        "{\"id\":7,\"delete\":true,\"who\":\"two\"}",
        "{\"id\":8,\"delete\":true}",
        "{\"before\":{\"id\":9,\"who\":\"two\"},\"after\":null,\"op\":\"d\",\"source\":{}}",
        "\x82\xa4text\xa1x\xa3who\xa3two",
    };
    enum { N_VALUES = sizeof values / sizeof values[0] };
    (void)state;
    begin("who");
    for (size_t i = 0; i < N_VALUES; i++)
        message(i, values[i], NULL);
    message(N_VALUES, NULL, "gone"); /* a tombstone */
    message(N_VALUES + 1, NULL, "gone, too");
    const struct header header = {bytes_of("who"), bytes_of("two")};
    from.messages[N_VALUES + 1].headers = &header;
    from.messages[N_VALUES + 1].n_headers = 1;
    from.messages[3].headers = &header;
    from.messages[3].n_headers = 1;
    request(0, MOST, 100000);
    request(1, MOST, 100000);
    give(from.messages, 5);
    give(from.messages + 5, N_VALUES + 2 - 5); /* while the first are looked at */
    turn_until(7, 8);
    static const size_t one[] = {1, 2, 4, 5, 6, 8, N_VALUES};
    static const size_t two[] = {0, 3, 7, 8, 9, 10, N_VALUES, N_VALUES + 1};
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(pipes[0].got[i] - from.messages, one[i]);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(pipes[1].got[i] - from.messages, two[i]);
    /* What is wrong with a message its pipeline finds out; but the names only we know. */
    assert_null(from.messages[4].problem.code);
    assert_string_equal(from.messages[5].problem.code, DEAD_LETTER(unknown_model));
    assert_string_equal(from.messages[5].problem.reason,
                        "'who' is not the name of a model; known are one, two");
    for (size_t i = 0; i < N_VALUES + 2; i++)
        assert_int_equal(from.messages[i].is_shared, i == 8 || i == N_VALUES);
    ack(0, 0);
    assert_int_equal(from.acked[1], 1); /* it is of one alone */
    finish();
}

static void test_failure_and_end_are_everybodys(void **state)
{
    (void)state;
    begin("who");
    request(0, MOST, 100000);
    request(1, MOST, 100000);
    give(message(0, "x", NULL), 1);
    from.base.events->on_end(from.base.ctx); /* behind the message */
    turn_until(1, 0);
    for (int i = 0; i < 20000 && !pipes[1].n_ended; i++)
        uv_run(&rig.loop, UV_RUN_NOWAIT);
    assert_int_equal(pipes[0].n_ended, 1);
    assert_int_equal(pipes[1].n_ended, 1);
    from.base.events->on_failed(from.base.ctx, -1, "gone");
    assert_int_equal(pipes[0].n_failed + pipes[1].n_failed, 2);
    finish();
}

/* One that cannot be opened: the others end, and then the source does. */
static void test_not_all_join(void **state)
{
    static const char *const names[N] = {"one", "two"};
    (void)state;
    memset(&from, 0, sizeof from);
    memset(pipes, 0, sizeof pipes);
    memset(&rig, 0, sizeof rig);
    from.base.ops = &ops;
    assert_int_equal(uv_loop_init(&rig.loop), 0);
    assert_int_equal(pool_open(&rig.pool, 2, NULL, NULL, NULL), 0);
    const struct fanout_options options = {.pool = rig.pool,
                                           .names = names,
                                           .n = N,
                                           .decode = {.model_field = "who"},
                                           .on_ending = on_ending,
                                           .ctx = &rig};
    assert_int_equal(fanout_open(&rig.fanout, &rig.loop, &ops, NULL, &options, err, sizeof err), 0);
    pipes[0].source = fanout_join(rig.fanout, 0, &events, &pipes[0]);
    pipes[0].source->ops->close(pipes[0].source, 5, on_closed, &pipes[0]);
    assert_false(from.is_closed);
    fanout_begin(rig.fanout);
    assert_true(from.is_closed);
    uv_run(&rig.loop, UV_RUN_DEFAULT);
    assert_int_equal(pipes[0].n_closed, 1);
    assert_int_equal(from.asked, 0);
    fanout_free(rig.fanout);
    pool_close(rig.pool);
    assert_int_equal(uv_loop_close(&rig.loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_credit_is_the_least),
        cmocka_unit_test(test_done_when_all_are),
        cmocka_unit_test(test_by_name),
        cmocka_unit_test(test_failure_and_end_are_everybodys),
        cmocka_unit_test(test_not_all_join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
