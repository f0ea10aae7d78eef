/*
 * checkup.c: see checkup.h. Nothing here opens a socket.
 *
 * Why:     what `run` would only find when it is too late (an unknown prompt, more threads than
 *          CPUs, too little memory) is found before a deployment.
 */
#include "worker/commands/checkup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "connectors/connector.h"
#include "worker/pipeline/cache.h"
#include "worker/commands/command.h"
#include "worker/commands/command_line.h"
#include "worker/commands/config_check.h"
#include "worker/commands/work_options.h"
#include "worker/config/cpus.h"
#include "connectors/memory.h"
#include "worker/pipeline/pipeline.h"

/* Beside the mapped model: measured with full batches of long texts, rounded up. */
#define BASE_BYTES   (32 << 20)
#define THREAD_BYTES (19 << 20) /* beside its session */
#define LEAST_FILES  64

/* As `run` begins, with its exit codes: a bad flag is wrong usage. */
static void check_options(struct findings *findings, const struct options *options)
{
    const struct settings *settings = options_settings(options);
    const char *name = NULL;
    char err[1200];
    int rc = config_check_run(options, &name, err, sizeof err);
    bool is_flag = rc == -EINVAL && options_origin(options, name) == ORIGIN_FLAG;
    findings_area(findings, "config", is_flag ? COMMAND_USAGE : COMMAND_CONFIG);
    if (rc != 0)
        findings_add(findings, FINDING_BAD, name ? name : "options", "%s", err);
    else
        findings_add(findings, FINDING_OK, "options", "from %s to %s",
                     settings_text(settings, "source"), settings_text(settings, "sink"));
}

static void check_endpoint(struct findings *findings, const struct settings *settings)
{
    const char *listen = settings_text(settings, "metrics.listen");
    findings_area(findings, "config", COMMAND_CONFIG);
    if (!listen || !listen[0])
        findings_add(findings, FINDING_WARN, "metrics.listen",
                     "not set: no metrics, no health checks; give it 127.0.0.1:9464");
}

/* Options that are sound, and nothing for this model. */
static void check_fit(struct findings *findings, const struct settings *settings,
                      const struct model_info *info)
{
    char err[300];
    const struct pipeline_options options = {
        .session.dim = strtoul(settings_text(settings, "dim"), NULL, 10),
        .chunk = {.wanted = strcmp(settings_text(settings, "too_long"), "chunk") == 0,
                  .max_tokens = (size_t)settings_number(settings, "chunk_tokens")}};
    findings_area(findings, "config", COMMAND_CONFIG);
    if (pipeline_fits(&options, info, err, sizeof err) != 0)
        findings_add(findings, FINDING_BAD, "model", "%s", err);
}

/* One of several may be a reranker. */
static struct model *check_model(struct findings *findings, const struct settings *settings,
                                 const struct command_model *which, bool is_one_of_many)
{
    char err[700];
    struct model *model;
    int code = is_one_of_many
                   ? command_line_open_file(settings, which->path, &model, err, sizeof err)
                   : command_line_open_model(settings, &model, err, sizeof err);
    /* The file was sound and this CPU is not: said of the machine. */
    bool is_kernels = code == COMMAND_CONFIG;
    findings_area(findings, is_kernels ? "machine" : "model", code ? code : COMMAND_NO_MODEL);
    if (code != COMMAND_OK) {
        findings_add(findings, FINDING_BAD, is_kernels ? "kernels" : "file", "%s", err);
        return NULL;
    }
    const struct model_info *info = model_info(model);
    findings_add(findings, FINDING_OK, which->name ? which->name : "file", "%s: %s, fingerprint %s",
                 which->path, info->name, info->fingerprint);
    if (!info->has_dense)
        findings_add(findings, FINDING_WARN, "dense layers",
                     "the file lacks them: its vectors are not comparable with those of a "
                     "complete EmbeddingGemma");
    if (info->warning)
        findings_add(findings, FINDING_WARN, "file", "%s", info->warning);
    if (!info->is_reranker)
        check_fit(findings, settings, info);
    return model;
}

/* What `run` makes of them; `serve` takes them in any case. */
static void check_several(struct findings *findings, const struct options *options, size_t n)
{
    const struct settings *settings = options_settings(options);
    const char *name;
    char err[600];
    int rc = config_check_models(options, &name, err, sizeof err);
    if (rc == 0 && work_options_have_outputs(settings))
        findings_add(findings, FINDING_OK, "models",
                     "`serve` serves all %zu of them; in `run` each %swrites an output of its own",
                     n, work_options_have_inputs(settings) ? "reads an input and " : "");
    else
        findings_add(findings, FINDING_WARN, "models", "`serve` serves all %zu of them; `run` %s%s",
                     n, rc == 0 ? "does, too, and embeds messages with the first" : "does not: ",
                     rc == 0 ? "" : err);
}

/* Sets models [COMMAND_MODELS_MAX], those that cannot be used to NULL; returns how many. */
static size_t check_models(struct findings *findings, const struct options *options,
                           struct model *models[])
{
    const struct settings *settings = options_settings(options);
    struct command_model named[COMMAND_MODELS_MAX];
    char err[300];
    size_t n = 0;
    int code = command_line_models(settings, named, &n, err, sizeof err);
    findings_area(findings, "config", COMMAND_CONFIG);
    if (code != COMMAND_OK)
        findings_add(findings, FINDING_BAD, "models", "%s", err);
    else if (n > 1)
        check_several(findings, options, n);
    for (size_t i = 0; i < n; i++)
        models[i] = check_model(findings, settings, &named[i], n > 1);
    return n;
}

static void check_threads(struct findings *findings, const struct settings *settings,
                          const struct model *model)
{
    size_t usable = cpus_usable(""), n_threads = (size_t)settings_number(settings, "threads");
    findings_area(findings, "machine", COMMAND_INTERNAL);
    if (n_threads > usable)
        findings_add(findings, FINDING_WARN, "threads",
                     "%zu, but this process may use %zu CPUs: they will be throttled, and "
                     "the loop with them; leave `threads` out",
                     n_threads, usable);
    else
        findings_add(findings, FINDING_OK, "threads", "%zu of %zu CPUs this process may use",
                     n_threads ? n_threads : usable, usable);
    if (!model)
        return;
    const char *kernels = model_info(model)->kernels;
    if (strcmp(kernels, "generic") == 0)
        findings_add(findings, FINDING_WARN, "kernels", "generic: correct but slow; %s",
                     strcmp(settings_text(settings, "kernels"), "generic") == 0
                         ? "that is asked for; `auto` takes the best"
                         : "this CPU has no instruction set that has kernels here");
    else
        findings_add(findings, FINDING_OK, "kernels", "%s, precision %s", kernels,
                     model_info(model)->precision);
}

/* What one more model adds to a server, which has two sessions for each thread. */
static uint64_t model_memory(const struct model *model, uint64_t n_threads)
{
    const struct model_info *info = model_info(model);
    return info->file_bytes + 2 * n_threads * info->session_bytes;
}

static uint64_t memory_needed(const struct settings *settings, struct model *const *models,
                              size_t n)
{
    const struct model_info *info = model_info(models[0]);
    uint64_t others = 0;
    uint64_t n_threads = (uint64_t)settings_number(settings, "threads");
    uint64_t n_batches = (uint64_t)settings_number(settings, "batches");
    uint64_t vectors = (uint64_t)settings_number(settings, "batch_texts") * info->dim * 4;
    /* As work_options.c has it. */
    n_threads = n_threads ? n_threads : cpus_usable("");
    n_batches = n_batches ? n_batches : n_threads + 2;
    /* A batch holds its texts, its vectors, and its encoded records (twice while they go out). */
    uint64_t batch = 2 * (uint64_t)settings_number(settings, "batch_bytes") + 3 * vectors;
    for (size_t i = 1; i < n; i++)
        others += models[i] ? model_memory(models[i], n_threads) : 0;
    return others + info->file_bytes + BASE_BYTES +
           n_threads * (THREAD_BYTES + info->session_bytes) + n_batches * batch +
           (uint64_t)settings_number(settings, "cache_memory");
}

static void check_memory(struct findings *findings, const struct settings *settings,
                         struct model *const *models, size_t n)
{
    if (n == 0 || !models[0])
        return;
    uint64_t need = memory_needed(settings, models, n) >> 20;
    uint64_t limit = memory_limit(""), total = memory_total(""), available = memory_available("");
    /* A container's limit, which free memory of the machine does not help against. */
    bool is_cgroup = limit < total;
    uint64_t most = (is_cgroup ? limit : total) >> 20;
    if (most && need > most)
        findings_add(findings, FINDING_BAD, "memory",
                     "about %llu MiB are needed (model included) and %s gives %llu MiB: raise it, "
                     "or lower threads, batches or batch_texts",
                     (unsigned long long)need, is_cgroup ? "the cgroup" : "the machine",
                     (unsigned long long)most);
    /* A warning: a mapped model that does not fit is read again, page by page, but nothing
     * fails. */
    else if (available && need > available >> 20)
        findings_add(findings, FINDING_WARN, "memory",
                     "about %llu MiB are needed and %llu MiB are free now: the model will be read "
                     "from disk again and again",
                     (unsigned long long)need, (unsigned long long)available >> 20);
    else
        findings_add(findings, FINDING_OK, "memory", "about %llu MiB needed, %llu MiB there",
                     (unsigned long long)need, (unsigned long long)most);
}

static void check_cache(struct findings *findings, const struct settings *settings)
{
    struct cache_options options = {.folder = settings_text(settings, "cache"),
                                    .disk_bytes =
                                        (uint64_t)settings_number(settings, "cache_size")};
    char said[5000];
    if (!options.folder || !options.folder[0])
        return;
    findings_area(findings, "cache", COMMAND_CONFIG);
    int rc = cache_look(&options, said, sizeof said);
    findings_add(findings, rc ? FINDING_BAD : FINDING_OK, "folder", "%s", said);
}

static void check_files(struct findings *findings)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    findings_add(findings, limit.rlim_cur < LEAST_FILES ? FINDING_BAD : FINDING_OK, "open files",
                 "at most %llu%s", (unsigned long long)limit.rlim_cur,
                 limit.rlim_cur < LEAST_FILES ? ": too few; raise it (ulimit -n, LimitNOFILE=)"
                                              : "");
}

const struct option checkup_options[] = {
    {"json", OPTION_BOOL, "false", NULL, 0, 0, NULL, "The findings as one JSON object."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

bool checkup_is_of_run(const char *name)
{
    return strcmp(name, checkup_options[0].name) != 0;
}

int checkup_run(const struct options *options,
                void (*more)(struct findings *findings, const struct settings *settings,
                             struct model *const *models, size_t n))
{
    struct model *models[COMMAND_MODELS_MAX];
    const struct settings *settings = options_settings(options);
    struct findings findings;
    findings_begin(&findings, stdout, settings_bool(settings, "json"));
    check_options(&findings, options);
    check_endpoint(&findings, settings);
    size_t n = check_models(&findings, options, models);
    check_threads(&findings, settings, n ? models[0] : NULL);
    check_memory(&findings, settings, models, n);
    check_files(&findings);
    check_cache(&findings, settings);
    if (more)
        more(&findings, settings, models, n);
    for (size_t i = 0; i < n; i++)
        model_close(models[i]);
    return findings_end(&findings);
}
