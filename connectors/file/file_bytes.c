/*
 * file_bytes.c: see file_bytes.h.
 *
 * Why:     bytes pass through two buffers, as they are in the file and unpacked; what the second
 *          begins with is looked at before any of it is given, for a tokenizer takes anything.
 */
#include "connectors/file/file_bytes.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "connectors/file/file_unpack.h"
#include "connectors/file/file_utf16.h"
#include "connectors/magic.h"

#define ROOM    (64 * 1024)
#define WAIT_MS 200

enum encoding { UTF_8, UTF_16LE, UTF_16BE };

struct file_bytes {
    int fd;
    const char *path; /* borrowed; NULL: standard input */
    bool waits;       /* not a file: may have nothing to read for long */
    uint64_t consumed;
    bool eof; /* of the file */

    struct file_unpack *unpack;  /* NULL: it is not packed */
    const struct magic *packing; /* what that is */
    bool is_opened, is_checked;  /* how it is packed is known; what is in it is known */
    enum encoding encoding;
    bool ended;    /* nothing comes behind plain ... */
    int rc;        /* ... because of this; 0: it is the end */
    char why[800]; /* the sentence for rc */

    size_t start, end;
    unsigned char packed[ROOM]; /* read and not yet unpacked are [start, end) */
    size_t plain_start, plain_end;
    char plain[ROOM];
};

static const char *name_of(const struct file_bytes *bytes)
{
    return bytes->path ? bytes->path : "standard input";
}

int file_bytes_open(struct file_bytes **out, const char *path, char *err, size_t err_size)
{
    struct stat about;
    bool is_stdin = strcmp(path, "-") == 0;
    struct file_bytes *bytes = calloc(1, sizeof *bytes);
    if (!bytes) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    bytes->path = is_stdin ? NULL : path;
    /* A pipe of the file system that nobody writes to yet is waited for below, not in here. */
    bytes->fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (bytes->fd < 0 || fstat(bytes->fd, &about) != 0) {
        int rc = -errno;
        snprintf(err, err_size, "%s cannot be read: %s", name_of(bytes), strerror(errno));
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
    /* Standard input is not ours to close: whoever opens 0 next would be read as it. */
    if (bytes->fd > STDIN_FILENO)
        close(bytes->fd);
    file_unpack_close(bytes->unpack);
    free(bytes);
}

uint64_t file_bytes_consumed(const struct file_bytes *bytes)
{
    return bytes->consumed;
}

/* More bytes of the file behind those there. 0, -EAGAIN, or negative errno and why. */
static int fill(struct file_bytes *bytes)
{
    struct pollfd wait = {.fd = bytes->fd, .events = POLLIN};
    /* A read of a pipe on libuv's thread cannot be taken back, so it is begun only when it will not
     * wait. */
    if (bytes->waits && poll(&wait, 1, WAIT_MS) == 0)
        return -EAGAIN;
    if (bytes->start > 0) {
        memmove(bytes->packed, bytes->packed + bytes->start, bytes->end - bytes->start);
        bytes->end -= bytes->start;
        bytes->start = 0;
    }
    /* Without room read would return 0, which means the end. */
    assert(bytes->end < ROOM);
    ssize_t n = read(bytes->fd, bytes->packed + bytes->end, ROOM - bytes->end);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return -EAGAIN;
    if (n < 0) {
        int rc = -errno;
        snprintf(bytes->why, sizeof bytes->why, "reading %s: %s", name_of(bytes), strerror(errno));
        return rc;
    }
    bytes->eof = n == 0;
    bytes->end += (size_t)n;
    bytes->consumed += (uint64_t)n;
    return 0;
}

/* Is it packed? The first four bytes tell. 0, -EAGAIN, or negative errno and why. */
static int open_packing(struct file_bytes *bytes)
{
    while (bytes->end - bytes->start < 4 && !bytes->eof) {
        int rc = fill(bytes);
        if (rc != 0)
            return rc;
    }
    const struct magic *magic =
        magic_find((const char *)bytes->packed + bytes->start, bytes->end - bytes->start);
    bytes->is_opened = true;
    if (!magic || (magic->kind != MAGIC_GZIP && magic->kind != MAGIC_ZSTD))
        return 0;
    bytes->packing = magic;
    int rc = file_unpack_open(&bytes->unpack, magic->kind);
    if (rc != 0)
        snprintf(bytes->why, sizeof bytes->why, "out of memory");
    return rc;
}

static int refuse(struct file_bytes *bytes, int rc, const char *why)
{
    snprintf(bytes->why, sizeof bytes->why, "%s %s", name_of(bytes), why);
    return rc;
}

/* What there is unpacked, without reading; 0: needs more. */
static ssize_t unpack_some(struct file_bytes *bytes, char *to, size_t size)
{
    if (!bytes->unpack) {
        size_t there = bytes->end - bytes->start, n = there < size ? there : size;
        memcpy(to, bytes->packed + bytes->start, n);
        bytes->start += n;
        return (ssize_t)n;
    }
    const unsigned char *at = bytes->packed + bytes->start;
    const char *why = "";
    ssize_t n = file_unpack_read(bytes->unpack, &at, bytes->packed + bytes->end, to, size, &why);
    bytes->start = (size_t)(at - bytes->packed);
    return n < 0 ? refuse(bytes, (int)n, why) : n;
}

/* Unpacked bytes; 0 at the end; -EAGAIN; else negative errno and why. */
static ssize_t unpack(struct file_bytes *bytes, char *to, size_t size)
{
    for (;;) {
        size_t before = bytes->start;
        ssize_t n = unpack_some(bytes, to, size);
        if (n != 0)
            return n;
        if (bytes->start > before && bytes->start < bytes->end)
            continue; /* a header, or an empty member */
        /* The library has taken all that there is and is inside a member: a download that broke
         * off. */
        if (bytes->eof && bytes->unpack && !file_unpack_is_whole(bytes->unpack))
            return refuse(bytes, -EBADMSG, "ends too early: it was cut; fetch or pack it again");
        if (bytes->eof)
            return bytes->start == bytes->end ? 0
                                              : refuse(bytes, -EBADMSG, "is damaged at its end");
        int rc = fill(bytes);
        if (rc != 0)
            return rc;
    }
}

/* More unpacked bytes behind those there, or the end of them. 0 or -EAGAIN. */
static int fill_plain(struct file_bytes *bytes)
{
    int rc = bytes->is_opened ? 0 : open_packing(bytes);
    size_t left = bytes->plain_end - bytes->plain_start;
    memmove(bytes->plain, bytes->plain + bytes->plain_start, left);
    bytes->plain_start = 0;
    bytes->plain_end = left;
    assert(left < ROOM);
    ssize_t n = rc ? rc : unpack(bytes, bytes->plain + left, ROOM - left);
    if (n == -EAGAIN)
        return -EAGAIN;
    /* What is there is given before the fault is: `ended` and rc wait behind it. */
    bytes->plain_end += n > 0 ? (size_t)n : 0;
    bytes->ended = n <= 0;
    bytes->rc = n < 0 ? (int)n : 0;
    return 0;
}

/* How to make text of it, for a sentence. */
static void advise(const struct file_bytes *bytes, const struct magic *magic, char *to, size_t size)
{
    const char *path = bytes->path ? bytes->path : "", *space = bytes->path ? " " : "";
    const struct magic *outer = bytes->packing;
    if (outer && magic->kind <= MAGIC_ZSTD)
        snprintf(to, size, "unpack it once first: %s%s%s", outer->tool, space, path);
    else if (outer && magic->tool)
        snprintf(to, size, "make text of it first: %s%s%s, then %s", outer->tool, space, path,
                 magic->tool);
    else if (magic->tool)
        snprintf(to, size, "make text of it first: %s%s%s", magic->tool, space, path);
    else if (magic->kind == MAGIC_NUL)
        snprintf(to, size, "leave it out, or if it is text, take them out first: tr -d '\\000'");
    else
        snprintf(to, size, "leave it out");
}

/* Nothing of this file is given. */
static void refuse_magic(struct file_bytes *bytes, const struct magic *magic)
{
    char what[200], advice[sizeof bytes->why];
    if (magic->kind <= MAGIC_PACKED && bytes->packing)
        snprintf(what, sizeof what, "is packed twice: its %s unpack to %s", bytes->packing->name,
                 magic->name);
    else
        snprintf(what, sizeof what, "%s %s, not text in UTF-8", bytes->packing ? "holds" : "is",
                 magic->name);
    advise(bytes, magic, advice, sizeof advice);
    snprintf(bytes->why, sizeof bytes->why, "%.200s %s; %.*s", name_of(bytes), what,
             (int)sizeof bytes->why - 410, advice);
    /* No byte of it may get out, also not those already in the buffer. */
    bytes->plain_start = bytes->plain_end;
    bytes->ended = true;
    bytes->rc = -EINVAL;
}

/* Look at how the text begins. 0, or -EAGAIN: not enough of it is there yet. */
static int check(struct file_bytes *bytes)
{
    while (bytes->plain_end - bytes->plain_start < MAGIC_BYTES && !bytes->ended) {
        int rc = fill_plain(bytes);
        /* Who writes a line and waits is not kept waiting for more of them. */
        if (rc != 0 && memchr(bytes->plain, '\n', bytes->plain_end))
            break;
        if (rc != 0)
            return rc;
    }
    bytes->is_checked = true;
    const char *head = bytes->plain + bytes->plain_start;
    const struct magic *magic = magic_find(head, bytes->plain_end - bytes->plain_start);
    if (!magic)
        return 0;
    if (magic->kind == MAGIC_UTF16LE || magic->kind == MAGIC_UTF16BE) {
        bytes->encoding = magic->kind == MAGIC_UTF16LE ? UTF_16LE : UTF_16BE;
        /* The byte order mark has done its work. */
        bytes->plain_start += 2;
    } else {
        refuse_magic(bytes, magic);
    }
    return 0;
}

/* From the buffer; 0: there is not enough in it. */
static size_t take(struct file_bytes *bytes, char *to, size_t size)
{
    const char *at = bytes->plain + bytes->plain_start, *end = bytes->plain + bytes->plain_end;
    /* An odd byte or a high surrogate stays in the buffer for its other half. */
    if (bytes->encoding != UTF_8) {
        size_t n = file_utf16_read(bytes->encoding == UTF_16BE, &at, end, bytes->ended, to, size);
        bytes->plain_start = (size_t)(at - bytes->plain);
        return n;
    }
    size_t there = (size_t)(end - at), n = there < size ? there : size;
    memcpy(to, at, n);
    bytes->plain_start += n;
    return n;
}

ssize_t file_bytes_read(struct file_bytes *bytes, char *to, size_t size, char *err, size_t err_size)
{
    assert(size >= 4);
    for (;;) {
        int rc = bytes->is_checked ? 0 : check(bytes);
        if (rc != 0)
            return rc;
        size_t n = take(bytes, to, size);
        if (n > 0)
            return (ssize_t)n;
        /* No more comes, and take left something: half a character. */
        if (bytes->ended && bytes->rc == 0 && bytes->plain_start < bytes->plain_end) {
            bytes->plain_start = bytes->plain_end;
            bytes->rc = refuse(bytes, -EBADMSG, "ends inside a character of UTF-16: it was cut");
        }
        if (bytes->ended && bytes->rc != 0)
            snprintf(err, err_size, "%s", bytes->why);
        if (bytes->ended)
            return bytes->rc;
        if (fill_plain(bytes) != 0)
            return -EAGAIN;
    }
}
