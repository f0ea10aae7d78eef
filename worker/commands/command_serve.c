/*
 * command_serve.c: `embedmill serve`: embeddings over HTTP, without a queue.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/commands/command.h"
#include "worker/commands/command_line.h"
#include "worker/commands/config_check.h"
#include "worker/commands/model_load.h"
#include "worker/commands/serve_setup.h"
#include "worker/commands/stop_signals.h"
#include "worker/config/cpus.h"
#include "worker/telemetry/log.h"
#include "worker/telemetry/monitor.h"
#include "worker/config/name.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, "Stopped by a signal; all requests that were taken are answered."},
    {COMMAND_USAGE, NULL},
    {COMMAND_NO_MODEL, NULL},
    {COMMAND_UNAVAILABLE, "Cannot listen at the address: it is taken, or not this machine's."},
    {COMMAND_INTERNAL, NULL},
    {COMMAND_DEADLINE, "The drain deadline passed; some requests were answered by 503."},
    {COMMAND_CONFIG, NULL},
    {COMMAND_HANGUP, "A second signal, SIGHUP."},
    {COMMAND_INTERRUPTED, "A second signal, SIGINT."},
    {COMMAND_TERMINATED, "A second signal, SIGTERM."},
    COMMAND_END,
};

static const struct preset presets[] = {{"http.listen", "127.0.0.1:8080"}, {NULL, NULL}};

struct server {
    const struct invocation *invocation;
    const struct settings *settings;
    uv_loop_t loop;
    struct stop_signals stop;
    struct model_set set;
    struct cache *caches[COMMAND_MODELS_MAX]; /* NULL: none */
    struct monitor *monitor;
    struct serve *serve; /* NULL: not yet, or gone */
    bool in_time;
};

static void on_ended(void *ctx, bool in_time)
{
    struct server *server = ctx;
    server->in_time = in_time;
    server->serve = NULL;
    monitor_close(server->monitor);
    server->monitor = NULL;
    stop_signals_close(&server->stop);
}

static void on_stop(void *ctx, const char *name, int number, bool again)
{
    struct server *server = ctx;
    if (!server->serve) {
        log_event(LOG_INFO, "stopped before the model was loaded", LOG_TEXT("signal", name));
        log_close();
        server->invocation->leave(COMMAND_OK);
    }
    if (again) {
        log_event(LOG_WARN, "second signal: exiting at once", LOG_TEXT("signal", name));
        log_close();
        server->invocation->leave(128 + number);
    }
    log_event(LOG_INFO, "stopping: answering what was taken; a second signal exits at once",
              LOG_TEXT("signal", name));
    monitor_stopping(server->monitor);
    serve_drain(server->serve, on_ended, server);
}

static int open_serve(struct server *server)
{
    const struct settings *settings = server->settings;
    struct serve_setup setup = {
        .settings = settings,
        .set = &server->set,
        .caches = server->caches,
        .n_threads = (size_t)settings_number(settings, "threads"),
        .session = {.bad_utf8 = (enum bad_utf8)settings_choice(settings, "bad_utf8"),
                    .too_long = strcmp(settings_text(settings, "too_long"), "truncate") == 0
                                    ? TOO_LONG_TRUNCATE
                                    : TOO_LONG_ERROR,
                    .dim = strtoul(settings_text(settings, "dim"), NULL, 10)},
        .monitor = server->monitor};
    if (setup.n_threads == 0)
        setup.n_threads = cpus_usable("");
    int code = serve_setup_caches(server->caches, settings, &server->set, &setup.session);
    return code == COMMAND_OK ? serve_setup_open(&server->serve, &server->loop, &setup) : code;
}

static int open_monitor(struct server *server)
{
    char err[400];
    int rc = monitor_open(&server->monitor, &server->loop,
                          settings_text(server->settings, "metrics.listen"),
                          model_info(server->set.models[0]), err, sizeof err);
    if (rc != 0)
        return serve_setup_fail("metrics.listen", err, rc);
    if (monitor_address(server->monitor)[0])
        log_event(LOG_INFO, "serving metrics",
                  LOG_TEXT("listen", monitor_address(server->monitor)));
    return COMMAND_OK;
}

/* A handle that lives as long as the server: nothing of the server itself keeps the loop alive. */
static void on_nothing(uv_timer_t *timer)
{
    (void)timer;
}

static int serve_all(struct server *server)
{
    uv_timer_t life;
    signal(SIGPIPE, SIG_IGN); /* a client that is gone is an error of write() */
    stop_signals_open(&server->stop, &server->loop, on_stop, server);
    int code = model_load_set(&server->set, &server->loop, server->settings);
    if (code == COMMAND_OK)
        code = open_monitor(server);
    if (code == COMMAND_OK)
        code = open_serve(server);
    if (code != COMMAND_OK) {
        /* Closes what is there already, as after a stop. */
        on_ended(server, true);
        uv_run(&server->loop, UV_RUN_DEFAULT);
        return code;
    }
    uv_timer_init(&server->loop, &life);
    uv_timer_start(&life, on_nothing, 3600 * 1000, 3600 * 1000);
    while (server->serve)
        uv_run(&server->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&life, NULL);
    uv_run(&server->loop, UV_RUN_DEFAULT);
    if (!server->in_time)
        log_event(LOG_WARN, "drain_timeout passed: some requests were answered by 503");
    return server->in_time ? COMMAND_OK : COMMAND_DEADLINE;
}

static int run(const struct invocation *invocation)
{
    struct server server = {.invocation = invocation, .settings = invocation->settings};
    command_line_log(server.settings);
    if (uv_loop_init(&server.loop) != 0)
        return command_line_fail("serve", COMMAND_INTERNAL,
                                 "cannot open an event loop: too many open files or watches");
    int code = serve_all(&server);
    serve_setup_caches_close(server.caches, server.set.n);
    uv_loop_close(&server.loop);
    model_set_close(&server.set);
    log_close();
    return code;
}

static int prepare(const struct invocation *invocation)
{
    return command_line_check("serve", invocation->options, config_check_serve);
}

/* What is about queues, lines and records it has not. */
static bool is_wanted(const char *name)
{
    static const char *const wanted[] = {
        "model",     "models",        "prompt",        "dim",           "too_long",
        "bad_utf8",  "cache",         "cache_size",    "cache_memory",  "threads",
        "kernels",   "precision",     "missing_dense", "max_texts",     "max_text_size",
        "log_level", "drain_timeout", "log_format",    "metrics.listen"};
    return name_in(name, wanted, sizeof wanted / sizeof wanted[0]) ||
           strncmp(name, "http.", 5) == 0;
}

const struct command command_serve = {
    .name = "serve",
    .summary = "serves embeddings over HTTP with OpenAI's API; needs no broker",
    .synopsis = "[--config FILE] [OPTION...]",
    .text = "Answer POST /v1/embeddings at --http-listen with the same model, prompts and vectors "
            "as `run`, `embed` and `index`; with a reranker, POST /v1/rerank with the scores of "
            "`rerank`. docs/http.md describes requests, answers and errors. "
            "SIGTERM, SIGINT and SIGHUP answer what was taken, refuse the rest by 503, and exit; a "
            "second signal exits at once.",
    .endings = endings,
    .presets = presets,
    .wanted = is_wanted,
    .prepare = prepare,
    .run = run,
};
