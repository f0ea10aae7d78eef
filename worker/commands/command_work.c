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
#include "worker/pipeline/fanout.h"
#include "worker/pipeline/pipeline.h"
#include "worker/telemetry/progress.h"
#include "worker/telemetry/reports.h"
#include "worker/telemetry/spans.h"
#include "worker/commands/model_load.h"
#include "worker/commands/serve_setup.h"
#include "worker/commands/stop_signals.h"
#include "worker/commands/work_events.h"
#include "worker/commands/work_options.h"

/* A model of the queue, on its way through a pipeline of its own. */
struct lane {
    struct work_lane base; /* first member */
    struct worker *worker;
    size_t model;              /* of worker->set */
    struct settings *settings; /* with its name in its output; NULL: the worker's as they are */
    struct pipeline *pipeline;
    bool has_ended;
    enum pipeline_end how;
};

struct worker {
    const struct work *work;
    const struct settings *settings;
    uv_loop_t loop;
    struct stop_signals stop;
    uv_signal_t counters;
    struct model_set set;                     /* more than one only of a worker that serves, too */
    struct model *model;                      /* the first: that of the first pipeline */
    struct cache *caches[COMMAND_MODELS_MAX]; /* NULL: none */
    struct lane lanes[COMMAND_MODELS_MAX];
    const char *names[COMMAND_MODELS_MAX]; /* of theirs */
    size_t n_lanes;                        /* whose pipeline was opened */
    bool has_inputs;                       /* each lane, of its own */
    struct fanout *fanout;                 /* of several with one input; NULL: there is none */
    struct pool *pool;   /* that pipelines and server share; NULL: the pipeline has its own */
    struct serve *serve; /* NULL: none, or gone */
    bool is_open;        /* all that there will be */
    struct progress *progress;
    struct work_events events;
    struct pipeline_stats stats; /* of all lanes */
    uint64_t opened_ms;
};

static bool has_end(const struct work *work)
{
    return work->is_filter || work->finish;
}

static void close_signals(struct worker *worker)
{
    stop_signals_close(&worker->stop);
    uv_close((uv_handle_t *)&worker->counters, NULL);
    signal(SIGUSR1, SIG_IGN); /* which does not end it, now either */
}

static void count(void *ctx)
{
    struct worker *worker = ctx;
    worker->stats = (struct pipeline_stats){0};
    for (size_t i = 0; i < worker->n_lanes; i++)
        if (worker->lanes[i].pipeline) /* one that could not start has none */
            pipeline_stats_add(&worker->stats, pipeline_stats(worker->lanes[i].pipeline));
}

/* Pipelines and server have ended. */
static void finish(struct worker *worker)
{
    if (!worker->is_open || worker->serve)
        return;
    for (size_t i = 0; i < worker->n_lanes; i++)
        if (!worker->lanes[i].has_ended)
            return;
    progress_log(worker->progress, "stopped");
    progress_close(worker->progress);
    worker->progress = NULL;
    monitor_close(worker->events.monitor);
    worker->events.monitor = NULL;
    spans_close(worker->events.spans);
    worker->events.spans = NULL;
    close_signals(worker);
}

static void on_served(void *ctx, bool in_time)
{
    struct worker *worker = ctx;
    if (!in_time)
        log_event(LOG_WARN, "drain_timeout passed: some requests were answered by 503");
    worker->serve = NULL;
    /* A scrape reads the server's counters, and the server is freed by now. */
    if (worker->events.monitor)
        monitor_serves(worker->events.monitor, NULL);
    finish(worker);
}

/* One of several pipelines ends: all do. */
static void on_ending(void *ctx)
{
    struct worker *worker = ctx;
    for (size_t i = 0; i < worker->n_lanes; i++)
        pipeline_drain(worker->lanes[i].pipeline);
}

static void on_ended(void *ctx, enum pipeline_end how)
{
    struct lane *lane = ctx;
    struct worker *worker = lane->worker;
    lane->how = how;
    lane->has_ended = true;
    if (!worker->fanout) /* which says it as soon as one begins to end */
        on_ending(worker);
    if (worker->is_open && worker->serve)
        serve_drain(worker->serve, on_served, worker);
    else
        finish(worker);
}

static void on_stop(void *ctx, const char *name, int number, bool again)
{
    struct worker *worker = ctx;
    if (!worker->is_open) { /* the model is loading, and nothing was taken yet */
        log_event(LOG_INFO, "stopped before the model was loaded", LOG_TEXT("signal", name));
        log_close();
        worker->work->leave(has_end(worker->work) ? 128 + number : COMMAND_OK);
    }
    count(worker);
    stop_signals_log(name, number, again, worker->stats.inflight_texts, worker->work->leave);
    if (worker->events.monitor)
        monitor_stopping(worker->events.monitor);
    if (worker->serve)
        serve_drain(worker->serve, on_served, worker);
    on_ending(worker);
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

static int open_caches(struct worker *worker, const struct pipeline_options *options)
{
    const struct settings *settings = worker->settings;
    if (worker->set.n > 1)
        return serve_setup_caches(worker->caches, settings, &worker->set, &options->session);
    const struct cache_options wanted = {
        .memory_bytes = (size_t)settings_number(settings, "cache_memory"),
        .folder = settings_text(settings, "cache"),
        .disk_bytes = (uint64_t)settings_number(settings, "cache_size")};
    char err[5000];
    int rc = cache_open(&worker->caches[0], &wanted, worker->model, &embedder_sessions,
                        &options->session, err, sizeof err);
    if (rc)
        log_event(LOG_ERROR, "cannot start", LOG_TEXT("error", err));
    else if (wanted.folder && wanted.folder[0])
        log_event(LOG_INFO, "cache is open", LOG_TEXT("folder", wanted.folder),
                  LOG_INTEGER("vectors", cache_on_disk(worker->caches[0])));
    return rc == 0 ? COMMAND_OK : rc == -ENOMEM ? COMMAND_INTERNAL : COMMAND_CONFIG;
}

/* Threads that several pipelines, or a pipeline and a server, share. */
static int open_pool(struct worker *worker, const struct pipeline_options *options)
{
    char err[300];
    for (size_t i = 0; i < worker->n_lanes; i++) {
        const struct lane *lane = &worker->lanes[i];
        const struct model_info *info = model_info(worker->set.models[lane->model]);
        int rc = pipeline_fits(options, info, err, sizeof err);
        if (rc != 0)
            return serve_setup_fail(worker->set.names[lane->model], err, rc);
    }
    snprintf(err, sizeof err, "cannot start %zu inference threads", options->n_threads);
    int rc = pool_open(&worker->pool, options->n_threads, NULL, NULL, NULL);
    return rc == 0 ? COMMAND_OK : serve_setup_fail(NULL, err, rc);
}

/* A server beside the pipelines, of the same threads. Before them, so that no message is taken when
 * the address cannot be had. */
static int open_serve(struct worker *worker, const struct pipeline_options *options)
{
    const struct serve_setup setup = {.settings = worker->settings,
                                      .set = &worker->set,
                                      .caches = worker->caches,
                                      .n_threads = options->n_threads,
                                      .session = options->session,
                                      .pool = worker->pool,
                                      .monitor = worker->events.monitor};
    return serve_setup_open(&worker->serve, &worker->loop, &setup);
}

/* The first model, or each that gives vectors, where outputs have its name. An exit code. */
static int find_lanes(struct worker *worker)
{
    bool has_outputs = work_options_have_outputs(worker->settings);
    worker->has_inputs = !has_end(worker->work) && work_options_have_inputs(worker->settings);
    for (size_t i = 0; i < worker->set.n; i++) {
        struct lane *lane = &worker->lanes[worker->n_lanes];
        if (i > 0 && (!has_outputs || model_info(worker->set.models[i])->is_reranker))
            continue;
        *lane = (struct lane){
            {&worker->events, worker->n_lanes++, model_info(worker->set.models[i])->name},
            .worker = worker,
            .model = i};
        if ((has_outputs || worker->has_inputs) && worker->set.names[i] &&
            settings_of_model(&lane->settings, worker->settings, worker->set.names[i]))
            return serve_setup_fail(NULL, "out of memory", -ENOMEM);
    }
    worker->events.n_lanes = worker->n_lanes;
    worker->events.n_inputs = worker->has_inputs ? worker->n_lanes : 1;
    if (worker->n_lanes == 1 && !has_end(worker->work) &&
        settings_has(worker->settings, "model_field"))
        return serve_setup_fail("model_field",
                                "leave it out: only one of these models gives vectors", -EINVAL);
    return COMMAND_OK;
}

/* The source of several lanes. */
static int open_fanout(struct worker *worker, const struct pipeline_options *options, char *err,
                       size_t err_size)
{
    const struct settings *settings = worker->settings;
    for (size_t i = 0; i < worker->n_lanes; i++)
        worker->names[i] = worker->set.names[worker->lanes[i].model];
    const struct fanout_options of = {.pool = worker->pool,
                                      .lane = options->lane,
                                      .names = worker->names,
                                      .n = worker->n_lanes,
                                      .decode = options->decode,
                                      .on_ending = on_ending,
                                      .ctx = worker};
    return fanout_open(&worker->fanout, &worker->loop,
                       source_find(settings_text(settings, "source")), settings, &of, err,
                       err_size);
}

static int open_lane(struct lane *lane, const struct pipeline_options *common, char *err,
                     size_t err_size)
{
    struct worker *worker = lane->worker;
    const struct settings *settings = lane->settings ? lane->settings : worker->settings;
    struct pipeline_options options = *common;
    const char *name = worker->set.names[lane->model];
    options.pool = worker->pool;
    options.cache = worker->caches[lane->model];
    if (lane->settings)
        options.collection = settings_text(settings, "output_collection");
    options.model_name = worker->events.n_lanes > 1 ? name : NULL;
    if (worker->fanout) {
        options.fanout = worker->fanout;
        options.fanout_index = lane->base.index;
        options.is_first = lane->base.index == 0;
    }
    int rc = pipeline_open(&lane->pipeline, &worker->loop, worker->set.models[lane->model],
                           source_find(settings_text(settings, "source")),
                           sink_find(settings_text(settings, "sink")), settings, &options, on_ended,
                           lane, err, err_size);
    if (rc == 0 && worker->events.monitor)
        monitor_watch(worker->events.monitor, lane->pipeline, name);
    return rc;
}

/* What was opened drains and ends if not all can be. */
static int open_lanes(struct worker *worker, const struct pipeline_options *options, char *err,
                      size_t err_size)
{
    size_t n = worker->n_lanes;
    int rc = n > 1 && !worker->has_inputs ? open_fanout(worker, options, err, err_size) : 0;
    worker->n_lanes = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = open_lane(&worker->lanes[i], options, err, err_size);
        worker->n_lanes += rc == 0;
    }
    if (rc != 0)
        on_ending(worker);
    if (worker->fanout)
        fanout_begin(worker->fanout);
    return rc;
}

/* What `begin` and `opened` of the work say. */
static int check_work(int code, const char *err)
{
    if (code != COMMAND_OK)
        log_event(LOG_ERROR, "cannot start", LOG_TEXT("error", err));
    return code;
}

/* All that pipelines need, before any message is taken. */
static int open_around(struct worker *worker, struct pipeline_options *options)
{
    const struct work *work = worker->work;
    char err[600] = "";
    bool serves = !has_end(work) && settings_text(worker->settings, "http.listen")[0];
    work_events_set(&worker->events, options);
    int code = work->begin ? check_work(work->begin(worker->settings, model_info(worker->model),
                                                    options, err, sizeof err),
                                        err)
                           : COMMAND_OK;
    if (code == COMMAND_OK)
        code = open_caches(worker, options);
    if (code == COMMAND_OK)
        code = find_lanes(worker);
    if (worker->n_lanes > 1 && settings_has(worker->settings, "model_field"))
        options->decode.model_field = settings_text(worker->settings, "model_field");
    if (code == COMMAND_OK && (serves || worker->n_lanes > 1))
        code = open_pool(worker, options);
    if (code == COMMAND_OK && serves)
        code = open_serve(worker, options);
    return code;
}

static int open_pipelines(struct worker *worker)
{
    const struct settings *settings = worker->settings;
    struct pipeline_options options = work_options(settings);
    const char *source = settings_text(settings, "source"), *sink = settings_text(settings, "sink");
    char err[600] = "";
    int code = open_around(worker, &options);
    if (code != COMMAND_OK)
        return code;
    /* Rates of a command that ends are of the time from here, without the loading of the model. */
    worker->opened_ms = uv_now(&worker->loop);
    int rc = open_lanes(worker, &options, err, sizeof err);
    if (rc == 0 && worker->work->opened) {
        code = check_work(
            worker->work->opened(settings, model_info(worker->model), &options, err, sizeof err),
            err);
        if (code != COMMAND_OK) /* nothing was read yet, and nothing is to be drained */
            worker->work->leave(code);
    }
    if (rc == 0) {
        worker->is_open = true;
        log_event(LOG_INFO, "started", LOG_TEXT("source", source), LOG_TEXT("sink", sink),
                  LOG_INTEGER("threads", options.n_threads), LOG_TEXT("prompt", options.prompt),
                  LOG_INTEGER("models", worker->n_lanes));
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

/* The lane that ended worst: the others ended because of it, or well. */
static const struct lane *worst_lane(const struct worker *worker)
{
    const struct lane *worst = &worker->lanes[0];
    for (size_t i = 1; i < worker->n_lanes; i++)
        if (worker->lanes[i].how > worst->how)
            worst = &worker->lanes[i];
    return worst;
}

static int report_end(const struct worker *worker)
{
    const struct pipeline_stats *stats = &worker->stats;
    const struct lane *lane = worst_lane(worker);
    bool is_filter = worker->work->is_filter;
    switch (lane->how) {
    case PIPELINE_FAILED:
        if (!is_filter || !stdout_is_closed())
            log_event(LOG_ERROR, "failed", LOG_TEXT("error", pipeline_failure(lane->pipeline)));
        return has_end(worker->work) ? COMMAND_IO : COMMAND_UNAVAILABLE;
    case PIPELINE_DEADLINE:
        log_event(LOG_WARN,
                  is_filter ? "drain_timeout passed: the rest was not embedded"
                            : "drain_timeout passed: what was not finished will be delivered again",
                  LOG_INTEGER("unfinished", stats->inflight_texts));
        return COMMAND_DEADLINE;
    case PIPELINE_UNFLUSHED:
        log_event(LOG_WARN, "what was finished last will be delivered again",
                  LOG_TEXT("why", pipeline_failure(lane->pipeline)));
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
    /* Each model has all texts, unless they choose one. */
    bool are_all = worker->fanout && !settings_has(worker->settings, "model_field");
    struct progress_options options = {
        .status_line = when != 2 && log_is_terminal() && !mixes,
        .interval_ms = (uint64_t)settings_number(worker->settings, "progress_interval"),
        .total_texts =
            (uint64_t)settings_number(worker->settings, "total") * (are_all ? worker->n_lanes : 1),
        .input = &worker->events.input,
        .metrics = worker->events.monitor ? monitor_metrics(worker->events.monitor) : NULL,
        .count = count,
        .ctx = worker,
    };
    options.log_lines =
        !options.status_line && (when == 1 || (when == 0 && !worker->work->is_filter));
    return progress_open(&worker->progress, &worker->loop, &worker->stats, &options);
}

/* Several where requests may name them, or where each has an output. */
static int load_models(struct worker *worker)
{
    const struct settings *settings = worker->settings;
    struct model_set *set = &worker->set;
    int code;
    bool has_several = settings_pair(settings, "models", 1).name != NULL;
    bool are_used =
        settings_text(settings, "http.listen")[0] || work_options_have_outputs(settings);
    if (has_several && !has_end(worker->work) && are_used) {
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

static void close_lanes(struct worker *worker)
{
    for (size_t i = 0; i < worker->n_lanes; i++)
        pipeline_close(worker->lanes[i].pipeline);
    for (size_t i = 0; i < COMMAND_MODELS_MAX; i++)
        settings_close(worker->lanes[i].settings);
    fanout_free(worker->fanout);
}

/* Everything between the log's opening and its closing. */
static int run(const struct work *work, const struct settings *settings)
{
    struct worker worker = {.work = work, .settings = settings};
    worker.events = (struct work_events){.has_end = has_end(work), .caches = worker.caches};
    if (uv_loop_init(&worker.loop) != 0) {
        log_event(LOG_ERROR, "cannot open an event loop: too many open files or watches");
        return COMMAND_INTERNAL;
    }
    open_signals(&worker);
    int code = load_models(&worker);
    if (code == COMMAND_OK)
        code = work_events_open(&worker.events, &worker.loop, settings, model_info(worker.model));
    worker.events.n_caches = worker.set.n;
    if (code == COMMAND_OK)
        code = open_pipelines(&worker);
    if (!worker.is_open) {
        serve_setup_forget_monitor();
        monitor_close(worker.events.monitor);
        worker.events.monitor = NULL; /* the source may still be closing, and has events */
        spans_close(worker.events.spans);
        worker.events.spans = NULL;
        if (worker.serve)
            serve_drain(worker.serve, on_served, &worker);
        close_signals(&worker);
    } else if (open_progress(&worker) != 0) {
        /* Threads are running and messages taken: an orderly end would need the memory that is
         * missing. */
        log_event(LOG_ERROR, "out of memory");
        work->leave(COMMAND_INTERNAL);
    }
    uv_run(&worker.loop, UV_RUN_DEFAULT);
    count(&worker);
    if (worker.is_open)
        code = report_end(&worker);
    close_lanes(&worker);
    pool_close(worker.pool);
    /* After the pool: its threads add vectors until they have ended. */
    for (size_t i = 0; i < worker.set.n; i++)
        cache_flush(worker.caches[i]);
    work_events_cache(&worker.events);
    serve_setup_caches_close(worker.caches, worker.set.n);
    uv_loop_close(&worker.loop);
    model_set_close(&worker.set);
    return code;
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
        return command_line_fail(work->command, COMMAND_USAGE, err);
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
            return command_line_fail(work->command, COMMAND_INTERNAL, err);
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
    if (code == COMMAND_OK)
        code = command_line_check(work->command, options,
                                  has_end(work) ? config_check : config_check_run);
    if (code == COMMAND_OK && !has_end(work))
        code = command_line_check(work->command, options, config_check_models);
    return code;
}

int command_work_run(const struct work *work, const struct settings *settings)
{
    command_line_log(settings);
    int code = run(work, settings);
    log_close();
    return code;
}
