/*
 * fuzz_rabbitmq.c: any bytes as frames of a RabbitMQ server: methods, messages in pieces, and what
 * a delivery becomes. Run by scripts/fuzz.
 */
#include <stdlib.h>
#include <string.h>

#include "connectors/rabbitmq/rabbitmq.h"
#include "connectors/rabbitmq/rabbitmq_link_internal.h"
#include "connectors/rabbitmq/rabbitmq_message.h"
#include "connectors/rabbitmq/rabbitmq_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was read must be fit to be written. */
static void use(struct rabbitmq_content *content)
{
    struct rabbitmq_config config = {.queue = "texts"};
    struct source source = {.ops = &rabbitmq_source_ops};
    struct rabbitmq_message *message = rabbitmq_message_open(&source, "texts", content);
    if (!message)
        abort();
    struct part part = {.id = message->taken.message.key, .value = message->taken.message.value};
    struct record record = {.origin = &message->taken.message,
                            .parts = &part,
                            .n_parts = 1,
                            .headers = message->taken.message.headers,
                            .n_headers = message->taken.message.n_headers,
                            .dead_code = "bad_json"};
    amqp_basic_properties_t properties;
    struct buffer out = {0};
    struct bytes body;
    amqp_pool_t pool;
    init_amqp_pool(&pool, 4096);
    if (rabbitmq_record_build(&config, &record, &pool, &properties, &body) == 0)
        rabbitmq_put_content(&out, 1, &properties, body, RABBITMQ_FRAME_MAX);
    buffer_close(&out);
    empty_amqp_pool(&pool);
    rabbitmq_message_close(message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rabbitmq_assembly assembly = {0};
    struct rabbitmq_frame frame;
    const char *why;
    size_t used = 0, n;
    amqp_pool_t pool;
    init_amqp_pool(&pool, 4096);
    while (rabbitmq_frame_read((struct bytes){(const char *)data + used, size - used},
                               RABBITMQ_FRAME_MAX, &frame, &n, &why) == 1) {
        used += n;
        int rc = 0;
        uint32_t id = frame.type == AMQP_FRAME_METHOD ? rabbitmq_frame_method(frame.payload) : 0;
        void *decoded;
        if (id) {
            amqp_bytes_t encoded = {frame.payload.len - 4, (void *)(frame.payload.ptr + 4)};
            if (amqp_decode_method(id, &pool, encoded, &decoded) == AMQP_STATUS_OK &&
                rabbitmq_assembly_begins(id))
                rabbitmq_assembly_start(&assembly, id, decoded);
        } else if (frame.type != AMQP_FRAME_HEARTBEAT) {
            uint64_t body_len = 0;
            struct bytes properties;
            bool is_vast = frame.type == AMQP_FRAME_HEADER &&
                           rabbitmq_frame_header(frame.payload, &body_len, &properties) &&
                           body_len > 1 << 20; /* a lie that costs memory alone */
            rc = is_vast ? 0 : rabbitmq_assembly_add(&assembly, &frame, &why);
        }
        if (rc == 1) {
            struct rabbitmq_content content = assembly.content;
            assembly = (struct rabbitmq_assembly){0};
            use(&content);
        }
        recycle_amqp_pool(&pool);
    }
    rabbitmq_assembly_clear(&assembly);
    empty_amqp_pool(&pool);
    return 0;
}
