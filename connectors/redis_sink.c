/*
 * redis_sink.c: records to Redis, each until the server has confirmed it.
 *
 * Owns:    the list of unconfirmed records, in order; sending, sending again after a lost
 * connection or a refusal that will pass; the script's hash. Refuses: what a record looks like as a
 * command: redis_record.c. Threads: the loop thread. Why:     when the source reads from the same
 * server, one script checks that the message is still ours, writes, and acks. A reply lost with its
 * connection is then harmless: sent again, the script finds the message no longer pending and
 * writes nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/redis.h"
#include "connectors/redis_link.h"
#include "connectors/redis_record.h"
#include "connectors/redis_script.h"
#include "connectors/redis_source.h"
#include "connectors/redis_state.h"

#define PART_LINK  1u
#define PART_WRITE 2u

/* Redis refuses values above proto-max-bulk-len and closes the connection for it. */
#define VALUE_MAX ((size_t)512 * 1024 * 1024)
/* Commands not yet taken by the kernel; beyond this the rest waits in the list. */
#define BACKLOG_MAX ((size_t)8 * 1024 * 1024)

/* A record that is not confirmed yet. */
struct sink_item {
    struct redis_sink *sink;
    struct record *record;
    struct sink_item *next, *before;
    bool sent;
};

struct redis_sink {
    struct sink base;
    uv_loop_t *loop;
    struct redis_config config;
    struct redis_source *peer; /* acked in the same step; NULL: another server or connector */
    struct redis_link *link;
    struct redis_state state;
    struct redis_backoff backoff;
    struct redis_scratch scratch;
    struct redis_args args;
    struct sink_item *first, *last, *spare;
    char script_sha[41]; /* empty: not known to be loaded */
    bool paused, failed, closing;
    uv_timer_t pump_timer, pause_timer, close_timer;
    size_t n_open; /* handles and the link, still to be closed */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static void sink_pump(struct redis_sink *sink);

/* ---- the list */

static int item_add(struct redis_sink *sink, struct record *record)
{
    struct sink_item *item = sink->spare;

    if (item)
        sink->spare = item->next;
    else
        item = malloc(sizeof *item);
    if (!item)
        return -ENOMEM;
    *item = (struct sink_item){sink, record, NULL, sink->last, false};
    *(sink->last ? &sink->last->next : &sink->first) = item;
    sink->last = item;
    return 0;
}

static void item_remove(struct sink_item *item)
{
    struct redis_sink *sink = item->sink;

    *(item->before ? &item->before->next : &sink->first) = item->next;
    *(item->next ? &item->next->before : &sink->last) = item->before;
    item->next = sink->spare;
    sink->spare = item;
}

static void item_done(struct sink_item *item, enum published how)
{
    struct redis_sink *sink = item->sink;
    struct record *record = item->record;
    struct message *origin = record->origin;

    item_remove(item);
    sink->base.events->on_published(sink->base.ctx, record, how);
    if (how == PUBLISHED_AND_ACKED) /* the script acked it: nothing is owed, only memory */
        sink->peer->base.ops->release(&sink->peer->base, origin);
}

/* ---- faults */

static void sink_fail(struct redis_sink *sink, int err, const char *why)
{
    if (sink->failed)
        return;
    sink->failed = true;
    if (!sink->closing)
        sink->base.events->on_failed(sink->base.ctx, err, why);
}

static void on_pause_over(uv_timer_t *timer)
{
    struct redis_sink *sink = timer->data;

    sink->paused = false;
    sink_pump(sink);
}

static void sink_pause(struct redis_sink *sink)
{
    if (sink->paused)
        return;
    sink->paused = true;
    uv_timer_start(&sink->pause_timer, on_pause_over, redis_backoff_next(&sink->backoff), 0);
}

/* The record stays in the list, to be sent again, unless it can never be written. */
static void item_refused(struct sink_item *item, const char *text)
{
    struct redis_sink *sink = item->sink;
    struct redis_fault fault = redis_fault_find(text);
    char why[480];

    snprintf(why, sizeof why, "writing to Redis: %s (%s)", text, fault.advice);
    switch (fault.remedy) {
    case REMEDY_TOO_LARGE:
        item_done(item, PUBLISH_TOO_LARGE);
        return;
    case REMEDY_FATAL:
        sink_fail(sink, -EIO, why);
        return;
    case REMEDY_SCRIPT:
        sink->script_sha[0] = '\0'; /* the script itself goes along from now on */
        return;
    case REMEDY_RECONNECT:
        redis_state_wait(&sink->state, PART_WRITE, why);
        redis_link_drop(sink->link, text);
        return;
    default: /* a group that is gone is made again by the source */
        redis_state_wait(&sink->state, PART_WRITE, why);
        sink_pause(sink);
    }
}

/* ---- sending */

static void on_written(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_sink *sink = ctx;
    struct sink_item *item = arg;

    item->sent = false;
    if (!reply) /* lost: whether it was written is unknown; it is sent again */
        return;
    if (reply->type == REDIS_REPLY_ERROR) {
        item_refused(item, reply->str);
    } else {
        redis_link_good(sink->link);
        sink->backoff.attempts = 0;
        redis_state_good(&sink->state, PART_WRITE);
        if (!sink->peer)
            item_done(item, PUBLISHED);
        else if (reply->type == REDIS_REPLY_INTEGER && reply->integer == 1)
            item_done(item, PUBLISHED_AND_ACKED);
        else
            item_done(item, PUBLISH_NOT_OURS);
    }
    sink_pump(sink);
}

/* False: no more can be sent now. */
static bool item_send(struct sink_item *item)
{
    struct redis_sink *sink = item->sink;
    struct redis_record_form form = {&sink->config, sink->peer,
                                     sink->script_sha[0] ? sink->script_sha : NULL};
    int rc = redis_record_build(&form, item->record, &sink->scratch, &sink->args);

    if (rc == 0)
        rc = redis_link_send(sink->link, sink->args.items, sink->args.n, 0, on_written, item);
    if (rc == -ENOMEM)
        sink_pause(sink);
    item->sent = rc == 0;
    return rc == 0;
}

static void sink_finish(struct redis_sink *sink);

static void sink_pump(struct redis_sink *sink)
{
    if (sink->closing && (sink->failed || !sink->first)) {
        sink_finish(sink);
        return;
    }
    if (!sink->link || sink->failed || sink->paused || !redis_link_ready(sink->link))
        return;
    for (struct sink_item *item = sink->first, *next; item; item = next) {
        next = item->next;
        if (item->sent)
            continue;
        if (redis_record_largest(item->record) > VALUE_MAX)
            item_done(item, PUBLISH_TOO_LARGE);
        else if (redis_link_backlog(sink->link) > BACKLOG_MAX || !item_send(item))
            break;
    }
}

static void on_pump(uv_timer_t *timer)
{
    sink_pump(timer->data);
}

/* For calls of the pipeline: the work is done from the loop. */
static void pump_soon(struct redis_sink *sink)
{
    if (!uv_is_active((uv_handle_t *)&sink->pump_timer))
        uv_timer_start(&sink->pump_timer, on_pump, 0, 0);
}

/* ---- the connection */

static void on_loaded(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_sink *sink = ctx;
    (void)arg;

    if (redis_reply_is_text(reply) && reply->len == sizeof sink->script_sha - 1)
        memcpy(sink->script_sha, reply->str, sizeof sink->script_sha);
}

static void on_ready(void *ctx)
{
    struct redis_sink *sink = ctx;
    const struct bytes load[] = {bytes_of("SCRIPT"), bytes_of("LOAD"),
                                 bytes_of(redis_script_publish)};

    sink->script_sha[0] = '\0';
    redis_link_send(sink->link, load, 3, 0, on_loaded, NULL);
    sink_pump(sink);
}

static void on_lost(void *ctx, const char *why)
{
    struct redis_sink *sink = ctx;

    redis_state_wait(&sink->state, PART_LINK, why);
}

static void on_good(void *ctx)
{
    struct redis_sink *sink = ctx;

    redis_state_good(&sink->state, PART_LINK);
}

static void on_link_failed(void *ctx, int err, const char *why)
{
    struct redis_sink *sink = ctx;

    sink_fail(sink, err, why);
    if (sink->closing)
        sink_pump(sink);
}

static const struct redis_link_events link_events = {on_ready, on_lost, on_good, on_link_failed};

static void on_state_changed(void *ctx, enum link_state state, const char *why)
{
    struct redis_sink *sink = ctx;

    if (!sink->closing && !sink->failed)
        sink->base.events->on_state(sink->base.ctx, state, why);
}

/* ---- the contract */

static void items_free(struct sink_item *item)
{
    while (item) {
        struct sink_item *next = item->next;
        free(item);
        item = next;
    }
}

static void sink_free(struct redis_sink *sink)
{
    items_free(sink->first);
    items_free(sink->spare);
    redis_scratch_close(&sink->scratch);
    redis_args_close(&sink->args);
    redis_config_clear(&sink->config);
    free(sink);
}

static void timer_open(struct redis_sink *sink, uv_timer_t *timer)
{
    uv_timer_init(sink->loop, timer);
    timer->data = sink;
    sink->n_open++;
}

static int redis_sink_open(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                           struct source *peer, const struct sink_events *events, void *ctx,
                           char *err, size_t err_size)
{
    struct redis_sink *sink = calloc(1, sizeof *sink);
    int rc = -ENOMEM;

    if (!sink)
        goto fail;
    sink->loop = loop;
    rc = redis_config_read(&sink->config, settings, err, err_size);
    if (rc < 0) {
        free(sink);
        return rc;
    }
    sink->base = (struct sink){&redis_sink_ops, events, ctx,
                               sink->config.output == REDIS_OUTPUT_STREAM ? SINK_PER_MESSAGE
                                                                          : SINK_PER_TEXT};
    if (peer && peer->ops == &redis_source_ops &&
        redis_url_same(&sink->config.output_url, &((struct redis_source *)peer)->config.url))
        sink->peer = (struct redis_source *)peer;
    struct redis_link_options options = {&sink->config.output_url, "embedmill-sink",
                                         sink->config.timeout_ms};
    redis_state_open(&sink->state, PART_LINK, on_state_changed, sink);
    rc = redis_link_open(&sink->link, loop, &options, &link_events, sink);
    if (rc < 0)
        goto fail;
    timer_open(sink, &sink->pump_timer);
    timer_open(sink, &sink->pause_timer);
    timer_open(sink, &sink->close_timer);
    *out = &sink->base;
    return 0;
fail:
    snprintf(err, err_size, "the Redis sink could not be opened: %s", uv_strerror(rc));
    if (sink)
        sink_free(sink);
    return rc;
}

static void redis_sink_publish(struct sink *base, struct record **records, size_t n)
{
    struct redis_sink *sink = (struct redis_sink *)base;

    for (size_t i = 0; i < n; i++)
        if (item_add(sink, records[i]) < 0) {
            /* Without memory for a list entry nothing can go on; unacked, it is delivered again. */
            sink_fail(sink, -ENOMEM, "out of memory; give the worker more");
            return;
        }
    pump_soon(sink);
}

static void sink_closed(struct redis_sink *sink)
{
    void (*closed)(void *) = sink->closed;
    void *ctx = sink->closed_ctx;

    if (--sink->n_open)
        return;
    sink_free(sink);
    closed(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
    sink_closed(handle->data);
}

static void on_link_closed(void *ctx)
{
    sink_closed(ctx);
}

static void sink_finish(struct redis_sink *sink)
{
    if (!sink->link)
        return;
    sink->n_open++;
    redis_link_close(sink->link, on_link_closed, sink);
    sink->link = NULL;
    uv_close((uv_handle_t *)&sink->pump_timer, on_timer_closed);
    uv_close((uv_handle_t *)&sink->pause_timer, on_timer_closed);
    uv_close((uv_handle_t *)&sink->close_timer, on_timer_closed);
}

static void on_close_deadline(uv_timer_t *timer)
{
    sink_finish(timer->data);
}

static void redis_sink_close(struct sink *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                             void *ctx)
{
    struct redis_sink *sink = (struct redis_sink *)base;

    if (!sink)
        return;
    sink->closing = true;
    sink->closed = closed;
    sink->closed_ctx = ctx;
    uv_timer_start(&sink->close_timer, on_close_deadline, deadline_ms, 0);
    pump_soon(sink);
}

const struct sink_ops redis_sink_ops = {
    .name = "redis",
    .options = redis_options,
    .open = redis_sink_open,
    .publish = redis_sink_publish,
    .close = redis_sink_close,
};
