/*
 * redis_made_with.c: see redis_made_with.h.
 */
#include "connectors/redis/redis_made_with.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "connectors/made_with.h"
#include "connectors/redis/redis_fault.h"

int redis_made_with_key(const char *prefix, char out[REDIS_MADE_WITH_KEY_SIZE])
{
    int len = snprintf(out, REDIS_MADE_WITH_KEY_SIZE, "embedmill:made-with:%s", prefix);

    return len < REDIS_MADE_WITH_KEY_SIZE ? 0 : -ENAMETOOLONG;
}

int redis_made_with_digest(struct bytes text, char out[41])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    if (EVP_Digest(text.ptr, text.len, digest, &len, EVP_sha1(), NULL) != 1 || len != 20)
        return -ENOMEM;
    for (size_t i = 0; i < 20; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
    return 0;
}

static bool send_words(struct redis_made_with *note, redis_reply_cb cb, const char *const *words)
{
    redis_args_reset(&note->args);
    for (; *words; words++)
        redis_args_text(&note->args, *words);
    return !note->args.failed &&
           redis_link_send(note->link, note->args.items, note->args.n, 0, cb, note) == 0;
}

static void on_set(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_made_with *note = arg;
    (void)ctx;

    if (!reply || reply->type != REDIS_REPLY_ERROR)
        return; /* lost, or the next reply tells */
    note->is_asking = false;
    struct redis_fault fault = redis_fault_find(reply->str);
    char why[HEALTH_WHY_SIZE];
    snprintf(why, sizeof why, "what the vectors are made with cannot be kept in '%.200s': %.300s",
             note->key, reply->str);
    if (fault.remedy == REMEDY_FATAL || fault.remedy == REMEDY_UNKNOWN) {
        note->is_known = true;
        endpoint_notice(note->end, NOTICE_WARN, "made_with", why);
        /* on_get leaves at once now: nobody else would send what waits. */
        endpoint_pump(note->end);
        return;
    }
    health_wait(&note->end->health, note->part, why);
    endpoint_pause(note->end);
}

static void compare(struct redis_made_with *note, struct bytes there)
{
    char why[HEALTH_WHY_SIZE], place[160], forget[200];

    if (made_with_is_held(there)) {
        snprintf(why, sizeof why,
                 "the keys '%.100s*' are being migrated to another model; waiting until `embedmill "
                 "migrate` has ended (if it was killed, start it again)",
                 note->prefix);
        health_wait(&note->end->health, note->part, why);
        endpoint_pause(note->end);
        return;
    }
    note->is_known = true;
    snprintf(place, sizeof place, "the keys '%.100s*'", note->prefix);
    snprintf(forget, sizeof forget, "DEL '%.180s'", note->key);
    if (!made_with_fits(there, note->ours, "redis.output_prefix", place, forget, why, sizeof why))
        endpoint_fail(note->end, -EINVAL, why);
    else if (redis_made_with_digest(there, note->guard) != 0)
        endpoint_fail(note->end, -ENOMEM, "out of memory");
    else
        health_good(&note->end->health, note->part);
}

static void on_get(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_made_with *note = arg;
    char why[HEALTH_WHY_SIZE];
    (void)ctx;

    if (!reply || !note->is_asking)
        return;
    note->is_asking = false;
    if (reply->type == REDIS_REPLY_NIL) { /* deleted between the two commands */
        endpoint_pause(note->end);
        return;
    }
    if (redis_reply_is_text(reply)) {
        compare(note, (struct bytes){reply->str, reply->len});
    } else {
        note->is_known = true;
        snprintf(why, sizeof why, "what the vectors are made with cannot be read: %.300s",
                 reply->type == REDIS_REPLY_ERROR ? reply->str : "not a string");
        endpoint_notice(note->end, NOTICE_WARN, "made_with", why);
        health_good(&note->end->health, note->part);
    }
    endpoint_pump(note->end);
}

void redis_made_with_open(struct redis_made_with *note, struct redis_link *link,
                          struct endpoint *end, unsigned part, const char *prefix)
{
    note->link = link;
    note->end = end;
    note->part = part;
    note->prefix = prefix;
}

void redis_made_with_forget(struct redis_made_with *note)
{
    note->is_asking = note->is_known = false;
    note->guard[0] = '\0';
}

/* SET NX, so that of two workers that begin at once the second finds the first. */
void redis_made_with_ask(struct redis_made_with *note, const char *ours)
{
    if (note->is_asking || note->is_known)
        return;
    int len = redis_made_with_key(note->prefix, note->key);
    const char *const set[] = {"SET", note->key, ours, "NX", NULL};
    const char *const get[] = {"GET", note->key, NULL};

    note->ours = ours;
    note->guard[0] = '\0';
    /* Nothing to compare, or a prefix too long for a key: writes go unguarded. */
    note->is_known = !ours || len != 0;
    note->is_asking =
        !note->is_known && send_words(note, on_set, set) && send_words(note, on_get, get);
    /* No memory for one of the two: both are sent again. */
    if (!note->is_known && !note->is_asking)
        endpoint_pause(note->end);
}

void redis_made_with_close(struct redis_made_with *note)
{
    redis_args_close(&note->args);
}
