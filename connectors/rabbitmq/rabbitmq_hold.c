/*
 * rabbitmq_hold.c: the messages of a RabbitMQ source that are with us.
 *
 * Owns:    what was taken and not given yet, and what the pipeline has; their acks.
 * Threads: the loop thread.
 */
#include <assert.h>

#include "connectors/rabbitmq/rabbitmq_source.h"

static void forget(struct rabbitmq_source *source, struct rabbitmq_message *message)
{
    assert(source->n_held > 0 && source->held_bytes >= message->size);
    TAILQ_REMOVE(&source->held, message, entry);
    source->n_held--;
    source->held_bytes -= message->size;
    rabbitmq_message_close(message);
}

void rabbitmq_hold_void(struct rabbitmq_source *source)
{
    struct rabbitmq_message *message;
    while ((message = TAILQ_FIRST(&source->held)))
        forget(source, message);
    TAILQ_FOREACH(message, &source->given, entry)
    {
        source->n_void += message->epoch != 0;
        message->epoch = 0;
    }
    source->epoch++;
}

void rabbitmq_hold_answer(struct rabbitmq_source *source, struct rabbitmq_message *message,
                          uint32_t id, const void *method)
{
    bool is_sent = message->epoch == source->epoch && source->consumer >= CONSUMER_IDLE &&
                   !source->is_bye_sent &&
                   rabbitmq_link_method(source->link, RABBITMQ_WORK, id, method) == 0;
    bool is_ack = id != AMQP_BASIC_NACK_METHOD;
    source->n_unconfirmed += is_ack;
    if (is_ack && !is_sent && source->base.events->on_count)
        source->base.events->on_count(source->base.ctx, "late_acks", 1);
}

void rabbitmq_hold_return(struct rabbitmq_source *source)
{
    struct rabbitmq_message *message;
    while ((message = TAILQ_FIRST(&source->held))) {
        amqp_basic_nack_t nack = {.delivery_tag = message->tag, .requeue = 1};
        rabbitmq_hold_answer(source, message, AMQP_BASIC_NACK_METHOD, &nack);
        forget(source, message);
    }
}

void rabbitmq_hold_done(struct rabbitmq_source *source, struct rabbitmq_message *message)
{
    assert(source->n_given > 0 && source->n_void <= source->n_given);
    TAILQ_REMOVE(&source->given, message, entry);
    source->n_given--;
    source->n_void -= message->epoch == 0;
    rabbitmq_message_close(message);
}

void rabbitmq_hold_clear(struct rabbitmq_source *source)
{
    struct rabbitmq_message *message;
    while ((message = TAILQ_FIRST(&source->held)))
        forget(source, message);
    while ((message = TAILQ_FIRST(&source->given)))
        rabbitmq_hold_done(source, message);
}
