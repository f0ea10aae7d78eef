/*
 * command_bench.c: `embedmill bench`: measures how fast this machine embeds, and where the time
 * goes.
 *
 * Model, kernels, threads and prompt are the worker's own options, so that what is measured is what
 * `run` would do with the same configuration.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "worker/commands/bench.h"
#include "worker/commands/command.h"
#include "worker/commands/command_line.h"
#include "worker/commands/config_check.h"
#include "worker/config/cpus.h"
#include "worker/config/name.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, "Measured."},
    {COMMAND_USAGE, NULL},
    {COMMAND_DATA, "The corpus has no texts, or one that cannot be embedded."},
    {COMMAND_NO_MODEL, NULL},
    {COMMAND_INTERNAL, NULL},
    {COMMAND_CONFIG, NULL},
    COMMAND_END,
};

static const struct option bench_table[] = {
    {"corpus", OPTION_TEXT, NULL, NULL, 0, 0, "FILE",
     "Texts to embed, one a line, the first 128 of them; -: standard input."},
    {"time", OPTION_DURATION, "4s", NULL, 1, 3600 * 1000, "TIME",
     "About how long each figure is measured; at least one pass over the texts."},
    {"json", OPTION_BOOL, "false", NULL, 0, 0, NULL, "One JSON object in place of tables."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

static bool is_wanted(const char *name)
{
    static const char *const ours[] = {"model",  "kernels", "precision", "threads",
                                       "prompt", "corpus",  "time",      "json"};
    return name_in(name, ours, sizeof ours / sizeof *ours);
}

static int fail(int code, const char *what)
{
    return command_line_fail("bench", code, what);
}

static void tell(const char *part)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[Kmeasuring: %s", part);
}

static int read_texts(const char *path, struct bench_texts *texts)
{
    char what[4400];
    int rc = path ? bench_texts_read(texts, path) : bench_texts_make_mixed(texts);
    if (rc == 0)
        return COMMAND_OK;
    if (rc == -ENOMEM)
        return fail(COMMAND_INTERNAL, "out of memory");
    snprintf(what, sizeof what, "--corpus %s: %s", path,
             rc == -ENODATA ? "there is no text in it; put one on each line" : uv_strerror(rc));
    return fail(COMMAND_DATA, what);
}

static int measure(const struct bench_options *options, const struct bench_texts *texts,
                   const char *corpus, bool json)
{
    struct bench_report report = {0};
    struct model *model = NULL;
    char err[600];
    report.corpus = corpus ? corpus : "made of common words, mixed lengths";
    report.n_cpus = cpus_usable("");
    int rc = bench_measure(&report, &model, options, texts, tell, err, sizeof err);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
    if (rc == 0 && json)
        bench_print_json(&report);
    else if (rc == 0)
        bench_print(&report);
    int code = COMMAND_OK;
    if (rc != 0)
        code = fail(model && rc != -ENOMEM ? COMMAND_DATA : command_line_model_code(rc), err);
    model_close(model);
    return code;
}

static int run(const struct invocation *invocation)
{
    const struct settings *settings = invocation->settings;
    const char *kernels = settings_text(settings, "kernels");
    const char *corpus = settings_text(settings, "corpus");
    struct bench_options options = {
        .model = command_line_model_path(settings),
        .kernels = strcmp(kernels, "auto") == 0 ? NULL : kernels,
        .precision = (enum precision)settings_choice(settings, "precision"),
        .prompt = settings_text(settings, "prompt"),
        .n_threads = (size_t)settings_number(settings, "threads"),
        .seconds = (double)settings_number(settings, "time") * 1e-3,
    };
    struct bench_texts texts;
    if (!options.model)
        return fail(COMMAND_NO_MODEL, "no model: name its file with --model or EMBEDMILL_MODEL");
    if (options.n_threads == 0)
        options.n_threads = cpus_usable("");
    int code = read_texts(corpus, &texts);
    if (code == COMMAND_OK) {
        code = measure(&options, &texts, corpus, settings_bool(settings, "json"));
        bench_texts_close(&texts);
    }
    return code;
}

static int prepare(const struct invocation *invocation)
{
    return command_line_check("bench", invocation->options, config_check_names);
}

const struct command command_bench = {
    .name = "bench",
    .summary = "measures how fast this machine embeds, and where the time goes",
    .synopsis = "[OPTION...]",
    .text = "Measure inference on this machine, without a broker: texts and tokens per second with "
            "1, 2, 4 ... threads, where the time goes, how close that is to what the CPU can "
            "multiply, how long one short text takes, and the time from opening the model to the "
            "first vector. The texts are 128 of mixed lengths, made of common words, unless "
            "--corpus names others; a batch is all of them. It takes a minute or two.",
    .endings = endings,
    .own = bench_table,
    .wanted = is_wanted,
    .prepare = prepare,
    .run = run,
};
