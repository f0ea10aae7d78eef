/*
 * fake_sink.c: the sink of fake_connector.h, which copies what it is given and answers as the
 * script says.
 */
#include "tests/support/fake_internal.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_PENDING = 4096 };

struct fake_sink {
    struct sink base;
    struct fake *fake;
    uv_timer_t timer;
    bool closing, failed;
    struct record *pending[MAX_PENDING];
    size_t n_pending;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static void append(char **out, size_t *len, const char *from, size_t n)
{
    char *grown = realloc(*out, *len + n + 1);
    assert_non_null(grown);
    memcpy(grown + *len, from ? from : "", n);
    grown[*len + n] = '\0';
    *out = grown;
    *len += n;
}

static void append_text(char **out, size_t *len, const char *format, uint64_t value)
{
    char text[64];
    append(out, len, text, (size_t)snprintf(text, sizeof text, format, value));
}

static void documents_copy(struct fake_message *message, const struct record *record)
{
    char **out = &message->documents_out;
    size_t len = 0;
    append(out, &len, "", 0);
    for (size_t i = 0; i < record->n_documents; i++) {
        const struct document *document = &record->documents[i];
        append(out, &len, document->id.ptr, document->id.len);
        if (document->is_deleted)
            append(out, &len, " deleted", 8);
        if (document->n_chunks)
            append_text(out, &len, " chunks=%" PRIu64, document->n_chunks);
        if (document->has_version)
            append_text(out, &len, " version=%" PRIu64, (uint64_t)document->version);
        for (size_t j = 0; j < record->n_parts; j++)
            if (record->parts[j].document == document)
                append_text(out, &len, " [%" PRIu64 "]", j);
        append(out, &len, "\n", 1);
    }
}

static void record_copy(struct fake_message *message, const struct record *record)
{
    fake_copies_free(message);
    snprintf(message->dead_code, sizeof message->dead_code, "%s",
             record->dead_code ? record->dead_code : "");
    snprintf(message->dead_reason, sizeof message->dead_reason, "%s",
             record->dead_reason ? record->dead_reason : "");
    message->n_parts = record->n_parts;
    for (size_t i = 0; i < record->n_parts; i++) {
        const struct part *part = &record->parts[i];
        append(&message->value_out, &message->value_out_len, part->value.ptr, part->value.len);
        append(&message->vector_out, &message->vector_out_len, part->vector.ptr, part->vector.len);
        append(&message->id_out, &message->id_out_len, part->id.ptr, part->id.len);
        append(&message->id_out, &message->id_out_len, "", 1);
    }
    documents_copy(message, record);
    message->n_headers = record->n_headers;
    for (size_t i = 0, len = 0; i < record->n_headers; i++) {
        const struct header *header = &record->headers[i];
        append(&message->headers_out, &len, header->name.ptr, header->name.len);
        append(&message->headers_out, &len, "=", 1);
        append(&message->headers_out, &len, header->value.ptr, header->value.len);
        append(&message->headers_out, &len, "\n", 1);
    }
}

/* What the broker says of a record. */
static enum published answer(const struct fake_message *message, struct record *record)
{
    if (record->n_parts == 0)
        return PUBLISHED;
    size_t len = record->parts[0].value.len;
    bool is_bare =
        record->dead_code && len == 0 && record->parts[0].id.len == 0 && record->n_headers == 0;
    record->refused_code = "output_refused";
    record->refused_reason = "the fake broker does not like it";
    switch (message->fate) {
    case FATE_ACKED:
        return PUBLISHED_AND_ACKED;
    case FATE_NOT_OURS:
        return PUBLISH_NOT_OURS;
    case FATE_TOO_LARGE:
        return record->dead_code ? PUBLISHED : PUBLISH_TOO_LARGE;
    case FATE_NEVER_SMALL:
        return PUBLISH_TOO_LARGE;
    case FATE_DEAD_TOO_LARGE:
        return record->dead_code && len <= 4 ? PUBLISHED : PUBLISH_TOO_LARGE;
    case FATE_DEAD_OVER_400:
        len += record->parts[0].id.len;
        for (size_t i = 0; i < record->n_headers; i++)
            len += record->headers[i].name.len + record->headers[i].value.len;
        return record->dead_code && len <= 400 ? PUBLISHED : PUBLISH_TOO_LARGE;
    case FATE_REFUSED:
    case FATE_DOUBTED:
        return record->dead_code ? PUBLISHED : PUBLISH_REFUSED;
    case FATE_DEAD_REFUSED:
    case FATE_NEVER:
        return message->fate != FATE_NEVER && is_bare ? PUBLISHED : PUBLISH_REFUSED;
    default:
        return PUBLISHED;
    }
}

static void record_confirm(struct fake_sink *sink, struct record *record)
{
    struct fake *fake = sink->fake;
    struct fake_message *message = fake_ledger(fake, record->origin);
    enum published how = answer(message, record);
    if (how == PUBLISHED || how == PUBLISHED_AND_ACKED) {
        record_copy(message, record);
        message->confirmed = true;
        if (record->n_parts == 0)
            message->n_given_up++;
        else if (record->dead_code)
            message->n_dead++;
        else
            message->n_outputs++, fake->n_passed++;
    }
    bool is_acked = how == PUBLISHED_AND_ACKED;
    struct message *given = message->given;
    if (is_acked)
        fake_message_settle(fake, message, FAKE_ACKED);
    fake->n_confirmed++;
    sink->base.events->on_published(sink->base.ctx, record, how);
    if (is_acked) {
        free(given);
        message->given = NULL;
    }
}

static void sink_closed(uv_handle_t *handle)
{
    struct fake_sink *sink = handle->data;
    sink->fake->sink_open = false;
    void (*closed)(void *ctx) = sink->closed;
    void *ctx = sink->closed_ctx;
    free(sink);
    closed(ctx);
}

static bool is_kept(struct fake *fake, const struct record *record)
{
    enum fake_fate fate = fake_ledger(fake, record->origin)->fate;
    bool is_doubted = !record->dead_code && fake->n_passed < DOUBTED_PASSES;
    return fate == FATE_UNANSWERED || (fate == FATE_DOUBTED && is_doubted);
}

/* Take one pending record that may be answered; NULL when there is none. */
static struct record *pending_take(struct fake_sink *sink)
{
    struct fake *fake = sink->fake;
    size_t start = fake->script.shuffle ? fake_random(fake, sink->n_pending) : 0;
    for (size_t i = 0; i < sink->n_pending; i++) {
        size_t at = (start + i) % sink->n_pending;
        struct record *record = sink->pending[at];
        if (is_kept(fake, record))
            continue;
        memmove(&sink->pending[at], &sink->pending[at + 1],
                (sink->n_pending - at - 1) * sizeof sink->pending[0]);
        sink->n_pending--;
        return record;
    }
    return NULL;
}

static void sink_turn(uv_timer_t *timer)
{
    struct fake_sink *sink = timer->data;
    struct fake *fake = sink->fake;
    size_t most = fake_random(fake, fake->script.confirm_max + 1);
    most = fake->script.sink_stalls || sink->failed ? 0 : most;
    if (fake_random(fake, 100) < fake->script.link_waits_percent && !sink->closing)
        sink->base.events->on_state(sink->base.ctx, LINK_WAIT, "the fake broker is tired");
    for (struct record *record; most > 0 && (record = pending_take(sink)) != NULL; most--)
        record_confirm(sink, record);
    if (fake->script.doubts && !sink->closing)
        sink->base.events->on_doubt(sink->base.ctx);
    if (fake->script.sink_fails_after && fake->n_confirmed >= fake->script.sink_fails_after &&
        !sink->failed && !sink->closing) {
        sink->failed = true;
        sink->base.events->on_failed(sink->base.ctx, UV_EINVAL,
                                     "the fake stream is no stream: delete it");
    }
    if (sink->closing)
        uv_close((uv_handle_t *)&sink->timer, sink_closed);
    else
        fake_turn_later(fake, &sink->timer, sink_turn);
}

static int sink_open(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                     struct source *peer, const struct sink_events *events, void *ctx, char *err,
                     size_t err_size)
{
    (void)settings;
    struct fake *fake = fake_current;
    fake_check(peer && peer->ops == &fake_source_ops, "the sink was not given the open source");
    if (fake->script.sink_open_err) {
        snprintf(err, err_size, "the fake sink does not open");
        return fake->script.sink_open_err;
    }
    struct fake_sink *sink = calloc(1, sizeof *sink);
    assert_non_null(sink);
    sink->base = (struct sink){
        .ops = &fake_sink_ops, .events = events, .ctx = ctx, .layout = fake->script.layout};
    sink->fake = fake;
    uv_timer_init(loop, &sink->timer);
    sink->timer.data = sink;
    fake_turn_later(fake, &sink->timer, sink_turn);
    fake->sink_open = true;
    *out = &sink->base;
    return 0;
}

static void sink_publish(struct sink *base, struct record **records, size_t n)
{
    struct fake_sink *sink = (struct fake_sink *)base;
    struct fake *fake = sink->fake;
    fake_check(!sink->closing && !sink->failed, "publish after close or failure");
    fake_check(n > 0, "publish of nothing");
    for (size_t i = 0; i < n; i++) {
        struct fake_message *message = fake_ledger(fake, records[i]->origin);
        size_t index = (size_t)(message - fake->messages);
        fake_check(records[i]->n_parts > 0 || records[i]->dead_code || !records[i]->n_documents,
                   "an output without parts");
        fake_check(!message->confirmed, "message %zu published again after it was confirmed",
                   index);
        if (!message->published) {
            message->published = true;
            fake_check(!fake->any_published || index > fake->last_published,
                       "message %zu published after message %zu", index, fake->last_published);
            fake->last_published = index;
            fake->any_published = true;
        }
        fake_check(sink->n_pending < MAX_PENDING, "too many records at the sink");
        sink->pending[sink->n_pending++] = records[i];
    }
}

static void sink_close(struct sink *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                       void *ctx)
{
    struct fake_sink *sink = (struct fake_sink *)base;
    fake_check(!sink->closing, "sink closed twice");
    sink->closing = true;
    sink->closed = closed;
    sink->closed_ctx = ctx;
    sink->fake->sink_close_ms = deadline_ms;
    fake_turn_later(sink->fake, &sink->timer, sink_turn);
}

const struct sink_ops fake_sink_ops = {sink_open, sink_publish, sink_close, NULL, NULL};
