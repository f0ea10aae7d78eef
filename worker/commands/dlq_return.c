/*
 * dlq_return.c: see dlq_return.h.
 *
 * Why one at a time: a letter is taken off when it is stored, so whatever ends the program, at most
 * one is in both places.
 */
#include "worker/commands/dlq_return.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { PATIENCE_MS = 15000, CLOSE_MS = 1000 };

struct dlq_return {
    uv_loop_t loop;
    uv_timer_t timer;
    struct sink *sink;
    struct message message;
    struct part part;
    struct record record;
    enum { RETURN_IDLE, RETURN_ON_WAY, RETURN_STORED, RETURN_REFUSED, RETURN_LATE } state;
    int failed; /* a negative errno: the sink is gone */
    bool is_closed;
    char why[500];
};

static void on_published(void *ctx, struct record *record, enum published how)
{
    struct dlq_return *way = ctx;
    /* Late: it was given up, and is in both places if it was stored after all. */
    if (way->state != RETURN_ON_WAY)
        return;
    way->state = how == PUBLISHED ? RETURN_STORED : RETURN_REFUSED;
    if (how == PUBLISH_TOO_LARGE)
        snprintf(way->why, sizeof way->why, "it is larger than what is taken there");
    else if (how != PUBLISHED)
        snprintf(way->why, sizeof way->why, "%s",
                 record->refused_reason ? record->refused_reason : "it is refused there");
}

static void on_state(void *ctx, enum link_state state, const char *why)
{
    struct dlq_return *way = ctx;
    snprintf(way->why, sizeof way->why, "%s", state == LINK_WAIT && why ? why : "");
}

static void on_failed(void *ctx, int err, const char *why)
{
    struct dlq_return *way = ctx;
    way->failed = err;
    snprintf(way->why, sizeof way->why, "%s", why);
}

static void on_late(uv_timer_t *timer)
{
    struct dlq_return *way = timer->data;
    way->state = RETURN_LATE;
}

static void on_closed(void *ctx)
{
    struct dlq_return *way = ctx;
    way->is_closed = true;
}

int dlq_return_open(struct dlq_return **out, const struct connector *connector,
                    const struct settings *settings, char *err, size_t err_size)
{
    static const struct sink_events events = {
        .on_published = on_published, .on_state = on_state, .on_failed = on_failed};
    struct dlq_return *way = calloc(1, sizeof *way);
    snprintf(err, err_size, "out of memory");
    if (!way)
        return -ENOMEM;
    if (uv_loop_init(&way->loop) != 0) {
        free(way);
        return -ENOMEM;
    }
    uv_timer_init(&way->loop, &way->timer);
    way->timer.data = way;
    int rc =
        connector->sink->open(&way->sink, &way->loop, settings, NULL, &events, way, err, err_size);
    if (rc) {
        way->sink = NULL;
        dlq_return_close(way);
        return rc;
    }
    *out = way;
    return 0;
}

int dlq_return_put(struct dlq_return *way, const struct dead_letter *letter, char *err,
                   size_t err_size)
{
    struct record *record = &way->record;
    way->message = (struct message){.key = letter->key,
                                    .value = letter->value,
                                    .headers = letter->headers,
                                    .n_headers = letter->n_headers,
                                    .position = letter->position,
                                    .timestamp_ms = -1,
                                    .deliveries = 1};
    way->part = (struct part){.id = letter->key, .value = letter->value};
    way->record = (struct record){.origin = &way->message,
                                  .parts = &way->part,
                                  .n_parts = 1,
                                  .headers = letter->headers,
                                  .n_headers = letter->n_headers};
    /* One at a time, each awaited: only what is stored there is removed here. */
    way->state = RETURN_ON_WAY;
    uv_timer_start(&way->timer, on_late, PATIENCE_MS, 0);
    way->sink->ops->publish(way->sink, &record, 1);
    while (way->state == RETURN_ON_WAY && !way->failed)
        uv_run(&way->loop, UV_RUN_ONCE);
    uv_timer_stop(&way->timer);
    if (way->state == RETURN_STORED)
        return 1;
    if (way->state == RETURN_LATE)
        snprintf(err, err_size, "nothing is confirmed there for %d s%s%s", PATIENCE_MS / 1000,
                 way->why[0] ? ": " : "", way->why);
    else
        snprintf(err, err_size, "%s", way->why);
    return way->state == RETURN_REFUSED ? 0 : way->failed ? way->failed : -ETIMEDOUT;
}

void dlq_return_close(struct dlq_return *way)
{
    if (!way)
        return;
    /* Nothing is to be waited for when the sink did not open. */
    way->is_closed = !way->sink;
    if (way->sink)
        way->sink->ops->close(way->sink, CLOSE_MS, on_closed, way);
    /* The sink's handles belong to this loop, which must not be closed before they are. */
    while (!way->is_closed)
        uv_run(&way->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&way->timer, NULL);
    uv_run(&way->loop, UV_RUN_DEFAULT);
    uv_loop_close(&way->loop);
    free(way);
}
