/*
 * command_migrate.c: `embedmill migrate OUT CORPUS`: an index made anew with another model,
 * precision, dim or chunking, which takes its name once it is proven.
 *
 * Owns:    the order: a sample, the index beside, the comparison, the change of names; what of the
 *          old index's options stays.
 * Refuses: embedding (`index` does it, three times: nothing here knows of batches), comparing
 *          (verify.c), renaming (handover.c), stores (migrate_store.c).
 * Why:     the sample is every nth record of the corpus. It comes first and tells how long all will
 *          take; in the end it is the second embedding that the new index is compared with.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/commands/command.h"
#include "worker/commands/command_index.h"
#include "worker/commands/command_line.h"
#include "worker/commands/command_work.h"
#include "worker/commands/migrate_steps.h"
#include "worker/commands/migrate_store.h"
#include "worker/config/name.h"
#include "worker/index/handover.h"
#include "worker/index/vectors.h"
#include "worker/index/verify.h"
#include "worker/telemetry/log.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, "OUT is what was asked for, or was already."},
    {COMMAND_USAGE, NULL},
    {COMMAND_DATA,
     "The new index lacks texts of the old one, or OUT is missing or damaged. OUT is as "
     "it was."},
    {COMMAND_NO_MODEL, NULL},
    {COMMAND_INTERNAL, NULL},
    {COMMAND_UNAVAILABLE, NULL},
    {COMMAND_IO, NULL},
    {COMMAND_DEADLINE, "Stopped by a signal, and not finished within drain_timeout."},
    {COMMAND_CONFIG, "Wrong configuration, or something is in the way of the new index."},
    COMMAND_SIGNALLED,
    COMMAND_END,
};

static const struct option migrate_options[] = {
    {"migrate.index", OPTION_TEXT, NULL, NULL, 0, 0, "OUT",
     "What `embedmill index` has written, or the URL of a store that workers write to."},
    {"migrate.work", OPTION_TEXT, "embedmill-migrate", NULL, 0, 0, "FOLDER",
     "Of a store: where the sample, copies for the comparison and the cache lie (default: in the "
     "current folder)."},
    {"estimate", OPTION_BOOL, "false", NULL, 0, 0, NULL,
     "Embed a sample, say how long all would take, and end."},
    {"dry_run", OPTION_BOOL, "false", NULL, 0, 0, NULL,
     "Make the new index and compare it, but leave OUT as it is."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

static bool is_wanted(const char *name)
{
    for (const struct option *option = migrate_options; option->name; option++)
        if (strcmp(name, option->name) == 0)
            return true;
    if (migrate_store_wanted(name))
        return true;
    return command_index_wanted(name) && strcmp(name, "file.output") != 0;
}

/* One at a time in a process; the steps of a struct work have no context of their own. */
static struct migration {
    const char *out;
    char fresh[HANDOVER_PATH], sample[HANDOVER_PATH], old[HANDOVER_PATH];
    struct manifest manifest; /* of OUT */
    struct manifest wanted;
    size_t texts; /* in OUT */
    size_t every; /* record of the corpus is in the sample */
    bool is_sample;
    void (*leave)(int code);
} migration;

/* ---- the steps of `index`, with another model */

/* Two manifests, but for the part of the corpus. */
static bool is_made_so(const struct manifest *wanted, const struct manifest *is)
{
    const char *line = wanted->text + strcspn(wanted->text, "\n") + 1;
    for (; *line; line += strcspn(line, "\n") + 1) {
        char name[64], ours[512] = "", theirs[512] = "";
        snprintf(name, sizeof name, "%.*s", (int)strcspn(line, ":"), line);
        manifest_get(wanted, name, ours, sizeof ours);
        if (strcmp(name, "file.shard") != 0 &&
            (!manifest_get(is, name, theirs, sizeof theirs) || strcmp(ours, theirs) != 0))
            return false;
    }
    return true;
}

static int begin(const struct settings *settings, const struct model_info *model,
                 struct pipeline_options *options, char *err, size_t err_size)
{
    char value[64] = "";
    manifest_get(&migration.manifest, "model_fingerprint", value, sizeof value);
    bool is_same_model = strcmp(value, model->fingerprint) == 0;
    if (options->session.dim == 0 && is_same_model && /* not asked to change it */
        manifest_get(&migration.manifest, "dim", value, sizeof value) &&
        strtoul(value, NULL, 10) < model->dim)
        options->session.dim = strtoul(value, NULL, 10);
    command_index_manifest(&migration.wanted, settings, model, options);
    if (is_made_so(&migration.wanted, &migration.manifest)) {
        handover_remove(migration.sample);
        log_event(LOG_INFO, "nothing to migrate: the index is made with all of this already",
                  LOG_TEXT("index", migration.out));
        log_close();
        /* Ends the process: a `begin` has no way to say that nothing is to be done. */
        migration.leave(COMMAND_OK);
    }
    if (access(migration.old, F_OK) == 0) {
        snprintf(err, err_size,
                 "%s is there, from an earlier migration: remove it and what lies beside it, or "
                 "call it something else",
                 migration.old);
        return COMMAND_CONFIG;
    }
    return command_index_begin(settings, model, options, err, err_size);
}

static int finish(const struct settings *settings, const struct model_info *model,
                  const struct pipeline_stats *stats, double seconds)
{
    (void)settings, (void)model;
    if (!migration.is_sample || stats->computed_texts == 0)
        return COMMAND_OK;
    migrate_log_estimate(migration.texts, stats, seconds);
    return COMMAND_OK;
}

static const struct work work = {.command = "migrate",
                                 .wanted = is_wanted,
                                 .begin = begin,
                                 .opened = command_index_opened,
                                 .finish = finish};

/* Into one of the indexes beside OUT. */
static int embed(const struct invocation *invocation, bool is_sample)
{
    struct options *options = invocation->options;
    char whole[64], part[80], cache[HANDOVER_PATH];
    unsigned long long shard = 1, n_shards = 1;
    snprintf(whole, sizeof whole, "%s", settings_text(invocation->settings, "file.shard"));
    snprintf(cache, sizeof cache, "%s", settings_text(invocation->settings, "cache"));
    sscanf(whole, "%llu/%llu", &shard, &n_shards);
    /* Every so many of this index's own records: I-th of N, and of those each `every`th. */
    snprintf(part, sizeof part, "%llu/%llu", shard, n_shards * migration.every);
    migration.is_sample = is_sample;
    int code = migrate_set(options, "file.output", is_sample ? migration.sample : migration.fresh);
    if (code == COMMAND_OK && is_sample)
        code = migrate_set(options, "file.shard", part);
    if (code == COMMAND_OK && is_sample) /* a second embedding, not the first one again */
        code = migrate_set(options, "cache", "");
    struct work steps = work;
    steps.leave = migration.leave = invocation->leave;
    if (code == COMMAND_OK)
        code = command_work_run(&steps, invocation->settings);
    /* command_work_run has closed the log. */
    command_line_log(invocation->settings);
    if (is_sample &&
        (migrate_set(options, "file.shard", whole) || migrate_set(options, "cache", cache)))
        return COMMAND_INTERNAL;
    return code;
}

/* ---- what is there */

static int read_old(struct migration *m)
{
    struct vectors *vectors = NULL;
    char err[700];
    if (vectors_open(&vectors, m->out, err, sizeof err) != 0)
        return migrate_fail(COMMAND_DATA, err);
    const char *last = NULL;
    struct bytes before = {NULL, 0};
    for (size_t i = 0; i < vectors_count(vectors); i++) {
        struct bytes text = vectors_text_id(vectors, i);
        bool is_next_piece =
            last && text.len == before.len && memcmp(text.ptr, before.ptr, text.len) == 0;
        /* Pieces of one text stand together, so the one before tells. */
        m->texts += vectors_is_live(vectors, i) && !is_next_piece;
        before = text;
        last = text.ptr;
    }
    vectors_close(vectors);
    m->every = migrate_sample_every(m->texts);
    return COMMAND_OK;
}

/* The new index says of itself what was asked for. */
static int check_manifest(const struct migration *m)
{
    struct manifest manifest;
    char err[700];
    int rc = manifest_read(&manifest, m->fresh, err, sizeof err);
    if (rc == 0)
        rc = manifest_compare(&m->wanted, m->fresh, true, err, sizeof err);
    return rc == 0 ? COMMAND_OK : migrate_fail(COMMAND_DATA, err);
}

static int verify(const struct migration *m, const struct settings *settings)
{
    struct model *model = NULL;
    struct verified verified;
    char err[700];
    int code = check_manifest(m);
    if (code != COMMAND_OK)
        return code;
    code = command_line_open_model(settings, &model, err, sizeof err);
    if (code != COMMAND_OK)
        return migrate_fail(code, err);
    int rc = verify_index(model, m->out, m->fresh, m->sample, &verified, err, sizeof err);
    model_close(model);
    if (rc != 0)
        return migrate_fail(rc == -ENOMEM ? COMMAND_INTERNAL : COMMAND_DATA, err);
    char errors[HANDOVER_PATH + 20];
    snprintf(errors, sizeof errors, "%s.errors.jsonl", m->fresh);
    return migrate_judge(m->out, m->fresh, errors, &verified);
}

static int take_name(const struct migration *m)
{
    char err[700];
    int rc = handover_run(m->out, m->fresh, m->old, err, sizeof err);
    if (rc != 0)
        return migrate_fail(rc == -EEXIST ? COMMAND_CONFIG : COMMAND_IO, err);
    handover_remove(m->sample);
    log_event(LOG_INFO, "migrated", LOG_TEXT("index", m->out), LOG_TEXT("old", m->old));
    return COMMAND_OK;
}

static int run_steps(const struct invocation *invocation)
{
    struct migration *m = &migration;
    const struct settings *settings = invocation->settings;
    int code = read_old(m);
    if (code == COMMAND_OK)
        code = embed(invocation, true);
    if (code != COMMAND_OK || settings_bool(settings, "estimate"))
        return code;
    code = embed(invocation, false);
    if (code == COMMAND_OK)
        code = verify(m, settings);
    if (code != COMMAND_OK || !settings_bool(settings, "dry_run"))
        return code == COMMAND_OK ? take_name(m) : code;
    log_event(LOG_INFO, "dry run: the new index is ready", LOG_TEXT("index", m->fresh));
    return COMMAND_OK;
}

static int run(const struct invocation *invocation)
{
    command_line_log(invocation->settings);
    /* An interrupted handover is all that is left of a migration: no step before it again. */
    int code = migrate_store_is_url(migration.out) ? migrate_store_run(invocation, is_wanted)
               : handover_is_open(migration.out)   ? take_name(&migration)
                                                   : run_steps(invocation);
    log_close();
    return code;
}

/* ---- options: what OUT was made with is the default of what it is to be made with */

static int set_defaults(struct options *options, const struct manifest *manifest, char *err,
                        size_t err_size)
{
    static const char *const kept[] = {
        "precision",         "prompt",     "dtype",       "too_long",   "bad_utf8",
        "file.format",       "file.id",    "file.column", "file.shard", "output_format",
        "output_collection", "text_field", "id_field"};
    char value[512];
    int rc = 0;
    for (size_t i = 0; i < sizeof kept / sizeof kept[0] && rc == 0; i++)
        if (manifest_get(manifest, kept[i], value, sizeof value) && value[0])
            rc = migrate_set_default(options, kept[i], value, migration.out, err, err_size);
    if (rc == 0 && manifest_get(manifest, "chunk_tokens", value, sizeof value) &&
        strcmp(settings_text(options_settings(options), "too_long"), "chunk") == 0)
        rc = migrate_set_chunks(options, value, migration.out, err, err_size);
    return rc;
}

static int prepare(const struct invocation *invocation)
{
    struct options *options = invocation->options;
    const char *out = settings_text(invocation->settings, "migrate.index");
    const char *corpus = settings_text(invocation->settings, "file.path");
    char err[700];
    migration = (struct migration){.out = out};
    if (!out || !corpus)
        return command_line_fail("migrate", COMMAND_USAGE,
                                 "expected an index and the corpus that it was made of, for an "
                                 "index holds no texts: embedmill migrate OUT CORPUS --model NEW");
    bool is_url = migrate_store_is_url(out);
    if (!is_url && !name_ends_with(out, ".npy") && !name_ends_with(out, ".jsonl"))
        return command_line_fail("migrate", COMMAND_USAGE,
                                 "OUT ends in neither .npy nor .jsonl and is not the URL of a "
                                 "store; other forms cannot be read back: make another by "
                                 "`embedmill index` and rename it");
    if (strcmp(corpus, "-") == 0)
        return command_line_fail("migrate", COMMAND_USAGE,
                                 "the corpus is read more than once, so it cannot be standard "
                                 "input: write it to a file");
    if (is_url)
        return migrate_store_prepare(invocation, out);
    if (handover_name(out, "next", migration.fresh) != 0 ||
        handover_name(out, "sample", migration.sample) != 0 ||
        handover_name(out, "old", migration.old) != 0)
        return command_line_fail("migrate", COMMAND_USAGE, "the name of OUT is too long");
    if (handover_is_open(out)) /* its manifest may be either */
        return COMMAND_OK;
    if (manifest_read(&migration.manifest, out, err, sizeof err) != 0)
        return command_line_fail("migrate", COMMAND_DATA, err);
    int rc = command_index_set_ends(options, err, sizeof err);
    if (rc == 0)
        rc = set_defaults(options, &migration.manifest, err, sizeof err);
    if (rc == 0)
        rc = options_set(options, "file.output", migration.fresh, ORIGIN_FLAG, "migrate", err,
                         sizeof err);
    if (rc != 0)
        return command_line_fail("migrate", COMMAND_CONFIG, err);
    return command_work_prepare(&work, options);
}

static void print_stores(char *out, size_t size)
{
    char forms[400];
    migrate_store_forms(forms, sizeof forms);
    snprintf(out, size, "Stores of this build: %s.", forms[0] ? forms : "none");
}

static const struct flag_alias aliases[] = {{"--shard", "file.shard"},
                                            {"--column", "file.column"},
                                            {"--format", "output_format"},
                                            {"--work", "migrate.work"},
                                            {NULL, NULL}};
static const char *const positionals[] = {"migrate.index", "file.path", NULL};

const struct command command_migrate = {
    .name = "migrate",
    .summary = "rebuilds an index with another model, and swaps it in once it is verified",
    .synopsis = "OUT CORPUS [--model NEW] [OPTION...]",
    .text =
        "Rebuild the index OUT, an .npy or a .jsonl of `embedmill index`, from its CORPUS with "
        "what the command line changes: model, precision, dim, dtype, prompt, chunks. Everything "
        "else stays as it was. OUT can be searched and extended until the new index is complete "
        "and verified and takes its place.\n\n"
        "1. It embeds a sample of the corpus, and prints how many texts and tokens there are and "
        "how many hours they will take. With --estimate it ends here.\n\n"
        "2. It makes the new index beside OUT. Killed or stopped, it resumes when you start it "
        "again in the same way.\n\n"
        "3. It compares the two: all texts of OUT must be in the new one; those of the sample were "
        "embedded twice, and their vectors must be equal (cosine at least 0.999); it reports how "
        "many of the ten nearest texts stayed the same. With --dry-run it ends here.\n\n"
        "4. The new index takes the name OUT; the old one becomes OUT.old (corpus.old.npy), yours "
        "to remove.\n\n"
        "OUT may also be the URL of a store that workers write to; its options say which output is "
        "meant. Workers may run meanwhile: they wait while the outputs are swapped, and nothing "
        "that they write is lost (docs/operations.md, Changing the model).",
    .details = print_stores,
    .endings = endings,
    .own = migrate_options,
    .syntax = {.aliases = aliases, .positionals = positionals},
    .wanted = is_wanted,
    .prepare = prepare,
    .run = run,
};
