/*
 * model_load.c: see model_load.h.
 */
#include "worker/commands/model_load.h"

#include <stdio.h>
#include <string.h>

#include "worker/codec/prompt.h"
#include "worker/commands/command.h"
#include "worker/commands/command_line.h"
#include "worker/commands/selftest.h"
#include "worker/telemetry/log.h"

struct load {
    uv_work_t work;
    const struct settings *settings;
    const char *path; /* of one of several ... */
    bool takes_any;   /* ... or a reranker; else the only one, of vectors */
    bool prove;
    /* What came of it. */
    struct model *model;
    int code;
    char err[700];
    uint64_t took_ms;
    bool proven;
    struct selftest test;
};

static void on_work(uv_work_t *work)
{
    struct load *load = work->data;
    uint64_t began = uv_hrtime();

    load->code = load->takes_any ? command_line_open_file(load->settings, load->path, &load->model,
                                                          load->err, sizeof load->err)
                                 : command_line_open_model(load->settings, &load->model, load->err,
                                                           sizeof load->err);
    /* On a thread of libuv's: the loop stays free to hear a signal while a cold file is read. */
    if (load->code == COMMAND_OK && model_prepare_prompts(load->model)) {
        snprintf(load->err, sizeof load->err, "not enough memory for the prompts of the model");
        load->code = COMMAND_INTERNAL;
        model_close(load->model);
        load->model = NULL;
    }
    load->took_ms = (uv_hrtime() - began) / 1000000;
    if (load->code == COMMAND_OK && load->prove && !model_info(load->model)->is_reranker)
        load->proven = selftest_run(load->model, &load->test) == 0;
}

static void log_model(const struct load *load, const char *called)
{
    const char *path = load->path;
    const struct model_info *info = model_info(load->model);

    log_event(LOG_INFO, "model is ready", LOG_TEXT("name", info->name),
              LOG_TEXT("fingerprint", info->fingerprint), LOG_TEXT("kernels", info->kernels),
              LOG_TEXT("precision", info->precision), LOG_INTEGER("dim", info->dim),
              LOG_TEXT("file", path), LOG_INTEGER("took_ms", load->took_ms),
              LOG_TEXT("model", called));
    if (!info->has_dense)
        log_event(LOG_WARN,
                  "this model file lacks the two dense layers: its vectors are not comparable "
                  "with those of a complete EmbeddingGemma",
                  LOG_TEXT("file", path));
    if (info->warning)
        log_event(LOG_WARN, info->warning, LOG_TEXT("file", path));
}

/* A prompt that was asked for and that the model has no words for: texts go in as they are. The
 * default, "document", is not asked for. */
static void log_prompt(const struct load *load)
{
    const char *asked = settings_text(load->settings, "prompt");
    struct bytes name = {asked, strlen(asked)};
    const struct prompt *found = prompt_find(model_info(load->model), name);

    if (found && strcmp(found->name, "none") == 0 && strcmp(asked, "none") != 0 &&
        strcmp(asked, "document") != 0)
        log_event(LOG_WARN,
                  "the model file has no such prompt: texts are embedded as they are; put what the "
                  "model wants before a text into the text (docs/models.md)",
                  LOG_TEXT("prompt", asked));
}

static void log_test(const struct selftest *test)
{
    log_event(test->cosine < SELFTEST_SIMILAR ? LOG_WARN : LOG_INFO,
              test->cosine < SELFTEST_SIMILAR
                  ? "warmed up, but a known text did not get its known embedding: this is another "
                    "model, or file or machine are damaged; see `embedmill doctor`"
                  : "warmed up",
              LOG_REAL("cosine", test->cosine), LOG_INTEGER("took_ms", test->took_ms));
}

/* The loop ends by itself once the work is done; a callback is needed for libuv to wait for it. */
static void on_done(uv_work_t *work, int status)
{
    (void)work;
    (void)status;
}

/* called: the name that it goes by here, or NULL. */
static int load_run(struct load *load, const char *called, struct model **out, uv_loop_t *loop)
{
    /* As it stays when the loop cannot take the work. */
    load->code = COMMAND_INTERNAL;
    load->work.data = load;
    uv_queue_work(loop, &load->work, on_work, on_done);
    /* Returns when the work is done: the signals that are watched do not keep the loop running. */
    uv_run(loop, UV_RUN_DEFAULT);
    if (load->code != COMMAND_OK) {
        log_event(LOG_ERROR, "no usable model", LOG_TEXT("model", load->path),
                  LOG_TEXT("error", load->err));
        return load->code;
    }
    *out = load->model;
    log_model(load, called);
    log_prompt(load);
    if (load->proven)
        log_test(&load->test);
    return COMMAND_OK;
}

int model_load(struct model **out, uv_loop_t *loop, const struct settings *settings, bool prove)
{
    struct load load = {
        .settings = settings, .path = command_line_model_path(settings), .prove = prove};
    return load_run(&load, NULL, out, loop);
}

int model_load_set(struct model_set *out, uv_loop_t *loop, const struct settings *settings)
{
    struct command_model models[COMMAND_MODELS_MAX];
    char err[300];
    size_t n = 0;
    *out = (struct model_set){0};
    int code = command_line_models(settings, models, &n, err, sizeof err);
    if (code != COMMAND_OK)
        log_event(LOG_ERROR, "cannot start", LOG_TEXT("option", "models"), LOG_TEXT("error", err));
    for (size_t i = 0; i < n && code == COMMAND_OK; i++) {
        struct load load = {
            .settings = settings, .path = models[i].path, .takes_any = true, .prove = true};
        code = load_run(&load, models[i].name, &out->models[i], loop);
        if (code != COMMAND_OK)
            break;
        out->names[i] = models[i].name;
        /* Counted when it is open: model_set_close closes so many. */
        out->n++;
    }
    return code;
}

void model_set_close(struct model_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        model_close(set->models[i]);
    set->n = 0;
}
