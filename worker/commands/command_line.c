/*
 * command_line.c: see command_line.h.
 */
#include "worker/commands/command_line.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "worker/commands/command.h"
#include "worker/config/catalog.h"
#include "worker/telemetry/log.h"

int command_line_fail(const char *command, int code, const char *why)
{
    fprintf(stderr, "embedmill %s: %s\n", command, why);
    return code;
}

int command_line_fail_option(const char *command, const struct options *options, const char *name,
                             const char *why)
{
    bool is_flag = options_origin(options, name) == ORIGIN_FLAG;
    return command_line_fail(command, is_flag ? COMMAND_USAGE : COMMAND_CONFIG, why);
}

int command_line_check(const char *command, const struct options *options,
                       int (*check)(const struct options *options, const char **bad_option,
                                    char *err, size_t err_size))
{
    const char *name = NULL;
    char err[1200];
    int rc = check(options, &name, err, sizeof err);
    return rc == 0         ? COMMAND_OK
           : rc == -EINVAL ? command_line_fail_option(command, options, name, err)
                           : command_line_fail(command, COMMAND_INTERNAL, err);
}

void command_line_log(const struct settings *settings)
{
    enum log_level level = (enum log_level)settings_choice(settings, "log_level");
    if (strcmp(settings_text(settings, "progress"), "on") == 0 && level > LOG_INFO)
        level = LOG_INFO; /* progress asked for is progress shown, also by a quiet filter */
    log_open(level, (enum log_format)settings_choice(settings, "log_format"), STDERR_FILENO);
}

int command_line_model_code(int rc)
{
    return rc == -ENOMEM ? COMMAND_INTERNAL : rc == -ENOTSUP ? COMMAND_CONFIG : COMMAND_NO_MODEL;
}

int command_line_models(const struct settings *settings,
                        struct command_model out[COMMAND_MODELS_MAX], size_t *n, char *err,
                        size_t err_size)
{
    struct setting pair;
    size_t n_named = 0;
    for (; (pair = settings_pair(settings, "models", n_named)).name; n_named++)
        if (n_named < COMMAND_MODELS_MAX)
            out[n_named] = (struct command_model){pair.name, pair.value};
    if (n_named > COMMAND_MODELS_MAX) {
        snprintf(err, err_size, "%zu models are named, and one process takes %d", n_named,
                 COMMAND_MODELS_MAX);
        return COMMAND_CONFIG;
    }
    if (n_named == 0)
        out[0] = (struct command_model){NULL, settings_text(settings, "model")};
    *n = n_named ? n_named : 1;
    return COMMAND_OK;
}

const char *command_line_model_path(const struct settings *settings)
{
    struct setting first = settings_pair(settings, "models", 0);
    return first.name ? first.value : settings_text(settings, "model");
}

int command_line_open_any(const struct settings *settings, struct model **out, char *err,
                          size_t err_size)
{
    struct command_model models[COMMAND_MODELS_MAX];
    size_t n;
    int code = command_line_models(settings, models, &n, err, err_size);
    if (code == COMMAND_OK && n > 1) {
        snprintf(err, err_size,
                 "%zu models are named, and this command takes one: say which with --model FILE",
                 n);
        code = COMMAND_CONFIG;
    }
    return code == COMMAND_OK ? command_line_open_file(settings, models[0].path, out, err, err_size)
                              : code;
}

int command_line_open_file(const struct settings *settings, const char *path, struct model **out,
                           char *err, size_t err_size)
{
    const char *kernels = settings_text(settings, "kernels");
    if (!path) {
        snprintf(err, err_size,
                 "no model: name its file with --model or EMBEDMILL_MODEL, or set HOME "
                 "so that the default place can be found");
        return COMMAND_NO_MODEL;
    }
    int rc = model_open(out, path, strcmp(kernels, "auto") == 0 ? NULL : kernels,
                        (enum precision)settings_choice(settings, "precision"), err, err_size);
    /* Only where there is no file: how to get it. */
    if (rc == -ENOENT) {
        size_t used = strlen(err);
        char advice[4400] = "fetch it with scripts/get-model; `embedmill models` lists short names";
        const struct catalog_model *model = catalog_of_file(path);
        if (model)
            catalog_advise(model, path, advice, sizeof advice);
        snprintf(err + used, err_size - used, ", or %s", advice);
    }
    if (rc == 0 && !model_info(*out)->has_dense &&
        strcmp(settings_text(settings, "missing_dense"), "refuse") == 0) {
        snprintf(err, err_size,
                 "%s: the file lacks the model's two dense layers, so its vectors are not "
                 "comparable with EmbeddingGemma's; fetch a complete file (scripts/get-model), or "
                 "convert it by llama.cpp's converter with --sentence-transformers-dense-modules; "
                 "--missing-dense allow uses this one for an index that was made with it",
                 path);
        model_close(*out);
        *out = NULL;
        return COMMAND_NO_MODEL;
    }
    return rc == 0 ? COMMAND_OK : command_line_model_code(rc);
}

static int open_kind(const struct settings *settings, bool is_reranker, struct model **out,
                     char *err, size_t err_size)
{
    int code = command_line_open_any(settings, out, err, err_size);
    if (code != COMMAND_OK || model_info(*out)->is_reranker == is_reranker)
        return code;
    snprintf(err, err_size,
             is_reranker ? "%s: this model gives vectors and no scores of pairs; name a reranker "
                           "(docs/models.md), or use `embedmill search`"
                         : "%s: this model is a reranker, which gives scores of pairs and no "
                           "vectors; use it with `embedmill rerank`, and another one here",
             command_line_model_path(settings));
    model_close(*out);
    *out = NULL;
    return COMMAND_NO_MODEL;
}

int command_line_open_model(const struct settings *settings, struct model **out, char *err,
                            size_t err_size)
{
    return open_kind(settings, false, out, err, err_size);
}

int command_line_open_reranker(const struct settings *settings, struct model **out, char *err,
                               size_t err_size)
{
    return open_kind(settings, true, out, err, err_size);
}
