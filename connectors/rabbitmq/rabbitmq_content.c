/*
 * rabbitmq_content.c: messages come as a method, a header and pieces of a body.
 *
 * Owns:    putting them together, and refusing what does not fit.
 * Threads: the loop thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/rabbitmq/rabbitmq_link_internal.h"

bool rabbitmq_assembly_begins(uint32_t id)
{
    return id == AMQP_BASIC_DELIVER_METHOD || id == AMQP_BASIC_GET_OK_METHOD ||
           id == AMQP_BASIC_RETURN_METHOD;
}

void rabbitmq_assembly_start(struct rabbitmq_assembly *assembly, uint32_t id, const void *decoded)
{
    /* Of one whose pieces did not all come, should a server do that. */
    rabbitmq_assembly_clear(assembly);
    struct rabbitmq_content *content = &assembly->content;
    assembly->state = AWAIT_HEADER;
    content->method = id;
    if (id == AMQP_BASIC_DELIVER_METHOD) {
        const amqp_basic_deliver_t *deliver = decoded;
        content->tag = deliver->delivery_tag;
        content->redelivered = deliver->redelivered;
        rabbitmq_text_copy(content->exchange, sizeof content->exchange, deliver->exchange);
        rabbitmq_text_copy(content->routing_key, sizeof content->routing_key, deliver->routing_key);
        rabbitmq_text_copy(content->consumer_tag, sizeof content->consumer_tag,
                           deliver->consumer_tag);
    } else if (id == AMQP_BASIC_GET_OK_METHOD) {
        const amqp_basic_get_ok_t *got = decoded;
        content->tag = got->delivery_tag;
        content->redelivered = got->redelivered;
        content->message_count = got->message_count;
        rabbitmq_text_copy(content->exchange, sizeof content->exchange, got->exchange);
        rabbitmq_text_copy(content->routing_key, sizeof content->routing_key, got->routing_key);
    } else {
        const amqp_basic_return_t *returned = decoded;
        content->reply_code = returned->reply_code;
        rabbitmq_text_copy(content->reply_text, sizeof content->reply_text, returned->reply_text);
        rabbitmq_text_copy(content->exchange, sizeof content->exchange, returned->exchange);
        rabbitmq_text_copy(content->routing_key, sizeof content->routing_key,
                           returned->routing_key);
    }
}

static int add_header(struct rabbitmq_assembly *assembly, struct bytes payload, const char **why)
{
    struct rabbitmq_content *content = &assembly->content;
    struct bytes properties;
    uint64_t body_len;
    *why = "the header of a message is not AMQP 0-9-1";
    if (!rabbitmq_frame_header(payload, &body_len, &properties))
        return -EPROTO;
    *why = "a message says that it is longer than 1 GiB";
    if (body_len > RABBITMQ_BODY_MAX)
        return -EPROTO;
    *why = "no memory for a message";
    content->properties = malloc(properties.len + 1);
    /* All of it at once, as its header announces; pieces are copied behind each other. */
    content->body = malloc((size_t)body_len + 1); /* never NULL: empty is not absent */
    if (!content->properties || !content->body)
        return -ENOMEM;
    memcpy(content->properties, properties.ptr, properties.len);
    content->properties_len = properties.len;
    content->body_len = (size_t)body_len;
    assembly->state = AWAIT_BODY;
    /* An empty message has no body frame: it is whole here. */
    return body_len == 0;
}

int rabbitmq_assembly_add(struct rabbitmq_assembly *assembly, const struct rabbitmq_frame *frame,
                          const char **why)
{
    struct rabbitmq_content *content = &assembly->content;
    struct bytes payload = frame->payload;
    if (frame->type == AMQP_FRAME_HEADER && assembly->state == AWAIT_HEADER)
        return add_header(assembly, payload, why);
    *why = "pieces of a message that none began";
    if (frame->type != AMQP_FRAME_BODY || assembly->state != AWAIT_BODY)
        return -EPROTO;
    *why = "a message is longer than its header says";
    if (payload.len > content->body_len - assembly->n_got)
        return -EPROTO;
    memcpy(content->body + assembly->n_got, payload.ptr, payload.len);
    assembly->n_got += payload.len;
    return assembly->n_got == content->body_len;
}

void rabbitmq_assembly_clear(struct rabbitmq_assembly *assembly)
{
    free(assembly->content.properties);
    free(assembly->content.body);
    *assembly = (struct rabbitmq_assembly){0};
}
