/*
 * rabbitmq_sink.h: the inside of a RabbitMQ sink, for its own files.
 *
 * Threads: the loop thread.
 */
#ifndef RABBITMQ_SINK_H
#define RABBITMQ_SINK_H

#include "connectors/endpoint.h"
#include "connectors/rabbitmq/rabbitmq.h"
#include "connectors/rabbitmq/rabbitmq_link.h"
#include "connectors/slots.h"

/* What can be in trouble, as bits of a health; a place has the bit PART_PLACE << its number. */
#define PART_SERVER 1u
#define PART_ALARM  2u
#define PART_PLACE  4u

enum { RABBITMQ_OUTPUTS, RABBITMQ_DEAD_LETTERS, RABBITMQ_PLACES };

/* A record that is not confirmed. */
struct rabbitmq_slot {
    struct slot base; /* first member */
    uint64_t nth;     /* in the order in which records were given */
    uint64_t tag;     /* of its channel */
    uint64_t sent_ms;
    bool is_returned; /* no queue has taken it; its ack is still to come */
    uint16_t reply_code;
    unsigned n_doubts; /* refused alone so often, while others passed, and nobody knows why */
    uint64_t n_passed; /* what had passed the last time */
};

enum place_phase { PLACE_CLOSED, PLACE_OPENING, PLACE_OPEN };

/* Where records go: an exchange and a routing key, by a channel of its own. */
struct rabbitmq_place {
    struct rabbitmq_sink *sink;
    uint16_t channel;
    enum place_phase phase;
    struct slot_queue waiting, sent; /* sent: in the order of their tags */
    struct slot_queue aside;         /* refused, and only others can show whose fault it is */
    uint64_t next_tag, n_passed;     /* n_passed: confirmed so far */
    size_t max_size;  /* the server's max_message_size, once it has refused for it; 0: not known */
    bool is_in_doubt; /* something was refused: one at a time, until one is confirmed */
    bool is_paused, is_paused_for_others; /* the latter: until one comes, if one does */
    uv_timer_t pause_timer;
    struct backoff backoff;
};

struct rabbitmq_sink {
    struct sink base;
    struct endpoint end;
    struct rabbitmq_config config;
    struct rabbitmq_link *link;
    amqp_pool_t pool; /* of the record being published */
    struct slot_pool slots;
    struct slot_queue fresh;
    uint64_t n_sorted; /* records that a place was given */
    struct rabbitmq_place places[RABBITMQ_PLACES];
    bool is_blocked;
    uv_timer_t tick_timer;
};

/* Frees the slot, which is in no queue, and gives its record back. */
void rabbitmq_slot_done(struct rabbitmq_sink *sink, struct slot *slot, enum published how);

/* ---- rabbitmq_place.c */

void rabbitmq_place_init(struct rabbitmq_place *place, struct rabbitmq_sink *sink,
                         uint16_t channel);
void rabbitmq_place_open(struct rabbitmq_place *place); /* the channel, in confirm mode */
/* The channel is gone with its connection: what it had is sent again. why: the server closed it
 * with an error that may be about a message; NULL: it did not. */
void rabbitmq_place_lost(struct rabbitmq_place *place, const char *why);
/* Publish what waits, as far as that is wise. */
void rabbitmq_place_send(struct rabbitmq_place *place);
void rabbitmq_place_on_method(struct rabbitmq_place *place, uint32_t id, const void *decoded);
void rabbitmq_place_on_return(struct rabbitmq_place *place, const struct rabbitmq_content *content);
/* Report a server that confirms nothing. */
void rabbitmq_place_watch(struct rabbitmq_place *place);

#endif
