/*
 * command_rerank.c: `embedmill rerank QUERY`: how well each text of standard input answers it.
 *
 * Owns:    the options rerank.*, reading and scoring lines in batches, what is printed.
 * Threads: the main thread reads and prints; a batch is scored by pool threads, each with a share.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/json.h"
#include "worker/codec/codec.h"
#include "worker/commands/command.h"
#include "worker/commands/command_line.h"
#include "worker/commands/config_check.h"
#include "worker/config/cpus.h"
#include "worker/pipeline/shares.h"
#include "worker/telemetry/log.h"
#include "worker/config/name.h"

enum { BATCH_TEXTS = 128, TEXT_BYTES_MAX = 4 << 20, TOP_MAX = 1000 };

static const struct command_ending endings[] = {
    {COMMAND_OK, "All texts have a score."},
    {COMMAND_USAGE, NULL},
    {COMMAND_DATA, "Some lines have no score; standard error says which and why."},
    {COMMAND_NO_MODEL, "No usable model, or one that gives vectors."},
    {COMMAND_INTERNAL, NULL},
    {COMMAND_IO, "Standard input or output failed."},
    {COMMAND_CONFIG, NULL},
    COMMAND_END,
};

static const struct option rerank_options[] = {
    {"rerank.query", OPTION_TEXT, NULL, NULL, 0, 0, "TEXT", "What the texts should answer."},
    {"rerank.top", OPTION_COUNT, "0", NULL, 0, TOP_MAX, "N",
     "Only so many of the best texts, the best first; 0: all, in the order of the input."},
    {"rerank.scores", OPTION_CHOICE, "auto", "auto|raw|sigmoid", 0, 0, "FORM",
     "Scores as the model's head gives them (raw), between 0 and 1 (sigmoid), or whichever of "
     "these "
     "the model was published with (auto)."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

static bool is_wanted(const char *name)
{
    static const char *const wanted[] = {"model",        "threads",    "kernels",
                                         "precision",    "log_level",  "log_format",
                                         "rerank.query", "rerank.top", "rerank.scores"};
    return name_in(name, wanted, sizeof wanted / sizeof wanted[0]);
}

/* A text of the input. Its bytes lie in the arena. */
struct entry {
    struct item item;
    uint64_t line;
};

/* One of the best so far; id: JSON, in memory of its own. */
struct hit {
    struct buffer json;
    float score;
};

struct task {
    struct share share; /* first member */
    struct rerank *rerank;
    struct session *session;
};

struct rerank {
    const struct settings *settings;
    struct text query;
    struct model *model;
    bool is_sigmoid;
    size_t n_threads, top;
    struct shares shares;
    struct task *tasks; /* [n_threads] */

    /* The batch in hand. */
    struct arena arena;
    struct entry *entries; /* [room] */
    struct text *texts;
    float *scores;
    struct embed_result *results;
    size_t n, room;

    struct hit *best; /* [top], the best first */
    size_t n_best;
    struct buffer out;
    uint64_t line, n_failed, n_scored;
};

static int fail(int code, const char *why)
{
    return command_line_fail("rerank", code, why);
}

/* On a pool thread. */
static void score_some(struct job *job, struct pool_thread *thread)
{
    struct task *task = (struct task *)job;
    struct rerank *rerank = task->rerank;
    size_t first = task->share.first;
    (void)thread;
    /* Scores and results of its own share: no other thread writes there. */
    session_rerank(task->session, rerank->query, rerank->texts + first, task->share.n,
                   rerank->scores + first, rerank->results + first);
}

static void report(struct rerank *rerank, uint64_t line, const char *code, const char *reason)
{
    fprintf(stderr, "line %" PRIu64 ": %s: %s\n", line, code, reason);
    rerank->n_failed++;
}

static void put_hit(struct buffer *to, const struct entry *entry, float score,
                    const struct embed_result *result)
{
    buffer_put_text(to, "{\"id\":");
    if (entry->item.id_is_number)
        buffer_put(to, entry->item.id.ptr, entry->item.id.len);
    else
        json_put_string(to, entry->item.id);
    buffer_put_text(to, ",\"score\":");
    json_put_real(to, (double)score, 7);
    buffer_put_text(to, ",\"tokens\":");
    json_put_natural(to, result->n_tokens);
    buffer_put_text(to, result->truncated ? ",\"truncated\":true}\n" : "}\n");
}

/* Among the best, of equal ones the earlier first; else it is forgotten. 0 or -ENOMEM. */
static int keep(struct rerank *rerank, const struct entry *entry, float score,
                const struct embed_result *result)
{
    size_t at = rerank->n_best;
    struct buffer json = {0};
    if (at == rerank->top) {
        if (!(score > rerank->best[at - 1].score))
            return 0;
        /* The last of the best goes, and its memory is used again. */
        json = rerank->best[--at].json;
        json.len = 0;
    } else {
        rerank->n_best++;
    }
    for (; at > 0 && rerank->best[at - 1].score < score; at--)
        rerank->best[at] = rerank->best[at - 1];
    put_hit(&json, entry, score, result);
    rerank->best[at] = (struct hit){json, score};
    return json.status;
}

static int take_score(struct rerank *rerank, size_t i)
{
    const struct entry *entry = &rerank->entries[i];
    const struct embed_result *result = &rerank->results[i];
    float score = rerank->scores[i];
    if (result->status == -ENOMEM)
        return -ENOMEM;
    assert(result->status == 0); /* texts are cut and repaired, so nothing else fails */
    if (!isfinite(score)) {
        report(rerank, entry->line, "bad_embedding",
               "the score is not a number; the model file is damaged: fetch it again");
        return 0;
    }
    if (rerank->is_sigmoid)
        score = rerank_sigmoid(score);
    rerank->n_scored++;
    if (rerank->top)
        return keep(rerank, entry, score, result);
    put_hit(&rerank->out, entry, score, result);
    return rerank->out.status;
}

/* Score and print what was read. An exit code. */
static int flush(struct rerank *rerank)
{
    int rc = 0;
    if (rerank->n > 0)
        shares_run(&rerank->shares, rerank->tasks, sizeof *rerank->tasks, rerank->n, score_some);
    for (size_t i = 0; i < rerank->n && rc == 0; i++)
        rc = take_score(rerank, i);
    rerank->n = 0;
    /* The best have their ids in their own JSON (keep): nothing points into the arena. */
    arena_reset(&rerank->arena);
    if (rc)
        return fail(COMMAND_INTERNAL, "out of memory");
    if (rerank->out.len) /* with --top there is nothing yet */
        fwrite(rerank->out.ptr, 1, rerank->out.len, stdout);
    rerank->out.len = 0;
    if (fflush(stdout) != 0 || ferror(stdout))
        return fail(COMMAND_IO, "standard output failed");
    return COMMAND_OK;
}

static int make_room(struct rerank *rerank, size_t more)
{
    size_t room = rerank->n + more;
    if (room <= rerank->room)
        return 0;
    /* Each is kept as it comes: what could be made larger stays valid when the next cannot. */
    void *entries = realloc(rerank->entries, room * sizeof *rerank->entries);
    rerank->entries = entries ? entries : rerank->entries;
    void *texts = realloc(rerank->texts, room * sizeof *rerank->texts);
    rerank->texts = texts ? texts : rerank->texts;
    void *scores = realloc(rerank->scores, room * sizeof *rerank->scores);
    rerank->scores = scores ? scores : rerank->scores;
    void *results = realloc(rerank->results, room * sizeof *rerank->results);
    rerank->results = results ? results : rerank->results;
    if (!entries || !texts || !scores || !results)
        return -ENOMEM;
    rerank->room = room;
    return 0;
}

/* A line to one text or several, or a report. 0 or -ENOMEM. */
static int add_line(struct rerank *rerank, const char *line, size_t len)
{
    const struct decode_options options = {
        .format = INPUT_AUTO, .max_texts = CODEC_TEXTS_MAX, .max_text_bytes = TEXT_BYTES_MAX};
    struct refusal why;
    struct request request;
    char number[24];
    int number_len = snprintf(number, sizeof number, "%" PRIu64, rerank->line);
    /* getline() uses its buffer again, and texts and ids point into the line until the batch is
     * scored. */
    const char *value = arena_copy(&rerank->arena, line, len);
    const char *key = arena_copy(&rerank->arena, number, (size_t)number_len);
    if (!value || !key)
        return -ENOMEM;
    const struct message message = {.key = {key, (size_t)number_len},
                                    .key_is_place = true,
                                    .value = {value, len},
                                    .timestamp_ms = -1,
                                    .deliveries = 1};
    int rc = codec_decode(&message, &options, &rerank->arena, &request, &why);
    if (rc == -EINVAL)
        report(rerank, rerank->line, why.code, why.reason);
    if (rc == 0 && request.n_items == 0)
        report(rerank, rerank->line, DEAD_LETTER(no_text),
               "it says that a text is gone or as it was; there is nothing to score");
    if (rc == 0)
        rc = make_room(rerank, request.n_items);
    if (rc)
        return rc == -EINVAL ? 0 : rc;
    for (size_t i = 0; i < request.n_items; i++, rerank->n++) {
        const struct bytes text = request.items[i].text;
        rerank->entries[rerank->n] = (struct entry){request.items[i], rerank->line};
        rerank->texts[rerank->n] = (struct text){text.ptr, text.len};
    }
    return 0;
}

static int score_input(struct rerank *rerank)
{
    char *line = NULL;
    size_t room = 0;
    int code = COMMAND_OK;
    bool is_terminal = isatty(STDIN_FILENO), more = true;
    while (more && code == COMMAND_OK) {
        ssize_t len = getline(&line, &room, stdin);
        more = len >= 0;
        rerank->line += more;
        while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
            len--;
        if (len > 0 && add_line(rerank, line, (size_t)len))
            code = fail(COMMAND_INTERNAL, "out of memory");
        /* On a terminal a person waits for the score of each line. */
        else if (rerank->n >= BATCH_TEXTS || is_terminal || !more)
            code = flush(rerank);
    }
    free(line);
    if (code == COMMAND_OK && ferror(stdin))
        code = fail(COMMAND_IO, "standard input failed");
    for (size_t i = 0; i < rerank->n_best && code == COMMAND_OK; i++)
        fwrite(rerank->best[i].json.ptr, 1, rerank->best[i].json.len, stdout);
    if (code == COMMAND_OK && (fflush(stdout) != 0 || ferror(stdout)))
        code = fail(COMMAND_IO, "standard output failed");
    return code == COMMAND_OK && rerank->n_failed ? COMMAND_DATA : code;
}

static int open_threads(struct rerank *rerank)
{
    const struct session_options options = {.too_long = TOO_LONG_TRUNCATE};
    rerank->tasks = calloc(rerank->n_threads, sizeof *rerank->tasks);
    /* One more, for `top` is 0 without --top, and of 0 bytes calloc may give NULL. */
    rerank->best = calloc(rerank->top + 1, sizeof *rerank->best);
    int rc = rerank->tasks && rerank->best ? 0 : -ENOMEM;
    for (size_t i = 0; i < rerank->n_threads && rc == 0; i++) {
        rerank->tasks[i].rerank = rerank;
        rc = session_open(&rerank->tasks[i].session, rerank->model, &options);
    }
    return rc ? rc : shares_open(&rerank->shares, rerank->n_threads, NULL);
}

static int open_all(struct rerank *rerank)
{
    const struct settings *settings = rerank->settings;
    const char *query = settings_text(settings, "rerank.query");
    const char *form = settings_text(settings, "rerank.scores");
    char err[700];
    if (!query)
        return fail(COMMAND_USAGE, "expected a query: embedmill rerank \"query\" <texts");
    int code = command_line_open_reranker(settings, &rerank->model, err, sizeof err);
    if (code != COMMAND_OK)
        return fail(code, err);
    size_t n_threads = (size_t)settings_number(settings, "threads");
    rerank->query = (struct text){query, strlen(query)};
    rerank->top = (size_t)settings_number(settings, "rerank.top");
    rerank->n_threads = n_threads ? n_threads : cpus_usable("");
    rerank->is_sigmoid = strcmp(form, "auto") == 0 ? model_info(rerank->model)->is_sigmoid
                                                   : strcmp(form, "sigmoid") == 0;
    if (open_threads(rerank) != 0)
        return fail(COMMAND_INTERNAL, "out of memory, or no threads");
    return COMMAND_OK;
}

static void close_all(struct rerank *rerank)
{
    shares_close(&rerank->shares);
    for (size_t i = 0; i < rerank->n_threads && rerank->tasks; i++)
        session_close(rerank->tasks[i].session);
    for (size_t i = 0; i < rerank->n_best; i++)
        buffer_close(&rerank->best[i].json);
    free(rerank->best);
    free(rerank->tasks);
    free(rerank->entries);
    free(rerank->texts);
    free(rerank->scores);
    free(rerank->results);
    arena_close(&rerank->arena);
    buffer_close(&rerank->out);
    model_close(rerank->model);
}

static int run(const struct invocation *invocation)
{
    struct rerank rerank = {.settings = invocation->settings};
    command_line_log(invocation->settings);
    int code = open_all(&rerank);
    if (code == COMMAND_OK)
        code = score_input(&rerank);
    log_event(LOG_INFO, "scored", LOG_INTEGER("texts", rerank.n_scored),
              LOG_INTEGER("failed", rerank.n_failed));
    close_all(&rerank);
    log_close();
    return code;
}

static int prepare(const struct invocation *invocation)
{
    return command_line_check("rerank", invocation->options, config_check_names);
}

static const struct preset presets[] = {{"log_level", "warn"}, {NULL, NULL}};
static const struct flag_alias aliases[] = {
    {"--top", "rerank.top"}, {"--scores", "rerank.scores"}, {NULL, NULL}};
static const char *const positionals[] = {"rerank.query", NULL};

const struct command command_rerank = {
    .name = "rerank",
    .summary = "scores the lines of standard input for a query, with a cross-encoder",
    .synopsis = "QUERY --model FILE [OPTION...] <texts >scores",
    .text =
        "Score how well each text answers QUERY. FILE is a reranker (docs/models.md), not a model "
        "of vectors: it reads query and text together, which is slower and more exact, so let it "
        "sort what a search has found. Lines are as `embed` takes them: plain text, or JSON "
        "objects "
        "with `text` and perhaps `id`. One JSON object for each goes to standard output: "
        "{\"id\": ..., \"score\": 0.93, \"tokens\": 57}, with \"truncated\": true where the pair "
        "was longer than the model takes; then the end of the longer of the two was left out. A "
        "line without a score is reported on standard error as `line 12: code: reason`, and the "
        "exit code is then 65.",
    .endings = endings,
    .own = rerank_options,
    .presets = presets,
    .syntax = {.aliases = aliases, .positionals = positionals},
    .wanted = is_wanted,
    .prepare = prepare,
    .run = run,
};
