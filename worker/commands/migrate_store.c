/*
 * migrate_store.c: see migrate_store.h.
 *
 * Why: the side begins empty with each start, and every vector comes from the cache that was made
 *      before: so nothing on the side is left of a corpus that has changed since, and a start after
 *      a death embeds what it had not embedded yet.
 */
#include "worker/commands/migrate_store.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "connectors/migration.h"
#include "worker/commands/command_index.h"
#include "worker/commands/command_line.h"
#include "worker/commands/command_work.h"
#include "worker/commands/migrate_steps.h"
#include "worker/index/collect.h"
#include "worker/index/handover.h"
#include "worker/telemetry/log.h"

/* One at a time in a process; the steps of a struct work have no context of their own. */
static struct store {
    const struct connector *connector;
    struct options *options;
    struct migration *migration;
    struct migration_found found;
    char wanted[MADE_WITH_SIZE]; /* what the new vectors are made with */
    char work[HANDOVER_PATH], sample[HANDOVER_PATH], cache[HANDOVER_PATH];
    size_t every; /* record of the corpus is in the sample */
    bool is_sample;
    void (*leave)(int code);
} store;

static const struct migration_ops *ops(void)
{
    return store.connector->migration;
}

static int fail(int rc, const char *why)
{
    int code = rc == -ENOMEM                   ? COMMAND_INTERNAL
               : rc == -EINVAL || rc == -EBUSY ? COMMAND_CONFIG
               : rc == -EBADMSG                ? COMMAND_DATA
                                               : COMMAND_UNAVAILABLE;
    return migrate_fail(code, why);
}

/* ---- the URL */

static const struct connector *find(const char *url)
{
    size_t n = strcspn(url, ":");
    if (strncmp(url + n, "://", 3) != 0)
        return NULL;
    for (size_t i = 0; all_connectors[i]; i++)
        for (const char *const *scheme =
                 all_connectors[i]->migration ? all_connectors[i]->migration->schemes : NULL;
             scheme && *scheme; scheme++)
            if (strlen(*scheme) == n && strncasecmp(url, *scheme, n) == 0)
                return all_connectors[i];
    return NULL;
}

bool migrate_store_is_url(const char *url)
{
    return find(url) != NULL;
}

void migrate_store_forms(char *out, size_t size)
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; all_connectors[i]; i++)
        if (all_connectors[i]->migration && n < size)
            n += (size_t)snprintf(out + n, size - n, "%s%s", n > 0 ? " or " : "",
                                  all_connectors[i]->migration->form);
}

bool migrate_store_wanted(const char *name)
{
    size_t len = strcspn(name, ".");
    for (size_t i = 0; name[len] && all_connectors[i]; i++)
        if (all_connectors[i]->migration && strlen(all_connectors[i]->name) == len &&
            strncmp(all_connectors[i]->name, name, len) == 0)
            return true;
    return false;
}

static int set_option(void *ctx, const char *name, const char *value)
{
    (void)ctx;
    return migrate_set(store.options, name, value) == COMMAND_OK ? 0 : -EINVAL;
}

int migrate_store_prepare(const struct invocation *invocation, const char *url)
{
    const struct queue_setter setter = {set_option, NULL};
    store = (struct store){.connector = find(url), .options = invocation->options};
    assert(store.connector);
    int code = ops()->output(url, &setter) == 0 ? COMMAND_OK : COMMAND_USAGE;
    if (code == COMMAND_OK)
        code = migrate_set(store.options, "source", "file");
    if (code == COMMAND_OK)
        code = migrate_set(store.options, "sink", store.connector->name);
    return code;
}

/* ---- what the output was made with is the default of what it is to be made with */

static bool get(const char *name, char *out, size_t size)
{
    struct manifest manifest;
    /* Lines of the same form as a manifest's. */
    manifest.len =
        (size_t)snprintf(manifest.text, sizeof manifest.text, "%s", store.found.made_with);
    return manifest_get(&manifest, name, out, size);
}

static enum output_dtype dtype_named(const char *name)
{
    for (int dtype = DTYPE_F2; dtype <= DTYPE_B1; dtype++)
        if (strcmp(name, codec_dtype_name((enum output_dtype)dtype)) == 0)
            return (enum output_dtype)dtype;
    return DTYPE_F4;
}

static int set_defaults(struct options *options)
{
    static const char *const dtypes[] = {"f4", "f2", "i1", "b1"};
    const char *place = "what the vectors there are made with";
    char value[200] = "", err[400];
    int rc = 0;
    if (get("precision", value, sizeof value))
        rc = migrate_set_default(options, "precision", value, place, err, sizeof err);
    if (rc == 0 && get("prompt", value, sizeof value))
        rc = migrate_set_default(options, "prompt", value, place, err, sizeof err);
    if (rc == 0 && get("dtype", value, sizeof value))
        rc = migrate_set_default(options, "dtype", dtypes[dtype_named(value)], place, err,
                                 sizeof err);
    if (rc == 0 && get("chunks", value, sizeof value) && strcmp(value, "none") != 0)
        rc = migrate_set_default(options, "too_long", "chunk", place, err, sizeof err);
    if (rc == 0 && strcmp(settings_text(options_settings(options), "too_long"), "chunk") == 0)
        rc = migrate_set_chunks(options, value, place, err, sizeof err);
    return rc == 0 ? COMMAND_OK : migrate_fail(COMMAND_CONFIG, err);
}

/* ---- the steps of a work */

static int begin(const struct settings *settings, const struct model_info *model,
                 struct pipeline_options *options, char *err, size_t err_size)
{
    char value[64] = "", why[900];
    size_t dim = get("dim", value, sizeof value) ? strtoul(value, NULL, 10) : 0;
    bool is_same =
        get("model_fingerprint", value, sizeof value) && strcmp(value, model->fingerprint) == 0;
    if (options->session.dim == 0 && is_same && dim < model->dim) /* not asked to change it */
        options->session.dim = dim;
    pipeline_made_with(options, model, store.wanted);
    struct bytes there = {store.found.made_with, strlen(store.found.made_with)};
    /* Known only now: fingerprint and number of values come from the model. */
    if (made_with_fits(there, store.wanted, "", "", "", why, sizeof why)) {
        log_event(LOG_INFO, "nothing to migrate: the vectors are made with all of this already",
                  LOG_TEXT("output", store.migration->output));
        /* leave ends the process, so what is open at the store is closed first. */
        ops()->close(store.migration);
        log_close();
        store.leave(COMMAND_OK);
    }
    if (store.is_sample)
        return command_index_begin(settings, model, options, err, err_size);
    command_index_set_format(settings, options);
    dim = options->session.dim ? options->session.dim : model->dim;
    return ops()->prepare(store.migration, dim, err, err_size) == 0 ? COMMAND_OK
                                                                    : COMMAND_UNAVAILABLE;
}

static int opened(const struct settings *settings, const struct model_info *model,
                  const struct pipeline_options *options, char *err, size_t err_size)
{
    return store.is_sample ? command_index_opened(settings, model, options, err, err_size)
                           : COMMAND_OK;
}

static int finish(const struct settings *settings, const struct model_info *model,
                  const struct pipeline_stats *stats, double seconds)
{
    (void)settings, (void)model;
    if (store.is_sample)
        migrate_log_estimate(store.found.texts, stats, seconds);
    return COMMAND_OK;
}

static int embed(const struct invocation *invocation, bool (*wanted)(const char *name))
{
    const struct work work = {.command = "migrate",
                              .wanted = wanted,
                              .begin = begin,
                              .opened = opened,
                              .finish = finish,
                              .leave = invocation->leave};
    int code = command_work_prepare(&work, store.options);
    if (code != COMMAND_OK)
        return code;
    code = command_work_run(&work, invocation->settings);
    command_line_log(invocation->settings);
    return code;
}

/* Options that change for a step, and are then what they were. */
struct change {
    const char *name, *value;
    char was[HANDOVER_PATH];
};

static int swap_options(struct change *changes, size_t n, bool is_back)
{
    const struct settings *settings = options_settings(store.options);
    int code = COMMAND_OK;
    for (size_t i = 0; i < n && code == COMMAND_OK; i++) {
        const char *is = settings_text(settings, changes[i].name);
        if (!is_back)
            snprintf(changes[i].was, sizeof changes[i].was, "%s", is ? is : "");
        code = migrate_set(store.options, changes[i].name,
                           is_back ? changes[i].was : changes[i].value);
    }
    return code;
}

/* Anew with each start, for the corpus may be another; and not out of the cache, for it is to be a
 * second embedding. */
static int embed_sample(const struct invocation *invocation, bool (*wanted)(const char *name))
{
    char part[40];
    /* Into a file, whatever the sink: only its vectors are compared. */
    struct change changes[] = {
        {"sink", "file", ""}, {"file.output", store.sample, ""}, {"file.shard", part, ""},
        {"cache", "", ""},    {"output_format", "msgpack", ""},  {"order_by", "none", ""}};
    size_t n = sizeof changes / sizeof *changes;
    store.every = migrate_sample_every(store.found.texts);
    snprintf(part, sizeof part, "1/%zu", store.every);
    handover_remove(store.sample);
    store.is_sample = true;
    int code = swap_options(changes, n, false);
    if (code == COMMAND_OK)
        code = embed(invocation, wanted);
    /* Also after a failure: the next step reads the same options. */
    int back = swap_options(changes, n, true);
    store.is_sample = false;
    return code == COMMAND_OK ? back : code;
}

static int embed_all(const struct invocation *invocation, bool (*wanted)(const char *name))
{
    const struct queue_setter setter = {set_option, NULL};
    const char *cache = settings_text(invocation->settings, "cache");
    int code = ops()->aim(store.migration, &setter) == 0 ? COMMAND_OK : COMMAND_CONFIG;
    /* Not one the user gave, which may be shared; but one there must be, or a death costs
     * everything. */
    if (code == COMMAND_OK && (!cache || !*cache))
        code = migrate_set(store.options, "cache", store.cache);
    return code == COMMAND_OK ? embed(invocation, wanted) : code;
}

/* ---- what came of it */

/* The vectors of the output, or of the side, as a file. 0; -ENOENT: there is none; or all is said.
 */
static int collect(bool is_side, char path[HANDOVER_PATH])
{
    char name[HANDOVER_PATH + 8], dtype[64] = "", err[700] = "out of memory";
    struct collect *collect = NULL;
    snprintf(name, sizeof name, "%s/%s", store.work, is_side ? "new" : "old");
    if (!is_side)
        get("dtype", dtype, sizeof dtype);
    enum output_dtype is =
        is_side ? (enum output_dtype)settings_choice(options_settings(store.options), "dtype")
                : dtype_named(dtype);
    int rc = collect_open(&collect, name, is, err, sizeof err);
    if (rc == 0)
        rc = ops()->read(store.migration, is_side, collect_add, collect, err, sizeof err);
    if (rc == 0)
        rc = collect_end(collect, path, HANDOVER_PATH, err, sizeof err);
    else
        collect_close(collect);
    if (rc == -ENOENT)
        return COMMAND_DATA;
    return rc == 0 ? COMMAND_OK : fail(rc, err);
}

static int verify(const struct settings *settings)
{
    char old[HANDOVER_PATH] = "", fresh[HANDOVER_PATH] = "", err[700];
    struct model *model = NULL;
    struct verified verified;
    int code = collect(false, old);
    if (code == COMMAND_OK)
        code = collect(true, fresh);
    if (code == COMMAND_DATA && !fresh[0])
        return migrate_fail(code, "there are no vectors to compare: no text of the corpus was "
                                  "embedded, or the output was emptied meanwhile");
    if (code == COMMAND_OK) {
        code = command_line_open_model(settings, &model, err, sizeof err);
        if (code != COMMAND_OK)
            migrate_fail(code, err);
    }
    if (code == COMMAND_OK) {
        int rc = verify_index(model, old, fresh, store.sample, &verified, err, sizeof err);
        model_close(model);
        code = rc != 0 ? migrate_fail(rc == -ENOMEM ? COMMAND_INTERNAL : COMMAND_DATA, err)
                       : migrate_judge(store.migration->output, store.migration->side,
                                       store.migration->errors, &verified);
    }
    /* Copies: gigabytes, and of no use after the comparison. Not collected: the name is empty. */
    handover_remove(old);
    handover_remove(fresh);
    return code;
}

static int change_places(void)
{
    char err[900];
    int rc = ops()->finish(store.migration, err, sizeof err);
    if (rc != 0)
        return fail(rc, err);
    /* After a death in the change of places this run has made no sample. */
    if (store.sample[0])
        handover_remove(store.sample);
    log_event(LOG_INFO, "migrated", LOG_TEXT("output", store.migration->output),
              LOG_TEXT("may_be_removed", store.work[0] ? store.work : NULL));
    return COMMAND_OK;
}

static int compare(void)
{
    struct migration_compared compared;
    char err[900];
    int rc = ops()->compare(store.migration, store.wanted, &compared, err, sizeof err);
    if (rc != 0)
        return fail(rc, err);
    if (compared.left_out && compared.changed == 0)
        log_event(LOG_WARN, "texts are left out: keys of others are where their vectors would go",
                  LOG_INTEGER("texts", compared.left_out), LOG_TEXT("as", compared.left_out_id));
    if (compared.changed == 0)
        return COMMAND_OK;
    snprintf(err, sizeof err,
             "%zu texts of %.200s were written while the new vectors were made, as %.80s, and the "
             "corpus may not have them as they are now. All is as it was: stop the workers that "
             "write there, bring the corpus up to date, and start this again; only what has "
             "changed is embedded then",
             compared.changed, store.migration->output, compared.changed_id);
    return migrate_fail(COMMAND_DATA, err);
}

static int run_steps(const struct invocation *invocation, bool (*wanted)(const char *name))
{
    const struct settings *settings = invocation->settings;
    if (!store.found.made_with[0] || store.found.texts == 0)
        return migrate_fail(COMMAND_DATA,
                            store.found.texts == 0
                                ? "there are no vectors of embedmill: is it the right place?"
                                : "nothing says what the vectors there are made with; a worker of "
                                  "this release that writes there notes it");
    snprintf(store.work, sizeof store.work - 40, "%s", settings_text(settings, "migrate.work"));
    snprintf(store.sample, sizeof store.sample, "%.4100s/sample.npy", store.work);
    snprintf(store.cache, sizeof store.cache, "%.4100s/vectors", store.work);
    if (mkdir(store.work, 0700) != 0 && errno != EEXIST)
        return migrate_fail(COMMAND_IO, "the folder --work cannot be made");
    store.leave = invocation->leave;
    int code = set_defaults(store.options);
    if (code == COMMAND_OK)
        code = embed_sample(invocation, wanted);
    if (code != COMMAND_OK || settings_bool(settings, "estimate"))
        return code;
    code = embed_all(invocation, wanted);
    if (code == COMMAND_OK)
        code = verify(settings);
    if (code == COMMAND_OK && settings_bool(settings, "dry_run")) {
        log_event(LOG_INFO, "dry run: the new vectors are ready",
                  LOG_TEXT("side", store.migration->side));
        return COMMAND_OK;
    }
    if (code == COMMAND_OK)
        code = compare();
    return code == COMMAND_OK ? change_places() : code;
}

int migrate_store_run(const struct invocation *invocation, bool (*wanted)(const char *name))
{
    char err[900];
    int rc = ops()->open(&store.migration, invocation->settings, err, sizeof err);
    if (rc == 0)
        rc = ops()->begin(store.migration, &store.found, err, sizeof err);
    int code = rc != 0                    ? fail(rc, err)
               : store.found.is_switching ? change_places()
                                          : run_steps(invocation, wanted);
    ops()->close(store.migration);
    return code;
}
