/*
 * file_unpack.c: see file_unpack.h.
 *
 * Why:     a packed file may hold several members or frames, as `cat a.gz b.gz` makes them and
 *          parallel packers do; an end is only an end behind a whole one.
 */
#include "connectors/file/file_unpack.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "connectors/memory.h"

/* Windows of zstd, as powers of two: what every reader must take, and what zstd --long=31 makes. */
enum { WINDOW_ALWAYS = 27, WINDOW_MAX = 31 };

struct file_unpack {
    z_stream gzip;
    ZSTD_DStream *zstd; /* NULL: gzip */
    int window;         /* zstd: the largest that is taken */
    bool inside;        /* a member or frame that has not ended */
    char why[200];
};

/* The largest window that leaves half of the memory to others. */
static int window_of(uint64_t memory)
{
    int window = WINDOW_ALWAYS;
    /* 2 << window is the size of the next larger one. */
    while (window < WINDOW_MAX && sizeof(size_t) > 4 && (UINT64_C(2) << window) <= memory / 2)
        window++;
    return window;
}

int file_unpack_open(struct file_unpack **out, enum magic_kind kind)
{
    assert(kind == MAGIC_GZIP || kind == MAGIC_ZSTD);
    struct file_unpack *unpack = calloc(1, sizeof *unpack);
    if (!unpack)
        return -ENOMEM;
    if (kind == MAGIC_ZSTD) {
        uint64_t limit = memory_limit(""), available = memory_available("");
        unpack->zstd = ZSTD_createDStream();
        unpack->window = window_of(available > 0 && available < limit ? available : limit);
        if (unpack->zstd)
            /* By itself the library stops at 2^27 and refuses what zstd --long=28 and more make. */
            ZSTD_DCtx_setParameter(unpack->zstd, ZSTD_d_windowLogMax, unpack->window);
    }
    /* 15: the largest window; 16 more: gzip's header, not zlib's (zlib.h). */
    if (kind == MAGIC_ZSTD ? !unpack->zstd : inflateInit2(&unpack->gzip, 15 + 16) != Z_OK) {
        free(unpack);
        return -ENOMEM;
    }
    *out = unpack;
    return 0;
}

void file_unpack_close(struct file_unpack *unpack)
{
    if (!unpack)
        return;
    if (unpack->zstd)
        ZSTD_freeDStream(unpack->zstd);
    else
        inflateEnd(&unpack->gzip);
    free(unpack);
}

bool file_unpack_is_whole(const struct file_unpack *unpack)
{
    return !unpack->inside;
}

static ssize_t read_gzip(struct file_unpack *unpack, const unsigned char **at,
                         const unsigned char *end, char *to, size_t size, const char **why)
{
    z_stream *gzip = &unpack->gzip;
    bool begins = !unpack->inside;
    /* The next member of a file like `cat a.gz b.gz`; state and window begin anew. */
    if (begins && inflateReset(gzip) != Z_OK) {
        *why = "cannot be unpacked: out of memory";
        return -ENOMEM;
    }
    unpack->inside = true;
    gzip->next_in = (unsigned char *)(uintptr_t)*at;
    gzip->avail_in = (uInt)(end - *at);
    gzip->next_out = (unsigned char *)to;
    gzip->avail_out = (uInt)size;
    int rc = inflate(gzip, Z_NO_FLUSH);
    *at = end - gzip->avail_in;
    if (rc == Z_MEM_ERROR) {
        *why = "cannot be unpacked: out of memory";
        return -ENOMEM;
    }
    /* Z_BUF_ERROR is no fault: there was nothing to take, or no room. */
    if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR) {
        *why = "is damaged: its gzip data do not unpack; fetch or pack it again";
        return -EBADMSG;
    }
    if (rc == Z_STREAM_END)
        unpack->inside = false;
    return (ssize_t)(size - gzip->avail_out);
}

static ssize_t refuse_zstd(struct file_unpack *unpack, ZSTD_ErrorCode code, const char **why)
{
    switch (code) {
    case ZSTD_error_memory_allocation:
        *why = "cannot be unpacked: out of memory";
        return -ENOMEM;
    case ZSTD_error_dictionary_wrong:
        *why = "was packed with a dictionary; unpack it with that first: zstd -dc -D DICTIONARY";
        break;
    case ZSTD_error_frameParameter_windowTooLarge:
        snprintf(unpack->why, sizeof unpack->why,
                 "was packed with a longer window than the %llu MiB there is memory for; pack it "
                 "again without --long or --ultra, or unpack it where there is more memory",
                 (1ull << unpack->window) >> 20);
        *why = unpack->why;
        break;
    case ZSTD_error_version_unsupported:
        *why = "was packed by a zstd before 0.8; unpack it with zstd -dc of those days first";
        break;
    case ZSTD_error_prefix_unknown:
        *why = "holds other bytes than Zstandard data, or those of a zstd before 0.8; unpack it "
               "first";
        break;
    default:
        *why = "is damaged: its Zstandard data do not unpack (or not without the dictionary that "
               "they were packed with); fetch or pack it again";
        break;
    }
    return -EBADMSG;
}

static ssize_t read_zstd(struct file_unpack *unpack, const unsigned char **at,
                         const unsigned char *end, char *to, size_t size, const char **why)
{
    ZSTD_inBuffer in = {*at, (size_t)(end - *at), 0};
    ZSTD_outBuffer out = {to, size, 0};
    size_t rc = ZSTD_decompressStream(unpack->zstd, &out, &in);
    *at += in.pos;
    if (ZSTD_isError(rc))
        return refuse_zstd(unpack, ZSTD_getErrorCode(rc), why);
    /* A call that did nothing returns a hint as well, which is not of a frame begun. */
    if (in.pos > 0 || out.pos > 0)
        unpack->inside = rc != 0;
    return (ssize_t)out.pos;
}

ssize_t file_unpack_read(struct file_unpack *unpack, const unsigned char **at,
                         const unsigned char *end, char *to, size_t size, const char **why)
{
    /* Tapes and disks pad with zeros; no member or frame begins with one. */
    while (!unpack->inside && *at < end && **at == 0)
        ++*at;
    if (*at == end && !unpack->inside)
        return 0;
    return unpack->zstd ? read_zstd(unpack, at, end, to, size, why)
                        : read_gzip(unpack, at, end, to, size, why);
}
