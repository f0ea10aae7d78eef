/*
 * fake_connector.c: see fake_connector.h.
 */
#include "tests/support/fake_internal.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct fake_source {
    struct source base;
    struct fake *fake;
    uv_timer_t timer;
    bool closing, ended, failed;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

struct fake *fake_current;

void fake_use(struct fake *fake)
{
    fake_current = fake;
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

void fake_check(bool holds, const char *format, ...)
{
    if (holds)
        return;
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fail_msg("seed %llu: %s", (unsigned long long)fake_current->script.seed, text);
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

void fake_copies_free(struct fake_message *message)
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
        fake_copies_free(&fake->messages[i]);
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

struct fake_message *fake_ledger(struct fake *fake, const struct message *message)
{
    for (size_t i = 0; i < fake->n; i++)
        if (fake->messages[i].given == message)
            return &fake->messages[i];
    fake_check(false, "a message that is not given out was handed back or published");
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
    const char *name = ledger_entry->header_name ? ledger_entry->header_name : "content-type";
    block->headers[1] = (struct header){bytes_of(name), bytes_of(header)};
    message->headers = block->headers;
    message->n_headers = 2;
    message->source = &source->base;
    message->timestamp_ms = 1700000000000 + (int64_t)index;
    message->deliveries = ledger_entry->deliveries + 1;
    return message;
}

void fake_message_settle(struct fake *fake, struct fake_message *message, enum fake_state state)
{
    fake_check(message->state == FAKE_GIVEN, "a message was taken twice");
    message->state = state;
    fake->n_unfinished--;
    if (state == FAKE_ACKED)
        fake->n_acked++;
    else
        fake->n_released++;
}

static void message_end(struct fake *fake, struct fake_message *message, enum fake_state state)
{
    fake_message_settle(fake, message, state);
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
            fake_check(source->failed, "message %zu is confirmed and was not acked", i);
            message->n_unackable++;
        }
        message_end(fake, message, FAKE_RELEASED);
    }
    if (fake->script.unflushed)
        source->base.events->on_failed(source->base.ctx, UV_ETIMEDOUT, "the fake broker is away");
    uv_close((uv_handle_t *)&source->timer, source_closed);
}

static void source_turn(uv_timer_t *timer);

void fake_turn_later(struct fake *fake, uv_timer_t *timer, uv_timer_cb turn)
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
        fake_turn_later(fake, &source->timer, source_turn);
}

static int source_open(struct source **out, uv_loop_t *loop, const struct settings *settings,
                       const struct source_events *events, void *ctx, char *err, size_t err_size)
{
    (void)settings;
    struct fake *fake = fake_current;
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
    fake_turn_later(fake, &source->timer, source_turn);
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
    fake_check(!source->closing && !source->failed, "request after close or failure");
    size_t max = fake->script.max_unfinished;
    fake_check(!max || n == 0 || fake->n_unfinished + n <= max,
               "request(%zu) with %zu unfinished, and there is room for %zu", n, fake->n_unfinished,
               max);
    fake_check((n == 0) == (n_bytes == 0), "request(%zu, %zu)", n, n_bytes);
    fake->credit = n;
    fake->credit_bytes = n_bytes;
    fake->n_requests++;
}

static void source_ack(struct source *base, struct message *message)
{
    struct fake_source *source = (struct fake_source *)base;
    struct fake_message *entry = fake_ledger(source->fake, message);
    fake_check(!source->closing && !source->failed, "ack after close or failure");
    fake_check(entry->confirmed, "%s acked and its output is not confirmed", entry->value);
    message_end(source->fake, entry, FAKE_ACKED);
}

static void source_release(struct source *base, struct message *message)
{
    struct fake_source *source = (struct fake_source *)base;
    fake_check(!source->closing && !source->failed, "release after close or failure");
    message_end(source->fake, fake_ledger(source->fake, message), FAKE_RELEASED);
}

static void source_close(struct source *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                         void *ctx)
{
    struct fake_source *source = (struct fake_source *)base;
    fake_check(!source->closing, "source closed twice");
    fake_check(!source->fake->sink_open, "source closed before the sink");
    source->closing = true;
    source->closed = closed;
    source->closed_ctx = ctx;
    source->fake->source_close_ms = deadline_ms;
    source->fake->credit = 0;
    fake_turn_later(source->fake, &source->timer, source_turn);
}

const struct source_ops fake_source_ops = {
    .open = source_open,
    .request = source_request,
    .ack = source_ack,
    .release = source_release,
    .close = source_close,
};
