/*
 * codec_strings.c: names that are there twice, and strings that are not UTF-8.
 *
 * Owns:    when two names are the same: when they would be as keys of JSON. There a number, a bool
 *          or bytes become strings, and what is not UTF-8 becomes U+FFFD.
 * Threads: no state.
 * Why:     of two equal keys each reader takes another one, so which of them is meant is not ours
 *          to guess; and one str that is not UTF-8 makes the whole output unreadable for many
 *          readers.
 */
#include "worker/codec/codec_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/json.h"
#include "connectors/utf8.h"

enum { FEW = 16 }; /* so many names are compared with each other, and cost no allocation */

/* One check of a value. */
struct check {
    const struct decode *decode;
    struct buffer scratch;
    size_t n_keys; /* met so far */
    struct codec_name *second;
};

static int names_compare(const void *left, const void *right)
{
    const struct codec_name *a = left, *b = right;
    size_t len = a->text.len < b->text.len ? a->text.len : b->text.len;
    int order = len > 0 ? memcmp(a->text.ptr, b->text.ptr, len) : 0;
    if (order == 0)
        order = (a->text.len > b->text.len) - (a->text.len < b->text.len);
    /* qsort is not stable, and of equal names the later one must be the second. */
    return order ? order : (a->number > b->number) - (a->number < b->number);
}

static bool is_same(const struct codec_name *a, const struct codec_name *b)
{
    return bytes_equal(a->text, b->text);
}

/* Are two of n names equal? Then which; the order of names may change. */
static bool find_twice(struct codec_name *names, size_t n, struct codec_name *first,
                       struct codec_name *second)
{
    if (n > FEW)
        qsort(names, n, sizeof *names, names_compare);
    for (size_t i = 1; i < n; i++)
        /* Sorted, equal names are neighbours; few are each compared with all before. */
        for (size_t j = n > FEW ? i - 1 : 0; j < i; j++)
            if (is_same(&names[i], &names[j])) {
                *first = names[j];
                *second = names[i];
                return true;
            }
    return false;
}

/* What a key is called in JSON. 0, -EILSEQ or -ENOMEM. */
static int key_name(struct check *check, struct walk walk, struct bytes *out)
{
    struct walk peek = walk;
    struct walk_value key;
    msgpack_walk_next(&peek, &key);
    *out = key.bytes;
    if (key.type == WALK_STR && key.bytes.len > 0 && memchr(key.bytes.ptr, '\0', key.bytes.len))
        return -EILSEQ;
    if (key.type == WALK_STR && utf8_is_valid(key.bytes.ptr, key.bytes.len))
        return 0;
    char *kept;
    if (key.type == WALK_STR) {
        /* A bad byte becomes U+FFFD, which has three. */
        kept = arena_alloc(check->decode->arena, 3 * key.bytes.len);
        *out = (struct bytes){kept, kept ? utf8_repair(key.bytes.ptr, key.bytes.len, kept) : 0};
        return kept ? 0 : -ENOMEM;
    }
    /* A key of another type is called as its JSON is: 1 and "1" are the same key there. */
    check->scratch.len = 0;
    codec_json_put_value(&check->scratch, &walk);
    if (check->scratch.status)
        return -ENOMEM;
    size_t quotes = key.type == WALK_BIN; /* base64 */
    out->len = check->scratch.len - 2 * quotes;
    out->ptr = arena_copy(check->decode->arena, check->scratch.ptr + quotes, out->len);
    return out->ptr ? 0 : -ENOMEM;
}

static int value_check(struct check *check, struct walk *walk);

static int pairs_check(struct check *check, struct walk *walk, struct codec_name *names, size_t n)
{
    struct codec_name first;
    int err = 0;
    /* The walk is moved behind the key and, by value_check, behind the value. */
    for (size_t i = 0; i < n && !err; i++) {
        names[i].number = ++check->n_keys;
        names[i].at = walk->at;
        err = key_name(check, *walk, &names[i].text);
        msgpack_walk_skip(walk);
        if (!err)
            err = value_check(check, walk);
    }
    return err ? err : find_twice(names, n, &first, check->second) ? -EEXIST : 0;
}

static int map_check(struct check *check, struct walk *walk, size_t n)
{
    struct codec_name few[FEW], *names = few;
    if (n > codec_values_max(check->decode))
        return -E2BIG;
    if (n > FEW && !(names = malloc(n * sizeof *names)))
        return -ENOMEM;
    int err = pairs_check(check, walk, names, n);
    if (names != few)
        free(names);
    return err;
}

/* Recursion ends at CODEC_DEPTH_MAX, which was checked before. */
static int value_check(struct check *check, struct walk *walk)
{
    struct walk_value value;
    int err = 0;
    msgpack_walk_next(walk, &value);
    if (value.type == WALK_MAP)
        return map_check(check, walk, value.count);
    for (uint32_t i = 0; value.type == WALK_ARRAY && i < value.count && !err; i++)
        err = value_check(check, walk);
    return err;
}

int codec_keys_check(const struct decode *decode, struct bytes value, struct codec_name *second)
{
    struct check check = {.decode = decode, .second = second};
    struct walk walk = {value.ptr, value.ptr + value.len};
    int err = value_check(&check, &walk);
    assert(err || walk.at == walk.end);
    buffer_close(&check.scratch);
    return err;
}

int codec_find_duplicate(struct bytes value, size_t max_texts, struct arena *arena, size_t *second)
{
    const struct decode decode = {.arena = arena, .max_texts = max_texts};
    struct codec_name name = {0};
    int err = codec_keys_check(&decode, value, &name);
    *second = name.number;
    return err;
}

static bool strings_are_utf8(struct bytes values)
{
    struct walk walk = {values.ptr, values.ptr + values.len};
    struct walk_value value;
    while (walk.at < walk.end) {
        msgpack_walk_next(&walk, &value);
        if (value.type == WALK_STR && !utf8_is_valid(value.bytes.ptr, value.bytes.len))
            return false;
    }
    return true;
}

/* The head of a str, 5 bytes at most. */
static size_t head_write(char *to, size_t len)
{
    size_t width = len <= UINT8_MAX ? 1 : len <= UINT16_MAX ? 2 : 4;
    to[0] = (char)(width == 1 ? 0xd9 : width == 2 ? 0xda : 0xdb);
    for (size_t i = 0; i < width; i++)
        to[1 + i] = (char)(len >> (8 * (width - 1 - i)));
    return 1 + width;
}

int codec_strings_repair(const struct decode *decode, struct bytes *values)
{
    if (values->len == 0 || strings_are_utf8(*values))
        return 0;
    if (decode->options->refuse_bad_utf8)
        return codec_refuse(decode->why, DEAD_LETTER(bad_utf8),
                            "a field beside the texts is not UTF-8; repair it, or set bad_utf8 to "
                            "replace");
    /* Of n >= 1 bytes and a head of at least one become 3 n and a head of at most five. */
    char *to = arena_alloc(decode->arena, 4 * values->len);
    if (!to)
        return -ENOMEM;
    struct walk walk = {values->ptr, values->ptr + values->len};
    size_t n = 0;
    while (walk.at < walk.end) {
        const char *begun = walk.at;
        struct walk_value value;
        msgpack_walk_next(&walk, &value);
        size_t len = (size_t)(walk.at - begun);
        if (value.type == WALK_STR && !utf8_is_valid(value.bytes.ptr, value.bytes.len)) {
            /* Behind room for the longest head: how long it is, is known when the body is
             * written. */
            char *body = to + n + 5;
            size_t body_len = utf8_repair(value.bytes.ptr, value.bytes.len, body);
            len = head_write(to + n, body_len);
            memmove(to + n + len, body, body_len);
            len += body_len;
        } else {
            memcpy(to + n, begun, len);
        }
        n += len;
    }
    assert(n <= 4 * values->len);
    *values = (struct bytes){to, n};
    return 0;
}

int codec_ids_check(const struct decode *decode, const struct item *items, size_t n)
{
    struct codec_name few[FEW], *names = few, first, second;
    if (n > FEW && !(names = malloc(n * sizeof *names)))
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        names[i] = (struct codec_name){.text = items[i].id, .number = i};
    bool is_twice = find_twice(names, n, &first, &second);
    if (names != few)
        free(names);
    if (!is_twice)
        return 0;
    return codec_refuse(decode->why, DEAD_LETTER(duplicate_id),
                        "texts[%zu] and texts[%zu] have the same id; give each text of a message "
                        "an id of its own, or none",
                        first.number, second.number);
}
