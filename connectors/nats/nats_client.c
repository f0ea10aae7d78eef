/*
 * nats_client.c: see nats_client.h.
 */
#include "connectors/nats/nats_client.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_MS 250
/* The library misses a server by its pings after 15 s, unless it hangs in a write to a socket that
 * is full: then it is left to itself. */
#define SILENCE_MS 20000

struct nats_client {
    uv_loop_t *loop;
    const struct nats_config *config; /* the owner's */
    const struct nats_client_events *events;
    void *ctx;
    char name[80], inbox[100];
    struct nats_link *link;
    struct nats_asks asks;
    uint64_t generation, n_inboxes, heard_ms;
    size_t max_payload;
    bool is_up, closing, is_stopped;
    bool is_deaf; /* this user may not subscribe to the answers: tried again from time to time */
    uint64_t listened_ms;
    uv_async_t async;
    uv_timer_t tick, ending;
    size_t n_open; /* handles */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* ---- asking */

bool nats_client_is_up(const struct nats_client *client)
{
    return client->is_up;
}

size_t nats_client_max_payload(const struct nats_client *client)
{
    return client->max_payload;
}

void nats_client_reply(const struct nats_client *client, char reply[NATS_REPLY_SIZE])
{
    snprintf(reply, NATS_REPLY_SIZE, "%s.r.%" PRIu64, client->inbox, client->asks.next);
}

bool nats_client_ask(struct nats_client *client, natsMsg *message, nats_answer_cb cb, void *arg)
{
    uint64_t now = uv_now(client->loop);
    if (!client->is_up || nats_asks_add(&client->asks, cb, arg, now) != 0) {
        natsMsg_Destroy(message);
        return false;
    }
    if (client->asks.n_open == 1) /* silence counts from the first question on */
        client->heard_ms = now;
    /* Its message has the reply of the number that was taken just now (nats_client_reply). */
    nats_link_send(client->link, client->generation, message);
    return true;
}

bool nats_client_ask_text(struct nats_client *client, const char *subject, const char *text,
                          nats_answer_cb cb, void *arg)
{
    char reply[NATS_REPLY_SIZE];
    natsMsg *message = NULL;
    nats_client_reply(client, reply);
    if (natsMsg_Create(&message, subject, reply, text, (int)strlen(text)) != NATS_OK)
        return false;
    return nats_client_ask(client, message, cb, arg);
}

void nats_client_send_text(struct nats_client *client, const char *subject, const char *reply,
                           const char *text)
{
    natsMsg *message = NULL;
    /* Down, there may be no link at all: it was refused, or hung and was left. */
    if (!client->is_up)
        return;
    if (natsMsg_Create(&message, subject, reply, text, (int)strlen(text)) == NATS_OK)
        nats_link_send(client->link, client->generation, message);
}

void nats_client_inbox(struct nats_client *client, char subject[NATS_REPLY_SIZE])
{
    snprintf(subject, NATS_REPLY_SIZE, "%s.p.%" PRIu64, client->inbox, ++client->n_inboxes);
}

void nats_client_listen(struct nats_client *client, enum nats_channel channel, const char *subject,
                        const char *group)
{
    nats_link_listen(client->link, client->generation, channel, subject, group);
}

/* ---- what comes */

/* Nothing that was asked until now is answered. What callbacks ask meanwhile is not sent. */
static void give_up_asks(struct nats_client *client)
{
    struct nats_ask ask;
    while (nats_asks_take_late(&client->asks, UINT64_MAX, &ask))
        ask.cb(client->ctx, ask.arg, NULL);
}

static void go_down(struct nats_client *client, const char *why)
{
    client->is_up = false;
    give_up_asks(client);
    if (!client->closing)
        client->events->on_down(client->ctx, why);
}

static void on_reply(struct nats_client *client, natsMsg *message)
{
    uint64_t number;
    struct nats_ask ask;
    /* An answer that comes after its question was given up finds nothing, and is left. */
    if (nats_asks_parse(natsMsg_GetSubject(message), &number) &&
        nats_asks_take(&client->asks, number, &ask))
        ask.cb(client->ctx, ask.arg, message);
}

static void finish(struct nats_client *client);

static void on_event(struct nats_client *client, struct nats_event *event)
{
    natsMsg *message = event->message;
    switch (event->type) {
    case NATS_UP:
        /* Callbacks must not ask now: their questions would carry the generation that is over. */
        client->is_up = false;
        give_up_asks(client);
        /* Commands of before are void from here on: the thread drops them. */
        client->generation = event->generation;
        client->max_payload = event->max_payload;
        client->is_up = true;
        client->is_deaf = false;
        client->listened_ms = uv_now(client->loop);
        client->events->on_up(client->ctx);
        return;
    case NATS_DOWN:
        go_down(client, event->text);
        return;
    case NATS_REFUSED:
        client->is_up = false;
        give_up_asks(client);
        client->events->on_failed(client->ctx, -EACCES, event->text);
        return;
    case NATS_DENIED:
        client->is_deaf |=
            strstr(event->text, "Subscription") && strstr(event->text, client->inbox);
        client->events->on_denied(client->ctx, event->text);
        return;
    case NATS_MESSAGE:
        if (event->channel == NATS_REPLIES) {
            on_reply(client, message);
            return;
        }
        event->message = NULL;
        client->events->on_message(client->ctx, event->channel, message);
        return;
    case NATS_ENDED:
        return;
    }
}

static void on_wake(uv_async_t *async)
{
    struct nats_client *client = async->data;
    struct nats_event *event;
    client->heard_ms = uv_now(client->loop);
    while (client->link && (event = nats_link_take(client->link))) {
        bool is_end = event->type == NATS_ENDED;
        if (!client->closing)
            on_event(client, event);
        nats_event_free(event);
        if (!is_end)
            continue;
        /* The thread has said its last; it is refused, or stopped by us. */
        nats_link_leave(client->link);
        client->link = NULL;
        if (client->closing)
            finish(client);
        return;
    }
}

/* ---- time */

static int link_open(struct nats_client *client, char *err, size_t err_size)
{
    natsOptions *options;
    int rc = nats_connect_options(&options, client->config, client->name, err, err_size);
    if (rc)
        return rc;
    rc = nats_link_open(&client->link, options, client->inbox, &client->async);
    if (rc)
        snprintf(err, err_size, rc == -ENOMEM ? "out of memory" : "a thread cannot be made");
    return rc;
}

static void listen_again(struct nats_client *client, uint64_t now)
{
    char subject[NATS_REPLY_SIZE];
    if (!client->is_up || !client->is_deaf ||
        now - client->listened_ms < client->config->timeout_ms)
        return;
    client->is_deaf = false;
    client->listened_ms = now;
    snprintf(subject, sizeof subject, "%s.r.*", client->inbox);
    nats_client_listen(client, NATS_REPLIES, subject, NULL);
}

static void on_tick(uv_timer_t *timer)
{
    struct nats_client *client = timer->data;
    uint64_t now = uv_now(client->loop), wait = client->config->timeout_ms;
    char err[300];
    struct nats_ask ask;
    if (client->is_up && client->asks.n_open && now - client->heard_ms > wait + SILENCE_MS) {
        /* Its thread hangs in a call with the library's lock: a stop would not be heard. */
        nats_link_leave(client->link);
        client->link = NULL;
        go_down(client, "the server does not answer and takes nothing; reconnecting");
        if (!client->closing && link_open(client, err, sizeof err) != 0) {
            client->events->on_failed(client->ctx, -EAGAIN, err);
            /* Without a link nothing is asked and nothing comes: there is nothing to watch. */
            uv_timer_stop(&client->tick);
        }
        return;
    }
    listen_again(client, now);
    /* Questions are in the order of asking, so the first that is not late ends it. */
    while (!client->closing && now > wait && nats_asks_take_late(&client->asks, now - wait, &ask))
        ask.cb(client->ctx, ask.arg, NULL);
}

/* ---- opening and closing */

static void handle_open(struct nats_client *client, uv_handle_t *handle)
{
    handle->data = client;
    client->n_open++;
}

static void client_freed(uv_handle_t *handle)
{
    struct nats_client *client = handle->data;
    void (*closed)(void *) = client->closed;
    void *ctx = client->closed_ctx;
    assert(client->n_open > 0);
    /* uv_close calls back once for each of the three. */
    if (--client->n_open)
        return;
    nats_asks_close(&client->asks);
    free(client);
    if (closed)
        closed(ctx);
}

static void finish(struct nats_client *client)
{
    /* By the deadline and by NATS_ENDED, whichever comes first. */
    if (client->is_stopped)
        return;
    client->is_stopped = true;
    if (client->link)
        nats_link_leave(client->link);
    client->link = NULL;
    uv_close((uv_handle_t *)&client->async, client_freed);
    uv_close((uv_handle_t *)&client->tick, client_freed);
    uv_close((uv_handle_t *)&client->ending, client_freed);
}

static void on_ending(uv_timer_t *timer)
{
    finish(timer->data);
}

int nats_client_open(struct nats_client **out, uv_loop_t *loop, const struct nats_config *config,
                     const char *name, const struct nats_client_events *events, void *ctx,
                     char *err, size_t err_size)
{
    struct nats_client *client = calloc(1, sizeof *client);
    unsigned char random[10];
    if (!client) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    client->loop = loop;
    client->config = config;
    client->events = events;
    client->ctx = ctx;
    client->heard_ms = uv_now(loop);
    snprintf(client->name, sizeof client->name, "%s", name);
    uv_random(NULL, NULL, random, sizeof random, 0, NULL);
    /* 60 bytes of prefix, a dot and 20 digits: at most 81 of 100, and replies add 23 at most. */
    size_t len = (size_t)snprintf(client->inbox, sizeof client->inbox, "%.60s.", config->inbox);
    for (size_t i = 0; i < sizeof random; i++)
        len += (size_t)snprintf(client->inbox + len, sizeof client->inbox - len, "%02x", random[i]);
    uv_async_init(loop, &client->async, on_wake);
    uv_timer_init(loop, &client->tick);
    uv_timer_init(loop, &client->ending);
    handle_open(client, (uv_handle_t *)&client->async);
    handle_open(client, (uv_handle_t *)&client->tick);
    handle_open(client, (uv_handle_t *)&client->ending);
    int rc = link_open(client, err, err_size);
    if (rc) {
        finish(client); /* freed by the loop */
        return rc;
    }
    uv_timer_start(&client->tick, on_tick, TICK_MS, TICK_MS);
    *out = client;
    return 0;
}

void nats_client_close(struct nats_client *client, uint64_t deadline_ms, void (*closed)(void *ctx),
                       void *ctx)
{
    client->closing = true;
    client->is_up = false;
    client->closed = closed;
    client->closed_ctx = ctx;
    /* 0 without a link: nothing is to be waited for, and closed still comes from the loop. */
    uv_timer_start(&client->ending, on_ending, client->link ? deadline_ms : 0, 0);
    if (client->link)
        nats_link_stop(client->link);
}
