/*
 * metrics_http.c: see metrics_http.h. What strangers may cost at this address is http_server.c's.
 */
#include "worker/telemetry/metrics_http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/http/http_listen.h"
#include "worker/http/http_server.h"

/* A tenth of the memory for the connections of a service: who scrapes and probes are few. */
static const struct client_limits limits = {.is_quick = true,
                                            .max = 64,
                                            .of_address = 32,
                                            .room = 192,
                                            .header_ms = 5000,
                                            .body_ms = 10000,
                                            .answer_ms = 10000,
                                            .idle_ms = 60000};
enum { CONNECTION_BYTES = 16 * 1024 };

static const char plain[] = "text/plain; charset=utf-8";

static void answer_metrics(struct http_request *request, const struct metrics *metrics)
{
    char *text = NULL;
    size_t len = 0;
    /* In memory first: an answer has its length in its head, and a slow client may not hold up a
     * half. */
    FILE *to = open_memstream(&text, &len);
    if (!to) {
        http_answer_text(request, HTTP_INTERNAL, plain, "out of memory\n");
        return;
    }
    metrics_print(metrics, to);
    if (fclose(to) != 0) {
        free(text);
        http_answer_text(request, HTTP_INTERNAL, plain, "out of memory\n");
        return;
    }
    struct http_answer answer = {.status = HTTP_OK,
                                 .type = "text/plain; version=0.0.4; charset=utf-8",
                                 .body = {.ptr = text, .len = len}};
    http_answer(request, &answer);
}

static void refuse_method(struct http_request *request)
{
    struct http_answer answer = {
        .status = HTTP_BAD_METHOD, .type = plain, .fields = {{"Allow", "GET, HEAD"}}};
    buffer_put_text(&answer.body, "only GET and HEAD\n");
    http_answer(request, &answer);
}

static void on_request(void *ctx, struct http_request *request)
{
    const struct metrics *metrics = ctx;
    const char *method = http_request_method(request), *path = http_request_path(request);
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
        return refuse_method(request);
    if (strcmp(path, "/metrics") == 0)
        return answer_metrics(request, metrics);
    if (strcmp(path, "/livez") == 0)
        return http_answer_text(request, HTTP_OK, plain, "ok\n");
    if (strcmp(path, "/readyz") == 0) {
        char line[120];
        const char *why = metrics_not_ready(metrics);
        snprintf(line, sizeof line, "%s\n", why ? why : "ok");
        return http_answer_text(request, why ? HTTP_UNAVAILABLE : HTTP_OK, plain, line);
    }
    http_answer_text(request, HTTP_NOT_FOUND, plain, "there are /metrics, /livez and /readyz\n");
}

int metrics_http_try(const char *where, char *err, size_t err_size)
{
    char name[320];
    int fd = http_listen(where, name, sizeof name, err, err_size);
    if (fd < 0)
        return fd;
    close(fd);
    http_listen_remove(name);
    return 0;
}

int metrics_http_open(struct http_server **out, uv_loop_t *loop, const char *where,
                      const struct metrics *metrics, char *err, size_t err_size)
{
    const struct http_server_options options = {.where = where,
                                                .clients = limits,
                                                .connection_bytes = CONNECTION_BYTES,
                                                .on_request = on_request,
                                                .ctx = (void *)metrics};
    return http_server_open(out, loop, &options, err, err_size);
}
