/*
 * test_file_bytes.c: plain and packed files, whole, joined, cut at every byte and damaged; UTF-16;
 * what is no text.
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
#include <fcntl.h>
#include <sys/stat.h>
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

static char err[600]; /* of the last read_file */

/* Bytes read, or negative errno. */
static ssize_t read_file(const char *bytes, size_t n, char *out, size_t at_once)
{
    struct file_bytes *file;
    ssize_t len = 0, got;
    FILE *to = fopen(path, "w");
    err[0] = '\0';
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
            assert_int_equal(read_file(packed, at, out, 1000), -EBADMSG);
        size_t both = n + packers[p](text, SMALL, packed + n);
        for (size_t at = n + 1; at < both; at++)
            assert_int_equal(read_file(packed, at, out, 1000), -EBADMSG);
        memcpy(packed + n, "junk", 4);
        assert_int_equal(read_file(packed, n + 4, out, 1000), -EBADMSG);
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
                assert_int_equal(len, -EBADMSG);
            else if (len > 0)
                assert_memory_equal(out, text, (size_t)len);
            packed[bit / 8] ^= (char)(1 << bit % 8);
        }
    }
}

/* Zeros behind the end and between two, as tapes pad; skippable frames first, between and last. */
static void padded(void **state)
{
    (void)state;
    static char packed[ROOM], out[ROOM];
    for (size_t p = 0; p < 2; p++) {
        size_t n = packers[p](text, 1000, packed);
        memset(packed + n, 0, 1000);
        n += 1000 + packers[p](text + 1000, TEXT - 1000, packed + n + 1000);
        memset(packed + n, 0, 70000);
        assert_int_equal(read_file(packed, n + 70000, out, 5000), TEXT);
        assert_memory_equal(out, text, TEXT);
        assert_int_equal(read_file(packed, n + 1, out, 5000), TEXT);
    }
    size_t n = 0;
    for (size_t half = 0; half < 2; half++) {
        memcpy(packed + n,
               half ? "\x5e\x2a\x4d\x18\3\0\0\0abc" : "\x50\x2a\x4d\x18\4\0\0\0\1\0\0\0",
               half ? 11 : 12);
        n += half ? 11 : 12;
        n += pack_zstd(text + half * 1000, half ? TEXT - 1000 : 1000, packed + n);
    }
    memcpy(packed + n, "\x5e\x2a\x4d\x18\0\0\0\0", 8);
    assert_int_equal(read_file(packed, n + 8, out, 5000), TEXT);
    assert_memory_equal(out, text, TEXT);
    assert_int_equal(read_file(packed, n + 7, out, 5000), -EBADMSG);
    assert_int_equal(read_file(packed, 12, out, 5000), 0);
}

/* Every field that a gzip header may have. */
static void gzip_header(void **state)
{
    (void)state;
    static char packed[ROOM], out[ROOM];
    gz_header header = {.text = 1,
                        .time = 1700000000,
                        .os = 3,
                        .hcrc = 1,
                        .name = (unsigned char *)"corpus.txt",
                        .comment = (unsigned char *)"all of it",
                        .extra = (unsigned char *)"BC\2\0\1\0",
                        .extra_len = 6};
    z_stream gzip = {0};
    assert_int_equal(deflateInit2(&gzip, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflateSetHeader(&gzip, &header), Z_OK);
    gzip.next_in = (unsigned char *)text;
    gzip.avail_in = TEXT;
    gzip.next_out = (unsigned char *)packed;
    gzip.avail_out = ROOM;
    assert_int_equal(deflate(&gzip, Z_FINISH), Z_STREAM_END);
    deflateEnd(&gzip);
    assert_int_equal(read_file(packed, gzip.total_out, out, 5000), TEXT);
    assert_memory_equal(out, text, TEXT);
}

/* Windows beyond 128 MiB, as zstd --long makes them. */
static void long_window(void **state)
{
    (void)state;
    static char packed[ROOM], out[ROOM];
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_inBuffer in = {text, TEXT, 0};
    ZSTD_outBuffer to = {packed, ROOM, 0};
    ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, 28);
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
    assert_false(ZSTD_isError(ZSTD_compressStream2(context, &to, &in, ZSTD_e_flush)));
    assert_int_equal(ZSTD_compressStream2(context, &to, &in, ZSTD_e_end), 0);
    ZSTD_freeCCtx(context);
    assert_int_equal(read_file(packed, to.pos, out, 5000), TEXT);
    assert_memory_equal(out, text, TEXT);
}

/* Refused with a sentence that names the reason. */
static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        int rc;
        const char *says;
    } cases[] = {
#define CASE(literal, rc, says) {literal, sizeof(literal) - 1, rc, says}
        CASE("\x28\xb5\x2f\xfd\x21\7\3\x19\0\0abc", -EBADMSG, "packed with a dictionary"),
        CASE("\x22\xb5\x2f\xfd\x21\7\3\x19\0\0abc", -EBADMSG, "zstd before 0.8"),
        CASE("\x50\x2a\x4d\x18\0\0\0\0\x04\x22\x4d\x18\x64\x40", -EBADMSG, "other bytes than"),
        CASE("BZh91AY&SY\x8c\x22", -EINVAL, "is bzip2 data"),
        CASE("BZh91AY&SY\x8c\x22", -EINVAL, "bzip2 -dc /tmp/embedmill-test-"),
        CASE("\x89PNG\r\n\x1a\n", -EINVAL, "is a PNG image"),
        CASE("one\ntwo \0\n", -EINVAL, "NUL"),
        CASE("\xff\xfe\0\0a\0\0\0", -EINVAL, "UTF-32"),
        CASE("\xff\xfe"
             "a\0b",
             -EBADMSG, "inside a character"),
        CASE("\xff\xfe"
             "a\0\0\0",
             -EINVAL, "NUL"),
    };
    static char packed[ROOM], out[ROOM];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(read_file(cases[i].bytes, cases[i].len, out, 100), cases[i].rc);
        if (!strstr(err, cases[i].says))
            fail_msg("expected '%s' in: %s", cases[i].says, err);
    }
    for (size_t p = 0; p < 2; p++) {
        size_t n = packers[p](text, SMALL, packed);
        memcpy(out, packed, n);
        n = packers[1 - p](out, n, packed);
        assert_int_equal(read_file(packed, n, out, 1000), -EINVAL);
        assert_non_null(strstr(err, "packed twice"));
        n = packers[p]("\x89PNG\r\n\x1a\n", 8, packed);
        assert_int_equal(read_file(packed, n, out, 1000), -EINVAL);
        assert_non_null(strstr(err, "holds a PNG image"));
    }
}

/* Both orders of bytes, at every cut of the output; halves of pairs pass to whoever judges them. */
static void utf16(void **state)
{
    (void)state;
    static const uint16_t units[] = {0xfeff, 'i', 'd',    '\t',   0xe4, 0x263a, 0xd83d,
                                     0xdea2, 'x', 0xdc80, 0xd83d, '\n', 0xd83d};
    static const char wanted[] =
        "id\t\xc3\xa4\xe2\x98\xba\xf0\x9f\x9a\xa2x\xed\xb2\x80\xed\xa0\xbd\n"
        "\xed\xa0\xbd";
    enum { N = sizeof units / sizeof units[0] };
    static char packed[ROOM], out[ROOM];
    for (int big = 0; big < 2; big++) {
        char bytes[2 * N];
        for (size_t i = 0; i < N; i++) {
            bytes[2 * i + !big] = (char)(units[i] >> 8);
            bytes[2 * i + big] = (char)units[i];
        }
        for (size_t at_once = 4; at_once < 30; at_once++) {
            assert_int_equal(read_file(bytes, sizeof bytes, out, at_once), sizeof wanted - 1);
            assert_memory_equal(out, wanted, sizeof wanted - 1);
        }
        size_t n = pack_gzip(bytes, sizeof bytes, packed);
        assert_int_equal(read_file(packed, n, out, 100), sizeof wanted - 1);
        assert_memory_equal(out, wanted, sizeof wanted - 1);
    }
    /* Longer than the buffers, with pairs across their ends. */
    static char wide[ROOM], narrow[ROOM];
    size_t n = 2, len = 0;
    memcpy(wide, "\xff\xfe", 2);
    while (n + 6 <= 200000) {
        memcpy(wide + n,
               len % 3 ? "a\0\x3d\xd8\xa2\xde"
                       : "\x3d\xd8\xa2\xde"
                         "a\0",
               6);
        memcpy(narrow + len,
               len % 3 ? "a\xf0\x9f\x9a\xa2"
                       : "\xf0\x9f\x9a\xa2"
                         "a",
               5);
        n += 6;
        len += 5;
    }
    assert_int_equal(read_file(wide, n, out, 4099), len);
    assert_memory_equal(out, narrow, len);
}

/* Who writes lines one by one gets them read one by one; a part of a line tells nothing yet. */
static void slow_pipe(void **state)
{
    (void)state;
    char pipe[80], out[100];
    struct file_bytes *file;
    snprintf(pipe, sizeof pipe, "%s/pipe", folder);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    int fd = open(pipe, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(file_bytes_open(&file, pipe, err, sizeof err), 0);
    assert_int_equal(file_bytes_read(file, out, sizeof out, err, sizeof err), -EAGAIN);
    assert_int_equal(write(fd, "fer", 3), 3);
    assert_int_equal(file_bytes_read(file, out, sizeof out, err, sizeof err), -EAGAIN);
    assert_int_equal(write(fd, "ry\n", 3), 3);
    assert_int_equal(file_bytes_read(file, out, sizeof out, err, sizeof err), 6);
    assert_memory_equal(out, "ferry\n", 6);
    assert_int_equal(write(fd, "b", 1), 1);
    assert_int_equal(file_bytes_read(file, out, sizeof out, err, sizeof err), 1);
    assert_int_equal(file_bytes_read(file, out, sizeof out, err, sizeof err), -EAGAIN);
    close(fd);
    assert_int_equal(file_bytes_read(file, out, sizeof out, err, sizeof err), 0);
    file_bytes_close(file);
    unlink(pipe);
}

static void absent(void **state)
{
    (void)state;
    struct file_bytes *file;
    assert_int_equal(file_bytes_open(&file, "/nowhere/at/all", err, sizeof err), -ENOENT);
    assert_non_null(strstr(err, "/nowhere/at/all"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole),       cmocka_unit_test(joined),      cmocka_unit_test(cut),
        cmocka_unit_test(damaged),     cmocka_unit_test(absent),      cmocka_unit_test(padded),
        cmocka_unit_test(gzip_header), cmocka_unit_test(long_window), cmocka_unit_test(refused),
        cmocka_unit_test(utf16),       cmocka_unit_test(slow_pipe),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
