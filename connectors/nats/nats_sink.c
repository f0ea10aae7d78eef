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
#include "connectors/endpoint.h"
#include "connectors/json.h"
#include "connectors/nats/nats.h"
#include "connectors/nats/nats_client.h"
#include "connectors/nats/nats_json.h"
#include "connectors/nats/nats_record.h"
#include "connectors/nats/nats_reply.h"
#include "connectors/nats/nats_source.h"
#include "connectors/slots.h"

#define LINK  1u
#define WRITE 2u

/* So many others pass, and what is refused is refused for its own sake; or so often, where the code
 * means trouble of the server as a rule. */
#define PASSED_MAX 3
#define DOUBTS_MAX 5

struct nats_slot {
    struct slot base;      /* first member */
    bool asked;            /* on its way */
    unsigned n_doubts;     /* refused for a reason not known here, while others passed */
    uint64_t salt, passed; /* passed: how many had been published when that was counted */
};

struct nats_sink {
    struct sink base;
    struct endpoint end;
    struct nats_config config;
    struct nats_client *client;
    struct slot_pool pool;
    struct slot_queue slots; /* in the order given */
    uint64_t n_published[2]; /* outputs, dead letters: they go to different subjects */
    bool reads_nats;         /* the source is NATS, too */
    bool is_asking;          /* which streams take the outputs, before the first is written */
    bool is_sure;            /* none of them is the input */
};

static struct nats_sink *self(struct sink *sink)
{
    return (struct nats_sink *)sink;
}

/* ---- slots */

static void slot_done(struct nats_sink *sink, struct nats_slot *slot, enum published how)
{
    struct record *record = slot->base.record;
    slots_remove(&sink->slots, &slot->base);
    /* Before the event: it may publish, and take this very slot. */
    slots_give(&sink->pool, &slot->base);
    sink->base.events->on_published(sink->base.ctx, record, how);
}

static void slot_published(struct nats_sink *sink, struct nats_slot *slot)
{
    sink->n_published[slot->base.record->dead_code != NULL]++;
    sink->end.backoff.attempts = 0;
    health_good(&sink->end.health, WRITE);
    if (slot->base.record->dead_code)
        /* Before the event, in which the pipeline acks it: it is ended in place of that. */
        nats_source_mark_dead(slot->base.record->origin);
    slot_done(sink, slot, PUBLISHED);
}

/* ---- answers */

static void explain(const struct nats_sink *sink, const struct nats_slot *slot,
                    const struct nats_error *error, char *why, size_t size)
{
    const char *subject = nats_record_subject(&sink->config, slot->base.record);
    const char *advice = nats_reply_advice(error);
    if (error->code == 503 && !error->err_code)
        snprintf(why, size,
                 "no stream takes subject %.100s: create one (nats stream add NAME --subjects "
                 "%.100s), or correct %s",
                 subject, subject,
                 slot->base.record->dead_code ? "nats.dead_letter_subject" : "nats.output_subject");
    else
        snprintf(why, size, "writing to subject %.100s: %.200s (%" PRId64 ")%s%s", subject,
                 error->text, error->err_code, *advice ? ": " : "", advice);
}

/* A refusal of which nobody knows whose fault it is. True: it is this record's, for others to the
 * same subject pass and it does not. */
static bool is_its_own(const struct nats_sink *sink, struct nats_slot *slot,
                       enum nats_refusal refusal)
{
    uint64_t n_published = sink->n_published[slot->base.record->dead_code != NULL];
    unsigned most = refusal == NATS_RECORD_UNKNOWN ? 1 : DOUBTS_MAX;
    if (refusal == NATS_RECORD_AGAIN)
        return false;
    if (slot->n_doubts && n_published - slot->passed < PASSED_MAX)
        return false;
    /* The next doubt counts when so many others have passed after this one. */
    slot->passed = n_published;
    return slot->n_doubts++ >= most;
}

static void refused(struct nats_sink *sink, struct nats_slot *slot, const struct nats_error *error)
{
    enum nats_refusal refusal = nats_reply_refusal(error);
    char why[500];
    explain(sink, slot, error, why, sizeof why);
    if (refusal == NATS_RECORD_TOO_LARGE) {
        slot_done(sink, slot, PUBLISH_TOO_LARGE);
        return;
    }
    if (is_its_own(sink, slot, refusal)) {
        slot->base.record->refused_code = DEAD_LETTER(output_refused);
        slot->base.record->refused_reason = why;
        slot_done(sink, slot, PUBLISH_REFUSED);
        return;
    }
    health_wait(&sink->end.health, WRITE, why);
    endpoint_pause(&sink->end);
    /* Others show whose fault it is; without any it is tried alone, after each pause. */
    if (refusal != NATS_RECORD_AGAIN)
        endpoint_doubt(&sink->end);
}

/* Whether the message that was taken for ours is there. Not, or not known: ours is sent again. */
static void on_first(void *ctx, void *arg, natsMsg *answer)
{
    struct nats_sink *sink = ctx;
    struct nats_slot *slot = arg;
    struct nats_error error = {.code = 500};
    slot->asked = false;
    if (answer)
        nats_reply_error(answer, &error);
    if (answer && !error.code)
        slot_published(sink, slot);
    else
        /* Another id: by the old one the server would call it a duplicate each time. */
        slot->salt++;
    endpoint_pump(&sink->end);
}

static void find_first(struct nats_sink *sink, struct nats_slot *slot, struct bytes answer)
{
    char subject[400], stream[160], text[64];
    nats_json_text(answer, "stream", stream, sizeof stream);
    snprintf(subject, sizeof subject, "%.150s.STREAM.MSG.GET.%.150s", sink->config.api, stream);
    snprintf(text, sizeof text, "{\"seq\":%" PRId64 "}", nats_json_number(answer, "seq", 0));
    slot->asked = nats_client_ask_text(sink->client, subject, text, on_first, slot);
}

static void on_answer(void *ctx, void *arg, natsMsg *answer)
{
    struct nats_sink *sink = ctx;
    struct nats_slot *slot = arg;
    struct nats_error error;
    char why[300];
    slot->asked = false;
    if (!answer) {
        if (nats_client_is_up(sink->client) && !(sink->end.health.troubles & WRITE)) {
            snprintf(why, sizeof why, "subject %.100s: no confirmation came in time; sent again",
                     nats_record_subject(&sink->config, slot->base.record));
            health_wait(&sink->end.health, WRITE, why);
        }
        /* Silence may be an overload: what is sent again waits for the pause. */
        endpoint_pause(&sink->end);
        return;
    }
    nats_reply_error(answer, &error);
    struct bytes body = nats_reply_body(answer);
    if (!error.code && !nats_json_find(body, "seq").ptr) {
        error = (struct nats_error){.code = 500};
        snprintf(error.text, sizeof error.text, "another service answers there, not a stream");
    }
    if (error.code)
        refused(sink, slot, &error);
    else if (nats_json_bool(body, "duplicate"))
        find_first(sink, slot, body);
    else
        slot_published(sink, slot);
    endpoint_pump(&sink->end);
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
        endpoint_fail(&sink->end, -EINVAL, why);
    }
    endpoint_pump(&sink->end);
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
static int slot_send(struct nats_sink *sink, struct nats_slot *slot)
{
    char id[NATS_ID_SIZE], reply[NATS_REPLY_SIZE];
    natsMsg *message = NULL;
    size_t size, most = nats_client_max_payload(sink->client);
    nats_client_reply(sink->client, reply);
    /* Made anew at each attempt: the same id, but for the salt. */
    int rc = nats_record_id(&sink->config, slot->base.record, slot->salt, id);
    if (!rc)
        rc = nats_record_message(&message, &sink->config, slot->base.record, id, reply, &size);
    if (rc)
        return rc;
    if (!message || (most && size > most)) {
        natsMsg_Destroy(message);
        slot_done(sink, slot, PUBLISH_TOO_LARGE);
        return 0;
    }
    slot->asked = nats_client_ask(sink->client, message, on_answer, slot);
    return slot->asked ? 0 : -ENOMEM;
}

static void send_all(struct nats_sink *sink)
{
    struct slot *at = sink->slots.first, *next;
    for (; at && !sink->end.failed; at = next) {
        struct nats_slot *slot = (struct nats_slot *)at;
        next = at->next;
        if (slot->asked)
            continue;
        if (!at->record->n_parts) { /* given up */
            slot_done(sink, slot, PUBLISHED);
            continue;
        }
        /* Go on all the same: records that were given up need no server. */
        if (sink->end.paused || !sink->is_sure || !nats_client_is_up(sink->client))
            continue;
        if (slot_send(sink, slot) != 0) {
            endpoint_pause(&sink->end);
            return;
        }
    }
}

static void sink_pump(void *owner)
{
    struct nats_sink *sink = owner;
    if (sink->end.closing && (sink->end.failed || !sink->slots.n)) {
        endpoint_finish(&sink->end);
        return;
    }
    if (!sink->is_sure && !sink->is_asking && nats_client_is_up(sink->client))
        find_circle(sink);
    send_all(sink);
}

/* ---- the connection */

static void on_up(void *ctx)
{
    struct nats_sink *sink = ctx;
    health_good(&sink->end.health, LINK);
    endpoint_pump(&sink->end);
}

static void on_down(void *ctx, const char *why)
{
    struct nats_sink *sink = ctx;
    char text[500];
    snprintf(text, sizeof text, "%.400s; reconnecting until it succeeds", why);
    health_wait(&sink->end.health, LINK, text);
}

static void on_failed(void *ctx, int err, const char *why)
{
    struct nats_sink *sink = ctx;
    endpoint_fail(&sink->end, err, why);
    endpoint_pump(&sink->end);
}

static void on_denied(void *ctx, const char *what)
{
    struct nats_sink *sink = ctx;
    char why[500];
    if (strstr(what, ".STREAM.MSG.GET.") || strstr(what, ".STREAM.NAMES"))
        return; /* then doubles are not dropped, and circles not seen */
    snprintf(why, sizeof why, "%.300s: allow this user that; it is tried again", what);
    health_wait(&sink->end.health, WRITE, why);
}

static const struct nats_client_events client_events = {on_up, on_down, on_failed, on_denied, NULL};

/* ---- the contract */

static void sink_free(void *owner)
{
    struct nats_sink *sink = owner;
    slots_give_all(&sink->pool, &sink->slots);
    slots_close(&sink->pool);
    nats_config_clear(&sink->config);
    free(sink);
}

static void sink_finish(void *owner, bool is_late)
{
    struct nats_sink *sink = owner;
    (void)is_late;
    nats_client_close(sink->client, NATS_CLOSE_MS, endpoint_drop, &sink->end);
}

static const struct endpoint_ops endpoint_ops = {sink_pump, NULL, sink_finish, sink_free};

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
    sink->pool.size = sizeof(struct nats_slot);
    int rc = nats_config_read(&sink->config, settings, err, err_size);
    if (!rc)
        rc = nats_client_open(&sink->client, loop, &sink->config, "embedmill sink", &client_events,
                              sink, err, err_size);
    if (rc) {
        sink_free(sink);
        return rc;
    }
    /* With nats.subject the options were checked (on_names). */
    sink->is_sure = !sink->reads_nats || sink->config.subject;
    endpoint_open_sink(&sink->end, loop, &sink->base, LINK, &endpoint_ops, sink);
    endpoint_hold(&sink->end); /* the client */
    *out = &sink->base;
    return 0;
}

static void nats_sink_publish(struct sink *base, struct record **records, size_t n)
{
    struct nats_sink *sink = self(base);
    if (slots_add(&sink->pool, &sink->slots, records, n))
        endpoint_fail_soon(&sink->end);
    endpoint_pump_soon(&sink->end);
}

static void nats_sink_close(struct sink *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                            void *ctx)
{
    if (base)
        endpoint_close(&self(base)->end, deadline_ms, closed, ctx);
}

const struct sink_ops nats_sink_ops = {
    .check = nats_config_check,
    .open = nats_sink_open,
    .publish = nats_sink_publish,
    .close = nats_sink_close,
};
