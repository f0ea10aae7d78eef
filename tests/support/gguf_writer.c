/*
 * gguf_writer.c: see gguf_writer.h.
 */
#include "tests/support/gguf_writer.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gguf_writer_free(struct gguf_writer *writer)
{
    free(writer->bytes);
    memset(writer, 0, sizeof *writer);
}

size_t gguf_put(struct gguf_writer *writer, const void *bytes, size_t len)
{
    size_t at = writer->len;
    if (len > writer->capacity - writer->len) {
        writer->capacity = 2 * (writer->len + len) + 256;
        writer->bytes = realloc(writer->bytes, writer->capacity);
        if (!writer->bytes)
            abort();
    }
    if (len)
        memcpy(writer->bytes + at, bytes, len);
    writer->len += len;
    return at;
}

size_t gguf_put_u8(struct gguf_writer *writer, uint8_t value)
{
    return gguf_put(writer, &value, sizeof value);
}

size_t gguf_put_u16(struct gguf_writer *writer, uint16_t value)
{
    return gguf_put(writer, &value, sizeof value);
}

size_t gguf_put_u32(struct gguf_writer *writer, uint32_t value)
{
    return gguf_put(writer, &value, sizeof value);
}

size_t gguf_put_u64(struct gguf_writer *writer, uint64_t value)
{
    return gguf_put(writer, &value, sizeof value);
}

size_t gguf_put_f32(struct gguf_writer *writer, float value)
{
    return gguf_put(writer, &value, sizeof value);
}

size_t gguf_put_f64(struct gguf_writer *writer, double value)
{
    return gguf_put(writer, &value, sizeof value);
}

size_t gguf_put_str(struct gguf_writer *writer, const char *text)
{
    size_t at = gguf_put_u64(writer, strlen(text));
    gguf_put(writer, text, strlen(text));
    return at;
}

void gguf_put_padding(struct gguf_writer *writer, size_t alignment)
{
    while (writer->len % alignment)
        gguf_put_u8(writer, 0);
}

size_t gguf_put_header(struct gguf_writer *writer, uint32_t version, uint64_t n_tensors,
                       uint64_t n_keys)
{
    size_t at = gguf_put(writer, "GGUF", 4);
    gguf_put_u32(writer, version);
    gguf_put_u64(writer, n_tensors);
    gguf_put_u64(writer, n_keys);
    return at;
}

size_t gguf_put_key(struct gguf_writer *writer, const char *name, uint32_t type)
{
    size_t at = gguf_put_str(writer, name);
    gguf_put_u32(writer, type);
    return at;
}

size_t gguf_put_key_u32(struct gguf_writer *writer, const char *name, uint32_t value)
{
    size_t at = gguf_put_key(writer, name, GGUF_U32);
    gguf_put_u32(writer, value);
    return at;
}

size_t gguf_put_key_f32(struct gguf_writer *writer, const char *name, float value)
{
    size_t at = gguf_put_key(writer, name, GGUF_F32);
    gguf_put_f32(writer, value);
    return at;
}

size_t gguf_put_key_bool(struct gguf_writer *writer, const char *name, uint8_t value)
{
    size_t at = gguf_put_key(writer, name, GGUF_BOOL);
    gguf_put_u8(writer, value);
    return at;
}

size_t gguf_put_key_str(struct gguf_writer *writer, const char *name, const char *value)
{
    size_t at = gguf_put_key(writer, name, GGUF_STR);
    gguf_put_str(writer, value);
    return at;
}

size_t gguf_put_key_array(struct gguf_writer *writer, const char *name, uint32_t type, uint64_t n)
{
    size_t at = gguf_put_key(writer, name, GGUF_ARRAY);
    gguf_put_u32(writer, type);
    gguf_put_u64(writer, n);
    return at;
}

size_t gguf_put_tensor(struct gguf_writer *writer, const char *name, uint32_t n_dims,
                       const uint64_t *shape, uint32_t type, uint64_t offset)
{
    size_t at = gguf_put_str(writer, name);
    gguf_put_u32(writer, n_dims);
    gguf_put(writer, shape, n_dims * sizeof *shape);
    gguf_put_u32(writer, type);
    gguf_put_u64(writer, offset);
    return at;
}

void gguf_set_u32(struct gguf_writer *writer, size_t at, uint32_t value)
{
    assert(at + sizeof value <= writer->len);
    memcpy(writer->bytes + at, &value, sizeof value);
}

void gguf_set_u64(struct gguf_writer *writer, size_t at, uint64_t value)
{
    assert(at + sizeof value <= writer->len);
    memcpy(writer->bytes + at, &value, sizeof value);
}

int gguf_writer_save(const struct gguf_writer *writer, const char *path)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return -errno;
    size_t n = writer->len ? fwrite(writer->bytes, 1, writer->len, file) : 0;
    int rc = n == writer->len ? 0 : -EIO;
    if (fclose(file))
        rc = -EIO;
    return rc;
}
