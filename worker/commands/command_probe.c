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

static const struct command_ending endings[] = {
    {COMMAND_OK, "Yes."},
    {COMMAND_USAGE, NULL},
    {COMMAND_UNAVAILABLE, "No; standard output says why."},
    COMMAND_END,
};

static const struct option table[] = {
    {"address", OPTION_TEXT, NULL, NULL, 0, 0, "HOST:PORT",
     "The worker's --metrics-listen; not given: that of EMBEDMILL_METRICS_LISTEN, else "
     "127.0.0.1:9464."},
    {"live", OPTION_BOOL, "false", NULL, 0, 0, NULL,
     "Ask whether it runs, not whether it is ready."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

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

static int run(const struct invocation *invocation)
{
    const struct settings *settings = invocation->settings;
    const char *path = settings_bool(settings, "live") ? "/livez" : "/readyz";
    const char *address = settings_text(settings, "address");
    char fallback[300];
    int code = COMMAND_UNAVAILABLE;
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

static const char *const positionals[] = {"address", NULL};

const struct command command_probe = {
    .name = "probe",
    .summary = "says whether a worker is ready, for health checks",
    .synopsis = "[--live] [HOST:PORT]",
    .text = "Ask a worker whether it is ready (GET /readyz), or with --live whether it runs "
            "(/livez). For the health checks of containers, whose images have no curl.",
    .endings = endings,
    .own = table,
    .syntax = {.positionals = positionals, .flags_only = true},
    .run = run,
};
