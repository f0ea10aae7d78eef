/*
 * rabbitmq_fake.c: see rabbitmq_fake.h.
 */
#include "tests/support/rabbitmq_fake.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAN(word)                                                                                  \
    {                                                                                              \
        {sizeof(word) - 1, word},                                                                  \
        {                                                                                          \
            .kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1                                    \
        }                                                                                          \
    }

/* ---- bytes out */

static void on_written(uv_write_t *req, int status)
{
    (void)status;
    free(req->data);
    free(req);
}

static void send_bytes(struct rabbitmq_fake_connection *connection, const char *bytes, size_t len)
{
    size_t piece = connection->fake->chop ? connection->fake->chop : len;
    for (size_t from = 0; from < len && connection->is_open; from += piece) {
        size_t n = len - from < piece ? len - from : piece;
        uv_write_t *req = malloc(sizeof *req);
        req->data = malloc(n);
        memcpy(req->data, bytes + from, n);
        uv_buf_t buf = uv_buf_init(req->data, (unsigned)n);
        uv_write(req, (uv_stream_t *)&connection->handle, &buf, 1, on_written);
    }
}

void rabbitmq_fake_send(struct rabbitmq_fake_connection *connection, uint16_t channel, uint32_t id,
                        const void *method)
{
    struct buffer out = {0};
    int rc = rabbitmq_put_method(&out, channel, id, method);
    assert(rc == 0);
    (void)rc;
    send_bytes(connection, out.ptr, out.len);
    buffer_close(&out);
}

static void send_content(struct rabbitmq_fake_connection *connection, uint16_t channel,
                         const char *message_id, const char *body)
{
    amqp_basic_properties_t properties = {._flags = 0};
    struct buffer out = {0};
    if (message_id) {
        properties._flags = AMQP_BASIC_MESSAGE_ID_FLAG;
        properties.message_id = rabbitmq_text(message_id);
    }
    rabbitmq_put_content(&out, channel, &properties, (struct bytes){body, strlen(body)}, 4096);
    send_bytes(connection, out.ptr, out.len);
    buffer_close(&out);
}

void rabbitmq_fake_deliver(struct rabbitmq_fake_connection *connection, uint64_t tag,
                           const char *consumer_tag, const char *message_id, const char *body)
{
    amqp_basic_deliver_t deliver = {.delivery_tag = tag,
                                    .consumer_tag = rabbitmq_text(consumer_tag),
                                    .routing_key = rabbitmq_text("texts")};
    rabbitmq_fake_send(connection, 1, AMQP_BASIC_DELIVER_METHOD, &deliver);
    send_content(connection, 1, message_id, body);
}

void rabbitmq_fake_return(struct rabbitmq_fake_connection *connection, uint16_t channel,
                          const char *body)
{
    amqp_basic_return_t returned = {.reply_code = AMQP_NO_ROUTE,
                                    .reply_text = rabbitmq_text("NO_ROUTE")};
    rabbitmq_fake_send(connection, channel, AMQP_BASIC_RETURN_METHOD, &returned);
    send_content(connection, channel, NULL, body);
}

/* ---- canned answers */

static void greet(struct rabbitmq_fake_connection *connection)
{
    amqp_table_entry_t can[] = {CAN("publisher_confirms"), CAN("basic.nack"),
                                CAN("connection.blocked"), CAN("consumer_cancel_notify"),
                                CAN("one_that_is_new")};
    amqp_table_entry_t properties[2] = {{.key = rabbitmq_text("capabilities")},
                                        {.key = rabbitmq_text("version")}};
    properties[0].value.kind = AMQP_FIELD_KIND_TABLE;
    properties[0].value.value.table = (amqp_table_t){5, can};
    properties[1].value.kind = AMQP_FIELD_KIND_UTF8;
    properties[1].value.value.bytes = rabbitmq_text("4.3.1");
    amqp_connection_start_t start = {.version_minor = 9,
                                     .server_properties = {2, properties},
                                     .mechanisms = rabbitmq_text("ANONYMOUS PLAIN AMQPLAIN"),
                                     .locales = rabbitmq_text("en_US")};
    rabbitmq_fake_send(connection, 0, AMQP_CONNECTION_START_METHOD, &start);
}

/* RabbitMQ 4.3: a prefetch for all of a channel's consumers is not implemented any more. */
static void answer_qos(struct rabbitmq_fake_connection *connection, uint16_t channel,
                       const amqp_basic_qos_t *qos)
{
    amqp_basic_qos_ok_t ok = {0};
    amqp_channel_close_t no = {.reply_code = AMQP_NOT_IMPLEMENTED,
                               .reply_text = rabbitmq_text("NOT_IMPLEMENTED - prefetch global")};
    if (qos->global)
        rabbitmq_fake_send(connection, channel, AMQP_CHANNEL_CLOSE_METHOD, &no);
    else
        rabbitmq_fake_send(connection, channel, AMQP_BASIC_QOS_OK_METHOD, &ok);
}

static void answer(struct rabbitmq_fake_connection *connection, uint16_t channel, uint32_t id,
                   const void *decoded)
{
    static const amqp_channel_close_ok_t empty = {0};
    const amqp_basic_consume_t *consume = decoded;
    const amqp_basic_cancel_t *cancel = decoded;
    amqp_connection_tune_t tune = {.channel_max = 2047, .frame_max = 131072, .heartbeat = 60};
    amqp_queue_declare_ok_t length = {.queue = rabbitmq_text("texts"), .message_count = 5};
    switch (id) {
    case AMQP_CONNECTION_START_OK_METHOD:
        rabbitmq_fake_send(connection, 0, AMQP_CONNECTION_TUNE_METHOD, &tune);
        return;
    case AMQP_CONNECTION_OPEN_METHOD: {
        amqp_connection_open_ok_t ok = {.known_hosts = rabbitmq_text("")};
        rabbitmq_fake_send(connection, 0, AMQP_CONNECTION_OPEN_OK_METHOD, &ok);
        return;
    }
    case AMQP_CHANNEL_OPEN_METHOD: {
        amqp_channel_open_ok_t ok = {.channel_id = rabbitmq_text("")};
        rabbitmq_fake_send(connection, channel, AMQP_CHANNEL_OPEN_OK_METHOD, &ok);
        return;
    }
    case AMQP_BASIC_QOS_METHOD:
        answer_qos(connection, channel, decoded);
        return;
    case AMQP_BASIC_CONSUME_METHOD: {
        amqp_basic_consume_ok_t ok = {.consumer_tag = consume->consumer_tag};
        rabbitmq_fake_send(connection, channel, AMQP_BASIC_CONSUME_OK_METHOD, &ok);
        return;
    }
    case AMQP_BASIC_CANCEL_METHOD: {
        amqp_basic_cancel_ok_t ok = {.consumer_tag = cancel->consumer_tag};
        rabbitmq_fake_send(connection, channel, AMQP_BASIC_CANCEL_OK_METHOD, &ok);
        return;
    }
    case AMQP_QUEUE_DECLARE_METHOD:
        rabbitmq_fake_send(connection, channel, AMQP_QUEUE_DECLARE_OK_METHOD, &length);
        return;
    case AMQP_CONFIRM_SELECT_METHOD:
        connection->n_published = 0;
        rabbitmq_fake_send(connection, channel, AMQP_CONFIRM_SELECT_OK_METHOD, &empty);
        return;
    case AMQP_CHANNEL_CLOSE_METHOD:
        rabbitmq_fake_send(connection, channel, AMQP_CHANNEL_CLOSE_OK_METHOD, &empty);
        return;
    case AMQP_CONNECTION_CLOSE_METHOD:
        rabbitmq_fake_send(connection, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &empty);
        return;
    default:
        return;
    }
}

/* ---- bytes in */

static void note(struct rabbitmq_fake *fake, uint16_t channel, uint32_t id, const void *decoded)
{
    struct rabbitmq_fake_entry entry = {.id = id, .channel = channel};
    const amqp_basic_ack_t *ack = decoded;
    const amqp_basic_nack_t *nack = decoded;
    const amqp_basic_reject_t *reject = decoded;
    const amqp_basic_qos_t *qos = decoded;
    const amqp_queue_declare_t *declare = decoded;
    if (id == AMQP_BASIC_ACK_METHOD)
        entry.number = ack->delivery_tag, entry.flag = ack->multiple;
    else if (id == AMQP_BASIC_NACK_METHOD)
        entry.number = nack->delivery_tag, entry.flag = nack->requeue;
    else if (id == AMQP_BASIC_REJECT_METHOD)
        entry.number = reject->delivery_tag, entry.flag = reject->requeue;
    else if (id == AMQP_BASIC_QOS_METHOD)
        entry.number = qos->prefetch_count, entry.flag = qos->global;
    else if (id == AMQP_QUEUE_DECLARE_METHOD)
        entry.flag = declare->passive;
    if (fake->n_log < FAKE_LOG_MAX)
        fake->log[fake->n_log++] = entry;
}

static void take_method(struct rabbitmq_fake_connection *connection, uint16_t channel,
                        struct bytes payload)
{
    struct rabbitmq_fake *fake = connection->fake;
    uint32_t id = rabbitmq_frame_method(payload);
    amqp_pool_t pool;
    void *decoded = NULL;
    init_amqp_pool(&pool, 4096);
    int rc = amqp_decode_method(
        id, &pool, (amqp_bytes_t){payload.len - 4, (void *)(payload.ptr + 4)}, &decoded);
    assert(rc == AMQP_STATUS_OK);
    (void)rc;
    note(fake, channel, id, decoded);
    if (!fake->on_method || !fake->on_method(connection, channel, id, decoded))
        answer(connection, channel, id, decoded);
    empty_amqp_pool(&pool);
}

/* Messages of the tests fit into one frame. */
static void take_body(struct rabbitmq_fake_connection *connection, uint16_t channel, size_t len)
{
    struct rabbitmq_fake *fake = connection->fake;
    amqp_basic_ack_t ack = {.delivery_tag = ++connection->n_published};
    fake->n_bodies++;
    fake->body_len = len;
    if (fake->on_published)
        fake->on_published(connection, channel, ack.delivery_tag);
    else
        rabbitmq_fake_send(connection, channel, AMQP_BASIC_ACK_METHOD, &ack);
}

static void take_frames(struct rabbitmq_fake_connection *connection)
{
    struct rabbitmq_frame frame;
    const char *why;
    size_t used = 0, n;
    if (connection->in.len >= 8 && memcmp(connection->in.ptr, "AMQP", 4) == 0) {
        used = 8;
        greet(connection);
    }
    while (rabbitmq_frame_read((struct bytes){connection->in.ptr + used, connection->in.len - used},
                               1 << 20, &frame, &n, &why) == 1) {
        used += n;
        if (frame.type == AMQP_FRAME_METHOD)
            take_method(connection, frame.channel, frame.payload);
        else if (frame.type == AMQP_FRAME_BODY)
            take_body(connection, frame.channel, frame.payload.len);
    }
    connection->in.len -= used;
    if (used)
        memmove(connection->in.ptr, connection->in.ptr + used, connection->in.len);
}

static void on_closed(uv_handle_t *handle)
{
    struct rabbitmq_fake_connection *connection = handle->data;
    buffer_close(&connection->in);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct rabbitmq_fake_connection *connection = handle->data;
    (void)suggested;
    *buf = uv_buf_init(connection->read, sizeof connection->read);
}

static void on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    struct rabbitmq_fake_connection *connection = stream->data;
    (void)buf;
    if (nread < 0 && connection->is_open) {
        connection->is_open = false;
        uv_close((uv_handle_t *)&connection->handle, on_closed);
    }
    if (nread <= 0)
        return;
    buffer_put(&connection->in, connection->read, (size_t)nread);
    take_frames(connection);
}

static void on_connection(uv_stream_t *server, int status)
{
    struct rabbitmq_fake *fake = server->data;
    assert(status == 0 && fake->n_connections < FAKE_CONNECTIONS_MAX);
    (void)status;
    struct rabbitmq_fake_connection *connection = &fake->connections[fake->n_connections++];
    connection->fake = fake;
    uv_tcp_init(fake->loop, &connection->handle);
    connection->handle.data = connection;
    connection->is_open = true;
    uv_accept(server, (uv_stream_t *)&connection->handle);
    uv_read_start((uv_stream_t *)&connection->handle, on_alloc, on_read);
}

void rabbitmq_fake_open(struct rabbitmq_fake *fake, uv_loop_t *loop)
{
    struct sockaddr_in address;
    struct sockaddr_storage bound;
    int len = sizeof bound;
    memset(fake, 0, sizeof *fake);
    fake->loop = loop;
    uv_tcp_init(loop, &fake->server);
    fake->server.data = fake;
    uv_ip4_addr("127.0.0.1", 0, &address);
    uv_tcp_bind(&fake->server, (const struct sockaddr *)&address, 0);
    uv_listen((uv_stream_t *)&fake->server, 16, on_connection);
    uv_tcp_getsockname(&fake->server, (struct sockaddr *)&bound, &len);
    fake->port = ntohs(((const struct sockaddr_in *)(const void *)&bound)->sin_port);
}

void rabbitmq_fake_close(struct rabbitmq_fake *fake)
{
    for (size_t i = 0; i < fake->n_connections; i++)
        if (fake->connections[i].is_open) {
            fake->connections[i].is_open = false;
            uv_close((uv_handle_t *)&fake->connections[i].handle, on_closed);
        }
    uv_close((uv_handle_t *)&fake->server, NULL);
}

size_t rabbitmq_fake_count(const struct rabbitmq_fake *fake, uint32_t id)
{
    size_t n = 0;
    for (size_t i = 0; i < fake->n_log; i++)
        n += fake->log[i].id == id;
    return n;
}

const struct rabbitmq_fake_entry *rabbitmq_fake_find(const struct rabbitmq_fake *fake, uint32_t id,
                                                     size_t n)
{
    for (size_t i = 0; i < fake->n_log; i++)
        if (fake->log[i].id == id && n-- == 0)
            return &fake->log[i];
    return NULL;
}
