/*
 * postgres_burst.c: see postgres_burst.h.
 */
#include "connectors/postgres/postgres_burst.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "connectors/json.h"
#include "connectors/utf8.h"

#define BYTES_MAX  (4u << 20)   /* after which a transaction is sent */
#define RECORD_MAX (128u << 20) /* a server takes no message of a gigabyte, and jsonb quotes */

/* Local to the transaction, so that a pooler hands the connection on as it was. With few keys to be
 * looked up a hash of the whole table is never worth it, whatever the planner thinks of its size.
 */
static const char settings[] =
    "SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true),"
    " set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),"
    " set_config('plan_cache_mode', 'force_generic_plan', true)";

static void begin_group(struct postgres_burst *burst)
{
    static const Oid row_types[7][2] = {{POSTGRES_OID_TEXT_ARRAY, POSTGRES_OID_TEXT},
                                        {POSTGRES_OID_TEXT_ARRAY, POSTGRES_OID_TEXT},
                                        {POSTGRES_OID_INT4_ARRAY, POSTGRES_OID_INT4},
                                        {0, 0},
                                        {POSTGRES_OID_JSONB_ARRAY, POSTGRES_OID_JSONB},
                                        {POSTGRES_OID_INT8_ARRAY, POSTGRES_OID_INT8},
                                        {POSTGRES_OID_INT8_ARRAY, POSTGRES_OID_INT8}};
    const struct postgres_table *table = burst->table;
    for (size_t i = 0; i < 7; i++)
        postgres_array_begin(&burst->rows[burst->group][i],
                             i == 3 ? table->vector_array : row_types[i][0],
                             i == 3 ? table->vector : row_types[i][1]);
}

void postgres_burst_begin(struct postgres_burst *burst, const struct postgres_config *config,
                          const struct postgres_table *table)
{
    static const Oid doc_types[5][2] = {{POSTGRES_OID_TEXT_ARRAY, POSTGRES_OID_TEXT},
                                        {POSTGRES_OID_INT4_ARRAY, POSTGRES_OID_INT4},
                                        {POSTGRES_OID_BOOL_ARRAY, POSTGRES_OID_BOOL},
                                        {POSTGRES_OID_INT8_ARRAY, POSTGRES_OID_INT8},
                                        {POSTGRES_OID_INT8_ARRAY, POSTGRES_OID_INT8}};
    static const Oid letter_types[6][2] = {{POSTGRES_OID_TEXT_ARRAY, POSTGRES_OID_TEXT},
                                           {POSTGRES_OID_TEXT_ARRAY, POSTGRES_OID_TEXT},
                                           {POSTGRES_OID_TEXT_ARRAY, POSTGRES_OID_TEXT},
                                           {POSTGRES_OID_BYTEA_ARRAY, POSTGRES_OID_BYTEA},
                                           {POSTGRES_OID_BYTEA_ARRAY, POSTGRES_OID_BYTEA},
                                           {POSTGRES_OID_JSONB_ARRAY, POSTGRES_OID_JSONB}};
    burst->config = config;
    burst->table = table;
    burst->made_with = NULL;
    burst->timeout_ms = config->timeout_ms;
    burst->lock_ms = config->lock_ms;
    burst->group = 0;
    begin_group(burst);
    for (size_t i = 0; i < 5; i++) {
        postgres_array_begin(&burst->docs[i], doc_types[i][0], doc_types[i][1]);
        postgres_array_begin(&burst->wholes[i], doc_types[i][0], doc_types[i][1]);
    }
    for (size_t i = 0; i < 6; i++)
        postgres_array_begin(&burst->letters[i], letter_types[i][0], letter_types[i][1]);
    postgres_array_begin(&burst->deleted[0], POSTGRES_OID_TEXT_ARRAY, POSTGRES_OID_TEXT);
    for (size_t i = 1; i < 3; i++)
        postgres_array_begin(&burst->deleted[i], POSTGRES_OID_INT8_ARRAY, POSTGRES_OID_INT8);
    burst->n_rows = burst->n_docs = burst->n_wholes = burst->n_letters = burst->n_bytes = 0;
    burst->n_deleted = burst->n = burst->n_seen = 0;
    /* Empties the table of what was seen: places of an older burst count as free. */
    burst->nth++;
    burst->scratch.len = 0;
    /* A want of memory was that of the burst before. */
    burst->scratch.status = 0;
}

void postgres_burst_close(struct postgres_burst *burst)
{
    for (size_t i = 0; i < POSTGRES_GROUPS_MAX; i++)
        for (size_t j = 0; j < 7; j++)
            postgres_array_close(&burst->rows[i][j]);
    for (size_t i = 0; i < 5; i++) {
        postgres_array_close(&burst->docs[i]);
        postgres_array_close(&burst->wholes[i]);
    }
    for (size_t i = 0; i < 6; i++)
        postgres_array_close(&burst->letters[i]);
    for (size_t i = 0; i < 3; i++)
        postgres_array_close(&burst->deleted[i]);
    buffer_close(&burst->scratch);
}

/* ---- what is in it already */

static uint64_t hash_of(struct bytes text)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < text.len; i++)
        hash = (hash ^ (unsigned char)text.ptr[i]) * 0x100000001b3u;
    /* 0 stands for an empty place. */
    return hash ? hash : 1;
}

/* Two documents of one hash do not go together, which costs a transaction and nothing else. */
static bool has_seen(const struct postgres_burst *burst, uint64_t hash)
{
    /* Open addressing: the places behind the first are looked at until one is free. */
    for (size_t i = hash % POSTGRES_SEEN_SIZE; burst->seen_in[i] == burst->nth;
         i = (i + 1) % POSTGRES_SEEN_SIZE)
        if (burst->seen[i] == hash)
            return true;
    return false;
}

/* A record of more documents than that is alone, and nobody asks. */
static void note_seen(struct postgres_burst *burst, uint64_t hash)
{
    size_t i = hash % POSTGRES_SEEN_SIZE;
    /* Never more than half full, so that looking always finds a free place. */
    if (burst->n_seen++ >= POSTGRES_SEEN_SIZE / 2)
        return;
    while (burst->seen_in[i] == burst->nth)
        i = (i + 1) % POSTGRES_SEEN_SIZE;
    burst->seen[i] = hash;
    burst->seen_in[i] = burst->nth;
}

static bool has_company(const struct postgres_burst *burst, const struct record *record)
{
    for (size_t i = 0; i < record->n_documents; i++)
        if (has_seen(burst, hash_of(record->documents[i].id)))
            return true;
    return false;
}

/* ---- what can be written at all */

static bool is_text(struct bytes text)
{
    for (size_t i = 0; i < text.len;) {
        int step = utf8_next(text.ptr + i, text.len - i);
        if (step <= 0 || text.ptr[i] == '\0')
            return false;
        i += (size_t)step;
    }
    return true;
}

/* Bytes of a vector of the table's dimension; 0: any. */
static size_t vector_bytes(const struct postgres_burst *burst)
{
    /* -1: a column without a dimension, which takes any. */
    size_t dim = burst->table->dim > 0 ? (size_t)burst->table->dim : 0;
    return burst->config->type == POSTGRES_BIT       ? (dim + 7) / 8
           : burst->config->type == POSTGRES_HALFVEC ? 2 * dim
                                                     : 4 * dim;
}

static size_t dim_of(const struct postgres_burst *burst, size_t len)
{
    return burst->config->type == POSTGRES_BIT       ? 8 * len
           : burst->config->type == POSTGRES_HALFVEC ? len / 2
                                                     : len / 4;
}

static size_t record_bytes(const struct record *record)
{
    size_t n = 0, headers = 0;
    for (size_t i = 0; i < record->n_headers; i++)
        /* Each part repeats them in its metadata. */
        headers += record->headers[i].name.len + record->headers[i].value.len + 16;
    for (size_t i = 0; i < record->n_parts; i++)
        n += record->parts[i].id.len + record->parts[i].value.len + record->parts[i].vector.len +
             headers;
    return n;
}

static enum postgres_fits judge(const struct postgres_burst *burst, const struct record *record,
                                char *why, size_t size)
{
    size_t wanted = vector_bytes(burst);
    if (record_bytes(record) > RECORD_MAX)
        return BURST_TOO_LARGE;
    for (size_t i = 0; i < record->n_parts && !record->dead_code; i++) {
        const struct part *part = &record->parts[i];
        if (!is_text(part->id) || (part->chunk && !is_text(part->chunk->parent))) {
            snprintf(why, size,
                     "the id of text %zu is not UTF-8 or has a NUL, which PostgreSQL "
                     "does not take: give it another",
                     i + 1);
            return BURST_REFUSES;
        }
        if (!part->vector.ptr || !wanted || part->vector.len == wanted)
            continue;
        snprintf(why, size,
                 "vectors have %zu dimensions and column embedding of table %s has %d: "
                 "set dim, or write to another table",
                 dim_of(burst, part->vector.len), burst->table->name, burst->table->dim);
        return BURST_DIFFERS;
    }
    return BURST_TAKES;
}

/* ---- rows */

static void put_vector(struct postgres_burst *burst, struct bytes vector)
{
    struct postgres_array *to = &burst->rows[burst->group][3];
    bool is_bit = burst->config->type == POSTGRES_BIT;
    size_t width = burst->config->type == POSTGRES_VECTOR ? 4 : 2;
    size_t n = dim_of(burst, vector.len);
    /* The bytes are padded to eight bits; the column says how many of the last count. */
    if (is_bit && burst->table->dim > 0)
        n = (size_t)burst->table->dim;
    char *at = postgres_array_room(to, 4 + vector.len);
    if (!at)
        return;
    if (is_bit)
        postgres_put_int4(at, (uint32_t)n);
    else
        postgres_put_int4(at, (uint32_t)n << 16); /* two of two bytes: how many, and 0 */
    at += 4;
    if (is_bit)
        memcpy(at, vector.ptr, vector.len);
    for (size_t i = 0; !is_bit && i < vector.len; i += width) {
        uint32_t four;
        uint16_t two;
        if (width == 4) {
            memcpy(&four, vector.ptr + i, 4);
            postgres_put_int4(at + i, four);
        } else {
            memcpy(&two, vector.ptr + i, 2);
            postgres_put_int2(at + i, two);
        }
    }
}

/* What the columns say already. */
static bool is_ours(const struct header *header)
{
    static const char *const names[] = {"id", "content-type", "embedding-dim", "embedding-dtype"};
    return bytes_in(header->name, names, 4);
}

/* Headers first: of two members of one name jsonb keeps the last, and fields are the message's. */
static void write_metadata(struct buffer *to, const struct record *record, struct bytes fields)
{
    const char *comma = "";
    buffer_put_text(to, "{");
    for (size_t i = 0; i < record->n_headers; i++) {
        const struct header *header = &record->headers[i];
        if (is_ours(header))
            continue;
        buffer_put_text(to, comma);
        json_put_string(to, header->name);
        buffer_put_text(to, ":");
        json_put_string(to, header->value);
        comma = ",";
    }
    /* More than "{}": its members follow ours, without the braces. */
    if (fields.len > 2) {
        buffer_put_text(to, comma);
        buffer_put(to, fields.ptr + 1, fields.len - 2);
    }
    buffer_put_text(to, "}");
}

/* JSON of ours into a jsonb column, which takes no NUL: it becomes U+FFFD. */
static void put_jsonb(struct postgres_array *to, struct buffer *json)
{
    char *at = json->ptr, *end = at + json->len, *out = at;
    while (at < end) {
        char *escape = memchr(at, '\\', (size_t)(end - at));
        size_t plain = (size_t)((escape ? escape : end) - at);
        memmove(out, at, plain);
        out += plain;
        at += plain;
        if (!escape)
            break;
        /* An escape is stepped over as a whole: of "\\u0000" the first two bytes are a
         * backslash. */
        bool is_nul = end - at >= 6 && memcmp(at, "\\u0000", 6) == 0;
        memcpy(out, is_nul ? UTF8_REPLACEMENT : at, is_nul ? 3 : 2);
        out += is_nul ? 3 : 2;
        at += is_nul ? 6 : 2;
    }
    size_t len = (size_t)(out - json->ptr);
    char *room = postgres_array_room(to, 1 + len);
    if (!room)
        return;
    *room = 1; /* version of the form */
    memcpy(room + 1, json->ptr, len);
}

/* Without a version of its own the time of the message is one, and what has no time is of the
 * moment when it was given: a file that somebody indexes is meant to count. That moment is its
 * order, too, where the source gives none: a record that had to stand aside is not newer for that.
 */
static void put_version(struct postgres_array *version, struct postgres_array *order,
                        const struct document *document, const struct message *message,
                        int64_t given_us)
{
    if (document->lacks_version)
        postgres_array_null(version); /* a time is nothing to compare the others with */
    else
        postgres_array_int8(version, document->has_version        ? document->version
                                     : message->timestamp_ms >= 0 ? message->timestamp_ms
                                                                  : given_us / 1000);
    postgres_array_int8(order, message->order ? message->order : given_us);
}

static void put_row(struct postgres_burst *burst, const struct record *record,
                    const struct part *part, int64_t given_us)
{
    if (burst->rows[burst->group][0].n >= POSTGRES_GROUP_ROWS &&
        burst->group + 1 < POSTGRES_GROUPS_MAX) { /* the last one takes all that is left */
        /* Groups of 32 rows: the statement is parsed once and executed for each. */
        burst->group++;
        begin_group(burst);
    }
    struct postgres_array *rows = burst->rows[burst->group];
    postgres_array_bytes(&rows[0], part->id);
    if (part->chunk) {
        postgres_array_bytes(&rows[1], part->chunk->parent);
        postgres_array_int4(&rows[2], (int32_t)part->chunk->number);
    } else {
        postgres_array_null(&rows[1]);
        postgres_array_null(&rows[2]);
    }
    put_vector(burst, part->vector);
    burst->scratch.len = 0;
    write_metadata(&burst->scratch, record, part->value);
    if (!burst->scratch.status)
        put_jsonb(&rows[4], &burst->scratch);
    put_version(&rows[5], &rows[6], part->document, record->origin, given_us);
    /* Columns are arrays of one length, which unnest turns into rows. */
    burst->n_rows++;
    burst->n_bytes += part->vector.len + burst->scratch.len + part->id.len + 64;
}

static void put_document(struct postgres_array to[5], const struct document *document,
                         const struct message *message, int64_t given_us)
{
    postgres_array_bytes(&to[0], document->id);
    postgres_array_int4(&to[1], (int32_t)document->n_chunks);
    postgres_array_bool(&to[2], !document->n_chunks && !document->is_deleted);
    put_version(&to[3], &to[4], document, message, given_us);
}

static void add_document(struct postgres_burst *burst, const struct document *document,
                         const struct message *message, int64_t given_us)
{
    put_document(burst->docs, document, message, given_us);
    burst->n_docs++;
    /* Else a whole text writes over its own row, and nothing of it is in pieces. */
    if (document->n_chunks || document->is_deleted || burst->config->is_chunking) {
        put_document(burst->wholes, document, message, given_us);
        burst->n_wholes++;
    }
    if (document->is_deleted) {
        postgres_array_bytes(&burst->deleted[0], document->id);
        put_version(&burst->deleted[1], &burst->deleted[2], document, message, given_us);
        burst->n_deleted++;
    }
    note_seen(burst, hash_of(document->id));
}

/* ---- dead letters */

/* A list of {"name", "value"}; what is not text has "base64" in place of "value". */
static void write_headers(struct buffer *to, const struct record *record)
{
    buffer_put_text(to, "[");
    for (size_t i = 0; i < record->n_headers; i++) {
        const struct header *header = &record->headers[i];
        buffer_put_text(to, i ? ",{\"name\":" : "{\"name\":");
        json_put_string(to, header->name);
        buffer_put_text(to, is_text(header->value) ? ",\"value\":" : ",\"base64\":");
        if (is_text(header->value))
            json_put_string(to, header->value);
        else
            json_put_base64(to, header->value);
        buffer_put_text(to, "}");
    }
    buffer_put_text(to, "]");
}

/* Of our own sentences, which may quote bytes of others. */
static void put_clean(struct postgres_array *to, struct buffer *scratch, struct bytes text)
{
    scratch->len = 0;
    for (size_t i = 0; i < text.len;) {
        int step = utf8_next(text.ptr + i, text.len - i);
        bool is_good = step > 0 && text.ptr[i] != '\0';
        buffer_put(scratch, is_good ? text.ptr + i : UTF8_REPLACEMENT, is_good ? (size_t)step : 3);
        /* A NUL is a step of one; a bad part is passed over as a whole. */
        i += step > 0 ? (size_t)step : step < 0 ? (size_t)-step : 1;
    }
    if (!scratch->status)
        postgres_array_bytes(to, (struct bytes){text.len ? scratch->ptr : "", scratch->len});
}

static void add_letter(struct postgres_burst *burst, const struct record *record)
{
    const struct part *part = &record->parts[0];
    const char *texts[] = {record->dead_code, record->dead_reason};
    struct postgres_array *letters = burst->letters;
    put_clean(&letters[0], &burst->scratch, record->origin->position);
    for (size_t i = 0; i < 2; i++)
        put_clean(&letters[1 + i], &burst->scratch, bytes_of(texts[i]));
    postgres_array_bytes(&letters[3], part->id);
    postgres_array_bytes(&letters[4], part->value);
    burst->scratch.len = 0;
    write_headers(&burst->scratch, record);
    if (!burst->scratch.status)
        put_jsonb(&letters[5], &burst->scratch);
    burst->n_letters++;
    burst->n_bytes += part->value.len + part->id.len + burst->scratch.len + 64;
}

/* ---- a transaction */

/* Two letters of one position would be one row written twice, as would two of a document. */
static bool is_twice(const struct postgres_burst *burst, const struct record *record)
{
    return record->dead_code ? has_seen(burst, ~hash_of(record->origin->position))
                             : has_company(burst, record);
}

bool postgres_burst_meets(const struct postgres_burst *burst, const struct record *record)
{
    return burst->n_seen > POSTGRES_SEEN_SIZE / 2 || is_twice(burst, record);
}

enum postgres_fits postgres_burst_add(struct postgres_burst *burst, const struct record *record,
                                      int64_t given_us, char *why, size_t size)
{
    /* Before anything is put in: what was put cannot be taken out again. */
    enum postgres_fits fits = judge(burst, record, why, size);
    if (fits != BURST_TAKES)
        return fits;
    bool is_empty = !burst->n_docs && !burst->n_letters;
    bool has_room = burst->n_rows + record->n_parts <= POSTGRES_ROWS_MAX &&
                    burst->n_bytes < BYTES_MAX &&
                    burst->n_seen + record->n_documents < POSTGRES_SEEN_SIZE / 2;
    /* Into an empty one a record goes however large it is: it can be cut no further. */
    if (!is_empty && (!has_room || is_twice(burst, record)))
        return BURST_FULL;
    if (record->dead_code && record->n_parts) {
        /* The complement, so that a position never meets an id of the same text. */
        note_seen(burst, ~hash_of(record->origin->position));
        add_letter(burst, record);
        return BURST_TAKES;
    }
    for (size_t i = 0; i < record->n_parts; i++)
        if (!record->parts[i].document->is_deleted)
            put_row(burst, record, &record->parts[i], given_us);
    for (size_t i = 0; i < record->n_documents; i++)
        add_document(burst, &record->documents[i], record->origin, given_us);
    return BURST_TAKES;
}

static void add_statement(struct postgres_burst *burst, enum postgres_step step, const char *sql,
                          const struct postgres_array *arrays, size_t n)
{
    size_t nth = burst->n++;
    assert(nth < POSTGRES_STATEMENTS_MAX && n <= 8);
    for (size_t i = 0; i < n; i++) {
        /* Borrowed: no array grows between here and the sending. */
        burst->values[nth][i] = arrays[i].bytes.ptr;
        burst->lengths[nth][i] = (int)arrays[i].bytes.len;
        burst->types[nth][i] = arrays[i].type;
    }
    burst->steps[nth] = step;
    burst->statements[nth] = (struct postgres_statement){sql, (int)n, burst->types[nth],
                                                         burst->values[nth], burst->lengths[nth]};
}

/* One more parameter for the statement that was added last. */
static void add_text(struct postgres_burst *burst, const char *text)
{
    size_t nth = burst->n - 1, i = (size_t)burst->statements[nth].n++;
    burst->values[nth][i] = text;
    burst->lengths[nth][i] = (int)strlen(text);
    burst->types[nth][i] = POSTGRES_OID_TEXT;
}

static void add_settings(struct postgres_burst *burst)
{
    const char *texts[] = {burst->timeout, burst->lock};
    snprintf(burst->timeout, sizeof burst->timeout, "%llu", (unsigned long long)burst->timeout_ms);
    snprintf(burst->lock, sizeof burst->lock, "%llu", (unsigned long long)burst->lock_ms);
    add_statement(burst, STEP_SETTINGS, settings, NULL, 0);
    for (size_t i = 0; i < 2; i++)
        add_text(burst, texts[i]);
}

static int status_of(const struct postgres_array *arrays, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (arrays[i].bytes.status)
            return arrays[i].bytes.status;
    return 0;
}

/* Parsed once, and executed for each group. */
static void add_rows(struct postgres_burst *burst)
{
    add_statement(burst, STEP_UPSERT, burst->table->upsert, burst->rows[0], 7);
    /* Without values: parsed here, and bound by the statements below, which have no text. */
    burst->statements[burst->n - 1].values = NULL;
    for (size_t i = 0; i <= burst->group; i++)
        add_statement(burst, STEP_UPSERT, NULL, burst->rows[i], 7);
}

/* Behind the rows, so that the lock is held for as long as a commit takes. */
static void add_deletions(struct postgres_burst *burst)
{
    const struct postgres_table *table = burst->table;
    add_statement(burst, STEP_DELETED,
                  burst->n_deleted ? postgres_table_lock : postgres_table_share, NULL, 0);
    add_text(burst, table->deleted);
    if (burst->n_deleted)
        add_statement(burst, STEP_DELETED, table->put_deleted, burst->deleted, 3);
    /* What somebody deleted while these rows were written goes again. */
    if (burst->n_rows)
        add_statement(burst, STEP_DELETED, table->delete_revived, burst->docs, 1);
}

/* Behind a lock that a migration has for itself: until the end of the transaction the note stays
 * what it is found to be. */
static void add_guard(struct postgres_burst *burst)
{
    add_statement(burst, STEP_MADE_WITH, postgres_table_share, NULL, 0);
    add_text(burst, burst->table->made_with);
    add_statement(burst, STEP_MADE_WITH, burst->table->guard_made_with, NULL, 0);
    add_text(burst, burst->made_with);
}

int postgres_burst_end(struct postgres_burst *burst, const struct postgres_statement *offsets)
{
    int status = 0;
    for (size_t i = 0; i <= burst->group && !status; i++)
        status = status_of(burst->rows[i], 7);
    if (burst->scratch.status || status || status_of(burst->docs, 5) ||
        status_of(burst->wholes, 5) || status_of(burst->letters, 6) || status_of(burst->deleted, 3))
        return -ENOMEM;
    /* First: the limits count for the statements behind it. */
    add_settings(burst);
    if (offsets) { /* then: who has lost a part waits here, and finds it out */
        burst->steps[burst->n] = STEP_OFFSETS;
        burst->statements[burst->n++] = *offsets;
    }
    if (burst->n_docs && burst->made_with)
        add_guard(burst);
    if (burst->n_rows)
        add_rows(burst);
    if (burst->n_docs)
        add_deletions(burst);
    if (burst->n_docs)
        add_statement(burst, STEP_PIECES, burst->table->delete_pieces, burst->docs, 5);
    if (burst->n_wholes)
        add_statement(burst, STEP_WHOLES, burst->table->delete_wholes, burst->wholes, 5);
    if (burst->n_letters)
        add_statement(burst, STEP_LETTERS, burst->table->put_letters, burst->letters, 6);
    return 0;
}

void postgres_burst_try(struct postgres_burst *burst)
{
    /* Deferred constraints are looked at by a commit only, which a trial never comes to. */
    add_statement(burst, STEP_UPSERT, "SET CONSTRAINTS ALL IMMEDIATE", NULL, 0);
    /* Fails on purpose, so that all of it is rolled back; what failed before it is the answer. */
    add_statement(burst, STEP_TRIAL, "SELECT 1/0", NULL, 0);
}
