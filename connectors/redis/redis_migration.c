/*
 * redis_migration.c: keys and hashes of Redis, made anew beside themselves
 * (connectors/migration.h).
 *
 * Owns:    the side "embedmill:next:PREFIX", the states of the note what vectors are made with, and
 *          the order of the steps.
 * Refuses: what must be atomic: redis_migration_script.c.
 * Threads: the calling one.
 * Why:     all that a migration knows lies on the server, in the database of the output: a server
 *          that falls back to an earlier state takes the migration back with it.
 *
 * The note "embedmill:made-with:PREFIX" is in one of three states:
 *   what the vectors are made with: workers write, and each write compares it (redis_script.c);
 *   "migrating: yes", "step: comparing": workers wait; the output is as it was, so whoever comes
 *   gives it back;
 *   "migrating: yes", "step: switching": workers wait; texts move, one atomic step for a few of
 *   them, and whoever comes goes on. "embedmill:moving:PREFIX" has those that are to be moved.
 * "embedmill:migrating:PREFIX" holds a token of the one who migrates. A second is refused as long
 * as the first is subscribed to the channel "embedmill:migrating:DB:PREFIX", which ends with its
 * process; should it lose that connection, the second goes on and the first finds its token gone.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "connectors/redis/redis_made_with.h"
#include "connectors/redis/redis_migration.h"
#include "connectors/redis/redis_migration_script.h"

#define COMPARING MADE_WITH_HELD "step: comparing\n"
#define SWITCHING MADE_WITH_HELD "step: switching\n"

static const char *const schemes[] = {
    "redis",           "rediss",        "unix",           "redis+sentinel",
    "rediss+sentinel", "redis+cluster", "rediss+cluster", NULL};

static struct redis_migration *self(struct migration *migration)
{
    return (struct redis_migration *)migration;
}

static int redis_output_of(const char *url, const struct queue_setter *to)
{
    const struct queue_option options[] = {{"redis.url", url}, {"redis.output_url", ""}};
    return queue_set(to, options, 2);
}

static int aim(struct migration *base, const struct queue_setter *to)
{
    const struct redis_migration *m = self(base);
    const struct queue_option options[] = {{"redis.output_prefix", m->side},
                                           {"redis.dead_letters", m->letters},
                                           {"redis.stream", m->stream},
                                           {"redis.expire", "0s"}}; /* see compare */
    return queue_set(to, options, 4);
}

/* ---- its life */

static int copy_name(char **out, const char *before, const char *prefix)
{
    size_t size = strlen(before) + strlen(prefix) + 1;

    *out = malloc(size);
    if (!*out)
        return -ENOMEM;
    snprintf(*out, size, "%s%s", before, prefix);
    return 0;
}

/* A script that answers 1 or 0. 1, 0, or negative errno and a sentence. */
static int ask(struct redis_migration *m, char *err, size_t err_size)
{
    redisReply *reply;
    int rc = redis_call_args(m->call, &reply, &m->args, err, err_size);

    if (rc)
        return rc;
    int answer = reply->type == REDIS_REPLY_INTEGER ? reply->integer == 1 : 0;
    freeReplyObject(reply);
    return answer;
}

static void migration_close(struct migration *base)
{
    struct redis_migration *m = self(base);
    char why[400];

    if (!m)
        return;
    if (m->token[0]) { /* else it was never open */
        redis_migration_words(m, redis_migration_leave, 1, m->owner);
        redis_args_text(&m->args, m->token);
        (void)ask(m, why, sizeof why);
    }
    redis_migration_forget(m);
    redis_call_close(m->call);
    /* With its subscription another may begin. */
    redis_call_close(m->alone);
    redis_config_clear(&m->config);
    redis_args_close(&m->args);
    free(m->side);
    free(m->letters);
    free(m->stream);
    free(m->note);
    free(m->side_note);
    free(m->owner);
    free(m->journal);
    free(m);
}

static int name_keys(struct redis_migration *m)
{
    const char *prefix = m->config.output_prefix;
    int rc = copy_name(&m->side, "embedmill:next:", prefix);

    if (rc == 0)
        rc = copy_name(&m->letters, "embedmill:next-dlq:", prefix);
    if (rc == 0)
        rc = copy_name(&m->stream, "embedmill:next-none:", prefix);
    if (rc == 0)
        rc = copy_name(&m->note, "embedmill:made-with:", prefix);
    if (rc == 0)
        rc = copy_name(&m->side_note, "embedmill:made-with:embedmill:next:", prefix);
    if (rc == 0)
        rc = copy_name(&m->owner, "embedmill:migrating:", prefix);
    return rc ? rc : copy_name(&m->journal, "embedmill:moving:", prefix);
}

static int check_names(const struct redis_migration *m, char *err, size_t err_size)
{
    const char *prefix = m->config.output_prefix;

    if (m->config.output == REDIS_OUTPUT_STREAM)
        snprintf(err, err_size,
                 "redis.output: a stream keeps what it was given, and has no texts to be replaced; "
                 "expected key or hash");
    else if (!*prefix || strncmp("embedmill:", prefix, strlen(prefix)) == 0 || strchr(prefix, ','))
        snprintf(err, err_size,
                 "redis.output_prefix: '%.100s' is also the beginning of the keys that a migration "
                 "needs for itself (embedmill:...), or has a comma",
                 prefix);
    else if (strlen(prefix) > REDIS_MADE_WITH_KEY_SIZE - 60)
        snprintf(err, err_size, "redis.output_prefix: too long for a migration");
    else
        return 0;
    return -EINVAL;
}

/* A server that evicts keys could lose what lies on the side. One that does not tell is believed.
 */
static int check_eviction(struct redis_migration *m, char *err, size_t err_size)
{
    char why[400];
    redisReply *limit = NULL, *policy = NULL;
    int rc = 0;

    if (redis_call_words(m->call, &limit, 3, (const char *[]){"CONFIG", "GET", "maxmemory"}, why,
                         sizeof why) == 0 &&
        redis_call_words(m->call, &policy, 3, (const char *[]){"CONFIG", "GET", "maxmemory-policy"},
                         why, sizeof why) == 0) {
        const redisReply *bytes = redis_reply_at(limit, 1), *name = redis_reply_at(policy, 1);
        if (redis_reply_is_text(bytes) && redis_reply_is_text(name) &&
            strcmp(bytes->str, "0") != 0 && strcmp(name->str, "noeviction") != 0) {
            snprintf(err, err_size,
                     "this server evicts keys when its memory is full (maxmemory %.30s, "
                     "maxmemory-policy %.40s), and the new vectors could be lost: CONFIG SET "
                     "maxmemory-policy noeviction",
                     bytes->str, name->str);
            rc = -EINVAL;
        }
    }
    freeReplyObject(limit);
    freeReplyObject(policy);
    return rc;
}

/* How many are subscribed. */
static int count_others(struct redis_migration *m, const char *channel, long long *out, char *err,
                        size_t err_size)
{
    const char *words[] = {"PUBSUB", "NUMSUB", channel};
    redisReply *reply;
    int rc = redis_call_words(m->call, &reply, 3, words, err, err_size);

    if (rc)
        return rc;
    const redisReply *n = redis_reply_at(reply, 1);
    /* Our own subscription is one of them. */
    *out = n && n->type == REDIS_REPLY_INTEGER ? n->integer - 1 : 0;
    freeReplyObject(reply);
    return 0;
}

/* Of two migrations the second ends, for both would write to one side. What the server knows of a
 * process that was killed is over in moments. */
static int be_alone(struct redis_migration *m, char *err, size_t err_size)
{
    const struct timespec pause = {.tv_nsec = 100 * 1000 * 1000};
    char channel[REDIS_MADE_WITH_KEY_SIZE + 40];
    long long others = 1;
    redisReply *reply;

    snprintf(channel, sizeof channel, "embedmill:migrating:%d:%s", m->config.output_url.db,
             m->config.output_prefix);
    /* Once it is subscribed a connection takes no other commands: it has no other use. */
    int rc = redis_call_open(&m->alone, &m->config.output_url, m->config.output_slot, m->config.tls,
                             m->config.timeout_ms, err, err_size);
    if (rc == 0)
        rc = redis_call_words(m->alone, &reply, 2, (const char *[]){"SUBSCRIBE", channel}, err,
                              err_size);
    if (rc)
        return rc;
    freeReplyObject(reply);
    /* Two seconds: the subscription of a process that was killed ends with its socket. */
    for (int i = 0; rc == 0 && others > 0 && i < 20; i++) {
        if (i)
            nanosleep(&pause, NULL);
        rc = count_others(m, channel, &others, err, err_size);
    }
    if (rc || others <= 0)
        return rc;
    snprintf(err, err_size,
             "the keys '%.120s*' are being migrated by another process (it is subscribed to "
             "'%.200s'): wait until it has ended, or stop it",
             m->config.output_prefix, channel);
    return -EBUSY;
}

static int migration_open(struct migration **out, const struct settings *settings, char *err,
                          size_t err_size)
{
    struct redis_migration *m = calloc(1, sizeof *m);

    snprintf(err, err_size, "out of memory");
    if (!m)
        return -ENOMEM;
    m->base.ops = &redis_migration_ops;
    int rc = redis_config_read(&m->config, settings, err, err_size);
    if (rc == 0)
        rc = name_keys(m);
    if (rc == 0)
        rc = check_names(m, err, err_size);
    if (rc == 0)
        rc = redis_call_open(&m->call, &m->config.output_url, m->config.output_slot, m->config.tls,
                             m->config.timeout_ms, err, err_size);
    if (rc == 0)
        rc = check_eviction(m, err, err_size);
    if (rc == 0)
        rc = be_alone(m, err, err_size);
    if (rc) {
        migration_close(&m->base);
        return rc;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(m->token, sizeof m->token, "%lld.%09ld-%ld", (long long)now.tv_sec, now.tv_nsec,
             (long)getpid());
    snprintf(m->base.output, sizeof m->base.output, "the keys '%.120s*'", m->config.output_prefix);
    snprintf(m->base.side, sizeof m->base.side, "the keys '%.120s*'", m->side);
    snprintf(m->base.errors, sizeof m->base.errors, "the stream '%.120s'", m->letters);
    *out = &m->base;
    return 0;
}

/* ---- the note */

/* 0; -EBUSY: it is another by now. */
static int swap_note(struct redis_migration *m, const char *is, const char *becomes, char *err,
                     size_t err_size)
{
    redis_migration_words(m, redis_migration_swap, 2, m->note, m->owner);
    redis_args_text(&m->args, m->token);
    redis_args_text(&m->args, is);
    redis_args_text(&m->args, becomes);
    int rc = ask(m, err, err_size);
    if (rc == 0)
        snprintf(err, err_size,
                 "somebody else migrates the same keys, or '%.200s' was changed by hand; start "
                 "this again when nobody does",
                 m->note);
    return rc == 1 ? 0 : rc == 0 ? -EBUSY : rc;
}

static int begin(struct migration *base, struct migration_found *out, char *err, size_t err_size)
{
    struct redis_migration *m = self(base);
    redisReply *reply;

    redis_migration_words(m, redis_migration_begin, 2, m->note, m->owner);
    redis_args_text(&m->args, m->token);
    int rc = redis_call_args(m->call, &reply, &m->args, err, err_size);
    if (rc)
        return rc;
    const redisReply *note = redis_reply_at(reply, 0), *step = redis_reply_at(reply, 1);
    /* 1: a migration ended while it moved texts, and this one goes on with that. */
    *out = (struct migration_found){.is_switching = step && step->integer == 1};
    m->was[0] = '\0';
    if (redis_reply_is_text(note))
        snprintf(out->is_switching ? m->held : m->was, sizeof m->was, "%.*s", (int)note->len,
                 note->str);
    freeReplyObject(reply);
    snprintf(out->made_with, sizeof out->made_with, "%.*s", (int)sizeof out->made_with - 1, m->was);
    return out->is_switching ? 0 : redis_migration_take_stock(m, &out->texts, err, err_size);
}

/* Append the lines of a note to another, each behind a word. */
static void add_lines(char *to, size_t size, const char *word, const char *lines)
{
    for (size_t len; *lines; lines += len + (lines[len] == '\n')) {
        len = strcspn(lines, "\n");
        size_t at = strlen(to);
        snprintf(to + at, size - at, "%s %.*s\n", word, (int)len, lines);
    }
}

/* The lines behind a word. */
static void take_lines(char *out, size_t size, const char *word, const char *lines)
{
    size_t n = strlen(word);
    out[0] = '\0';
    for (size_t len; *lines; lines += len + (lines[len] == '\n')) {
        len = strcspn(lines, "\n");
        size_t at = strlen(out);
        if (len > n && memcmp(lines, word, n) == 0 && lines[n] == ' ')
            snprintf(out + at, size - at, "%.*s\n", (int)(len - n - 1), lines + n + 1);
    }
}

/* ---- the side */

static int prepare(struct migration *base, size_t dim, char *err, size_t err_size)
{
    struct redis_migration *m = self(base);
    const char *keys[] = {"DEL", m->side_note, m->journal};
    redisReply *reply;
    (void)dim;

    int rc = redis_call_wake(m->call, err, err_size);
    if (rc == 0)
        rc = redis_call_words(m->call, &reply, 3, keys, err, err_size);
    if (rc)
        return rc;
    freeReplyObject(reply);
    return redis_migration_clear(m, err, err_size);
}

/* What the sink has noted of the side. */
static int read_side_note(struct redis_migration *m, char *out, size_t size, char *err,
                          size_t err_size)
{
    redisReply *reply;
    int rc =
        redis_call_words(m->call, &reply, 2, (const char *[]){"GET", m->side_note}, err, err_size);

    if (rc)
        return rc;
    if (redis_reply_is_text(reply) && reply->len < size) {
        memcpy(out, reply->str, reply->len);
        out[reply->len] = '\0';
    } else {
        snprintf(err, err_size,
                 "'%.200s', which says what the new vectors are made with, is gone: start this "
                 "again",
                 m->side_note);
        rc = -EBADMSG;
    }
    freeReplyObject(reply);
    return rc;
}

/* ---- the change of places */

static int compare(struct migration *base, const char *made_with, struct migration_compared *out,
                   char *err, size_t err_size)
{
    struct redis_migration *m = self(base);
    char side[MADE_WITH_SIZE], comparing[sizeof m->held] = COMPARING, why[400];

    *out = (struct migration_compared){0};
    int rc = redis_call_wake(m->call, err, err_size);
    if (rc == 0)
        rc = read_side_note(m, side, sizeof side, err, err_size);
    if (rc)
        return rc;
    if (!made_with_fits(bytes_of(side), made_with, "the new vectors", m->base.side,
                        "start this again", err, err_size))
        return -EBUSY;
    snprintf(m->held, sizeof m->held, "%s", SWITCHING);
    add_lines(comparing, sizeof comparing, "was", m->was);
    add_lines(m->held, sizeof m->held, "next", side);
    /* From here on workers wait. */
    rc = swap_note(m, m->was, comparing, err, err_size);
    if (rc)
        return rc;
    rc = redis_migration_judge(m, out, err, err_size);
    if (rc == 0 && out->changed == 0)
        /* No way back from here: whoever comes goes on with it. */
        return swap_note(m, comparing, m->held, err, err_size);
    /* The workers go on with what they had. */
    int given_back = swap_note(m, comparing, m->was, why, sizeof why);
    if (rc == 0 && given_back)
        snprintf(err, err_size, "%s", why);
    return rc ? rc : given_back;
}

static int finish(struct migration *base, char *err, size_t err_size)
{
    struct redis_migration *m = self(base);
    char next[MADE_WITH_SIZE];

    /* Should we end in the middle of this, whoever comes does the rest. */
    int rc = redis_migration_move_all(m, SWITCHING, err, err_size);
    if (rc == 0)
        rc = redis_migration_clear(m, err, err_size);
    if (rc)
        return rc;
    take_lines(next, sizeof next, "next", m->held);
    redis_migration_words(m, redis_migration_end, 4, m->note, m->owner, m->side_note, m->journal);
    redis_args_text(&m->args, m->held);
    redis_args_text(&m->args, next);
    rc = ask(m, err, err_size);
    if (rc == 0)
        snprintf(err, err_size, "'%.200s' was changed meanwhile: by another migration that ended",
                 m->note);
    return rc == 1 ? 0 : rc == 0 ? -EBUSY : rc;
}

const struct migration_ops redis_migration_ops = {
    .schemes = schemes,
    .form = "redis://HOST:PORT/DB",
    .output = redis_output_of,
    .open = migration_open,
    .begin = begin,
    .aim = aim,
    .prepare = prepare,
    .read = redis_migration_read_all,
    .compare = compare,
    .finish = finish,
    .close = migration_close,
};
