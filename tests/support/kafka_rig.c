/*
 * kafka_rig.c: see kafka_rig.h.
 */
#include "tests/support/c11_threads.h"
#include "tests/support/kafka_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* A record with everything it points to. */
struct parcel {
    struct record record;
    struct part part;
    struct kafka_post *post;
    char value[];
};

static rd_kafka_t *client_open(const char *brokers, rd_kafka_type_t type, const char *group)
{
    char err[300];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", brokers, NULL, 0);
    rd_kafka_conf_set(conf, "group.id", group, NULL, 0);
    rd_kafka_conf_set(conf, "enable.partition.eof", "true", NULL, 0);
    rd_kafka_conf_set(conf, "enable.auto.commit", "false", NULL, 0);
    rd_kafka_conf_set(conf, "message.max.bytes", "4000000", NULL, 0);
    rd_kafka_conf_set(conf, "log_level", "0", NULL, 0);
    rd_kafka_t *rk = rd_kafka_new(type, conf, err, sizeof err);
    if (!rk)
        fail_msg("%s", err);
    return rk;
}

static const char *brokers_of(const struct kafka_rig *rig)
{
    return rd_kafka_mock_cluster_bootstraps(rig->cluster);
}

void kafka_rig_open(struct kafka_rig *rig, int n_brokers)
{
    memset(rig, 0, sizeof *rig);
    c11_threads_use();
    uv_loop_init(&rig->loop);
    uv_timer_init(&rig->loop, &rig->tick);
    rd_kafka_t *host = client_open("127.0.0.1:1", RD_KAFKA_PRODUCER, "");
    rig->cluster = rd_kafka_mock_cluster_new(host, n_brokers);
    assert_non_null(rig->cluster);
    rig->feeder = client_open(brokers_of(rig), RD_KAFKA_PRODUCER, "");
}

void kafka_rig_close(struct kafka_rig *rig)
{
    rd_kafka_t *host = rd_kafka_mock_cluster_handle(rig->cluster);
    rd_kafka_destroy(rig->feeder);
    if (rig->asker)
        rd_kafka_destroy(rig->asker);
    rd_kafka_mock_cluster_destroy(rig->cluster);
    rd_kafka_destroy(host);
    uv_close((uv_handle_t *)&rig->tick, NULL);
    for (int i = 0; i < 500 && uv_run(&rig->loop, UV_RUN_NOWAIT); i++)
        uv_sleep(10);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
}

void kafka_rig_feed(struct kafka_rig *rig, const char *topic, const char *key, const char *value)
{
    rd_kafka_resp_err_t err = rd_kafka_producev(
        rig->feeder, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(0),
        RD_KAFKA_V_KEY(key, key ? strlen(key) : 0),
        RD_KAFKA_V_VALUE((void *)value, value ? strlen(value) : 0), RD_KAFKA_V_HEADER("a", "b", 1),
        RD_KAFKA_V_TIMESTAMP(INT64_C(1700000000123)), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_END);
    assert_int_equal(err, 0);
    assert_int_equal(rd_kafka_flush(rig->feeder, 10000), 0);
}

static void copy_text(char *to, size_t size, const void *from, size_t len)
{
    size_t n = len < size - 1 ? len : size - 1;
    memcpy(to, from ? from : "", from ? n : 0);
    to[from ? n : 0] = '\0';
}

static void read_found(struct kafka_found *found, rd_kafka_message_t *native)
{
    rd_kafka_headers_t *headers;
    const char *name;
    const void *value;
    size_t len, used = 0;
    memset(found, 0, sizeof *found);
    found->is_tombstone = !native->payload;
    found->has_key = native->key != NULL;
    found->timestamp = rd_kafka_message_timestamp(native, NULL);
    found->offset = native->offset;
    copy_text(found->key, sizeof found->key, native->key, native->key_len);
    copy_text(found->value, sizeof found->value, native->payload, native->len);
    if (rd_kafka_message_headers(native, &headers))
        return;
    for (size_t i = 0; !rd_kafka_header_get_all(headers, i, &name, &value, &len); i++)
        used += (size_t)snprintf(found->headers + used, sizeof found->headers - used, "%s=%.*s;",
                                 name, (int)len, (const char *)value);
}

size_t kafka_rig_read(struct kafka_rig *rig, const char *topic, struct kafka_found *found, size_t n,
                      size_t room)
{
    rd_kafka_t *rk = client_open(brokers_of(rig), RD_KAFKA_CONSUMER, "reader");
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    size_t at = 0;
    bool is_end = false;
    rd_kafka_topic_partition_list_add(list, topic, 0)->offset = RD_KAFKA_OFFSET_BEGINNING;
    assert_int_equal(rd_kafka_assign(rk, list), 0);
    for (int i = 0; i < 100 && !(is_end && at >= n); i++) {
        rd_kafka_message_t *native = rd_kafka_consumer_poll(rk, 100);
        if (!native)
            continue;
        is_end = native->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
        if (!native->err && at < room)
            read_found(&found[at++], native);
        rd_kafka_message_destroy(native);
    }
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(rk);
    return at;
}

int64_t kafka_rig_committed(struct kafka_rig *rig, const char *group, const char *topic)
{
    if (!rig->asker) /* kept: finding the coordinator takes a client half a second */
        rig->asker = client_open(brokers_of(rig), RD_KAFKA_CONSUMER, group);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, 0);
    assert_int_equal(rd_kafka_committed(rig->asker, list, 10000), 0);
    int64_t offset = list->elems[0].offset;
    rd_kafka_topic_partition_list_destroy(list);
    return offset < 0 ? -1 : offset;
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
}

bool kafka_rig_wait(struct kafka_rig *rig, uint64_t ms, bool (*is_done)(void *ctx), void *ctx)
{
    uv_update_time(&rig->loop);
    uint64_t end = uv_now(&rig->loop) + ms;
    bool done;
    uv_timer_start(&rig->tick, on_tick, 10, 10);
    while (!(done = is_done(ctx)) && uv_now(&rig->loop) < end)
        uv_run(&rig->loop, UV_RUN_ONCE);
    uv_timer_stop(&rig->tick);
    return done;
}

static bool never(void *ctx)
{
    (void)ctx;
    return false;
}

void kafka_rig_run(struct kafka_rig *rig, uint64_t ms)
{
    kafka_rig_wait(rig, ms, never, NULL);
}

/* ---- the pipeline's part */

static void on_messages(void *ctx, struct message **messages, size_t n)
{
    struct kafka_post *post = ctx;
    for (size_t i = 0; i < n; i++) {
        assert_true(post->n_inbox < RIG_INBOX);
        post->inbox[post->n_inbox++] = messages[i];
    }
    post->n_given += n;
}

static void note_state(struct kafka_post *post, enum link_state state, const char *why)
{
    if (getenv("RIG_VERBOSE"))
        print_message("  %s: %s\n", state == LINK_UP ? "up" : "wait", why);
    post->n_ups += state == LINK_UP;
    post->n_waits += state == LINK_WAIT;
    if (state == LINK_WAIT) {
        size_t used = strlen(post->whys);
        snprintf(post->why, sizeof post->why, "%s", why);
        snprintf(post->whys + used, sizeof post->whys - used, "%s\n", why);
    }
}

static void on_source_state(void *ctx, enum link_state state, const char *why)
{
    struct kafka_post *post = ctx;
    post->source_state = state;
    note_state(post, state, why);
}

static void on_sink_state(void *ctx, enum link_state state, const char *why)
{
    struct kafka_post *post = ctx;
    post->sink_state = state;
    note_state(post, state, why);
}

static void on_failed(void *ctx, int err, const char *why)
{
    struct kafka_post *post = ctx;
    assert_true(err < 0);
    post->n_failed++;
    snprintf(post->why, sizeof post->why, "%s", why);
}

static void on_lag(void *ctx, const char *part, int64_t lag)
{
    struct kafka_post *post = ctx;
    if (!part)
        post->group_lag = lag;
    else if (strcmp(part, "in/0") == 0)
        post->lag = lag;
}

static void on_count(void *ctx, enum counter what, uint64_t n)
{
    struct kafka_post *post = ctx;
    if (what == COUNTER_REBALANCES)
        post->n_rebalances += n;
    if (what == COUNTER_LATE_ACKS)
        post->n_late += n;
}

static void on_published(void *ctx, struct record *record, enum published how)
{
    struct kafka_post *post = ctx;
    struct parcel *parcel = (struct parcel *)record;
    struct message *message = record->origin;
    post->n_published += how == PUBLISHED;
    post->n_acked_too += how == PUBLISHED_AND_ACKED;
    post->n_not_ours += how == PUBLISH_NOT_OURS;
    post->n_too_large += how == PUBLISH_TOO_LARGE;
    post->n_refused += how == PUBLISH_REFUSED;
    post->n_under_way--;
    if (how == PUBLISHED)
        post->source->ops->ack(post->source, message);
    else if (how == PUBLISH_NOT_OURS)
        post->source->ops->release(post->source, message);
    else if (how == PUBLISH_TOO_LARGE)
        kafka_post_publish(post, message, NULL, 0, "output_too_large");
    else if (how == PUBLISH_REFUSED)
        kafka_post_publish(post, message, NULL, 0, record->refused_code);
    free(parcel);
}

static const struct source_events source_events = {.on_messages = on_messages,
                                                   .on_state = on_source_state,
                                                   .on_failed = on_failed,
                                                   .on_lag = on_lag,
                                                   .on_count = on_count};
static const struct sink_events sink_events = {
    .on_published = on_published, .on_state = on_sink_state, .on_failed = on_failed};

int kafka_post_open(struct kafka_post *post, struct kafka_rig *rig, const char *const *options,
                    char *err, size_t err_size)
{
    const struct option *tables[] = {connector_find("kafka")->options, shared_options, NULL};
    memset(post, 0, sizeof *post);
    post->rig = rig;
    post->lag = post->group_lag = -2;
    assert_int_equal(settings_open(&post->settings, tables), 0);
    settings_set(post->settings, "kafka.brokers", brokers_of(rig), err, err_size);
    settings_set(post->settings, "kafka.topic", "in", err, err_size);
    settings_set(post->settings, "kafka.output_topic", "out", err, err_size);
    settings_set(post->settings, "kafka.dead_letter_topic", "dlq", err, err_size);
    for (; *options; options += 2)
        if (settings_set(post->settings, options[0], options[1], err, err_size))
            fail_msg("%s", err);
    int rc = source_find("kafka")->open(&post->source, &rig->loop, post->settings, &source_events,
                                        post, err, err_size);
    if (!rc)
        rc = sink_find("kafka")->open(&post->sink, &rig->loop, post->settings, post->source,
                                      &sink_events, post, err, err_size);
    if (rc)
        kafka_post_close(post, 0);
    return rc;
}

static void on_source_closed(void *ctx)
{
    ((struct kafka_post *)ctx)->source_closed = true;
}

static void on_sink_closed(void *ctx)
{
    ((struct kafka_post *)ctx)->sink_closed = true;
}

static bool is_source_closed(void *ctx)
{
    return ((struct kafka_post *)ctx)->source_closed;
}

static bool is_sink_closed(void *ctx)
{
    return ((struct kafka_post *)ctx)->sink_closed;
}

void kafka_post_close(struct kafka_post *post, uint64_t deadline_ms)
{
    if (post->sink) {
        post->sink->ops->close(post->sink, deadline_ms, on_sink_closed, post);
        assert_true(kafka_rig_wait(post->rig, deadline_ms + 6000, is_sink_closed, post));
    }
    if (post->source) {
        post->source->ops->close(post->source, deadline_ms, on_source_closed, post);
        assert_true(kafka_rig_wait(post->rig, deadline_ms + 6000, is_source_closed, post));
    }
    settings_close(post->settings);
}

struct need {
    struct kafka_post *post;
    size_t n;
};

static bool has_inbox(void *ctx)
{
    const struct need *need = ctx;
    return need->post->n_inbox >= need->n;
}

bool kafka_post_has(struct kafka_post *post, size_t n_inbox, uint64_t ms)
{
    struct need need = {post, n_inbox};
    return kafka_rig_wait(post->rig, ms, has_inbox, &need);
}

struct message *kafka_post_take(struct kafka_post *post)
{
    assert_true(post->n_inbox > 0);
    struct message *message = post->inbox[0];
    memmove(post->inbox, post->inbox + 1, --post->n_inbox * sizeof post->inbox[0]);
    return message;
}

void kafka_post_publish(struct kafka_post *post, struct message *message, const char *value,
                        size_t len, const char *code)
{
    struct parcel *parcel = calloc(1, sizeof *parcel + len + 1);
    assert_non_null(parcel);
    if (value)
        memcpy(parcel->value, value, len);
    parcel->part.value = value ? (struct bytes){parcel->value, len} : message->value;
    parcel->part.id = message->key;
    parcel->record = (struct record){.origin = message,
                                     .parts = &parcel->part,
                                     .n_parts = 1,
                                     .headers = message->headers,
                                     .n_headers = message->n_headers,
                                     .dead_code = code,
                                     .dead_reason = code ? "a sentence" : NULL};
    struct record *record = &parcel->record;
    post->n_under_way++;
    post->sink->ops->publish(post->sink, &record, 1);
}

static bool is_quiet(void *ctx)
{
    return ((struct kafka_post *)ctx)->n_under_way == 0;
}

bool kafka_post_quiet(struct kafka_post *post, uint64_t ms)
{
    return kafka_rig_wait(post->rig, ms, is_quiet, post);
}
