/*
 * command_compact.c: `embedmill compact OUT -o NEW`: an index without what is gone.
 *
 * Owns:    the options compact.*, the exit code, what is printed.
 * Refuses: the copying: worker/index/compact.c.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "worker/commands/command.h"
#include "worker/commands/command_line.h"
#include "worker/index/compact.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, "NEW is written."},
    {COMMAND_USAGE, NULL},
    {COMMAND_DATA, "OUT is missing or damaged."},
    {COMMAND_INTERNAL, NULL},
    {COMMAND_IO, "NEW exists already, or cannot be written."},
    COMMAND_END,
};

static const struct option compact_options[] = {
    {"compact.index", OPTION_TEXT, NULL, NULL, 0, 0, "OUT", "What `embedmill index` has written."},
    {"compact.output", OPTION_TEXT, NULL, NULL, 0, 0, "NEW", "The copy; it must not exist."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

static bool is_wanted(const char *name)
{
    for (const struct option *option = compact_options; option->name; option++)
        if (strcmp(name, option->name) == 0)
            return true;
    return false;
}

static int run(const struct invocation *invocation)
{
    const char *from = settings_text(invocation->settings, "compact.index");
    const char *to = settings_text(invocation->settings, "compact.output");
    struct compacted compacted;
    char err[700] = "";
    if (!from || !to)
        return command_line_fail("compact", COMMAND_USAGE,
                                 "expected an index and a name for its copy: embedmill compact OUT "
                                 "-o NEW");
    int rc = compact_copy(from, to, &compacted, err, sizeof err);
    if (rc != 0)
        return command_line_fail("compact",
                                 rc == -ENOMEM                     ? COMMAND_INTERNAL
                                 : rc == -EINVAL                   ? COMMAND_USAGE
                                 : rc == -EBADMSG || rc == -ENOENT ? COMMAND_DATA
                                                                   : COMMAND_IO,
                                 err);
    printf("%zu vectors kept, %zu left out\n", compacted.kept, compacted.left_out);
    return COMMAND_OK;
}

static const struct flag_alias aliases[] = {
    {"-o", "compact.output"}, {"--output", "compact.output"}, {NULL, NULL}};
static const char *const positionals[] = {"compact.index", NULL};

const struct command command_compact = {
    .name = "compact",
    .summary = "copies an index without the vectors that were replaced or deleted",
    .synopsis = "OUT -o NEW",
    .text =
        "An index only grows: when a text comes again or is deleted, its old vectors stay in OUT, "
        "and `search` skips them. This copies OUT, an .npy or a .jsonl, to NEW without them, for "
        "programs that read the file themselves. OUT stays as it is, and `index` continues it.",
    .endings = endings,
    .own = compact_options,
    .syntax = {.aliases = aliases, .positionals = positionals},
    .wanted = is_wanted,
    .run = run,
};
