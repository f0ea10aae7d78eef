/*
 * redis_letters.c: reads the dead letter stream page by page and puts entries back.
 *
 * Owns:    the page that is being looked at.
 * Refuses: to put an entry on another server than the one it lies on: it could not be moved in one
 *          atomic step, and would be lost or doubled by a crash between two.
 * Threads: the calling one.
 * Why:     the server itself moves the entry. What is left of it is then exactly what came in.
 */
#include "connectors/redis_letters.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/redis.h"
#include "connectors/redis_call.h"
#include "connectors/redis_reply.h"

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

struct redis_letters {
    struct letters base;
    struct redis_config config;
    struct redis_call *call;
    const char *from, *to; /* borrowed */
    struct redis_id start, last;
    redisReply *page;
    size_t at; /* of the entry given last is at - 1 */
    bool is_end;
    char id[REDIS_ID_SIZE], origin[400];
};

static struct redis_letters *self(struct letters *letters)
{
    return (struct redis_letters *)letters;
}

/* Letters that die again while we put them back are not met again: they lie behind this one. */
static int find_last(struct redis_letters *letters, char *err, size_t err_size)
{
    const char *words[] = {"XREVRANGE", letters->from, "+", "-", "COUNT", "1"};
    redisReply *reply;
    int rc = redis_call_words(letters->call, &reply, 6, words, err, err_size);

    if (rc)
        return rc;
    const redisReply *id = redis_reply_at(redis_reply_at(reply, 0), 0);
    letters->is_end = !redis_reply_is_text(id) || !redis_id_parse(&letters->last, id->str, id->len);
    freeReplyObject(reply);
    return 0;
}

static int redis_letters_close(struct letters *base, char *err, size_t err_size)
{
    struct redis_letters *letters = self(base);
    (void)err;
    (void)err_size;

    if (!letters)
        return 0;
    freeReplyObject(letters->page);
    redis_call_close(letters->call);
    redis_config_clear(&letters->config);
    free(letters);
    return 0;
}

static int redis_letters_open(struct letters **out, const struct settings *settings, const char *to,
                              char *err, size_t err_size)
{
    struct redis_letters *letters = calloc(1, sizeof(*letters));
    int rc = -ENOMEM;

    snprintf(err, err_size, "out of memory");
    if (!letters)
        return rc;
    letters->base.ops = &redis_letters;
    rc = redis_config_read(&letters->config, settings, err, err_size);
    if (rc)
        goto fail;
    letters->from = letters->config.dead_letters;
    letters->to = to ? to : letters->config.stream;
    if (!to && !redis_url_same(&letters->config.url, &letters->config.output_url)) {
        snprintf(err, err_size,
                 "the letters lie on redis.output_url, another server than redis.url with the "
                 "input: name a stream on the former with --to");
        rc = -EINVAL;
        goto fail;
    }
    rc = redis_call_open(&letters->call, &letters->config.output_url, letters->config.tls,
                         letters->config.timeout_ms, err, err_size);
    if (rc == 0)
        rc = find_last(letters, err, err_size);
    if (rc)
        goto fail;
    *out = &letters->base;
    return 0;
fail:
    redis_letters_close(&letters->base, NULL, 0);
    return rc;
}

static int turn_page(struct redis_letters *letters, char *err, size_t err_size)
{
    char first[REDIS_ID_SIZE], last[REDIS_ID_SIZE];
    const char *words[] = {"XRANGE", letters->from, first, last, "COUNT", PAGE};

    freeReplyObject(letters->page);
    letters->page = NULL;
    letters->at = 0;
    redis_id_print(letters->start, first);
    redis_id_print(letters->last, last);
    return redis_call_words(letters->call, &letters->page, 6, words, err, err_size);
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
    for (size_t i = 0; i < N_OURS; i++)
        if (name->len == strlen(ours[i]) && memcmp(name->str, ours[i], name->len) == 0)
            return true;
    return false;
}

static void read_letter(struct redis_letters *letters, const redisReply *fields, struct letter *out)
{
    const char *body = letters->config.body;
    struct bytes stream = field_of(fields, "_stream"), id = field_of(fields, "_id");
    int len;

    *out = (struct letter){.position = bytes_of(letters->id),
                           .origin = field_of(fields, "_position"),
                           .code = field_of(fields, "_code"),
                           .reason = field_of(fields, "_error"),
                           .value = field_of(fields, body ? body : "body"),
                           .is_empty = true};
    if (!out->value.ptr && !body)
        out->value = field_of(fields, "text");
    if (stream.ptr && id.ptr) {
        len = snprintf(letters->origin, sizeof(letters->origin), "%.*s %.*s",
                       stream.len < 300 ? (int)stream.len : 300, stream.ptr,
                       id.len < REDIS_ID_SIZE ? (int)id.len : REDIS_ID_SIZE, id.ptr);
        out->origin = (struct bytes){letters->origin, (size_t)len};
    }
    for (size_t i = 0; i < fields->elements; i += 2)
        if (!is_ours(fields->element[i]))
            out->is_empty = false;
}

static int redis_letters_next(struct letters *base, struct letter *out, char *err, size_t err_size)
{
    struct redis_letters *letters = self(base);
    struct redis_id id;

    if (letters->is_end)
        return 0;
    if (!letters->page || letters->at == letters->page->elements) {
        int rc = turn_page(letters, err, err_size);
        if (rc)
            return rc;
    }
    const redisReply *entry = redis_reply_at(letters->page, letters->at++);
    const redisReply *name = redis_reply_at(entry, 0), *fields = redis_reply_at(entry, 1);
    letters->is_end = !entry;
    if (!entry)
        return 0;
    if (!redis_reply_is_text(name) || !redis_id_parse(&id, name->str, name->len) ||
        !redis_reply_is_array(fields)) {
        snprintf(err, err_size, "%s: the server did not answer XRANGE as Redis does",
                 letters->from);
        return -EPROTO;
    }
    redis_id_print(id, letters->id);
    letters->start = id.seq == UINT64_MAX ? (struct redis_id){id.ms + 1, 0}
                                          : (struct redis_id){id.ms, id.seq + 1};
    if (redis_id_compare(id, letters->last) >= 0)
        letters->is_end = true;
    read_letter(letters, fields, out);
    return 1;
}

static int redis_letters_replay(struct letters *base, char *err, size_t err_size)
{
    struct redis_letters *letters = self(base);
    const char *words[6 + N_OURS] = {"EVAL",        script_move, "2",
                                     letters->from, letters->to, letters->id};
    redisReply *reply;

    memcpy(words + 6, ours, sizeof(ours));
    int rc = redis_call_words(letters->call, &reply, 6 + N_OURS, words, err, err_size);
    if (rc)
        return rc;
    rc = reply->type == REDIS_REPLY_INTEGER && reply->integer == 1;
    freeReplyObject(reply);
    return rc;
}

const struct letters_ops redis_letters = {
    .name = "redis",
    .open = redis_letters_open,
    .next = redis_letters_next,
    .replay = redis_letters_replay,
    .close = redis_letters_close,
};
