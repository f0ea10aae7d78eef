/*
 * test_rabbitmq_link.c: source and sink against canned answers of RabbitMQ 4 and of a server in
 * trouble: what is sent, in which order, and what is sent again.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "connectors/rabbitmq/rabbitmq_link_internal.h"
#include "connectors/rabbitmq/rabbitmq_source.h"
#include "tests/support/rabbitmq_fake.h"

enum { GIVEN_MAX = 64, RECORDS_MAX = 32 };

struct rig {
    uv_loop_t loop;
    struct rabbitmq_fake fake;
    struct settings *settings;
    struct source *source;
    struct sink *sink;
    struct message *given[GIVEN_MAX];
    size_t n_given, n_published, n_late, n_failed;
    enum published how, hows[RECORDS_MAX]; /* of the last one, and of each */
    int64_t lag;
    bool is_up, is_closed, is_late;
    char why[800], tag[64];
    struct part parts[RECORDS_MAX];
    struct record records[RECORDS_MAX];
    size_t n_records;
    bool is_done[RECORDS_MAX];
    struct message origin;
};

/* ---- events */

static void on_messages(void *ctx, struct message **messages, size_t n)
{
    struct rig *rig = ctx;
    for (size_t i = 0; i < n; i++)
        rig->given[rig->n_given++] = messages[i];
}

static void on_state(void *ctx, enum link_state state, const char *why)
{
    struct rig *rig = ctx;
    rig->is_up = state == LINK_UP;
    snprintf(rig->why, sizeof rig->why, "%s", why);
}

static void on_failed(void *ctx, int err, const char *why)
{
    struct rig *rig = ctx;
    (void)err;
    rig->n_failed++;
    snprintf(rig->why, sizeof rig->why, "%s", why);
}

static void on_count(void *ctx, enum counter what, uint64_t n)
{
    struct rig *rig = ctx;
    if (what == COUNTER_LATE_ACKS)
        rig->n_late += n;
}

static void on_published(void *ctx, struct record *record, enum published how)
{
    struct rig *rig = ctx;
    size_t i = (size_t)(record - rig->records);
    assert_false(rig->is_done[i]);
    rig->is_done[i] = true;
    rig->n_published++;
    rig->how = rig->hows[i] = how;
}

static void on_closed(void *ctx)
{
    struct rig *rig = ctx;
    rig->is_closed = true;
}

static const struct source_events source_events = {
    .on_messages = on_messages, .on_state = on_state, .on_failed = on_failed, .on_count = on_count};
static const struct sink_events sink_events = {
    .on_published = on_published, .on_state = on_state, .on_failed = on_failed};

/* ---- the rig */

static void on_late(uv_timer_t *timer)
{
    struct rig *rig = timer->data;
    rig->is_late = true;
}

/* Run until so, for at most 10 s. */
#define RUN_UNTIL(rig, so)                                                                         \
    do {                                                                                           \
        uv_timer_t timer;                                                                          \
        uv_timer_init(&(rig)->loop, &timer);                                                       \
        timer.data = (rig);                                                                        \
        (rig)->is_late = false;                                                                    \
        uv_timer_start(&timer, on_late, 10000, 0);                                                 \
        while (!(so) && !(rig)->is_late)                                                           \
            uv_run(&(rig)->loop, UV_RUN_ONCE);                                                     \
        uv_close((uv_handle_t *)&timer, NULL);                                                     \
        uv_run(&(rig)->loop, UV_RUN_NOWAIT);                                                       \
        assert_true(so);                                                                           \
    } while (0)

static void on_waited(uv_timer_t *timer)
{
    bool *is_over = timer->data;
    *is_over = true;
}

static void run_for(struct rig *rig, uint64_t ms)
{
    bool is_over = false;
    uv_timer_t timer;
    uv_timer_init(&rig->loop, &timer);
    timer.data = &is_over;
    uv_timer_start(&timer, on_waited, ms, 0);
    while (!is_over)
        uv_run(&rig->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&rig->loop, UV_RUN_NOWAIT);
}

static void rig_open(struct rig *rig)
{
    const struct option *tables[] = {rabbitmq_options, NULL};
    char url[64], err[300];
    memset(rig, 0, sizeof *rig);
    uv_loop_init(&rig->loop);
    rabbitmq_fake_open(&rig->fake, &rig->loop);
    rig->fake.ctx = rig;
    snprintf(url, sizeof url, "amqp://127.0.0.1:%d", rig->fake.port);
    assert_int_equal(settings_open(&rig->settings, tables), 0);
    assert_int_equal(settings_set(rig->settings, "rabbitmq.url", url, err, sizeof err), 0);
    assert_int_equal(settings_set(rig->settings, "rabbitmq.timeout", "2s", err, sizeof err), 0);
}

static void rig_close(struct rig *rig)
{
    rig->is_closed = false;
    if (rig->source)
        rig->source->ops->close(rig->source, 2000, on_closed, rig);
    if (rig->sink)
        rig->sink->ops->close(rig->sink, 2000, on_closed, rig);
    RUN_UNTIL(rig, rig->is_closed);
    rabbitmq_fake_close(&rig->fake);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    settings_close(rig->settings);
}

static void open_source(struct rig *rig)
{
    char err[300];
    assert_int_equal(rabbitmq_source_ops.open(&rig->source, &rig->loop, rig->settings,
                                              &source_events, rig, err, sizeof err),
                     0);
    rig->source->ops->request(rig->source, 100, 1 << 20);
    RUN_UNTIL(rig, rig->is_up);
}

static void open_sink(struct rig *rig)
{
    char err[300];
    assert_int_equal(rabbitmq_sink_ops.open(&rig->sink, &rig->loop, rig->settings, NULL,
                                            &sink_events, rig, err, sizeof err),
                     0);
}

/* One record; its number. */
static size_t publish(struct rig *rig, const char *body)
{
    size_t i = rig->n_records++;
    struct record *record = &rig->records[i];
    assert_true(i < RECORDS_MAX);
    rig->origin = (struct message){.timestamp_ms = -1, .position = {"p", 1}, .deliveries = 1};
    rig->parts[i] = (struct part){.id = {"id", 2}, .value = {body, strlen(body)}};
    *record = (struct record){.origin = &rig->origin, .parts = &rig->parts[i], .n_parts = 1};
    rig->sink->ops->publish(rig->sink, &record, 1);
    return i;
}

/* The newest connection; consumer tags are numbered. */
static struct rabbitmq_fake_connection *newest(struct rig *rig)
{
    return &rig->fake.connections[rig->fake.n_connections - 1];
}

/* ---- the source */

/* 4.x: the prefetch is the consumer's own, what is given back is nacked and not rejected (a reject
 * counts as a failed delivery), and the server confirms it before the connection ends. */
static void test_source(void **state)
{
    static const uint32_t last[] = {AMQP_BASIC_CANCEL_METHOD, AMQP_BASIC_NACK_METHOD,
                                    AMQP_CHANNEL_CLOSE_METHOD, AMQP_CONNECTION_CLOSE_METHOD};
    struct rig rig;
    (void)state;
    rig_open(&rig);
    rig.fake.chop = 1; /* torn anywhere */
    open_source(&rig);
    for (uint64_t tag = 1; tag <= 4; tag++)
        rabbitmq_fake_deliver(newest(&rig), tag, "embedmill-1", "id", "text");
    RUN_UNTIL(&rig, rig.n_given == 4);
    rig.source->ops->ack(rig.source, rig.given[0]);
    rig.source->ops->ack(rig.source, rig.given[1]);
    rig.source->ops->release(rig.source, rig.given[2]);
    RUN_UNTIL(&rig, rabbitmq_fake_count(&rig.fake, AMQP_BASIC_NACK_METHOD) == 1);
    size_t at = rig.fake.n_log;
    rig_close(&rig); /* and one is still in hand */

    const struct rabbitmq_fake *fake = &rig.fake;
    assert_int_equal(rabbitmq_fake_count(fake, AMQP_BASIC_REJECT_METHOD), 0);
    assert_false(rabbitmq_fake_find(fake, AMQP_BASIC_QOS_METHOD, 0)->flag);
    assert_true(rabbitmq_fake_find(fake, AMQP_BASIC_QOS_METHOD, 0)->number > 0);
    assert_int_equal(rabbitmq_fake_count(fake, AMQP_BASIC_ACK_METHOD), 2);
    const struct rabbitmq_fake_entry *nack = rabbitmq_fake_find(fake, AMQP_BASIC_NACK_METHOD, 0);
    assert_int_equal(nack->number, 3);
    assert_true(nack->flag);
    for (size_t i = 0; i < 4; i++) {
        while (at < fake->n_log && fake->log[at].id != last[i])
            at++;
        assert_true(at < fake->n_log);
    }
    assert_int_equal(rig.n_failed, 0);
}

/* More than is fit to be held is not read, until some of it is wanted or all of it is over. */
static void test_held(void **state)
{
    enum { BODY = 4 << 20, N = 12 };
    char *body = malloc(BODY + 1);
    struct rig rig;
    (void)state;
    memset(body, 'x', BODY);
    body[BODY] = '\0';
    rig_open(&rig);
    open_source(&rig);
    rig.source->ops->request(rig.source, 0, 0);
    run_for(&rig, 100);
    for (uint64_t tag = 1; tag <= N; tag++)
        rabbitmq_fake_deliver(newest(&rig), tag, "embedmill-1", "id", body);
    run_for(&rig, 500);
    assert_int_equal(rig.n_given, 0);
    assert_true(newest(&rig)->handle.write_queue_size > BODY); /* not all of it was taken */
    rig.source->ops->request(rig.source, 3, 1 << 30);
    RUN_UNTIL(&rig, rig.n_given == 3);
    rig.source->ops->request(rig.source, 0, 0);
    run_for(&rig, 200);
    rig.source->ops->ack(rig.source, rig.given[0]);
    rig_close(&rig);
    assert_int_equal(rig.n_failed, 0); /* the ack was confirmed in time */
    assert_int_equal(rabbitmq_fake_count(&rig.fake, AMQP_CONNECTION_CLOSE_METHOD), 1);
    free(body);
}

static bool close_on_tick; /* the next qos, which confirms acks, is answered by a close */

static bool answer_timeout(struct rabbitmq_fake_connection *connection, uint16_t channel,
                           uint32_t id, const void *decoded)
{
    amqp_channel_close_t close = {
        .reply_code = AMQP_PRECONDITION_FAILED,
        .reply_text = rabbitmq_text("PRECONDITION_FAILED - delivery acknowledgement on channel 1 "
                                    "timed out. Timeout value used: 1800000 ms.")};
    (void)decoded;
    if (id != AMQP_BASIC_ACK_METHOD || channel != 1 || !close_on_tick)
        return false;
    close_on_tick = false;
    rabbitmq_fake_send(connection, 1, AMQP_CHANNEL_CLOSE_METHOD, &close);
    return true;
}

/* The channel is closed under us: what was in hand comes again, and its tags are of no use. */
static void test_timed_out(void **state)
{
    struct rig rig;
    (void)state;
    rig_open(&rig);
    rig.fake.on_method = answer_timeout;
    open_source(&rig);
    rabbitmq_fake_deliver(newest(&rig), 1, "embedmill-1", "a", "text");
    rabbitmq_fake_deliver(newest(&rig), 2, "embedmill-1", "b", "text");
    RUN_UNTIL(&rig, rig.n_given == 2);
    close_on_tick = true;
    rig.source->ops->ack(rig.source, rig.given[0]);
    RUN_UNTIL(&rig, !rig.is_up);
    assert_non_null(strstr(rig.why, "set rabbitmq.consumer_timeout"));
    rig.source->ops->ack(rig.source, rig.given[1]);
    assert_int_equal(rig.n_late, 1);
    RUN_UNTIL(&rig, rig.is_up);
    assert_int_equal(rig.fake.n_connections, 1); /* the channel alone is made anew */
    assert_int_equal(rabbitmq_fake_count(&rig.fake, AMQP_BASIC_ACK_METHOD), 1);
    rabbitmq_fake_deliver(newest(&rig), 1, "embedmill-2", "b", "text");
    RUN_UNTIL(&rig, rig.n_given == 3);
    rig.source->ops->ack(rig.source, rig.given[2]);
    RUN_UNTIL(&rig, rabbitmq_fake_count(&rig.fake, AMQP_BASIC_ACK_METHOD) == 2);
    rig_close(&rig);
    assert_int_equal(rig.n_failed, 0);
}

/* For the next thing to be sent. */
static void starve(struct rig *rig)
{
    const struct rabbitmq_source *source = (struct rabbitmq_source *)rig->source;
    tcp_output(source->link->tcp)->status = -ENOMEM;
}

/* No memory for giving back: the connection is dropped, once, and each message is void once; nor
 * for leaving: that is the end, too. */
static void test_no_memory(void **state)
{
    struct rig rig;
    char err[300];
    (void)state;
    rig_open(&rig);
    assert_int_equal(settings_set(rig.settings, "rabbitmq.consumer_timeout", "1s", err, sizeof err),
                     0);
    open_source(&rig);
    for (uint64_t tag = 1; tag <= 3; tag++)
        rabbitmq_fake_deliver(newest(&rig), tag, "embedmill-1", "id", "text");
    RUN_UNTIL(&rig, rig.n_given == 3);
    starve(&rig);
    RUN_UNTIL(&rig, !rig.is_up);
    assert_non_null(strstr(rig.why, "no memory"));
    for (size_t i = 0; i < 3; i++)
        rig.source->ops->ack(rig.source, rig.given[i]);
    assert_int_equal(rig.n_late, 3);
    RUN_UNTIL(&rig, rig.is_up);
    assert_int_equal(rig.fake.n_connections, 2);
    assert_int_equal(rabbitmq_fake_count(&rig.fake, AMQP_BASIC_NACK_METHOD), 0);
    RUN_UNTIL(&rig, rabbitmq_fake_count(&rig.fake, AMQP_BASIC_CONSUME_METHOD) == 2);
    rabbitmq_fake_deliver(newest(&rig), 1, "embedmill-2", "id", "text");
    RUN_UNTIL(&rig, rig.n_given == 4);
    starve(&rig);
    rig_close(&rig);
}

static void on_lag(void *ctx, const char *part, int64_t lag)
{
    struct rig *rig = ctx;
    assert_string_equal(part, "texts");
    rig->lag = lag;
}

/* The length of the queue is asked for, and every declare is passive: nothing is made or changed.
 */
static void test_passive(void **state)
{
    struct rig rig;
    struct source_events events = source_events;
    char err[300];
    (void)state;
    rig_open(&rig);
    events.on_lag = on_lag;
    assert_int_equal(rabbitmq_source_ops.open(&rig.source, &rig.loop, rig.settings, &events, &rig,
                                              err, sizeof err),
                     0);
    RUN_UNTIL(&rig, rig.lag == 5);
    rig_close(&rig);
    assert_true(rabbitmq_fake_count(&rig.fake, AMQP_QUEUE_DECLARE_METHOD) > 0);
    for (size_t i = 0; i < rig.fake.n_log; i++) {
        assert_true(rig.fake.log[i].id != AMQP_QUEUE_DECLARE_METHOD || rig.fake.log[i].flag);
        assert_true(rig.fake.log[i].id != AMQP_EXCHANGE_DECLARE_METHOD);
        assert_true(rig.fake.log[i].id != AMQP_QUEUE_BIND_METHOD);
    }
}

/* ---- the sink */

static void return_first(struct rabbitmq_fake_connection *connection, uint16_t channel,
                         uint64_t tag)
{
    amqp_basic_ack_t ack = {.delivery_tag = tag};
    if (connection->fake->n_bodies == 1)
        rabbitmq_fake_return(connection, channel, "vector");
    rabbitmq_fake_send(connection, channel, AMQP_BASIC_ACK_METHOD, &ack);
}

static void nack_first(struct rabbitmq_fake_connection *connection, uint16_t channel, uint64_t tag)
{
    amqp_basic_ack_t ack = {.delivery_tag = tag};
    amqp_basic_nack_t nack = {.delivery_tag = tag};
    if (connection->fake->n_bodies == 1)
        rabbitmq_fake_send(connection, channel, AMQP_BASIC_NACK_METHOD, &nack);
    else
        rabbitmq_fake_send(connection, channel, AMQP_BASIC_ACK_METHOD, &ack);
}

/* A message that came back was not stored, though its ack follows; nor is one that is nacked. Both
 * are sent again. */
static void test_sent_again(void **state)
{
    void (*const refusals[])(struct rabbitmq_fake_connection *, uint16_t, uint64_t) = {return_first,
                                                                                       nack_first};
    static const char *const words[] = {"312 NO_ROUTE", "nack"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        rig_open(&rig);
        rig.fake.on_published = refusals[i];
        open_sink(&rig);
        publish(&rig, "vector");
        RUN_UNTIL(&rig, rig.fake.n_bodies == 1 && strstr(rig.why, words[i]));
        assert_int_equal(rig.n_published, 0);
        RUN_UNTIL(&rig, rig.n_published == 1);
        assert_int_equal(rig.how, PUBLISHED);
        assert_int_equal(rig.fake.n_bodies, 2);
        assert_true(rig.is_up);
        rig_close(&rig);
    }
}

/* 4.x takes 16 MiB where nothing is set; here 20 bytes. */
static void too_large(struct rabbitmq_fake_connection *connection, uint16_t channel, uint64_t tag)
{
    amqp_channel_close_t close = {
        .reply_code = AMQP_PRECONDITION_FAILED,
        .reply_text = rabbitmq_text("PRECONDITION_FAILED - message size 30 is larger than "
                                    "configured max size 20")};
    amqp_basic_ack_t ack = {.delivery_tag = tag};
    if (connection->fake->body_len > 20)
        rabbitmq_fake_send(connection, channel, AMQP_CHANNEL_CLOSE_METHOD, &close);
    else
        rabbitmq_fake_send(connection, channel, AMQP_BASIC_ACK_METHOD, &ack);
}

static void test_too_large(void **state)
{
    struct rig rig;
    (void)state;
    rig_open(&rig);
    rig.fake.on_published = too_large;
    open_sink(&rig);
    publish(&rig, "012345678901234567890123456789");
    RUN_UNTIL(&rig, rig.n_published == 1);
    assert_int_equal(rig.how, PUBLISH_TOO_LARGE);
    assert_int_equal(rig.fake.n_bodies, 1); /* and never again */
    publish(&rig, "short");
    RUN_UNTIL(&rig, rig.n_published == 2);
    assert_int_equal(rig.how, PUBLISHED);
    publish(&rig, "012345678901234567890123456789");
    RUN_UNTIL(&rig, rig.n_published == 3);
    assert_int_equal(rig.how, PUBLISH_TOO_LARGE);
    assert_int_equal(rig.fake.n_bodies, 2);
    rig_close(&rig);
}

/* Something else that the server does not like about one message: it is refused alone, twice. */
static void not_liked(struct rabbitmq_fake_connection *connection, uint16_t channel, uint64_t tag)
{
    amqp_channel_close_t close = {.reply_code = AMQP_PRECONDITION_FAILED,
                                  .reply_text = rabbitmq_text("PRECONDITION_FAILED - not this")};
    amqp_basic_ack_t ack = {.delivery_tag = tag};
    if (connection->fake->body_len == strlen("bad"))
        rabbitmq_fake_send(connection, channel, AMQP_CHANNEL_CLOSE_METHOD, &close);
    else
        rabbitmq_fake_send(connection, channel, AMQP_BASIC_ACK_METHOD, &ack);
}

static void test_refused_alone(void **state)
{
    struct rig rig;
    (void)state;
    rig_open(&rig);
    rig.fake.on_published = not_liked;
    open_sink(&rig);
    publish(&rig, "bad");
    RUN_UNTIL(&rig, rig.n_published == 1);
    assert_int_equal(rig.how, PUBLISH_REFUSED);
    assert_int_equal(rig.fake.n_bodies, 2);
    publish(&rig, "good one");
    RUN_UNTIL(&rig, rig.n_published == 2);
    assert_int_equal(rig.how, PUBLISHED);
    RUN_UNTIL(&rig, rig.is_up);
    rig_close(&rig);
}

/* A message that makes the server close the connection, as a fault of its own would. */
static void deadly(struct rabbitmq_fake_connection *connection, uint16_t channel, uint64_t tag)
{
    amqp_connection_close_t close = {.reply_code = AMQP_INTERNAL_ERROR,
                                     .reply_text = rabbitmq_text("INTERNAL_ERROR")};
    amqp_basic_ack_t ack = {.delivery_tag = tag};
    if (connection->fake->body_len == strlen("bad"))
        rabbitmq_fake_send(connection, 0, AMQP_CONNECTION_CLOSE_METHOD, &close);
    else
        rabbitmq_fake_send(connection, channel, AMQP_BASIC_ACK_METHOD, &ack);
}

/* Nobody knows whose fault that is, so others pass, and when they have three times it is its own.
 */
static void test_deadly(void **state)
{
    struct rig rig;
    (void)state;
    rig_open(&rig);
    rig.fake.on_published = deadly;
    open_sink(&rig);
    size_t bad = publish(&rig, "bad");
    RUN_UNTIL(&rig, rig.fake.n_bodies >= 3); /* alone it is tried again and again */
    assert_false(rig.is_done[bad]);
    for (size_t i = 0; i < 4 && !rig.is_done[bad]; i++) {
        size_t good = publish(&rig, "good one");
        RUN_UNTIL(&rig, rig.is_done[good]);
        assert_int_equal(rig.hows[good], PUBLISHED);
        size_t n = rig.fake.n_bodies;
        RUN_UNTIL(&rig, rig.is_done[bad] || rig.fake.n_bodies > n);
    }
    RUN_UNTIL(&rig, rig.is_done[bad]);
    assert_int_equal(rig.hows[bad], PUBLISH_REFUSED);
    rig_close(&rig);
}

/* While memory is short nothing is published, and everything when it is not. */
static void test_blocked(void **state)
{
    amqp_connection_blocked_t blocked = {.reason = rabbitmq_text("low on memory")};
    amqp_connection_unblocked_t unblocked = {0};
    struct rig rig;
    (void)state;
    rig_open(&rig);
    open_sink(&rig);
    publish(&rig, "first");
    RUN_UNTIL(&rig, rig.n_published == 1);
    rabbitmq_fake_send(newest(&rig), 0, AMQP_CONNECTION_BLOCKED_METHOD, &blocked);
    RUN_UNTIL(&rig, !rig.is_up);
    assert_non_null(strstr(rig.why, "low on memory"));
    publish(&rig, "second");
    run_for(&rig, 300);
    assert_int_equal(rig.fake.n_bodies, 1);
    rabbitmq_fake_send(newest(&rig), 0, AMQP_CONNECTION_UNBLOCKED_METHOD, &unblocked);
    RUN_UNTIL(&rig, rig.n_published == 2);
    assert_true(rig.is_up);
    rig_close(&rig);
}

static bool refuse_login(struct rabbitmq_fake_connection *connection, uint16_t channel, uint32_t id,
                         const void *decoded)
{
    amqp_connection_close_t close = {.reply_code = AMQP_ACCESS_REFUSED,
                                     .reply_text =
                                         rabbitmq_text("ACCESS_REFUSED - Login was refused")};
    (void)channel, (void)decoded;
    if (id != AMQP_CONNECTION_START_OK_METHOD)
        return false;
    rabbitmq_fake_send(connection, 0, AMQP_CONNECTION_CLOSE_METHOD, &close);
    return true;
}

/* Not let in is everybody's fault: it ends, and does not knock again. */
static void test_not_let_in(void **state)
{
    struct rig rig;
    (void)state;
    rig_open(&rig);
    rig.fake.on_method = refuse_login;
    open_sink(&rig);
    RUN_UNTIL(&rig, rig.n_failed == 1);
    assert_non_null(strstr(rig.why, "correct user and password"));
    run_for(&rig, 300);
    assert_int_equal(rig.fake.n_connections, 1);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_source),        cmocka_unit_test(test_held),
        cmocka_unit_test(test_timed_out),     cmocka_unit_test(test_passive),
        cmocka_unit_test(test_sent_again),    cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_refused_alone), cmocka_unit_test(test_deadly),
        cmocka_unit_test(test_blocked),       cmocka_unit_test(test_not_let_in),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
