/*
 * command_probe.c: `embedmill probe`: is the worker at that address ready? For the health checks of
 * containers, whose images hold no curl.
 *
 * Threads: the main thread.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "worker/commands/command.h"
#include "worker/commands/http_get.h"

static const char usage[] =
    "Usage: embedmill probe [--live] [HOST:PORT]\n"
    "\n"
    "Ask a worker whether it is ready (GET /readyz), or with --live whether it runs (/livez).\n"
    "The address is that of its --metrics-listen; when none is named that of\n"
    "EMBEDMILL_METRICS_LISTEN, else 127.0.0.1:9464.\n"
    "\n"
    "Exit codes: 0 yes; 64 wrong usage; 69 no, and standard output says why.\n";

enum { TIMEOUT_MS = 3000 };

static void on_answer(void *ctx, int status, const char *body)
{
    int *code = ctx;
    *code = status == 200 ? COMMAND_OK : COMMAND_UNAVAILABLE;
    if (status < 0)
        printf("%s\n", uv_strerror(status));
    else
        printf("%.*s\n", (int)strcspn(body, "\r\n"), body);
}

int command_probe(int argc, char **argv)
{
    const char *path = "/readyz", *address = NULL;
    char fallback[300];
    int code = COMMAND_UNAVAILABLE;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return COMMAND_OK;
        }
        if (strcmp(argv[i], "--live") == 0) {
            path = "/livez";
        } else if (argv[i][0] == '-' || address) {
            fprintf(stderr, "embedmill probe: %s: expected --live or one HOST:PORT\n", argv[i]);
            return COMMAND_USAGE;
        } else {
            address = argv[i];
        }
    }
    if (!address) {
        http_get_default_address(fallback, sizeof fallback);
        address = fallback;
    }
    uv_loop_t loop;
    if (uv_loop_init(&loop) != 0)
        return COMMAND_INTERNAL;
    struct http_get *request;
    int rc = http_get_open(&request, &loop, address, path, TIMEOUT_MS, on_answer, &code);
    if (rc == -EINVAL)
        fprintf(stderr, "embedmill probe: %s: expected HOST:PORT\n", address);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return rc == -EINVAL ? COMMAND_USAGE : rc != 0 ? COMMAND_INTERNAL : code;
}
