/*
 * fake_connector.c: see fake_connector.h.
 */
#include "tests/support/fake_connector.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MAX_PENDING = 4096 };

struct fake_source {
    struct source base;
    struct fake *fake;
    uv_timer_t timer;
    bool closing, ended, failed;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

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

static struct fake *current;

void fake_use(struct fake *fake)
{
    current = fake;
}

uint64_t fake_random(struct fake *fake, uint64_t below)
{
    fake->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    uint64_t z = fake->random;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return below ? z % below : 0;
}

__attribute__((format(printf, 2, 3))) static void check(bool holds, const char *format, ...)
{
    if (holds)
        return;
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fail_msg("seed %llu: %s", (unsigned long long)current->script.seed, text);
}

void fake_open(struct fake *fake, size_t n)
{
    memset(fake, 0, sizeof *fake);
    fake->messages = calloc(n ? n : 1, sizeof *fake->messages);
    assert_non_null(fake->messages);
    fake->n = n;
    fake->script = (struct fake_script){.seed = 1, .burst_max = 16, .confirm_max = 16};
    fake_use(fake);
}

static void copies_free(struct fake_message *message)
{
    free(message->value_out);
    free(message->vector_out);
    free(message->id_out);
    free(message->headers_out);
    free(message->documents_out);
    message->value_out = message->vector_out = message->id_out = NULL;
    message->headers_out = message->documents_out = NULL;
    message->value_out_len = message->vector_out_len = message->id_out_len = 0;
}

void fake_close(struct fake *fake)
{
    assert_false(fake->source_open || fake->sink_open);
    for (size_t i = 0; i < fake->n; i++)
        copies_free(&fake->messages[i]);
    free(fake->messages);
}

void fake_again(struct fake *fake)
{
    assert_false(fake->source_open);
    for (size_t i = 0; i < fake->n; i++) {
        struct fake_message *message = &fake->messages[i];
        assert_int_not_equal(message->state, FAKE_GIVEN);
        if (message->state == FAKE_RELEASED) {
            message->state = FAKE_WAITING;
            message->deliveries++;
        }
        message->confirmed = message->published = false;
    }
    fake->next = 0;
    fake->any_published = false;
}

size_t fake_count(const struct fake *fake, enum fake_state state)
{
    size_t n = 0;
    for (size_t i = 0; i < fake->n; i++)
        n += fake->messages[i].state == state;
    return n;
}

/* The ledger of a message the pipeline holds; anything else fails the test. */
static struct fake_message *ledger(struct fake *fake, const struct message *message)
{
    for (size_t i = 0; i < fake->n; i++)
        if (fake->messages[i].given == message)
            return &fake->messages[i];
    check(false, "a message that is not given out was handed back or published");
    return NULL;
}

/* The source. */

static struct message *message_make(struct fake_source *source, size_t index)
{
    struct fake_message *ledger_entry = &source->fake->messages[index];
    const char *value = ledger_entry->value, *key = ledger_entry->key;
    if (!ledger_entry->len && value)
        ledger_entry->len = strlen(value);
    size_t value_len = ledger_entry->len, key_len = key ? strlen(key) : 0;
    struct {
        struct message message;
        struct header headers[2];
        char bytes[];
    } *block = malloc(sizeof *block + value_len + key_len + 64);
    assert_non_null(block);
    char *at = block->bytes;
    struct message *message = &block->message;
    memset(message, 0, sizeof *message);
    if (value)
        message->value = (struct bytes){memcpy(at, value, value_len), value_len};
    at += value_len;
    if (key)
        message->key = (struct bytes){memcpy(at, key, key_len), key_len};
    at += key_len;
    int len = snprintf(at, 64, "fake %zu", index);
    message->position = (struct bytes){at, (size_t)len};
    block->headers[0] = (struct header){{"trace", 5}, message->position};
    const char *header = ledger_entry->header ? ledger_entry->header : "text/plain"; /* kept */
    block->headers[1] = (struct header){{"content-type", 12}, {header, strlen(header)}};
    message->headers = block->headers;
    message->n_headers = 2;
    message->source = &source->base;
    message->timestamp_ms = 1700000000000 + (int64_t)index;
    message->deliveries = ledger_entry->deliveries + 1;
    return message;
}

/* It counts no more, and its memory is there until message_end. */
static void message_settle(struct fake *fake, struct fake_message *message, enum fake_state state)
{
    check(message->state == FAKE_GIVEN, "a message was taken twice");
    message->state = state;
    fake->n_unfinished--;
    if (state == FAKE_ACKED)
        fake->n_acked++;
    else
        fake->n_released++;
}

static void message_end(struct fake *fake, struct fake_message *message, enum fake_state state)
{
    message_settle(fake, message, state);
    free(message->given);
    message->given = NULL;
}

static void source_give(struct fake_source *source)
{
    struct fake *fake = source->fake;
    struct message *given[64];
    size_t n = 0, most = 1 + fake_random(fake, fake->script.burst_max);
    while (n < most && n < 64 && fake->credit > 0 && (n == 0 || fake->credit_bytes > 0)) {
        while (fake->next < fake->n && fake->messages[fake->next].state != FAKE_WAITING)
            fake->next++;
        if (fake->next == fake->n)
            break;
        struct fake_message *message = &fake->messages[fake->next];
        message->given = given[n++] = message_make(source, fake->next++);
        message->state = FAKE_GIVEN;
        fake->credit--;
        fake->credit_bytes -= message->len < fake->credit_bytes ? message->len : fake->credit_bytes;
        fake->n_given++;
        fake->n_unfinished++;
    }
    if (fake->n_unfinished > fake->max_seen_unfinished)
        fake->max_seen_unfinished = fake->n_unfinished;
    if (n)
        source->base.events->on_messages(source->base.ctx, given, n);
}

static void source_closed(uv_handle_t *handle)
{
    struct fake_source *source = handle->data;
    source->fake->source_open = false;
    void (*closed)(void *ctx) = source->closed;
    void *ctx = source->closed_ctx;
    free(source);
    closed(ctx);
}

static void source_finish(struct fake_source *source)
{
    struct fake *fake = source->fake;
    for (size_t i = 0; i < fake->n; i++) {
        struct fake_message *message = &fake->messages[i];
        if (message->state != FAKE_GIVEN)
            continue;
        if (message->confirmed) {
            check(source->failed, "message %zu is confirmed and was not acked", i);
            message->n_unackable++;
        }
        message_end(fake, message, FAKE_RELEASED);
    }
    if (fake->script.unflushed)
        source->base.events->on_failed(source->base.ctx, UV_ETIMEDOUT, "the fake broker is away");
    uv_close((uv_handle_t *)&source->timer, source_closed);
}

static void source_turn(uv_timer_t *timer);

/* Never 0 ms: libuv 1.44 would run a timer that starts itself again without end. */
static void turn_later(struct fake *fake, uv_timer_t *timer, uv_timer_cb turn)
{
    uv_timer_start(timer, turn, 1 + fake_random(fake, fake->script.tick_ms + 1), 0);
}

static void source_turn(uv_timer_t *timer)
{
    struct fake_source *source = timer->data;
    struct fake *fake = source->fake;
    if (source->closing) {
        source_finish(source);
        return;
    }
    const struct source_events *events = source->base.events;
    void *ctx = source->base.ctx;
    if (fake_random(fake, 100) < fake->script.link_waits_percent) {
        events->on_state(ctx, LINK_WAIT, "the fake broker is tired");
        events->on_state(ctx, LINK_UP, "");
    } else if (fake->script.source_fails_after &&
               fake->n_given >= fake->script.source_fails_after) {
        source->failed = true;
        events->on_failed(ctx, UV_EACCES, "no permission on the fake stream: grant it");
        return;
    } else {
        source_give(source);
    }
    if (source->closing) /* it came as an answer; its turn is already set */
        return;
    if (fake->script.finite && fake->next == fake->n && !source->ended) {
        source->ended = true;
        events->on_end(ctx);
    }
    if (!source->closing)
        turn_later(fake, &source->timer, source_turn);
}

static int source_open(struct source **out, uv_loop_t *loop, const struct settings *settings,
                       const struct source_events *events, void *ctx, char *err, size_t err_size)
{
    (void)settings;
    struct fake *fake = current;
    if (fake->script.source_open_err) {
        snprintf(err, err_size, "the fake source does not open");
        return fake->script.source_open_err;
    }
    struct fake_source *source = calloc(1, sizeof *source);
    assert_non_null(source);
    source->base = (struct source){.ops = &fake_source_ops, .events = events, .ctx = ctx};
    source->fake = fake;
    uv_timer_init(loop, &source->timer);
    source->timer.data = source;
    turn_later(fake, &source->timer, source_turn);
    fake->random = fake->script.seed;
    fake->credit = fake->credit_bytes = 0;
    fake->source_open = true;
    *out = &source->base;
    return 0;
}

static void source_request(struct source *base, size_t n, size_t n_bytes)
{
    struct fake_source *source = (struct fake_source *)base;
    struct fake *fake = source->fake;
    check(!source->closing && !source->failed, "request after close or failure");
    size_t max = fake->script.max_unfinished;
    check(!max || n == 0 || fake->n_unfinished + n <= max,
          "request(%zu) with %zu unfinished, and there is room for %zu", n, fake->n_unfinished,
          max);
    check((n == 0) == (n_bytes == 0), "request(%zu, %zu)", n, n_bytes);
    fake->credit = n;
    fake->credit_bytes = n_bytes;
    fake->n_requests++;
}

static void source_ack(struct source *base, struct message *message)
{
    struct fake_source *source = (struct fake_source *)base;
    struct fake_message *entry = ledger(source->fake, message);
    check(!source->closing && !source->failed, "ack after close or failure");
    check(entry->confirmed, "%s acked and its output is not confirmed", entry->value);
    message_end(source->fake, entry, FAKE_ACKED);
}

static void source_release(struct source *base, struct message *message)
{
    struct fake_source *source = (struct fake_source *)base;
    check(!source->closing && !source->failed, "release after close or failure");
    message_end(source->fake, ledger(source->fake, message), FAKE_RELEASED);
}

static void source_close(struct source *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                         void *ctx)
{
    struct fake_source *source = (struct fake_source *)base;
    check(!source->closing, "source closed twice");
    check(!source->fake->sink_open, "source closed before the sink");
    source->closing = true;
    source->closed = closed;
    source->closed_ctx = ctx;
    source->fake->source_close_ms = deadline_ms;
    source->fake->credit = 0;
    turn_later(source->fake, &source->timer, source_turn);
}

const struct source_ops fake_source_ops = {
    .open = source_open,
    .request = source_request,
    .ack = source_ack,
    .release = source_release,
    .close = source_close,
};

/* The sink. */

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
    copies_free(message);
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
    struct fake_message *message = ledger(fake, record->origin);
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
        message_settle(fake, message, FAKE_ACKED);
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
    enum fake_fate fate = ledger(fake, record->origin)->fate;
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
        turn_later(fake, &sink->timer, sink_turn);
}

static int sink_open(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                     struct source *peer, const struct sink_events *events, void *ctx, char *err,
                     size_t err_size)
{
    (void)settings;
    struct fake *fake = current;
    check(peer && peer->ops == &fake_source_ops, "the sink was not given the open source");
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
    turn_later(fake, &sink->timer, sink_turn);
    fake->sink_open = true;
    *out = &sink->base;
    return 0;
}

static void sink_publish(struct sink *base, struct record **records, size_t n)
{
    struct fake_sink *sink = (struct fake_sink *)base;
    struct fake *fake = sink->fake;
    check(!sink->closing && !sink->failed, "publish after close or failure");
    check(n > 0, "publish of nothing");
    for (size_t i = 0; i < n; i++) {
        struct fake_message *message = ledger(fake, records[i]->origin);
        size_t index = (size_t)(message - fake->messages);
        check(records[i]->n_parts > 0 || records[i]->dead_code || !records[i]->n_documents,
              "an output without parts");
        check(!message->confirmed, "message %zu published again after it was confirmed", index);
        if (!message->published) {
            message->published = true;
            check(!fake->any_published || index > fake->last_published,
                  "message %zu published after message %zu", index, fake->last_published);
            fake->last_published = index;
            fake->any_published = true;
        }
        check(sink->n_pending < MAX_PENDING, "too many records at the sink");
        sink->pending[sink->n_pending++] = records[i];
    }
}

static void sink_close(struct sink *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                       void *ctx)
{
    struct fake_sink *sink = (struct fake_sink *)base;
    check(!sink->closing, "sink closed twice");
    sink->closing = true;
    sink->closed = closed;
    sink->closed_ctx = ctx;
    sink->fake->sink_close_ms = deadline_ms;
    turn_later(sink->fake, &sink->timer, sink_turn);
}

const struct sink_ops fake_sink_ops = {sink_open, sink_publish, sink_close, NULL, NULL};
