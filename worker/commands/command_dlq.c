/*
 * command_dlq.c: `embedmill dlq list|replay`: what became of bad messages, and another try for
 * them.
 *
 * Owns:    which letters are meant, how they are shown, when not to put one back.
 * Refuses: to show a text nobody asked for: letters hold people's data, terminals and logs keep it.
 * Threads: the main thread; there is no loop.
 */
#define _GNU_SOURCE /* memmem */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letters.h"
#include "connectors/json.h"
#include "worker/commands/command.h"
#include "worker/commands/command_line.h"
#include "worker/config/config_print.h"
#include "worker/pipeline/records.h"

static const char usage[] =
    "Usage: embedmill dlq list [--json] [--show] [--code CODE] [--limit N] [OPTION...]\n"
    "       embedmill dlq replay [--to NAME] [--code CODE] [--limit N] [--dry-run] [OPTION...]\n"
    "\n"
    "list prints a line for each dead letter: where it lies, its code, where it was an input, and\n"
    "the reason, with tabs between. replay puts letters back on the input as they came, and takes\n"
    "them off. Letters that came in the meantime are left for the next time. On Kafka nothing\n"
    "holds a letter: two replays at once put it back twice.\n"
    "\n"
    "  --json                          A JSON object for each letter.\n"
    "  --show                          Its payload, too.\n"
    "  --code CODE                     Only letters of this code.\n"
    "  --limit N                       At most so many.\n"
    "  --to NAME                       Another stream or topic than the input, on the same "
    "server.\n"
    "  --dry-run                       List what replay would put back.\n"
    "  --config FILE                   The worker's own file: where input and letters are.\n"
    "  -h, --help                      Print this and exit.\n"
    "\n"
    "Exit codes: 0 done; 64 wrong usage; 69 the broker cannot be reached or refuses; 70 internal;\n"
    "78 wrong configuration.\n"
    "\n";

struct wish {
    bool is_replay, json, show, dry_run;
    const char *code, *to;
    size_t limit;
};

struct tally {
    size_t n, n_left, n_gone; /* listed or put back; could not be; done by another meanwhile */
};

static int fail(int code, const char *why)
{
    return command_line_fail("dlq", code, why);
}

static bool is_wanted(const char *name)
{
    static const char *const others[] = {
        "source",     "sink",         "redis.url",     "redis.output_url",
        "redis.body", "redis.stream", "redis.timeout", "redis.dead_letters"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(name, others[i]) == 0)
            return true;
    return strncmp(name, "kafka.", 6) == 0;
}

static int read_limit(const char *text, size_t *out)
{
    char *end;
    errno = 0;
    unsigned long limit = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno != 0 || limit == 0)
        return fail(COMMAND_USAGE, "--limit: expected a number from 1 up");
    *out = limit;
    return COMMAND_OK;
}

/* Takes out of argv what is ours alone; the rest is the worker's options. */
static int read_wish(int *argc, char **argv, struct wish *wish)
{
    const char *limit = NULL;
    const struct {
        const char *flag;
        bool *yes;
        const char **value;
    } flags[] = {{"--json", &wish->json, NULL},       {"--show", &wish->show, NULL},
                 {"--dry-run", &wish->dry_run, NULL}, {"--code", NULL, &wish->code},
                 {"--to", NULL, &wish->to},           {"--limit", NULL, &limit}};
    int n = 0;
    for (int i = 0; i < *argc; i++) {
        size_t k = 0, n_flags = sizeof flags / sizeof flags[0];
        size_t len = strcspn(argv[i], "=");
        while (k < n_flags &&
               (strlen(flags[k].flag) != len || strncmp(argv[i], flags[k].flag, len) != 0 ||
                (argv[i][len] && flags[k].yes)))
            k++;
        if (k == n_flags)
            argv[n++] = argv[i];
        else if (flags[k].yes)
            *flags[k].yes = true;
        else if (argv[i][len])
            *flags[k].value = argv[i] + len + 1;
        else if (i + 1 < *argc)
            *flags[k].value = argv[++i];
        else
            return fail(COMMAND_USAGE, "--code, --to and --limit: expected a value behind it");
    }
    *argc = n;
    wish->limit = SIZE_MAX;
    return limit ? read_limit(limit, &wish->limit) : COMMAND_OK;
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
static int print_letter(const struct wish *wish, const struct letter *letter)
{
    int rc = 0;
    if (wish->json) {
        rc |= print_json("{\"position\": ", letter->position);
        rc |= print_json(", \"code\": ", letter->code);
        rc |= print_json(", \"origin\": ", letter->origin);
        rc |= print_json(", \"reason\": ", letter->reason);
        if (wish->show && letter->value.ptr)
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
    if (wish->show)
        rc = print_json("\t", letter->value);
    putchar('\n');
    return rc;
}

/* What is cut or empty would only die again, or worse, pass as the message it is not. */
static bool can_go_back(const struct letter *letter)
{
    static const char mark[] = RECORD_CUT_MARK;
    return !letter->is_empty &&
           !(letter->reason.ptr &&
             memmem(letter->reason.ptr, letter->reason.len, mark, sizeof mark - 1));
}

static bool is_meant(const struct wish *wish, const struct letter *letter)
{
    return !wish->code || (letter->code.len == strlen(wish->code) &&
                           memcmp(letter->code.ptr, wish->code, letter->code.len) == 0);
}

/* 0 or a negative errno with a sentence. */
static int serve_letter(const struct wish *wish, struct letters *letters,
                        const struct letter *letter, struct tally *tally, char *err,
                        size_t err_size)
{
    if (wish->is_replay && !can_go_back(letter)) {
        fprintf(stderr,
                "embedmill dlq: %.*s is left where it is: not all of the message is there\n",
                (int)letter->position.len, letter->position.ptr);
        tally->n_left++;
        return 0;
    }
    if (!wish->is_replay || wish->dry_run) {
        tally->n++;
        snprintf(err, err_size, "out of memory");
        return print_letter(wish, letter);
    }
    int rc = letters->ops->replay(letters, err, err_size);
    if (rc >= 0)
        *(rc == 1 ? &tally->n : &tally->n_gone) += 1;
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

static int go_through(const struct wish *wish, const struct dead_letters_ops *ops,
                      const struct settings *settings)
{
    struct letters *letters;
    struct letter letter;
    struct tally tally = {0};
    char err[800], close_err[800];
    int rc = ops->open(&letters, settings, wish->to, err, sizeof err);
    if (rc != 0)
        return fail(exit_of(rc), err);
    while (rc == 0 && tally.n < wish->limit) {
        rc = ops->next(letters, &letter, err, sizeof err);
        if (rc <= 0)
            break;
        rc = 0;
        if (is_meant(wish, &letter))
            rc = serve_letter(wish, letters, &letter, &tally, err, sizeof err);
    }
    int closed = ops->close(letters, close_err, sizeof close_err);
    if (wish->is_replay && !wish->dry_run)
        printf("%zu put back, %zu left, %zu gone\n", tally.n, tally.n_left, tally.n_gone);
    if (rc != 0)
        fail(exit_of(rc), err);
    if (closed != 0)
        fail(exit_of(closed), close_err);
    return exit_of(rc != 0 ? rc : closed);
}

static int serve(const struct wish *wish, const struct settings *settings)
{
    const char *source = settings_text(settings, "source"), *sink = settings_text(settings, "sink");
    const struct dead_letters_ops *ops = dead_letters_find(sink);
    char why[300];
    if (!ops) {
        snprintf(why, sizeof why, "the sink %s keeps no dead letters: name another with --sink",
                 sink);
        return fail(COMMAND_CONFIG, why);
    }
    if (wish->is_replay && !wish->to && strcmp(source, sink) != 0) {
        snprintf(why, sizeof why,
                 "the letters lie with the sink, %s, and the input is on %s: name a stream or "
                 "topic on %s with --to",
                 sink, source, sink);
        return fail(COMMAND_CONFIG, why);
    }
    return go_through(wish, ops, settings);
}

int command_dlq(int argc, char **argv)
{
    static const struct command_line line = {.command = "dlq", .usage = usage, .wanted = is_wanted};
    struct wish wish = {0};
    struct options *options;
    struct flags flags;
    const char *what = argc > 0 ? argv[0] : "";
    wish.is_replay = strcmp(what, "replay") == 0;
    if (!wish.is_replay && strcmp(what, "list") != 0 && strcmp(what, "-h") != 0 &&
        strcmp(what, "--help") != 0)
        return fail(COMMAND_USAGE, "expected list or replay; --help tells more");
    if (what[0] != '-') {
        argc--;
        argv++;
    }
    int code = read_wish(&argc, argv, &wish);
    if (code != COMMAND_OK)
        return code;
    if (!command_line_read(&line, argc, argv, &options, &flags, &code))
        return code;
    if (flags.print_config)
        config_print_effective(options, is_wanted, stdout);
    else
        code = serve(&wish, options_settings(options));
    options_close(options);
    return code;
}
