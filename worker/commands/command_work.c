/*
 * command_work.c: see command_work.h. In order of time, from the bottom: read options, open the
 * log and the model, run the loop until the pipeline has ended, say how it ended.
 */
#include "worker/commands/command_work.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "connectors/connector.h"
#include "inference/embed.h"
#include "worker/pipeline/cache.h"
#include "worker/commands/command.h"
#include "worker/commands/command_line.h"
#include "worker/commands/config_check.h"
#include "worker/config/cpus.h"
#include "worker/telemetry/log.h"
#include "worker/telemetry/monitor.h"
#include "worker/pipeline/pipeline.h"
#include "worker/telemetry/progress.h"
#include "worker/telemetry/reports.h"
#include "worker/telemetry/spans.h"
#include "worker/commands/model_load.h"
#include "worker/commands/serve_setup.h"
#include "worker/commands/stop_signals.h"
#include "worker/commands/work_options.h"

struct worker {
    const struct work *work;
    const struct settings *settings;
    uv_loop_t loop;
    struct stop_signals stop;
    uv_signal_t counters;
    struct model_set set;                     /* more than one only of a worker that serves, too */
    struct model *model;                      /* the first: that of the pipeline */
    struct cache *caches[COMMAND_MODELS_MAX]; /* NULL: none */
    struct pipeline *pipeline;
    struct pool *pool;   /* that pipeline and server share; NULL: there is no server */
    struct serve *serve; /* NULL: none, or gone */
    bool has_ended;      /* the pipeline */
    struct progress *progress;
    struct monitor *monitor;     /* NULL for work that has an end */
    struct spans *spans;         /* NULL: none */
    struct progress_input input; /* of a source that knows its size */
    uint64_t opened_ms;
    enum pipeline_end how;
    bool lag_dropped; /* and told of */
};

static bool has_end(const struct work *work)
{
    return work->is_filter || work->finish;
}

static void on_link(void *ctx, enum side side, enum link_state state, const char *why)
{
    const struct worker *worker = ctx;
    if (worker->monitor)
        metrics_on_link(monitor_metrics(worker->monitor), side, state);
    reports_link(side, state, why);
}

static void on_dead_letter(void *ctx, const struct message *message, const char *code,
                           const char *reason)
{
    const struct worker *worker = ctx;
    if (has_end(worker->work))
        return; /* the sink tells of each, in order */
    metrics_on_dead_letter(monitor_metrics(worker->monitor), code);
    reports_dead_letter(message, code, reason, false);
}

static void on_undeliverable(void *ctx, const struct message *message, const char *code,
                             const char *reason)
{
    (void)ctx;
    reports_dead_letter(message, code, reason, true);
}

static void on_lag(void *ctx, const char *part, int64_t lag)
{
    struct worker *worker = ctx;
    if (!worker->monitor)
        return;
    bool is_shown = metrics_on_lag(monitor_metrics(worker->monitor), part, lag);
    if (is_shown || worker->lag_dropped)
        return;
    worker->lag_dropped = true;
    log_event(LOG_WARN,
              "the input has more parts than their lag is shown of: "
              "embedmill_source_lag misses some; the messages are worked on all the same",
              LOG_INTEGER("most", SERIES_MAX), LOG_TEXT("part", part));
}

static void report_cache(const struct worker *worker)
{
    char why[5000];
    for (size_t i = 0; i < worker->set.n; i++)
        if (cache_complaint(worker->caches[i], why, sizeof why))
            log_event(LOG_WARN, "cache", LOG_TEXT("error", why));
}

static void on_embedded(void *ctx, const struct batch *batch)
{
    const struct worker *worker = ctx;
    report_cache(worker);
    if (worker->monitor)
        metrics_on_embedded(monitor_metrics(worker->monitor), batch);
    if (worker->spans)
        spans_add(worker->spans, batch);
}

static void on_published(void *ctx, const struct entry *entry)
{
    metrics_on_published(monitor_metrics(((const struct worker *)ctx)->monitor), entry);
}

static void on_count(void *ctx, enum counter what, uint64_t n)
{
    struct worker *worker = ctx;
    if (!progress_input_count(&worker->input, what, n) && worker->monitor)
        metrics_on_count(monitor_metrics(worker->monitor), what, n);
}

static void on_skipped(void *ctx, const struct skipped *skipped)
{
    struct worker *worker = ctx;
    reports_skipped(skipped);
    if (worker->monitor)
        metrics_on_skipped(monitor_metrics(worker->monitor), skipped);
}

static void on_notice(void *ctx, enum side side, enum notice level, const char *code,
                      const char *text)
{
    (void)ctx;
    reports_notice(side, level, code, text);
}

static void on_doubled(void *ctx, const struct prompt *had, const struct prompt *given)
{
    (void)ctx;
    reports_doubled(had, given);
}

static void close_signals(struct worker *worker)
{
    stop_signals_close(&worker->stop);
    uv_close((uv_handle_t *)&worker->counters, NULL);
    signal(SIGUSR1, SIG_IGN); /* which does not end it, now either */
}

/* Pipeline and server have ended. */
static void finish(struct worker *worker)
{
    if (!worker->has_ended || worker->serve)
        return;
    progress_log(worker->progress, "stopped");
    progress_close(worker->progress);
    worker->progress = NULL;
    monitor_close(worker->monitor);
    worker->monitor = NULL;
    spans_close(worker->spans);
    worker->spans = NULL;
    close_signals(worker);
}

static void on_served(void *ctx, bool in_time)
{
    struct worker *worker = ctx;
    if (!in_time)
        log_event(LOG_WARN, "drain_timeout passed: some requests were answered by 503");
    worker->serve = NULL;
    /* A scrape reads the server's counters, and the server is about to be freed. */
    if (worker->monitor)
        monitor_serves(worker->monitor, NULL);
    finish(worker);
}

static void on_ended(void *ctx, enum pipeline_end how)
{
    struct worker *worker = ctx;
    worker->how = how;
    worker->has_ended = true;
    if (worker->serve)
        serve_drain(worker->serve, on_served, worker);
    else
        finish(worker);
}

static void on_stop(void *ctx, const char *name, int number, bool again)
{
    struct worker *worker = ctx;
    if (!worker->pipeline) { /* the model is loading, and nothing was taken yet */
        log_event(LOG_INFO, "stopped before the model was loaded", LOG_TEXT("signal", name));
        log_close();
        worker->work->leave(has_end(worker->work) ? 128 + number : COMMAND_OK);
    }
    stop_signals_log(name, number, again, pipeline_stats(worker->pipeline)->inflight_texts,
                     worker->work->leave);
    if (worker->monitor)
        monitor_stopping(worker->monitor);
    if (worker->serve)
        serve_drain(worker->serve, on_served, worker);
    pipeline_drain(worker->pipeline);
}

static void on_counters(uv_signal_t *handle, int number)
{
    const struct worker *worker = handle->data;
    (void)number;
    if (worker->progress)
        progress_log(worker->progress, "counters");
}

static void open_signals(struct worker *worker)
{
    signal(SIGPIPE, SIG_IGN); /* a reader that is gone is an error of write() */
    stop_signals_open(&worker->stop, &worker->loop, on_stop, worker);
    uv_signal_init(&worker->loop, &worker->counters);
    worker->counters.data = worker;
    uv_signal_start(&worker->counters, on_counters, SIGUSR1);
    uv_unref((uv_handle_t *)&worker->counters);
}

static int open_spans(struct worker *worker)
{
    const char *path = settings_text(worker->settings, "trace.file");
    const struct spans_about about = {.source = settings_text(worker->settings, "source"),
                                      .model = model_info(worker->model)->name};
    char err[300];
    if (!path[0] || spans_open(&worker->spans, &worker->loop, path, &about, err, sizeof err) == 0)
        return COMMAND_OK;
    log_event(LOG_ERROR, "cannot start", LOG_TEXT("option", "trace.file"), LOG_TEXT("error", err));
    return COMMAND_CONFIG;
}

static int open_monitor(struct worker *worker)
{
    const char *listen = settings_text(worker->settings, "metrics.listen");
    char err[400];
    if (has_end(worker->work))
        return COMMAND_OK;
    int rc = monitor_open(&worker->monitor, &worker->loop, listen, model_info(worker->model), err,
                          sizeof err);
    if (rc != 0) {
        log_event(LOG_ERROR, "cannot start", LOG_TEXT("option", "metrics.listen"),
                  LOG_TEXT("error", err));
        return rc == -EINVAL   ? COMMAND_CONFIG
               : rc == -ENOMEM ? COMMAND_INTERNAL
                               : COMMAND_UNAVAILABLE;
    }
    if (monitor_address(worker->monitor)[0])
        log_event(LOG_INFO, "serving metrics",
                  LOG_TEXT("listen", monitor_address(worker->monitor)));
    return open_spans(worker);
}

static void set_events(const struct worker *worker, struct pipeline_options *options)
{
    options->observer = (struct observer_ops){.on_link = on_link,
                                              .on_lag = on_lag,
                                              .on_count = on_count,
                                              .on_skipped = on_skipped,
                                              .on_notice = on_notice};
    options->on_dead_letter = on_dead_letter;
    options->on_undeliverable = on_undeliverable;
    options->on_doubled = on_doubled;
    options->on_missing_prompt = reports_missing_prompt;
    options->on_embedded = on_embedded;
    if (worker->monitor)
        options->on_published = on_published;
}

static int open_caches(struct worker *worker, struct pipeline_options *options)
{
    const struct settings *settings = worker->settings;
    if (worker->set.n > 1) {
        int code = serve_setup_caches(worker->caches, settings, &worker->set, &options->session);
        options->cache = worker->caches[0];
        return code;
    }
    const struct cache_options wanted = {
        .memory_bytes = (size_t)settings_number(settings, "cache_memory"),
        .folder = settings_text(settings, "cache"),
        .disk_bytes = (uint64_t)settings_number(settings, "cache_size")};
    char err[5000];
    int rc = cache_open(&worker->caches[0], &wanted, worker->model, &embedder_sessions,
                        &options->session, err, sizeof err);
    options->cache = worker->caches[0];
    if (rc)
        log_event(LOG_ERROR, "cannot start", LOG_TEXT("error", err));
    else if (wanted.folder && wanted.folder[0])
        log_event(LOG_INFO, "cache is open", LOG_TEXT("folder", wanted.folder),
                  LOG_INTEGER("vectors", cache_on_disk(worker->caches[0])));
    return rc == 0 ? COMMAND_OK : rc == -ENOMEM ? COMMAND_INTERNAL : COMMAND_CONFIG;
}

/* A server beside the pipeline, of the same threads. Before it, so that no message is taken when
 * the address cannot be had. */
static int open_serve(struct worker *worker, struct pipeline_options *options)
{
    const char *listen = settings_text(worker->settings, "http.listen");
    if (has_end(worker->work) || !listen[0])
        return COMMAND_OK;
    char err[300];
    int rc = pipeline_fits(options, model_info(worker->model), err, sizeof err);
    if (rc == 0) {
        snprintf(err, sizeof err, "cannot start %zu inference threads", options->n_threads);
        rc = pool_open(&worker->pool, options->n_threads, NULL, NULL, NULL);
    }
    if (rc != 0)
        return serve_setup_fail(NULL, err, rc);
    options->pool = worker->pool;
    const struct serve_setup setup = {.settings = worker->settings,
                                      .set = &worker->set,
                                      .caches = worker->caches,
                                      .n_threads = options->n_threads,
                                      .session = options->session,
                                      .pool = worker->pool,
                                      .monitor = worker->monitor};
    return serve_setup_open(&worker->serve, &worker->loop, &setup);
}

static int open_pipeline(struct worker *worker)
{
    const struct settings *settings = worker->settings;
    struct pipeline_options options = work_options(settings);
    set_events(worker, &options);
    const char *source = settings_text(settings, "source"), *sink = settings_text(settings, "sink");
    char err[600] = "";
    if (worker->work->begin) {
        int code =
            worker->work->begin(settings, model_info(worker->model), &options, err, sizeof err);
        if (code != COMMAND_OK)
            return log_event(LOG_ERROR, "cannot start", LOG_TEXT("error", err)), code;
    }
    int opened = open_caches(worker, &options);
    if (opened == COMMAND_OK)
        opened = open_serve(worker, &options);
    if (opened != COMMAND_OK)
        return opened;
    /* Rates of a command that ends are of the time from here, without the loading of the model. */
    worker->opened_ms = uv_now(&worker->loop);
    int rc = pipeline_open(&worker->pipeline, &worker->loop, worker->model, source_find(source),
                           sink_find(sink), settings, &options, on_ended, worker, err, sizeof err);
    if (rc == 0 && worker->work->opened) {
        int code =
            worker->work->opened(settings, model_info(worker->model), &options, err, sizeof err);
        if (code != COMMAND_OK) { /* nothing was read yet, and nothing is to be drained */
            log_event(LOG_ERROR, "cannot start", LOG_TEXT("error", err));
            worker->work->leave(code);
        }
    }
    if (rc == 0) {
        if (worker->monitor)
            monitor_watch(worker->monitor, worker->pipeline);
        log_event(LOG_INFO, "started", LOG_TEXT("source", source), LOG_TEXT("sink", sink),
                  LOG_INTEGER("threads", options.n_threads), LOG_TEXT("prompt", options.prompt));
        reports_deletes(sink, settings_text(settings, "output_format"), options.output_format);
        return COMMAND_OK;
    }
    log_event(LOG_ERROR, "cannot start", LOG_TEXT("error", err));
    if (rc == -ENOMEM || rc == -EAGAIN)
        return COMMAND_INTERNAL;
    return rc == -EINVAL           ? COMMAND_CONFIG
           : has_end(worker->work) ? COMMAND_IO
                                   : COMMAND_UNAVAILABLE;
}

/* A filter whose reader has left ("| head") has nothing to say about it. */
static bool stdout_is_closed(void)
{
    struct pollfd fd = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&fd, 1, 0) == 1 && (fd.revents & (POLLERR | POLLHUP | POLLNVAL));
}

static int report_end(const struct worker *worker)
{
    const struct pipeline_stats *stats = pipeline_stats(worker->pipeline);
    bool is_filter = worker->work->is_filter;
    switch (worker->how) {
    case PIPELINE_FAILED:
        if (!is_filter || !stdout_is_closed())
            log_event(LOG_ERROR, "failed", LOG_TEXT("error", pipeline_failure(worker->pipeline)));
        return has_end(worker->work) ? COMMAND_IO : COMMAND_UNAVAILABLE;
    case PIPELINE_DEADLINE:
        log_event(LOG_WARN,
                  is_filter ? "drain_timeout passed: the rest was not embedded"
                            : "drain_timeout passed: what was not finished will be delivered again",
                  LOG_INTEGER("unfinished", stats->inflight_texts));
        return COMMAND_DEADLINE;
    case PIPELINE_UNFLUSHED:
        log_event(LOG_WARN, "what was finished last will be delivered again",
                  LOG_TEXT("why", pipeline_failure(worker->pipeline)));
        return COMMAND_DEADLINE;
    case PIPELINE_DRAINED:
        break;
    }
    if (!has_end(worker->work))
        return COMMAND_OK;
    if (worker->stop.number != 0)
        return 128 + worker->stop.number;
    if (worker->work->finish)
        return worker->work->finish(worker->settings, model_info(worker->model), stats,
                                    (double)(uv_now(&worker->loop) - worker->opened_ms) / 1000);
    uint64_t n_without = stats->dead_letters + stats->deleted + stats->unchanged;
    if (n_without == 0)
        return COMMAND_OK;
    log_event(LOG_WARN, "some lines were not embedded; each is reported above",
              LOG_INTEGER("lines", n_without),
              LOG_INTEGER("embedded", stats->messages - stats->deleted - stats->unchanged));
    return COMMAND_DATA;
}

static int open_progress(struct worker *worker)
{
    int when = settings_choice(worker->settings, "progress"); /* auto on off */
    /* A status line would be drawn between the lines of output on the same terminal. */
    bool mixes = worker->work->is_filter && isatty(STDOUT_FILENO);
    struct progress_options options = {
        .status_line = when != 2 && log_is_terminal() && !mixes,
        .interval_ms = (uint64_t)settings_number(worker->settings, "progress_interval"),
        .total_texts = (uint64_t)settings_number(worker->settings, "total"),
        .input = &worker->input,
        .metrics = worker->monitor ? monitor_metrics(worker->monitor) : NULL,
    };
    options.log_lines =
        !options.status_line && (when == 1 || (when == 0 && !worker->work->is_filter));
    return progress_open(&worker->progress, &worker->loop, pipeline_stats(worker->pipeline),
                         &options);
}

/* Beside a queue requests may name other models than the one that messages get. */
static int load_models(struct worker *worker)
{
    const struct settings *settings = worker->settings;
    struct model_set *set = &worker->set;
    int code;
    bool has_several = settings_pair(settings, "models", 1).name != NULL;
    if (has_several && !has_end(worker->work) && settings_text(settings, "http.listen")[0]) {
        code = model_load_set(set, &worker->loop, settings);
    } else {
        code = model_load(&set->models[0], &worker->loop, settings, !worker->work->is_filter);
        set->names[0] = settings_pair(settings, "models", 0).name;
        set->n = code == COMMAND_OK;
    }
    /* Others of a set may well be rerankers: HTTP has a route for them. */
    if (code == COMMAND_OK && model_info(set->models[0])->is_reranker) {
        log_event(LOG_ERROR, "no usable model",
                  LOG_TEXT("error", "the first model is a reranker, which gives messages no "
                                    "vectors; name another one first"));
        code = COMMAND_NO_MODEL;
    }
    worker->model = code == COMMAND_OK ? set->models[0] : NULL;
    return code;
}

/* Everything between the log's opening and its closing. */
static int run(const struct work *work, const struct settings *settings)
{
    struct worker worker = {.work = work, .settings = settings};
    if (uv_loop_init(&worker.loop) != 0) {
        log_event(LOG_ERROR, "cannot open an event loop: too many open files or watches");
        return COMMAND_INTERNAL;
    }
    open_signals(&worker);
    int code = load_models(&worker);
    if (code == COMMAND_OK)
        code = open_monitor(&worker);
    if (code == COMMAND_OK)
        code = open_pipeline(&worker);
    bool opened = code == COMMAND_OK;
    if (!opened) {
        serve_setup_forget_monitor();
        monitor_close(worker.monitor);
        worker.monitor = NULL; /* the source may still be closing, and has events */
        spans_close(worker.spans);
        worker.spans = NULL;
        if (worker.serve)
            serve_drain(worker.serve, on_served, &worker);
        close_signals(&worker);
        /* Threads are running and messages taken: an orderly end would need the memory that is
         * missing. */
    } else if (open_progress(&worker) != 0) {
        log_event(LOG_ERROR, "out of memory");
        work->leave(COMMAND_INTERNAL);
    }
    uv_run(&worker.loop, UV_RUN_DEFAULT);
    if (opened)
        code = report_end(&worker);
    pipeline_close(worker.pipeline);
    pool_close(worker.pool);
    /* After the pool: its threads add vectors until they have ended. */
    for (size_t i = 0; i < worker.set.n; i++)
        cache_flush(worker.caches[i]);
    report_cache(&worker);
    serve_setup_caches_close(worker.caches, worker.set.n);
    uv_loop_close(&worker.loop);
    model_set_close(&worker.set);
    return code;
}

static int fail(const struct work *work, int code, const char *why)
{
    return command_line_fail(work->command, code, why);
}

/* Files and environments may be shared with `run`, but a flag was meant for this command. */
static int refuse_unwanted(const struct work *work, const struct options *options)
{
    const struct option *option;
    char flag[128], err[300];
    for (size_t i = 0; (option = options_at(options, i)); i++) {
        if (work->wanted(option->name) || options_origin(options, option->name) != ORIGIN_FLAG)
            continue;
        options_flag_name(option->name, flag, sizeof flag);
        snprintf(err, sizeof err,
                 "--%s: this command reads standard input and writes standard output, so it has no "
                 "such flag; `embedmill run` has",
                 flag);
        return fail(work, COMMAND_USAGE, err);
    }
    return COMMAND_OK;
}

/* A filter has its source and sink, and reads lines. */
static int fix_filter(const struct work *work, struct options *options)
{
    static const char *const ends[][2] = {{"source", "stdin"}, {"sink", "stdout"}};
    char err[300];
    int code = refuse_unwanted(work, options);
    if (code != COMMAND_OK)
        return code;
    for (size_t i = 0; i < 2; i++)
        if (options_set(options, ends[i][0], ends[i][1], ORIGIN_FLAG, "embed", err, sizeof err) !=
            0)
            return fail(work, COMMAND_INTERNAL, err);
    if (strcmp(settings_text(options_settings(options), "input_format"), "msgpack") != 0)
        return COMMAND_OK;
    options_explain(options, "input_format",
                    "expected auto, raw or json, for standard input is read by lines", err,
                    sizeof err);
    return command_line_fail_option(work->command, options, "input_format", err);
}

int command_work_prepare(const struct work *work, struct options *options)
{
    int code = work->is_filter ? fix_filter(work, options) : COMMAND_OK;
    return code != COMMAND_OK ? code
                              : command_line_check(work->command, options,
                                                   has_end(work) ? config_check : config_check_run);
}

int command_work_run(const struct work *work, const struct settings *settings)
{
    command_line_log(settings);
    int code = run(work, settings);
    log_close();
    return code;
}
