/*
 * options.c: see options.h.
 *
 * Owns:    the core table. Connectors' tables are only pointed at.
 * Why:     the few defaults that depend on the machine or the command (model path, names of
 *          connectors) are put into a copy of the core table, so that help, checks and effective
 *          values all read the same one.
 */
#include "worker/config/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connectors/connector.h"
#include "worker/config/catalog.h"
#include "worker/config/environment.h"

#define MAX_TABLES 32

#define MODELS_PREFIX "models." /* before the name of one */
enum { MODEL_NAME_MAX = 63 };

/* Redis is what most start with; a build without it has no default. */
#define DEFAULT_CONNECTOR "redis"

static const struct option core_table[] = {
    {"source", OPTION_CHOICE, DEFAULT_CONNECTOR, NULL, 0, 0, "NAME", "Where texts come from."},
    {"sink", OPTION_CHOICE, DEFAULT_CONNECTOR, NULL, 0, 0, "NAME", "Where embeddings go."},
    {"model", OPTION_TEXT, NULL, NULL, 0, 0, "FILE",
     "The model: a GGUF file, or a short name that `embedmill models` lists. scripts/get-model "
     "fetches the default. `run` and `serve` take several, each as NAME=FILE: an output whose name "
     "has {model} in it is one of each model; else messages get the first, and requests over HTTP "
     "any."},
    {"models", OPTION_MAP, NULL, NULL, 0, 0, NULL, ""},
    {"model_field", OPTION_TEXT, NULL, NULL, 0, 0, "FIELD",
     "With several models that have an output each: the field or header of a message that names "
     "the "
     "one to embed it, of which the first is the default (default: all models embed every "
     "message)."},
    {"prompt", OPTION_TEXT, "document", NULL, 0, 0, "NAME",
     "What the texts are for, unless a message names its own prompt: document, query, none, or a "
     "task of the model card."},
    {"dim", OPTION_CHOICE, "0", "0|128|256|512|768", 0, 0, "N",
     "Values in an embedding: the first N of them, normalised again; 0: all that the model gives."},
    {"too_long", OPTION_CHOICE, "truncate", "truncate|error|chunk", 0, 0, "WHAT",
     "What to do with texts longer than the model takes: embed the beginning and mark the output, "
     "dead-letter them, or split them into chunks with an embedding each."},
    {"chunk_tokens", OPTION_COUNT, "0", NULL, 0, 1000000, "N",
     "With too_long=chunk: the most tokens in a chunk, prompt and title included; at least 32; 0: "
     "what the model takes."},
    {"chunk_by", OPTION_CHOICE, "tokens", "tokens|markdown", 0, 0, "WHAT",
     "With too_long=chunk: split by length, or at Markdown headings first; then the title of a "
     "chunk is the path of its headings, and code and tables stay whole."},
    {"chunk_overlap", OPTION_COUNT, "32", NULL, 0, 1000000, "N",
     "With too_long=chunk: the most tokens of a chunk that the next one repeats; never more than "
     "half."},
    {"allow_mixed", OPTION_CHOICE, "no", "no|yes", 0, 0, "WHAT",
     "Write to an output that holds vectors of another model, precision, dim, dtype, prompt or "
     "chunking, although no search can compare the two kinds."},
    {"bad_utf8", OPTION_CHOICE, "replace", "replace|error", 0, 0, "WHAT",
     "What to do with bytes that are not UTF-8: read them as U+FFFD, or dead-letter the message."},
    {"input_format", OPTION_CHOICE, "auto", "auto|raw|json|msgpack", 0, 0, "FORMAT",
     "Format of messages; auto detects it for each."},
    {"text_field", OPTION_TEXT, "text", NULL, 0, 0, "NAME",
     "Field of JSON and msgpack that holds the text; for rows of a table, the column."},
    {"id_field", OPTION_TEXT, "id", NULL, 0, 0, "NAME", "Field or column that holds the id."},
    {"order_by", OPTION_TEXT, "none", NULL, 0, 0, "WHAT",
     "What decides which of two messages about a text is newer: none (the one that comes last), "
     "position (in its stream or partition), timestamp (of the message) or field:NAME, such as "
     "field:source.lsn. Outputs that keep versions never overwrite a newer vector."},
    {"unchanged", OPTION_CHOICE, "write", "write|skip", 0, 0, "WHAT",
     "A change by Debezium that leaves text, title and prompt unchanged: write its other fields, "
     "or acknowledge it without embedding."},
    {"output_format", OPTION_CHOICE, "msgpack", "msgpack|json|qdrant|milvus|pgvector", 0, 0,
     "FORMAT",
     "Format of the output; the last three are rows for those stores, one for each text."},
    {"output_collection", OPTION_TEXT, "embeddings", NULL, 0, 0, "NAME",
     "Collection named in rows for Qdrant."},
    {"dtype", OPTION_CHOICE, "f4", "f4|f2|i1|b1", 0, 0, "TYPE",
     "Type of an embedding's values: float32, float16, int8 (scaled so that the largest of each "
     "vector is 127), or the signs as bits."},
    {"cache", OPTION_TEXT, "", NULL, 0, 0, "FOLDER",
     "Cache vectors in this folder, on a local disk that the machine's workers share, and never "
     "compute one twice; empty: no cache on disk."},
    {"cache_size", OPTION_SIZE, "10GiB", NULL, 1 << 20, INT64_C(1) << 46, "SIZE",
     "Limit of that folder; a text takes about 4.2 KB for 768 values."},
    {"cache_memory", OPTION_SIZE, "32MiB", NULL, 0, 0, "SIZE",
     "Memory for the vectors of texts that may come again; 0: none."},
    {"threads", OPTION_COUNT, "0", NULL, 0, 1024, "N",
     "Inference threads; 0: one for each CPU that this process may use."},
    {"kernels", OPTION_CHOICE, "auto",
     "auto|generic|avx2|avxvnni|avx512|avx512-bf16|neon|neon-i8mm", 0, 0, "NAME",
     "Instruction set for inference; auto takes the best this CPU has."},
    {"precision", OPTION_CHOICE, "exact", "exact|fast", 0, 0, "NAME",
     "How exactly inference multiplies: exact is as close to the model as its file allows; fast "
     "uses 8-bit activations and is about 1.6 times as fast on CPUs with VNNI."},
    {"missing_dense", OPTION_CHOICE, "refuse", "refuse|allow", 0, 0, "WHAT",
     "An EmbeddingGemma file without its two dense layers, whose vectors are not comparable with "
     "the model's: refuse it, or use it as it is."},
    {"batch_texts", OPTION_COUNT, "128", NULL, 1, 4096, "N", "Texts in a full batch."},
    {"batch_bytes", OPTION_SIZE, "128KiB", NULL, 1024, 64 << 20, "SIZE",
     "Bytes of text in a full batch."},
    {"linger", OPTION_DURATION, "5ms", NULL, 0, 60000, "TIME",
     "How long a part-filled batch waits for more texts while the threads are busy."},
    {"batches", OPTION_COUNT, "0", NULL, 0, 1024, "N",
     "Batches in memory at once, those being written included; 0: threads + 2."},
    {"max_texts", OPTION_COUNT, "4096", NULL, 1, 1000000, "N", "The most texts in one message."},
    {"max_text_size", OPTION_SIZE, "1MiB", NULL, 1024, 1 << 30, "SIZE", "Longest text."},
    {"max_deliveries", OPTION_COUNT, "10", NULL, 0, 1000000, "N",
     "A message delivered more often than this is dead-lettered; 0: never."},
    {"undeliverable", OPTION_CHOICE, "stop", "stop|drop", 0, 0, "WHAT",
     "When even the dead letter of a message is refused: stop the worker and name the message, or "
     "drop it: log it, count it, go on."},
    {"drain_timeout", OPTION_DURATION, "25s", NULL, 0, 24 * 3600 * 1000, "TIME",
     "After SIGTERM or SIGINT, finish what was taken within this time. A second signal exits at "
     "once."},
    {"log_level", OPTION_CHOICE, "info", "debug|info|warn|error", 0, 0, "LEVEL",
     "Lowest level that is logged to stderr."},
    {"log_format", OPTION_CHOICE, "auto", "auto|logfmt|json", 0, 0, "FORMAT",
     "auto: logfmt on a terminal, else JSON."},
    {"progress", OPTION_CHOICE, "auto", "auto|on|off", 0, 0, "WHEN",
     "A status line on a terminal, log lines elsewhere; auto: no log lines in `embed`."},
    {"progress_interval", OPTION_DURATION, "10s", NULL, 1000, 24 * 3600 * 1000, "TIME",
     "Time between the log lines of progress."},
    {"total", OPTION_COUNT, "0", NULL, 0, 0, "N",
     "Expected number of texts, so that progress can show a percentage and the time left; 0: "
     "unknown."},
    {"metrics.listen", OPTION_TEXT, "", NULL, 0, 0, "HOST:PORT",
     "Serve /metrics, /livez and /readyz at this address, such as 127.0.0.1:9464; empty: not at "
     "all."},
    {"trace.file", OPTION_TEXT, "", NULL, 0, 0, "FILE",
     "Append a span for each batch to this file, as lines of OTLP's JSON, for a collector to read; "
     "-: standard error; empty: no spans."},
    {"http.listen", OPTION_TEXT, "", NULL, 0, 0, "HOST:PORT",
     "Serve embeddings over HTTP at this address, such as 127.0.0.1:8080, or unix:PATH for a Unix "
     "socket; empty: not at all."},
    {"http.key_file", OPTION_TEXT, "", NULL, 0, 0, "FILE",
     "Serve only clients that send one of the keys in this file, one on each line; empty: serve "
     "everybody who can connect."},
    {"http.prompt", OPTION_TEXT, "", NULL, 0, 0, "NAME",
     "Prompt for requests that name none; empty: as `prompt`."},
    {"http.models", OPTION_TEXT, "", NULL, 0, 0, "NAME,NAME",
     "Model names that requests may use; *: any; empty: the model's own."},
    {"http.body_size", OPTION_SIZE, "8MiB", NULL, 1024, 64 << 20, "SIZE", "Largest request."},
    {"http.connections", OPTION_COUNT, "1024", NULL, 1, 16384, "N",
     "The most connections at once; above that the longest idle one is closed."},
    {"http.queue_tokens", OPTION_COUNT, "200000", NULL, 1, 100000000, "N",
     "Tokens that may wait for a thread; further requests get 429."},
    {"http.timeout", OPTION_DURATION, "60s", NULL, 100, 3600 * 1000, "TIME",
     "A request that takes longer gets 503."},
    {"http.access_log", OPTION_BOOL, "false", NULL, 0, 0, NULL,
     "Log a line for each request: route, status, texts, tokens, times; never a text."},
    {"http.page", OPTION_BOOL, "false", NULL, 0, 0, NULL,
     "Serve a page at / on which a person types texts and sees tokens and scores."},
    {"http.lane", OPTION_CHOICE, "queue", "queue|bulk", 0, 0, "LANE",
     "With http.listen: the share of the threads that messages get while requests want them too: a "
     "ninth (queue) or a thirty-third (bulk)."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

#define N_CORE (sizeof core_table / sizeof core_table[0])

/* Where a value came from. */
struct given {
    char *name, *where; /* owned */
    enum origin origin;
};

struct options {
    struct settings *settings;
    struct option core[N_CORE];
    const struct option *tables[MAX_TABLES + 1];
    struct given *given; /* [n_given]; what is not there has its default */
    size_t n_given;
    char source_names[256], sink_names[256];
    char model[4096];
};

static void add_name(char *names, size_t size, const char *name)
{
    size_t used = strlen(names);
    snprintf(names + used, size - used, "%s%s", used ? "|" : "", name);
}

/* table: NULL for none. */
static size_t add_table(struct options *options, size_t n, const struct option *table)
{
    assert(n < MAX_TABLES);
    if (table)
        options->tables[n++] = table;
    return n;
}

static void fill_tables(struct options *options, const struct option *const *tables,
                        const struct option *own)
{
    size_t n = add_table(options, 0, options->core);
    n = add_table(options, n, own);
    for (size_t i = 0; tables && tables[i]; i++)
        n = add_table(options, n, tables[i]);
    if (!tables)
        n = add_table(options, n, shared_options);
    for (size_t i = 0; all_connectors[i]; i++) {
        const struct connector *connector = all_connectors[i];
        if (connector->source)
            add_name(options->source_names, sizeof options->source_names, connector->name);
        if (connector->sink)
            add_name(options->sink_names, sizeof options->sink_names, connector->name);
        if (!tables)
            n = add_table(options, n, connector->options);
    }
}

/* Where scripts/get-model puts it. Empty when there is no home to look in. */
static void find_model(char *out, size_t size, char *const *environment)
{
    const char *cache = environment_get(environment, "XDG_CACHE_HOME", 14);
    const char *home = environment_get(environment, "HOME", 4);
    const char *file = "embedmill/embeddinggemma-300m-q8_0.gguf";
    if (cache && cache[0] == '/') /* the XDG specification: relative ones are to be ignored */
        snprintf(out, size, "%s/%s", cache, file);
    else if (home && home[0])
        snprintf(out, size, "%s/.cache/%s", home, file);
}

static void fill_core(struct options *options, const struct preset *presets,
                      char *const *environment)
{
    /* A copy: choices and defaults depend on the build, the user's home and the command. */
    memcpy(options->core, core_table, sizeof core_table);
    find_model(options->model, sizeof options->model, environment);
    for (struct option *option = options->core; option->name; option++) {
        if (strcmp(option->name, "source") == 0)
            option->choices = options->source_names;
        else if (strcmp(option->name, "sink") == 0)
            option->choices = options->sink_names;
        else if (strcmp(option->name, "model") == 0 && options->model[0])
            option->fallback = options->model;
        for (const struct preset *preset = presets; preset && preset->name; preset++)
            if (strcmp(option->name, preset->name) == 0)
                option->fallback = preset->fallback;
    }
}

static void drop_absent_connectors(struct options *options)
{
    for (struct option *option = options->core; option->name; option++) {
        bool is_source = strcmp(option->name, "source") == 0;
        if (is_source && option->fallback && !source_find(option->fallback))
            option->fallback = NULL;
        else if (strcmp(option->name, "sink") == 0 && option->fallback &&
                 !sink_find(option->fallback))
            option->fallback = NULL;
    }
}

static int open_tables(struct options **out, const struct option *const *tables,
                       const struct option *own, const struct preset *presets,
                       char *const *environment)
{
    struct options *options = calloc(1, sizeof *options);
    if (!options)
        return -ENOMEM;
    fill_core(options, presets, environment);
    fill_tables(options, tables, own);
    drop_absent_connectors(options);
    int rc = settings_open(&options->settings, options->tables);
    if (rc != 0)
        options_close(options);
    else
        *out = options;
    return rc;
}

int options_open(struct options **out, const struct option *const *tables,
                 const struct preset *presets, char *const *environment)
{
    return open_tables(out, tables, NULL, presets, environment);
}

int options_open_command(struct options **out, const struct option *own,
                         const struct preset *presets, char *const *environment)
{
    return open_tables(out, NULL, own, presets, environment);
}

int options_open_own(struct options **out, const struct option *own)
{
    struct options *options = calloc(1, sizeof *options);
    if (!options)
        return -ENOMEM;
    add_table(options, 0, own);
    int rc = settings_open(&options->settings, options->tables);
    if (rc != 0)
        options_close(options);
    else
        *out = options;
    return rc;
}

void options_close(struct options *options)
{
    if (!options)
        return;
    for (size_t i = 0; i < options->n_given; i++) {
        free(options->given[i].name);
        free(options->given[i].where);
    }
    free(options->given);
    settings_close(options->settings);
    free(options);
}

const struct settings *options_settings(const struct options *options)
{
    return options->settings;
}

const struct option *options_at(const struct options *options, size_t i)
{
    for (size_t t = 0; options->tables[t]; t++)
        for (const struct option *option = options->tables[t]; option->name; option++)
            if (i-- == 0)
                return option;
    return NULL;
}

static struct given *find_given(const struct options *options, const char *name)
{
    for (size_t i = 0; i < options->n_given; i++)
        if (strcmp(options->given[i].name, name) == 0)
            return &options->given[i];
    return NULL;
}

enum origin options_origin(const struct options *options, const char *name)
{
    enum origin origin = ORIGIN_DEFAULT;
    size_t len = strlen(name);
    for (size_t i = 0; i < options->n_given; i++) {
        const struct given *given = &options->given[i];
        /* A map was given when anything below it was. */
        bool is_it = strncmp(given->name, name, len) == 0 &&
                     (given->name[len] == '\0' || given->name[len] == '.');
        if (is_it && given->origin > origin)
            origin = given->origin;
    }
    return origin;
}

const char *options_where(const struct options *options, const char *name)
{
    assert(settings_find(options->settings, name));
    const struct given *given = find_given(options, name);
    return given ? given->where : "default";
}

/* 0 or -ENOMEM. */
static int remember(struct options *options, const char *name, enum origin origin,
                    const char *where)
{
    struct given *given = find_given(options, name);
    char *copy = strdup(where);
    if (!copy)
        return -ENOMEM;
    if (given) {
        free(given->where);
        given->where = copy;
        given->origin = origin;
        return 0;
    }
    given = realloc(options->given, (options->n_given + 1) * sizeof *given);
    if (given)
        /* Kept at once: the old one is gone even if the name finds no memory. */
        options->given = given;
    char *name_copy = given ? strdup(name) : NULL;
    if (!name_copy) {
        free(copy);
        return -ENOMEM;
    }
    given[options->n_given++] = (struct given){name_copy, copy, origin};
    return 0;
}

/* Reads value into a set of its own, so that a weaker origin is checked but changes nothing. */
static int check_only(const struct options *options, const char *name, const char *value, char *err,
                      size_t err_size)
{
    struct settings *scratch = NULL;
    int rc = settings_open(&scratch, options->tables);
    if (rc == 0)
        rc = settings_set(scratch, name, value, err, err_size);
    else
        snprintf(err, err_size, "out of memory");
    settings_close(scratch);
    return rc;
}

void options_model_path(const struct options *options, const char *file, char *out, size_t size)
{
    const char *slash = strrchr(options->model, '/');
    snprintf(out, size, "%.*s%s", slash ? (int)(slash - options->model) + 1 : 0, options->model,
             slash ? file : "");
}

/* A short name is the file of that model in the cache, unless there is a file of that name. */
static const char *find_short(const struct options *options, const char *value, char *path,
                              size_t size)
{
    const struct catalog_model *model = catalog_find(value);
    if (!model || access(value, F_OK) == 0)
        return value;
    options_model_path(options, model->file, path, size);
    return path[0] ? path : value;
}

/* Names stand in labels of metrics, in URLs and as folders of a cache. */
static size_t model_name_len(const char *text)
{
    size_t n = 0;
    while (isalnum((unsigned char)text[n]) || (n > 0 && strchr("._-", text[n]) && text[n]))
        n++;
    return n > MODEL_NAME_MAX ? 0 : n;
}

/* One whose value is a file or a short name: not model_field. */
static bool is_model(const char *name)
{
    return strcmp(name, "model") == 0 || strncmp(name, MODELS_PREFIX, strlen(MODELS_PREFIX)) == 0;
}

/* A value of `model` that is NAME=FILE is FILE for models.NAME, unless there is a file of that
 * name. Returns the name of the option, in full where it is another. */
static const char *split_model(const char *name, const char **value, char full[])
{
    size_t n = strcmp(name, "model") == 0 ? model_name_len(*value) : 0;
    if (n == 0 || (*value)[n] != '=' || access(*value, F_OK) == 0)
        return name;
    sprintf(full, MODELS_PREFIX "%.*s", (int)n, *value);
    *value += n + 1;
    return full;
}

/* One model, and some with names, exclude each other: what comes from the stronger origin counts.
 * 0, or -EINVAL and why. */
static int check_rival(const struct options *options, const char *name, enum origin origin,
                       bool *is_weaker, char *why, size_t size)
{
    bool is_named = strncmp(name, MODELS_PREFIX, strlen(MODELS_PREFIX)) == 0;
    const char *bare = name + strlen(MODELS_PREFIX);
    if (!is_named && strcmp(name, "model") != 0)
        return 0;
    if (is_named && (bare[0] == '\0' || bare[model_name_len(bare)])) {
        snprintf(why, size, "a model's name is letters, digits, '.', '_' and '-', at most %d",
                 MODEL_NAME_MAX);
        return -EINVAL;
    }
    enum origin rival = options_origin(options, is_named ? "model" : "models");
    if (rival == origin && rival != ORIGIN_DEFAULT) {
        snprintf(why, size, "expected a name for each model (NAME=FILE), or one model without");
        return -EINVAL;
    }
    *is_weaker |= rival > origin;
    return 0;
}

int options_set(struct options *options, const char *name, const char *value, enum origin origin,
                const char *where, char *err, size_t err_size)
{
    char why[700] = "", path[sizeof options->model + 100];
    char full[sizeof MODELS_PREFIX + MODEL_NAME_MAX];
    name = split_model(name, &value, full);
    const struct given *given = find_given(options, name);
    /* Flags are read first, because they name the file, and the file last. */
    bool is_weaker = given && given->origin > origin;
    int rc = check_rival(options, name, origin, &is_weaker, why, sizeof why);
    if (rc == 0 && is_model(name))
        value = find_short(options, value, path, sizeof path);
    if (rc == 0)
        rc = is_weaker ? check_only(options, name, value, why, sizeof why)
                       : settings_set(options->settings, name, value, why, sizeof why);
    if (rc != 0) {
        /* A flag or a variable is the name of the option already; a place in a file is not. */
        size_t len = strlen(name);
        bool twice = origin > ORIGIN_FILE && strncmp(why, name, len) == 0 &&
                     strncmp(why + len, ": ", 2) == 0;
        snprintf(err, err_size, "%s: %s", where, twice ? why + len + 2 : why);
        return rc;
    }
    if (is_weaker)
        return 0;
    rc = remember(options, name, origin, where);
    if (rc != 0)
        snprintf(err, err_size, "out of memory");
    return rc;
}

void options_explain(const struct options *options, const char *name, const char *why, char *err,
                     size_t err_size)
{
    enum origin origin = options_origin(options, name);
    if (origin > ORIGIN_FILE)
        snprintf(err, err_size, "%s: %s", options_where(options, name), why);
    else if (origin == ORIGIN_FILE)
        snprintf(err, err_size, "%s: %s: %s", options_where(options, name), name, why);
    else
        snprintf(err, err_size, "%s: %s", name, why);
}

/* Edit distance with transpositions (optimal string alignment); names over 63 bytes are far. */
static size_t distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    size_t rows[3][64];
    if (n > 63 || m > 63)
        return SIZE_MAX;
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        /* Three rows are enough: a transposition looks two back. */
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best)
                best = above[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                above2[j - 2] + 1 < best)
                best = above2[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[n % 3][m];
}

/* Dots, dashes, underscores and case are all the same to somebody who misremembers a name. */
static void fold(const char *name, char *out, size_t size)
{
    size_t i = 0;
    for (; name[i] && i + 1 < size; i++)
        out[i] = strchr("-.", name[i]) ? '_' : (char)tolower((unsigned char)name[i]);
    out[i] = '\0';
}

const char *options_nearest(const struct options *options, const char *name)
{
    char wanted[128], folded[128];
    fold(name, wanted, sizeof wanted);
    const char *nearest = NULL, *by_last = NULL;
    /* A short name is near to too many others. */
    size_t least = strlen(wanted) < 5 ? 1 : strlen(wanted) < 9 ? 2 : 3;
    const struct option *option;
    for (size_t i = 0; (option = options_at(options, i)); i++) {
        if (option->type == OPTION_MAP)
            continue;
        fold(option->name, folded, sizeof folded);
        size_t far = distance(wanted, folded);
        if (far < least || (far == least && !nearest)) {
            least = far;
            nearest = option->name;
        }
        /* Whoever leaves the group out means the option of that last name. */
        const char *last = strrchr(option->name, '.');
        if (last && strcmp(folded + (last + 1 - option->name), wanted) == 0 && !by_last)
            by_last = option->name;
    }
    return nearest ? nearest : by_last;
}

void options_flag_name(const char *name, char *out, size_t size)
{
    size_t i = 0;
    for (; name[i] && i + 1 < size; i++)
        out[i] = strchr("._", name[i]) ? '-' : name[i];
    out[i] = '\0';
}

void options_variable_name(const char *name, char *out, size_t size)
{
    size_t i = 0;
    for (; name[i] && i + 1 < size; i++)
        out[i] = strchr(".-", name[i]) ? '_' : (char)toupper((unsigned char)name[i]);
    out[i] = '\0';
}
