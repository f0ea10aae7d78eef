/*
 * command_search.c: `embedmill search OUT [QUERY]`: the nearest texts of an index, exactly.
 *
 * Owns:    the options search.*, prompts around queries, what is printed.
 * Refuses: an index of another model, whose vectors mean something else.
 * Why:     to look at what was made; a service would keep the model and the vectors open.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connectors/json.h"
#include "worker/commands/command.h"
#include "worker/commands/command_line.h"
#include "worker/commands/config_check.h"
#include "worker/config/cpus.h"
#include "worker/index/manifest.h"
#include "worker/telemetry/log.h"
#include "worker/telemetry/reports.h"
#include "worker/config/options.h"
#include "worker/codec/prompt.h"
#include "worker/index/search.h"
#include "worker/config/name.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, NULL},
    {COMMAND_USAGE, NULL},
    {COMMAND_DATA, "OUT is missing or damaged."},
    {COMMAND_NO_MODEL, "No usable model, or not the one that OUT was made with."},
    {COMMAND_INTERNAL, NULL},
    {COMMAND_IO, "Standard input or output failed."},
    {COMMAND_CONFIG, NULL},
    COMMAND_END,
};

static const struct option search_options[] = {
    {"search.index", OPTION_TEXT, NULL, NULL, 0, 0, "OUT", "What `embedmill index` has written."},
    {"search.query", OPTION_TEXT, NULL, NULL, 0, 0, "TEXT",
     "What to look for; none: the lines of standard input."},
    {"search.top", OPTION_COUNT, "10", NULL, 1, 1000, "N", "So many of the nearest are printed."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

static bool is_wanted(const char *name)
{
    static const char *const wanted[] = {"model",        "prompt",        "threads",   "kernels",
                                         "precision",    "missing_dense", "log_level", "log_format",
                                         "search.index", "search.query",  "search.top"};
    return name_in(name, wanted, sizeof wanted / sizeof wanted[0]);
}

struct lookup {
    const struct settings *settings;
    const struct prompt *prompt;
    struct model *model;
    struct vectors *vectors;
    struct search *search;
    uint64_t n_queries;
};

static int fail(int code, const char *why)
{
    return command_line_fail("search", code, why);
}

static int refuse_model(const struct manifest *manifest, const char *path, const char *fingerprint,
                        const struct model_info *info)
{
    char err[1000], name[128] = "?";
    manifest_get(manifest, "model", name, sizeof name);
    snprintf(err, sizeof err,
             "%.300s was made with %s (fingerprint %s), and this is %s (fingerprint %s): name the "
             "other one by --model, or `embedmill migrate` the index to this one",
             path, name, fingerprint, info->name, info->fingerprint);
    return fail(COMMAND_NO_MODEL, err);
}

static int open_vectors(struct lookup *lookup, const char *path)
{
    struct manifest manifest = {.len = 0};
    char err[600], fingerprint[64] = "";
    const struct model_info *info = model_info(lookup->model);
    int rc = manifest_read(&manifest, path, err, sizeof err);
    if (rc != 0 && rc != -ENOENT) /* what `pull` has made has none */
        return fail(COMMAND_DATA, err);
    if (rc == 0)
        manifest_get(&manifest, "model_fingerprint", fingerprint, sizeof fingerprint);
    if (fingerprint[0] && strcmp(fingerprint, info->fingerprint) != 0)
        return refuse_model(&manifest, path, fingerprint, info);
    if (vectors_open(&lookup->vectors, path, err, sizeof err) != 0)
        return fail(COMMAND_DATA, err);
    const char *model = vectors_model(lookup->vectors);
    if (model[0] && strcmp(model, info->fingerprint) != 0)
        return refuse_model(&manifest, path, model, info);
    /* Fewer values than the model gives are a shorter --dim: the query is cut to match. */
    size_t dim = vectors_dim(lookup->vectors);
    if (vectors_count_live(lookup->vectors) == 0)
        return fail(COMMAND_DATA, "the index is empty");
    if (dim > info->dim)
        return fail(COMMAND_DATA, "the vectors have more values than the model gives");
    return COMMAND_OK;
}

static int open_all(struct lookup *lookup)
{
    const struct settings *settings = lookup->settings;
    const char *path = settings_text(settings, "search.index");
    const char *name = settings_text(settings, "prompt");
    char err[700];
    if (!path)
        return fail(COMMAND_USAGE, "expected an index: embedmill search OUT \"query\"");
    int code = command_line_open_model(settings, &lookup->model, err, sizeof err);
    if (code != COMMAND_OK)
        return command_line_fail("search", code, err);
    lookup->prompt = prompt_find(model_info(lookup->model), bytes_of(name));
    code = open_vectors(lookup, path);
    size_t n_threads = (size_t)settings_number(settings, "threads");
    if (code == COMMAND_OK &&
        search_open(&lookup->search, lookup->model, lookup->vectors,
                    n_threads ? n_threads : cpus_usable(""),
                    (size_t)settings_number(settings, "search.top"), err, sizeof err) != 0)
        code = fail(COMMAND_INTERNAL, err);
    return code;
}

/* Prompted, in memory of its own. */
static struct text render(const struct lookup *lookup, const char *query, size_t len)
{
    struct bytes text = {query, len}, title = {NULL, 0};
    const struct prompt *had = prompt_doubled(model_info(lookup->model), lookup->prompt, text);
    if (had)
        reports_doubled(had, lookup->prompt);
    size_t size = prompt_render(lookup->prompt, title, text, NULL, 0);
    char *ptr = malloc(size + 1);
    if (ptr)
        prompt_render(lookup->prompt, title, text, ptr, size);
    return (struct text){ptr, ptr ? size : 0};
}

static void print_hits(const struct lookup *lookup, const struct search_hit *hits, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct bytes id = vectors_id(lookup->vectors, hits[i].row);
        printf("%.4f  %.*s\n", (double)hits[i].score, (int)id.len, id.ptr);
    }
}

static int print_json(const struct lookup *lookup, const char *query, size_t len,
                      const struct search_hit *hits, size_t n)
{
    fputs("{\"query\":", stdout);
    int rc = json_print((struct bytes){query, len}, stdout);
    fputs(",\"hits\":[", stdout);
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct bytes id = vectors_id(lookup->vectors, hits[i].row);
        bool is_piece = id.len > 1 && id.ptr[0] == '{'; /* then it says what of, too */
        printf("%s%s%.*s,\"score\":%.6f}", i ? "," : "",
               is_piece ? "" : "{\"id\":", (int)id.len - is_piece, id.ptr, (double)hits[i].score);
    }
    puts("]}");
    return rc;
}

/* Up to SEARCH_QUERIES lines; their prompted texts are freed here. */
static int search_lines(struct lookup *lookup, char *const *lines, const size_t *lens, size_t n,
                        bool is_one)
{
    struct text texts[SEARCH_QUERIES] = {{NULL, 0}};
    struct embed_result results[SEARCH_QUERIES];
    const struct search_hit *hits;
    size_t n_hits;
    int code = COMMAND_OK;
    for (size_t i = 0; i < n; i++) {
        texts[i] = render(lookup, lines[i], lens[i]);
        if (!texts[i].ptr && code == COMMAND_OK)
            code = fail(COMMAND_INTERNAL, "out of memory");
    }
    if (code == COMMAND_OK)
        search_run(lookup->search, texts, n, results, &hits, &n_hits);
    for (size_t i = 0; i < n; i++) {
        if (code == COMMAND_OK && results[i].status != 0)
            code = fail(COMMAND_INTERNAL, "out of memory");
        if (code == COMMAND_OK && is_one)
            print_hits(lookup, hits, n_hits);
        else if (code == COMMAND_OK &&
                 print_json(lookup, lines[i], lens[i], hits + i * n_hits, n_hits) != 0)
            code = fail(COMMAND_INTERNAL, "out of memory");
        free((char *)texts[i].ptr);
    }
    lookup->n_queries += n;
    return code;
}

/* The lines of standard input, as many at once as there are, for vectors are read once for all. */
static int search_input(struct lookup *lookup)
{
    char *lines[SEARCH_QUERIES] = {NULL};
    size_t lens[SEARCH_QUERIES], rooms[SEARCH_QUERIES] = {0}, n = 0;
    int code = COMMAND_OK;
    bool more = true;
    while (more && code == COMMAND_OK) {
        ssize_t len = getline(&lines[n], &rooms[n], stdin);
        more = len >= 0;
        while (len > 0 && (lines[n][len - 1] == '\n' || lines[n][len - 1] == '\r'))
            len--;
        if (len > 0)
            lens[n++] = (size_t)len;
        /* On a terminal a person waits for the answer to each line. */
        bool full = n == SEARCH_QUERIES || (n > 0 && isatty(STDIN_FILENO));
        if (n > 0 && (full || !more)) {
            code = search_lines(lookup, lines, lens, n, false);
            fflush(stdout);
            n = 0;
        }
    }
    if (code == COMMAND_OK && (ferror(stdin) || ferror(stdout)))
        code = fail(COMMAND_IO, "standard input or output failed");
    for (size_t i = 0; i < SEARCH_QUERIES; i++)
        free(lines[i]);
    return code;
}

static int run(const struct settings *settings)
{
    struct lookup lookup = {.settings = settings};
    int code = open_all(&lookup);
    char *query = (char *)settings_text(settings, "search.query");
    if (code == COMMAND_OK && query) {
        size_t len = strlen(query);
        code = search_lines(&lookup, &query, &len, 1, true);
    } else if (code == COMMAND_OK) {
        code = search_input(&lookup);
    }
    if (lookup.search) {
        struct search_times times = search_times(lookup.search);
        log_event(LOG_INFO, "searched", LOG_INTEGER("queries", lookup.n_queries),
                  LOG_INTEGER("vectors", vectors_count(lookup.vectors)),
                  LOG_REAL("embed_seconds", (double)times.embed_ns * 1e-9),
                  LOG_REAL("search_seconds", (double)times.search_ns * 1e-9));
    }
    search_close(lookup.search);
    vectors_close(lookup.vectors);
    model_close(lookup.model);
    return code;
}

static int prepare(const struct invocation *invocation)
{
    return command_line_check("search", invocation->options, config_check_names);
}

static int start(const struct invocation *invocation)
{
    command_line_log(invocation->settings);
    int code = run(invocation->settings);
    log_close();
    return code;
}

static const struct preset presets[] = {{"prompt", "query"}, {"log_level", "warn"}, {NULL, NULL}};
static const struct flag_alias aliases[] = {{"--top", "search.top"}, {NULL, NULL}};
static const char *const positionals[] = {"search.index", "search.query", NULL};

const struct command command_search = {
    .name = "search",
    .summary = "finds the texts of an index that are nearest to a query",
    .synopsis = "OUT [QUERY] [OPTION...]",
    .text =
        "Find the records of OUT, an .npy or a .jsonl of `embedmill index`, that are nearest to "
        "QUERY by cosine, and print score and id of each. Without QUERY every line of standard "
        "input is a query, and a JSON object is printed for each: {\"query\": ..., \"hits\": "
        "[{\"id\": ..., \"score\": ...}, ...]}. Every vector is compared. An .npy is read in "
        "place, a .jsonl takes seconds.",
    .endings = endings,
    .own = search_options,
    .presets = presets,
    .syntax = {.aliases = aliases, .positionals = positionals},
    .wanted = is_wanted,
    .prepare = prepare,
    .run = start,
};
