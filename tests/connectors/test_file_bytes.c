/*
 * test_file_bytes.c: plain and packed files, whole, joined, cut at every byte and damaged.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "connectors/file/file_bytes.h"

enum { TEXT = 300000, SMALL = 200, ROOM = 2 * TEXT };

static char folder[] = "/tmp/embedmill-test-XXXXXX";
static char path[64];
static char text[TEXT];

static int open_folder(void **state)
{
    (void)state;
    srand(7);
    for (size_t i = 0; i < TEXT; i++)
        text[i] = (char)("etaoin shrdlu\n"[rand() % 14]);
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/file", folder);
    return 0;
}

static int close_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static size_t pack_gzip(const char *bytes, size_t n, char *out)
{
    z_stream gzip = {0};
    assert_int_equal(deflateInit2(&gzip, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    gzip.next_in = (unsigned char *)bytes;
    gzip.avail_in = (uInt)n;
    gzip.next_out = (unsigned char *)out;
    gzip.avail_out = ROOM;
    assert_int_equal(deflate(&gzip, Z_FINISH), Z_STREAM_END);
    deflateEnd(&gzip);
    return gzip.total_out;
}

static size_t pack_zstd(const char *bytes, size_t n, char *out)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    size_t len = ZSTD_compress2(context, out, ROOM, bytes, n);
    ZSTD_freeCCtx(context);
    assert_false(ZSTD_isError(len));
    return len;
}

/* Bytes read, or negative errno. */
static ssize_t read_file(const char *bytes, size_t n, char *out, size_t at_once)
{
    struct file_bytes *file;
    char err[300] = "";
    ssize_t len = 0, got;
    FILE *to = fopen(path, "w");
    assert_non_null(to);
    assert_int_equal(fwrite(bytes, 1, n, to), n);
    fclose(to);
    assert_int_equal(file_bytes_open(&file, path, err, sizeof err), 0);
    do {
        assert_true((size_t)len + at_once <= ROOM);
        got = file_bytes_read(file, out + len, at_once, err, sizeof err);
        len += got > 0 ? got : 0;
    } while (got > 0);
    assert_true(got == 0 || err[0]);
    if (got == 0)
        assert_int_equal(file_bytes_consumed(file), n);
    file_bytes_close(file);
    return got < 0 ? got : len;
}

typedef size_t packer(const char *bytes, size_t n, char *out);
static packer *const packers[] = {pack_gzip, pack_zstd};

static void whole(void **state)
{
    (void)state;
    static char packed[ROOM], out[ROOM];
    assert_int_equal(read_file(text, TEXT, out, 4096), TEXT);
    assert_memory_equal(out, text, TEXT);
    assert_int_equal(read_file("", 0, out, 4096), 0);
    assert_int_equal(read_file("\x1f", 1, out, 4096), 1);
    for (size_t p = 0; p < 2; p++) {
        size_t n = packers[p](text, TEXT, packed);
        for (size_t at_once = 1000; at_once <= 100000; at_once *= 10) {
            memset(out, 0, sizeof out);
            assert_int_equal(read_file(packed, n, out, at_once), TEXT);
            assert_memory_equal(out, text, TEXT);
        }
    }
}

/* As `cat a.gz b.gz` makes it, one of them empty. */
static void joined(void **state)
{
    (void)state;
    static char packed[ROOM], out[ROOM];
    for (size_t p = 0; p < 2; p++) {
        size_t n = packers[p](text, 1000, packed);
        n += packers[p]("", 0, packed + n);
        n += packers[p](text + 1000, TEXT - 1000, packed + n);
        n += packers[p]("", 0, packed + n);
        assert_int_equal(read_file(packed, n, out, 5000), TEXT);
        assert_memory_equal(out, text, TEXT);
    }
}

static void cut(void **state)
{
    (void)state;
    static char packed[ROOM], out[ROOM];
    for (size_t p = 0; p < 2; p++) {
        size_t n = packers[p](text, SMALL, packed);
        for (size_t at = 4; at < n; at++)
            assert_int_equal(read_file(packed, at, out, 1000), -EIO);
        size_t both = n + packers[p](text, SMALL, packed + n);
        for (size_t at = n + 1; at < both; at++)
            assert_int_equal(read_file(packed, at, out, 1000), -EIO);
        memcpy(packed + n, "junk", 4);
        assert_int_equal(read_file(packed, n + 4, out, 1000), -EIO);
    }
}

/* Both have checksums: what is not refused is what was packed. */
static void damaged(void **state)
{
    (void)state;
    static char packed[ROOM], out[ROOM];
    for (size_t p = 0; p < 2; p++) {
        size_t n = packers[p](text, SMALL, packed);
        for (size_t bit = 32; bit < 8 * n; bit++) {
            packed[bit / 8] ^= (char)(1 << bit % 8);
            ssize_t len = read_file(packed, n, out, 1000);
            if (len < 0)
                assert_int_equal(len, -EIO);
            else if (len > 0)
                assert_memory_equal(out, text, (size_t)len);
            packed[bit / 8] ^= (char)(1 << bit % 8);
        }
    }
}

static void absent(void **state)
{
    (void)state;
    struct file_bytes *file;
    char err[300] = "";
    assert_int_equal(file_bytes_open(&file, "/nowhere/at/all", err, sizeof err), -ENOENT);
    assert_non_null(strstr(err, "/nowhere/at/all"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole),   cmocka_unit_test(joined), cmocka_unit_test(cut),
        cmocka_unit_test(damaged), cmocka_unit_test(absent),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
