/*
 * collect.c: see collect.h. The header of an .npy is written last, when the number of rows is
 * known.
 */
#include "worker/index/collect.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connectors/npy.h"
#include "connectors/json.h"
#include "worker/index/vectors.h"

struct collect {
    char path[4300], ids_path[4320];
    FILE *rows, *ids; /* ids NULL: a .jsonl */
    enum output_dtype dtype;
    size_t n, row_bytes;
    struct buffer line;
};

static int fail(const char *what, const char *path, char *err, size_t err_size)
{
    int rc = errno ? -errno : -EIO;
    snprintf(err, err_size, "%s cannot be %s: %s", path, what, strerror(-rc));
    return rc;
}

int collect_open(struct collect **out, const char *name, enum output_dtype dtype, char *err,
                 size_t err_size)
{
    struct collect *collect = calloc(1, sizeof *collect);
    if (!collect) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    collect->dtype = dtype;
    snprintf(collect->path, sizeof collect->path, "%s", name);
    *out = collect;
    return 0;
}

void collect_close(struct collect *collect)
{
    if (!collect)
        return;
    if (collect->rows)
        fclose(collect->rows);
    if (collect->ids)
        fclose(collect->ids);
    buffer_close(&collect->line);
    free(collect);
}

/* The first vector says what it is. */
static int begin(struct collect *collect, bool is_json, size_t row_bytes, char *err,
                 size_t err_size)
{
    char zeros[NPY_HEADER] = {0};
    size_t len = strlen(collect->path);
    snprintf(collect->path + len, sizeof collect->path - len, "%s", is_json ? ".jsonl" : ".npy");
    snprintf(collect->ids_path, sizeof collect->ids_path, "%s.ids.jsonl", collect->path);
    collect->row_bytes = row_bytes;
    collect->rows = fopen(collect->path, "we");
    if (collect->rows && !is_json)
        collect->ids = fopen(collect->ids_path, "we");
    if (!collect->rows || (!is_json && !collect->ids))
        return fail("written", collect->path, err, err_size);
    if (!is_json)
        /* Room for the header, of which the number of rows is still missing. */
        fwrite(zeros, 1, sizeof zeros, collect->rows);
    return 0;
}

static int put_row(struct collect *collect, const struct migration_vector *vector, struct bytes row,
                   char *err, size_t err_size)
{
    struct buffer *line = &collect->line;
    char number[60];
    if (!collect->rows && begin(collect, false, row.len, err, err_size) != 0)
        return -EIO;
    if (!collect->ids || row.len != collect->row_bytes || row.len == 0) {
        snprintf(err, err_size, "the vector of %.*s has another length or form than others",
                 (int)(vector->text.len < 100 ? vector->text.len : 100), vector->text.ptr);
        return -EBADMSG;
    }
    fwrite(row.ptr, 1, row.len, collect->rows);
    line->len = 0;
    if (vector->chunk < 0) {
        json_put_string(line, vector->text);
    } else {
        /* json_put_string() closes the string, and the number of the chunk belongs inside it. */
        size_t start;
        buffer_put_text(line, "{\"id\":");
        start = line->len;
        json_put_string(line, vector->text);
        snprintf(number, sizeof number, "#%" PRId64 "\",\"parent\":", vector->chunk);
        if (line->len > start)
            line->len--; /* the quote */
        buffer_put_text(line, number);
        json_put_string(line, vector->text);
        snprintf(number, sizeof number, ",\"chunk\":%" PRId64 "}", vector->chunk);
        buffer_put_text(line, number);
    }
    buffer_put_text(line, "\n");
    if (line->status) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    fwrite(line->ptr, 1, line->len, collect->ids);
    collect->n++;
    return 0;
}

int collect_add(void *ctx, const struct migration_vector *vector, char *err, size_t err_size)
{
    struct collect *collect = ctx;
    struct codec_output output;
    struct refusal why;
    if (!vector->payload.ptr)
        return put_row(collect, vector, vector->raw, err, err_size);
    /* A record of JSON is a line of a .jsonl as it stands; msgpack is unpacked into rows. */
    if (vector->payload.len && vector->payload.ptr[0] == '{') {
        if (!collect->rows && begin(collect, true, 0, err, err_size) != 0)
            return -EIO;
        if (collect->ids) {
            snprintf(err, err_size, "some outputs are JSON and some are not");
            return -EBADMSG;
        }
        fwrite(vector->payload.ptr, 1, vector->payload.len, collect->rows);
        fputc('\n', collect->rows);
        collect->n++;
        return 0;
    }
    if (codec_output_read(vector->payload, &output, &why) != 0 || output.n != 1) {
        snprintf(err, err_size,
                 "what is kept of %.*s is not an output of embedmill: delete it, or move it from "
                 "there",
                 (int)(vector->text.len < 100 ? vector->text.len : 100), vector->text.ptr);
        return -EBADMSG;
    }
    /* The header, written last, goes by what the outputs say and not by the options. */
    collect->dtype = output.dtype;
    struct bytes row = {output.vectors, codec_dtype_bytes(output.dtype, output.dim)};
    return put_row(collect, vector, row, err, err_size);
}

static int write_header(struct collect *collect)
{
    static const char *const descr[] = {"<f4", "<f2", "|i1", "|u1"};
    static const size_t bytes[] = {4, 2, 1, 1};
    char header[NPY_HEADER];
    npy_header(header, descr[collect->dtype], collect->n,
               collect->row_bytes / bytes[collect->dtype]);
    rewind(collect->rows);
    return fwrite(header, 1, sizeof header, collect->rows) == sizeof header ? 0 : -EIO;
}

int collect_end(struct collect *collect, char *path, size_t size, char *err, size_t err_size)
{
    int rc = 0;
    /* ferror() sets none: what fail() reports must not be left over from elsewhere. */
    errno = 0;
    if (!collect->rows) {
        collect_close(collect);
        return -ENOENT;
    }
    bool is_lost = (collect->ids && write_header(collect) != 0) || ferror(collect->rows);
    /* Closed whatever was lost: nothing else has the descriptor. */
    if (fclose(collect->rows) != 0 || is_lost)
        rc = fail("written", collect->path, err, err_size);
    collect->rows = NULL;
    is_lost = collect->ids && ferror(collect->ids);
    if (((collect->ids && fclose(collect->ids) != 0) || is_lost) && rc == 0)
        rc = fail("written", collect->ids_path, err, err_size);
    collect->ids = NULL;
    snprintf(path, size, "%s", collect->path);
    collect_close(collect);
    return rc;
}
