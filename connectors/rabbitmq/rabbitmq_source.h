/*
 * rabbitmq_source.h: the inside of a RabbitMQ source, for its own files and for the sink.
 *
 * Threads: the loop thread.
 */
#ifndef RABBITMQ_SOURCE_H
#define RABBITMQ_SOURCE_H

#include "connectors/endpoint.h"
#include "connectors/intake.h"
#include "connectors/rabbitmq/rabbitmq.h"
#include "connectors/rabbitmq/rabbitmq_link.h"
#include "connectors/rabbitmq/rabbitmq_message.h"

/* What can be in trouble, as bits of a health. */
#define PART_BROKER   1u
#define PART_CONSUMER 2u

/* The channels: one consumes and acks, one asks how long the queue is. */
enum { RABBITMQ_WORK = 1, RABBITMQ_PROBE = 2 };

enum consumer_phase {
    CONSUMER_NONE,    /* no channel */
    CONSUMER_CHANNEL, /* channel.open is sent */
    CONSUMER_IDLE,    /* the channel is open, and nothing is consumed */
    CONSUMER_STARTING,
    CONSUMER_ON,
    CONSUMER_ENDING, /* basic.cancel is sent */
};

struct rabbitmq_source {
    struct source base;
    struct endpoint end;
    struct rabbitmq_config config;
    struct rabbitmq_link *link;
    enum consumer_phase consumer;
    char consumer_tag[40];
    uint64_t n_consumers;
    /* Of this channel: what has another epoch can be acked no more. 0: never. */
    uint64_t epoch;
    struct intake intake;
    size_t n_void;        /* of the given: given back, or of a channel that is gone */
    size_t n_unconfirmed; /* acks that the server may not have seen */
    uint16_t prefetch;    /* of the consumer there is, or the next one */
    size_t least_held;    /* since `looked_ms`: a prefetch that is too large shows in it */
    uint64_t looked_ms;
    bool is_short;                  /* credit was left while all of the prefetch was taken */
    bool is_syncing;                /* a qos is under way: its answer confirms the acks before it */
    size_t n_syncing;               /* how many */
    bool is_probe_open, is_probing; /* the channel for passive declares, one of them */
    bool is_stalled, is_bye_sent;
    uv_timer_t tick_timer;
    uint64_t ticks;
};

/* For the sink: have the origin of a dead letter rejected, so that the queue's own dead-letter
 * exchange takes it. Takes the message. */
void rabbitmq_source_reject(struct source *source, struct message *message);

/* ---- rabbitmq_hold.c: the messages that are with us */

/* Nothing of the channel counts any more. */
void rabbitmq_hold_void(struct rabbitmq_source *source);
/* Nack what is held and not given, and forget it. */
void rabbitmq_hold_return(struct rabbitmq_source *source);
/* Send an ack, nack or reject of a message, if the channel that it came by is still there. */
void rabbitmq_hold_answer(struct rabbitmq_source *source, struct rabbitmq_message *message,
                          uint32_t id, const void *method);
/* Takes one that the pipeline had. */
void rabbitmq_hold_done(struct rabbitmq_source *source, struct rabbitmq_message *message);
void rabbitmq_hold_clear(struct rabbitmq_source *source);

/* ---- rabbitmq_consumer.c: the channels, the consumer, how much it may hold */

void rabbitmq_consumer_on_ready(struct rabbitmq_source *source);
void rabbitmq_consumer_on_method(void *ctx, uint16_t channel, uint32_t id, const void *decoded);
/* Start, stop or resize the consumer, as credit and time ask for. */
void rabbitmq_consumer_steer(struct rabbitmq_source *source);
/* Once a second: lag, confirmation of acks, messages that take too long. */
void rabbitmq_consumer_tick(struct rabbitmq_source *source);
/* Stop, give back all that is not acked, and have the server confirm it. */
void rabbitmq_consumer_leave(struct rabbitmq_source *source);

#endif
