/*
 * rabbitmq_hold.c: the messages of a RabbitMQ source that are with us.
 *
 * Owns:    what was taken and not given yet, and what the pipeline has; their acks.
 * Threads: the loop thread.
 */
#include <assert.h>

#include "connectors/rabbitmq/rabbitmq_source.h"

/* NULL: there is none. */
static struct rabbitmq_message *pop_held(struct rabbitmq_source *source)
{
    return (struct rabbitmq_message *)taken_pop(&source->intake.held);
}

void rabbitmq_hold_void(struct rabbitmq_source *source)
{
    struct rabbitmq_message *message;
    /* Nobody has seen these; those with the pipeline stay until it acks or releases them. */
    while ((message = pop_held(source)))
        rabbitmq_message_close(message);
    for (struct taken *taken = source->intake.given.first; taken; taken = taken->next) {
        message = (struct rabbitmq_message *)taken;
        source->n_void += message->epoch != 0;
        message->epoch = 0;
    }
    /* A message is answered only where its epoch is that of the channel. */
    source->epoch++;
}

void rabbitmq_hold_answer(struct rabbitmq_source *source, struct rabbitmq_message *message,
                          uint32_t id, const void *method)
{
    bool is_sent = message->epoch == source->epoch && source->consumer >= CONSUMER_IDLE &&
                   !source->is_bye_sent &&
                   rabbitmq_link_method(source->link, RABBITMQ_WORK, id, method) == 0;
    bool is_ack = id != AMQP_BASIC_NACK_METHOD;
    /* Also where nothing was sent: that message comes again as well. */
    source->n_unconfirmed += is_ack;
    source_count(&source->base, COUNTER_LATE_ACKS, is_ack && !is_sent);
}

void rabbitmq_hold_return(struct rabbitmq_source *source)
{
    struct rabbitmq_message *message;
    while ((message = pop_held(source))) {
        amqp_basic_nack_t nack = {.delivery_tag = message->tag, .requeue = 1};
        /* Requeued: the next consumer of the queue gets it, which may be this one. */
        rabbitmq_hold_answer(source, message, AMQP_BASIC_NACK_METHOD, &nack);
        rabbitmq_message_close(message);
    }
}

void rabbitmq_hold_done(struct rabbitmq_source *source, struct rabbitmq_message *message)
{
    assert(source->n_void <= source->intake.given.n);
    taken_remove(&source->intake.given, &message->taken);
    source->n_void -= message->epoch == 0;
    rabbitmq_message_close(message);
}

void rabbitmq_hold_clear(struct rabbitmq_source *source)
{
    struct rabbitmq_message *message;
    while ((message = pop_held(source)))
        rabbitmq_message_close(message);
    while (source->intake.given.first)
        rabbitmq_hold_done(source, (struct rabbitmq_message *)source->intake.given.first);
}
