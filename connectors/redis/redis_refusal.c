/*
 * redis_refusal.c: see redis_refusal.h.
 */
#include "connectors/dead_letter_codes.h"
#include "connectors/redis/redis_refusal.h"

#include <stdio.h>
#include <stdlib.h>
#include <stdlib.h>
#include <string.h>

#define KEY_SHOWN 200 /* bytes of a key that a sentence shows */

/* Redis 6 says where in the script it was: "@user_script: 8: -OOM command not allowed ...". */
static const char *skip_place(const char *text)
{
    while (strncmp(text, "@user_script:", 13) == 0)
        text += 13 + strspn(text + 13, " 0123456789:");
    return text + (text[0] == '-');
}

bool redis_refusal_read(struct redis_refused *out, const redisReply *reply, bool is_script)
{
    const redisReply *nth = redis_reply_at(reply, 0), *text = redis_reply_at(reply, 1);

    if (reply->type == REDIS_REPLY_ERROR) {
        /* The script tells which of its commands failed; an error of its own is not one's. */
        *out = (struct redis_refused){reply->str, is_script ? 0 : 1};
        return true;
    }
    if (!nth || nth->type != REDIS_REPLY_INTEGER || nth->integer < 1 || !redis_reply_is_text(text))
        return false;
    *out = (struct redis_refused){skip_place(text->str), (size_t)nth->integer};
    return true;
}

/* A right to a key, not to a command. Both have one code; in the words of every release a key is
 * accessed and a command is run. */
static bool is_right_to_key(const struct redis_fault *fault, const char *text)
{
    return strcmp(fault->code, "NOPERM") == 0 && strstr(text, " access ") && strstr(text, "key");
}

/* Do the ids of texts make the keys that its commands write? */
static bool makes_keys(const struct redis_config *config, const struct record *record)
{
    return !record->dead_code && config->output != REDIS_OUTPUT_STREAM;
}

struct redis_refusal redis_refusal_find(const struct redis_config *config,
                                        const struct record *record,
                                        const struct redis_refused *refused)
{
    struct redis_refusal refusal = {
        .scope = REFUSES_DESTINATION, .is_sure = true, .fault = redis_fault_find(refused->text)};

    if (makes_keys(config, record) && is_right_to_key(&refusal.fault, refused->text)) {
        refusal.scope = REFUSES_RECORD;
        refusal.is_sure = false;
        refusal.is_right_missing = true;
        refusal.code = DEAD_LETTER(key_not_allowed);
        return refusal;
    }
    if (makes_keys(config, record) && refused->nth &&
        strcmp(refusal.fault.code, "WRONGTYPE") == 0) {
        refusal.scope = REFUSES_RECORD;
        refusal.code = DEAD_LETTER(key_wrong_type);
        return refusal;
    }
    if (refusal.fault.remedy == REMEDY_UNKNOWN) {
        refusal.scope = REFUSES_RECORD;
        refusal.is_sure = false;
        refusal.code = DEAD_LETTER(output_refused);
    } else if (refusal.fault.remedy == REMEDY_TOO_LARGE) {
        refusal.scope = REFUSES_RECORD;
        refusal.code = DEAD_LETTER(output_too_large);
    } else if (refusal.fault.remedy == REMEDY_FATAL) {
        refusal.scope = REFUSES_EVERYTHING;
    }
    return refusal;
}

/* A key as text: what is not printable as \xNN, the rest of a long one as its length. */
static size_t print_key(char *out, size_t size, struct bytes key)
{
    size_t n = 0;

    for (size_t i = 0; i < key.len && i < KEY_SHOWN && n + 5 < size; i++) {
        unsigned char c = (unsigned char)key.ptr[i];
        if (c >= ' ' && c < 127 && c != '\\' && c != '\'')
            out[n++] = (char)c;
        else
            n += (size_t)snprintf(out + n, size - n, "\\x%02x", c);
    }
    out[n] = '\0';
    if (key.len > KEY_SHOWN && n < size)
        n += (size_t)snprintf(out + n, size - n, "... of %zu bytes", key.len);
    return n < size ? n : size - 1;
}

/* The key of the nth command in the list of plain commands; absent: there are not so many. */
static struct bytes key_of(const struct redis_args *list, size_t nth)
{
    for (size_t at = 0; at < list->n; at += strtoul(list->items[at].ptr, NULL, 10) + 1)
        if (--nth == 0)
            /* Behind the count and the verb. */
            return list->items[at + 2];
    return (struct bytes){NULL, 0};
}

void redis_refusal_explain(const struct redis_record_form *form, const struct record *record,
                           const struct redis_refused *refused, const char *advice,
                           struct redis_scratch *scratch, struct redis_args *args, char *out,
                           size_t size)
{
    char name[KEY_SHOWN * 4 + 40] = "";
    const char *others = "";

    /* Built once more: the names of its keys lie nowhere else. */
    if (redis_record_build(form, record, scratch, args) == 0) {
        size_t nth = refused->nth ? refused->nth : 1;
        print_key(name, sizeof(name), key_of(&scratch->command, nth));
        if (!refused->nth && key_of(&scratch->command, 2).ptr)
            others = " or another of its keys";
    }
    snprintf(out, size, "writing to '%.300s'%s: %.200s (%s)", name, others, refused->text, advice);
}
