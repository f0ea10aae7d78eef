/*
 * gguf_writer.h: any GGUF file, sound or not, byte by byte.
 *
 * Owns:    a growing buffer, and the writers of the format's pieces.
 * Refuses: to check what it is asked to write; tests want the wrong files most of all.
 * Threads: one.
 * Why:     a test that corrupts a field must be able to name the field.
 */
#ifndef GGUF_WRITER_H
#define GGUF_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "inference/gguf.h"

/* Starts as {0}. Running out of memory ends the test program. */
struct gguf_writer {
    uint8_t *bytes;
    size_t len, capacity;
};

void gguf_writer_free(struct gguf_writer *writer);

/* Plain bytes and numbers. Each returns where it was written, to be found again and spoiled. */
size_t gguf_put(struct gguf_writer *writer, const void *bytes, size_t len);
size_t gguf_put_u8(struct gguf_writer *writer, uint8_t value);
size_t gguf_put_u16(struct gguf_writer *writer, uint16_t value);
size_t gguf_put_u32(struct gguf_writer *writer, uint32_t value);
size_t gguf_put_u64(struct gguf_writer *writer, uint64_t value);
size_t gguf_put_f32(struct gguf_writer *writer, float value);
size_t gguf_put_f64(struct gguf_writer *writer, double value);
size_t gguf_put_str(struct gguf_writer *writer, const char *text); /* u64 length, bytes */
/* Zeros up to the next multiple of alignment. */
void gguf_put_padding(struct gguf_writer *writer, size_t alignment);

/* Magic, version, counts. */
size_t gguf_put_header(struct gguf_writer *writer, uint32_t version, uint64_t n_tensors,
                       uint64_t n_keys);
/* A key and the type of its value, which follows by the functions above. */
size_t gguf_put_key(struct gguf_writer *writer, const char *name, uint32_t type);
size_t gguf_put_key_u32(struct gguf_writer *writer, const char *name, uint32_t value);
size_t gguf_put_key_f32(struct gguf_writer *writer, const char *name, float value);
size_t gguf_put_key_bool(struct gguf_writer *writer, const char *name, uint8_t value);
size_t gguf_put_key_str(struct gguf_writer *writer, const char *name, const char *value);
/* A key of type array; n elements follow. */
size_t gguf_put_key_array(struct gguf_writer *writer, const char *name, uint32_t type, uint64_t n);
/* An entry of the tensor directory. shape is [n_dims]. */
size_t gguf_put_tensor(struct gguf_writer *writer, const char *name, uint32_t n_dims,
                       const uint64_t *shape, uint32_t type, uint64_t offset);

/* Overwrite what stands at a place; at must come from the functions above. */
void gguf_set_u32(struct gguf_writer *writer, size_t at, uint32_t value);
void gguf_set_u64(struct gguf_writer *writer, size_t at, uint64_t value);

/* Create or replace a file with the bytes. 0 or negative errno. */
int gguf_writer_save(const struct gguf_writer *writer, const char *path);

#endif
