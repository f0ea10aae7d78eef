/*
 * rabbitmq_link.c: see rabbitmq_link.h.
 *
 * Owns:    a link (lives as long as its owner) and its connections, one at a time.
 * Refuses: the greeting: rabbitmq_greeting.c; messages in pieces: rabbitmq_content.c.
 * Threads: the loop thread.
 */
#include "connectors/rabbitmq/rabbitmq_link_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POOL_PAGE       4096
#define GRACE_MS        200 /* after a stall of our own, what has arrived is read first */
#define CLOSE_MS        1000
#define SETTLE_MS       1000 /* a connection that lasts so long is a good one */
#define PROVEN_ATTEMPTS 3    /* backoff after one that worked and did not last: below 1 s */

/* ---- the end of things */

static void link_unref(struct rabbitmq_link *link)
{
    assert(link->n_open > 0);
    /* The timer, and each connection that tcp has not closed yet: their callbacks read the link. */
    if (--link->n_open)
        return;
    void (*closed)(void *) = link->closed;
    void *ctx = link->closed_ctx;
    empty_amqp_pool(&link->pool);
    buffer_close(&link->in);
    free(link->version);
    free(link->capabilities);
    free(link);
    if (closed)
        closed(ctx);
}

static void on_tcp_closed(void *ctx)
{
    link_unref(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
    link_unref(handle->data);
}

static void detach(struct rabbitmq_link *link)
{
    if (!link->tcp)
        return;
    tcp_close(link->tcp, on_tcp_closed, link);
    /* Half a frame, half a message: neither means anything on the next connection. */
    link->tcp = NULL;
    link->in.len = 0;
    for (size_t i = 0; i <= RABBITMQ_CHANNELS; i++)
        rabbitmq_assembly_clear(&link->assemblies[i]);
}

/* Of a closing one: nothing more is sent. */
static void link_end(struct rabbitmq_link *link)
{
    link->phase = PHASE_CLOSED;
    detach(link);
    uv_close((uv_handle_t *)&link->timer, on_timer_closed);
}

static void attempt_start(uv_timer_t *timer);

static void link_lost(struct rabbitmq_link *link, const char *why)
{
    char text[HEALTH_WHY_SIZE];
    if (link->phase >= PHASE_FAILED) {
        /* The server hung up in place of its goodbye: what we were waiting for does not come. */
        if (link->phase == PHASE_CLOSING)
            link_end(link);
        return;
    }
    snprintf(text, sizeof text, "rabbitmq %s: %.400s" RABBITMQ_LINK_RETRIES,
             rabbitmq_link_where(link), why);
    /* One that lasted starts over with short pauses; one that is refused at once waits longer
     * each time, even when the greeting succeeds. */
    if (link->phase == PHASE_READY && uv_now(link->loop) - link->ready_ms >= SETTLE_MS)
        link->backoff.attempts = 0;
    else if (link->proven && link->backoff.attempts > PROVEN_ATTEMPTS)
        link->backoff.attempts = PROVEN_ATTEMPTS;
    link->proven = false;
    link->phase = PHASE_WAIT;
    /* Another node may be up. */
    link->url_at = (link->url_at + 1) % link->urls->n;
    detach(link);
    /* All nodes are tried once before there is a pause that grows. */
    uint64_t pause = link->url_at ? BACKOFF_FIRST_MS / 2 : backoff_next(&link->backoff);
    uv_timer_start(&link->timer, attempt_start, pause, 0);
    /* Last: the owner may close the link in it. */
    link->events->on_lost(link->ctx, text);
}

static void link_fail(struct rabbitmq_link *link, int err, const char *why)
{
    char text[HEALTH_WHY_SIZE];
    if (link->phase >= PHASE_FAILED) {
        if (link->phase == PHASE_CLOSING)
            link_end(link);
        return;
    }
    snprintf(text, sizeof text, "rabbitmq %s: %.500s", rabbitmq_link_where(link), why);
    link->phase = PHASE_FAILED;
    /* No attempt follows: whatever is refused so needs another configuration. */
    uv_timer_stop(&link->timer);
    detach(link);
    link->events->on_failed(link->ctx, err, text);
}

/* ---- heartbeats */

/* Timers run before sockets: if it was us who slept, what the server sent may be waiting. */
static void on_tick(uv_timer_t *timer)
{
    struct rabbitmq_link *link = timer->data;
    /* Two intervals, as the specification has it; we send at least twice in one. */
    uint64_t now = uv_now(link->loop), limit = 2 * link->heartbeat_ms;
    if (now - link->written_ms >= link->heartbeat_ms / 2) {
        rabbitmq_put_heartbeat(tcp_output(link->tcp));
        link->written_ms = now;
        tcp_flush(link->tcp);
    }
    if (link->is_paused)
        /* Reading is paused by us, so silence says nothing about the server. */
        link->heard_ms = now;
    if (now - link->heard_ms < limit) {
        link->is_warned = false;
    } else if (!link->is_warned) {
        link->is_warned = true;
        uv_timer_start(timer, on_tick, GRACE_MS, link->heartbeat_ms / 2);
    } else {
        char why[96];
        snprintf(why, sizeof why, "no heartbeat for %llu s",
                 (unsigned long long)((now - link->heard_ms) / 1000));
        link_lost(link, why);
    }
}

static void link_serve(struct rabbitmq_link *link)
{
    link->phase = PHASE_READY;
    link->ready_ms = link->heard_ms = link->written_ms = uv_now(link->loop);
    link->is_warned = link->is_paused = false;
    uv_timer_start(&link->timer, on_tick, link->heartbeat_ms / 2, link->heartbeat_ms / 2);
    link->events->on_ready(link->ctx);
}

/* ---- frames in */

static void on_connection_method(struct rabbitmq_link *link, uint32_t id, const void *decoded)
{
    const struct rabbitmq_ending ending = rabbitmq_greeting_method(link, id, decoded);
    switch (ending.in) {
    case ENDS_NOT:
        break;
    case ENDS_READY:
        link_serve(link);
        break;
    case ENDS_LOST:
        link_lost(link, ending.why);
        break;
    case ENDS_REFUSED:
        link_fail(link, ending.err, ending.why);
        break;
    case ENDS_CLOSED:
        link_end(link);
    }
}

static void on_channel_method(struct rabbitmq_link *link, uint16_t channel, uint32_t id,
                              const void *decoded)
{
    static const amqp_channel_close_ok_t ok = {0};
    if (id == AMQP_CHANNEL_CLOSE_METHOD && link->phase == PHASE_READY) {
        rabbitmq_assembly_clear(&link->assemblies[channel]);
        /* The server waits for this before the channel may be opened again. */
        rabbitmq_link_method(link, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok);
    }
    if (link->phase == PHASE_READY)
        link->events->on_method(link->ctx, channel, id, decoded);
}

static void take_method(struct rabbitmq_link *link, const struct rabbitmq_frame *frame)
{
    uint32_t id = rabbitmq_frame_method(frame->payload);
    amqp_bytes_t encoded = {frame->payload.len - 4, (void *)(frame->payload.ptr + 4)};
    void *decoded = NULL;
    char why[96];
    /* The library checks every length against the frame, and allocates in the pool. */
    if (!id || amqp_decode_method(id, &link->pool, encoded, &decoded) != AMQP_STATUS_OK) {
        snprintf(why, sizeof why, "it sent a method 0x%08x that is not AMQP 0-9-1", (unsigned)id);
        link_lost(link, why);
        return;
    }
    if (frame->channel == 0)
        on_connection_method(link, id, decoded);
    else if (rabbitmq_assembly_begins(id))
        rabbitmq_assembly_start(&link->assemblies[frame->channel], id, decoded);
    else
        on_channel_method(link, frame->channel, id, decoded);
}

/* False: the connection is gone. */
static bool take_frame(struct rabbitmq_link *link, const struct rabbitmq_frame *frame)
{
    const struct tcp *tcp = link->tcp;
    const char *why = NULL;
    int rc = 0;
    /* Any bytes count as a sign of life (on_bytes), so there is nothing to note here. */
    if (frame->type == AMQP_FRAME_HEARTBEAT)
        return true;
    if (frame->channel > RABBITMQ_CHANNELS) {
        link_lost(link, "a frame of a channel that was not opened");
        return false;
    }
    struct rabbitmq_assembly *assembly = &link->assemblies[frame->channel];
    if (frame->type == AMQP_FRAME_METHOD)
        take_method(link, frame);
    else
        rc = rabbitmq_assembly_add(assembly, frame, &why);
    if (rc < 0)
        link_lost(link, why);
    if (rc == 1) {
        struct rabbitmq_content content = assembly->content;
        /* Before the event: what it does may begin the next message of this channel. */
        *assembly = (struct rabbitmq_assembly){0};
        if (link->phase == PHASE_READY)
            link->events->on_content(link->ctx, frame->channel, &content);
        free(content.properties);
        free(content.body);
    }
    recycle_amqp_pool(&link->pool);
    /* An event may have closed the link, or opened another: then the rest of these bytes is
     * void. */
    return link->tcp == tcp && tcp;
}

/* Whole frames of bytes; *used: how many of them are done with. False: the connection is gone. */
static bool take_frames(struct rabbitmq_link *link, struct bytes bytes, size_t *used)
{
    struct rabbitmq_frame frame;
    const char *why;
    size_t n;
    *used = 0;
    for (;;) {
        struct bytes rest = {bytes.ptr + *used, bytes.len - *used};
        int rc = rabbitmq_frame_read(rest, link->frame_max, &frame, &n, &why);
        if (rc < 0)
            link_lost(link, why);
        if (rc <= 0)
            return rc == 0;
        *used += n;
        if (!take_frame(link, &frame))
            return false;
    }
}

static void on_bytes(void *ctx, const char *bytes, size_t len)
{
    struct rabbitmq_link *link = ctx;
    const struct tcp *tcp = link->tcp;
    size_t used;
    link->heard_ms = uv_now(link->loop);
    link->is_warned = false;
    /* Whole frames are read where they lie; only the end of one that is not complete is kept. */
    if (link->in.len == 0) {
        if (!take_frames(link, (struct bytes){bytes, len}, &used))
            return;
        bytes += used;
        len -= used;
    }
    if (len && buffer_put(&link->in, bytes, len)) {
        link_lost(link, "no memory for what it sends");
        return;
    }
    if (link->in.len && len) {
        /* They are read where they lie: no event appends to `in`, and a loss only sets its length
         * to 0. */
        if (!take_frames(link, (struct bytes){link->in.ptr, link->in.len}, &used))
            return;
        assert(used <= link->in.len);
        link->in.len -= used;
        memmove(link->in.ptr, link->in.ptr + used, link->in.len);
    }
    if (link->tcp == tcp)
        rabbitmq_link_flush(link);
}

/* ---- connecting */

static void on_open(void *ctx)
{
    struct rabbitmq_link *link = ctx;
    link->phase = PHASE_GREETING;
    buffer_put(tcp_output(link->tcp), "AMQP\0\0\x09\x01", 8);
    tcp_flush(link->tcp);
}

static void on_ended(void *ctx, const char *why)
{
    struct rabbitmq_link *link = ctx;
    char text[400];
    const char *advice = "";
    /* A port of TLS hangs up on our greeting, which is not TLS. */
    if (link->phase == PHASE_GREETING && !tcp_has_heard(link->tcp))
        advice = " without a word (does this port speak TLS, amqps://?)";
    snprintf(text, sizeof text, "%s%s", why, advice);
    link_lost(link, text);
}

static void on_greeting_late(uv_timer_t *timer)
{
    link_lost(timer->data, "no answer to the greeting");
}

static void attempt_start(uv_timer_t *timer)
{
    static const struct tcp_events events = {on_open, on_bytes, on_ended};
    struct rabbitmq_link *link = timer->data;
    const struct rabbitmq_url *url = rabbitmq_link_url(link);
    struct tcp_options options = {url->host, url->port, url->tls ? link->tls : NULL,
                                  link->timeout_ms};
    /* Until the two have agreed on one (connection.tune). */
    link->frame_max = RABBITMQ_FRAME_MAX;
    /* What ended the connection before says nothing about this one. */
    link->close_code = 0;
    rabbitmq_url_print(url, link->where, sizeof link->where);
    if (tcp_open(&link->tcp, link->loop, &options, &events, link) != 0) {
        link_lost(link, "no memory");
        return;
    }
    link->n_open++;
    link->phase = PHASE_CONNECT;
    /* tcp has limits of its own, for each address. */
    uv_timer_start(&link->timer, on_greeting_late, 3 * link->timeout_ms, 0);
}

/* ---- the owner's side */

int rabbitmq_link_open(struct rabbitmq_link **out, uv_loop_t *loop,
                       const struct rabbitmq_link_options *options,
                       const struct rabbitmq_link_events *events, void *ctx)
{
    struct rabbitmq_link *link = calloc(1, sizeof *link);
    if (!link)
        return -ENOMEM;
    assert(options->urls->n > 0);
    link->loop = loop;
    link->urls = options->urls;
    link->tls = options->tls;
    link->events = events;
    link->ctx = ctx;
    link->timeout_ms = options->timeout_ms;
    link->has_certificate = options->has_certificate;
    snprintf(link->name, sizeof link->name, "%s", options->name);
    rabbitmq_url_print(&link->urls->items[0], link->where, sizeof link->where);
    init_amqp_pool(&link->pool, POOL_PAGE);
    uv_timer_init(loop, &link->timer);
    link->timer.data = link;
    link->n_open = 1;
    uv_timer_start(&link->timer, attempt_start, 0, 0);
    *out = link;
    return 0;
}

bool rabbitmq_link_ready(const struct rabbitmq_link *link)
{
    return link && link->phase == PHASE_READY;
}

const char *rabbitmq_link_where(const struct rabbitmq_link *link)
{
    return link->where;
}

const struct rabbitmq_url *rabbitmq_link_url(const struct rabbitmq_link *link)
{
    return &link->urls->items[link->url_at];
}

const char *rabbitmq_link_version(const struct rabbitmq_link *link)
{
    return link->version ? link->version : "";
}

bool rabbitmq_link_has(const struct rabbitmq_link *link, const char *capability)
{
    char word[64];
    /* The list has a space on both sides of each word. */
    snprintf(word, sizeof word, " %.60s ", capability);
    return link->capabilities && strstr(link->capabilities, word);
}

bool rabbitmq_link_was_faulted(const struct rabbitmq_link *link)
{
    /* 320 is an operator's or a shutdown's; from 500 on it blames what it was sent, or itself. */
    return link->close_code >= 500;
}

size_t rabbitmq_link_backlog(const struct rabbitmq_link *link)
{
    return link->tcp ? tcp_backlog(link->tcp) : 0;
}

int rabbitmq_link_method(struct rabbitmq_link *link, uint16_t channel, uint32_t id,
                         const void *method)
{
    if (!link->tcp || link->phase < PHASE_GREETING)
        return -ENOTCONN;
    /* Whatever is sent stands for a heartbeat. */
    link->written_ms = uv_now(link->loop);
    return rabbitmq_put_method(tcp_output(link->tcp), channel, id, method);
}

int rabbitmq_link_publish(struct rabbitmq_link *link, uint16_t channel,
                          const amqp_basic_publish_t *publish,
                          const amqp_basic_properties_t *properties, struct bytes body)
{
    struct buffer *out;
    if (link->phase != PHASE_READY)
        return -ENOTCONN;
    out = tcp_output(link->tcp);
    size_t before = out->len;
    int rc = rabbitmq_link_method(link, channel, AMQP_BASIC_PUBLISH_METHOD, publish);
    if (rc == 0)
        rc = rabbitmq_put_content(out, channel, properties, body, link->frame_max);
    if (rc)
        /* Half a message would end the connection; without it the record is tried again later. */
        out->len = before;
    return rc;
}

void rabbitmq_link_flush(struct rabbitmq_link *link)
{
    if (link->tcp && link->phase != PHASE_CONNECT)
        tcp_flush(link->tcp);
}

void rabbitmq_link_pause(struct rabbitmq_link *link, bool is_paused)
{
    if (link->phase != PHASE_READY || link->is_paused == is_paused)
        return;
    link->is_paused = is_paused;
    /* While we did not read, nothing could be heard: the silence begins here. */
    link->heard_ms = uv_now(link->loop);
    tcp_pause(link->tcp, is_paused);
}

void rabbitmq_link_good(struct rabbitmq_link *link)
{
    link->proven = true;
}

void rabbitmq_link_drop(struct rabbitmq_link *link, const char *why)
{
    if (link->phase > PHASE_WAIT && link->phase < PHASE_FAILED)
        link_lost(link, why);
}

static void on_close_late(uv_timer_t *timer)
{
    link_end(timer->data);
}

void rabbitmq_link_close(struct rabbitmq_link *link, void (*closed)(void *ctx), void *ctx)
{
    amqp_connection_close_t bye = {.reply_code = 200, .reply_text = rabbitmq_text("done")};
    bool was_ready = link->phase == PHASE_READY;
    assert(link->phase != PHASE_CLOSING && link->phase != PHASE_CLOSED);
    /* Else the server's goodbye would never be read. */
    rabbitmq_link_pause(link, false);
    link->phase = PHASE_CLOSING;
    link->closed = closed;
    link->closed_ctx = ctx;
    uv_timer_stop(&link->timer);
    if (!was_ready ||
        rabbitmq_put_method(tcp_output(link->tcp), 0, AMQP_CONNECTION_CLOSE_METHOD, &bye) != 0) {
        link_end(link);
        return;
    }
    tcp_flush(link->tcp);
    /* A server that does not answer is not waited for longer than that. */
    uv_timer_start(&link->timer, on_close_late, CLOSE_MS, 0);
}
