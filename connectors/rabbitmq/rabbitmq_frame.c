/*
 * rabbitmq_frame.c: see rabbitmq_frame.h.
 */
#include "connectors/rabbitmq/rabbitmq_frame.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define HEADER_SIZE 7 /* type, channel, length */
#define FRAME_END   0xce

static uint64_t read_number(const char *at, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++)
        value = value << 8 | (unsigned char)at[i];
    return value;
}

static void write_number(char *at, size_t n, uint64_t value)
{
    while (n--) {
        at[n] = (char)(value & 0xff);
        value >>= 8;
    }
}

/* ---- reading */

int rabbitmq_frame_read(struct bytes bytes, size_t max, struct rabbitmq_frame *out, size_t *used,
                        const char **why)
{
    if (bytes.len < HEADER_SIZE)
        return 0;
    /* A broker that refuses our version answers with the header of its own, and hangs up. */
    if (memcmp(bytes.ptr, "AMQP", 4) == 0) {
        *why = "it speaks another version of AMQP than 0-9-1";
        return -EPROTO;
    }
    if (memcmp(bytes.ptr, "\x15\x03", 2) == 0) { /* an alert */
        *why = "what it sends is TLS (does this port speak TLS, amqps://?)";
        return -EPROTO;
    }
    uint8_t type = (uint8_t)bytes.ptr[0];
    size_t len = (size_t)read_number(bytes.ptr + 3, 4);
    if (type != AMQP_FRAME_METHOD && type != AMQP_FRAME_HEADER && type != AMQP_FRAME_BODY &&
        type != AMQP_FRAME_HEARTBEAT) {
        *why = "what it sends is not AMQP 0-9-1";
        return -EPROTO;
    }
    /* Before anything is read into memory: the length is the server's word. */
    if (len > max - RABBITMQ_FRAME_EXTRA) {
        *why = "a frame is larger than was agreed";
        return -EPROTO;
    }
    if (bytes.len < HEADER_SIZE + len + 1)
        return 0;
    if ((unsigned char)bytes.ptr[HEADER_SIZE + len] != FRAME_END) {
        *why = "a frame does not end where it says";
        return -EPROTO;
    }
    *out = (struct rabbitmq_frame){
        type, (uint16_t)read_number(bytes.ptr + 1, 2), {bytes.ptr + HEADER_SIZE, len}};
    *used = HEADER_SIZE + len + 1;
    return 1;
}

uint32_t rabbitmq_frame_method(struct bytes payload)
{
    return payload.len < 4 ? 0 : (uint32_t)read_number(payload.ptr, 4);
}

bool rabbitmq_frame_header(struct bytes payload, uint64_t *body_len, struct bytes *properties)
{
    if (payload.len < 14) /* class, weight, length, flags */
        return false;
    *body_len = read_number(payload.ptr + 4, 8);
    *properties = (struct bytes){payload.ptr + 12, payload.len - 12};
    return true;
}

/* ---- depth */

struct cursor {
    const char *at;
    size_t left;
};

static bool skip(struct cursor *cursor, size_t n)
{
    if (n > cursor->left)
        return false;
    cursor->at += n;
    cursor->left -= n;
    return true;
}

/* Past a length of n bytes and what it measures, which becomes *out. */
static bool take(struct cursor *cursor, size_t n, struct cursor *out)
{
    if (n > cursor->left)
        return false;
    size_t len = (size_t)read_number(cursor->at, n);
    skip(cursor, n);
    *out = (struct cursor){cursor->at, len};
    return skip(cursor, len);
}

static bool walk(struct cursor cursor, bool has_names, unsigned depth)
{
    struct cursor inner;
    while (cursor.left) {
        /* A key of a table: one byte of length; elements of an array have none. */
        if (has_names && !take(&cursor, 1, &inner))
            return false;
        if (!cursor.left)
            return false;
        char kind = *cursor.at;
        skip(&cursor, 1);
        bool is_fine;
        switch (kind) {
        case AMQP_FIELD_KIND_TABLE:
        case AMQP_FIELD_KIND_ARRAY:
            is_fine = depth < RABBITMQ_DEPTH_MAX && take(&cursor, 4, &inner) &&
                      walk(inner, kind == AMQP_FIELD_KIND_TABLE, depth + 1);
            break;
        case AMQP_FIELD_KIND_UTF8:
        case AMQP_FIELD_KIND_BYTES:
            is_fine = take(&cursor, 4, &inner);
            break;
        case AMQP_FIELD_KIND_VOID:
            is_fine = true;
            break;
        case AMQP_FIELD_KIND_BOOLEAN:
        case AMQP_FIELD_KIND_I8:
        case AMQP_FIELD_KIND_U8:
            is_fine = skip(&cursor, 1);
            break;
        case AMQP_FIELD_KIND_I16:
        case AMQP_FIELD_KIND_U16:
            is_fine = skip(&cursor, 2);
            break;
        case AMQP_FIELD_KIND_I32:
        case AMQP_FIELD_KIND_U32:
        case AMQP_FIELD_KIND_F32:
            is_fine = skip(&cursor, 4);
            break;
        case AMQP_FIELD_KIND_DECIMAL:
            is_fine = skip(&cursor, 5);
            break;
        case AMQP_FIELD_KIND_I64:
        case AMQP_FIELD_KIND_U64:
        case AMQP_FIELD_KIND_F64:
        case AMQP_FIELD_KIND_TIMESTAMP:
            is_fine = skip(&cursor, 8);
            break;
        default:
            is_fine = false;
        }
        if (!is_fine)
            return false;
    }
    return true;
}

bool rabbitmq_properties_are_sane(struct bytes properties)
{
    struct cursor cursor = {properties.ptr, properties.len}, inner;
    if (cursor.left < 2)
        return false;
    unsigned flags = (unsigned)read_number(cursor.at, 2);
    skip(&cursor, 2);
    if (flags & 1) /* more flags follow: AMQP 0-9-1 has no property for them */
        return false;
    if ((flags & AMQP_BASIC_CONTENT_TYPE_FLAG) && !take(&cursor, 1, &inner))
        return false;
    if ((flags & AMQP_BASIC_CONTENT_ENCODING_FLAG) && !take(&cursor, 1, &inner))
        return false;
    if (!(flags & AMQP_BASIC_HEADERS_FLAG))
        return true;
    /* Properties behind the headers are of one level: the library checks those itself. */
    return take(&cursor, 4, &inner) && walk(inner, true, 1);
}

/* ---- writing */

/* Header and end of a frame around len bytes that are there already, from start on. */
static void frame_close(struct buffer *to, size_t start, uint8_t type, uint16_t channel, size_t len)
{
    char *at = to->ptr + start;
    at[0] = (char)type;
    write_number(at + 1, 2, channel);
    write_number(at + 3, 4, len);
    /* The caller has reserved it: a payload and RABBITMQ_FRAME_EXTRA. */
    at[HEADER_SIZE + len] = (char)FRAME_END;
    to->len = start + HEADER_SIZE + len + 1;
}

int rabbitmq_put_method(struct buffer *to, uint16_t channel, uint32_t id, const void *method)
{
    enum { ROOM = 8192 }; /* all that we send is shorter, but for a password */
    if (buffer_reserve(to, ROOM))
        return -ENOMEM;
    char *at = to->ptr + to->len + HEADER_SIZE;
    amqp_bytes_t room = {ROOM - RABBITMQ_FRAME_EXTRA - 4, at + 4};
    int len = amqp_encode_method(id, (void *)method, room);
    if (len < 0)
        return -EMSGSIZE;
    write_number(at, 4, id);
    /* The encoder writes arguments alone; the four bytes before them are the method. */
    frame_close(to, to->len, AMQP_FRAME_METHOD, channel, (size_t)len + 4);
    return 0;
}

int rabbitmq_put_content(struct buffer *to, uint16_t channel,
                         const amqp_basic_properties_t *properties, struct bytes body,
                         size_t frame_max)
{
    /* The limit is of a whole frame, with its header and its end. */
    size_t piece = frame_max - RABBITMQ_FRAME_EXTRA;
    size_t n_pieces = (body.len + piece - 1) / piece;
    assert(frame_max > 2 * RABBITMQ_FRAME_EXTRA);
    if (buffer_reserve(to, frame_max + body.len + n_pieces * RABBITMQ_FRAME_EXTRA))
        return -ENOMEM;
    char *at = to->ptr + to->len + HEADER_SIZE;
    amqp_bytes_t room = {piece - 12, at + 12};
    int len = amqp_encode_properties(AMQP_BASIC_CLASS, (void *)properties, room);
    if (len < 0)
        return -EMSGSIZE;
    write_number(at, 2, AMQP_BASIC_CLASS);
    /* Weight, which is unused and must be 0. */
    write_number(at + 2, 2, 0);
    write_number(at + 4, 8, body.len);
    frame_close(to, to->len, AMQP_FRAME_HEADER, channel, (size_t)len + 12);
    for (size_t from = 0; from < body.len; from += piece) {
        size_t n = body.len - from < piece ? body.len - from : piece;
        memcpy(to->ptr + to->len + HEADER_SIZE, body.ptr + from, n);
        frame_close(to, to->len, AMQP_FRAME_BODY, channel, n);
    }
    return 0;
}

int rabbitmq_put_heartbeat(struct buffer *to)
{
    if (buffer_reserve(to, RABBITMQ_FRAME_EXTRA))
        return -ENOMEM;
    frame_close(to, to->len, AMQP_FRAME_HEARTBEAT, 0, 0);
    return 0;
}

amqp_bytes_t rabbitmq_bytes(struct bytes bytes)
{
    return (amqp_bytes_t){bytes.len, (void *)bytes.ptr};
}

void rabbitmq_text_copy(char *out, size_t size, amqp_bytes_t text)
{
    /* Short strings have 255 bytes at most, and so fit; long ones are cut. */
    size_t len = text.len < size ? text.len : size - 1;
    if (len)
        memcpy(out, text.bytes, len);
    out[len] = '\0';
}

amqp_bytes_t rabbitmq_text(const char *text)
{
    return (amqp_bytes_t){strlen(text), (void *)text};
}

struct bytes rabbitmq_bytes_of(amqp_bytes_t bytes)
{
    return (struct bytes){bytes.bytes ? bytes.bytes : "", bytes.len};
}

const amqp_field_value_t *rabbitmq_table_find(const amqp_table_t *table, const char *name)
{
    for (int i = 0; i < table->num_entries; i++)
        if (bytes_are(rabbitmq_bytes_of(table->entries[i].key), name))
            return &table->entries[i].value;
    return NULL;
}
