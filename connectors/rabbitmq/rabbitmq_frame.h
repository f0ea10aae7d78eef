/*
 * rabbitmq_frame.h: frames of AMQP 0-9-1 in bytes, by librabbitmq's encoders and decoders.
 *
 * Owns:    where a frame begins and ends, and every check of a length before the library sees it.
 * Refuses: sockets and what frames mean. The library's own connections are not used: they block.
 * Threads: no state.
 */
#ifndef RABBITMQ_FRAME_H
#define RABBITMQ_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/buffer.h"
#include "connectors/connector.h"
#include "connectors/rabbitmq/rabbitmq_amqp.h"

#define RABBITMQ_FRAME_MAX   131072 /* what we propose, and RabbitMQ's own default */
#define RABBITMQ_FRAME_EXTRA 8      /* bytes of a frame around its payload */
#define RABBITMQ_DEPTH_MAX   16     /* of tables and arrays in a header */
/* A body that says it is longer is a fault of the stream: RabbitMQ takes 512 MiB at most. */
#define RABBITMQ_BODY_MAX ((uint64_t)1 << 30)

struct rabbitmq_frame {
    uint8_t type; /* AMQP_FRAME_METHOD, _HEADER, _BODY, _HEARTBEAT */
    uint16_t channel;
    struct bytes payload; /* borrowed from what was read */
};

/*
 * The frame that bytes begin with. max: the largest allowed, in all. 1, and *used bytes are it;
 * 0: more bytes are needed; -EPROTO: not AMQP, *why says how (static).
 */
int rabbitmq_frame_read(struct bytes bytes, size_t max, struct rabbitmq_frame *out, size_t *used,
                        const char **why);
/* Of a method's payload: its class and number, AMQP_BASIC_DELIVER_METHOD ...; 0: too short. */
uint32_t rabbitmq_frame_method(struct bytes payload);
/* Of a header's payload: the length of the body, and the properties behind. False: too short. */
bool rabbitmq_frame_header(struct bytes payload, uint64_t *body_len, struct bytes *properties);

/* Whether properties can be decoded without too many tables within tables: the library's decoder
 * calls itself for each. */
bool rabbitmq_properties_are_sane(struct bytes properties);

/* Append. 0, -ENOMEM, or -EMSGSIZE and nothing is changed: it does not fit into a frame of
 * frame_max, or holds a short string of more than 255 bytes. */
int rabbitmq_put_method(struct buffer *to, uint16_t channel, uint32_t id, const void *method);
/* The header and the body that follow a publish. */
int rabbitmq_put_content(struct buffer *to, uint16_t channel,
                         const amqp_basic_properties_t *properties, struct bytes body,
                         size_t frame_max);
int rabbitmq_put_heartbeat(struct buffer *to);

/* Text as the library has it, and back. */
amqp_bytes_t rabbitmq_bytes(struct bytes bytes);
amqp_bytes_t rabbitmq_text(const char *text);
struct bytes rabbitmq_bytes_of(amqp_bytes_t bytes);
/* NULL: it has none of that name. */
const amqp_field_value_t *rabbitmq_table_find(const amqp_table_t *table, const char *name);
/* ... as a string of C, of which what does not fit into size is left out. */
void rabbitmq_text_copy(char *out, size_t size, amqp_bytes_t text);

#endif
