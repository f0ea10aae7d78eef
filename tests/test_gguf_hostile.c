/*
 * test_gguf_hostile.c: no GGUF file, however wrong, makes the reader step outside it or guess.
 *
 * Over-reads are caught by where the bytes lie: each file under test ends right before a page that
 * traps, so one byte too far is a SIGSEGV in every build, not only under a sanitizer. The same file
 * is then opened from disk, and must be refused with the same words.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "inference/gguf.h"
#include "tests/gguf_writer.h"
#include "tests/tiny_model.h"

enum { CAGE_SIZE = 8 << 20, PAGE_MAX = 65536 };

static char folder[] = "/tmp/test_gguf_hostile.XXXXXX";
static char path[64];
static uint8_t *cage_end; /* CAGE_SIZE writable bytes before it, a trap after it */

static int setup(void **state)
{
    (void)state;
    uint8_t *map = mmap(NULL, CAGE_SIZE + PAGE_MAX, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map + CAGE_SIZE, PAGE_MAX, PROT_NONE) || !mkdtemp(folder))
        return -1;
    cage_end = map + CAGE_SIZE;
    snprintf(path, sizeof path, "%s/test.gguf", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    munmap(cage_end - CAGE_SIZE, CAGE_SIZE + PAGE_MAX);
    unlink(path);
    return rmdir(folder);
}

static uint8_t *cage_put(const uint8_t *bytes, size_t len)
{
    assert_true(len <= CAGE_SIZE);
    if (len)
        memcpy(cage_end - len, bytes, len);
    return cage_end - len;
}

/* The writer's file is refused, in memory and on disk, with words that hold `words`. */
static void expect_refused(struct gguf_writer *writer, const char *words)
{
    char err[512] = "", err_file[512] = "";
    static char place;
    struct gguf *const untouched = (void *)&place, *gguf = untouched;
    const uint8_t *bytes = cage_put(writer->bytes, writer->len);
    assert_int_equal(gguf_open_memory(&gguf, bytes, writer->len, path, err, sizeof err), -EINVAL);
    assert_int_equal(gguf_writer_save(writer, path), 0);
    assert_int_equal(gguf_open(&gguf, path, err_file, sizeof err_file), -EINVAL);
    assert_ptr_equal(gguf, untouched);
    assert_string_equal(err, err_file);
    if (!strstr(err, words) || !strstr(err, path) || !strstr(err, "; "))
        fail_msg("'%s' does not speak of '%s', the file and what to do", err, words);
    gguf_writer_free(writer);
}

/* Sound, whatever it looks like. */
static void expect_accepted(struct gguf_writer *writer)
{
    char err[512] = "";
    struct gguf *gguf = NULL;
    const uint8_t *bytes = cage_put(writer->bytes, writer->len);
    if (gguf_open_memory(&gguf, bytes, writer->len, path, err, sizeof err))
        fail_msg("%s", err);
    gguf_close(gguf);
    gguf_writer_free(writer);
}

/* A sound file and the place of each of its fields. */
struct sample {
    struct gguf_writer writer;
    size_t key, alignment, string, list, flag, numbers, first, second;
};

enum { STR_HEAD = 8, KEY_1 = STR_HEAD + 17, KEY_2 = STR_HEAD + 8, LIST = STR_HEAD + 6 };

static void sample_build(struct sample *sample)
{
    const uint64_t matrix[] = {64, 2}, row[] = {8};
    struct gguf_writer *out = &sample->writer;
    memset(sample, 0, sizeof *sample);
    gguf_put_header(out, 3, 2, 5);
    sample->key = gguf_put_key_u32(out, "general.alignment", 32);
    sample->alignment = sample->key + KEY_1 + 4;
    sample->string = gguf_put_key_str(out, "a.string", "text");
    sample->list = gguf_put_key_array(out, "b.list", GGUF_STR, 2);
    gguf_put_str(out, "one");
    gguf_put_str(out, "two");
    sample->flag = gguf_put_key_bool(out, "c.flag", 1);
    sample->numbers = gguf_put_key_array(out, "d.list", GGUF_U32, 3);
    for (uint32_t i = 0; i < 3; i++)
        gguf_put_u32(out, i);
    sample->first = gguf_put_tensor(out, "first", 2, matrix, GGUF_TENSOR_Q8_0, 0);
    sample->second = gguf_put_tensor(out, "second", 1, row, GGUF_TENSOR_F32, 160);
    gguf_put_padding(out, 32);
    for (size_t i = 0; i < 160 + 32; i++)
        gguf_put_u8(out, (uint8_t)i);
}

/* Fields, by where they are counted from. */
enum from { HEADER, KEY, STRING, STRINGS, FLAG, NUMBERS, FIRST, SECOND };

static size_t sample_place(const struct sample *sample, enum from from)
{
    const size_t places[] = {0,
                             sample->key,
                             sample->string,
                             sample->list,
                             sample->flag,
                             sample->numbers,
                             sample->first,
                             sample->second};
    return places[from];
}

enum { DIMS_1 = STR_HEAD + 5, DIMS_2 = STR_HEAD + 6 }; /* of "first" and of "second" */

static const struct spoilt {
    const char *what;
    enum from from;
    size_t at;
    int width;
    uint64_t value;
    const char *words;
} SPOILT[] = {
    {"magic", HEADER, 0, 4, 0x46554747 ^ 1, "not a GGUF file"},
    {"magic of GGML", HEADER, 0, 4, 0x67676d6c, "not a GGUF file"},
    {"version 0", HEADER, 4, 4, 0, "GGUF version 0 "},
    {"version 1", HEADER, 4, 4, 1, "GGUF version 1 "},
    {"version of the future", HEADER, 4, 4, 4, "GGUF version 4 "},
    {"version of the far future", HEADER, 4, 4, UINT32_MAX, "GGUF version 4294967295 "},
    {"big-endian", HEADER, 4, 4, 0x03000000, "big-endian"},
    {"tensors: one more", HEADER, 8, 8, 3, "tensor 3 of 3"},
    {"tensors: above the bytes", HEADER, 8, 8, 100, "100 tensors"},
    {"tensors: 2^31", HEADER, 8, 8, 1ull << 31, "2147483648 tensors"},
    {"tensors: wraps by 8", HEADER, 8, 8, 1ull << 61, "2305843009213693952 tensors"},
    {"tensors: all ones", HEADER, 8, 8, UINT64_MAX, "18446744073709551615 tensors"},
    {"keys: one more", HEADER, 16, 8, 6, "tensor 1 of 2"},
    {"keys: one less", HEADER, 16, 8, 4, "tensor 'd.list'"},
    {"keys: above the bytes", HEADER, 16, 8, 100, "100 keys"},
    {"keys: 2^32", HEADER, 16, 8, 1ull << 32, "4294967296 keys"},
    {"keys: wraps by 48", HEADER, 16, 8, 0x0555555555555556, "384307168202282326 keys"},
    {"keys: all ones", HEADER, 16, 8, UINT64_MAX, "18446744073709551615 keys"},
    {"key name: empty", KEY, 0, 8, 0, "key 1 of 5: the name is empty"},
    {"key name: beyond", KEY, 0, 8, 4000, "key 1 of 5: a name of 4000 bytes"},
    {"key name: 2^32 + 17", KEY, 0, 8, (1ull << 32) + 17, "a name of 4294967313 bytes"},
    {"key name: all ones", KEY, 0, 8, UINT64_MAX, "a name of 18446744073709551615 bytes"},
    {"key name: wraps to the start", KEY, 0, 8, -24ull, "a name of 18446744073709551592 bytes"},
    {"value type 13", KEY, KEY_1, 4, 13, "'general.alignment': value type 13 "},
    {"value type all ones", KEY, KEY_1, 4, UINT32_MAX, "value type 4294967295 "},
    {"alignment 0", KEY, KEY_1 + 4, 4, 0, "'general.alignment': it is 0"},
    {"alignment 4", KEY, KEY_1 + 4, 4, 4, "'general.alignment': it is 4,"},
    {"alignment 33", KEY, KEY_1 + 4, 4, 33, "'general.alignment': it is 33"},
    {"alignment 2^31", KEY, KEY_1 + 4, 4, 1u << 31, "it is 2147483648"},
    {"alignment all ones", KEY, KEY_1 + 4, 4, UINT32_MAX, "it is 4294967295"},
    {"alignment f32", KEY, KEY_1, 4, GGUF_F32, "value type 6, where u32"},
    {"alignment i32", KEY, KEY_1, 4, GGUF_I32, "value type 5, where u32"},
    {"alignment not the writer's", KEY, KEY_1 + 4, 4, 64, "offset 160 is not a multiple of the"},
    {"string: beyond", STRING, KEY_2 + 4, 8, 5000, "'a.string': a string of 5000 bytes"},
    {"string: 2^31", STRING, KEY_2 + 4, 8, 1ull << 31, "a string of 2147483648 bytes"},
    {"string: 2^32 + 4", STRING, KEY_2 + 4, 8, (1ull << 32) + 4, "a string of 4294967300 bytes"},
    {"string: all ones", STRING, KEY_2 + 4, 8, UINT64_MAX, "a string of 18446744073709551615"},
    {"array type 13", STRINGS, LIST + 4, 4, 13, "'b.list': value type 13 "},
    {"array of arrays", STRINGS, LIST + 4, 4, GGUF_ARRAY, "'b.list': an array of arrays"},
    {"strings: above the bytes", STRINGS, LIST + 8, 8, 1000, "'b.list': 1000 values"},
    {"strings: wraps by 8", STRINGS, LIST + 8, 8, 1ull << 61, "2305843009213693952 values"},
    {"strings: all ones", STRINGS, LIST + 8, 8, UINT64_MAX, "18446744073709551615 values"},
    {"strings: one more", STRINGS, LIST + 8, 8, 3, "key 4 of 5: a name of"},
    {"string in array: beyond", STRINGS, LIST + 16, 8, 9000, "'b.list': a string of 9000 bytes"},
    {"string in array: all ones", STRINGS, LIST + 16, 8, UINT64_MAX,
     "'b.list': a string of 184467"},
    {"bool 2", FLAG, LIST + 4, 1, 2, "'c.flag': a bool is 2"},
    {"numbers as bools", NUMBERS, LIST + 4, 4, GGUF_BOOL, "tensor 1 of 2: a name of"},
    {"numbers: above the bytes", NUMBERS, LIST + 8, 8, 500, "'d.list': 500 values"},
    {"numbers: wraps by 4", NUMBERS, LIST + 8, 8, 1ull << 62, "4611686018427387904 values"},
    {"numbers: wraps by 4, to 3", NUMBERS, LIST + 8, 8, (1ull << 62) + 3, "4611686018427387907"},
    {"tensor name: empty", FIRST, 0, 8, 0, "tensor 1 of 2: the name is empty"},
    {"tensor name: 65", FIRST, 0, 8, 65, "a name of 65 bytes, where 64"},
    {"tensor name: all ones", FIRST, 0, 8, UINT64_MAX,
     "tensor 1 of 2: a name of 18446744073709551615"},
    {"dimensions 0", FIRST, DIMS_1, 4, 0, "'first': 0 dimensions"},
    {"dimensions 5", FIRST, DIMS_1, 4, 5, "'first': 5 dimensions"},
    {"dimensions all ones", FIRST, DIMS_1, 4, UINT32_MAX, "4294967295 dimensions"},
    {"dimension 0 is 0", FIRST, DIMS_1 + 4, 8, 0, "'first': dimension 0 is 0"},
    {"dimension 1 is 0", FIRST, DIMS_1 + 12, 8, 0, "'first': dimension 1 is 0"},
    {"Q8_0 row of 63", FIRST, DIMS_1 + 4, 8, 63, "'first': rows of 63 values"},
    {"Q8_0 row of 16", FIRST, DIMS_1 + 4, 8, 16, "'first': rows of 16 values"},
    {"product wraps to 0", FIRST, DIMS_1 + 12, 8, 1ull << 58, "'first': the product"},
    {"product wraps to 128", FIRST, DIMS_1 + 12, 8, (1ull << 58) + 2, "'first': the product"},
    {"product above 2^63", FIRST, DIMS_1 + 12, 8, 1ull << 57, "'first': the product"},
    {"dimension all ones", FIRST, DIMS_1 + 12, 8, UINT64_MAX, "'first': the product"},
    {"dimension is -64", FIRST, DIMS_1 + 4, 8, -64ull, "'first': the product"},
    {"size wraps", FIRST, DIMS_1 + 12, 8, (1ull << 57) - 1, "9799832789158199228 bytes"},
    {"size beyond the file", FIRST, DIMS_1 + 12, 8, 3, "'first': 204 bytes at offset 0"},
    {"rows beyond the file", FIRST, DIMS_1 + 12, 8, 4000, "'first': 272000 bytes at offset 0"},
    {"size and padding wrap", SECOND, DIMS_2 + 4, 8, (1ull << 62) - 4,
     "18446744073709551600 bytes"},
    {"size in bytes wraps", SECOND, DIMS_2 + 4, 8, 1ull << 62, "'second': its size in bytes"},
    {"offset not aligned", SECOND, DIMS_2 + 16, 8, 161, "'second': offset 161"},
    {"offset beyond the file", SECOND, DIMS_2 + 16, 8, 1 << 20,
     "'second': 32 bytes at offset 1048576"},
    {"offset at the end", SECOND, DIMS_2 + 16, 8, 192, "'second': 32 bytes at offset 192"},
    {"offset and size wrap", SECOND, DIMS_2 + 16, 8, -32ull, "at offset 18446744073709551584"},
    {"offset of its neighbour", SECOND, DIMS_2 + 16, 8, 0, "overlaps that of tensor"},
    {"offset inside its neighbour", SECOND, DIMS_2 + 16, 8, 128,
     "'second': its data overlaps that"},
    {"F64 for F32", SECOND, DIMS_2 + 12, 4, 28, "'second': 64 bytes at offset 160"},
    {"Q4_K for Q8_0", FIRST, DIMS_1 + 20, 4, 12, "'first': rows of 64 values"},
};

static void test_spoilt_fields(void **state)
{
    (void)state;
    struct sample sample;
    sample_build(&sample);
    expect_accepted(&sample.writer); /* or every case below would prove nothing */
    for (size_t i = 0; i < sizeof SPOILT / sizeof *SPOILT; i++) {
        const struct spoilt *spoilt = &SPOILT[i];
        sample_build(&sample);
        size_t at = sample_place(&sample, spoilt->from) + spoilt->at;
        assert_memory_not_equal(sample.writer.bytes + at, &spoilt->value, spoilt->width);
        memcpy(sample.writer.bytes + at, &spoilt->value, (size_t)spoilt->width);
        expect_refused(&sample.writer, spoilt->words);
    }
}

static void test_not_a_model_at_all(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } files[] = {
        {"", "the file is empty"},
        {"G", "not a GGUF file"},
        {"GGU", "not a GGUF file"},
        {"GGUF", "the version of 4 bytes at byte 4, where the file has 0 left"},
        {"PK\3\4 an archive", "not a GGUF file"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"},
        {"<!doctype html><title>Sign in</title>", "web page"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct gguf_writer writer = {0};
        gguf_put(&writer, files[i].text, strlen(files[i].text));
        expect_refused(&writer, files[i].words);
    }
}

static void test_paths_that_are_no_files(void **state)
{
    (void)state;
    char err[512] = "";
    struct gguf *gguf = NULL;
    unlink(path);
    assert_int_equal(gguf_open(&gguf, path, err, sizeof err), -ENOENT);
    assert_non_null(strstr(err, path));
    assert_int_equal(gguf_open(&gguf, folder, err, sizeof err), -EISDIR);
    assert_non_null(strstr(err, "it is a folder"));
    assert_int_equal(gguf_open(&gguf, "/dev/null", err, sizeof err), -EINVAL);
    assert_non_null(strstr(err, "not a regular file"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(gguf_open(&gguf, path, err, sizeof err), -EINVAL); /* and does not wait */
    assert_non_null(strstr(err, "not a regular file"));
    unlink(path);
    assert_int_equal(symlink(path, path), 0);
    assert_int_equal(gguf_open(&gguf, path, err, sizeof err), -ELOOP);
    unlink(path);
    assert_int_equal(gguf_open(&gguf, path, NULL, 0), -ENOENT); /* nobody wants the sentence */
    assert_int_equal(gguf_open_memory(&gguf, "GGUF", 4, path, NULL, 0), -EINVAL);
    assert_null(gguf);
    gguf_close(NULL);
}

static void test_duplicates(void **state)
{
    (void)state;
    const uint64_t row[] = {8};
    struct gguf_writer writer = {0};
    gguf_put_header(&writer, 3, 0, 3);
    gguf_put_key_u32(&writer, "twin", 1);
    gguf_put_key_u32(&writer, "other", 1);
    gguf_put_key_str(&writer, "twin", "2");
    expect_refused(&writer, "key 'twin': the key is there twice");

    gguf_put_header(&writer, 3, 3, 0);
    gguf_put_tensor(&writer, "twin", 1, row, GGUF_TENSOR_F32, 0);
    gguf_put_tensor(&writer, "other", 1, row, GGUF_TENSOR_F32, 32);
    gguf_put_tensor(&writer, "twin", 1, row, GGUF_TENSOR_F32, 64);
    gguf_put_padding(&writer, 32);
    for (int i = 0; i < 96; i++)
        gguf_put_u8(&writer, 0);
    expect_refused(&writer, "tensor 'twin': the tensor is there twice");
}

/* A name of the file must not paint on somebody's terminal, or break a log line in two. */
static void test_names_are_shown_harmless(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    gguf_put_header(&writer, 3, 0, 2);
    gguf_put_key_u32(&writer, "\x1b[2J\n\xff%s%n", 1);
    gguf_put_key_u32(&writer, "\x1b[2J\n\xff%s%n", 1);
    expect_refused(&writer, "key '?[2J??%s%n': the key is there twice");

    char name[301] = "";
    memset(name, 'n', sizeof name - 1);
    gguf_put_header(&writer, 3, 0, 1);
    gguf_put_key(&writer, name, 77);
    expect_refused(&writer, "nnnn...': value type 77 ");
}

static void test_long_names(void **state)
{
    (void)state;
    enum { LIMIT = 65535 };
    const uint64_t row[] = {8};
    char *name = calloc(1, LIMIT + 2);
    assert_non_null(name);
    for (size_t over = 0; over < 2; over++) {
        struct gguf_writer writer = {0};
        memset(name, 'k', LIMIT + over);
        gguf_put_header(&writer, 3, 0, 1);
        gguf_put_key_u32(&writer, name, 1);
        over ? expect_refused(&writer, "a name of 65536 bytes, where 65535")
             : expect_accepted(&writer);
    }
    for (size_t over = 0; over < 2; over++) {
        struct gguf_writer writer = {0};
        name[64 + over] = '\0';
        memset(name, 't', 64 + over);
        gguf_put_header(&writer, 3, 1, 0);
        gguf_put_tensor(&writer, name, 1, row, GGUF_TENSOR_F32, 0);
        gguf_put_padding(&writer, 32);
        for (int i = 0; i < 32; i++)
            gguf_put_u8(&writer, 0);
        over ? expect_refused(&writer, "a name of 65 bytes, where 64") : expect_accepted(&writer);
    }
    free(name);
}

/* A type without a size has a place all the same; and tensor data may lack its last padding. */
static void test_place_of_unknown_types_and_last_padding(void **state)
{
    (void)state;
    const uint64_t row[] = {8}, matrix[] = {32};
    static const struct {
        uint64_t offset;
        const char *words;
    } cases[] = {{64, NULL},
                 {0, "overlaps that of tensor"},
                 {32, "overlaps that of tensor 'known'"},
                 {65, "offset 65 is not"},
                 {96, "0 bytes at offset 96, where the file has 65 of data"},
                 {UINT64_MAX - 31, "0 bytes at offset 18446744073709551584"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf_writer writer = {0};
        gguf_put_header(&writer, 3, 2, 0);
        gguf_put_tensor(&writer, "known", 1, (const uint64_t[]){16}, GGUF_TENSOR_F32, 0);
        gguf_put_tensor(&writer, "strange", 1, row, 999, cases[i].offset);
        gguf_put_padding(&writer, 32);
        for (int j = 0; j < 65; j++)
            gguf_put_u8(&writer, 0);
        cases[i].words ? expect_refused(&writer, cases[i].words) : expect_accepted(&writer);
    }
    for (int missing = 0; missing < 2; missing++) {
        struct gguf_writer writer = {0};
        gguf_put_header(&writer, 3, 1, 0);
        gguf_put_tensor(&writer, "last", 1, matrix, GGUF_TENSOR_Q8_0, 0);
        gguf_put_padding(&writer, 32);
        for (int i = 0; i < 34 - missing; i++)
            gguf_put_u8(&writer, 0);
        missing ? expect_refused(&writer, "34 bytes at offset 0, where the file has 33")
                : expect_accepted(&writer);
    }
}

static void many_keys_put(struct gguf_writer *writer, uint32_t n, bool twins)
{
    char name[16];
    gguf_put_header(writer, 3, 0, n);
    for (uint32_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "k%u", (unsigned)(twins && i == n - 1 ? 0 : i));
        gguf_put_key_u32(writer, name, i);
    }
}

/* As many keys as are allowed, one more, and twins at both ends: no work grows by the square. */
static void test_very_many_keys(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    clock_t start = clock();
    many_keys_put(&writer, 65536, false);
    expect_accepted(&writer);
    many_keys_put(&writer, 65536, true);
    expect_refused(&writer, "key 'k0': the key is there twice");
    many_keys_put(&writer, 65537, false);
    expect_refused(&writer, "65537 keys");
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (seconds > 5)
        fail_msg("%.1f s", seconds); /* 0.1 s here; each pair compared would be minutes */
}

/* Every file shorter than the tiny model is an error; what is there ends at the trap. */
static void test_cut_at_every_byte(void **state)
{
    (void)state;
    char err[512] = "";
    struct gguf_writer writer = {0};
    struct gguf *gguf = NULL;
    tiny_model_build(&writer, NULL);
    assert_int_equal(gguf_open_memory(&gguf, writer.bytes, writer.len, path, err, sizeof err), 0);
    size_t directory = gguf_metadata(gguf).len;
    gguf_close(gguf);
    assert_int_equal(gguf_writer_save(&writer, path), 0);
    for (size_t n = writer.len; n-- > 0;) {
        /* Tensor data is not read by open: there the cage need not move with every byte. */
        bool close_look = n <= directory + 64 || n % 997 == 0 || n == writer.len - 1;
        const uint8_t *bytes = close_look ? cage_put(writer.bytes, n) : writer.bytes;
        int rc = gguf_open_memory(&gguf, bytes, n, path, err, sizeof err);
        if (rc != -EINVAL || (n >= 4 && !strstr(err, "cut short")))
            fail_msg("cut at %zu: %d '%s'", n, rc, err);
        if (!close_look)
            continue;
        char err_file[512] = "";
        assert_int_equal(truncate(path, (off_t)n), 0);
        assert_int_equal(gguf_open(&gguf, path, err_file, sizeof err_file), -EINVAL);
        assert_string_equal(err, err_file);
    }
    gguf_writer_free(&writer);
}

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static void bytes_mutate(uint8_t *bytes, size_t size, uint64_t *random)
{
    static const uint64_t odd[] = {
        0,          1,          31,        33,         0x7fffffff,     0x80000000, UINT32_MAX,
        1ull << 32, 1ull << 58, INT64_MAX, 1ull << 63, UINT64_MAX - 7, UINT64_MAX};
    uint8_t swap[8];
    size_t n = 1 + random_next(random) % 4, room = size - 16;
    uint64_t kind = random_next(random) % 5;
    for (size_t i = 0; i < n; i++) {
        uint8_t *a = bytes + random_next(random) % room, *b = bytes + random_next(random) % room;
        switch (kind) {
        case 0:
            *a ^= (uint8_t)(1u << random_next(random) % 8);
            break;
        case 1:
            *a = (uint8_t)random_next(random);
            break;
        case 2:
            memset(a, 0xff, 1 + random_next(random) % 16);
            break;
        case 3:
            memcpy(swap, a, 8);
            memmove(a, b, 8);
            memcpy(b, swap, 8);
            break;
        default:
            memcpy(a, &odd[random_next(random) % (sizeof odd / sizeof *odd)], 8);
        }
    }
}

/* Everything a user of the file could do, on whatever is in it. Returns a sum of what was read. */
static uint64_t everything_read(const struct gguf *gguf, const struct gguf *sound)
{
    static const char *const keys[] = {
        "general.architecture",        "gemma-embedding.block_count",
        "tokenizer.ggml.tokens",       "tokenizer.ggml.scores",
        "tokenizer.ggml.token_type",   "gemma-embedding.rope.freq_base",
        "tokenizer.ggml.add_bos_token"};
    uint64_t sum = gguf_file_size(gguf), number = 0;
    double real = 0;
    bool flag = false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct gguf_str str = {0};
        struct gguf_array array = {0};
        size_t at = 0, n = 0;
        (void)gguf_uint(gguf, keys[i], &number);
        (void)gguf_float(gguf, keys[i], &real);
        (void)gguf_bool(gguf, keys[i], &flag);
        if (!gguf_string(gguf, keys[i], &str) && str.len)
            sum += (uint8_t)str.ptr[0] + (uint8_t)str.ptr[str.len - 1];
        if (gguf_get_array(gguf, keys[i], &array))
            continue;
        for (size_t j = 0; j < array.size; j++)
            sum += array.data[j];
        for (; gguf_array_next(&array, &at, &str); n++)
            sum += str.len ? (uint8_t)str.ptr[str.len - 1] : 0;
        assert_true(array.type != GGUF_STR || (n == array.n && at == array.size));
    }
    struct gguf_str head = gguf_metadata(gguf);
    sum += number + flag + (uint8_t)head.ptr[head.len - 1];
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const uint8_t *data = gguf_tensor_at(gguf, i)->data;
        if (data)
            sum += data[0] + data[gguf_tensor_at(gguf, i)->size - 1];
    }
    for (size_t i = 0; i < gguf_n_tensors(sound); i++) {
        char name[65];
        struct gguf_str str = gguf_tensor_at(sound, i)->name;
        snprintf(name, sizeof name, "%.*s", (int)str.len, str.ptr);
        sum += gguf_tensor_find(gguf, name) != NULL;
    }
    return sum;
}

static void test_mutations(void **state)
{
    (void)state;
    const char *wanted = getenv("EMBEDMILL_TEST_MUTATIONS"); /* before a release: 1000000 */
    long n = wanted ? atol(wanted) : 10000;
    const uint64_t seed = 20240607;
    char err[512] = "";
    struct gguf_writer writer = {0};
    struct gguf *gguf = NULL, *sound = NULL;
    tiny_model_build(&writer, NULL);
    assert_int_equal(gguf_open_memory(&sound, writer.bytes, writer.len, path, err, sizeof err), 0);
    size_t directory = gguf_metadata(sound).len;
    volatile uint64_t sum = 0; /* so that no read is left out */
    long n_opened = 0, n_refused = 0;
    for (long i = 0; i < n; i++) {
        uint64_t random = seed + (uint64_t)i;
        uint8_t *bytes = cage_put(writer.bytes, writer.len);
        /* The vocabulary is most of the directory: aim half of the time around it. */
        size_t tensors_at = directory - 2048;
        switch (random_next(&random) % 4) {
        case 0:
            bytes_mutate(bytes, 1400, &random);
            break;
        case 1:
            bytes_mutate(bytes + tensors_at, 2048, &random);
            break;
        default:
            bytes_mutate(bytes, directory, &random);
        }
        err[0] = '\0';
        int rc = gguf_open_memory(&gguf, bytes, writer.len, path, err, sizeof err);
        if (rc && (rc != -EINVAL || !strstr(err, path)))
            fail_msg("seed %llu: %d '%s'", (unsigned long long)seed + (uint64_t)i, rc, err);
        n_opened += rc == 0;
        n_refused += rc != 0;
        if (rc)
            continue;
        sum += everything_read(gguf, sound);
        gguf_close(gguf);
    }
    print_message("seeds from %llu: %ld opened, %ld refused, sum %llu\n", (unsigned long long)seed,
                  n_opened, n_refused, (unsigned long long)sum);
    assert_true(n_opened > n / 20 && n_refused > n / 20);
    gguf_close(sound);
    gguf_writer_free(&writer);
}

static int count_fds(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

static int count_mappings(void)
{
    int n = 0, c;
    FILE *file = fopen("/proc/self/maps", "r");
    assert_non_null(file);
    char line[512];
    while (fgets(line, sizeof line, file))
        n += strstr(line, folder) != NULL;
    c = ferror(file);
    fclose(file);
    assert_int_equal(c, 0);
    return n;
}

/* Opened, refused, or no file at all: nothing of it stays behind. */
static void test_nothing_is_left_open(void **state)
{
    (void)state;
    char err[512] = "";
    struct gguf *gguf = NULL;
    int before = count_fds();
    for (int i = 0; i < 10; i++) {
        assert_int_equal(tiny_model_write(path, NULL), 0);
        assert_int_equal(gguf_open(&gguf, path, err, sizeof err), 0);
        assert_int_equal(count_fds(), before); /* the mapping needs no descriptor */
        assert_int_equal(count_mappings(), 1);
        gguf_close(gguf);
        assert_int_equal(truncate(path, 4000), 0);
        assert_int_equal(gguf_open(&gguf, path, err, sizeof err), -EINVAL);
        assert_int_equal(truncate(path, 0), 0);
        assert_int_equal(gguf_open(&gguf, path, err, sizeof err), -EINVAL);
        assert_int_equal(gguf_open(&gguf, folder, err, sizeof err), -EISDIR);
        assert_int_equal(gguf_open(&gguf, "/dev/null", err, sizeof err), -EINVAL);
    }
    assert_int_equal(count_fds(), before);
    assert_int_equal(count_mappings(), 0);
}

/* What the header promises of files replaced while in use. */
static void test_replaced_by_rename(void **state)
{
    (void)state;
    char err[512] = "", other[80];
    struct gguf *gguf = NULL;
    snprintf(other, sizeof other, "%s.new", path);
    assert_int_equal(tiny_model_write(path, NULL), 0);
    assert_int_equal(gguf_open(&gguf, path, err, sizeof err), 0);
    uint64_t before = everything_read(gguf, gguf);
    struct gguf_writer shorter = {0};
    gguf_put_header(&shorter, 3, 0, 0);
    assert_int_equal(gguf_writer_save(&shorter, other), 0);
    assert_int_equal(rename(other, path), 0);
    assert_true(everything_read(gguf, gguf) == before);
    gguf_close(gguf);
    gguf_writer_free(&shorter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spoilt_fields),
        cmocka_unit_test(test_not_a_model_at_all),
        cmocka_unit_test(test_paths_that_are_no_files),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_names_are_shown_harmless),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_place_of_unknown_types_and_last_padding),
        cmocka_unit_test(test_very_many_keys),
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_nothing_is_left_open),
        cmocka_unit_test(test_replaced_by_rename),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
