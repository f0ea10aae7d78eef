/*
 * test_index.c: `embedmill index` as users meet it, on the tiny model: what is written,
 * shards, refusals.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/index_rig.h"
#include "tests/support/tiny_model.h"

static void forms(void **state)
{
    (void)state;
    size_t len;
    index_write_corpus("forms.jsonl", 60);
    index_expect_run("@forms.jsonl -o @forms.out.jsonl", 65);
    assert_int_equal(index_count_lines("forms.out.jsonl"), 59);
    assert_int_equal(index_count_lines("forms.out.jsonl.errors.jsonl"), 1);
    char *bytes = index_read_file("forms.out.jsonl", NULL);
    assert_memory_equal(bytes, "{\"v\":1,\"id\":0,", 14);
    assert_non_null(strstr(bytes, "\"fields\":{\"n\":1}"));
    free(bytes);
    bytes = index_read_file("forms.out.jsonl.errors.jsonl", NULL);
    assert_non_null(
        strstr(bytes, "forms.jsonl:50\",\"id\":\"50\",\"code\":\"bad_field\",\"reason\":"));
    assert_non_null(strstr(bytes, "\"value\":\"{\\\"id\\\":49,\\\"text\\\":7}\"}"));
    free(bytes);

    static const struct {
        const char *dtype, *head;
        size_t row;
    } kinds[] = {{"f4", "'<f4', 'fortran_order': False, 'shape': (59, 64), }", 256},
                 {"f2", "'<f2', 'fortran_order': False, 'shape': (59, 64), }", 128},
                 {"i1", "'|i1', 'fortran_order': False, 'shape': (59, 64), }", 64},
                 {"b1", "'|u1', 'fortran_order': False, 'shape': (59, 8), }", 8}};
    for (size_t i = 0; i < 4; i++) {
        char line[200], name[40];
        snprintf(line, sizeof line, "@forms.jsonl --dtype %s -o @%s.npy", kinds[i].dtype,
                 kinds[i].dtype);
        index_expect_run(line, 65);
        snprintf(name, sizeof name, "%s.npy", kinds[i].dtype);
        bytes = index_read_file(name, &len);
        assert_int_equal(len, 128 + 59 * kinds[i].row);
        assert_memory_equal(bytes, "\x93NUMPY\x01\x00\x76\x00{'descr': ", 20);
        assert_memory_equal(bytes + 20, kinds[i].head, strlen(kinds[i].head));
        free(bytes);
        snprintf(name, sizeof name, "%s.npy.ids.jsonl", kinds[i].dtype);
        assert_int_equal(index_count_lines(name), 59);
    }
    index_expect_run("@forms.jsonl -o @forms.msgpack", 65);
    bytes = index_read_file("forms.msgpack", &len);
    assert_true(len > 59 * 256);
    free(bytes);
}

static void plain_lines_and_folders(void **state)
{
    (void)state;
    static const char lines[] = "{\"text\": \"is no JSON here\"}\n\nsecond\n";
    index_write_file("lines.txt", lines, sizeof lines - 1, "w");
    index_expect_run("@lines.txt -o @lines.npy", 74); /* until somebody says that they are lines */
    assert_non_null(strstr(index_last_err, "--file-format lines"));
    index_expect_run("@lines.txt -o @lines.npy --file-format lines", 0);
    char *ids = index_read_file("lines.npy.ids.jsonl", NULL);
    assert_string_equal(ids, "\"1\"\n\"3\"\n");
    free(ids);

    assert_int_equal(mkdir(index_path_of("tree"), 0700), 0);
    assert_int_equal(mkdir(index_path_of("tree/sub"), 0700), 0);
    index_write_file("tree/b.txt", "bee\n", 4, "w");
    index_write_file("tree/sub/a.txt", "a\nwhole file\n", 13, "w");
    index_write_file("tree/.hidden", "not this", 8, "w");
    index_write_file("tree/empty", "", 0, "w");
    index_expect_run("@tree -o @tree.npy", 0);
    ids = index_read_file("tree.npy.ids.jsonl", NULL);
    assert_string_equal(ids, "\"b.txt\"\n\"sub/a.txt\"\n");
    free(ids);
    index_expect_run("@tree -o @tree/sub/out.npy", 78);
    assert_non_null(strstr(index_last_err, "would become a part of it"));
    index_expect_run("@tree -o @tree.lines.npy --file-format lines", 0);
    ids = index_read_file("tree.lines.npy.ids.jsonl", NULL);
    assert_string_equal(ids, "\"b.txt:1\"\n\"sub/a.txt:1\"\n\"sub/a.txt:2\"\n");
    free(ids);
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The lines of files 0 to n - 1 of a name with a %d in it, sorted. */
static char *sorted_lines(const char *form, int n)
{
    static char *lines[4000];
    size_t n_lines = 0, total = 1;
    char *all[4];
    for (int i = 0; i < n; i++) {
        char name[120];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(name, sizeof name, form, i + 1);
#pragma GCC diagnostic pop
        all[i] = index_read_file(name, NULL);
        total += strlen(all[i]) + 1;
        for (char *line = strtok(all[i], "\n"); line; line = strtok(NULL, "\n"))
            lines[n_lines++] = line;
    }
    qsort(lines, n_lines, sizeof lines[0], compare_lines);
    char *out = calloc(1, total);
    assert_non_null(out);
    size_t len = 0;
    for (size_t i = 0; i < n_lines; i++)
        len += (size_t)sprintf(out + len, "%s\n", lines[i]);
    for (int i = 0; i < n; i++)
        free(all[i]);
    return out;
}

static void shards(void **state)
{
    (void)state;
    index_write_corpus("shards.jsonl", 301);
    index_expect_run("@shards.jsonl -o @all1.jsonl", 65);
    for (int i = 1; i <= 3; i++) {
        char line[100];
        snprintf(line, sizeof line, "@shards.jsonl --shard %d/3 -o @part%d.jsonl", i, i);
        index_expect_run(line, 65);
    }
    assert_int_equal(
        index_count_lines("part1.jsonl") + index_count_lines("part1.jsonl.errors.jsonl"), 101);
    assert_int_equal(
        index_count_lines("part2.jsonl") + index_count_lines("part2.jsonl.errors.jsonl"), 100);
    char *all = sorted_lines("all%d.jsonl", 1), *parts = sorted_lines("part%d.jsonl", 3);
    assert_string_equal(all, parts);
    free(all);
    free(parts);
    all = sorted_lines("all%d.jsonl.errors.jsonl", 1);
    parts = sorted_lines("part%d.jsonl.errors.jsonl", 3);
    assert_string_equal(all, parts);
    free(all);
    free(parts);
    index_expect_run("@shards.jsonl --shard 0/3 -o @none.jsonl", 78);
    assert_non_null(strstr(index_last_err, "expected I/N"));
    index_expect_run("@shards.jsonl --shard 2/3 -o @part1.jsonl", 78);
    assert_non_null(strstr(index_last_err, "file.shard: 1/3"));
}

static void refusals(void **state)
{
    (void)state;
    index_write_corpus("change.jsonl", 40);
    index_expect_run("@change.jsonl -o @change.npy", 0);
    index_expect_run("@change.jsonl -o @change.npy", 0);
    index_expect_run("@change.jsonl -o @change.npy --prompt query", 78);
    assert_non_null(strstr(index_last_err, "prompt: document"));
    index_expect_run("@change.jsonl -o @change.npy --dtype i1", 78);
    assert_non_null(strstr(index_last_err, "dtype: f4"));
    struct tiny_model_options other = TINY_MODEL_DEFAULTS;
    other.seed = 2;
    assert_int_equal(tiny_model_write(index_path_of("other.gguf"), &other), 0);
    index_expect_run("--model @other.gguf @change.jsonl -o @change.npy", 78);
}

/* The manifest beside OUT is that of the process that writes OUT, and of nobody who could not. */
static void manifests(void **state)
{
    (void)state;
    static const char bad[] = "{\"id\":1}\n";
    index_write_corpus("cards.jsonl", 40);
    int fd = open(index_path_of("held.npy"), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    index_expect_run("@cards.jsonl -o @held.npy --prompt query", 74);
    assert_non_null(strstr(index_last_err, "is being written by another process"));
    assert_int_equal(access(index_path_of("held.npy.index"), F_OK), -1);
    close(fd);
    index_expect_run("@cards.jsonl -o @held.npy", 0);
    index_expect_run("@cards.jsonl -o @held.npy --prompt query", 78);

    index_expect_run("@cards.jsonl -o @cards.npy --too-long chunk --chunk-tokens 1000000", 78);
    index_expect_run("@cards.jsonl -o @cards.npy --output-format json", 78);
    assert_int_equal(access(index_path_of("cards.npy.index"), F_OK), -1);
    index_write_file("cards.npy.index", "mine\n", 5, "w");
    index_expect_run("@cards.jsonl -o @cards.npy", 78);
    assert_non_null(strstr(index_last_err, "not the manifest of an index"));
    char *mine = index_read_file("cards.npy.index", NULL);
    assert_string_equal(mine, "mine\n");
    free(mine);
    index_write_file("torn.npy.index", "", 0, "w"); /* what a kill left behind is in nobody's way */
    index_expect_run("@cards.jsonl -o @torn.npy", 0);
    /* Records that came to nothing are done, too, by the options that were given. */
    index_write_file("dead.jsonl", bad, sizeof bad - 1, "w");
    index_expect_run("@dead.jsonl -o @dead.out.jsonl", 65);
    index_expect_run("@dead.jsonl -o @dead.out.jsonl --prompt query", 78);
    assert_non_null(strstr(index_last_err, "prompt: document"));

    index_expect_run("@cards.jsonl -o @cards.points.jsonl --output-format qdrant", 0);
    index_expect_run(
        "--output-collection b @cards.jsonl -o @cards.points.jsonl --output-format qdrant", 78);
    assert_non_null(strstr(index_last_err, "output_collection: embeddings"));
}

static void changed_corpus(void **state)
{
    (void)state;
    static const char more[] = "{\"id\":\"new\",\"text\":\"later\"}\n";
    index_write_corpus("grown.jsonl", 40);
    index_expect_run("@grown.jsonl -o @grown.npy", 0);
    index_write_file("grown.jsonl", more, sizeof more - 1,
                     "a"); /* what was added is taken in, too */
    index_expect_run("@grown.jsonl -o @grown.npy", 0);
    assert_int_equal(index_count_lines("grown.npy.ids.jsonl"), 41);

    index_write_file("grown.jsonl", "{\"id\":\"0\"", 9, "r+");
    index_expect_run("@grown.jsonl -o @grown.npy", 74);
    assert_non_null(strstr(index_last_err, "the corpus is not what it was"));
    index_write_file("grown.jsonl", more, sizeof more - 1, "w");
    index_expect_run("@grown.jsonl -o @grown.npy", 74);
    assert_non_null(strstr(index_last_err, "the corpus is not what it was"));
    assert_int_equal(index_count_lines("grown.npy.ids.jsonl"), 41);

    unlink(index_path_of("grown.npy")); /* then it begins anew */
    index_expect_run("@grown.jsonl -o @grown.npy", 0);
    assert_int_equal(index_count_lines("grown.npy.ids.jsonl"), 1);
}

/* What comes to nothing is an array all the same, and does not hinder what comes later. */
static void empty(void **state)
{
    (void)state;
    static const char head[] = "{'descr': '<f2', 'fortran_order': False, 'shape': (0, 64), }";
    static const char bad[] = "{\"id\":1}\n";
    size_t len;
    index_write_file("empty.jsonl", "", 0, "w");
    for (int i = 0; i < 3; i++) { /* also when it is there, and when all that came is bad */
        index_expect_run("@empty.jsonl -o @empty.npy --dtype f2", i == 2 ? 65 : 0);
        char *bytes = index_read_file("empty.npy", &len);
        assert_int_equal(len, 128);
        assert_memory_equal(bytes, "\x93NUMPY\x01\x00\x76\x00", 10);
        assert_memory_equal(bytes + 10, head, sizeof head - 1);
        assert_int_equal(bytes[127], '\n');
        free(bytes);
        if (i == 1)
            index_write_file("empty.jsonl", bad, sizeof bad - 1, "w");
    }
    index_write_corpus("more.jsonl", 40);
    char *more = index_read_file("more.jsonl", &len);
    index_write_file("empty.jsonl", more, len, "a");
    free(more);
    index_expect_run("@empty.jsonl -o @empty.npy --dtype f2", 65);
    index_expect_run("@more.jsonl -o @more.npy --dtype f2", 0);
    index_expect_same("more.npy", "empty.npy");
    index_expect_same("more.npy.ids.jsonl", "empty.npy.ids.jsonl");
}

static void rows_of_stores(void **state)
{
    (void)state;
    static const char lines[] = "{\"id\":\"a\",\"text\":\"one\",\"lang\":\"en\"}\n"
                                "{\"id\":2,\"texts\":[\"two\",\"three\"]}\n";
    index_write_file("rows.jsonl", lines, sizeof lines - 1, "w");
    index_expect_run("@rows.jsonl -o @rows.csv --dtype i1", 0);
    assert_non_null(strstr(index_last_err, "gmac_per_second"));
    assert_int_equal(index_count_lines("rows.csv"), 3);
    char *bytes = index_read_file("rows.csv", NULL);
    assert_memory_equal(bytes, "\"a\",\"[", 6);
    assert_non_null(strstr(bytes, "]\",\"{\"\"lang\"\":\"\"en\"\"}\"\n\"2/0\",\"["));
    assert_string_equal(bytes + strlen(bytes) - 4, "]\",\n");
    free(bytes);
    index_expect_run("@rows.jsonl -o @points.jsonl --output-format qdrant --output-collection c",
                     0);
    assert_int_equal(index_count_lines("points.jsonl"), 3);
    bytes = index_read_file("points.jsonl", NULL);
    assert_memory_equal(bytes, "{\"collection_name\":\"c\",\"id\":\"", 29);
    assert_string_equal(bytes + strlen(bytes) - 26, "],\"payload\":{\"id\":\"2/1\"}}\n");
    free(bytes);
    index_expect_run("@rows.jsonl -o @points.jsonl", 78);
    assert_non_null(strstr(index_last_err, "output_format: qdrant"));
}

static void hostile(void **state)
{
    (void)state;
    index_write_corpus("small.jsonl", 10);
    index_write_file("mine.npy", "precious", 8, "w");
    index_expect_run("@small.jsonl -o @mine.npy", 74);
    assert_non_null(strstr(index_last_err, "was not made here"));
    char *bytes = index_read_file("mine.npy", NULL);
    assert_string_equal(bytes, "precious");
    free(bytes);
    index_expect_run("@nothing.jsonl -o @x.npy", 74);
    index_expect_run("@small.jsonl -o @no/such/folder.npy", 74);
    index_expect_run("@small.jsonl", 64);
    index_expect_run("-o @x.npy", 64);
    index_write_file("cut.txt.gz", "\x1f\x8b\x08\0\0\0\0\0", 8, "w");
    index_expect_run("@cut.txt.gz -o @cut.npy", 74);
    assert_non_null(strstr(index_last_err, "ends too early"));
    index_write_file("no.csv", "a,b\n1,2\n", 8, "w");
    index_expect_run("@no.csv -o @no.npy", 74);
    assert_non_null(strstr(index_last_err, "--file-column"));
    index_expect_run("@no.csv --column b -o @no.npy", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms),         cmocka_unit_test(plain_lines_and_folders),
        cmocka_unit_test(shards),        cmocka_unit_test(refusals),
        cmocka_unit_test(manifests),     cmocka_unit_test(changed_corpus),
        cmocka_unit_test(hostile),       cmocka_unit_test(empty),
        cmocka_unit_test(rows_of_stores)};
    return cmocka_run_group_tests(tests, index_open_folder, index_close_folder);
}
