/*
 * nats_call.c: see nats_call.h.
 */
#include "connectors/nats/nats_call.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/json.h"
#include "connectors/nats/nats_json.h"

int nats_call_open(struct nats_call *call, const struct nats_config *config, char *err,
                   size_t err_size)
{
    natsOptions *options;
    *call = (struct nats_call){.config = config};
    int rc = nats_connect_options(&options, config, "embedmill", err, err_size);
    if (rc)
        return rc;
    natsStatus s = natsConnection_Connect(&call->nc, options);
    /* The connection has a copy. */
    natsOptions_Destroy(options);
    if (!s)
        return 0;
    nats_connect_explain(s, err, err_size);
    return nats_connect_is_refusal(s) ? -EACCES : -ECONNREFUSED;
}

void nats_call_close(struct nats_call *call)
{
    natsMsg_Destroy(call->answer);
    natsConnection_Destroy(call->nc);
    *call = (struct nats_call){0};
}

int nats_call_ask(struct nats_call *call, natsMsg *message, char *err, size_t err_size)
{
    const char *said = NULL, *subject = natsMsg_GetSubject(message);
    natsMsg_Destroy(call->answer);
    call->answer = NULL;
    call->body = (struct bytes){NULL, 0};
    natsStatus s = natsConnection_RequestMsg(&call->answer, call->nc, message,
                                             (int64_t)call->config->timeout_ms);
    int rc = 0;
    if (s == NATS_NO_RESPONDERS) {
        snprintf(err, err_size, "nobody listens on %.200s", subject);
        rc = -ENOTSUP;
    } else if (s) {
        /* A timeout is also what a missing right looks like; the server's words are here then. */
        natsConnection_GetLastError(call->nc, &said);
        snprintf(err, err_size, "%.200s: %s%s%.200s", subject, natsStatus_GetText(s),
                 said && *said ? ": " : "", said && *said ? said : "");
        rc = s == NATS_TIMEOUT ? -ETIMEDOUT : s == NATS_NO_MEMORY ? -ENOMEM : -EIO;
    } else {
        call->body = nats_reply_body(call->answer);
    }
    natsMsg_Destroy(message);
    return rc;
}

int nats_call_api(struct nats_call *call, const char *what, const char *of, const char *text,
                  struct nats_error *error, char *err, size_t err_size)
{
    char subject[400];
    natsMsg *message;
    *error = (struct nats_error){0};
    snprintf(subject, sizeof subject, "%.150s.%.40s%.200s", call->config->api, what, of);
    if (natsMsg_Create(&message, subject, NULL, text, (int)strlen(text)) != NATS_OK) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    int rc = nats_call_ask(call, message, err, err_size);
    if (!rc)
        nats_reply_error(call->answer, error);
    return rc;
}

int nats_call_find_stream(struct nats_call *call, const char *subject, char name[160], char *err,
                          size_t err_size)
{
    struct buffer text = {0};
    struct nats_error error;
    struct bytes one;
    size_t at = 0;
    name[0] = '\0';
    buffer_put_text(&text, "{\"subject\":");
    json_put_text(&text, subject);
    buffer_put(&text, "}", 2);
    int rc = text.status;
    if (rc)
        snprintf(err, err_size, "out of memory");
    else
        rc = nats_call_api(call, "STREAM.NAMES", "", text.ptr, &error, err, err_size);
    buffer_close(&text);
    if (rc)
        return rc;
    if (error.code) {
        snprintf(err, err_size, "%s (%" PRId64 ")", error.text, error.err_code);
        return -EIO;
    }
    struct bytes names = nats_json_find(call->body, "streams");
    if (names.ptr && nats_json_next(names, &at, &one))
        nats_json_string(one, name, 160);
    return 0;
}

/* ---- stored messages */

void nats_stored_close(struct nats_stored *stored)
{
    buffer_close(&stored->headers);
    buffer_close(&stored->value);
}

/* A string of base64 out of JSON. 0; -EPROTO; -ENOMEM. */
static int decode(struct buffer *to, struct bytes value)
{
    to->len = 0;
    if (value.len < 2)
        return 0;
    size_t n = value.len - 2;
    const char *digits = value.ptr + 1;
    unsigned char *out = (unsigned char *)buffer_extend(to, n / 4 * 3 + 1);
    if (!out)
        return -ENOMEM;
    int len = n ? EVP_DecodeBlock(out, (const unsigned char *)digits, (int)n) : 0;
    if (len < 0)
        return -EPROTO;
    /* The decoder counts a byte for each = at the end. */
    for (size_t i = n; i > 0 && digits[i - 1] == '=' && len > 0; i--)
        len--;
    to->len = (size_t)len;
    return 0;
}

int nats_call_next(struct nats_call *call, const char *stream, const char *subject, uint64_t from,
                   struct nats_stored *out, char *err, size_t err_size)
{
    char text[400];
    struct nats_error error;
    snprintf(text, sizeof text, "{\"seq\":%" PRIu64 ",\"next_by_subj\":\"%.256s\"}", from, subject);
    int rc = nats_call_api(call, "STREAM.MSG.GET.", stream, text, &error, err, err_size);
    if (rc)
        return rc;
    if (error.err_code == NATS_NO_MESSAGE)
        return 0;
    if (error.code) {
        snprintf(err, err_size, "stream %.100s: %.200s (%" PRId64 ")", stream, error.text,
                 error.err_code);
        return -EIO;
    }
    out->sequence = (uint64_t)nats_json_number(call->body, "message.seq", 0);
    nats_json_text(call->body, "message.subject", out->subject, sizeof out->subject);
    rc = decode(&out->headers, nats_json_find(call->body, "message.hdrs"));
    if (!rc)
        rc = decode(&out->value, nats_json_find(call->body, "message.data"));
    if (rc)
        snprintf(err, err_size, "%s", rc == -ENOMEM ? "out of memory" : "an answer without sense");
    return rc ? rc : 1;
}

bool nats_stored_header(const struct nats_stored *stored, size_t *at, struct header *out)
{
    const char *text = stored->headers.ptr;
    size_t len = stored->headers.len;
    while (*at < len) {
        const char *line = text + *at, *end = memchr(line, '\r', len - *at);
        size_t n = end ? (size_t)(end - line) : len - *at;
        /* The first line is "NATS/1.0". */
        bool is_first = *at == 0;
        /* Behind CR and LF; at the end it lies beyond len, which ends the loop. */
        *at += n + 2;
        const char *colon = is_first ? NULL : memchr(line, ':', n);
        if (!colon)
            continue;
        const char *value = colon + 1, *stop = line + n;
        while (value < stop && *value == ' ')
            value++;
        *out = (struct header){{line, (size_t)(colon - line)}, {value, (size_t)(stop - value)}};
        return true;
    }
    return false;
}

struct bytes nats_stored_find(const struct nats_stored *stored, const char *name)
{
    struct header header;
    for (size_t at = 0; nats_stored_header(stored, &at, &header);)
        if (strlen(name) == header.name.len && memcmp(name, header.name.ptr, header.name.len) == 0)
            return header.value;
    return (struct bytes){NULL, 0};
}
