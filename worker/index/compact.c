/*
 * compact.c: see compact.h. Everything is written under names that end in .new; the output itself
 * gets its name last, when what lies beside it has one.
 */
#include "worker/index/compact.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connectors/npy.h"
#include "worker/index/manifest.h"
#include "worker/index/vectors_internal.h"

enum { PATH_ROOM = 4200 };

struct copy {
    const struct vectors *vectors;
    const char *to;
    FILE *output, *beside; /* rows or records; ids or deletes */
};

static const char *beside_suffix(const struct vectors *vectors)
{
    return vectors->lines ? ".deleted.jsonl" : ".ids.jsonl";
}

static FILE *open_new(const char *to, const char *suffix)
{
    char path[PATH_ROOM];
    if (snprintf(path, sizeof path, "%s%s.new", to, suffix) >= PATH_ROOM) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    return fopen(path, "we");
}

static int close_new(FILE *file)
{
    /* Before the rename: else the name could survive a power cut that its bytes did not. */
    int rc = fflush(file) != 0 || fdatasync(fileno(file)) != 0 ? -errno : 0;
    return fclose(file) != 0 && rc == 0 ? -errno : rc;
}

static int rename_new(const char *to, const char *suffix)
{
    char from[PATH_ROOM], path[PATH_ROOM];
    snprintf(from, sizeof from, "%s%s.new", to, suffix);
    snprintf(path, sizeof path, "%s%s", to, suffix);
    return rename(from, path) == 0 ? 0 : -errno;
}

/* The header is the old one with another number of rows. */
static int copy_npy(struct copy *copy)
{
    const struct vectors *vectors = copy->vectors;
    const char *descr = vectors->kind == KIND_F4   ? "<f4"
                        : vectors->kind == KIND_F2 ? "<f2"
                        : vectors->kind == KIND_I1 ? "|i1"
                                                   : "|u1";
    /* Packed: eight values in each byte of the array. */
    size_t columns = vectors->kind == KIND_BITS ? vectors->dim / 8 : vectors->dim;
    char header[NPY_HEADER];
    npy_header(header, descr, vectors->n - vectors->n_dead, columns);
    fwrite(header, 1, sizeof header, copy->output);
    for (size_t i = 0; i < vectors->n; i++) {
        if (!vectors_is_live(vectors, i))
            continue;
        fwrite(vectors->rows + i * vectors->row_bytes, 1, vectors->row_bytes, copy->output);
        fwrite(vectors->ids[i].ptr, 1, vectors->ids[i].len, copy->beside);
        fputc('\n', copy->beside);
    }
    return ferror(copy->output) || ferror(copy->beside) ? -EIO : 0;
}

/* A record with several texts stays while one of them counts; the others are deleted behind it. */
static int copy_jsonl(struct copy *copy, struct bytes file)
{
    const struct vectors *vectors = copy->vectors;
    size_t written = 0;
    for (size_t i = 0, end; i < vectors->n; i = end) {
        size_t n_live = 0;
        for (end = i; end < vectors->n && vectors->lines[end] == vectors->lines[i]; end++)
            n_live += vectors_is_live(vectors, end);
        if (n_live == 0)
            continue;
        const char *line = file.ptr + vectors->lines[i];
        const char *newline = memchr(line, '\n', file.len - vectors->lines[i]);
        size_t len = newline ? (size_t)(newline - line) : file.len - vectors->lines[i];
        fwrite(line, 1, len, copy->output);
        fputc('\n', copy->output);
        written += len + 1;
        /* The record is copied as it is, so what no longer counts in it is deleted up to here. */
        for (size_t row = i; row < end; row++)
            if (!vectors_is_live(vectors, row)) {
                struct bytes name = vectors_text_id(vectors, row);
                fprintf(copy->beside, "{\"id\":\"%.*s\",\"before\":%zu}\n", (int)name.len, name.ptr,
                        written);
            }
    }
    return ferror(copy->output) || ferror(copy->beside) ? -EIO : 0;
}

static int copy_all(struct copy *copy, const char *from, char *err, size_t err_size)
{
    const char *suffix = beside_suffix(copy->vectors);
    struct bytes file = {NULL, 0};
    int rc = copy->vectors->lines ? vectors_map(&file, from, err, err_size) : 0;
    if (rc != 0)
        return rc;
    copy->output = open_new(copy->to, "");
    copy->beside = copy->output ? open_new(copy->to, suffix) : NULL;
    if (!copy->beside)
        rc = -errno;
    if (rc == 0)
        rc = copy->vectors->lines ? copy_jsonl(copy, file) : copy_npy(copy);
    vectors_unmap(&file);
    int ended[2] = {copy->output ? close_new(copy->output) : 0,
                    copy->beside ? close_new(copy->beside) : 0};
    for (size_t i = 0; i < 2 && rc == 0; i++)
        rc = ended[i];
    if (rc == 0)
        /* First what lies beside it: the output's own name appears last, and then it is
         * complete. */
        rc = rename_new(copy->to, suffix);
    if (rc != 0)
        snprintf(err, err_size, "%s cannot be written: %s", copy->to, strerror(-rc));
    return rc;
}

/* What the vectors were made with; an index of `pull` has none. */
static int copy_manifest(const char *from, const char *to, char *err, size_t err_size)
{
    struct manifest manifest = {.len = 0};
    int rc = manifest_read(&manifest, from, err, err_size);
    if (rc == -ENOENT)
        return err[0] = '\0', 0;
    return rc ? rc : manifest_write(&manifest, to, err, err_size);
}

int compact_copy(const char *from, const char *to, struct compacted *out, char *err,
                 size_t err_size)
{
    struct vectors *vectors = NULL;
    const char *ends[2] = {strrchr(from, '.'), strrchr(to, '.')};
    if (!ends[0] || !ends[1] || strcmp(ends[0], ends[1]) != 0) {
        snprintf(err, err_size, "%s and %s end differently: a copy has the form of its original",
                 from, to);
        return -EINVAL;
    }
    if (access(to, F_OK) == 0) {
        snprintf(err, err_size, "%s exists: name another output, or remove it", to);
        return -EEXIST;
    }
    int rc = vectors_open(&vectors, from, err, err_size);
    struct copy copy = {.vectors = vectors, .to = to};
    if (rc == 0)
        rc = copy_all(&copy, from, err, err_size);
    if (rc == 0)
        rc = copy_manifest(from, to, err, err_size);
    if (rc == 0 && (rc = rename_new(to, "")) != 0)
        snprintf(err, err_size, "%s cannot be written: %s", to, strerror(-rc));
    if (rc == 0)
        *out = (struct compacted){vectors_count_live(vectors),
                                  vectors_count(vectors) - vectors_count_live(vectors)};
    vectors_close(vectors);
    return rc;
}
