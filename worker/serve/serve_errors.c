/*
 * serve_errors.c: what went wrong, in the form that a client of each dialect reads.
 *
 * Threads: as serve_request.h.
 * Why:     sentences name fields and places and never hold a text: proxies log bodies of errors.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "connectors/json.h"
#include "worker/http/http_server.h"
#include "worker/serve/serve_request.h"

/* As OpenAI's. */
static const char *openai_type(unsigned status)
{
    switch (status) {
    case HTTP_UNAUTHORIZED:
        return "authentication_error";
    case HTTP_TOO_MANY:
        return "rate_limit_error";
    case HTTP_INTERNAL:
    case HTTP_FAILED:
        return "server_error";
    case HTTP_UNAVAILABLE:
        return "service_unavailable";
    default:
        return "invalid_request_error";
    }
}

/* As those of text-embeddings-inference. */
static const char *tei_type(unsigned status)
{
    switch (status) {
    case HTTP_BAD_REQUEST:
        return "Empty";
    case HTTP_TOO_LARGE:
        return "Validation";
    case HTTP_UNPROCESSABLE:
        return "Tokenizer";
    case HTTP_TOO_MANY:
        return "Overloaded";
    case HTTP_UNAVAILABLE:
        return "Unhealthy";
    case HTTP_FAILED:
    case HTTP_INTERNAL:
        return "Backend";
    default:
        return "Validation";
    }
}

static void put_or_null(struct buffer *to, const char *text)
{
    if (text)
        json_put_text(to, text);
    else
        buffer_put_text(to, "null");
}

static void put_openai(struct buffer *to, unsigned status, const char *param, const char *code,
                       const char *message)
{
    buffer_put_text(to, "{\"error\":{\"message\":");
    json_put_text(to, message);
    buffer_put_text(to, ",\"type\":");
    json_put_text(to, openai_type(status));
    buffer_put_text(to, ",\"param\":");
    put_or_null(to, param);
    buffer_put_text(to, ",\"code\":");
    put_or_null(to, code);
    buffer_put_text(to, "}}");
}

void serve_fail(struct serve_request *request, unsigned status, const char *param, const char *code,
                const char *format, ...)
{
    char message[600];
    va_list args;
    if (request->status)
        return;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    struct buffer *to = &request->answer;
    buffer_close(to); /* what was begun */
    request->status = status;
    request->type = "application/json";
    switch (request->route ? request->route->dialect : DIALECT_OPENAI) {
    case DIALECT_OPENAI:
        put_openai(to, status, param, code, message);
        break;
    case DIALECT_TEI:
        buffer_put_text(to, "{\"error\":");
        json_put_text(to, message);
        buffer_put_text(to, ",\"error_type\":");
        json_put_text(to, tei_type(status));
        buffer_put_text(to, "}");
        break;
    case DIALECT_OLLAMA:
        buffer_put_text(to, "{\"error\":");
        json_put_text(to, message);
        buffer_put_text(to, "}");
        break;
    }
}

void serve_fail_overloaded(struct serve_request *request, uint32_t wait_s)
{
    request->retry_after_s = wait_s;
    serve_fail(request, HTTP_TOO_MANY, NULL, "overloaded",
               "too much is waiting; try again in %u seconds", wait_s);
}
