/*
 * nats_message.c: messages of a consumer, as the pipeline sees them.
 *
 * Why:     a message that a consumer gives for the last time (its max_deliver) is a dead letter at
 *          once: if a worker died over it, nobody would ever be given it again.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/nats/nats_source.h"

/* All values of all headers. 0 headers are not a failure. */
static int read_headers(struct nats_message *message)
{
    const char **keys = NULL, **values;
    struct header *headers = NULL;
    size_t n = 0;
    int n_keys = 0, n_values;
    /* NATS_NOT_FOUND where there are none. */
    if (natsMsgHeader_Keys(message->native, &keys, &n_keys) != NATS_OK)
        return 0;
    for (int i = 0; i < n_keys; i++) {
        if (natsMsgHeader_Values(message->native, keys[i], &values, &n_values) != NATS_OK)
            continue;
        struct header *more = realloc(headers, (n + (size_t)n_values) * sizeof *headers);
        if (!more) {
            free(values);
            free(headers);
            free(keys);
            return -1;
        }
        headers = more;
        for (int j = 0; j < n_values; j++)
            /* Names and values stay in native, which lives as long as the message. */
            headers[n++] = (struct header){bytes_of(keys[i]), bytes_of(values[j])};
        free(values);
    }
    free(keys);
    message->taken.message.headers = headers;
    message->taken.message.n_headers = n;
    return 0;
}

static int judge(struct nats_message *message, int64_t max_deliver)
{
    static const char format[] =
        "this is delivery %" PRIu32
        " and the last one that the consumer makes (its max_deliver is %" PRId64
        "): workers have died or stalled over it";
    /* At 1 every message would come for the last time: doctor warns of that setting. */
    if (max_deliver < 2 || message->taken.message.deliveries < max_deliver)
        return 0;
    size_t size = sizeof format + 40;
    message->reason = malloc(size);
    if (!message->reason)
        return -1;
    snprintf(message->reason, size, format, message->taken.message.deliveries, max_deliver);
    message->taken.message.problem =
        (struct problem){DEAD_LETTER(too_many_deliveries), message->reason};
    return 0;
}

struct nats_message *nats_message_open(struct nats_source *source, natsMsg *native,
                                       const struct nats_delivery *delivery)
{
    /* A space, 20 digits, a NUL. */
    size_t size = strlen(source->config.stream) + 24;
    struct nats_message *message = calloc(1, sizeof *message + size);
    if (!message) {
        natsMsg_Destroy(native);
        return NULL;
    }
    const char *data = natsMsg_GetData(native);
    char *position = (char *)(message + 1);
    int len = snprintf(position, size, "%s %" PRIu64, source->config.stream, delivery->sequence);
    message->native = native;
    message->sequence = delivery->sequence;
    message->renewed_ms = uv_now(source->end.loop);
    message->taken.message.source = &source->base;
    message->taken.message.value =
        (struct bytes){data ? data : "", (size_t)natsMsg_GetDataLength(native)};
    message->taken.message.position = (struct bytes){position, (size_t)len};
    message->taken.message.timestamp_ms = delivery->timestamp_ns / 1000000;
    message->taken.message.deliveries =
        delivery->deliveries > UINT32_MAX ? UINT32_MAX : (uint32_t)delivery->deliveries;
    /* Without memory it is dropped here, and comes again after ack_wait. */
    if (read_headers(message) != 0 || judge(message, source->consumer.max_deliver) != 0) {
        nats_message_close(message);
        return NULL;
    }
    return message;
}

void nats_message_close(struct nats_message *message)
{
    natsMsg_Destroy(message->native);
    free((struct header *)message->taken.message.headers); /* ours: made by read_headers */
    free(message->reason);
    free(message->reply);
    free(message);
}

const char *nats_message_reply(const struct nats_message *message)
{
    return message->reply ? message->reply : natsMsg_GetReply(message->native);
}
