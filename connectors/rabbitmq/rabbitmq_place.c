/*
 * rabbitmq_place.c: one place that records go to.
 *
 * Owns:    the channel, in confirm mode; which tag is which record; what a refusal means.
 * Threads: the loop thread.
 * Why:     a refusal that closes the channel does not say which message it is about. What follows
 *          is sent one at a time until one is confirmed; one that is refused alone is the one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/rabbitmq/rabbitmq_record.h"
#include "connectors/rabbitmq/rabbitmq_sink.h"

#define DOUBTS_MAX  3
#define BACKLOG_MAX ((size_t)8 << 20) /* bytes on their way: more wait until some are confirmed */

static bool is_dead(const struct rabbitmq_place *place)
{
    return place->channel == RABBITMQ_DEAD_LETTERS + 1;
}

static unsigned part_of(const struct rabbitmq_place *place)
{
    return PART_PLACE << (place->channel - 1);
}

static const char *exchange_of(const struct rabbitmq_place *place)
{
    return is_dead(place) ? "" : place->sink->config.output_exchange;
}

static const char *routing_key_of(const struct rabbitmq_place *place)
{
    const struct rabbitmq_config *config = &place->sink->config;
    return is_dead(place) ? config->dead_letter_queue : config->output_queue;
}

void rabbitmq_place_init(struct rabbitmq_place *place, struct rabbitmq_sink *sink, uint16_t channel)
{
    place->sink = sink;
    place->channel = channel;
}

void rabbitmq_slot_done(struct rabbitmq_sink *sink, struct slot *slot, enum published how)
{
    struct record *record = slot->record;
    /* Before the event: it may publish, and take this very slot. */
    slots_give(&sink->slots, slot);
    sink->base.events->on_published(sink->base.ctx, record, how);
}

static struct rabbitmq_slot *first_of(const struct slot_queue *queue)
{
    return (struct rabbitmq_slot *)queue->first;
}

/* ---- trouble */

static void on_pause_over(uv_timer_t *timer)
{
    struct rabbitmq_place *place = timer->data;
    /* Whatever the pause was for, all that stands aside gets another chance. */
    place->is_paused = place->is_paused_for_others = false;
    slots_move(&place->waiting, &place->aside);
    /* A refusal has closed the channel, and it was left closed for the pause. */
    if (place->phase == PLACE_CLOSED && rabbitmq_link_ready(place->sink->link))
        rabbitmq_place_open(place);
    endpoint_pump(&place->sink->end);
}

/* "rabbitmq HOST: writing to queue Q: ..." */
static void explain(const struct rabbitmq_place *place, const char *why, char *out, size_t size)
{
    const char *exchange = exchange_of(place);
    if (*exchange)
        snprintf(out, size, "rabbitmq %s: writing to exchange %.100s, routing key %.100s: %.320s",
                 rabbitmq_link_where(place->sink->link), exchange, routing_key_of(place), why);
    else
        snprintf(out, size, "rabbitmq %s: writing to queue %.100s: %.320s",
                 rabbitmq_link_where(place->sink->link), routing_key_of(place), why);
}

static void start_pause(struct rabbitmq_place *place)
{
    if (place->is_paused)
        return;
    place->is_paused = true;
    uv_timer_start(&place->pause_timer, on_pause_over, backoff_next(&place->backoff), 0);
}

static void report(struct rabbitmq_place *place, const char *why)
{
    char text[HEALTH_WHY_SIZE];
    explain(place, why, text, sizeof text);
    health_wait(&place->sink->end.health, part_of(place), text);
    /* One at a time until one is confirmed: the next refusal then has a name. */
    place->is_in_doubt = true;
}

static void refused(struct rabbitmq_place *place, const char *why)
{
    report(place, why);
    /* The place is at fault, so all that goes there waits. */
    start_pause(place);
}

/* What is aside waits until another is confirmed, or for a while when no other comes. */
static void wait_for_others(struct rabbitmq_place *place)
{
    if (place->is_paused || place->waiting.n || place->sent.n || !place->aside.n)
        return;
    place->is_paused_for_others = true;
    start_pause(place);
}

/* What was sent waits again, before what has not been. */
static void take_back(struct rabbitmq_place *place)
{
    for (struct slot *slot = place->sent.first; slot; slot = slot->next)
        ((struct rabbitmq_slot *)slot)->is_returned = false;
    /* Behind what was sent, and all of it back: so the older ones go first. */
    slots_move(&place->sent, &place->waiting);
    slots_move(&place->waiting, &place->sent);
}

void rabbitmq_place_open(struct rabbitmq_place *place)
{
    static const amqp_channel_open_t open = {.out_of_band = {0, NULL}};
    if (place->is_paused || place->phase != PLACE_CLOSED)
        return;
    place->phase = PLACE_OPENING;
    rabbitmq_link_method(place->sink->link, place->channel, AMQP_CHANNEL_OPEN_METHOD, &open);
}

/* ---- sending */

/* The record can never be written; so it is the record's own fault. */
static void give_up(struct rabbitmq_place *place, struct rabbitmq_slot *slot, enum published how,
                    const char *why)
{
    char text[HEALTH_WHY_SIZE];
    /* A tag says that it was sent and not confirmed. */
    slots_remove(slot->tag ? &place->sent : &place->waiting, &slot->base);
    explain(place, why, text, sizeof text);
    if (how == PUBLISH_REFUSED) {
        slot->base.record->refused_code = DEAD_LETTER(output_refused);
        slot->base.record->refused_reason = text;
    }
    rabbitmq_slot_done(place->sink, &slot->base, how);
}

/* It alone was refused, and why says nothing about whose fault that is. False: its own. */
static bool doubt(struct rabbitmq_place *place, struct rabbitmq_slot *slot, const char *why)
{
    /* While nothing else passes it may be everything's. */
    bool counts = !slot->n_doubts || place->n_passed > slot->n_passed;
    slot->n_passed = place->n_passed;
    slot->n_doubts += counts;
    if (slot->n_doubts > DOUBTS_MAX) {
        give_up(place, slot, PUBLISH_REFUSED, why);
        return false;
    }
    slots_remove(&place->sent, &slot->base);
    /* Off the way: what is behind it goes on, and shows whether anything passes. */
    slots_push(&place->aside, &slot->base);
    report(place, why);
    endpoint_doubt(&place->sink->end);
    return true;
}

static struct rabbitmq_slot *only_one(const struct rabbitmq_place *place)
{
    /* With several on the way nobody knows which one the connection was closed for. */
    return place->sent.n == 1 ? first_of(&place->sent) : NULL;
}

void rabbitmq_place_lost(struct rabbitmq_place *place, const char *why)
{
    struct rabbitmq_slot *only = only_one(place);
    place->phase = PLACE_CLOSED;
    /* From here on one record at a time, so that the next such end names the one. */
    place->is_in_doubt |= why && place->sent.n;
    if (why && only)
        doubt(place, only, why);
    take_back(place);
}

/* 0: it is on its way; else as rabbitmq_link_publish. */
static int publish(struct rabbitmq_place *place, struct rabbitmq_slot *slot)
{
    struct rabbitmq_sink *sink = place->sink;
    amqp_basic_publish_t publish = {.exchange = rabbitmq_text(exchange_of(place)),
                                    .routing_key = rabbitmq_text(routing_key_of(place)),
                                    .mandatory = 1};
    amqp_basic_properties_t properties;
    struct bytes body;
    int rc =
        rabbitmq_record_build(&sink->config, slot->base.record, &sink->pool, &properties, &body);
    if (rc == 0 && place->max_size && body.len > place->max_size)
        rc = -EMSGSIZE;
    if (rc == 0)
        rc = rabbitmq_link_publish(sink->link, place->channel, &publish, &properties, body);
    recycle_amqp_pool(&sink->pool);
    return rc;
}

void rabbitmq_place_send(struct rabbitmq_place *place)
{
    struct rabbitmq_sink *sink = place->sink;
    struct rabbitmq_slot *slot;
    if (place->is_paused_for_others && place->waiting.n) { /* here is one */
        /* The pause was for want of others only. */
        uv_timer_stop(&place->pause_timer);
        place->is_paused = place->is_paused_for_others = false;
        rabbitmq_place_open(place);
    }
    while (place->phase == PLACE_OPEN && !place->is_paused && !sink->end.failed &&
           (slot = first_of(&place->waiting))) {
        if (place->sent.n &&
            (place->is_in_doubt || rabbitmq_link_backlog(sink->link) > BACKLOG_MAX))
            return;
        /* The number of its confirm is known once it is written. */
        slot->tag = 0;
        int rc = publish(place, slot);
        if (rc == -EMSGSIZE) {
            give_up(place, slot, PUBLISH_TOO_LARGE, "");
            continue;
        }
        if (rc) {
            refused(place, "no memory to send it");
            return;
        }
        slots_remove(&place->waiting, &slot->base);
        slots_push(&place->sent, &slot->base);
        slot->tag = place->next_tag++;
        slot->sent_ms = uv_now(sink->end.loop);
    }
    if (place->phase == PLACE_OPEN && !sink->end.failed)
        wait_for_others(place); /* the last of them may have been given up just now */
}

void rabbitmq_place_watch(struct rabbitmq_place *place)
{
    const struct rabbitmq_slot *slot = first_of(&place->sent);
    uint64_t limit = place->sink->config.timeout_ms;
    char why[200], text[HEALTH_WHY_SIZE];
    if (!slot || uv_now(place->sink->end.loop) - slot->sent_ms < limit)
        return;
    snprintf(why, sizeof why,
             "not confirmed for %llu s or more; waiting (has a quorum queue lost its majority, or "
             "is the "
             "server short of memory or disk?)",
             (unsigned long long)(limit / 1000));
    explain(place, why, text, sizeof text);
    health_wait(&place->sink->end.health, part_of(place), text);
}

/* ---- answers */

/* One that was sent waits again, in front of what is younger: of several that were on the way, the
 * older have come back just before it. */
static void put_back(struct rabbitmq_place *place, struct rabbitmq_slot *slot)
{
    struct rabbitmq_slot *younger = first_of(&place->waiting);
    while (younger && younger->nth < slot->nth)
        younger = (struct rabbitmq_slot *)younger->base.next;
    slots_remove(&place->sent, &slot->base);
    slots_insert(&place->waiting, younger ? &younger->base : NULL, &slot->base);
}

/* No queue took it. An exchange may look at headers, and so have queues for others. */
static void returned(struct rabbitmq_place *place, struct rabbitmq_slot *slot)
{
    static const char advice[] = "no queue takes it; declare the queue, or bind it to the exchange";
    char why[300];
    snprintf(why, sizeof why, "%u NO_ROUTE (%s)", (unsigned)slot->reply_code, advice);
    slot->is_returned = false;
    if (*exchange_of(place)) {
        if (doubt(place, slot, why))
            wait_for_others(place);
        return;
    }
    put_back(place, slot);
    refused(place, why);
}

static void confirmed(struct rabbitmq_place *place, struct rabbitmq_slot *slot)
{
    if (slot->is_returned) {
        returned(place, slot);
        return;
    }
    slots_remove(&place->sent, &slot->base);
    /* Something passes, so they go together again. */
    place->is_in_doubt = false;
    place->n_passed++;
    place->backoff.attempts = 0;
    rabbitmq_link_good(place->sink->link);
    health_good(&place->sink->end.health, part_of(place));
    slots_move(&place->waiting, &place->aside);
    rabbitmq_slot_done(place->sink, &slot->base, PUBLISHED);
}

static void rejected(struct rabbitmq_place *place, struct rabbitmq_slot *slot)
{
    slot->is_returned = false;
    put_back(place, slot);
    refused(place,
            "the queue refuses it (nack): is it full (overflow reject-publish), or a replica "
            "away? make room, or raise its limit");
}

/* Each slot that an ack or nack is about. */
static void settle(struct rabbitmq_place *place, uint64_t tag, bool is_multiple,
                   void (*how)(struct rabbitmq_place *, struct rabbitmq_slot *))
{
    struct rabbitmq_slot *slot = first_of(&place->sent), *next;
    for (; slot && slot->tag <= tag; slot = next) {
        next = (struct rabbitmq_slot *)slot->base.next;
        /* multiple: all up to that tag. */
        if (is_multiple || slot->tag == tag)
            how(place, slot);
    }
}

static const char *advice_on(uint16_t code)
{
    switch (code) {
    case AMQP_NOT_FOUND:
        return "declare the exchange, or name another";
    case AMQP_ACCESS_REFUSED:
        return "allow this user to write to it (rabbitmqctl set_permissions)";
    default:
        return "see the server's log";
    }
}

/* The limit in "message size 200 is larger than (configured) max size 100"; 0: it is about
 * something else. */
static size_t limit_in(const char *text)
{
    const char *at = strstr(text, "max size ");
    return at && strstr(text, "message size") ? (size_t)strtoull(at + strlen("max size "), NULL, 10)
                                              : 0;
}

static void on_channel_closed(struct rabbitmq_place *place, const amqp_channel_close_t *close)
{
    uint16_t code = close->reply_code;
    struct rabbitmq_slot *only = only_one(place);
    /* The size, or an argument of this message; with several on the way it is not known whose. */
    bool is_its_own = code == AMQP_PRECONDITION_FAILED || code == AMQP_CONTENT_TOO_LARGE;
    bool is_place = code == AMQP_NOT_FOUND || code == AMQP_ACCESS_REFUSED;
    char text[256], why[320];
    rabbitmq_text_copy(text, sizeof text, close->reply_text);
    size_t limit = limit_in(text);
    place->phase = PLACE_CLOSED;
    if (limit || (is_its_own && only && place->is_in_doubt)) {
        /* One that is larger than the limit is known by that, when it is sent again. */
        place->max_size = limit ? limit : place->max_size;
        if (!limit)
            give_up(place, only,
                    code == AMQP_CONTENT_TOO_LARGE ? PUBLISH_TOO_LARGE : PUBLISH_REFUSED, text);
        take_back(place);
        rabbitmq_place_open(place);
        return;
    }
    snprintf(why, sizeof why, "%.200s (%s)", text, advice_on(code));
    bool is_doubted = !is_its_own && !is_place && only;
    if (is_doubted)
        doubt(place, only, why);
    take_back(place);
    if (!is_doubted)
        refused(place, why);
    else if (place->aside.n && !place->waiting.n)
        wait_for_others(place);
    else
        rabbitmq_place_open(place);
}

/* A return does not say whose it is: it is known by what it holds. Equal ones are as good as each
 * other. */
static bool is_same(const struct rabbitmq_slot *slot, const struct rabbitmq_content *content)
{
    struct bytes value = slot->base.record->parts[0].value;
    return !slot->is_returned && value.len == content->body_len &&
           (!value.len || memcmp(value.ptr, content->body, value.len) == 0);
}

void rabbitmq_place_on_return(struct rabbitmq_place *place, const struct rabbitmq_content *content)
{
    struct rabbitmq_slot *slot = first_of(&place->sent);
    while (slot && !is_same(slot, content))
        slot = (struct rabbitmq_slot *)slot->base.next;
    if (!slot)
        return;
    /* Its ack follows, for the server is done with it; that settles it (confirmed). */
    slot->is_returned = true;
    slot->reply_code = content->reply_code;
}

void rabbitmq_place_on_method(struct rabbitmq_place *place, uint32_t id, const void *decoded)
{
    static const amqp_confirm_select_t confirm = {.nowait = 0};
    const amqp_basic_ack_t *ack = decoded;
    const amqp_basic_nack_t *nack = decoded;
    switch (id) {
    case AMQP_CHANNEL_OPEN_OK_METHOD:
        rabbitmq_link_method(place->sink->link, place->channel, AMQP_CONFIRM_SELECT_METHOD,
                             &confirm);
        break;
    case AMQP_CONFIRM_SELECT_OK_METHOD:
        place->phase = PLACE_OPEN;
        /* The server counts from confirm.select on. */
        place->next_tag = 1;
        wait_for_others(place);
        break;
    case AMQP_BASIC_ACK_METHOD:
        settle(place, ack->delivery_tag, ack->multiple, confirmed);
        break;
    case AMQP_BASIC_NACK_METHOD:
        settle(place, nack->delivery_tag, nack->multiple, rejected);
        break;
    case AMQP_CHANNEL_CLOSE_METHOD:
        on_channel_closed(place, decoded);
        break;
    default:
        break;
    }
}
