/*
 * redis_dead_letters.c: reads the dead letter streams page by page and puts entries back.
 *
 * Owns:    the page that is being looked at; where a letter goes back to.
 * Refuses: to put an entry on another server than the one it lies on: it could not be moved in one
 *          atomic step, and would be lost or doubled by a crash between two.
 * Threads: the calling one.
 * Why:     the server itself moves the entry. What is left of it is then exactly what came in.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/redis/redis.h"
#include "connectors/redis/redis_call.h"
#include "connectors/redis/redis_reply.h"
#include "connectors/redis/redis_slot.h"

static const char *const options[] = {
    "redis.url",     "redis.output_url",   "redis.body", "redis.stream",
    "redis.timeout", "redis.dead_letters", NULL};

#define PAGE "32" /* entries of any size in one reply */

/* KEYS: from, to. ARGV: id, then the fields that are ours and stay behind. Lua does not roll back,
 * so the entry is taken off last. Returns 1, or 0: it was gone. */
static const char script_move[] = "local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])\n"
                                  "if #found == 0 then return 0 end\n"
                                  "local ours, kept, fields = {}, {}, found[1][2]\n"
                                  "for i = 2, #ARGV do ours[ARGV[i]] = true end\n"
                                  "for i = 1, #fields, 2 do\n"
                                  "  if not ours[fields[i]] then\n"
                                  "    kept[#kept + 1] = fields[i]\n"
                                  "    kept[#kept + 1] = fields[i + 1]\n"
                                  "  end\n"
                                  "end\n"
                                  "redis.call('XADD', KEYS[2], '*', unpack(kept))\n"
                                  "redis.call('XDEL', KEYS[1], ARGV[1])\n"
                                  "return 1\n";

/* What the sink adds (redis_record.c), but for `_key`, which is the input's own. */
static const char *const ours[] = {"_code", "_error", "_stream", "_id", "_deliveries", "_position"};
#define N_OURS (sizeof(ours) / sizeof(ours[0]))

/* A stream of letters. */
struct pile {
    const char *name;
    struct redis_id start, last;
    bool is_end;
};

struct redis_dead_letters {
    struct dead_letters base;
    struct redis_config config;
    struct redis_call *call;
    struct pile *piles; /* [n_piles], one after the other */
    size_t n_piles, pile;
    const char *to,
        *home; /* named by the user, or NULL; the stream the letter came from, or NULL */
    redisReply *page;
    size_t at; /* of the entry given last is at - 1 */
    char id[REDIS_ID_SIZE], position[400], origin[400];
};

static struct redis_dead_letters *self(struct dead_letters *dlq)
{
    return (struct redis_dead_letters *)dlq;
}

/* Letters that die again while we put them back are not met again: they lie behind this one. */
static int find_last(struct redis_dead_letters *dlq, struct pile *pile, char *err, size_t err_size)
{
    const char *words[] = {"XREVRANGE", pile->name, "+", "-", "COUNT", "1"};
    redisReply *reply;
    int rc = redis_call_words(dlq->call, &reply, 6, words, err, err_size);

    if (rc)
        return rc;
    const redisReply *id = redis_reply_at(redis_reply_at(reply, 0), 0);
    /* No entry, or no such stream. */
    pile->is_end = !redis_reply_is_text(id) || !redis_id_parse(&pile->last, id->str, id->len);
    freeReplyObject(reply);
    return 0;
}

static int find_piles(struct redis_dead_letters *dlq, char *err, size_t err_size)
{
    const struct redis_streams *streams = &dlq->config.streams;
    int rc = 0;

    dlq->n_piles = redis_streams_targets(streams, false);
    dlq->piles = calloc(dlq->n_piles, sizeof(*dlq->piles));
    if (!dlq->piles) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    for (size_t i = 0; rc == 0 && i < dlq->n_piles; i++) {
        dlq->piles[i].name = streams->items[i].dead_letters;
        rc = find_last(dlq, &dlq->piles[i], err, err_size);
    }
    return rc;
}

static int redis_dead_letters_close(struct dead_letters *base, char *err, size_t err_size)
{
    struct redis_dead_letters *dlq = self(base);
    (void)err;
    (void)err_size;

    if (!dlq)
        return 0;
    freeReplyObject(dlq->page);
    redis_call_close(dlq->call);
    redis_config_clear(&dlq->config);
    free(dlq->piles);
    free(dlq);
    return 0;
}

/* Back among the letters one would lose its code; among the outputs it is none. */
static bool is_written(const struct redis_config *config, const char *name)
{
    const struct redis_streams *streams = &config->streams;

    for (size_t i = 0; i < streams->n; i++)
        if (strcmp(streams->items[i].dead_letters, name) == 0 ||
            (config->output == REDIS_OUTPUT_STREAM && strcmp(streams->items[i].output, name) == 0))
            return true;
    return false;
}

static int redis_dead_letters_open(struct dead_letters **out, const struct settings *settings,
                                   const char *to, char *err, size_t err_size)
{
    struct redis_dead_letters *dlq = calloc(1, sizeof(*dlq));
    int rc = -ENOMEM;

    snprintf(err, err_size, "out of memory");
    if (!dlq)
        return rc;
    dlq->base.ops = &redis_dead_letters;
    rc = redis_config_read(&dlq->config, settings, err, err_size);
    if (rc)
        goto fail;
    dlq->to = to;
    if (to && is_written(&dlq->config, to)) {
        snprintf(err, err_size,
                 "'%.200s' holds dead letters or outputs: name a stream that is an input", to);
        rc = -ENOTSUP;
        goto fail;
    }
    if (to && dlq->config.output_slot >= 0 &&
        redis_slot_of(bytes_of(to)) != dlq->config.output_slot) {
        snprintf(
            err, err_size,
            "'%.200s' is in another slot of the cluster than the dead letters, which are moved "
            "in one step: name a stream with their {tag}",
            to);
        rc = -EINVAL;
        goto fail;
    }
    if (!to && !redis_url_same(&dlq->config.url, &dlq->config.output_url)) {
        snprintf(err, err_size,
                 "the dead letters are on redis.output_url, another server than redis.url with the "
                 "input: name a stream on the former with --to");
        rc = -EINVAL;
        goto fail;
    }
    rc = redis_call_open(&dlq->call, &dlq->config.output_url, dlq->config.output_slot,
                         dlq->config.tls, dlq->config.timeout_ms, err, err_size);
    if (rc == 0)
        rc = find_piles(dlq, err, err_size);
    if (rc)
        goto fail;
    *out = &dlq->base;
    return 0;
fail:
    redis_dead_letters_close(&dlq->base, NULL, 0);
    return rc;
}

static int turn_page(struct redis_dead_letters *dlq, const struct pile *pile, char *err,
                     size_t err_size)
{
    char first[REDIS_ID_SIZE], last[REDIS_ID_SIZE];
    const char *words[] = {"XRANGE", pile->name, first, last, "COUNT", PAGE};

    freeReplyObject(dlq->page);
    dlq->page = NULL;
    dlq->at = 0;
    redis_id_print(pile->start, first);
    redis_id_print(pile->last, last);
    return redis_call_words(dlq->call, &dlq->page, 6, words, err, err_size);
}

static struct bytes field_of(const redisReply *fields, const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i + 1 < fields->elements; i += 2) {
        const redisReply *key = fields->element[i], *value = fields->element[i + 1];
        if (key->len == len && memcmp(key->str, name, len) == 0)
            return (struct bytes){value->str, value->len};
    }
    return (struct bytes){NULL, 0};
}

static bool is_ours(const redisReply *name)
{
    return bytes_in((struct bytes){name->str, name->len}, ours, N_OURS);
}

/* Where a letter goes back to: a pile of one stream alone is not asked. */
static const char *find_home(const struct redis_dead_letters *dlq, struct bytes stream)
{
    const struct redis_streams *streams = &dlq->config.streams;

    if (dlq->n_piles == streams->n)
        return streams->items[dlq->pile].name;
    const struct redis_stream *found = redis_streams_find(streams, stream);
    return found ? found->name : NULL;
}

static void read_letter(struct redis_dead_letters *dlq, const redisReply *fields,
                        struct dead_letter *out)
{
    const char *body = dlq->config.body;
    struct bytes stream = field_of(fields, "_stream"), id = field_of(fields, "_id");
    int len;

    dlq->home = find_home(dlq, stream);
    if (dlq->n_piles > 1)
        snprintf(dlq->position, sizeof(dlq->position), "%.300s %s", dlq->piles[dlq->pile].name,
                 dlq->id);
    else
        strcpy(dlq->position, dlq->id);
    *out = (struct dead_letter){.position = bytes_of(dlq->position),
                                .origin = field_of(fields, "_position"),
                                .code = field_of(fields, "_code"),
                                .reason = field_of(fields, "_error"),
                                .value = field_of(fields, body ? body : "body"),
                                .is_empty = true};
    /* As the source does when no redis.body is named. */
    if (!out->value.ptr && !body)
        out->value = field_of(fields, "text");
    if (stream.ptr && id.ptr) {
        len = snprintf(dlq->origin, sizeof(dlq->origin), "%.*s %.*s",
                       stream.len < 300 ? (int)stream.len : 300, stream.ptr,
                       id.len < REDIS_ID_SIZE ? (int)id.len : REDIS_ID_SIZE, id.ptr);
        out->origin = (struct bytes){dlq->origin, (size_t)len};
    }
    for (size_t i = 0; i < fields->elements; i += 2)
        if (!is_ours(fields->element[i]))
            out->is_empty = false;
}

static int pile_next(struct redis_dead_letters *dlq, struct pile *pile, struct dead_letter *out,
                     char *err, size_t err_size)
{
    struct redis_id id;

    if (pile->is_end)
        return 0;
    if (!dlq->page || dlq->at == dlq->page->elements) {
        int rc = turn_page(dlq, pile, err, err_size);
        if (rc)
            return rc;
    }
    const redisReply *entry = redis_reply_at(dlq->page, dlq->at++);
    const redisReply *name = redis_reply_at(entry, 0), *fields = redis_reply_at(entry, 1);
    pile->is_end = !entry;
    if (!entry)
        return 0;
    if (!redis_reply_is_text(name) || !redis_id_parse(&id, name->str, name->len) ||
        !redis_reply_is_array(fields)) {
        snprintf(err, err_size, "%s: the server did not answer XRANGE as Redis does", pile->name);
        return -EPROTO;
    }
    redis_id_print(id, dlq->id);
    /* The id behind this one. */
    pile->start = id.seq == UINT64_MAX ? (struct redis_id){id.ms + 1, 0}
                                       : (struct redis_id){id.ms, id.seq + 1};
    /* What died since we began is left to the next run. */
    if (redis_id_compare(id, pile->last) >= 0)
        pile->is_end = true;
    read_letter(dlq, fields, out);
    return 1;
}

static int redis_dead_letters_next(struct dead_letters *base, struct dead_letter *out, char *err,
                                   size_t err_size)
{
    struct redis_dead_letters *dlq = self(base);

    while (dlq->pile < dlq->n_piles) {
        int rc = pile_next(dlq, &dlq->piles[dlq->pile], out, err, err_size);
        if (rc)
            return rc;
        freeReplyObject(dlq->page);
        dlq->page = NULL;
        dlq->pile++;
    }
    return 0;
}

static int redis_dead_letters_replay(struct dead_letters *base, char *err, size_t err_size)
{
    struct redis_dead_letters *dlq = self(base);
    const char *from = dlq->piles[dlq->pile].name;
    const char *to = dlq->to ? dlq->to : dlq->home;
    const char *words[6 + N_OURS] = {"EVAL", script_move, "2", from, to, dlq->id};
    redisReply *reply;

    if (!to) {
        snprintf(err, err_size,
                 "%s did not come from one of the streams in redis.stream: add its own there, or "
                 "name one with --to",
                 dlq->position);
        return -EINVAL;
    }
    memcpy(words + 6, ours, sizeof(ours));
    int rc = redis_call_words(dlq->call, &reply, 6 + N_OURS, words, err, err_size);
    if (rc)
        return rc;
    rc = reply->type == REDIS_REPLY_INTEGER && reply->integer == 1;
    freeReplyObject(reply);
    return rc;
}

static const char *find_place(const struct settings *settings)
{
    return settings_model_from(settings, "redis.dead_letters", "redis.stream");
}

const struct dead_letters_ops redis_dead_letters = {
    .options = options,
    .place = find_place,
    .open = redis_dead_letters_open,
    .next = redis_dead_letters_next,
    .replay = redis_dead_letters_replay,
    .close = redis_dead_letters_close,
};
