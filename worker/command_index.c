/*
 * command_index.c: `embedmill index CORPUS -o OUT`: the worker between two files.
 *
 * Owns:    short names for the options of the connector `file`, what OUT's name says of its format,
 *          the card beside OUT, the last word.
 * Why:     it is `run --source file --sink file` and nothing else, so that everything the worker
 *          can do (batches, dead letters, drain) is the same here.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "connectors/file.h"
#include "worker/command.h"
#include "worker/command_words.h"
#include "worker/command_work.h"
#include "worker/index_card.h"
#include "worker/log.h"
#include "worker/name.h"

static const char usage[] =
    "Usage: embedmill index CORPUS -o OUT [OPTION...]\n"
    "\n"
    "Embed the records of CORPUS: lines of a .jsonl (objects with `text`) or of any other text\n"
    "file, rows of a .csv, the files of a folder, or - for standard input; .gz and .zst are\n"
    "unpacked. OUT is made by its name: .npy (vectors alone; the ids go to OUT.ids.jsonl), "
    ".jsonl,\n"
    "or msgpack. What is killed or stopped goes on where it was when it is started again in the\n"
    "same way. Records that cannot be embedded go to OUT.errors.jsonl, and the exit code is 65.\n"
    "\n"
    "  -o, --output OUT                The same as --file-output.\n"
    "  --shard I/N                     The same as --file-shard: one of N that share CORPUS.\n"
    "  --column NAME                   The same as --file-column: the column of a .csv.\n"
    "  --config FILE                   YAML file with any of the options, shared with `run`.\n"
    "  --print-config                  Print all values and where each comes from, and exit.\n"
    "  -h, --help                      Print this and exit.\n"
    "\n"
    "Exit codes: 0 all embedded; 64 wrong usage; 65 some were not, see OUT.errors.jsonl; 66 no\n"
    "usable model; 70 internal; 74 reading or writing failed; 75 told to stop and not done within\n"
    "drain_timeout; 78 wrong configuration, or OUT was begun with another; 130, 143 told to stop.\n"
    "\n";

static bool is_wanted(const char *name)
{
    static const char *const others[] = {"source", "sink", "max_deliveries", "output_format"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(name, others[i]) == 0)
            return false;
    return !strchr(name, '.') || strncmp(name, "file.", 5) == 0;
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
    if (!realpath(folder, real_folder) || !realpath(corpus, real_corpus))
        return false;
    size_t len = strlen(real_corpus);
    return strncmp(real_folder, real_corpus, len) == 0 &&
           (real_folder[len] == '/' || real_folder[len] == '\0' || len == 1);
}

/* What the vectors depend on. */
static int begin(const struct settings *settings, const struct model_info *model,
                 struct pipeline_options *options, char *err, size_t err_size)
{
    static const char *const kept[] = {"prompt",   "dtype",       "too_long",
                                       "bad_utf8", "file.column", "file.shard"};
    const char *path = settings_text(settings, "file.path");
    const char *output = settings_text(settings, "file.output");
    const char *format = settings_text(settings, "file.format");
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
    bool is_json = file_holds_json(path, format);
    if (options->decode.format == INPUT_AUTO)
        options->decode.format = is_json ? INPUT_JSON : INPUT_RAW;

    struct index_card card = {.len = 0};
    char dim[24];
    snprintf(dim, sizeof dim, "%zu", options->session.dim ? options->session.dim : model->dim);
    index_card_add(&card, "model", model->name);
    index_card_add(&card, "model_fingerprint", model->fingerprint);
    index_card_add(&card, "dim", dim);
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        index_card_add(&card, kept[i], settings_text(settings, kept[i]));
    int rc = index_card_keep(&card, output, err, err_size);
    return rc == 0 ? COMMAND_OK : rc == -EEXIST ? COMMAND_CONFIG : COMMAND_IO;
}

static int finish(const struct settings *settings, const struct pipeline_stats *stats,
                  double seconds)
{
    const char *output = settings_text(settings, "file.output");
    char errors[4200];
    bool has_errors = name_has_errors(output, errors, sizeof errors);
    log_event(LOG_INFO, "indexed", LOG_TEXT("output", output), LOG_INTEGER("texts", stats->texts),
              LOG_INTEGER("tokens", stats->tokens), LOG_INTEGER("truncated", stats->truncated),
              LOG_INTEGER("duplicates", stats->duplicates),
              LOG_INTEGER("cached", stats->memory_hits + stats->disk_hits),
              LOG_INTEGER("dead_letters", stats->dead_letters), LOG_REAL("seconds", seconds));
    if (!has_errors)
        return COMMAND_OK;
    log_event(LOG_WARN, "some records were not embedded", LOG_TEXT("see", errors));
    return COMMAND_DATA;
}

int command_index(int argc, char **argv, void (*leave)(int code))
{
    static const char *const fixed[] = {"--source=file", "--sink=file", NULL};
    static const struct word_alias aliases[] = {{"-o", "--file-output"},
                                                {"--output", "--file-output"},
                                                {"--file-output", "--file-output"},
                                                {"--shard", "--file-shard"},
                                                {"--column", "--file-column"},
                                                {NULL, NULL}};
    static const char *const places[] = {"--file-path", NULL};
    struct words words;
    if (words_open(&words, argc, argv, fixed, aliases, places) != 0)
        return COMMAND_INTERNAL;
    const char *output = words_find(&words, "--file-output");
    bool is_json = output && name_ends_with(output, ".jsonl");
    const struct preset presets[] = {{"source", "file"},
                                     {"sink", "file"},
                                     {"output_format", is_json ? "json" : "msgpack"},
                                     {NULL, NULL}};
    const struct work work = {.command = "index",
                              .usage = usage,
                              .presets = presets,
                              .wanted = is_wanted,
                              .begin = begin,
                              .finish = finish,
                              .leave = leave};
    int code = command_work(&work, words.argc, words.argv);
    words_close(&words);
    return code;
}
