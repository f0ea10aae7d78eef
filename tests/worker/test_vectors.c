/*
 * test_vectors.c: indexes that are whole, cut at every byte, or no index at all.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/index/compact.h"
#include "worker/index/vectors.h"

static char folder[] = "/tmp/embedmill-test-XXXXXX";
static char npy[100], ids[120], jsonl[100];

static int open_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(npy, sizeof npy, "%s/a.npy", folder);
    snprintf(ids, sizeof ids, "%s.ids.jsonl", npy);
    snprintf(jsonl, sizeof jsonl, "%s/a.jsonl", folder);
    return 0;
}

static int close_folder(void **state)
{
    (void)state;
    unlink(npy);
    unlink(ids);
    unlink(jsonl);
    return rmdir(folder);
}

static void write_file(const char *path, const void *bytes, size_t n)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

/* A header of 128 bytes, then the rows. */
static size_t build_npy(char *out, const char *descr, const char *shape, const void *rows, size_t n)
{
    memset(out, ' ', 128);
    memcpy(out, "\x93NUMPY\x01\x00\x76\x00", 10);
    int len =
        sprintf(out + 10, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape);
    out[10 + len] = ' ';
    out[127] = '\n';
    memcpy(out + 128, rows, n);
    return 128 + n;
}

static int try(const char *path, struct vectors **out)
{
    char err[400] = "";
    int rc = vectors_open(out, path, err, sizeof err);
    assert_true((rc == 0) == (err[0] == '\0'));
    return rc;
}

static void expect_rows(const char *path, const float *wanted, size_t n, size_t dim)
{
    struct vectors *vectors;
    float scratch[32];
    assert_int_equal(try(path, &vectors), 0);
    assert_int_equal(vectors_count(vectors), n);
    assert_int_equal(vectors_dim(vectors), dim);
    const float *rows = vectors_rows(vectors, 0, n, scratch);
    for (size_t i = 0; i < n * dim; i++)
        assert_true(fabsf(rows[i] - wanted[i]) < 1e-6f);
    const float *last = vectors_rows(vectors, n - 1, 1, scratch);
    for (size_t i = 0; i < dim; i++)
        assert_true(fabsf(last[i] - wanted[(n - 1) * dim + i]) < 1e-6f);
    assert_int_equal(vectors_id(vectors, 1).len, 3);
    assert_memory_equal(vectors_id(vectors, 1).ptr, "\"b\"", 3);
    vectors_close(vectors);
}

static void every_type(void **state)
{
    (void)state;
    static const float rows[4] = {0.6f, -0.8f, 0, 1};
    static const uint16_t halves[4] = {0x3c00, 0x8000, 0x0001, 0xbc00};
    static const float half_values[4] = {1, 0, 0x1p-24f, -1};
    static const int8_t bytes[4] = {3, -4, 0, 127};
    static const uint8_t bits[2] = {0x80, 0x7f};
    float r = sqrtf(1.0f / 8), signs[16];
    char file[256];
    for (size_t i = 0; i < 16; i++)
        signs[i] = i == 0 || i > 8 ? r : -r;
    write_file(ids, "\"a\"\n\"b\"\n", 8);
    write_file(npy, file, build_npy(file, "<f4", "(2, 2)", rows, sizeof rows));
    expect_rows(npy, rows, 2, 2);
    write_file(npy, file, build_npy(file, "<f2", "(2, 2)", halves, sizeof halves));
    expect_rows(npy, half_values, 2, 2);
    write_file(npy, file, build_npy(file, "|i1", "(2, 2)", bytes, sizeof bytes));
    expect_rows(npy, rows, 2, 2);
    write_file(npy, file, build_npy(file, "|u1", "(2, 1)", bits, sizeof bits));
    expect_rows(npy, signs, 2, 8);
}

static void cut_or_wrong(void **state)
{
    (void)state;
    static const float rows[4] = {0.6f, -0.8f, 0, 1};
    static const char *const wrong[][2] = {{"<f8", "(2, 2)"},
                                           {"<u2", "(2, 2)"},
                                           {"<f4", "(2, 0)"},
                                           {"<f4", "(4,)"},
                                           {"<f4", "(3, 2)"},
                                           {"<f4", "()"},
                                           {"<f4", "(18446744073709551615, 2)"},
                                           {"<f4", "(2, 99999999)"}};
    char file[256];
    struct vectors *vectors;
    size_t n = build_npy(file, "<f4", "(2, 2)", rows, sizeof rows);
    write_file(ids, "\"a\"\n\"b\"\n", 8);
    for (size_t at = 0; at < n; at++) {
        write_file(npy, file, at);
        assert_true(try(npy, &vectors) < 0);
    }
    write_file(npy, file, n);
    for (size_t at = 0; at < 8; at++) {
        write_file(ids, "\"a\"\n\"b\"\n", at);
        assert_true(try(npy, &vectors) < 0);
    }
    unlink(ids);
    assert_true(try(npy, &vectors) < 0);
    write_file(ids, "\"a\"\n\"b\"\n", 8);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        write_file(npy, file, build_npy(file, wrong[i][0], wrong[i][1], rows, sizeof rows));
        assert_true(try(npy, &vectors) < 0);
    }
    unlink(npy);
    assert_true(try(npy, &vectors) < 0);
}

static void records(void **state)
{
    (void)state;
    static const char whole[] =
        "{\"v\":1,\"id\":\"a, \\\"embedding\\\":[9]\",\"dtype\":\"|i1\",\"embedding\":[3,-4],"
        "\"fields\":{\"id\":1,\"embedding\":[1],\"dtype\":\"bits\"}}\n\n"
        "{\"id\":\"m\",\"ids\":[\"b\",\"c]\\\",\"],\"embedding\":[[0.0,2],[-1e0,0]]}\n";
    static const float wanted[6] = {0.6f, -0.8f, 0, 1, -1, 0};
    static const char *const wrong[] = {
        "hello\n",
        "{\"id\":1}\n",
        "{\"id\":1,\"embedding\":[]}\n",
        "{\"id\":1,\"embedding\":[1,2\n",
        "{\"id\":1,\"embedding\":[1,]}\n",
        "{\"id\":1,\"embedding\":\"AAAA\"}\n",
        "{\"id\":1,\"embedding\":[[1,2],[3,4]]}\n",
        "{\"id\":1,\"ids\":[1],\"embedding\":[[1,2],[3,4]]}\n",
        "{\"id\":1,\"embedding\":[1,2]}\n{\"id\":2,\"embedding\":[1]}\n",
        "{\"id\":1,\"embedding\":[1]}\n{\"id\":2,\"embedding\":[1,2]}\n",
        "{\"id\":1,\"dtype\":\"bits\",\"embedding\":[1,2]}\n",
    };
    struct vectors *vectors;
    write_file(jsonl, whole, sizeof whole - 1);
    expect_rows(jsonl, wanted, 3, 2);
    assert_int_equal(try(jsonl, &vectors), 0);
    assert_int_equal(vectors_id(vectors, 2).len, 7);
    assert_memory_equal(vectors_id(vectors, 2).ptr, "\"c]\\\",\"", 7);
    vectors_close(vectors);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        write_file(jsonl, wrong[i], strlen(wrong[i]));
        assert_true(try(jsonl, &vectors) < 0);
    }
    for (size_t at = 1; at < sizeof whole - 1; at++) { /* must not read past a cut line */
        write_file(jsonl, whole, at);
        if (try(jsonl, &vectors) == 0)
            vectors_close(vectors);
    }
}

/* One letter a row: l is live, d is not. */
static void expect_live(const char *path, const char *wanted)
{
    struct vectors *vectors;
    size_t n_live = 0;
    assert_int_equal(try(path, &vectors), 0);
    assert_int_equal(vectors_count(vectors), strlen(wanted));
    for (size_t i = 0; wanted[i]; i++) {
        if (vectors_is_live(vectors, i) != (wanted[i] == 'l'))
            fail_msg("row %zu, %s", i, wanted);
        n_live += wanted[i] == 'l';
    }
    assert_int_equal(vectors_count_live(vectors), n_live);
    vectors_close(vectors);
}

#define CHUNK(parent, n)                                                                           \
    "{\"id\":\"" parent "#" #n "\",\"parent\":\"" parent "\",\"chunk\":" #n ",\"start\":0,"        \
    "\"end\":9}\n"

static const struct {
    const char *ids, *deleted, *wanted;
} lives[] = {
    {"\"a\"\n\"b\"\n\"a\"\n", NULL, "dll"},
    {"\"a\"\n\"b\"\n\"a\"\n", "{\"id\":\"a\",\"before\":2}\n", "dll"},
    {"\"a\"\n\"b\"\n\"a\"\n", "{\"id\":\"a\",\"before\":3}\n", "dld"},
    {"\"a\"\n\"b\"\n\"a\"\n", "{\"id\":\"a\",\"before\":3}\n{\"id\":\"a\",\"before\":1}\n", "dld"},
    {"\"a\"\n\"b\"\n", "{\"id\":\"c\",\"before\":2}\n{\"id\":\"b\",\"bef", "ll"},
    {"\"\\\",\\\"before\\\":9\"\n\"b\"\n", "{\"id\":\"\\\",\\\"before\\\":9\",\"before\":1}\n",
     "dl"},
    /* Fewer chunks, more, none, some again. */
    {CHUNK("a", 0) CHUNK("a", 1) CHUNK("a", 2) CHUNK("a", 0) CHUNK("a", 1), NULL, "dddll"},
    {CHUNK("a", 0) "\"b\"\n" CHUNK("a", 0) CHUNK("a", 1), NULL, "dlll"},
    {CHUNK("a", 0) CHUNK("a", 1) "\"a\"\n", NULL, "ddl"},
    {"\"a\"\n" CHUNK("a", 0) CHUNK("a", 1), NULL, "dll"},
    {CHUNK("a", 0) CHUNK("a", 1) "\"b\"\n", "{\"id\":\"a\",\"before\":2}\n", "ddl"},
    {"\"a#0\"\n\"a\"\n", NULL, "ll"}, /* an id like a chunk's, of a whole text */
};

static void live_rows(void **state)
{
    (void)state;
    static const float rows[16] = {1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0};
    char file[256], deleted[130], shape[40];
    snprintf(deleted, sizeof deleted, "%s.deleted.jsonl", npy);
    for (size_t i = 0; i < sizeof lives / sizeof lives[0]; i++) {
        size_t n = strlen(lives[i].wanted);
        snprintf(shape, sizeof shape, "(%zu, 2)", n);
        write_file(ids, lives[i].ids, strlen(lives[i].ids));
        write_file(npy, file, build_npy(file, "<f4", shape, rows, n * 2 * sizeof(float)));
        unlink(deleted);
        if (lives[i].deleted)
            write_file(deleted, lives[i].deleted, strlen(lives[i].deleted));
        expect_live(npy, lives[i].wanted);
    }
    write_file(deleted, "nothing\n", 8);
    struct vectors *vectors;
    assert_int_equal(try(npy, &vectors), -EBADMSG);
    unlink(deleted);
}

#define PIECES(parents) ",\"parent\":[" parents "],\"source\":\"c:1\"}\n"

/* Who cuts texts by himself may call them as we call chunks; then each is a text. */
static void live_own_names(void **state)
{
    (void)state;
    static const struct {
        const char *lines, *wanted;
    } cases[] = {
        {"{\"id\":\"p#0\",\"embedding\":[1,0],\"source\":\"c:1\"}\n"
         "{\"id\":\"p#1\",\"embedding\":[1,0],\"source\":\"c:2\"}\n"
         "{\"id\":\"p#0\",\"embedding\":[1,0],\"source\":\"c:3\"}\n",
         "dll"},
        {"{\"id\":\"p#1\",\"embedding\":[1,0],\"source\":\"c:1\"}\n"
         "{\"id\":\"p#1\",\"embedding\":[1,0],\"source\":\"c:1\"}\n",
         "dl"},
        {"{\"id\":\"m\",\"ids\":[\"p#0\",\"p#1\"],\"embedding\":[[1,0],[1,0]],\"source\":\"c:1\","
         "\"fields\":{\"parent\":[\"p\",\"p\"]}}\n"
         "{\"id\":\"p#0\",\"embedding\":[1,0],\"source\":\"c:3\"}\n",
         "dll"},
        {"{\"id\":\"m\",\"ids\":[\"p#0\",\"q#0\",\"q#1\"],\"embedding\":[[1,0],[1,0],[1,0]]" PIECES(
             "null,\"q\",\"q\"") "{\"id\":\"q\",\"embedding\":[1,0],\"source\":\"c:3\"}\n",
         "lddl"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file(jsonl, cases[i].lines, strlen(cases[i].lines));
        expect_live(jsonl, cases[i].wanted);
    }
}

/* Of a record with two texts one is deleted: the copy knows that of all of its chunks. */
static void compact_record(void **state)
{
    (void)state;
    static const char lines[] =
        "{\"id\":\"m\",\"ids\":[\"a\",\"b#0\",\"b#1\"],\"embedding\":[[1,0],[1,0],[1,0]]" PIECES(
            "null,\"b\",\"b\"");
    char deleted[130], line[60], copy[130], copy_deleted[150], err[400];
    struct compacted compacted;
    snprintf(deleted, sizeof deleted, "%s.deleted.jsonl", jsonl);
    snprintf(copy, sizeof copy, "%s/copy.jsonl", folder);
    snprintf(copy_deleted, sizeof copy_deleted, "%s.deleted.jsonl", copy);
    write_file(jsonl, lines, sizeof lines - 1);
    int n = snprintf(line, sizeof line, "{\"id\":\"b\",\"before\":%zu}\n", sizeof lines - 1);
    write_file(deleted, line, (size_t)n);
    expect_live(jsonl, "ldd");
    assert_int_equal(compact_copy(jsonl, copy, &compacted, err, sizeof err), 0);
    assert_int_equal(compacted.kept, 1);
    expect_live(copy, "ldd");
    unlink(deleted);
    unlink(copy);
    unlink(copy_deleted);
}

/* Places are bytes there. */
static void live_records(void **state)
{
    (void)state;
    static const char lines[] =
        "{\"id\":7,\"embedding\":[1,0]}\n"
        "{\"id\":\"b\",\"ids\":[\"b#0\",\"b#1\"],\"embedding\":[[1,0],[1,0]]" PIECES(
            "\"b\",\"b\"") "{\"id\":\"7\",\"embedding\":[1,0]}\n"
                           "{\"id\":\"b\",\"ids\":[\"b#0\"],\"embedding\":[[1,0]]" PIECES("\"b\"");
    char deleted[130], line[60];
    snprintf(deleted, sizeof deleted, "%s.deleted.jsonl", jsonl);
    write_file(jsonl, lines, sizeof lines - 1);
    expect_live(jsonl, "dddll");
    for (int all = 0; all < 2; all++) {
        const char *third = strstr(lines, "{\"id\":\"7\"");
        size_t before = all ? sizeof lines - 1 : (size_t)(third - lines);
        int n = snprintf(line, sizeof line, "{\"id\":\"7\",\"before\":%zu}\n", before);
        write_file(deleted, line, (size_t)n);
        expect_live(jsonl, all ? "ddddl" : "dddll");
    }
    unlink(deleted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type),     cmocka_unit_test(cut_or_wrong),
        cmocka_unit_test(records),        cmocka_unit_test(live_rows),
        cmocka_unit_test(live_records),   cmocka_unit_test(live_own_names),
        cmocka_unit_test(compact_record),
    };
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
