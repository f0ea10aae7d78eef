/*
 * msgpack_walk.c: see msgpack_walk.h. Formats: the msgpack specification, section "Formats".
 */
#include "worker/codec/msgpack_walk.h"

#include <assert.h>
#include <string.h>

enum { DEPTH_ROOM = 32 };

static size_t bytes_left(const struct walk *walk)
{
    return (size_t)(walk->end - walk->at);
}

static enum walk_fault big_endian_read(struct walk *walk, unsigned width, uint64_t *out)
{
    if (bytes_left(walk) < width)
        return WALK_CUT;
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value = value << 8 | (unsigned char)walk->at[i];
    walk->at += width;
    *out = value;
    return WALK_OK;
}

static enum walk_fault bytes_take(struct walk *walk, enum walk_type type, uint64_t len,
                                  struct walk_value *out)
{
    if (len > bytes_left(walk))
        return WALK_COUNT;
    out->type = type;
    out->bytes = (struct bytes){walk->at, len};
    walk->at += len;
    return WALK_OK;
}

/* Every value has at least one byte, so a count can be judged before anything is done about it. */
static enum walk_fault count_take(struct walk *walk, enum walk_type type, uint64_t count,
                                  struct walk_value *out)
{
    if ((type == WALK_MAP ? 2 * count : count) > bytes_left(walk))
        return WALK_COUNT;
    out->type = type;
    out->count = (uint32_t)count;
    return WALK_OK;
}

static enum walk_fault ext_take(struct walk *walk, uint64_t len, struct walk_value *out)
{
    uint64_t type;
    if (big_endian_read(walk, 1, &type))
        return WALK_CUT;
    out->ext_type = (int8_t)type;
    return bytes_take(walk, WALK_EXT, len, out);
}

static enum walk_fault float_take(struct walk *walk, unsigned width, struct walk_value *out)
{
    uint64_t bits;
    if (big_endian_read(walk, width, &bits))
        return WALK_CUT;
    out->type = WALK_FLOAT;
    if (width == 8) {
        memcpy(&out->real, &bits, sizeof out->real);
    } else {
        uint32_t bits32 = (uint32_t)bits;
        float real32;
        memcpy(&real32, &bits32, sizeof real32);
        out->real = real32;
    }
    return WALK_OK;
}

static enum walk_fault unsigned_take(struct walk *walk, unsigned width, struct walk_value *out)
{
    uint64_t value;
    if (big_endian_read(walk, width, &value))
        return WALK_CUT;
    out->type = value > INT64_MAX ? WALK_UINT : WALK_INT;
    out->natural = value;
    out->integer = (int64_t)value;
    return WALK_OK;
}

static enum walk_fault signed_take(struct walk *walk, unsigned width, struct walk_value *out)
{
    uint64_t value;
    if (big_endian_read(walk, width, &value))
        return WALK_CUT;
    /* Up to the sign bit and down again; gcc and clang shift signed numbers arithmetically. */
    unsigned shift = 64 - 8 * width;
    out->type = WALK_INT;
    out->integer = (int64_t)(value << shift) >> shift;
    return WALK_OK;
}

/* Heads whose length or count follows in 1, 2 or 4 bytes. */
static enum walk_fault sized_take(struct walk *walk, unsigned char head, struct walk_value *out)
{
    static const struct {
        unsigned char head, width, type;
    } sized[] = {
        {0xc4, 1, WALK_BIN}, {0xc5, 2, WALK_BIN},   {0xc6, 4, WALK_BIN},   {0xc7, 1, WALK_EXT},
        {0xc8, 2, WALK_EXT}, {0xc9, 4, WALK_EXT},   {0xd9, 1, WALK_STR},   {0xda, 2, WALK_STR},
        {0xdb, 4, WALK_STR}, {0xdc, 2, WALK_ARRAY}, {0xdd, 4, WALK_ARRAY}, {0xde, 2, WALK_MAP},
        {0xdf, 4, WALK_MAP},
    };
    size_t i = 0;
    while (sized[i].head != head)
        i++;
    uint64_t size;
    if (big_endian_read(walk, sized[i].width, &size))
        return WALK_CUT;
    if (sized[i].type == WALK_EXT)
        return ext_take(walk, size, out);
    if (sized[i].type == WALK_ARRAY || sized[i].type == WALK_MAP)
        return count_take(walk, sized[i].type, size, out);
    return bytes_take(walk, sized[i].type, size, out);
}

static enum walk_fault marked_take(struct walk *walk, unsigned char head, struct walk_value *out)
{
    switch (head) {
    case 0xc0:
        out->type = WALK_NIL;
        return WALK_OK;
    case 0xc1:
        return WALK_BYTE;
    case 0xc2:
    case 0xc3:
        out->type = WALK_BOOL;
        out->is_true = head == 0xc3;
        return WALK_OK;
    case 0xca:
    case 0xcb:
        return float_take(walk, head == 0xca ? 4 : 8, out);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        return unsigned_take(walk, 1u << (head - 0xcc), out);
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return signed_take(walk, 1u << (head - 0xd0), out);
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        return ext_take(walk, 1u << (head - 0xd4), out);
    default:
        return sized_take(walk, head, out);
    }
}

enum walk_fault msgpack_walk_next(struct walk *walk, struct walk_value *out)
{
    if (walk->at == walk->end)
        return WALK_CUT;
    memset(out, 0, sizeof *out);
    unsigned char head = (unsigned char)*walk->at++;
    if (head < 0x80 || head >= 0xe0) {
        out->type = WALK_INT;
        out->integer = (int8_t)head;
        return WALK_OK;
    }
    if (head < 0x90)
        return count_take(walk, WALK_MAP, head & 15, out);
    if (head < 0xa0)
        return count_take(walk, WALK_ARRAY, head & 15, out);
    if (head < 0xc0)
        return bytes_take(walk, WALK_STR, head & 31, out);
    return marked_take(walk, head, out);
}

static uint64_t value_children(const struct walk_value *value)
{
    return value->type == WALK_MAP ? 2 * (uint64_t)value->count : value->count;
}

enum walk_fault msgpack_walk_skip(struct walk *walk)
{
    struct walk_value value;
    /* A count and no stack: it does not matter on which level a value stands, only how many are to
     * come. Counts were bounded by the bytes that are left, so the sum cannot overflow. */
    for (uint64_t left = 1; left > 0; left--) {
        enum walk_fault fault = msgpack_walk_next(walk, &value);
        if (fault)
            return fault;
        left += value_children(&value);
    }
    return WALK_OK;
}

enum walk_fault msgpack_walk_check(struct bytes bytes, unsigned max_depth)
{
    assert(max_depth <= DEPTH_ROOM);
    struct walk walk = {bytes.ptr, bytes.ptr + bytes.len};
    struct walk_value value;
    uint64_t left[DEPTH_ROOM]; /* [depth] values still to come on each level */
    unsigned depth = 0;
    bool is_map = false; /* the outermost */
    do {
        enum walk_fault fault = msgpack_walk_next(&walk, &value);
        if (fault)
            return fault;
        /* An even number left of the outermost map: a key comes next. */
        if (depth == 1 && is_map && left[0] % 2 == 0 && value.type != WALK_STR)
            return WALK_KEY;
        if (depth > 0)
            left[depth - 1]--;
        if (value.type == WALK_ARRAY || value.type == WALK_MAP) {
            if (depth == max_depth)
                return WALK_DEPTH;
            is_map = depth == 0 ? value.type == WALK_MAP : is_map;
            left[depth++] = value_children(&value);
        }
        /* An empty map ends at once, and may end those around it. */
        while (depth > 0 && left[depth - 1] == 0)
            depth--;
    } while (depth > 0);
    return walk.at == walk.end ? WALK_OK : WALK_TRAILING;
}

const char *walk_type_name(enum walk_type type)
{
    static const char *const names[] = {
        [WALK_NIL] = "null",        [WALK_BOOL] = "a boolean",   [WALK_INT] = "an integer",
        [WALK_UINT] = "an integer", [WALK_FLOAT] = "a float",    [WALK_STR] = "a string",
        [WALK_BIN] = "binary",      [WALK_EXT] = "an extension", [WALK_ARRAY] = "an array",
        [WALK_MAP] = "a map",
    };
    return names[type];
}
