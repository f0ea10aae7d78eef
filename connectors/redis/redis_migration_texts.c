/*
 * redis_migration_texts.c: the texts of an output and of its side, some at a time.
 *
 * Owns:    which texts there are; what was there when a migration began; reading, comparing and
 *          moving them.
 * Threads: the calling one.
 * Why:     SCAN gives keys in no order, some twice, and a text has several. So ids are gathered
 *          first, each once, and then the server is asked for some texts after the other, each of
 *          them as one atomic step finds it.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/redis/redis_migration.h"
#include "connectors/redis/redis_migration_script.h"

enum { BATCH = 16 }; /* texts in one step: a book of a thousand chunks is 3 MB */

void redis_migration_words(struct redis_migration *m, const char *script, int n_keys, ...)
{
    va_list keys;

    redis_args_reset(&m->args);
    redis_args_text(&m->args, "EVAL");
    redis_args_text(&m->args, script);
    redis_args_number(&m->args, (uint64_t)n_keys);
    va_start(keys, n_keys);
    for (int i = 0; i < n_keys; i++)
        redis_args_text(&m->args, va_arg(keys, const char *));
    va_end(keys);
}

static const char *kind_of(const struct redis_migration *m)
{
    return m->config.output == REDIS_OUTPUT_HASH ? "hash" : "key";
}

static int no_memory(char *err, size_t err_size)
{
    snprintf(err, err_size, "out of memory");
    return -ENOMEM;
}

static int not_understood(char *err, size_t err_size)
{
    snprintf(err, err_size, "the server did not answer a script as Redis does");
    return -EBADMSG;
}

/* ---- ids */

static void ids_clear(struct redis_ids *ids)
{
    for (size_t i = 0; i < ids->n; i++)
        free((char *)ids->items[i].ptr);
    free(ids->items);
    *ids = (struct redis_ids){0};
}

static int ids_add(struct redis_ids *ids, struct bytes id)
{
    if (ids->n == ids->room) {
        size_t room = ids->room ? 2 * ids->room : 1024;
        struct bytes *items = realloc(ids->items, room * sizeof *items);
        if (!items)
            return -ENOMEM;
        ids->items = items;
        ids->room = room;
    }
    char *copy = malloc(id.len + 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, id.ptr, id.len);
    copy[id.len] = '\0';
    ids->items[ids->n++] = (struct bytes){copy, id.len};
    return 0;
}

static int compare_bytes(struct bytes a, struct bytes b)
{
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int by_bytes(const void *a, const void *b)
{
    return compare_bytes(*(const struct bytes *)a, *(const struct bytes *)b);
}

static void ids_sort(struct redis_ids *ids)
{
    size_t n = 0;

    if (ids->n)
        qsort(ids->items, ids->n, sizeof *ids->items, by_bytes);
    for (size_t i = 0; i < ids->n; i++) {
        if (n && compare_bytes(ids->items[n - 1], ids->items[i]) == 0)
            free((char *)ids->items[i].ptr);
        else
            ids->items[n++] = ids->items[i];
    }
    ids->n = n;
}

/* What a key may be of: a text of that id; with "#" or "#7" behind it, another text's head or
 * chunk. The server tells which it is. */
static int add_key(struct redis_ids *ids, struct bytes id)
{
    size_t len = id.len;
    int rc = ids_add(ids, id);

    while (len && isdigit((unsigned char)id.ptr[len - 1]))
        len--;
    return rc == 0 && len > 0 && id.ptr[len - 1] == '#'
               ? ids_add(ids, (struct bytes){id.ptr, len - 1})
               : rc;
}

/* A pattern that the prefix alone matches, with * behind it. */
static char *pattern_of(const char *prefix)
{
    char *out = malloc(2 * strlen(prefix) + 2), *at = out;

    for (; out && *prefix; prefix++) {
        if (strchr("*?[]\\", *prefix))
            *at++ = '\\';
        *at++ = *prefix;
    }
    if (out)
        memcpy(at, "*", 2);
    return out;
}

static int add_page(struct redis_ids *ids, const redisReply *keys, size_t skip)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < keys->elements; i++) {
        const redisReply *key = keys->element[i];
        if (redis_reply_is_text(key) && key->len > skip)
            rc = add_key(ids, (struct bytes){key->str + skip, key->len - skip});
    }
    return rc;
}

/* All that may be texts under a prefix, added to ids; sorted. */
static int ids_scan(struct redis_migration *m, const char *prefix, struct redis_ids *ids, char *err,
                    size_t err_size)
{
    char cursor[32] = "0", *pattern = pattern_of(prefix);
    int rc = pattern ? 0 : no_memory(err, err_size);

    do {
        const char *words[] = {"SCAN", cursor, "MATCH", pattern, "COUNT", "1000"};
        redisReply *reply = NULL;
        if (rc == 0)
            rc = redis_call_words(m->call, &reply, 6, words, err, err_size);
        if (rc)
            break;
        const redisReply *next = redis_reply_at(reply, 0), *keys = redis_reply_at(reply, 1);
        if (!redis_reply_is_text(next) || !keys || keys->type != REDIS_REPLY_ARRAY)
            rc = not_understood(err, err_size);
        else if (add_page(ids, keys, strlen(prefix)) != 0)
            rc = no_memory(err, err_size);
        else
            snprintf(cursor, sizeof cursor, "%s", next->str);
        freeReplyObject(reply);
    } while (rc == 0 && strcmp(cursor, "0") != 0);
    free(pattern);
    ids_sort(ids);
    return rc;
}

/* ---- slots of a cluster */

/* A slot on its way to another node is in no SCAN as a whole. moves: redis_call_moves before the
 * first SCAN, which GET, having a key, proves to be the last one. */
static int check_slot(struct redis_migration *m, unsigned moves, char *err, size_t err_size)
{
    char leaving[32], why[400];
    redisReply *nodes, *note;

    if (!m->config.output_url.is_cluster)
        return 0;
    int rc =
        redis_call_words(m->call, &nodes, 2, (const char *[]){"CLUSTER", "NODES"}, err, err_size);
    if (rc)
        return rc;
    snprintf(leaving, sizeof leaving, "[%d->-", m->config.output_slot);
    bool is_leaving = !redis_reply_is_text(nodes) || strstr(nodes->str, leaving);
    freeReplyObject(nodes);
    rc = redis_call_words(m->call, &note, 2, (const char *[]){"GET", m->note}, why, sizeof why);
    if (rc == 0)
        freeReplyObject(note);
    if (rc == 0 && !is_leaving && redis_call_moves(m->call) == moves)
        return 0;
    snprintf(err, err_size,
             "slot %d, of '%.200s*', moves to another node of the cluster, or has just moved: "
             "start this again when it has",
             m->config.output_slot, m->config.output_prefix);
    return -EAGAIN;
}

/* ---- some texts at a time */

/* Words of a script about ids are in args but for these. reply: an array of n. */
static int ask_about(struct redis_migration *m, const struct bytes *ids, size_t n,
                     redisReply **reply, char *err, size_t err_size)
{
    for (size_t i = 0; i < n; i++)
        redis_args_add(&m->args, ids[i]);
    int rc = redis_call_args(m->call, reply, &m->args, err, err_size);
    if (rc)
        return rc;
    /* One row for each id, in their order. */
    if ((*reply)->type == REDIS_REPLY_ARRAY && (*reply)->elements == n)
        return 0;
    freeReplyObject(*reply);
    *reply = NULL;
    return not_understood(err, err_size);
}

/* What the server says of both places of a text. */
struct state {
    struct bytes digest, version, side_version;
    long long side_n;
    bool is_taken; /* something of others is where its vectors go */
};

static bool read_state(struct state *out, const redisReply *row)
{
    const redisReply *cells[5];

    for (size_t i = 0; i < 5; i++) {
        bool is_number = i == 2 || i == 4;
        cells[i] = redis_reply_at(row, i);
        if (!cells[i] ||
            (is_number ? cells[i]->type != REDIS_REPLY_INTEGER : !redis_reply_is_text(cells[i])))
            return false;
    }
    *out = (struct state){{cells[0]->str, cells[0]->len},
                          {cells[1]->str, cells[1]->len},
                          {cells[3]->str, cells[3]->len},
                          cells[2]->integer,
                          cells[4]->integer == 1};
    return out->digest.len == 0 || out->digest.len == 40;
}

static int ask_states(struct redis_migration *m, const struct bytes *ids, size_t n,
                      redisReply **reply, char *err, size_t err_size)
{
    redis_migration_words(m, redis_migration_compare, 1, m->note);
    redis_args_text(&m->args, m->config.output_prefix);
    redis_args_text(&m->args, m->side);
    redis_args_text(&m->args, kind_of(m));
    redis_args_number(&m->args, m->config.expire_ms);
    return ask_about(m, ids, n, reply, err, err_size);
}

void redis_migration_forget(struct redis_migration *m)
{
    ids_clear(&m->ids);
    free(m->stock);
    m->stock = NULL;
    m->n_stock = 0;
}

int redis_migration_take_stock(struct redis_migration *m, size_t *texts, char *err, size_t err_size)
{
    redis_migration_forget(m);
    /* Before the first SCAN: a slot that moves meanwhile shows in it (check_slot). */
    unsigned moves = redis_call_moves(m->call);
    int rc = ids_scan(m, m->config.output_prefix, &m->ids, err, err_size);
    if (rc == 0 && !(m->stock = calloc(m->ids.n + 1, sizeof *m->stock)))
        rc = no_memory(err, err_size);
    for (size_t at = 0; rc == 0 && at < m->ids.n; at += BATCH) {
        size_t n = m->ids.n - at < BATCH ? m->ids.n - at : BATCH;
        redisReply *reply = NULL;
        rc = ask_states(m, m->ids.items + at, n, &reply, err, err_size);
        for (size_t i = 0; rc == 0 && i < n; i++) {
            struct state state;
            if (!read_state(&state, reply->element[i])) {
                rc = not_understood(err, err_size);
            } else if (state.digest.len) {
                m->stock[m->n_stock].id = m->ids.items[at + i];
                memcpy(m->stock[m->n_stock++].digest, state.digest.ptr, 40);
            }
        }
        if (reply)
            freeReplyObject(reply);
    }
    *texts = m->n_stock;
    return rc ? rc : check_slot(m, moves, err, err_size);
}

static int by_id(const void *a, const void *b)
{
    return compare_bytes(((const struct redis_stock *)a)->id, ((const struct redis_stock *)b)->id);
}

/* "": it was not there. */
static const char *digest_then(const struct redis_migration *m, struct bytes id)
{
    struct redis_stock key = {.id = id};
    /* Sorted, for it was made from sorted ids. */
    const struct redis_stock *found =
        m->n_stock ? bsearch(&key, m->stock, m->n_stock, sizeof *m->stock, by_id) : NULL;
    return found ? found->digest : "";
}

/* ---- comparing, while nobody writes */

enum fate { FATE_NOTHING, FATE_MOVES, FATE_DROPS, FATE_CHANGED, FATE_STAYS_OUT, FATE_STUCK };

/* What becomes of one text. */
static enum fate judge(const struct state *is, const char *then)
{
    /* Versions are as wide as the greatest one (redis_record.c): they compare as bytes. */
    bool has_newer = compare_bytes(is->version, is->side_version) > 0;

    if (is->is_taken)
        return is->digest.len ? FATE_STUCK : FATE_STAYS_OUT;
    if (!is->digest.len && is->side_n) /* deleted since, or only the corpus has it */
        return *then || has_newer ? FATE_DROPS : FATE_MOVES;
    if (!is->digest.len)
        return FATE_NOTHING;
    /* Nobody has written it since the migration began. */
    bool is_same = memcmp(is->digest.ptr, then, strlen(then)) == 0 && *then;
    /* Or it was written, and the side has vectors of that version. */
    bool is_in_step = is->version.len && compare_bytes(is->version, is->side_version) == 0;
    return is->side_n && (is_same || is_in_step) ? FATE_MOVES : FATE_CHANGED;
}

static int tell(struct redis_migration *m, const char *script, const char *first,
                const struct bytes *ids, size_t n, char *err, size_t err_size)
{
    redisReply *reply;

    if (!n)
        return 0;
    if (script) {
        redis_migration_words(m, script, 1, m->note);
        redis_args_text(&m->args, first);
    } else {
        redis_args_reset(&m->args);
        redis_args_text(&m->args, "SADD");
        redis_args_text(&m->args, m->journal);
    }
    for (size_t i = 0; i < n; i++)
        redis_args_add(&m->args, ids[i]);
    int rc = redis_call_args(m->call, &reply, &m->args, err, err_size);
    if (rc == 0)
        freeReplyObject(reply);
    return rc;
}

static void name_text(char out[80], struct bytes id)
{
    snprintf(out, 80, "%.*s", (int)(id.len < 79 ? id.len : 79), id.ptr);
}

/* Whose vectors cannot go where they belong. A worker makes a dead letter of such a text. */
static int judge_taken(struct redis_migration *m, struct bytes id, enum fate fate,
                       struct migration_compared *out, char *err, size_t err_size)
{
    char name[80];

    if (fate == FATE_STAYS_OUT) {
        if (out->left_out++ == 0)
            name_text(out->left_out_id, id);
        return 0;
    }
    name_text(name, id);
    snprintf(err, err_size,
             "keys of others are where the new vectors of '%s' go ('%.100s%s', or with # and a "
             "number behind it), and the old ones cannot stay: rename those keys, and start this "
             "again",
             name, m->config.output_prefix, name);
    return -EBADMSG;
}

static int judge_some(struct redis_migration *m, const struct bytes *ids, size_t n,
                      struct migration_compared *out, char *err, size_t err_size)
{
    struct bytes moves[BATCH], drops[BATCH];
    size_t n_moves = 0, n_drops = 0;
    redisReply *reply;
    int rc = ask_states(m, ids, n, &reply, err, err_size);

    if (rc)
        return rc;
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct state state;
        if (!read_state(&state, reply->element[i])) {
            rc = not_understood(err, err_size);
            break;
        }
        enum fate fate = judge(&state, digest_then(m, ids[i]));
        if (fate == FATE_MOVES)
            moves[n_moves++] = ids[i];
        else if (fate == FATE_DROPS || fate == FATE_STAYS_OUT)
            drops[n_drops++] = ids[i];
        else if (fate == FATE_CHANGED && out->changed++ == 0)
            name_text(out->changed_id, ids[i]);
        if (fate == FATE_STAYS_OUT || fate == FATE_STUCK)
            rc = judge_taken(m, ids[i], fate, out, err, err_size);
        out->dropped += fate == FATE_DROPS;
    }
    freeReplyObject(reply);
    if (rc == 0)
        rc = tell(m, redis_migration_drop, m->side, drops, n_drops, err, err_size);
    return rc ? rc : tell(m, NULL, NULL, moves, n_moves, err, err_size);
}

int redis_migration_judge(struct redis_migration *m, struct migration_compared *out, char *err,
                          size_t err_size)
{
    struct redis_ids ids = {0};
    redisReply *reply;
    unsigned moves = redis_call_moves(m->call);
    /* Of an earlier attempt, which was given back. */
    int rc =
        redis_call_words(m->call, &reply, 2, (const char *[]){"DEL", m->journal}, err, err_size);

    if (rc)
        return rc;
    freeReplyObject(reply);
    rc = ids_scan(m, m->config.output_prefix, &ids, err, err_size);
    if (rc == 0)
        /* Those of the side alone: deleted here meanwhile, or found in the corpus only. */
        rc = ids_scan(m, m->side, &ids, err, err_size);
    for (size_t at = 0; rc == 0 && at < ids.n; at += BATCH)
        rc = judge_some(m, ids.items + at, ids.n - at < BATCH ? ids.n - at : BATCH, out, err,
                        err_size);
    ids_clear(&ids);
    return rc ? rc : check_slot(m, moves, err, err_size);
}

/* ---- moving */

/* Some ids of the journal; none: an empty array. */
static int next_of_journal(struct redis_migration *m, redisReply **out, char *err, size_t err_size)
{
    char count[16];

    snprintf(count, sizeof count, "%d", BATCH);
    const char *words[] = {"SRANDMEMBER", m->journal, count};
    return redis_call_words(m->call, out, 3, words, err, err_size);
}

static int move_some(struct redis_migration *m, const char *held, const redisReply *ids, char *err,
                     size_t err_size)
{
    redisReply *reply;

    redis_migration_words(m, redis_migration_move, 2, m->note, m->journal);
    redis_args_text(&m->args, held);
    redis_args_text(&m->args, m->config.output_prefix);
    redis_args_text(&m->args, m->side);
    redis_args_text(&m->args, kind_of(m));
    for (size_t i = 0; i < ids->elements; i++)
        redis_args_add(&m->args, (struct bytes){ids->element[i]->str, ids->element[i]->len});
    int rc = redis_call_args(m->call, &reply, &m->args, err, err_size);
    if (rc)
        return rc;
    /* The script has stopped at this id; those before it are moved. */
    if (redis_reply_is_text(reply)) {
        snprintf(
            err, err_size,
            "the new vector of '%.200s' is gone from '%.100s*', and the old one is still there; "
            "'%.100s*' stays held, for it holds vectors of two models: delete the keys of this "
            "text there, start this again, and index the text again",
            reply->str, m->side, m->config.output_prefix);
        rc = -EBADMSG;
    } else if (reply->integer != 1) {
        snprintf(err, err_size, "'%.200s' was changed by hand in the middle of a migration",
                 m->note);
        rc = -EBUSY;
    }
    freeReplyObject(reply);
    return rc;
}

int redis_migration_move_all(struct redis_migration *m, const char *held, char *err,
                             size_t err_size)
{
    for (;;) {
        redisReply *ids;
        int rc = next_of_journal(m, &ids, err, err_size);
        if (rc)
            return rc;
        /* What is moved is off the journal, so that each round has fewer. */
        size_t n = ids->type == REDIS_REPLY_ARRAY ? ids->elements : 0;
        if (n)
            rc = move_some(m, held, ids, err, err_size);
        freeReplyObject(ids);
        if (rc || !n)
            return rc;
    }
}

int redis_migration_clear(struct redis_migration *m, char *err, size_t err_size)
{
    struct redis_ids ids = {0};
    int rc = ids_scan(m, m->side, &ids, err, err_size);

    for (size_t at = 0; rc == 0 && at < ids.n; at += BATCH)
        rc = tell(m, redis_migration_drop, m->side, ids.items + at,
                  ids.n - at < BATCH ? ids.n - at : BATCH, err, err_size);
    ids_clear(&ids);
    return rc;
}

/* ---- reading */

/* Of one text: its version, how many chunks it has, its vectors. */
static int read_text(struct redis_migration *m, struct bytes id, const redisReply *row,
                     migration_reader reader, void *ctx, char *err, size_t err_size)
{
    const redisReply *n = redis_reply_at(row, 1), *values = redis_reply_at(row, 2);
    int rc = 0;

    if (!n || n->type != REDIS_REPLY_INTEGER || !values || values->type != REDIS_REPLY_ARRAY)
        return not_understood(err, err_size);
    for (size_t i = 0; rc == 0 && i < values->elements; i++) {
        const redisReply *value = values->element[i];
        if (!redis_reply_is_text(value))
            return not_understood(err, err_size);
        struct bytes bytes = {value->str, value->len}, none = {NULL, 0};
        bool is_hash = m->config.output == REDIS_OUTPUT_HASH;
        struct migration_vector vector = {id, n->integer ? (int64_t)i : -1, is_hash ? bytes : none,
                                          is_hash ? none : bytes};
        if (value->len == 0)
            continue; /* a chunk that is gone: its text is not whole, which the comparison finds */
        rc = reader(ctx, &vector, err, err_size);
    }
    return rc;
}

int redis_migration_read_all(struct migration *base, bool is_side, migration_reader reader,
                             void *ctx, char *err, size_t err_size)
{
    struct redis_migration *m = (struct redis_migration *)base;
    const char *prefix = is_side ? m->side : m->config.output_prefix;
    struct redis_ids ids = {0};
    int rc = redis_call_wake(m->call, err, err_size);

    if (rc == 0)
        rc = ids_scan(m, prefix, &ids, err, err_size);
    for (size_t at = 0; rc == 0 && at < ids.n; at += BATCH) {
        size_t n = ids.n - at < BATCH ? ids.n - at : BATCH;
        redisReply *reply;
        redis_migration_words(m, redis_migration_read, 1, m->note);
        redis_args_text(&m->args, prefix);
        redis_args_text(&m->args, kind_of(m));
        rc = ask_about(m, ids.items + at, n, &reply, err, err_size);
        if (rc)
            break;
        for (size_t i = 0; rc == 0 && i < n; i++)
            rc = read_text(m, ids.items[at + i], reply->element[i], reader, ctx, err, err_size);
        freeReplyObject(reply);
    }
    ids_clear(&ids);
    return rc;
}
