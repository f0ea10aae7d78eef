/*
 * command_dlq.c: `embedmill dlq list|replay`: what became of bad messages, and another try for
 * them.
 *
 * Owns:    which dead letters are meant, how they are shown, when not to put one back.
 * Refuses: to show a text nobody asked for: they hold people's data, terminals and logs keep it.
 * Threads: the main thread; there is no loop.
 */
#define _GNU_SOURCE /* memmem */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/connector.h"
#include "connectors/dead_letters.h"
#include "connectors/json.h"
#include "worker/commands/command.h"
#include "worker/commands/command_line.h"
#include "worker/commands/dlq_return.h"
#include "worker/commands/queue_target.h"
#include "worker/pipeline/records.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, NULL},
    {COMMAND_USAGE, NULL},
    {COMMAND_UNAVAILABLE, "The broker cannot be reached, or refuses."},
    {COMMAND_INTERNAL, NULL},
    {COMMAND_CONFIG, NULL},
    COMMAND_END,
};

static const struct option table[] = {
    {"dlq.action", OPTION_CHOICE, NULL, "list|replay|codes", 0, 0, "ACTION",
     "list prints the dead letters, replay puts them back on the input, codes explains what the "
     "codes mean."},
    {"dlq.json", OPTION_BOOL, "false", NULL, 0, 0, NULL, "A JSON object for each dead letter."},
    {"dlq.show", OPTION_BOOL, "false", NULL, 0, 0, NULL, "Its payload, too."},
    {"dlq.code", OPTION_TEXT, NULL, NULL, 0, 0, "CODE", "Only dead letters of this code."},
    {"dlq.limit", OPTION_COUNT, "0", NULL, 0, 0, "N", "At most so many; 0: all."},
    {"dlq.to", OPTION_TEXT, NULL, NULL, 0, 0, "NAME",
     "Another stream or topic than the input, on the same server. Of dead letters in a database: "
     "the "
     "URL of the server that the input is on."},
    {"dlq.stream", OPTION_TEXT, NULL, NULL, 0, 0, "NAME",
     "With a URL: the stream, topic or queue there, where the URL names none."},
    {"dlq.dry_run", OPTION_BOOL, "false", NULL, 0, 0, NULL, "List what replay would put back."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

static const struct flag_alias aliases[] = {
    {"--json", "dlq.json"},       {"--show", "dlq.show"},
    {"--code", "dlq.code"},       {"--limit", "dlq.limit"},
    {"--to", "dlq.to"},           {"--stream", "dlq.stream"},
    {"--dry-run", "dlq.dry_run"}, {NULL, NULL}};

static const char *const positionals[] = {"dlq.action", NULL};

struct args {
    bool is_replay, json, show, dry_run;
    const char *code, *to;
    size_t limit;
    const struct connector *queue; /* that `to` is a URL of; NULL: it is none */
};

/* What dead letters go through. */
struct way {
    const struct args *args;
    struct dead_letters *dlq;
    struct dlq_return *back; /* NULL: they go back by their own connector */
};

struct counts {
    size_t n, n_left, n_gone; /* listed or put back; could not be; done by another meanwhile */
    bool was_opened;          /* there was something to look through */
};

static int fail(int code, const char *why)
{
    return command_line_fail("dlq", code, why);
}

/* names: ended by NULL; one that ends in a dot stands for all below it. */
static bool is_among(const char *const *names, const char *name)
{
    for (; *names; names++) {
        size_t len = strlen(*names);
        bool is_group = len > 0 && (*names)[len - 1] == '.';
        if (is_group ? strncmp(name, *names, len) == 0 : strcmp(name, *names) == 0)
            return true;
    }
    return false;
}

static bool is_wanted(const char *name)
{
    static const char *const own[] = {"source", "sink", "model", "dlq.", NULL};
    bool is = is_among(own, name);
    for (size_t i = 0; all_connectors[i] && !is; i++)
        is = all_connectors[i]->dead_letters &&
             is_among(all_connectors[i]->dead_letters->options, name);
    return is;
}

/* One line, whatever is in it: control characters become spaces. */
static void print_plain(struct bytes text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        putchar(c < 0x20 || c == 0x7f ? ' ' : c);
    }
}

static int print_json(const char *before, struct bytes text)
{
    fputs(before, stdout);
    return json_print(text, stdout);
}

/* 0 or -ENOMEM. */
static int print_letter(const struct args *args, const struct dead_letter *letter)
{
    int rc = 0;
    if (args->json) {
        rc |= print_json("{\"position\": ", letter->position);
        rc |= print_json(", \"code\": ", letter->code);
        rc |= print_json(", \"origin\": ", letter->origin);
        rc |= print_json(", \"reason\": ", letter->reason);
        if (args->show && letter->value.ptr)
            rc |= print_json(", \"payload\": ", letter->value);
        puts("}");
        return rc;
    }
    const struct bytes columns[] = {letter->position, letter->code, letter->origin, letter->reason};
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        if (i > 0)
            putchar('\t');
        print_plain(columns[i]);
    }
    if (args->show)
        rc = print_json("\t", letter->value);
    putchar('\n');
    return rc;
}

/* What is cut or empty would only die again, or worse, pass as the message it is not. */
static bool can_go_back(const struct dead_letter *letter)
{
    static const char mark[] = RECORD_TRUNCATED_MARK;
    return !letter->is_empty &&
           !(letter->reason.ptr &&
             memmem(letter->reason.ptr, letter->reason.len, mark, sizeof mark - 1));
}

static bool is_meant(const struct args *args, const struct dead_letter *letter)
{
    return !args->code || bytes_are(letter->code, args->code);
}

/* 0 or a negative errno with a sentence. */
static int serve_letter(const struct way *way, const struct dead_letter *letter,
                        struct counts *counts, char *err, size_t err_size)
{
    const struct args *args = way->args;
    const struct dead_letters_ops *ops = way->dlq->ops;
    /* Also when --dry-run asks: it says what a replay would do. */
    if (args->is_replay && !can_go_back(letter)) {
        fprintf(stderr, "embedmill dlq: %.*s is left where it is: part of the message is missing\n",
                (int)letter->position.len, letter->position.ptr);
        counts->n_left++;
        return 0;
    }
    if (!args->is_replay || args->dry_run) {
        counts->n++;
        snprintf(err, err_size, "out of memory");
        return print_letter(args, letter);
    }
    /* 1: put back, or nothing to be put by us; 0: refused there, and it stays. */
    int rc = way->back ? dlq_return_put(way->back, letter, err, err_size) : 1;
    if (rc == 0) {
        fprintf(stderr, "embedmill dlq: %.*s is left where it is: %s\n", (int)letter->position.len,
                letter->position.ptr, err);
        counts->n_left++;
        return 0;
    }
    /* Put back first and removed then: killed in between it is in both places, never in none. */
    if (rc == 1)
        rc = (way->back ? ops->take : ops->replay)(way->dlq, err, err_size);
    if (rc >= 0)
        *(rc == 1 ? &counts->n : &counts->n_gone) += 1;
    return rc < 0 ? rc : 0;
}

static int exit_of(int rc)
{
    return rc == 0          ? COMMAND_OK
           : rc == -ENOTSUP ? COMMAND_USAGE /* --to */
           : rc == -EINVAL  ? COMMAND_CONFIG
           : rc == -ENOMEM  ? COMMAND_INTERNAL
                            : COMMAND_UNAVAILABLE;
}

static int go_through(const struct args *args, const struct dead_letters_ops *ops,
                      const struct settings *settings, struct counts *counts)
{
    struct way way = {.args = args};
    struct dead_letter letter;
    char err[800], close_err[800];
    /* A URL names another system: the dead letters are opened where they are, without it. */
    int rc = ops->open(&way.dlq, settings, args->queue ? NULL : args->to, err, sizeof err);
    if (rc != 0)
        return fail(exit_of(rc), err);
    counts->was_opened = true;
    if (args->queue && args->is_replay && !args->dry_run)
        rc = dlq_return_open(&way.back, args->queue, settings, err, sizeof err);
    while (rc == 0 && counts->n < args->limit) {
        rc = ops->next(way.dlq, &letter, err, sizeof err);
        if (rc <= 0)
            break;
        rc = 0;
        if (is_meant(args, &letter))
            rc = serve_letter(&way, &letter, counts, err, sizeof err);
    }
    dlq_return_close(way.back);
    /* Only this says whether what was taken is gone for good: some acknowledge at the end. */
    int closed = ops->close(way.dlq, close_err, sizeof close_err);
    if (rc != 0)
        fail(exit_of(rc), err);
    if (closed != 0)
        fail(exit_of(closed), close_err);
    return exit_of(rc != 0 ? rc : closed);
}

/* Those of each model that is named, where they have a place each. What fails for one is no reason
 * to leave out another. */
static int go_through_models(const struct args *args, const struct dead_letters_ops *ops,
                             const struct settings *settings, struct counts *counts)
{
    struct setting model;
    int code = COMMAND_OK;
    for (size_t i = 0; (model = settings_pair(settings, "models", i)).name; i++) {
        struct settings *own;
        struct args of_model = *args;
        if (settings_of_model(&own, settings, model.name))
            return fail(COMMAND_INTERNAL, "out of memory");
        of_model.to = settings_text(own, "dlq.to");
        int ended = go_through(&of_model, ops, own, counts);
        code = code == COMMAND_OK ? ended : code;
        settings_close(own);
    }
    return code;
}

static int go_through_all(const struct args *args, const struct dead_letters_ops *ops,
                          const struct settings *settings)
{
    const char *place = ops->place(settings);
    struct counts counts = {0};
    char why[300];
    int code;
    if (settings_has_model(settings, place) && !settings_pair(settings, "models", 0).name) {
        snprintf(why, sizeof why,
                 "%s has " SETTINGS_MODEL " in it: name the models as for `run`, each as "
                 "--model NAME=FILE",
                 place);
        return fail(COMMAND_CONFIG, why);
    }
    if (settings_has_model(settings, place))
        code = go_through_models(args, ops, settings, &counts);
    else if (settings_has_model(settings, "dlq.to") || settings_has_model(settings, "dlq.stream"))
        return fail(COMMAND_USAGE,
                    "the dead letters of all models are in one place: put back where they came "
                    "from, without --to, or to one that has no " SETTINGS_MODEL " in it");
    else
        code = go_through(args, ops, settings, &counts);
    if (args->is_replay && !args->dry_run && counts.was_opened)
        printf("%zu put back, %zu left, %zu gone\n", counts.n, counts.n_left, counts.n_gone);
    return code;
}

static int serve(const struct args *args, const struct settings *settings)
{
    const char *source = settings_text(settings, "source"), *sink = settings_text(settings, "sink");
    const struct connector *connector = sink ? connector_find(sink) : NULL;
    const struct dead_letters_ops *ops = connector ? connector->dead_letters : NULL;
    char why[700];
    if (!ops) {
        snprintf(why, sizeof why, "the sink %s keeps no dead letters: name another with --sink",
                 sink ? sink : "is not named and");
        return fail(COMMAND_CONFIG, why);
    }
    if (args->is_replay && !ops->replay && !args->queue) {
        char forms[400];
        queue_target_forms(forms, sizeof forms);
        snprintf(
            why, sizeof why,
            "the dead letters are in %s and go back to another system: name it with --to, as %s",
            sink, forms);
        return fail(args->to ? COMMAND_USAGE : COMMAND_CONFIG, why);
    }
    if (args->queue && !ops->take) {
        snprintf(
            why, sizeof why,
            "--to: dead letters on %s are moved on the same server: name a stream or topic there",
            sink);
        return fail(COMMAND_USAGE, why);
    }
    if (args->is_replay && !args->to && !settings_is(settings, "source", sink)) {
        snprintf(why, sizeof why,
                 "the dead letters are with the sink, %s, and the input is on %s: name a stream or "
                 "topic on %s with --to",
                 sink, source ? source : "nothing", sink);
        return fail(COMMAND_CONFIG, why);
    }
    return go_through_all(args, ops, settings);
}

static struct queue_target target_of(const struct settings *settings)
{
    return (struct queue_target){settings_text(settings, "dlq.to"),
                                 settings_text(settings, "dlq.stream"), "--to", false};
}

/* The connector of a URL; NULL: it is the name of a stream or topic. */
static const struct connector *queue_of(const struct settings *settings)
{
    const struct queue_target target = target_of(settings);
    char why[700];
    bool is_url = target.url && strstr(target.url, "://");
    return is_url ? queue_target_find(&target, why, sizeof why) : NULL;
}

/* Where a URL points, as options of its connector's sink. */
static int prepare(const struct invocation *invocation)
{
    const struct queue_target target = target_of(invocation->settings);
    const struct connector *connector = queue_of(invocation->settings);
    char err[1200] = "out of memory";
    if (!connector && target.url && strstr(target.url, "://")) {
        /* Asked again for its sentence. */
        queue_target_find(&target, err, sizeof err);
        return fail(COMMAND_USAGE, err);
    }
    static const struct queue_option more[] = {{"delivery", "at-least-once"}}; /* of workers */
    int rc = 0;
    if (connector)
        rc = queue_target_set(invocation->options, connector, &target, more, 1, err, sizeof err);
    return rc == 0 ? COMMAND_OK : fail(rc == -ENOMEM ? COMMAND_INTERNAL : COMMAND_USAGE, err);
}

static int print_codes(void)
{
    for (size_t i = 0; i < N_DEAD_LETTER_CODES; i++)
        printf("%s\t%s\t%s\n", dead_letter_codes[i].name, dead_letter_codes[i].meaning,
               dead_letter_codes[i].remedy);
    return COMMAND_OK;
}

static int run(const struct invocation *invocation)
{
    const struct settings *settings = invocation->settings;
    const char *action = settings_text(settings, "dlq.action");
    size_t limit = (size_t)settings_number(settings, "dlq.limit");
    if (!action)
        return fail(COMMAND_USAGE, "expected list, replay or codes; see --help");
    if (strcmp(action, "codes") == 0)
        return print_codes();
    const struct args args = {
        .is_replay = strcmp(action, "replay") == 0,
        .json = settings_bool(settings, "dlq.json"),
        .show = settings_bool(settings, "dlq.show"),
        .dry_run = settings_bool(settings, "dlq.dry_run"),
        .code = settings_text(settings, "dlq.code"),
        .to = settings_text(settings, "dlq.to"),
        .limit = limit ? limit : SIZE_MAX,
        .queue = queue_of(settings),
    };
    return serve(&args, settings);
}

const struct command command_dlq = {
    .name = "dlq",
    .summary = "lists dead letters, and puts them back on the input",
    .synopsis = "list [--json] [--show] [--code CODE] [--limit N] [OPTION...]\n"
                "replay [--to NAME|URL] [--code CODE] [--limit N] [--dry-run] [OPTION...]\n"
                "codes",
    .text = "list prints a line for each dead letter: its position, its code, its position in the "
            "input, and the reason, with tabs between. replay puts dead letters back on the input "
            "as they came, and removes them. Those that arrive meanwhile wait for the next time. "
            "Where a dead letter cannot be locked (in a topic), two replays at once put it back "
            "twice. Dead letters in a database go back to the system that "
            "--to names by a URL, as in `embedmill push`, and --stream by the name there; a replay "
            "that is killed leaves at most one of them in both places. codes prints what each code "
            "means "
            "and what to do, with "
            "tabs between. Where {model} in a name stands for each of several models, list and "
            "replay go through those that --model NAME=FILE names.",
    .endings = endings,
    .own = table,
    .syntax = {.aliases = aliases, .positionals = positionals},
    .wanted = is_wanted,
    .prepare = prepare,
    .run = run,
};
