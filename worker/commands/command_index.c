/*
 * command_index.c: `embedmill index CORPUS -o OUT`: the worker between two files.
 *
 * Owns:    short names for the options of the connector `file`, what OUT's name says of its format,
 *          the manifest beside OUT, the last word.
 * Why:     it is `run --source file --sink file` and nothing else, so that everything the worker
 *          can do (batches, dead letters, drain) is the same here.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "connectors/file/file.h"
#include "worker/commands/command.h"
#include "worker/commands/command_index.h"
#include "worker/commands/command_line.h"
#include "worker/commands/command_work.h"
#include "worker/index/manifest.h"
#include "worker/pipeline/chunks.h"
#include "worker/pipeline/markdown.h"
#include "worker/telemetry/log.h"
#include "worker/config/name.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, "All records are embedded."},
    {COMMAND_USAGE, NULL},
    {COMMAND_DATA, "Some records are not embedded; OUT.errors.jsonl says which and why."},
    {COMMAND_NO_MODEL, NULL},
    {COMMAND_INTERNAL, NULL},
    {COMMAND_IO, NULL},
    {COMMAND_DEADLINE, "Stopped by a signal, and not finished within drain_timeout."},
    {COMMAND_CONFIG, "Wrong configuration, or OUT was begun with another one."},
    COMMAND_SIGNALLED,
    COMMAND_END,
};

static const struct flag_alias aliases[] = {
    {"-o", "file.output"},       {"--output", "file.output"},   {"--shard", "file.shard"},
    {"--column", "file.column"}, {"--format", "output_format"}, {NULL, NULL}};

static const char *const positionals[] = {"file.path", NULL};

bool command_index_wanted(const char *name)
{
    static const char *const others[] = {"source", "sink", "max_deliveries", "undeliverable",
                                         "allow_mixed"};
    return !name_in(name, others, sizeof others / sizeof others[0]) &&
           (!strchr(name, '.') || strncmp(name, "file.", 5) == 0);
}

/* A file that is written into the folder that is read would be found in it the next time. */
static bool is_inside(const char *output, const char *corpus)
{
    struct stat about;
    char folder[4200], real_folder[PATH_MAX], real_corpus[PATH_MAX];
    const char *slash = strrchr(output, '/');
    if (stat(corpus, &about) != 0 || !S_ISDIR(about.st_mode))
        return false;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - output) + 1 : 1,
             slash ? output : ".");
    /* One that does not exist yet cannot hold the other. */
    if (!realpath(folder, real_folder) || !realpath(corpus, real_corpus))
        return false;
    /* `len == 1` is the root of the file system. */
    size_t len = strlen(real_corpus);
    return strncmp(real_folder, real_corpus, len) == 0 &&
           (real_folder[len] == '/' || real_folder[len] == '\0' || len == 1);
}

void command_index_manifest(struct manifest *manifest, const struct settings *settings,
                            const struct model_info *model, const struct pipeline_options *options)
{
    static const char *const kept[] = {"prompt",        "dtype",      "too_long",    "bad_utf8",
                                       "file.format",   "file.id",    "file.column", "file.shard",
                                       "output_format", "text_field", "id_field"};
    char number[100];
    manifest->len = 0;
    size_t dim = options->session.dim ? options->session.dim : model->dim;
    snprintf(number, sizeof number, "%zu", dim);
    manifest_add(manifest, "model", model->name);
    manifest_add(manifest, "model_fingerprint", model->fingerprint);
    manifest_add(manifest, "precision", model->precision);
    manifest_add(manifest, "dim", number);
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        const char *value = settings_text(settings, kept[i]);
        manifest_add(manifest, kept[i], value ? value : "");
    }
    if (options->output_format == OUTPUT_QDRANT)
        manifest_add(manifest, "output_collection", options->collection);
    if (options->chunk.wanted) {
        snprintf(number, sizeof number, "%zu, %zu repeated%s, " CHUNKS_RULES,
                 options->chunk.max_tokens ? options->chunk.max_tokens : model->max_tokens,
                 options->chunk.overlap, options->chunk.by_markdown ? ", " MARKDOWN_RULES : "");
        manifest_add(manifest, "chunk_tokens", number);
    }
}

void command_index_set_format(const struct settings *settings, struct pipeline_options *options)
{
    const char *path = settings_text(settings, "file.path");
    const char *format = settings_text(settings, "file.format");
    /* Said once for all records: a broken line of a .jsonl is an error then, and no text of its
     * own. */
    bool is_json = file_holds_json(path, format);
    /* Without a name to go by, lines are taken as `embed` takes them. */
    bool is_pipe = strcmp(path, "-") == 0 && strcmp(format, "auto") == 0;
    if (options->decode.format == INPUT_AUTO)
        options->decode.format = is_json ? INPUT_JSON : is_pipe ? INPUT_AUTO : INPUT_RAW;
}

int command_index_begin(const struct settings *settings, const struct model_info *model,
                        struct pipeline_options *options, char *err, size_t err_size)
{
    const char *path = settings_text(settings, "file.path");
    const char *output = settings_text(settings, "file.output");
    if (!path || !*path || !output || !*output) {
        snprintf(err, err_size, "expected a corpus and an output: embedmill index CORPUS -o OUT");
        return COMMAND_USAGE;
    }
    if (is_inside(output, path)) {
        snprintf(err, err_size,
                 "%s lies in the folder %s and would become a part of it: write it "
                 "elsewhere",
                 output, path);
        return COMMAND_CONFIG;
    }
    if (name_ends_with(output, ".npy") && options->output_format != OUTPUT_MSGPACK) {
        snprintf(err, err_size,
                 "%s holds vectors alone, and output_format is %s: leave that out, or name the "
                 "output otherwise",
                 output, settings_text(settings, "output_format"));
        return COMMAND_CONFIG;
    }
    command_index_set_format(settings, options);

    struct manifest manifest;
    command_index_manifest(&manifest, settings, model, options);
    int rc = manifest_compare(&manifest, output, file_output_begun(output), err, err_size);
    return rc == 0 ? COMMAND_OK : rc == -EEXIST ? COMMAND_CONFIG : COMMAND_IO;
}

/* OUT is this process's own only now; before, the manifest beside it was another's. */
int command_index_opened(const struct settings *settings, const struct model_info *model,
                         const struct pipeline_options *options, char *err, size_t err_size)
{
    const char *output = settings_text(settings, "file.output");
    struct manifest manifest;
    if (file_output_begun(output)) /* it is the same, or there is none: an output of `run` */
        return COMMAND_OK;
    command_index_manifest(&manifest, settings, model, options);
    return manifest_write(&manifest, output, err, err_size) == 0 ? COMMAND_OK : COMMAND_IO;
}

/* Products of the model with what was computed; without attention. */
static double gmac_per_second(const struct model_info *model, const struct pipeline_stats *stats,
                              double seconds)
{
    double macs = (double)stats->computed_tokens * (double)model->macs_per_token +
                  (double)stats->computed_texts * (double)model->macs_per_text;
    return seconds > 0 ? macs / seconds * 1e-9 : 0;
}

static int finish(const struct settings *settings, const struct model_info *model,
                  const struct pipeline_stats *stats, double seconds)
{
    const char *output = settings_text(settings, "file.output");
    char errors[4200];
    bool has_errors = name_has_errors(output, errors, sizeof errors);
    log_event(LOG_INFO, "indexed", LOG_TEXT("output", output), LOG_INTEGER("texts", stats->texts),
              LOG_INTEGER("tokens", stats->tokens), LOG_INTEGER("chunks", stats->chunks),
              LOG_INTEGER("truncated", stats->truncated),
              LOG_INTEGER("duplicates", stats->duplicates),
              LOG_INTEGER("cached", stats->memory_hits + stats->disk_hits),
              LOG_INTEGER("dead_letters", stats->dead_letters), LOG_REAL("seconds", seconds),
              LOG_REAL("gmac_per_second", gmac_per_second(model, stats, seconds)));
    if (!has_errors)
        return COMMAND_OK;
    log_event(LOG_WARN, "some records were not embedded", LOG_TEXT("see", errors));
    return COMMAND_DATA;
}

static const struct work index_work = {.command = "index",
                                       .wanted = command_index_wanted,
                                       .begin = command_index_begin,
                                       .opened = command_index_opened,
                                       .finish = finish};

int command_index_set_ends(struct options *options, char *err, size_t err_size)
{
    int rc = 0;
    if (options_origin(options, "source") != ORIGIN_FLAG)
        /* As if by a flag: a configuration that is shared with `run` names a queue here. */
        rc = options_set(options, "source", "file", ORIGIN_FLAG, "index", err, err_size);
    if (rc == 0 && options_origin(options, "sink") != ORIGIN_FLAG)
        rc = options_set(options, "sink", "file", ORIGIN_FLAG, "index", err, err_size);
    return rc;
}

/* The name of OUT says what it holds, unless output_format does. */
static int prepare(const struct invocation *invocation)
{
    struct options *options = invocation->options;
    const char *output = settings_text(invocation->settings, "file.output");
    const char *format = output && name_ends_with(output, ".jsonl") ? "json"
                         : output && name_ends_with(output, ".csv") ? "pgvector"
                                                                    : "msgpack";
    char err[300];
    int rc = command_index_set_ends(options, err, sizeof err);
    if (rc == 0 && options_origin(options, "output_format") == ORIGIN_DEFAULT)
        rc = options_set(options, "output_format", format, ORIGIN_DEFAULT, "the name of OUT", err,
                         sizeof err);
    if (rc != 0)
        return command_line_fail("index", COMMAND_INTERNAL, err);
    return command_work_prepare(&index_work, options);
}

static int run(const struct invocation *invocation)
{
    struct work work = index_work;
    work.leave = invocation->leave;
    return command_work_run(&work, invocation->settings);
}

const struct command command_index = {
    .name = "index",
    .summary = "embeds a file or a folder into an index; resumes where it stopped",
    .synopsis = "CORPUS -o OUT [OPTION...]",
    .text = "Embed the records of CORPUS: lines of a .jsonl (objects with `text`) or of any other "
            "text file, rows of a .csv, the files of a folder, or - for standard input; .gz and "
            ".zst are unpacked. The name of OUT decides its format: .npy (vectors alone; the ids "
            "go to OUT.ids.jsonl), .jsonl, .csv (rows for pgvector), or msgpack; --output-format "
            "overrides it. Killed or stopped, it resumes when you start it again in the same way. "
            "Records that cannot be embedded go to OUT.errors.jsonl, and the exit "
            "code is 65.",
    .endings = endings,
    .syntax = {.aliases = aliases, .positionals = positionals},
    .wanted = command_index_wanted,
    .prepare = prepare,
    .run = run,
};
