/*
 * postgres_array.c: see postgres_array.h.
 */
#include "connectors/postgres/postgres_array.h"

#include <string.h>

enum { HEAD = 20 };

void postgres_put_int4(char *to, uint32_t value)
{
    uint32_t swapped = __builtin_bswap32(value);
    memcpy(to, &swapped, 4);
}

void postgres_put_int2(char *to, uint16_t value)
{
    uint16_t swapped = __builtin_bswap16(value);
    memcpy(to, &swapped, 2);
}

/* The count in it is set by each element. One dimension without elements is not valid: the caller
 * does not send it. */
void postgres_array_begin(struct postgres_array *array, Oid type, Oid element)
{
    const uint32_t head[5] = {1, 1, element, 0, 1}; /* dimensions, has nulls, type, count, first */
    array->bytes.len = 0;
    array->type = type;
    array->n = 0;
    char *to = buffer_extend(&array->bytes, HEAD);
    for (size_t i = 0; to && i < 5; i++)
        postgres_put_int4(to + 4 * i, head[i]);
}

void postgres_array_close(struct postgres_array *array)
{
    buffer_close(&array->bytes);
}

static char *element(struct postgres_array *array, size_t len, uint32_t said)
{
    char *to = buffer_extend(&array->bytes, 4 + len);
    if (!to)
        return NULL;
    array->n++;
    /* The count in the head, which may have moved with the buffer. */
    postgres_put_int4(array->bytes.ptr + 12, array->n);
    postgres_put_int4(to, said);
    return to + 4;
}

char *postgres_array_room(struct postgres_array *array, size_t len)
{
    return element(array, len, (uint32_t)len);
}

void postgres_array_null(struct postgres_array *array)
{
    /* A length of -1 is NULL on the wire. */
    element(array, 0, UINT32_MAX);
}

void postgres_array_bytes(struct postgres_array *array, struct bytes bytes)
{
    if (!bytes.ptr) {
        postgres_array_null(array);
        return;
    }
    char *to = postgres_array_room(array, bytes.len);
    if (to && bytes.len)
        memcpy(to, bytes.ptr, bytes.len);
}

void postgres_array_text(struct postgres_array *array, const char *text)
{
    postgres_array_bytes(array, bytes_of(text));
}

void postgres_array_int4(struct postgres_array *array, int32_t value)
{
    char *to = postgres_array_room(array, 4);
    if (to)
        postgres_put_int4(to, (uint32_t)value);
}

void postgres_array_int8(struct postgres_array *array, int64_t value)
{
    char *to = postgres_array_room(array, 8);
    if (!to)
        return;
    postgres_put_int4(to, (uint32_t)((uint64_t)value >> 32));
    postgres_put_int4(to + 4, (uint32_t)value);
}

void postgres_array_bool(struct postgres_array *array, bool value)
{
    char *to = postgres_array_room(array, 1);
    if (to)
        *to = value;
}
