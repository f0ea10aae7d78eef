/*
 * vectors.c: see vectors.h.
 */
#include "worker/index/vectors_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "inference/embed.h"

static int refuse(const char *path, const char *what, char *err, size_t err_size)
{
    snprintf(err, err_size, "%s %s", path, what);
    return -EBADMSG;
}

/* The number behind a word in the header, and where it ends. */
static const char *number_behind(const char *header, const char *word, size_t *out)
{
    const char *at = strstr(header, word);
    char *end;
    if (!at)
        return NULL;
    at += strlen(word);
    *out = strtoull(at, &end, 10);
    return end == at ? NULL : end;
}

/* NEP 1: magic, version, length of the header, a Python dictionary. */
static int read_npy_header(struct vectors *vectors, const char *path, char *err, size_t err_size)
{
    const unsigned char *map = (const unsigned char *)vectors->map.ptr;
    char header[1024];
    size_t len = vectors->map.len, columns = 0, start, size;
    if (len < 12 || memcmp(map, "\x93NUMPY", 6) != 0)
        return refuse(path, "is not an .npy, or holds no vectors yet", err, err_size);
    bool is_first = map[6] == 1;
    size_t n = map[8] | (size_t)map[9] << 8;
    n |= is_first ? 0 : (size_t)map[10] << 16 | (size_t)map[11] << 24;
    start = is_first ? 10 : 12;
    /* That of a plain array takes some 120 bytes; a long one describes fields. */
    if (n >= sizeof header || start + n > len)
        return refuse(path, "has a header that is cut", err, err_size);
    memcpy(header, map + start, n);
    header[n] = '\0';
    start += n;
    /* As this program writes them. Other bytes would be read as numbers, and be nonsense. */
    if (strstr(header, "'<f4'"))
        vectors->kind = KIND_F4, size = 4;
    else if (strstr(header, "'<f2'"))
        vectors->kind = KIND_F2, size = 2;
    else if (strstr(header, "'|i1'"))
        vectors->kind = KIND_I1, size = 1;
    else if (strstr(header, "'|u1'"))
        vectors->kind = KIND_BITS, size = 1;
    else
        return refuse(path, "holds numbers other than <f4, <f2, |i1 or |u1 (bits)", err, err_size);
    /* The bound on columns keeps every sum below in range: see from_i1(). */
    const char *behind = number_behind(header, "'shape': (", &vectors->n);
    if (!behind || !number_behind(behind, ",", &columns) || columns == 0 || columns > 65536 ||
        strstr(header, "'fortran_order': True"))
        return refuse(path, "is not an array of rows", err, err_size);
    vectors->dim = vectors->kind == KIND_BITS ? columns * 8 : columns;
    vectors->row_bytes = columns * size;
    vectors->rows = vectors->map.ptr + start;
    /* Aligned, because rows of f4 are read where they lie in the map. Divided, not multiplied: the
     * number of rows is the file's word and their product may overflow. Rows behind it are no
     * error: they were written and not yet confirmed when the writer died. */
    if (start % 4 != 0 || (len - start) / vectors->row_bytes < vectors->n)
        return refuse(path, "is shorter than its header says", err, err_size);
    return 0;
}

static int read_ids(struct vectors *vectors, const char *path, char *err, size_t err_size)
{
    char name[4200];
    snprintf(name, sizeof name, "%s.ids.jsonl", path);
    int rc = vectors_map(&vectors->id_map, name, err, err_size);
    if (rc != 0)
        return rc;
    /* n counts what has been read, so that a failure half way leaves a count that is true. Ids
     * behind the last row are passed over: see read_npy_header(). */
    size_t wanted = vectors->n;
    const char *at = vectors->id_map.ptr, *end = at + vectors->id_map.len;
    for (vectors->n = 0; vectors->n < wanted; vectors->n++) {
        const char *newline = at && at < end ? memchr(at, '\n', (size_t)(end - at)) : NULL;
        if (!newline)
            return refuse(name, "has fewer ids than there are vectors", err, err_size);
        if (vectors_grow_ids(vectors) != 0)
            return snprintf(err, err_size, "out of memory for ids"), -ENOMEM;
        vectors->ids[vectors->n] = (struct bytes){at, (size_t)(newline - at)};
        at = newline + 1;
    }
    return 0;
}

int vectors_open(struct vectors **out, const char *path, char *err, size_t err_size)
{
    struct vectors *vectors = calloc(1, sizeof *vectors);
    size_t len = strlen(path);
    int rc;
    if (!vectors) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    if (len >= 4 && strcmp(path + len - 4, ".npy") == 0) {
        rc = vectors_map(&vectors->map, path, err, err_size);
        if (rc == 0)
            rc = read_npy_header(vectors, path, err, err_size);
        if (rc == 0)
            rc = read_ids(vectors, path, err, err_size);
    } else {
        rc = vectors_read_jsonl(vectors, path, err, err_size);
    }
    if (rc == 0)
        rc = vectors_find_dead(vectors, path, err, err_size);
    if (rc != 0) {
        vectors_close(vectors);
        return rc;
    }
    *out = vectors;
    return 0;
}

void vectors_close(struct vectors *vectors)
{
    if (!vectors)
        return;
    vectors_unmap(&vectors->map);
    vectors_unmap(&vectors->id_map);
    free(vectors->memory);
    free(vectors->ids);
    free(vectors->id_memory);
    free(vectors->dead);
    free(vectors->lines);
    free(vectors->pieces);
    free(vectors);
}

size_t vectors_count(const struct vectors *vectors)
{
    return vectors->n;
}

const char *vectors_model(const struct vectors *vectors)
{
    return vectors->model;
}

size_t vectors_dim(const struct vectors *vectors)
{
    return vectors->dim;
}

bool vectors_is_live(const struct vectors *vectors, size_t i)
{
    return !vectors->dead || !vectors->dead[i];
}

size_t vectors_count_live(const struct vectors *vectors)
{
    return vectors->n - vectors->n_dead;
}

struct bytes vectors_id(const struct vectors *vectors, size_t i)
{
    return vectors->ids[i];
}

/* Halves of unit vectors are finite: scaling by 2^112 moves the exponent, subnormals included. */
static void from_f2(const char *row, size_t dim, float *out)
{
    for (size_t i = 0; i < dim; i++) {
        uint16_t half;
        memcpy(&half, row + 2 * i, sizeof half);
        uint32_t bits = (uint32_t)(half & 0x7fff) << 13;
        float value;
        memcpy(&value, &bits, sizeof value);
        value *= 0x1p112f;
        out[i] = half & 0x8000 ? -value : value;
    }
}

static void from_i1(const char *row, size_t dim, float *out)
{
    int32_t sum = 0; /* 65536 columns of 127^2 fit */
    for (size_t i = 0; i < dim; i++)
        sum += (int8_t)row[i] * (int8_t)row[i];
    float scale = sum > 0 ? 1.0f / sqrtf((float)sum) : 0;
    for (size_t i = 0; i < dim; i++)
        out[i] = (float)(int8_t)row[i] * scale;
}

static void from_bits(const char *row, size_t dim, float *out)
{
    float value = 1.0f / sqrtf((float)dim);
    for (size_t i = 0; i < dim; i++)
        out[i] = row[i / 8] >> (7 - i % 8) & 1 ? value : -value;
}

const float *vectors_rows(const struct vectors *vectors, size_t first, size_t n, float *scratch)
{
    static void (*const readers[])(const char *row, size_t dim, float *out) = {
        [KIND_F2] = from_f2, [KIND_I1] = from_i1, [KIND_BITS] = from_bits};
    const char *rows = vectors->rows + first * vectors->row_bytes;
    if (vectors->kind == KIND_F4)
        return (const float *)rows;
    for (size_t i = 0; i < n; i++)
        readers[vectors->kind](rows + i * vectors->row_bytes, vectors->dim,
                               scratch + i * vectors->dim);
    return scratch;
}
