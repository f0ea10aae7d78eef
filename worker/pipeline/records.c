/*
 * records.c: see records.h. The payload buffer may move while it grows, so first everything is
 * encoded and only where each payload ends is kept; the pointers are set after the last one.
 */
#include "worker/pipeline/records.h"
#include "connectors/dead_letter_codes.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "vectors are stored as they lie in memory, which the format says is little-endian"
#endif

enum { N_OWN_HEADERS = 4 };

static bool is_named(const struct header *a, const struct header *b)
{
    return bytes_equal(a->name, b->name);
}

static int own_headers(struct arena *arena, const struct encode_options *encode,
                       struct header own[N_OWN_HEADERS])
{
    char dim[24];
    int len = snprintf(dim, sizeof dim, "%zu", encode->dim);
    /* Into the arena: records point to it until batch_reset. */
    char *kept = arena_copy(arena, dim, (size_t)len);
    if (!kept)
        return -ENOMEM;
    const char *type = codec_format_type(encode->format);
    own[0] = (struct header){bytes_of("content-type"), bytes_of(type)};
    own[1] = (struct header){bytes_of("embedding-model"), bytes_of(encode->model)};
    own[2] = (struct header){bytes_of("embedding-dim"), {kept, (size_t)len}};
    const char *dtype = codec_dtype_name(encode->dtype);
    own[3] = (struct header){bytes_of("embedding-dtype"), bytes_of(dtype)};
    return 0;
}

/* The message's headers that ours do not replace, then ours. */
static int output_headers(struct entry *entry, const struct header own[N_OWN_HEADERS])
{
    const struct message *message = entry->message;
    size_t room = message->n_headers + N_OWN_HEADERS, n = 0;
    struct header *headers = arena_alloc(&entry->batch->arena, room * sizeof *headers);
    if (!headers)
        return -ENOMEM;
    for (size_t i = 0; i < message->n_headers; i++) {
        bool replaced = false;
        for (size_t j = 0; j < N_OWN_HEADERS; j++)
            replaced |= is_named(&message->headers[i], &own[j]);
        if (!replaced)
            headers[n++] = message->headers[i];
    }
    assert(n <= message->n_headers);
    memcpy(headers + n, own, N_OWN_HEADERS * sizeof *own);
    entry->record.headers = headers;
    entry->record.n_headers = n + N_OWN_HEADERS;
    return 0;
}

static int encode_part(struct entry *entry, const struct encode_options *encode, size_t first,
                       size_t n)
{
    struct batch *batch = entry->batch;
    size_t at = entry->first_item + first;
    return codec_encode(encode, &entry->request, entry->message, first, n, entry->prompt->name,
                        batch->vectors + at * batch->dim, batch->results + at, &batch->payloads);
}

/* The whole texts that the items of an entry are or are pieces of, or the one that is gone. */
static int documents_build(struct entry *entry)
{
    const struct request *request = &entry->request;
    size_t room = request->n_items ? request->n_items : 1, n = 0;
    struct document *documents = arena_alloc(&entry->batch->arena, room * sizeof *documents);
    if (!documents)
        return -ENOMEM;
    for (size_t i = 0; i < request->n_items; i++) {
        const struct item *item = &request->items[i];
        const struct chunk *chunk = item->chunk;
        if (item_begins_text(item))
            documents[n++] = (struct document){.id = chunk ? chunk->parent : item->id,
                                               .id_is_number = chunk ? chunk->parent_is_number
                                                                     : item->id_is_number,
                                               .has_version = request->has_version,
                                               .version = request->version};
        /* Chunks follow the one that begins their text, so the last document is theirs. */
        assert(n > 0);
        documents[n - 1].n_chunks += chunk != NULL;
    }
    if (request->is_deleted)
        documents[n++] = (struct document){.id = request->id,
                                           .id_is_number = request->id_is_number,
                                           .is_deleted = true,
                                           .has_version = request->has_version,
                                           .version = request->version,
                                           .lacks_version = request->lacks_version};
    entry->record.documents = documents;
    entry->record.n_documents = n;
    return 0;
}

/* Parts of an output, encoded; value.len is set and value.ptr is not, until payloads_resolve. */
static int output_parts(struct entry *entry, enum sink_layout layout,
                        const struct encode_options *encode)
{
    struct batch *batch = entry->batch;
    const struct request *request = &entry->request;
    size_t n = encode->per_text ? request->n_items : 1;
    size_t texts_each = encode->per_text ? 1 : request->n_items;
    struct part *parts = arena_alloc(&batch->arena, n * sizeof *parts);
    if (!parts)
        return -ENOMEM;
    memset(parts, 0, n * sizeof *parts);
    const struct document *document = entry->record.documents;
    for (size_t i = 0; i < n; i++) {
        /* The buffer may move while it grows, so pointers into it are set only when it is full. */
        size_t before = batch->payloads.len;
        int err = layout == SINK_VECTORS ? 0 : encode_part(entry, encode, i, texts_each);
        if (err)
            return err;
        parts[i].value.len = batch->payloads.len - before;
        if (encode->per_text) {
            size_t len = codec_dtype_bytes(encode->dtype, batch->dim);
            char *vector = arena_alloc(&batch->arena, len);
            if (!vector)
                return -ENOMEM;
            codec_dtype_pack(encode->dtype, batch->vectors + (entry->first_item + i) * batch->dim,
                             batch->dim, vector);
            parts[i].vector = (struct bytes){vector, len};
            parts[i].id = request->items[i].id;
            parts[i].chunk = request->items[i].chunk;
            /* The first item begins the first document; each that begins a text, the next. */
            document += i > 0 && item_begins_text(&request->items[i]);
            parts[i].document = document;
        } else {
            parts[i].id = request->id;
            /* One record for several texts names none of them. */
            parts[i].document = entry->record.n_documents == 1 ? document : NULL;
        }
    }
    entry->record.parts = parts;
    entry->record.n_parts = n;
    return 0;
}

/* The text is gone: a part without a value. By `id` and `deleted` sinks say which one, and the
 * message's would say something else. */
static int tombstone_part(struct entry *entry)
{
    static const char *const replaced[] = {"id", "deleted"};
    const struct message *message = entry->message;
    struct part *part = arena_alloc(&entry->batch->arena, sizeof *part);
    struct header *headers =
        arena_alloc(&entry->batch->arena, (message->n_headers + 1) * sizeof *headers);
    size_t n = 0;
    if (!part || !headers)
        return -ENOMEM;
    for (size_t i = 0; i < message->n_headers; i++)
        if (!bytes_in(message->headers[i].name, replaced, 2))
            headers[n++] = message->headers[i];
    *part = (struct part){.id = entry->request.id, .document = entry->record.documents};
    entry->record.parts = part;
    entry->record.n_parts = 1;
    entry->record.headers = headers;
    entry->record.n_headers = n;
    return 0;
}

/* One part with the bytes of the message itself: a dead letter. */
static int original_part(struct entry *entry)
{
    struct part *part = arena_alloc(&entry->batch->arena, sizeof *part);
    if (!part)
        return -ENOMEM;
    *part = (struct part){.id = entry->message->key, .value = entry->message->value};
    entry->record.parts = part;
    entry->record.n_parts = 1;
    entry->record.documents = NULL;
    entry->record.n_documents = 0;
    entry->record.headers = entry->message->headers;
    entry->record.n_headers = entry->message->n_headers;
    return 0;
}

static bool is_output(const struct entry *entry)
{
    return !entry->dead_code && entry->request.n_items > 0;
}

static void payloads_resolve(struct batch *batch)
{
    const char *at = batch->payloads.ptr;
    for (size_t e = 0; e < batch->n_entries; e++) {
        struct entry *entry = &batch->entries[e];
        if (!is_output(entry))
            continue;
        struct part *parts = (struct part *)entry->record.parts; /* ours: made by output_parts */
        for (size_t i = 0; i < entry->record.n_parts; i++) {
            parts[i].value.ptr = parts[i].value.len > 0 ? at : NULL;
            at += parts[i].value.len;
        }
    }
}

size_t record_repeats(const struct entry *entry, enum sink_layout layout,
                      const struct encode_options *encode)
{
    const struct message *message = entry->message;
    size_t n = 0;
    if (layout != SINK_VECTORS && (encode->per_text || codec_format_is_rows(encode->format)))
        n = entry->request.fields.len;
    /* Headers are repeated only where each text is a message of its own. */
    if (layout != SINK_VECTORS && layout != SINK_ROWS)
        return n;
    for (size_t i = 0; i < message->n_headers; i++)
        n += message->headers[i].name.len + message->headers[i].value.len + RECORD_HEADER_COST;
    return n;
}

int records_build(struct batch *batch, enum sink_layout layout, const struct encode_options *encode)
{
    struct header own[N_OWN_HEADERS];
    int err = own_headers(&batch->arena, encode, own);
    for (size_t e = 0; e < batch->n_entries && !err; e++) {
        struct entry *entry = &batch->entries[e];
        entry->record = (struct record){.origin = entry->message,
                                        .dead_code = entry->dead_code,
                                        .dead_reason = entry->dead_reason};
        /* Without parts the others write nothing, and pass through the sink to be acked in their
         * turn. */
        if (entry->dead_code || entry->request.is_unchanged || entry->is_of_others) {
            err = entry->dead_code ? original_part(entry) : 0;
            continue;
        }
        err = documents_build(entry);
        if (!err)
            err = is_output(entry) ? output_parts(entry, layout, encode) : tombstone_part(entry);
        if (!err && is_output(entry))
            err = output_headers(entry, own);
    }
    if (!err)
        /* All payloads are there: the buffer does not move any more. */
        payloads_resolve(batch);
    return err;
}

/* Turn an already built record into a dead letter. */
static int dead_letter(struct entry *entry, const char *code, const char *reason)
{
    int err = original_part(entry);
    if (err)
        return err;
    /* A sink's refused_reason is good until on_published returns, and no longer. */
    char *kept = arena_copy(&entry->batch->arena, reason, strlen(reason) + 1);
    if (!kept)
        return -ENOMEM;
    entry->record.dead_code = entry->dead_code = code;
    entry->record.dead_reason = entry->dead_reason = kept;
    return 0;
}

/* A header costs some bytes of framing beside its own, so that many empty ones count too. */
static size_t header_size(const struct header *header)
{
    return header->name.len + header->value.len + 8;
}

static size_t headers_size(const struct header *headers, size_t n)
{
    size_t size = 0;
    for (size_t i = 0; i < n; i++)
        size += header_size(&headers[i]);
    return size;
}

/* Those that fit into so many bytes, whole and in their order: half a header misleads. */
static int shorten_headers(struct entry *entry, size_t room)
{
    struct record *record = &entry->record;
    struct header *kept = arena_alloc(&entry->batch->arena, (record->n_headers + 1) * sizeof *kept);
    size_t n = 0;
    if (!kept)
        return -ENOMEM;
    for (size_t i = 0; i < record->n_headers; i++) {
        size_t size = header_size(&record->headers[i]);
        /* A smaller one behind it may still fit. */
        if (size > room)
            continue;
        room -= size;
        kept[n++] = record->headers[i];
    }
    assert(n < record->n_headers);
    record->headers = kept;
    record->n_headers = n;
    return 0;
}

/* The reason, and what is missing of the original. */
static int note_shortened(struct entry *entry)
{
    const struct message *message = entry->message;
    struct record *record = &entry->record;
    const struct part *part = &record->parts[0];
    size_t size = strlen(entry->dead_reason) + 400, n = 0;
    char *reason = arena_alloc(&entry->batch->arena, size);
    if (!reason)
        return -ENOMEM;
    n += (size_t)snprintf(reason, size, "%s", entry->dead_reason);
    if (part->value.len < message->value.len)
        n += (size_t)snprintf(reason + n, size - n,
                              "; the first %zu of %zu payload " RECORD_TRUNCATED_MARK,
                              part->value.len, message->value.len);
    if (part->id.len < message->key.len)
        n += (size_t)snprintf(reason + n, size - n,
                              "; the first %zu of %zu key " RECORD_TRUNCATED_MARK, part->id.len,
                              message->key.len);
    if (record->n_headers < message->n_headers)
        n += (size_t)snprintf(
            reason + n, size - n,
            "; %zu of %zu headers, %zu of about %zu header " RECORD_TRUNCATED_MARK,
            record->n_headers, message->n_headers, headers_size(record->headers, record->n_headers),
            headers_size(message->headers, message->n_headers));
    assert(n < size);
    /* entry->dead_reason stays as it is: the next note, after a further cut, begins from it. */
    record->dead_reason = reason;
    return 0;
}

/* 0; -E2BIG: there is nothing left to cut; -ENOMEM. */
static int shorten(struct entry *entry, bool all)
{
    struct record *record = &entry->record;
    struct part *part = (struct part *)record->parts; /* ours: made by original_part */
    size_t headers = headers_size(record->headers, record->n_headers);
    if (headers == 0 && part->value.len == 0 && part->id.len == 0)
        return -E2BIG;
    int err = 0;
    /* What the broker takes is not known: a sixteenth at each refusal is from 1 GiB to nothing in
     * eight. */
    if (all) {
        record->n_headers = part->value.len = part->id.len = 0;
    } else if (headers >= part->value.len && headers >= part->id.len) {
        err = shorten_headers(entry, headers / 16);
    } else if (part->value.len >= part->id.len) {
        part->value.len /= 16;
    } else {
        part->id.len /= 16;
    }
    return err ? err : note_shortened(entry);
}

/* Nothing is written for it any more; the reason keeps what the broker said of the letter. */
static int drop(struct entry *entry, const char *said)
{
    size_t size = strlen(entry->dead_reason) + strlen(said) + 80;
    char *reason = arena_alloc(&entry->batch->arena, size);
    if (!reason)
        return -ENOMEM;
    snprintf(reason, size, "%s; its dead letter is refused: %s", entry->dead_reason, said);
    entry->dead_reason = reason;
    entry->dropped = true;
    /* A record without parts: the sink writes nothing and confirms it in its turn. */
    entry->record.parts = NULL;
    entry->record.n_parts = entry->record.n_headers = 0;
    return 0;
}

int record_refused(struct entry *entry, enum published how, bool may_drop, char *err,
                   size_t err_size)
{
    const struct record *record = &entry->record;
    const struct bytes *position = &entry->message->position;
    assert(!entry->dropped);
    if (!entry->dead_code && how == PUBLISH_REFUSED)
        return dead_letter(entry, record->refused_code, record->refused_reason);
    if (!entry->dead_code)
        return dead_letter(
            entry, DEAD_LETTER(output_too_large),
            "the output is larger than the broker takes: put fewer texts in a message, "
            "cut them into fewer chunks, or raise the broker's limit");
    int rc = shorten(entry, how == PUBLISH_REFUSED);
    if (rc != -E2BIG)
        return rc;
    const char *said = how == PUBLISH_REFUSED ? record->refused_reason : "it is too large";
    if (may_drop)
        return drop(entry, said);
    snprintf(err, err_size,
             "the message at %.*s (%s) can be written nowhere: its dead letter is refused even "
             "without payload, key and headers (%.200s). Raise the limits of the dead-letter "
             "destination, or start with --undeliverable drop, which gives such messages up",
             (int)position->len, position->ptr, entry->dead_code, said);
    return -E2BIG;
}

struct entry *record_entry(struct record *record)
{
    return (struct entry *)((char *)record - offsetof(struct entry, record));
}
