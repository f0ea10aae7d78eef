/*
 * test_gguf_hostile.c: a GGUF file with one field wrong is refused, in words that name the field.
 *
 * The fields are those of the known holes in GGUF readers: CVE-2024-21802 to 23605 and 25664 to
 * 25668 (counts and lengths), 2025-49847 (a length cut to 32 bits), 2025-53630 and 2026-27940
 * (padded sizes that wrap), 2026-33298 (dimensions that wrap), 2026-7482 (data beyond the file).
 * Each file ends at a trap, and is then opened from disk too: the same words are asked for.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "inference/gguf.h"
#include "tests/support/cage.h"
#include "tests/support/gguf_writer.h"

enum { CAGE_SIZE = 4 << 20 };

static char folder[] = "/tmp/test_gguf_hostile.XXXXXX";
static char path[64];
static struct cage cage;

static int setup(void **state)
{
    (void)state;
    if (cage_open(&cage, CAGE_SIZE) || !mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/test.gguf", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cage_close(&cage);
    unlink(path);
    return rmdir(folder);
}

/* The writer's file is refused, in memory and on disk, with words that hold `words`. */
static void expect_refused(struct gguf_writer *writer, const char *words)
{
    char err[512] = "", err_file[512] = "";
    static char place;
    struct gguf *const untouched = (void *)&place, *gguf = untouched;
    const uint8_t *bytes = cage_put(&cage, writer->bytes, writer->len);
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
    const uint8_t *bytes = cage_put(&cage, writer->bytes, writer->len);
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
    expect_refused(&writer, "key 'twin': the key appears twice");

    gguf_put_header(&writer, 3, 3, 0);
    gguf_put_tensor(&writer, "twin", 1, row, GGUF_TENSOR_F32, 0);
    gguf_put_tensor(&writer, "other", 1, row, GGUF_TENSOR_F32, 32);
    gguf_put_tensor(&writer, "twin", 1, row, GGUF_TENSOR_F32, 64);
    gguf_put_padding(&writer, 32);
    for (int i = 0; i < 96; i++)
        gguf_put_u8(&writer, 0);
    expect_refused(&writer, "tensor 'twin': the tensor appears twice");
}

/* A name of the file must not paint on somebody's terminal, or break a log line in two. */
static void test_names_are_shown_harmless(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    gguf_put_header(&writer, 3, 0, 2);
    gguf_put_key_u32(&writer, "\x1b[2J\n\xff%s%n", 1);
    gguf_put_key_u32(&writer, "\x1b[2J\n\xff%s%n", 1);
    expect_refused(&writer, "key '?[2J??%s%n': the key appears twice");

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
    for (uint64_t offset = 0; offset <= 32; offset += 32) { /* of a type unknown, 32 is the end */
        struct gguf_writer writer = {0};
        gguf_put_header(&writer, 3, 2, 0);
        gguf_put_tensor(&writer, "strange", 1, row, 999, 0);
        gguf_put_tensor(&writer, "stranger", 1, row, 999, offset);
        gguf_put_padding(&writer, 32);
        for (int i = 0; i < 32; i++)
            gguf_put_u8(&writer, 0);
        expect_refused(&writer, offset ? "0 bytes at offset 32, where the file has 32"
                                       : "its data overlaps that of tensor 'strange");
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

static void test_overlap_by_one_byte(void **state)
{
    (void)state;
    for (uint64_t over = 0; over < 2; over++) {
        struct gguf_writer writer = {0};
        gguf_put_header(&writer, 3, 2, 0);
        gguf_put_tensor(&writer, "long", 1, (const uint64_t[]){32 + over}, 24 /* I8 */, 0);
        gguf_put_tensor(&writer, "next", 1, (const uint64_t[]){32}, 24 /* I8 */, 32);
        gguf_put_padding(&writer, 32);
        for (int i = 0; i < 64; i++)
            gguf_put_u8(&writer, 0);
        over ? expect_refused(&writer, "'next': its data overlaps that of tensor 'long'")
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
    expect_refused(&writer, "key 'k0': the key appears twice");
    many_keys_put(&writer, 65537, false);
    expect_refused(&writer, "65537 keys");
    gguf_put_header(&writer, 3, 65537, 0);
    for (int i = 0; i < 65537 * 40 / 8; i++) /* room for them */
        gguf_put_u64(&writer, 1);
    expect_refused(&writer, "65537 tensors");
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (seconds > 5)
        fail_msg("%.1f s", seconds); /* 0.1 s here; each pair compared would be minutes */
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
        cmocka_unit_test(test_overlap_by_one_byte),
        cmocka_unit_test(test_very_many_keys),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
