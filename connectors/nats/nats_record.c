/*
 * nats_record.c: see nats_record.h.
 *
 * Why:     a dead letter keeps the original byte for byte, and what we add are headers whose names
 *          begin with an underscore, the same as on Redis and Kafka; those of an earlier death are
 *          replaced.
 */
#include "connectors/nats/nats_record.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "connectors/nats/nats_source.h"

static bool is_nats(const struct message *origin)
{
    return origin->source && origin->source->ops == &nats_source_ops;
}

bool nats_record_is_ours(struct bytes name)
{
    static const char *const ours[] = {"_code", "_error",    "_stream",    "_sequence",  "_subject",
                                       "_key",  "_position", "_timestamp", "_deliveries"};
    return (name.len >= 5 && strncasecmp(name.ptr, "Nats-", 5) == 0) ||
           bytes_in(name, ours, sizeof ours / sizeof ours[0]);
}

const char *nats_record_subject(const struct nats_config *config, const struct record *record)
{
    return record->dead_code ? config->dead_letter_subject : config->output_subject;
}

/* With its length before it, so that two pieces are never taken for two others. */
static bool digest(EVP_MD_CTX *context, const void *ptr, size_t len)
{
    uint64_t n = len;
    return EVP_DigestUpdate(context, &n, sizeof n) && EVP_DigestUpdate(context, ptr, len);
}

int nats_record_id(const struct nats_config *config, const struct record *record, uint64_t salt,
                   char id[NATS_ID_SIZE])
{
    const struct message *origin = record->origin;
    const char *subject = nats_record_subject(config, record), *code = record->dead_code;
    const struct bytes value = record->parts[0].value;
    unsigned char hash[EVP_MAX_MD_SIZE];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool ok = context && EVP_DigestInit_ex(context, EVP_sha256(), NULL) &&
              digest(context, subject, strlen(subject)) &&
              digest(context, config->consumer, strlen(config->consumer)) &&
              digest(context, code ? code : "", code ? strlen(code) : 0) &&
              digest(context, origin->position.ptr, origin->position.len) &&
              digest(context, &origin->timestamp_ms, sizeof origin->timestamp_ms) &&
              digest(context, value.ptr ? value.ptr : "", value.len) &&
              digest(context, &salt, sizeof salt) && EVP_DigestFinal_ex(context, hash, NULL);
    EVP_MD_CTX_free(context);
    if (!ok)
        return -ENOMEM;
    int len = snprintf(id, NATS_ID_SIZE, "embedmill-");
    /* 128 bits of the hash: doubles by chance are out of the question. */
    for (size_t i = 0; i < 16; i++)
        len += snprintf(id + len, NATS_ID_SIZE - (size_t)len, "%02x", hash[i]);
    return 0;
}

/* ---- headers */

static bool is_name_char(unsigned char c)
{
    return c > ' ' && c < 127 && c != ':';
}

int nats_record_add_header(natsMsg *message, struct bytes name, struct bytes value, size_t *size)
{
    char few[512], *to = few;
    /* Both with their NULs, and a byte to spare. */
    size_t need = name.len + value.len + 3;
    if (need > sizeof few && !(to = malloc(need)))
        return -ENOMEM;
    for (size_t i = 0; i < name.len; i++)
        to[i] = is_name_char((unsigned char)name.ptr[i]) ? name.ptr[i] : '-';
    to[name.len] = '\0';
    char *text = to + name.len + 1;
    for (size_t i = 0; i < value.len; i++)
        text[i] = value.ptr[i] && !strchr("\r\n", value.ptr[i]) ? value.ptr[i] : ' ';
    text[value.len] = '\0';
    natsStatus s = name.len ? natsMsgHeader_Add(message, to, text) : NATS_OK;
    if (to != few)
        free(to);
    /* ": " and CRLF, as the server counts them. */
    *size += name.len + value.len + 4;
    return s ? -ENOMEM : 0;
}

static int add_text(natsMsg *message, const char *name, const char *text, size_t *size)
{
    return nats_record_add_header(message, bytes_of(name), bytes_of(text), size);
}

static int add_number(natsMsg *message, const char *name, uint64_t number, size_t *size)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, number);
    return add_text(message, name, text, size);
}

static int add_death(natsMsg *message, const struct nats_config *config,
                     const struct record *record, size_t *size)
{
    const struct message *origin = record->origin;
    const struct bytes key = record->parts[0].id;
    int rc = add_text(message, "_code", record->dead_code, size);
    if (!rc)
        rc = add_text(message, "_error", record->dead_reason ? record->dead_reason : "", size);
    if (is_nats(origin)) {
        const struct nats_message *own = (const struct nats_message *)origin;
        if (!rc)
            rc = add_text(message, "_stream", config->stream, size);
        if (!rc)
            rc = add_number(message, "_sequence", own->sequence, size);
        if (!rc)
            rc = add_text(message, "_subject", natsMsg_GetSubject(own->native), size);
    } else if (!rc) {
        rc = nats_record_add_header(message, bytes_of("_position"), origin->position, size);
    }
    if (!rc && key.ptr)
        rc = nats_record_add_header(message, bytes_of("_key"), key, size);
    if (!rc && origin->timestamp_ms >= 0)
        rc = add_number(message, "_timestamp", (uint64_t)origin->timestamp_ms, size);
    return rc ? rc : add_number(message, "_deliveries", origin->deliveries, size);
}

int nats_record_message(natsMsg **out, const struct nats_config *config,
                        const struct record *record, const char *id, const char *reply,
                        size_t *size)
{
    const struct bytes value = record->parts[0].value;
    natsMsg *message = NULL;
    int rc;
    /* The first line of the headers, and the empty one behind them. */
    *size = value.len + sizeof "NATS/1.0\r\n\r\n" - 1;
    if (value.len > INT32_MAX)
        return 0; /* *out stays NULL: its size says that it is too large */
    if (natsMsg_Create(&message, nats_record_subject(config, record), reply, value.ptr,
                       (int)value.len) != NATS_OK)
        return -ENOMEM;
    rc = add_text(message, "Nats-Msg-Id", id, size);
    if (!rc && !value.ptr && !record->dead_code) /* a tombstone: it says so and what is gone */
        rc = add_text(message, "deleted", "1", size);
    if (!rc && !value.ptr && !record->dead_code)
        rc = nats_record_add_header(message, bytes_of("id"), record->parts[0].id, size);
    for (size_t i = 0; i < record->n_headers && !rc; i++) {
        const struct header *header = &record->headers[i];
        if (!nats_record_is_ours(header->name))
            rc = nats_record_add_header(message, header->name, header->value, size);
    }
    if (!rc && record->dead_code)
        rc = add_death(message, config, record, size);
    if (rc) {
        natsMsg_Destroy(message);
        return rc;
    }
    *out = message;
    return 0;
}
