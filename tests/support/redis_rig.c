/*
 * redis_rig.c: see redis_rig.h.
 *
 * Threads: one.
 */
#include "tests/support/redis_rig.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* A record with everything it points to. */
struct parcel {
    struct record record;
    struct part parts[8];
    char id[64], value[512], code[32];
    uv_timer_t work;
    struct station *station;
    struct message *message;
};

void redis_rig_open(struct rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    signal(SIGPIPE, SIG_IGN); /* as the worker does */
    uv_loop_init(&rig->loop);
    uv_timer_init(&rig->loop, &rig->tick);
}

static void show_handle(uv_handle_t *handle, void *ctx)
{
    (void)ctx;
    print_error("left open: %s\n", uv_handle_type_name(handle->type));
}

void redis_rig_close(struct rig *rig)
{
    uv_close((uv_handle_t *)&rig->tick, NULL);
    for (int i = 0; i < 100 && uv_run(&rig->loop, UV_RUN_NOWAIT); i++)
        uv_sleep(10);
    int rc = uv_loop_close(&rig->loop);
    if (rc)
        uv_walk(&rig->loop, show_handle, NULL);
    assert_int_equal(rc, 0);
}

static void on_overdue(uv_timer_t *timer)
{
    struct rig *rig = timer->data;
    rig->overdue = true;
}

static void on_tick(uv_timer_t *timer)
{
    (void)timer;
}

static bool never(void *ctx)
{
    (void)ctx;
    return false;
}

bool redis_rig_wait(struct rig *rig, uint64_t ms, bool (*is_done)(void *ctx), void *ctx)
{
    uv_timer_t overdue;
    bool done;

    rig->overdue = false;
    uv_timer_init(&rig->loop, &overdue);
    overdue.data = rig;
    uv_update_time(&rig->loop);
    uv_timer_start(&overdue, on_overdue, ms, 0);
    uv_timer_start(&rig->tick, on_tick, 20, 20);
    while (!(done = is_done(ctx)) && !rig->overdue)
        uv_run(&rig->loop, UV_RUN_ONCE);
    uv_timer_stop(&rig->tick);
    uv_close((uv_handle_t *)&overdue, NULL);
    uv_run(&rig->loop, UV_RUN_NOWAIT);
    return done;
}

void redis_rig_run(struct rig *rig, uint64_t ms)
{
    redis_rig_wait(rig, ms, never, NULL);
}

/* ---- the worker's part */

static void parcel_free(uv_handle_t *handle)
{
    free(handle->data);
}

static void worker_request(struct station *station)
{
    size_t free_room =
        station->n_credit > station->n_under_way ? station->n_credit - station->n_under_way : 0;

    if (station->is_worker && !station->closing)
        station->source->ops->request(station->source, free_room, free_room * 1000);
}

static struct parcel *parcel_open(struct station *station, struct message *message, const char *id,
                                  struct bytes value, const char *code)
{
    struct parcel *parcel = calloc(1, sizeof(*parcel));

    assert_non_null(parcel);
    assert_true(value.len < sizeof(parcel->value));
    uv_timer_init(&station->rig->loop, &parcel->work);
    parcel->work.data = parcel;
    parcel->station = station;
    parcel->message = message;
    snprintf(parcel->id, sizeof(parcel->id), "%s", id);
    memcpy(parcel->value, value.ptr, value.len);
    parcel->parts[0].id = (struct bytes){parcel->id, strlen(parcel->id)};
    parcel->parts[0].value = (struct bytes){parcel->value, value.len};
    parcel->parts[0].vector = parcel->parts[0].value;
    parcel->record = (struct record){.origin = message,
                                     .parts = parcel->parts,
                                     .n_parts = 1,
                                     .headers = message->headers,
                                     .n_headers = message->n_headers};
    if (code) {
        snprintf(parcel->code, sizeof(parcel->code), "%s", code);
        parcel->record.dead_code = parcel->code;
        parcel->record.dead_reason = "a sentence";
    }
    return parcel;
}

static void parcel_publish(struct parcel *parcel)
{
    struct record *record = &parcel->record;
    struct station *station = parcel->station;

    station->sink->ops->publish(station->sink, &record, 1);
}

static void on_work_done(uv_timer_t *timer)
{
    struct parcel *parcel = timer->data;

    if (parcel->station->closing)
        uv_close((uv_handle_t *)timer, parcel_free);
    else
        parcel_publish(parcel);
}

static void on_messages(void *ctx, struct message **messages, size_t n)
{
    struct station *station = ctx;

    station->n_given += n;
    for (size_t i = 0; i < n; i++) {
        if (!station->is_worker) {
            assert_true(station->n_inbox < RIG_MESSAGES);
            station->inbox[station->n_inbox++] = messages[i];
            continue;
        }
        char value[256];
        int len = snprintf(value, sizeof(value), "out:%.*s", (int)messages[i]->value.len,
                           messages[i]->value.ptr);
        struct parcel *parcel =
            parcel_open(station, messages[i], "id", (struct bytes){value, (size_t)len}, NULL);
        station->n_under_way++;
        uv_timer_start(&parcel->work, on_work_done, station->work_ms, 0);
    }
    worker_request(station);
}

static void on_published(void *ctx, struct record *record, enum published how)
{
    struct station *station = ctx;
    struct parcel *parcel = (struct parcel *)record;
    struct message *message = parcel->message;
    struct source *source = message->source;

    station->n_published += how == PUBLISHED;
    station->n_acked_too += how == PUBLISHED_AND_ACKED;
    station->n_not_ours += how == PUBLISH_NOT_OURS;
    station->n_too_large += how == PUBLISH_TOO_LARGE;
    station->n_dead += (how == PUBLISHED || how == PUBLISHED_AND_ACKED) && record->dead_code;
    if (how == PUBLISH_REFUSED) {
        station->n_refused++;
        assert_true(record->refused_code && record->refused_reason);
        snprintf(station->refused_code, sizeof(station->refused_code), "%s", record->refused_code);
        snprintf(station->refused_reason, sizeof(station->refused_reason), "%s",
                 record->refused_reason);
    }
    if (station->buries && (how == PUBLISH_REFUSED || how == PUBLISH_TOO_LARGE)) {
        assert_null(record->dead_code);
        record->dead_code = how == PUBLISH_REFUSED ? record->refused_code : "output_too_large";
        record->dead_reason = "a sentence";
        record->parts = parcel->parts;
        record->n_parts = 1;
        parcel->parts[0] = (struct part){.value = message->value};
        station->sink->ops->publish(station->sink, &record, 1);
        return;
    }
    if (how == PUBLISHED)
        source->ops->ack(source, message);
    else if (how != PUBLISHED_AND_ACKED) /* then the sink has taken it */
        source->ops->release(source, message);
    uv_close((uv_handle_t *)&parcel->work, parcel_free);
    station->n_under_way--;
    worker_request(station);
}

static void on_state(void *ctx, enum link_state state, const char *why)
{
    struct station *station = ctx;

    station->state = state;
    if (getenv("RIG_VERBOSE"))
        print_message("  %s: %s\n", state == LINK_UP ? "up" : "wait", why);
    if (state == LINK_UP) {
        station->n_ups++;
        return;
    }
    station->n_waits++;
    snprintf(station->why, sizeof(station->why), "%s", why);
}

static void on_failed(void *ctx, int err, const char *why)
{
    struct station *station = ctx;

    assert_true(err < 0);
    station->n_failed++;
    snprintf(station->why, sizeof(station->why), "%s", why);
}

static void on_end(void *ctx)
{
    (void)ctx;
    fail_msg("a stream has no end");
}

static void on_count(void *ctx, enum counter what, uint64_t n)
{
    struct station *station = ctx;
    station->n_deleted += what == COUNTER_DELETED ? n : 0;
}

static const struct source_events source_events = {.on_messages = on_messages,
                                                   .on_state = on_state,
                                                   .on_end = on_end,
                                                   .on_failed = on_failed,
                                                   .on_count = on_count};
static const struct sink_events sink_events = {
    .on_published = on_published, .on_state = on_state, .on_failed = on_failed};

void station_open(struct station *station, struct rig *rig, bool with_sink, const char *const *set)
{
    const struct option *tables[] = {connector_find("redis")->options, NULL};
    char err[512] = "";

    memset(station, 0, sizeof(*station));
    station->rig = rig;
    assert_int_equal(settings_open(&station->settings, tables), 0);
    for (; *set; set += 2)
        if (settings_set(station->settings, set[0], set[1], err, sizeof(err)))
            fail_msg("%s", err);
    if (source_find("redis")->open(&station->source, &rig->loop, station->settings, &source_events,
                                   station, err, sizeof(err)))
        fail_msg("%s", err);
    if (with_sink &&
        sink_find("redis")->open(&station->sink, &rig->loop, station->settings, station->source,
                                 &sink_events, station, err, sizeof(err)))
        fail_msg("%s", err);
}

static void on_source_closed(void *ctx)
{
    struct station *station = ctx;
    station->closed = true;
}

static void on_sink_closed(void *ctx)
{
    struct station *station = ctx;
    station->sink_closed = true;
}

static bool is_sink_closed(void *ctx)
{
    return ((struct station *)ctx)->sink_closed;
}

static bool is_closed(void *ctx)
{
    return ((struct station *)ctx)->closed;
}

/* Parcels whose work timer is still on the loop and that no sink will give back. */
static void drop_parcels(uv_handle_t *handle, void *ctx)
{
    if (handle->type != UV_TIMER || uv_is_closing(handle) || !handle->data)
        return;
    struct parcel *parcel = handle->data;
    if ((uv_handle_t *)&parcel->work == handle && parcel->station == ctx)
        uv_close(handle, parcel_free);
}

static void station_end(struct station *station, uint64_t deadline_ms)
{
    station->closing = true;
    if (station->sink) {
        station->sink->ops->close(station->sink, deadline_ms, on_sink_closed, station);
        assert_true(redis_rig_wait(station->rig, deadline_ms + 5000, is_sink_closed, station));
    }
    station->source->ops->close(station->source, deadline_ms, on_source_closed, station);
    assert_true(redis_rig_wait(station->rig, deadline_ms + 5000, is_closed, station));
    settings_close(station->settings);
}

void station_close(struct station *station, uint64_t deadline_ms)
{
    station_end(station, deadline_ms);
    uv_walk(&station->rig->loop, drop_parcels, station);
}

void station_crash(struct station *station)
{
    station_close(station, 0);
}

/* ---- conditions */

struct need {
    struct station *station;
    size_t n;
};

static bool has_inbox(void *ctx)
{
    const struct need *need = ctx;
    return need->station->n_inbox >= need->n;
}

bool station_has(struct station *station, size_t n, uint64_t ms)
{
    struct need need = {station, n};
    return redis_rig_wait(station->rig, ms, has_inbox, &need);
}

struct message *station_take(struct station *station)
{
    assert_true(station->n_inbox > 0);
    struct message *message = station->inbox[0];
    station->n_inbox--;
    memmove(station->inbox, station->inbox + 1, station->n_inbox * sizeof(station->inbox[0]));
    return message;
}

void station_publish(struct station *station, struct message *message, const char *id,
                     const char *value, const char *code)
{
    struct bytes bytes = code ? message->value : (struct bytes){value, strlen(value)};

    station->n_under_way++;
    parcel_publish(parcel_open(station, message, id, bytes, code));
}

void station_publish_parts(struct station *station, struct message *message,
                           const struct part *parts, size_t n)
{
    struct parcel *parcel = parcel_open(station, message, "", (struct bytes){"", 0}, NULL);

    assert_true(n <= sizeof(parcel->parts) / sizeof(parcel->parts[0]));
    memcpy(parcel->parts, parts, n * sizeof(*parts));
    parcel->record.n_parts = n;
    parcel->record.documents = parts[0].document; /* of one text */
    parcel->record.n_documents = parts[0].document ? 1 : 0;
    station->n_under_way++;
    parcel_publish(parcel);
}

static bool is_quiet(void *ctx)
{
    return ((struct station *)ctx)->n_under_way == 0;
}

bool station_quiet(struct station *station, uint64_t ms)
{
    return redis_rig_wait(station->rig, ms, is_quiet, station);
}
