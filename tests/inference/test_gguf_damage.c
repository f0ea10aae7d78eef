/*
 * test_gguf_damage.c: the tiny model cut at every byte, and struck at random; and what stays
 * behind.
 *
 * Over-reads are caught by where the bytes lie (cage.h): right before a page that traps.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "inference/gguf.h"
#include "tests/support/cage.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/tiny_model.h"

enum { CAGE_SIZE = 1 << 20 };

static char folder[] = "/tmp/test_gguf_damage.XXXXXX";
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
        const uint8_t *bytes = close_look ? cage_put(&cage, writer.bytes, n) : writer.bytes;
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
        uint8_t *bytes = cage_put(&cage, writer.bytes, writer.len);
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
    int n = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    assert_non_null(file);
    char line[512];
    while (fgets(line, sizeof line, file))
        n += strstr(line, folder) != NULL;
    fclose(file);
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
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_nothing_is_left_open),
        cmocka_unit_test(test_replaced_by_rename),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
