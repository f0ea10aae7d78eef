/*
 * nats_link.c: see nats_link.h.
 */
#include "connectors/nats/nats_link.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "connectors/health.h"
#include "connectors/nats/nats.h"

#define FLUSH_MS 2000 /* at the end: how long the server has to confirm what was sent */

enum command_type { SEND, LISTEN };

struct command {
    struct command *next;
    enum command_type type;
    enum nats_channel channel;
    uint64_t generation;
    natsMsg *message;
    char *group; /* behind subject; NULL: none */
    char subject[];
};

/* What a subscription's callbacks are given; gone when its thread of the library is. */
struct ear {
    struct nats_link *link;
    enum nats_channel channel;
};

struct nats_link {
    pthread_mutex_t lock;
    pthread_cond_t wake; /* of the thread */
    unsigned n_users;    /* the loop, the thread, subscriptions, callbacks to come */
    uv_async_t *async;   /* NULL: nobody wants to hear */
    struct command *commands, **last_command;
    struct nats_event *events, **last_event;
    bool stopped, is_closed;
    /* Of the thread alone: */
    natsOptions *options;
    char *inbox;
    natsConnection *nc;
    natsSubscription *subscriptions[NATS_CHANNELS];
    uint64_t generation;
    struct backoff backoff;
};

/* ---- both sides */

static void command_free(struct command *command)
{
    natsMsg_Destroy(command->message);
    free(command);
}

void nats_event_free(struct nats_event *event)
{
    natsMsg_Destroy(event->message);
    free(event);
}

static void clear_commands(struct nats_link *link)
{
    struct command *command;
    while ((command = link->commands)) {
        link->commands = command->next;
        command_free(command);
    }
    /* Its last one is gone, into which it pointed. */
    link->last_command = &link->commands;
}

static void link_free(struct nats_link *link)
{
    /* Nobody has the link any more, so no lock is taken. */
    struct nats_event *event;
    clear_commands(link);
    while ((event = link->events)) {
        link->events = event->next;
        nats_event_free(event);
    }
    natsOptions_Destroy(link->options);
    pthread_cond_destroy(&link->wake);
    pthread_mutex_destroy(&link->lock);
    free(link->inbox);
    free(link);
}

static void link_use(struct nats_link *link)
{
    pthread_mutex_lock(&link->lock);
    link->n_users++;
    pthread_mutex_unlock(&link->lock);
}

static void link_unuse(struct nats_link *link)
{
    pthread_mutex_lock(&link->lock);
    assert(link->n_users > 0);
    /* Read under the lock: whoever takes it to zero frees, and nobody else looks again. */
    unsigned n = --link->n_users;
    pthread_mutex_unlock(&link->lock);
    if (!n)
        link_free(link);
}

/* Takes message. False: without memory the event is lost, and what a message would have answered is
 * asked again when the time for it is over. */
static bool post(struct nats_link *link, enum nats_event_type type, enum nats_channel channel,
                 natsMsg *message, const char *text)
{
    size_t size = text ? strlen(text) + 1 : 1;
    struct nats_event *event = malloc(sizeof *event + size);
    if (!event) {
        natsMsg_Destroy(message);
        return false;
    }
    *event = (struct nats_event){.type = type, .channel = channel, .message = message};
    memcpy(event->text, text ? text : "", size);
    /* On the link's own thread, the only one that changes these. */
    if (type == NATS_UP) {
        event->generation = link->generation;
        event->max_payload = (size_t)natsConnection_GetMaxPayload(link->nc);
    }
    pthread_mutex_lock(&link->lock);
    *link->last_event = event;
    link->last_event = &event->next;
    /* Without async the loop has closed the link: the event is freed with it. */
    if (link->async)
        uv_async_send(link->async);
    pthread_mutex_unlock(&link->lock);
    return true;
}

/* ---- callbacks, on threads of the library */

static void on_message(natsConnection *nc, natsSubscription *sub, natsMsg *message, void *closure)
{
    struct ear *ear = closure;
    (void)nc, (void)sub;
    post(ear->link, NATS_MESSAGE, ear->channel, message, NULL);
}

static void on_complete(void *closure)
{
    struct ear *ear = closure;
    link_unuse(ear->link);
    free(ear);
}

static void on_closed(natsConnection *nc, void *closure)
{
    struct nats_link *link = closure;
    (void)nc;
    pthread_mutex_lock(&link->lock);
    link->is_closed = true;
    pthread_cond_signal(&link->wake);
    pthread_mutex_unlock(&link->lock);
    /* The use that connect_once took for this call. */
    link_unuse(link);
}

static void on_error(natsConnection *nc, natsSubscription *sub, natsStatus status, void *closure)
{
    const char *text = NULL;
    (void)sub;
    if (status != NATS_NOT_PERMITTED)
        return; /* a connection that is lost tells by being closed */
    natsConnection_GetLastError(nc, &text);
    post(closure, NATS_DENIED, NATS_REPLIES, NULL, text);
}

/* ---- the thread */

static natsStatus channel_open(struct nats_link *link, enum nats_channel channel,
                               const char *subject, const char *group)
{
    struct ear *ear = malloc(sizeof *ear);
    natsSubscription *sub = NULL;
    if (!ear)
        return NATS_NO_MEMORY;
    *ear = (struct ear){.link = link, .channel = channel};
    /* Until on_complete, which the library calls when no message of it can come any more. */
    link_use(link);
    natsStatus s =
        group ? natsConnection_QueueSubscribe(&sub, link->nc, subject, group, on_message, ear)
              : natsConnection_Subscribe(&sub, link->nc, subject, on_message, ear);
    if (!s)
        s = natsSubscription_SetOnCompleteCB(sub, on_complete, ear);
    if (s) {
        natsSubscription_Destroy(sub);
        if (!sub) /* else the connection is closed already, and may still call */
            on_complete(ear);
        return s;
    }
    /* No limit: the library would drop what is beyond it. Requests bound what can come. */
    natsSubscription_SetPendingLimits(sub, -1, -1);
    /* After the new one is there; the old one's on_complete still comes. */
    natsSubscription_Destroy(link->subscriptions[channel]);
    link->subscriptions[channel] = sub;
    return NATS_OK;
}

static void carry_out(struct nats_link *link, struct command *command)
{
    /* A refusal is not looked at: a right that is missing comes as an error, a
     * loss by on_closed. */
    if (command->generation == link->generation) {
        switch (command->type) {
        case SEND:
            natsConnection_PublishMsg(link->nc, command->message);
            break;
        case LISTEN:
            channel_open(link, command->channel, command->subject, command->group);
        }
    }
    command_free(command);
}

/* The next command; NULL: stopped or closed. What is queued is carried out before stopping. */
static struct command *await_command(struct nats_link *link)
{
    pthread_mutex_lock(&link->lock);
    while (!link->commands && !link->stopped && !link->is_closed)
        pthread_cond_wait(&link->wake, &link->lock);
    /* On a closed connection they are void; the loop repeats what it still wants. */
    struct command *command = link->is_closed ? NULL : link->commands;
    if (command) {
        link->commands = command->next;
        if (!link->commands)
            link->last_command = &link->commands;
    }
    pthread_mutex_unlock(&link->lock);
    return command;
}

static void end_connection(struct nats_link *link)
{
    for (size_t i = 0; i < NATS_CHANNELS; i++) {
        natsSubscription_Destroy(link->subscriptions[i]);
        link->subscriptions[i] = NULL;
    }
    natsConnection_Close(link->nc);
    pthread_mutex_lock(&link->lock);
    /* natsConnection_Close returns before its threads are done with the link. */
    while (!link->is_closed)
        pthread_cond_wait(&link->wake, &link->lock);
    pthread_mutex_unlock(&link->lock);
    natsConnection_Destroy(link->nc);
    link->nc = NULL;
}

static bool is_stopped(struct nats_link *link)
{
    pthread_mutex_lock(&link->lock);
    bool stopped = link->stopped;
    pthread_mutex_unlock(&link->lock);
    return stopped;
}

static void serve(struct nats_link *link)
{
    struct command *command;
    const char *said = NULL;
    char why[300];
    while ((command = await_command(link)))
        carry_out(link, command);
    /* Stopped by us: what was queued before is flushed. Otherwise the connection is gone. */
    bool stopped = is_stopped(link);
    if (stopped)
        natsConnection_FlushTimeout(link->nc, FLUSH_MS);
    /* Before the connection goes: `said` is its own. */
    natsStatus s = natsConnection_GetLastError(link->nc, &said);
    snprintf(why, sizeof why, "the connection is lost%s%.200s", said && *said ? ": " : "",
             said && *said ? said
             : s           ? natsStatus_GetText(s)
                           : "");
    end_connection(link);
    if (!stopped)
        post(link, NATS_DOWN, NATS_REPLIES, NULL, why);
}

/* False: it must not be tried again. */
static bool connect_once(struct nats_link *link)
{
    char why[400], subject[160];
    /* No lock: no connection of the library has this link yet, and the loop does not look at it. */
    link->is_closed = false;
    link_use(link); /* by on_closed */
    natsStatus s = natsConnection_Connect(&link->nc, link->options);
    if (s) {
        bool is_final = nats_connect_is_refusal(s);
        nats_connect_explain(s, why, sizeof why);
        /* A connection that never was is never closed: on_closed does not come for it. */
        link_unuse(link);
        post(link, is_final ? NATS_REFUSED : NATS_DOWN, NATS_REPLIES, NULL, why);
        return !is_final;
    }
    pthread_mutex_lock(&link->lock);
    clear_commands(link); /* they were for the connection before */
    pthread_mutex_unlock(&link->lock);
    /* Commands of an older generation are dropped by carry_out: they meant the connection
     * before. */
    link->generation++;
    link->backoff.attempts = 0;
    snprintf(subject, sizeof subject, "%s.r.*", link->inbox);
    if (channel_open(link, NATS_REPLIES, subject, NULL) != NATS_OK ||
        !post(link, NATS_UP, NATS_REPLIES, NULL, NULL))
        natsConnection_Close(link->nc); /* of which the loop would never hear: another one */
    return true;
}

/* Before connecting again; less when stopped. */
static void take_pause(struct nats_link *link)
{
    struct timespec until;
    uint64_t ms = backoff_next(&link->backoff);
    clock_gettime(CLOCK_REALTIME, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + ms * 1000000;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    pthread_mutex_lock(&link->lock);
    /* Woken by commands, too, which are for no connection and wait. */
    /* 0 is a signal, for a command or a stop; anything else is the end of the pause. */
    while (!link->stopped && pthread_cond_timedwait(&link->wake, &link->lock, &until) == 0)
        ;
    pthread_mutex_unlock(&link->lock);
}

static void *run(void *arg)
{
    struct nats_link *link = arg;
    while (!is_stopped(link) && connect_once(link)) {
        if (link->nc)
            serve(link);
        if (!is_stopped(link))
            take_pause(link);
    }
    /* Without memory for it the client's deadline ends the wait (on_ending). */
    post(link, NATS_ENDED, NATS_REPLIES, NULL, NULL);
    nats_ReleaseThreadMemory();
    link_unuse(link);
    return NULL;
}

/* ---- the loop's side */

static int start(struct nats_link *link)
{
    pthread_t thread;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return -EAGAIN;
    /* Nobody joins it: it may hang in a call, and link_unuse frees what it leaves. */
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int rc = pthread_create(&thread, &attributes, run, link);
    pthread_attr_destroy(&attributes);
    return rc ? -EAGAIN : 0;
}

int nats_link_open(struct nats_link **out, natsOptions *options, const char *inbox,
                   uv_async_t *async)
{
    struct nats_link *link = calloc(1, sizeof *link);
    if (!link) {
        natsOptions_Destroy(options);
        return -ENOMEM;
    }
    link->options = options;
    link->async = async;
    link->last_command = &link->commands;
    link->last_event = &link->events;
    link->backoff.random = uv_hrtime() | 1;
    pthread_mutex_init(&link->lock, NULL);
    pthread_cond_init(&link->wake, NULL);
    link->inbox = strdup(inbox);
    natsStatus s = link->inbox ? NATS_OK : NATS_NO_MEMORY;
    if (!s)
        s = natsOptions_SetClosedCB(options, on_closed, link);
    if (!s)
        s = natsOptions_SetErrorHandler(options, on_error, link);
    /* The thread and the loop; set before the thread, which counts its own down. */
    link->n_users = 2;
    int rc = s ? -ENOMEM : start(link);
    if (rc) {
        link_free(link);
        return rc;
    }
    *out = link;
    return 0;
}

/* Takes message. Without memory: as if it had been lost on the way. */
static void push(struct nats_link *link, const struct command *command, const char *subject,
                 const char *group)
{
    size_t n = subject ? strlen(subject) + 1 : 0, m = group ? strlen(group) + 1 : 0;
    struct command *copy = malloc(sizeof *copy + n + m);
    if (!copy) {
        natsMsg_Destroy(command->message);
        return;
    }
    *copy = *command;
    if (subject)
        memcpy(copy->subject, subject, n);
    if (group)
        copy->group = memcpy(copy->subject + n, group, m);
    pthread_mutex_lock(&link->lock);
    *link->last_command = copy;
    link->last_command = &copy->next;
    pthread_cond_signal(&link->wake);
    pthread_mutex_unlock(&link->lock);
}

void nats_link_send(struct nats_link *link, uint64_t generation, natsMsg *message)
{
    const struct command command = {.type = SEND, .generation = generation, .message = message};
    push(link, &command, NULL, NULL);
}

void nats_link_listen(struct nats_link *link, uint64_t generation, enum nats_channel channel,
                      const char *subject, const char *group)
{
    const struct command command = {.type = LISTEN, .generation = generation, .channel = channel};
    push(link, &command, subject, group);
}

struct nats_event *nats_link_take(struct nats_link *link)
{
    pthread_mutex_lock(&link->lock);
    struct nats_event *event = link->events;
    if (event)
        link->events = event->next;
    if (!link->events)
        link->last_event = &link->events;
    pthread_mutex_unlock(&link->lock);
    return event;
}

void nats_link_stop(struct nats_link *link)
{
    pthread_mutex_lock(&link->lock);
    link->stopped = true;
    pthread_cond_signal(&link->wake);
    pthread_mutex_unlock(&link->lock);
}

void nats_link_leave(struct nats_link *link)
{
    pthread_mutex_lock(&link->lock);
    link->stopped = true;
    /* Under the lock: a post that has seen it has used it by now. */
    link->async = NULL;
    pthread_cond_signal(&link->wake);
    pthread_mutex_unlock(&link->lock);
    link_unuse(link);
}
