/*
 * command_models.c: `embedmill models`: lists the models that have a short name, and which are
 * here.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "connectors/json.h"
#include "worker/commands/command.h"
#include "worker/commands/command_line.h"
#include "worker/config/catalog.h"

static const struct option models_options[] = {
    {"models.json", OPTION_BOOL, "false", NULL, 0, 0, NULL, "A JSON object for each, one a line."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

static bool is_wanted(const char *name)
{
    return strcmp(name, "models.json") == 0;
}

/* Where the file is or would be; its bytes, or 0. */
static long long file_of(const struct invocation *invocation, const struct catalog_model *model,
                         char *path, size_t size)
{
    struct stat found;
    options_model_path(invocation->options, model->file, path, size);
    return path[0] && stat(path, &found) == 0 ? (long long)found.st_size : 0;
}

static void print_line(const struct catalog_model *model, long long bytes, const char *path)
{
    char advice[4400], dim[16] = "-"; /* of a reranker, which gives scores and no vectors */
    long long megabytes = bytes ? (bytes + 500000) / 1000000 : model->megabytes;
    catalog_advise(model, path, advice, sizeof advice);
    if (!model->is_reranker)
        snprintf(dim, sizeof dim, "%u", (unsigned)model->dim);
    printf("%-38s %5s %6u %5lld  %-10s  %-7s  %s\n", model->name, dim, model->max_tokens, megabytes,
           model->licence, model->languages, bytes ? path : advice);
}

static int print_object(const struct catalog_model *model, long long bytes, const char *path)
{
    struct buffer out = {0};
    char advice[4400];
    catalog_advise(model, path, advice, sizeof advice);
    buffer_put_text(&out, "{\"name\":");
    json_put_text(&out, model->name);
    buffer_put_text(&out, ",\"kind\":");
    json_put_text(&out, model->is_reranker ? "reranker" : "embedding");
    buffer_put_text(&out, ",\"dim\":");
    if (model->is_reranker)
        buffer_put_text(&out, "null");
    else
        json_put_natural(&out, model->dim);
    buffer_put_text(&out, ",\"max_tokens\":");
    json_put_natural(&out, model->max_tokens);
    buffer_put_text(&out, ",\"bytes\":");
    json_put_natural(&out, bytes ? (uint64_t)bytes : (uint64_t)model->megabytes * 1000000);
    buffer_put_text(&out, ",\"licence\":");
    json_put_text(&out, model->licence);
    buffer_put_text(&out, ",\"languages\":");
    json_put_text(&out, model->languages);
    buffer_put_text(&out, ",\"repository\":");
    json_put_text(&out, model->repository);
    buffer_put_text(&out, ",\"file\":");
    json_put_text(&out, path);
    buffer_put_text(&out, bytes ? ",\"cached\":true" : ",\"cached\":false,\"get\":");
    if (!bytes)
        json_put_text(&out, advice);
    buffer_put_text(&out, "}\n");
    fwrite(out.ptr, 1, out.len, stdout);
    int rc = out.status;
    buffer_close(&out);
    return rc;
}

static int run(const struct invocation *invocation)
{
    bool is_json = settings_bool(invocation->settings, "models.json");
    int rc = 0;
    if (!is_json)
        printf("%-38s %5s %6s %5s  %-10s  %-7s  %s\n", "name", "dim", "tokens", "MB", "licence",
               "text in", "file, or how to get it");
    for (const struct catalog_model *model = catalog; model->name && rc == 0; model++) {
        char path[4200];
        long long bytes = file_of(invocation, model, path, sizeof path);
        if (is_json)
            rc = print_object(model, bytes, path);
        else
            print_line(model, bytes, path);
    }
    if (rc)
        return command_line_fail("models", COMMAND_INTERNAL, "out of memory");
    if (fflush(stdout) != 0 || ferror(stdout))
        return command_line_fail("models", COMMAND_IO, "standard output failed");
    return COMMAND_OK;
}

static const struct command_ending endings[] = {{COMMAND_OK, NULL},
                                                {COMMAND_USAGE, NULL},
                                                {COMMAND_INTERNAL, NULL},
                                                {COMMAND_IO, "Standard output failed."},
                                                COMMAND_END};

static const struct flag_alias aliases[] = {{"--json", "models.json"}, {NULL, NULL}};

const struct command command_models = {
    .name = "models",
    .summary = "lists the models that have a short name, and which are here",
    .synopsis = "[--json]",
    .text =
        "List the models that --model takes by name: values in a vector (-: a reranker), tokens "
        "a text may have, megabytes as Q8_0, licence, languages, and the file in the cache or "
        "how to get it. Other models are named by their file.",
    .endings = endings,
    .own = models_options,
    .syntax = {.aliases = aliases},
    .wanted = is_wanted,
    .run = run,
};
