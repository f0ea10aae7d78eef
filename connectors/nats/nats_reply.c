/*
 * nats_reply.c: see nats_reply.h.
 */
#include "connectors/nats/nats_reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/nats/nats_json.h"

int nats_reply_status(natsMsg *message, const char **text)
{
    const char *value = NULL;
    if (text)
        *text = "";
    /* A status has no payload. */
    if (natsMsg_GetDataLength(message) > 0 ||
        natsMsgHeader_Get(message, "Status", &value) != NATS_OK || !value)
        return 0;
    if (text && natsMsgHeader_Get(message, "Description", text) != NATS_OK)
        *text = "";
    return atoi(value);
}

struct bytes nats_reply_body(natsMsg *message)
{
    return (struct bytes){natsMsg_GetData(message), (size_t)natsMsg_GetDataLength(message)};
}

void nats_reply_error(natsMsg *message, struct nats_error *out)
{
    struct bytes body = nats_reply_body(message);
    int status = nats_reply_status(message, NULL);
    *out = (struct nats_error){.code = status};
    if (status) {
        snprintf(out->text, sizeof out->text, "%s",
                 status == 503 ? "nobody listens there" : "refused");
        return;
    }
    if (!nats_json_find(body, "error").ptr)
        return;
    out->code = nats_json_number(body, "error.code", 500);
    out->err_code = nats_json_number(body, "error.err_code", 0);
    nats_json_text(body, "error.description", out->text, sizeof out->text);
}

/* Codes of nats-server/server/errors.json. */
static const struct {
    int64_t err_code;
    enum nats_refusal refusal;
    const char *advice;
} known[] = {
    {10054, NATS_RECORD_TOO_LARGE, "raise max_msg_size of the stream"},
    {10097, NATS_RECORD_TOO_LARGE, "JetStream takes 64 KiB of headers"},
    {10002, NATS_RECORD_AGAIN, "raise the limits of the account"},
    {10023, NATS_RECORD_AGAIN, "the server has no room: raise its limits"},
    {10028, NATS_RECORD_AGAIN, "raise the memory that JetStream may use"},
    {10035, NATS_RECORD_AGAIN, "turn JetStream on for this account"},
    {10039, NATS_RECORD_AGAIN, "turn JetStream on for this account"},
    {10047, NATS_RECORD_AGAIN, "raise the storage that JetStream may use"},
    {10076, NATS_RECORD_AGAIN, "turn JetStream on at the server"},
    {10077, NATS_RECORD_AGAIN,
     "the stream is full and its policy is to refuse: consume or purge it, or raise its limits"},
    {10109, NATS_RECORD_AGAIN, "the stream is sealed: write to another one"},
    {10118, NATS_RECORD_AGAIN, "see the server's log"},
    {10158, NATS_RECORD_AGAIN, "it is being written already"},
    {10194, NATS_RECORD_AGAIN, "see the server's log"},
    {10167, NATS_RECORD_AGAIN, "the server is busy"},
};

static size_t find_known(const struct nats_error *error)
{
    size_t i = 0, n = sizeof known / sizeof known[0];
    while (i < n && known[i].err_code != error->err_code)
        i++;
    return i;
}

enum nats_refusal nats_reply_refusal(const struct nats_error *error)
{
    size_t i = find_known(error);
    if (i < sizeof known / sizeof known[0])
        return known[i].refusal;
    /* It says that the request is at fault, and the code that says how is newer than this table. */
    if (error->code >= 400 && error->code < 500)
        return NATS_RECORD_UNKNOWN;
    return error->err_code ? NATS_SERVER_UNKNOWN : NATS_RECORD_AGAIN; /* 503 of nobody, timeouts */
}

const char *nats_reply_advice(const struct nats_error *error)
{
    size_t i = find_known(error);
    return i < sizeof known / sizeof known[0] ? known[i].advice : "";
}

bool nats_reply_delivery(const char *subject, struct nats_delivery *out)
{
    struct bytes words[16];
    size_t n = 0;
    for (const char *at = subject; n < 16; at += words[n - 1].len + 1) {
        words[n++] = (struct bytes){at, strcspn(at, ".")};
        if (!at[words[n - 1].len])
            break;
    }
    if (n < 9 || strncmp(subject, "$JS.ACK.", 8) != 0)
        return false;
    /* From 2.10 on domain and account hash stand before the stream. */
    const struct bytes *word = words + (n >= 11 ? 4 : 2);
    *out = (struct nats_delivery){.stream = word[0],
                                  .consumer = word[1],
                                  .deliveries = strtoull(word[2].ptr, NULL, 10),
                                  .sequence = strtoull(word[3].ptr, NULL, 10),
                                  .timestamp_ns = strtoll(word[5].ptr, NULL, 10),
                                  .pending = strtoull(word[6].ptr, NULL, 10)};
    return out->deliveries > 0 && out->sequence > 0;
}
