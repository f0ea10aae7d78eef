/*
 * nats_ack.c: what is sent to the server about the messages that are with us.
 *
 * Owns:    acks, until each is confirmed; that a message is still being worked on; giving back.
 * Threads: the loop thread.
 * Why:     an ack that gets lost is a message delivered again, so each one is a question and is
 *          repeated until it is answered. Giving back is only said: what gets lost comes again all
 *          the same, later.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "connectors/nats/nats_source.h"

#define RETURN_MAX_S 60
#define ELECTION_MS  5000 /* acks that nobody takes for longer are reported */

static void forget(struct nats_source *source, struct nats_message *message)
{
    taken_remove(&source->done, &message->taken);
    nats_message_close(message);
}

/* Its servers elect a leader, it is gone, or acks do not get there at all. The next look at it
 * tells the second; an election is over soon, and not worth a word. */
static void on_refused(struct nats_source *source)
{
    uint64_t now = uv_now(source->end.loop);
    char why[500];
    source->consumer.is_known = false; /* until the next look */
    source->consumer.pause_ms = NATS_RETRY_MS;
    if (!source->refused_ms)
        source->refused_ms = now;
    if (now - source->refused_ms < ELECTION_MS)
        return;
    snprintf(why, sizeof why,
             "nobody takes acks for consumer %.60s of stream %.60s: it has no leader, or this "
             "account does not import $JS.ACK.%.60s.%.60s.>; they are sent again",
             source->config.consumer, source->config.stream, source->config.stream,
             source->config.consumer);
    health_wait(&source->end.health, PART_ACK, why);
}

static void on_acked(void *ctx, void *arg, natsMsg *answer)
{
    struct nats_source *source = ctx;
    struct nats_message *message = arg;
    /* From here on it may be asked again, or freed. */
    message->asked = false;
    if (message->is_void) {
        forget(source, message);
        return;
    }
    if (!answer)
        return; /* the next tick or connection asks again */
    if (nats_reply_status(answer, NULL) == 503) {
        on_refused(source);
        return;
    }
    source->refused_ms = 0;
    health_good(&source->end.health, PART_ACK);
    forget(source, message);
    endpoint_pump(&source->end);
}

static void make_void(const struct taken_list *list)
{
    for (struct taken *taken = list->first; taken; taken = taken->next)
        ((struct nats_message *)taken)->is_void = true;
}

void nats_ack_forget(struct nats_source *source)
{
    make_void(&source->intake.held);
    make_void(&source->intake.given);
    source->refused_ms = 0;
    for (struct taken *taken = source->done.first, *next; taken; taken = next) {
        struct nats_message *message = (struct nats_message *)taken;
        next = taken->next;
        message->is_void = true;
        /* Else the question points at it: on_acked frees it. */
        if (!message->asked)
            forget(source, message);
    }
}

void nats_ack_send(struct nats_source *source)
{
    /* Acks to a consumer that may be gone would be answered by nobody. */
    if (!source->consumer.is_known)
        return;
    for (struct taken *taken = source->done.first; taken; taken = taken->next) {
        struct nats_message *message = (struct nats_message *)taken;
        if (!message->asked && !message->is_void)
            message->asked =
                nats_client_ask_text(source->client, nats_message_reply(message),
                                     message->is_dead ? "+TERM" : "+ACK", on_acked, message);
    }
}

static void renew_list(struct nats_source *source, const struct taken_list *list, uint64_t before,
                       uint64_t now)
{
    for (struct taken *taken = list->first; taken; taken = taken->next) {
        struct nats_message *m = (struct nats_message *)taken;
        if (!m->is_void && m->renewed_ms <= before) {
            /* Not waited for: should it get lost, the next comes a third of ack_wait later. */
            m->renewed_ms = now;
            nats_client_send_text(source->client, nats_message_reply(m), NULL, "+WPI");
        }
    }
}

void nats_ack_renew(struct nats_source *source, uint64_t now, bool all)
{
    uint64_t third = source->consumer.ack_wait_ms / 3;
    uint64_t before = all ? now : now > third ? now - third : 0;
    /* 0: the consumer was never looked at, so nothing was taken from it. */
    if (!nats_client_is_up(source->client) || !third)
        return;
    renew_list(source, &source->intake.held, before, now);
    renew_list(source, &source->intake.given, before, now);
}

/* At once the first time, for the worker that stops is not at fault. One that comes back again and
 * again waits longer each time. */
void nats_ack_return(struct nats_source *source, struct nats_message *message)
{
    char text[64] = "-NAK";
    uint32_t times = message->taken.message.deliveries - 1;
    /* Counted by the server's deliveries: 2 s after the second, 60 s from the seventh on. */
    uint64_t seconds = times < 6 ? UINT64_C(1) << times : RETURN_MAX_S;
    if (message->is_void)
        return;
    if (times)
        snprintf(text, sizeof text, "-NAK {\"delay\":%" PRIu64 "}", seconds * 1000000000);
    nats_client_send_text(source->client, nats_message_reply(message), NULL, text);
}

void nats_ack_report_rest(struct nats_source *source)
{
    char why[200];
    if (!source->done.n)
        return;
    snprintf(why, sizeof why,
             "%zu messages of stream %.60s are done and the server did not confirm their acks in "
             "time: they will be delivered again",
             source->done.n, source->config.stream);
    endpoint_unflushed(&source->end, why);
}
