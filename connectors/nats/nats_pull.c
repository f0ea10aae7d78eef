/*
 * nats_pull.c: asking the consumer for messages.
 *
 * Owns:    the request under way and what ends it; what comes.
 * Threads: the loop thread.
 * Why:     one request at a time, for what the credit allows, so that the rest stays with the
 *          server for workers that are idle. A request cannot be taken back: of a server that is
 *          told that nobody listens any more, messages get lost that it has sent already (2.15;
 *          they come again after ack_wait). So each is for a second at most, and what comes for one
 *          that is not wanted any more is held.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/nats/nats_source.h"

#define BATCH_MAX  512
#define EXPIRES_MS 1000
#define REFUSED_MS 1000 /* until a refused request is made again */

static void ended(struct nats_source *source)
{
    source->pull.n = 0;
    source->pull.is_open = false;
}

/* ---- asking */

static uint64_t at_most(uint64_t n, int64_t limit)
{
    return limit > 0 && n > (uint64_t)limit ? (uint64_t)limit : n;
}

static void open_channel(struct nats_source *source)
{
    struct nats_pull *pull = &source->pull;
    char subject[NATS_REPLY_SIZE + 4];
    /* A new subject each time: what was sent to the old one is nobody's any more. */
    nats_client_inbox(source->client, pull->inbox);
    snprintf(subject, sizeof subject, "%s.*", pull->inbox);
    nats_client_listen(source->client, NATS_PULL, subject, NULL);
    pull->listens = true;
}

static void send_request(struct nats_source *source, size_t n_wanted)
{
    const struct nats_consumer *consumer = &source->consumer;
    const struct nats_config *config = &source->config;
    struct nats_pull *pull = &source->pull;
    char subject[400], reply[NATS_REPLY_SIZE + 24], text[160];
    uint64_t expires_ms = at_most(EXPIRES_MS, consumer->max_expires_ms);
    uint64_t bytes = at_most(source->intake.credit.n_bytes, consumer->max_bytes);
    if (!pull->listens)
        open_channel(source);
    pull->n = pull->is_single
                  ? 1
                  : at_most(n_wanted < BATCH_MAX ? n_wanted : BATCH_MAX, consumer->max_batch);
    int len = snprintf(text, sizeof text, "{\"batch\":%zu,\"expires\":%" PRIu64, pull->n,
                       expires_ms * 1000000);
    if (!pull->is_single)
        len += snprintf(text + len, sizeof text - (size_t)len, ",\"max_bytes\":%" PRIu64, bytes);
    snprintf(text + len, sizeof text - (size_t)len, "}");
    snprintf(subject, sizeof subject, "%.150s.CONSUMER.MSG.NEXT.%.100s.%.100s", config->api,
             config->stream, config->consumer);
    /* The number tells which request a status is about (on_status). */
    snprintf(reply, sizeof reply, "%s.%" PRIu64, pull->inbox, ++pull->number);
    nats_client_send_text(source->client, subject, reply, text);
    pull->is_open = true;
    /* Says later whether a refusal was of all of it, or its end. */
    pull->n_got = 0;
    pull->is_single = false;
    /* The server answers a request when it expires; after some more time its answer is lost. */
    pull->until_ms = uv_now(source->end.loop) + expires_ms + config->timeout_ms;
}

/* How many more messages it makes sense to take now. */
static size_t want(const struct nats_source *source)
{
    size_t n = source->intake.credit.n, bytes = source->intake.credit.n_bytes;
    size_t by_bytes = bytes / (source->mean_bytes ? source->mean_bytes : 1);
    /* One at least, or a message of more than the credit would never come. */
    if (by_bytes == 0 && bytes)
        by_bytes = 1;
    if (by_bytes < n)
        n = by_bytes;
    /* What is held is given first: it counts against the credit. */
    return n > source->intake.held.n ? n - source->intake.held.n : 0;
}

void nats_pull_step(struct nats_source *source)
{
    struct nats_pull *pull = &source->pull;
    size_t n = source->end.closing || source->end.failed ? 0 : want(source);
    if (n && !pull->is_open && source->consumer.is_known && nats_client_is_up(source->client) &&
        uv_now(source->end.loop) >= pull->not_before_ms)
        send_request(source, n);
}

void nats_pull_reset(struct nats_source *source)
{
    ended(source);
    source->pull.listens = false;
}

/* Without an answer: it got lost, or a right is missing, which is reported then. In a new channel,
 * for the old one may be what is not allowed any more. */
void nats_pull_tick(struct nats_source *source, uint64_t now)
{
    struct nats_pull *pull = &source->pull;
    if (!pull->is_open || now < pull->until_ms || !nats_client_is_up(source->client))
        return;
    nats_pull_reset(source);
}

/* ---- what comes */

/* A server may refuse at once, and until somebody changes a setting. */
static void refused(struct nats_source *source)
{
    source->pull.not_before_ms = uv_now(source->end.loop) + REFUSED_MS;
}

/* Why the server ends or refuses the request with 409. */
static void on_conflict(struct nats_source *source, const char *text)
{
    struct nats_pull *pull = &source->pull;
    char why[300];
    /* Nothing came at all: it would be refused again at once. */
    if (pull->n_got == 0)
        refused(source);
    if (strcmp(text, "Message Size Exceeds MaxBytes") == 0) {
        /* The first message alone is over the bytes that were allowed: asked for without that
         * limit. */
        pull->is_single = pull->n_got == 0;
        pull->not_before_ms = 0; /* it is asked for otherwise */
    } else if (strcmp(text, "Consumer Deleted") == 0 || strncmp(text, "Exceeded ", 9) == 0 ||
               strstr(text, "push based")) {
        snprintf(why, sizeof why, "consumer %.60s of stream %.60s: %.100s", source->config.consumer,
                 source->config.stream, text);
        health_wait(&source->end.health, PART_PULL, why);
        /* Its settings have changed, or it is gone: no request before the next look. */
        nats_consumer_doubt(source);
    }
}

static void on_status(struct nats_source *source, natsMsg *native, int status, const char *text)
{
    struct nats_pull *pull = &source->pull;
    const char *word = strrchr(natsMsg_GetSubject(native), '.');
    char why[300];
    if (!word || strtoull(word + 1, NULL, 10) != pull->number || status == 100)
        return; /* of one that is over, or a sign of life */
    /* Each of these statuses is the last word on its request. */
    ended(source);
    if (status == 409) {
        on_conflict(source, text);
    } else if (status == 404 || status == 408) {
        health_good(&source->end.health, PART_PULL);
    } else {
        refused(source);
        snprintf(why, sizeof why, "consumer %.60s of stream %.60s: %.100s (%d)",
                 source->config.consumer, source->config.stream,
                 status == 503 ? "it is not there" : text, status);
        health_wait(&source->end.health, PART_PULL, why);
        nats_consumer_doubt(source);
    }
}

/* A stream that was made again counts from 1: the same sequence with another time is another
 * message. */
static struct nats_message *find(const struct taken_list *list,
                                 const struct nats_delivery *delivery)
{
    for (struct taken *taken = list->first; taken; taken = taken->next) {
        struct nats_message *message = (struct nats_message *)taken;
        if (!message->is_void && message->sequence == delivery->sequence &&
            message->taken.message.timestamp_ms == delivery->timestamp_ns / 1000000)
            return message;
    }
    return NULL;
}

/* It is with us already, and was given to us or to others once more: acked by its newest delivery.
 */
static bool is_again(struct nats_source *source, natsMsg *native,
                     const struct nats_delivery *delivery)
{
    const struct taken_list *lists[] = {&source->intake.held, &source->intake.given, &source->done};
    /* The first delivery cannot be with us: the lists need not be searched. */
    if (delivery->deliveries < 2)
        return false;
    for (size_t i = 0; i < 3; i++) {
        struct nats_message *message = find(lists[i], delivery);
        char *reply = message ? strdup(natsMsg_GetReply(native)) : NULL;
        if (!message)
            continue;
        if (reply) {
            free(message->reply);
            message->reply = reply;
        }
        natsMsg_Destroy(native);
        return true;
    }
    return false;
}

static void take(struct nats_source *source, natsMsg *native)
{
    struct nats_delivery delivery;
    const char *reply = natsMsg_GetReply(native);
    if (!reply || !nats_reply_delivery(reply, &delivery)) {
        natsMsg_Destroy(native); /* not of a consumer: whoever guessed our inbox */
        return;
    }
    /* More than was asked for: of a request that is over, and as good as any. */
    if (source->pull.n)
        source->pull.n--;
    source->pull.n_got++;
    if (source->pull.n == 0)
        ended(source);
    if (is_again(source, native, &delivery))
        return;
    struct nats_message *message = nats_message_open(source, native, &delivery);
    if (!message) /* it comes again */
        return;
    message->taken.size = message->taken.message.value.len + 1;
    taken_push(&source->intake.held, &message->taken);
    /* A running mean, for the number of messages that fit into the credit of bytes. */
    source->mean_bytes = (7 * source->mean_bytes + message->taken.size) / 8 + 1;
    health_good(&source->end.health, PART_PULL);
}

void nats_pull_on_message(struct nats_source *source, natsMsg *native)
{
    const char *text, *reply = natsMsg_GetReply(native);
    struct nats_delivery delivery;
    /* A message without payload may have a header Status of its own; a status has no reply. */
    bool is_message = reply && nats_reply_delivery(reply, &delivery);
    int status = is_message ? 0 : nats_reply_status(native, &text);
    if (status) {
        on_status(source, native, status, text);
        /* A status is not kept; `text` pointed into it. */
        natsMsg_Destroy(native);
    } else {
        take(source, native);
    }
}
