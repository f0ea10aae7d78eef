/*
 * serve_setup.c: see serve_setup.h.
 */
#include "worker/commands/serve_setup.h"

#include <errno.h>

#include "worker/commands/command.h"
#include "worker/pipeline/cache.h"
#include "worker/pipeline/embedder.h"
#include "worker/telemetry/log.h"
#include "worker/telemetry/monitor.h"
#include "worker/telemetry/reports.h"

int serve_setup_fail(const char *option, const char *err, int rc)
{
    log_event(LOG_ERROR, "cannot start", LOG_TEXT("option", option), LOG_TEXT("error", err));
    return rc == -EINVAL                    ? COMMAND_CONFIG
           : rc == -ENOMEM || rc == -EAGAIN ? COMMAND_INTERNAL
                                            : COMMAND_UNAVAILABLE;
}

/* Who hears of requests; one server in a process. */
static struct {
    struct monitor *monitor; /* NULL: gone */
    bool logs;
} watch;

/* No texts: what was asked is the client's business. */
static void on_seen(void *ctx, const struct serve_seen *seen)
{
    (void)ctx;
    if (watch.monitor)
        metrics_serve_seen(&monitor_metrics(watch.monitor)->served, seen);
    if (seen->doubled)
        reports_doubled(seen->doubled, seen->prompt);
    if (watch.logs)
        log_event(
            LOG_INFO, "request", LOG_TEXT("method", seen->method), LOG_TEXT("path", seen->path),
            LOG_INTEGER("status", seen->status), LOG_INTEGER("texts", seen->n_texts),
            LOG_INTEGER("tokens", seen->n_tokens), LOG_INTEGER("cached", seen->n_cached),
            LOG_INTEGER("truncated", seen->n_truncated), LOG_REAL("wait_ms", seen->wait_s * 1e3),
            LOG_REAL("took_ms", seen->took_s * 1e3), LOG_INTEGER("bytes_in", seen->n_bytes_in),
            LOG_INTEGER("bytes_out", seen->n_bytes_out),
            LOG_TEXT("client", seen->is_gone ? "gone" : NULL), LOG_TEXT("model", seen->model_name));
}

void serve_setup_forget_monitor(void)
{
    watch.monitor = NULL;
}

/* All but what is shared. */
static struct serve_options options_of(const struct settings *settings)
{
    const char *prompt = settings_text(settings, "http.prompt");
    return (struct serve_options){
        .where = settings_text(settings, "http.listen"),
        .key_file = settings_text(settings, "http.key_file"),
        .prompt = prompt[0] ? prompt : settings_text(settings, "prompt"),
        .has_page = settings_bool(settings, "http.page"),
        .models = settings_text(settings, "http.models"),
        .connections = (size_t)settings_number(settings, "http.connections"),
        .body_bytes = (size_t)settings_number(settings, "http.body_size"),
        .max_texts = (size_t)settings_number(settings, "max_texts"),
        .max_text_bytes = (size_t)settings_number(settings, "max_text_size"),
        .queue_tokens = (size_t)settings_number(settings, "http.queue_tokens"),
        .timeout_ms = (uint64_t)settings_number(settings, "http.timeout"),
        .drain_ms = (uint64_t)settings_number(settings, "drain_timeout"),
    };
}

static bool is_reranker(const struct model_set *set, size_t i)
{
    return model_info(set->models[i])->is_reranker;
}

int serve_setup_caches(struct cache *out[], const struct settings *settings,
                       const struct model_set *set, const struct session_options *session)
{
    char err[5000];
    size_t n = 0;
    for (size_t i = 0; i < set->n; i++) {
        n += !is_reranker(set, i);
        if (session->dim > model_info(set->models[i])->dim && (set->n == 1 || !is_reranker(set, i)))
            return serve_setup_fail(
                "dim", "the model gives fewer values: set it to 0, which is all of them", -EINVAL);
    }
    if (n == 0 && settings_text(settings, "cache")[0])
        return serve_setup_fail("cache", "a reranker gives no vectors to keep: leave it out",
                                -EINVAL);
    struct cache_options wanted = {
        /* Shared evenly by the models that keep vectors. */
        .memory_bytes = (size_t)settings_number(settings, "cache_memory") / (n ? n : 1),
        .folder = settings_text(settings, "cache"),
        .disk_bytes = (uint64_t)settings_number(settings, "cache_size")};
    for (size_t i = 0; i < set->n; i++) {
        if (is_reranker(set, i))
            continue;
        int rc = cache_open(&out[i], &wanted, set->models[i], &embedder_sessions, session, err,
                            sizeof err);
        if (rc != 0)
            return serve_setup_fail(NULL, err, rc);
        if (!wanted.beside)
            /* One folder and one limit for all: the first one's. */
            wanted.beside = out[i];
    }
    return COMMAND_OK;
}

void serve_setup_caches_close(struct cache *caches[], size_t n)
{
    /* Backwards: the first one has the folder open for all. */
    while (n-- > 0) {
        cache_flush(caches[n]);
        cache_close(caches[n]);
        caches[n] = NULL;
    }
}

int serve_setup_open(struct serve **out, uv_loop_t *loop, const struct serve_setup *setup)
{
    const struct model_set *set = setup->set;
    struct serve_model models[COMMAND_MODELS_MAX];
    struct serve_options options = options_of(setup->settings);
    char err[700];
    options.n_threads = setup->n_threads;
    options.session = setup->session;
    options.pool = setup->pool;
    options.on_seen = on_seen;
    watch.monitor = setup->monitor;
    watch.logs = settings_bool(setup->settings, "http.access_log");
    for (size_t i = 0; i < set->n; i++)
        models[i] = (struct serve_model){set->names[i], set->models[i], setup->caches[i]};
    int rc = serve_open(out, loop, models, set->n, &options, err, sizeof err);
    if (rc != 0)
        return serve_setup_fail(NULL, err, rc);
    if (setup->monitor)
        monitor_serves(setup->monitor, *out);
    log_event(LOG_INFO, is_reranker(set, 0) ? "serving scores" : "serving embeddings",
              LOG_TEXT("listen", serve_address(*out)), LOG_INTEGER("models", set->n),
              LOG_INTEGER("threads", options.n_threads), LOG_TEXT("prompt", options.prompt),
              LOG_TEXT("keys", options.key_file[0] ? "needed" : "none"));
    return COMMAND_OK;
}
