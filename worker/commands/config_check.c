/*
 * config_check.c: see config_check.h.
 */
#include "worker/commands/config_check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "connectors/connector.h"
#include "inference/embed.h"
#include "worker/commands/work_options.h"
#include "worker/config/address.h"
#include "worker/http/http_listen.h"
#include "worker/pipeline/pipeline.h"
#include "worker/codec/prompt.h"

static int check_ends(const struct settings *settings, const char **bad_option, char *why,
                      size_t size)
{
    const char *source_name = settings_text(settings, "source");
    const char *sink_name = settings_text(settings, "sink");
    if (!source_name || !sink_name) {
        *bad_option = source_name ? "sink" : "source";
        snprintf(why, size, "expected a name; --help lists them");
        return -EINVAL;
    }
    /* Both exist: the table of options takes no other name. */
    const struct source_ops *source = source_find(source_name);
    const struct sink_ops *sink = sink_find(sink_name);
    int rc = source->check ? source->check(settings, bad_option, why, size) : 0;
    if (rc == 0 && sink->check)
        rc = sink->check(settings, bad_option, why, size);
    return rc;
}

static int check_names(const struct settings *settings, const char **bad_option, char *why,
                       size_t size)
{
    const char *prompt = settings_text(settings, "prompt");
    const char *kernels = settings_text(settings, "kernels");
    char known[64];
    if (!prompt_is_known(bytes_of(prompt))) {
        *bad_option = "prompt";
        snprintf(why, size, "unknown prompt '%.60s'; valid prompts: %s", prompt, prompt_names());
        return -EINVAL;
    }
    if (strcmp(kernels, "auto") != 0 && !model_kernels(kernels, known, sizeof known)) {
        *bad_option = "kernels";
        snprintf(why, size, "this CPU or this build has no '%s'; expected auto or one of %s",
                 kernels, known);
        return -EINVAL;
    }
    return 0;
}

/* Who reads a queue takes a record for a row, and a text in chunks is many. */
static int check_row_chunks(const struct settings *settings, const char **bad_option, char *why,
                            size_t size)
{
    const char *name = settings_text(settings, "sink");
    const struct sink_ops *sink = name ? sink_find(name) : NULL;
    /* Without `layout` it is SINK_PER_MESSAGE (connector.h). */
    bool is_queue = sink && (!sink->layout || sink->layout(settings) == SINK_PER_MESSAGE);
    if (!is_queue || strcmp(settings_text(settings, "too_long"), "chunk") != 0)
        return 0;
    *bad_option = "too_long";
    snprintf(why, size,
             "a message of rows is one row, and a text in chunks would be many; expected truncate "
             "or error, or output_format msgpack or json, or another sink");
    return -EINVAL;
}

/* What a store cannot take is better known now than from its connector's log. */
static int check_rows(const struct settings *settings, const char **bad_option, char *why,
                      size_t size)
{
    const char *format = settings_text(settings, "output_format");
    if (strcmp(format, "msgpack") == 0 || strcmp(format, "json") == 0)
        return 0;
    int rc = check_row_chunks(settings, bad_option, why, size);
    if (rc != 0 || strcmp(format, "qdrant") != 0)
        return rc;
    if (strcmp(settings_text(settings, "dtype"), "b1") == 0) {
        *bad_option = "dtype";
        snprintf(why, size, "Qdrant takes numbers and no bits; expected f4, f2 or i1");
        return -EINVAL;
    }
    if (!settings_text(settings, "output_collection")[0]) {
        *bad_option = "output_collection";
        snprintf(why, size, "expected the name of a collection, which every row for Qdrant has");
        return -EINVAL;
    }
    return 0;
}

/* A log of records cannot leave a newer one as it is. */
static bool keeps_versions(const struct settings *settings)
{
    const char *name = settings_text(settings, "sink");
    const struct connector *connector = name ? connector_find(name) : NULL;
    const struct sink_ops *sink = connector ? connector->sink : NULL;
    return sink && connector->keeps_versions && sink->layout &&
           sink->layout(settings) != SINK_PER_MESSAGE;
}

/* What messages of this source are ordered by. 0 or -EINVAL. */
static int check_order(const struct settings *settings, const char *order, char *why, size_t size)
{
    const char *name = settings_text(settings, "source");
    const struct connector *source = name ? connector_find(name) : NULL;
    bool is_position = strcmp(order, "position") == 0;
    bool is_timestamp = strcmp(order, "timestamp") == 0;
    /* Without a source check_ends says so. */
    if (!source || (is_position && source->gives_order) || (is_timestamp && source->gives_times) ||
        (!is_position && !is_timestamp))
        return 0;
    snprintf(why, size, "messages of source %s have no %s; expected %sfield:NAME or none", name,
             is_position ? "position that orders them" : "time",
             source->gives_times ? "timestamp, " : "");
    return -EINVAL;
}

/* Names of fields, and what orders messages. */
static int check_fields(const struct settings *settings, const char **bad_option, char *why,
                        size_t size)
{
    static const char *const names[] = {"text_field", "id_field"};
    const char *order = settings_text(settings, "order_by");
    for (size_t i = 0; i < 2; i++)
        if (!settings_text(settings, names[i])[0]) {
            *bad_option = names[i];
            snprintf(why, size, "expected the name of a field");
            return -EINVAL;
        }
    *bad_option = "order_by";
    if (strcmp(order, "none") == 0)
        return 0;
    if (strcmp(order, "position") != 0 && strcmp(order, "timestamp") != 0 &&
        (strncmp(order, "field:", 6) != 0 || !order[6])) {
        snprintf(why, size, "expected none, position, timestamp or field:NAME");
        return -EINVAL;
    }
    if (keeps_versions(settings))
        return check_order(settings, order, why, size);
    snprintf(why, size,
             "this output keeps no versions, so what comes last is written; expected none, or an "
             "output that stores texts one by one in a database");
    return -EINVAL;
}

/* What asks for chunks has no effect without the policy, and easily forgotten. */
static int check_chunks(const struct options *options, const char **bad_option, char *why,
                        size_t size)
{
    static const char *const names[] = {"chunk_tokens", "chunk_by", "chunk_overlap"};
    const struct settings *settings = options_settings(options);
    long long tokens = settings_number(settings, "chunk_tokens");
    bool wanted = strcmp(settings_text(settings, "too_long"), "chunk") == 0;
    /* Only flags: a file shared by several commands may well set them for the others. */
    for (size_t i = 0; i < sizeof names / sizeof names[0] && !wanted; i++)
        if (options_origin(options, names[i]) == ORIGIN_FLAG) {
            *bad_option = names[i];
            snprintf(why, size, "nothing is cut into chunks without too_long=chunk: add that");
            return -EINVAL;
        }
    if (!wanted || tokens == 0 || tokens >= CHUNK_TOKENS_MIN)
        return 0;
    *bad_option = "chunk_tokens";
    snprintf(why, size, "expected at least %d, or 0 for as many as the model takes",
             CHUNK_TOKENS_MIN);
    return -EINVAL;
}

static int check_listen(const struct settings *settings, const char **bad_option, char *why,
                        size_t size)
{
    const char *listen = settings_text(settings, "metrics.listen");
    char host[256], port[16];
    if (!listen || !listen[0])
        return 0;
    *bad_option = "metrics.listen";
    return address_split(listen, host, sizeof host, port, sizeof port, why, size);
}

static int check_http(const struct settings *settings, const char **bad_option, char *why,
                      size_t size)
{
    const char *listen = settings_text(settings, "http.listen");
    const char *prompt = settings_text(settings, "http.prompt");
    if (prompt[0] && !prompt_is_known(bytes_of(prompt))) {
        *bad_option = "http.prompt";
        snprintf(why, size, "unknown prompt '%.60s'; valid prompts: %s", prompt, prompt_names());
        return -EINVAL;
    }
    if (settings_text(settings, "http.models")[0] && settings_pair(settings, "models", 0).name) {
        *bad_option = "http.models";
        snprintf(why, size, "models that are NAME=FILE have their names already: leave it out");
        return -EINVAL;
    }
    *bad_option = "http.listen";
    return listen[0] ? http_listen_check(listen, why, size) : 0;
}

static int explain(const struct options *options, int rc, const char *bad_option, const char *why,
                   char *err, size_t err_size)
{
    if (rc == -EINVAL)
        options_explain(options, bad_option, why, err, err_size);
    else if (rc != 0)
        snprintf(err, err_size, "out of memory");
    return rc;
}

int config_check_names(const struct options *options, const char **bad_option, char *err,
                       size_t err_size)
{
    char why[700] = "";
    int rc = check_names(options_settings(options), bad_option, why, sizeof why);
    return explain(options, rc, *bad_option, why, err, err_size);
}

int config_check_serve(const struct options *options, const char **bad_option, char *err,
                       size_t err_size)
{
    const struct settings *settings = options_settings(options);
    char why[700] = "";
    int rc = config_check_names(options, bad_option, err, err_size);
    if (rc != 0)
        return rc;
    rc = check_listen(settings, bad_option, why, sizeof why);
    if (rc == 0 && !settings_text(settings, "http.listen")[0]) {
        *bad_option = "http.listen";
        snprintf(why, sizeof why, "expected HOST:PORT or unix:PATH");
        rc = -EINVAL;
    }
    if (rc == 0)
        rc = check_http(settings, bad_option, why, sizeof why);
    return explain(options, rc, *bad_option, why, err, err_size);
}

int config_check(const struct options *options, const char **bad_option, char *err, size_t err_size)
{
    char why[700] = "";
    int rc = config_check_names(options, bad_option, err, err_size);
    if (rc != 0)
        return rc;
    rc = check_listen(options_settings(options), bad_option, why, sizeof why);
    if (rc == 0)
        rc = check_chunks(options, bad_option, why, sizeof why);
    if (rc == 0)
        rc = check_fields(options_settings(options), bad_option, why, sizeof why);
    if (rc == 0)
        rc = check_rows(options_settings(options), bad_option, why, sizeof why);
    if (rc == 0)
        rc = check_ends(options_settings(options), bad_option, why, sizeof why);
    if (rc == 0)
        rc = check_http(options_settings(options), bad_option, why, sizeof why);
    return explain(options, rc, *bad_option, why, err, err_size);
}

/* Only a source and a sink of one kind have a step that does both, or a sink that keeps how far the
 * source is; their own checks say the rest. */
static int check_delivery(const struct settings *settings, const char **bad_option, char *why,
                          size_t size)
{
    const char *source = settings_text(settings, "source"), *sink = settings_text(settings, "sink");
    char kinds[200] = "";
    if (!settings_is(settings, "delivery", "exactly-once"))
        return 0;
    /* All pairs that could, for the sentence; the one that is configured ends the search. */
    for (size_t i = 0; all_connectors[i]; i++) {
        const struct connector *connector = all_connectors[i];
        for (size_t j = 0; all_connectors[j]; j++) {
            const struct connector *to = all_connectors[j];
            size_t used = strlen(kinds);
            bool is_one = i == j && to->exactly_once;
            bool is_kept = to->is_keeper && connector->source && connector->source->begin;
            if (!is_one && !is_kept)
                continue;
            if (strcmp(source, connector->name) == 0 && strcmp(sink, to->name) == 0)
                return 0;
            snprintf(kinds + used, sizeof kinds - used, "%s%s to %s", used ? ", " : "",
                     connector->name, to->name);
        }
    }
    *bad_option = "delivery";
    snprintf(why, size,
             "exactly-once is possible from %s only, and this is from %.40s to %.40s: use "
             "at-least-once",
             kinds, source, sink);
    return -EINVAL;
}

/* What several models read: a message is for all of them, or for the one that it names, or for the
 * one whose input it is in. 0 or -EINVAL. */
static int check_choice(const struct settings *settings, const char **bad_option, char *why,
                        size_t size)
{
    const char *source = settings_text(settings, "source"), *option;
    bool are_chosen = settings_has(settings, "model_field");
    *bad_option = "delivery";
    if (!work_options_have_inputs(settings)) {
        if (!work_options_have_outputs(settings) ||
            !settings_is(settings, "delivery", "exactly-once"))
            return 0;
        snprintf(why, size,
                 "exactly-once is for one model: the outputs of several are not written in one "
                 "step; use at-least-once, or an input or a worker for each model");
        return -EINVAL;
    }
    option = connector_find(source)->names_input(settings);
    *bad_option = "model_field";
    if (are_chosen) {
        snprintf(why, size,
                 "each model has an input of its own, for %s has " SETTINGS_MODEL " in it: leave "
                 "out one of the two",
                 option);
        return -EINVAL;
    }
    *bad_option = option;
    for (const char *at = settings_text(settings, option); *at; at += *at == ',') {
        at += strspn(at, " ");
        size_t len = strcspn(at, ",");
        const char *found = strstr(at, SETTINGS_MODEL);
        if (len && (!found || found >= at + len)) {
            snprintf(why, size,
                     "'%.*s' would be read for several models, each message for one of them by "
                     "chance: put " SETTINGS_MODEL " into each name, or into none",
                     len < 60 ? (int)len : 60, at);
            return -EINVAL;
        }
        at += len;
    }
    return 0;
}

/* Several models of a queue: vectors of two never go to one output. */
static int check_models(const struct settings *settings, const char **bad_option, char *why,
                        size_t size)
{
    const char *sink = settings_text(settings, "sink");
    /* No sink: in a build without the one that is the default. */
    const struct connector *connector = sink ? connector_find(sink) : NULL;
    bool are_several = settings_pair(settings, "models", 1).name != NULL;
    bool have_outputs = work_options_have_outputs(settings);
    *bad_option = "model_field";
    if (!are_several && settings_has(settings, "model_field")) {
        snprintf(why, size, "there is one model only: name several, each as --model NAME=FILE");
        return -EINVAL;
    }
    int rc = are_several ? check_choice(settings, bad_option, why, size) : 0;
    if (rc != 0)
        return rc;
    bool only_requests_choose = settings_text(settings, "http.listen")[0] &&
                                !settings_has(settings, "model_field") &&
                                !work_options_have_inputs(settings);
    if (!are_several || have_outputs || only_requests_choose)
        return 0;
    if (!connector) /* doctor goes on; config_check has said it */
        return 0;
    *bad_option = "sink";
    if (!connector->names_output) {
        snprintf(why, size, "several models are named, and %.40s is an output for one", sink);
        return -EINVAL;
    }
    *bad_option = connector->names_output(settings);
    snprintf(why, size,
             "several models are named, and vectors of two models in one output cannot be told "
             "apart: put " SETTINGS_MODEL " into its name, or name one model");
    return -EINVAL;
}

/* Keys of two models are the same when a prefix begins with another and an id with the rest of it.
 * 0 or -EINVAL. */
static int check_prefixes(const struct settings *one, const struct settings *other,
                          const char *option, char *why, size_t size)
{
    const char *prefix = settings_text(one, option), *longer = settings_text(other, option);
    if (strncmp(prefix, longer, strlen(prefix)) != 0)
        return 0;
    snprintf(why, size,
             "'%.80s' and '%.80s' are prefixes of two models, and the first with an id can be the "
             "second with another: put a ':' behind " SETTINGS_MODEL,
             prefix, longer);
    return -EINVAL;
}

/* Of a sink whose outputs have prefixes: of each two models. */
static int check_apart(const struct settings *settings, const struct settings *own, size_t index,
                       const char **bad_option, char *why, size_t size)
{
    const char *option = connector_find(settings_text(settings, "sink"))->names_output(settings);
    struct setting model;
    int rc = 0;
    if (!strstr(option, "prefix")) /* a whole name */
        return 0;
    *bad_option = option;
    for (size_t i = 0; rc == 0 && (model = settings_pair(settings, "models", i)).name; i++) {
        struct settings *other;
        if (i == index)
            continue;
        if (settings_of_model(&other, settings, model.name))
            return -ENOMEM;
        rc = check_prefixes(own, other, option, why, size);
        settings_close(other);
    }
    return rc;
}

/* What source and sink say of the names of each model. */
static int check_own_ends(const struct settings *settings, const char **bad_option, char *why,
                          size_t size)
{
    struct setting model;
    int rc = 0;
    for (size_t i = 0; rc == 0 && (model = settings_pair(settings, "models", i)).name; i++) {
        struct settings *own;
        if (settings_of_model(&own, settings, model.name))
            return -ENOMEM;
        rc = check_ends(own, bad_option, why, size);
        if (rc == 0 && work_options_have_outputs(settings))
            rc = check_apart(settings, own, i, bad_option, why, size);
        settings_close(own);
    }
    return rc;
}

int config_check_run(const struct options *options, const char **bad_option, char *err,
                     size_t err_size)
{
    const struct settings *settings = options_settings(options);
    char why[500] = "";
    int rc = config_check(options, bad_option, err, err_size);
    if (rc != 0)
        return rc;
    rc = check_delivery(settings, bad_option, why, sizeof why);
    if (rc == 0 && (work_options_have_outputs(settings) || work_options_have_inputs(settings)))
        rc = check_own_ends(settings, bad_option, why, sizeof why);
    return explain(options, rc, *bad_option, why, err, err_size);
}

int config_check_models(const struct options *options, const char **bad_option, char *err,
                        size_t err_size)
{
    char why[500] = "";
    int rc = check_models(options_settings(options), bad_option, why, sizeof why);
    return explain(options, rc, *bad_option, why, err, err_size);
}
