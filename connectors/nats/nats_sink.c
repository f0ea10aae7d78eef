/*
 * nats_sink.c: outputs and dead letters into streams of JetStream, at least once.
 *
 * Owns:    the records given until the server has confirmed them, in order; trying again.
 * Refuses: what a record looks like: nats_record.c; what an error means: nats_reply.c.
 * Threads: the loop thread.
 * Why:     a record carries an id, the same whenever it is sent, so that a stream drops what it has
 *          already. But a stream remembers ids longer than messages: one that it says it has may
 *          have been purged. So "it is a duplicate" is believed only if the first one is there.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/health.h"
#include "connectors/json.h"
#include "connectors/nats/nats.h"
#include "connectors/nats/nats_client.h"
#include "connectors/nats/nats_json.h"
#include "connectors/nats/nats_record.h"
#include "connectors/nats/nats_reply.h"
#include "connectors/nats/nats_source.h"

#define LINK  1u
#define WRITE 2u

#define PASSED_MAX 3 /* so many others pass, and what is refused is refused for its own sake */

struct slot {
    struct slot *prev, *next;
    struct nats_sink *sink;
    struct record *record;
    bool asked, in_doubt;  /* on its way; refused once for a reason not known here */
    uint64_t salt, passed; /* passed: how many had been published when it was refused first */
};

struct nats_sink {
    struct sink base;
    uv_loop_t *loop;
    struct nats_config config;
    struct nats_client *client;
    struct health health;
    struct backoff backoff;
    struct slot head; /* a ring; head.next is the oldest */
    size_t n_slots;
    uint64_t n_published;
    bool reads_nats; /* the source is NATS, too */
    bool is_asking;  /* which streams take the outputs, before the first is written */
    bool is_sure;    /* none of them is the input */
    bool paused, failed, closing, no_memory, is_finished;
    uv_timer_t pump_timer, pause_timer, close_timer;
    size_t n_open; /* handles and clients still to be closed */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static void pump(struct nats_sink *sink);

static struct nats_sink *self(struct sink *sink)
{
    return (struct nats_sink *)sink;
}

/* ---- what is told */

static void on_state_changed(void *ctx, enum link_state state, const char *why)
{
    struct nats_sink *sink = ctx;
    if (!sink->failed && !sink->closing)
        sink->base.events->on_state(sink->base.ctx, state, why);
}

static void sink_fail(struct nats_sink *sink, int err, const char *why)
{
    bool is_news = !sink->failed && !sink->closing;
    sink->failed = true;
    if (is_news)
        sink->base.events->on_failed(sink->base.ctx, err, why);
}

static void on_pause_over(uv_timer_t *timer)
{
    struct nats_sink *sink = timer->data;
    sink->paused = false;
    pump(sink);
}

static void sink_pause(struct nats_sink *sink)
{
    if (sink->paused || sink->is_finished)
        return;
    sink->paused = true;
    uv_timer_start(&sink->pause_timer, on_pause_over, backoff_next(&sink->backoff), 0);
}

/* ---- slots */

static int slot_add(struct nats_sink *sink, struct record *record)
{
    struct slot *slot = calloc(1, sizeof *slot);
    if (!slot)
        return -ENOMEM;
    slot->sink = sink;
    slot->record = record;
    slot->prev = sink->head.prev;
    slot->next = &sink->head;
    slot->prev->next = slot->next->prev = slot;
    sink->n_slots++;
    return 0;
}

static struct record *slot_take(struct slot *slot)
{
    struct record *record = slot->record;
    slot->prev->next = slot->next;
    slot->next->prev = slot->prev;
    slot->sink->n_slots--;
    free(slot);
    return record;
}

static void slot_done(struct slot *slot, enum published how)
{
    struct nats_sink *sink = slot->sink;
    struct record *record = slot_take(slot);
    sink->base.events->on_published(sink->base.ctx, record, how);
}

static void slot_published(struct slot *slot)
{
    struct nats_sink *sink = slot->sink;
    sink->n_published++;
    sink->backoff.attempts = 0;
    health_good(&sink->health, WRITE);
    if (slot->record->dead_code)
        nats_source_mark_dead(slot->record->origin);
    slot_done(slot, PUBLISHED);
}

/* ---- answers */

static void explain(const struct nats_sink *sink, const struct slot *slot,
                    const struct nats_error *error, char *why, size_t size)
{
    const char *subject = nats_record_subject(&sink->config, slot->record);
    const char *advice = nats_reply_advice(error);
    if (error->code == 503 && !error->err_code)
        snprintf(why, size,
                 "no stream takes subject %.100s: create one (nats stream add NAME --subjects "
                 "%.100s), or correct %s",
                 subject, subject,
                 slot->record->dead_code ? "nats.dead_letter_subject" : "nats.output_subject");
    else
        snprintf(why, size, "writing to subject %.100s: %.200s (%" PRId64 ")%s%s", subject,
                 error->text, error->err_code, *advice ? ": " : "", advice);
}

static void refused(struct slot *slot, const struct nats_error *error)
{
    struct nats_sink *sink = slot->sink;
    enum nats_refusal refusal = nats_reply_refusal(error);
    char why[500];
    explain(sink, slot, error, why, sizeof why);
    if (refusal == NATS_RECORD_TOO_LARGE) {
        slot_done(slot, PUBLISH_TOO_LARGE);
        return;
    }
    if (refusal == NATS_RECORD_UNKNOWN && slot->in_doubt &&
        sink->n_published - slot->passed >= PASSED_MAX) {
        slot->record->refused_code = DEAD_LETTER(output_refused);
        slot->record->refused_reason = why;
        slot_done(slot, PUBLISH_REFUSED);
        return;
    }
    if (refusal == NATS_RECORD_UNKNOWN && !slot->in_doubt) {
        slot->in_doubt = true;
        slot->passed = sink->n_published;
    }
    health_wait(&sink->health, WRITE, why);
    sink_pause(sink);
}

/* Whether the message that was taken for ours is there. Not, or not known: ours is sent again. */
static void on_first(void *ctx, void *arg, natsMsg *answer)
{
    struct slot *slot = arg;
    struct nats_error error = {.code = 500};
    (void)ctx;
    slot->asked = false;
    if (answer)
        nats_reply_error(answer, &error);
    if (answer && !error.code)
        slot_published(slot);
    else
        slot->salt++;
    pump(ctx);
}

static void find_first(struct slot *slot, struct bytes answer)
{
    struct nats_sink *sink = slot->sink;
    char subject[400], stream[160], text[64];
    nats_json_text(answer, "stream", stream, sizeof stream);
    snprintf(subject, sizeof subject, "%.150s.STREAM.MSG.GET.%.150s", sink->config.api, stream);
    snprintf(text, sizeof text, "{\"seq\":%" PRId64 "}", nats_json_number(answer, "seq", 0));
    slot->asked = nats_client_ask_text(sink->client, subject, text, on_first, slot);
}

static void on_answer(void *ctx, void *arg, natsMsg *answer)
{
    struct nats_sink *sink = ctx;
    struct slot *slot = arg;
    struct nats_error error;
    char why[300];
    slot->asked = false;
    if (!answer) {
        if (nats_client_is_up(sink->client) && !(sink->health.troubles & WRITE)) {
            snprintf(why, sizeof why, "subject %.100s: no confirmation came in time; sent again",
                     nats_record_subject(&sink->config, slot->record));
            health_wait(&sink->health, WRITE, why);
        }
        sink_pause(sink);
        return;
    }
    nats_reply_error(answer, &error);
    struct bytes body = nats_reply_body(answer);
    if (!error.code && !nats_json_find(body, "seq").ptr) {
        error = (struct nats_error){.code = 500};
        snprintf(error.text, sizeof error.text, "another service answers there, not a stream");
    }
    if (error.code)
        refused(slot, &error);
    else if (nats_json_bool(body, "duplicate"))
        find_first(slot, body);
    else
        slot_published(slot);
    pump(sink);
}

/* ---- circles */

/* A filter of the consumer that leaves the outputs out was checked with the options. */
static void on_names(void *ctx, void *arg, natsMsg *answer)
{
    struct nats_sink *sink = ctx;
    const struct nats_config *config = &sink->config;
    struct bytes names = {NULL, 0}, one;
    char name[160], why[400];
    (void)arg;
    sink->is_asking = false;
    sink->is_sure = true; /* also without an answer: the right to ask may be missing */
    if (answer)
        names = nats_json_find(nats_reply_body(answer), "streams");
    for (size_t at = 0; names.ptr && nats_json_next(names, &at, &one);) {
        nats_json_string(one, name, sizeof name);
        if (strcmp(name, config->stream) != 0)
            continue;
        snprintf(why, sizeof why,
                 "subject %.100s is stored by the input stream %.60s itself: the worker would read "
                 "what it writes; choose another nats.output_subject, or name the inputs by "
                 "nats.subject",
                 config->output_subject, config->stream);
        sink_fail(sink, -EINVAL, why);
    }
    pump(sink);
}

static void find_circle(struct nats_sink *sink)
{
    struct buffer text = {0};
    char subject[200];
    snprintf(subject, sizeof subject, "%.150s.STREAM.NAMES", sink->config.api);
    buffer_put_text(&text, "{\"subject\":");
    json_put_text(&text, sink->config.output_subject);
    buffer_put(&text, "}", 2);
    sink->is_asking =
        !text.status && nats_client_ask_text(sink->client, subject, text.ptr, on_names, NULL);
    buffer_close(&text);
}

/* ---- sending */

/* 0; -ENOMEM: not now. The slot may be gone. */
static int slot_send(struct nats_sink *sink, struct slot *slot)
{
    char id[NATS_ID_SIZE], reply[NATS_REPLY_SIZE];
    natsMsg *message = NULL;
    size_t size, most = nats_client_max_payload(sink->client);
    nats_client_reply(sink->client, reply);
    int rc = nats_record_id(&sink->config, slot->record, slot->salt, id);
    if (!rc)
        rc = nats_record_message(&message, &sink->config, slot->record, id, reply, &size);
    if (rc)
        return rc;
    if (!message || (most && size > most)) {
        natsMsg_Destroy(message);
        slot_done(slot, PUBLISH_TOO_LARGE);
        return 0;
    }
    slot->asked = nats_client_ask(sink->client, message, on_answer, slot);
    return slot->asked ? 0 : -ENOMEM;
}

static void send_all(struct nats_sink *sink)
{
    struct slot *slot = sink->head.next, *next;
    for (; slot != &sink->head && !sink->failed; slot = next) {
        next = slot->next;
        if (slot->asked)
            continue;
        if (!slot->record->n_parts) { /* given up */
            slot_done(slot, PUBLISHED);
            continue;
        }
        if (sink->paused || !sink->is_sure || !nats_client_is_up(sink->client))
            continue;
        if (slot_send(sink, slot) != 0) {
            sink_pause(sink);
            return;
        }
    }
}

static void finish(struct nats_sink *sink);

static void pump(struct nats_sink *sink)
{
    if (sink->is_finished)
        return;
    if (sink->no_memory)
        sink_fail(sink, -ENOMEM, "out of memory");
    if (sink->closing && (sink->failed || !sink->n_slots)) {
        finish(sink);
        return;
    }
    if (!sink->is_sure && !sink->is_asking && nats_client_is_up(sink->client))
        find_circle(sink);
    send_all(sink);
}

static void on_pump(uv_timer_t *timer)
{
    pump(timer->data);
}

/* ---- the connection */

static void on_up(void *ctx)
{
    struct nats_sink *sink = ctx;
    health_good(&sink->health, LINK);
    pump(sink);
}

static void on_down(void *ctx, const char *why)
{
    struct nats_sink *sink = ctx;
    char text[500];
    snprintf(text, sizeof text, "%.400s; reconnecting until it succeeds", why);
    health_wait(&sink->health, LINK, text);
}

static void on_failed(void *ctx, int err, const char *why)
{
    sink_fail(ctx, err, why);
    pump(ctx);
}

static void on_denied(void *ctx, const char *what)
{
    struct nats_sink *sink = ctx;
    char why[500];
    if (strstr(what, ".STREAM.MSG.GET.") || strstr(what, ".STREAM.NAMES"))
        return; /* then doubles are not dropped, and circles not seen */
    snprintf(why, sizeof why, "%.300s: allow this user that; it is tried again", what);
    health_wait(&sink->health, WRITE, why);
}

static const struct nats_client_events client_events = {on_up, on_down, on_failed, on_denied, NULL};

/* ---- the contract */

static void sink_free(struct nats_sink *sink)
{
    while (sink->n_slots)
        slot_take(sink->head.next);
    nats_config_clear(&sink->config);
    free(sink);
}

static void timer_open(struct nats_sink *sink, uv_timer_t *timer)
{
    uv_timer_init(sink->loop, timer);
    timer->data = sink;
    sink->n_open++;
}

static int nats_sink_open(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                          struct source *peer, const struct sink_events *events, void *ctx,
                          char *err, size_t err_size)
{
    struct nats_sink *sink = calloc(1, sizeof *sink);
    if (!sink) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    sink->base = (struct sink){.ops = &nats_sink_ops, .events = events, .ctx = ctx};
    sink->base.layout = SINK_PER_MESSAGE;
    sink->reads_nats = peer && peer->ops == &nats_source_ops;
    sink->loop = loop;
    sink->head.prev = sink->head.next = &sink->head;
    health_open(&sink->health, LINK, on_state_changed, sink);
    int rc = nats_config_read(&sink->config, settings, err, err_size);
    if (!rc)
        rc = nats_client_open(&sink->client, loop, &sink->config, "embedmill sink", &client_events,
                              sink, err, err_size);
    if (rc) {
        sink_free(sink);
        return rc;
    }
    sink->is_sure = !sink->reads_nats || sink->config.subject;
    sink->n_open++;
    timer_open(sink, &sink->pump_timer);
    timer_open(sink, &sink->pause_timer);
    timer_open(sink, &sink->close_timer);
    *out = &sink->base;
    return 0;
}

static void nats_sink_publish(struct sink *base, struct record **records, size_t n)
{
    struct nats_sink *sink = self(base);
    for (size_t i = 0; i < n && !sink->no_memory; i++)
        if (slot_add(sink, records[i]) != 0) /* those left out come again after the exit */
            sink->no_memory = true;
    if (!sink->is_finished && !uv_is_active((uv_handle_t *)&sink->pump_timer))
        uv_timer_start(&sink->pump_timer, on_pump, 0, 0);
}

static void sink_freed(struct nats_sink *sink)
{
    void (*closed)(void *) = sink->closed;
    void *ctx = sink->closed_ctx;
    if (--sink->n_open)
        return;
    sink_free(sink);
    if (closed)
        closed(ctx);
}

static void on_client_closed(void *ctx)
{
    sink_freed(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
    sink_freed(handle->data);
}

static void finish(struct nats_sink *sink)
{
    if (sink->is_finished)
        return;
    sink->is_finished = true;
    nats_client_close(sink->client, NATS_CLOSE_MS, on_client_closed, sink);
    uv_close((uv_handle_t *)&sink->pump_timer, on_timer_closed);
    uv_close((uv_handle_t *)&sink->pause_timer, on_timer_closed);
    uv_close((uv_handle_t *)&sink->close_timer, on_timer_closed);
}

static void on_close_deadline(uv_timer_t *timer)
{
    finish(timer->data);
}

static void nats_sink_close(struct sink *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                            void *ctx)
{
    struct nats_sink *sink = self(base);
    if (!sink)
        return;
    sink->closing = true;
    sink->closed = closed;
    sink->closed_ctx = ctx;
    uv_timer_start(&sink->close_timer, on_close_deadline, deadline_ms, 0);
    uv_timer_start(&sink->pump_timer, on_pump, 0, 0);
}

const struct sink_ops nats_sink_ops = {
    .check = nats_config_check,
    .open = nats_sink_open,
    .publish = nats_sink_publish,
    .close = nats_sink_close,
};
