/*
 * file_bytes.c: see file_bytes.h.
 *
 * Why:     a packed file may hold several members or frames, as `cat a.gz b.gz` makes them and
 *          parallel packers do; an end is only an end behind a whole one.
 */
#include "connectors/file/file_bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#define PACKED  (64 * 1024)
#define WAIT_MS 200

enum packing { UNKNOWN, PLAIN, GZIP, ZSTD };

struct file_bytes {
    int fd;
    bool waits; /* not a file: may have nothing to read for long */
    bool eof;
    bool inside; /* a member or frame that has not ended */
    enum packing packing;
    z_stream gzip;
    ZSTD_DStream *zstd;
    uint64_t consumed;
    const char *path; /* borrowed */
    size_t start, end;
    unsigned char packed[PACKED]; /* read and not yet unpacked are [start, end) */
};

int file_bytes_open(struct file_bytes **out, const char *path, char *err, size_t err_size)
{
    struct stat about;
    bool is_stdin = strcmp(path, "-") == 0;
    struct file_bytes *bytes = calloc(1, sizeof *bytes);
    if (!bytes) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    bytes->path = is_stdin ? "standard input" : path;
    bytes->fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (bytes->fd < 0 || fstat(bytes->fd, &about) != 0) {
        int rc = -errno;
        snprintf(err, err_size, "%s cannot be read: %s", bytes->path, strerror(errno));
        file_bytes_close(bytes);
        return rc;
    }
    bytes->waits = !S_ISREG(about.st_mode);
    *out = bytes;
    return 0;
}

void file_bytes_close(struct file_bytes *bytes)
{
    if (!bytes)
        return;
    if (bytes->fd > STDIN_FILENO)
        close(bytes->fd);
    if (bytes->packing == GZIP)
        inflateEnd(&bytes->gzip);
    ZSTD_freeDStream(bytes->zstd);
    free(bytes);
}

uint64_t file_bytes_consumed(const struct file_bytes *bytes)
{
    return bytes->consumed;
}

/* More packed bytes behind those there. 0, -EAGAIN or negative errno. */
static int fill(struct file_bytes *bytes, char *err, size_t err_size)
{
    struct pollfd wait = {.fd = bytes->fd, .events = POLLIN};
    if (bytes->waits && poll(&wait, 1, WAIT_MS) == 0)
        return -EAGAIN;
    if (bytes->start > 0) {
        memmove(bytes->packed, bytes->packed + bytes->start, bytes->end - bytes->start);
        bytes->end -= bytes->start;
        bytes->start = 0;
    }
    ssize_t n = read(bytes->fd, bytes->packed + bytes->end, PACKED - bytes->end);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    if (n < 0) {
        int rc = -errno;
        snprintf(err, err_size, "reading %s: %s", bytes->path, strerror(errno));
        return rc;
    }
    bytes->eof = n == 0;
    bytes->end += (size_t)n;
    bytes->consumed += (uint64_t)n;
    return 0;
}

static int no_memory(char *err, size_t err_size)
{
    snprintf(err, err_size, "out of memory");
    return -ENOMEM;
}

/* The first four bytes tell. 0, -EAGAIN or negative errno. */
static int detect(struct file_bytes *bytes, char *err, size_t err_size)
{
    while (bytes->end - bytes->start < 4 && !bytes->eof) {
        int rc = fill(bytes, err, err_size);
        if (rc != 0)
            return rc;
    }
    const unsigned char *head = bytes->packed + bytes->start;
    size_t n = bytes->end - bytes->start;
    if (n >= 2 && head[0] == 0x1f && head[1] == 0x8b) { /* RFC 1952 */
        if (inflateInit2(&bytes->gzip, 15 + 16) != Z_OK)
            return no_memory(err, err_size);
        bytes->packing = GZIP;
    } else if (n >= 4 && memcmp(head, "\x28\xb5\x2f\xfd", 4) == 0) { /* RFC 8878 */
        bytes->zstd = ZSTD_createDStream();
        if (!bytes->zstd)
            return no_memory(err, err_size);
        bytes->packing = ZSTD;
    } else {
        bytes->packing = PLAIN;
    }
    return 0;
}

static int refuse(const struct file_bytes *bytes, const char *what, char *err, size_t err_size)
{
    snprintf(err, err_size, "%s %s; fetch or pack it again", bytes->path, what);
    return -EIO;
}

/* Bytes unpacked from what is there; 0: needs more. */
static ssize_t unpack_gzip(struct file_bytes *bytes, char *to, size_t size, char *err,
                           size_t err_size)
{
    z_stream *gzip = &bytes->gzip;
    if (!bytes->inside && inflateReset(gzip) != Z_OK)
        return no_memory(err, err_size);
    bytes->inside = true;
    gzip->next_in = bytes->packed + bytes->start;
    gzip->avail_in = (uInt)(bytes->end - bytes->start);
    gzip->next_out = (unsigned char *)to;
    gzip->avail_out = (uInt)size;
    int rc = inflate(gzip, Z_NO_FLUSH);
    bytes->start = bytes->end - gzip->avail_in;
    if (rc == Z_MEM_ERROR)
        return no_memory(err, err_size);
    if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
        return refuse(bytes, "is damaged: its gzip data do not unpack", err, err_size);
    if (rc == Z_STREAM_END)
        bytes->inside = false;
    return (ssize_t)(size - gzip->avail_out);
}

static ssize_t unpack_zstd(struct file_bytes *bytes, char *to, size_t size, char *err,
                           size_t err_size)
{
    ZSTD_inBuffer in = {bytes->packed + bytes->start, bytes->end - bytes->start, 0};
    ZSTD_outBuffer out = {to, size, 0};
    size_t rc = ZSTD_decompressStream(bytes->zstd, &out, &in);
    bytes->start += in.pos;
    if (ZSTD_isError(rc))
        return refuse(bytes, "is damaged: its Zstandard data do not unpack", err, err_size);
    if (in.pos > 0 || out.pos > 0)
        bytes->inside = rc != 0;
    return (ssize_t)out.pos;
}

static ssize_t unpack(struct file_bytes *bytes, char *to, size_t size, char *err, size_t err_size)
{
    size_t there = bytes->end - bytes->start;
    if (there == 0 && !bytes->inside)
        return 0;
    if (bytes->packing == GZIP)
        return unpack_gzip(bytes, to, size, err, err_size);
    if (bytes->packing == ZSTD)
        return unpack_zstd(bytes, to, size, err, err_size);
    size_t n = there < size ? there : size;
    memcpy(to, bytes->packed + bytes->start, n);
    bytes->start += n;
    return (ssize_t)n;
}

ssize_t file_bytes_read(struct file_bytes *bytes, char *to, size_t size, char *err, size_t err_size)
{
    if (bytes->packing == UNKNOWN) {
        int rc = detect(bytes, err, err_size);
        if (rc != 0)
            return rc;
    }
    for (;;) {
        size_t before = bytes->start;
        ssize_t n = unpack(bytes, to, size, err, err_size);
        if (n != 0)
            return n;
        if (bytes->start > before && bytes->start < bytes->end)
            continue; /* a header, or an empty member */
        if (bytes->eof && bytes->inside)
            return refuse(bytes, "ends too early: it was cut", err, err_size);
        if (bytes->eof)
            return bytes->start == bytes->end
                       ? 0
                       : refuse(bytes, "is damaged at its end", err, err_size);
        int rc = fill(bytes, err, err_size);
        if (rc != 0)
            return rc;
    }
}
