/*
 * work_options.c: see work_options.h.
 */
#include "worker/commands/work_options.h"

#include <stdlib.h>
#include <string.h>

#include "connectors/connector.h"
#include "worker/config/cpus.h"

/* A session never sees a text that is cut; one that cannot be cut is an error. */
static void set_too_long(const struct settings *settings, struct pipeline_options *options)
{
    const char *policy = settings_text(settings, "too_long");
    options->session.too_long =
        strcmp(policy, "truncate") == 0 ? TOO_LONG_TRUNCATE : TOO_LONG_ERROR;
    options->chunk = (struct chunk_options){
        .wanted = strcmp(policy, "chunk") == 0,
        .max_tokens = (size_t)settings_number(settings, "chunk_tokens"),
        .by_markdown = strcmp(settings_text(settings, "chunk_by"), "markdown") == 0,
        .overlap = (size_t)settings_number(settings, "chunk_overlap"),
    };
}

/* How messages are read: config_check has seen that order_by is one of these. */
static struct decode_options decode_options(const struct settings *settings)
{
    const char *order = settings_text(settings, "order_by");
    bool is_field = strncmp(order, "field:", 6) == 0;
    return (struct decode_options){
        .format = (enum input_format)settings_choice(settings, "input_format"),
        .max_texts = (size_t)settings_number(settings, "max_texts"),
        .max_text_bytes = (size_t)settings_number(settings, "max_text_size"),
        .refuse_bad_utf8 = settings_choice(settings, "bad_utf8") == BAD_UTF8_ERROR,
        .skip_unchanged = strcmp(settings_text(settings, "unchanged"), "skip") == 0,
        .text_field = settings_text(settings, "text_field"),
        .id_field = settings_text(settings, "id_field"),
        .version_by = is_field                          ? VERSION_FIELD
                      : strcmp(order, "position") == 0  ? VERSION_POSITION
                      : strcmp(order, "timestamp") == 0 ? VERSION_TIMESTAMP
                                                        : VERSION_NONE,
        .version_field = is_field ? order + 6 : NULL,
    };
}

static const struct connector *find_connector(const struct settings *settings, const char *side)
{
    const char *name = settings_text(settings, side);
    return name ? connector_find(name) : NULL;
}

bool work_options_have_outputs(const struct settings *settings)
{
    const struct connector *sink = find_connector(settings, "sink");
    return sink && sink->names_output &&
           settings_has_model(settings, sink->names_output(settings)) &&
           settings_pair(settings, "models", 0).name;
}

bool work_options_have_inputs(const struct settings *settings)
{
    const struct connector *source = find_connector(settings, "source");
    return source && source->names_input &&
           settings_has_model(settings, source->names_input(settings)) &&
           settings_pair(settings, "models", 0).name;
}

struct pipeline_options work_options(const struct settings *settings)
{
    size_t n_threads = (size_t)settings_number(settings, "threads");
    if (n_threads == 0)
        n_threads = cpus_usable("");
    size_t n_batches = (size_t)settings_number(settings, "batches");
    struct pipeline_options options = {
        .n_threads = n_threads,
        .lane = settings_choice(settings, "http.lane") == 0 ? POOL_QUEUE : POOL_BULK,
        .n_batches = n_batches ? n_batches : n_threads + 2,
        .batch_texts = (size_t)settings_number(settings, "batch_texts"),
        .batch_bytes = (size_t)settings_number(settings, "batch_bytes"),
        .linger_ms = (uint64_t)settings_number(settings, "linger"),
        .max_deliveries = (uint32_t)settings_number(settings, "max_deliveries"),
        .drop_undeliverable = strcmp(settings_text(settings, "undeliverable"), "drop") == 0,
        .drain_ms = (uint64_t)settings_number(settings, "drain_timeout"),
        .prompt = settings_text(settings, "prompt"),
        .session = {.bad_utf8 = (enum bad_utf8)settings_choice(settings, "bad_utf8"),
                    .dim = strtoul(settings_text(settings, "dim"), NULL, 10)},
        .decode = decode_options(settings),
        .output_format = (enum output_format)settings_choice(settings, "output_format"),
        .dtype = (enum output_dtype)settings_choice(settings, "dtype"),
        .collection = settings_text(settings, "output_collection"),
        .allow_mixed = settings_choice(settings, "allow_mixed") == 1,
    };
    set_too_long(settings, &options);
    return options;
}
