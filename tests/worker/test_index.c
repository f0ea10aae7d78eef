/*
 * test_index.c: `embedmill index` as users meet it, on the tiny model: what is written, killing it
 * at any time, shards, refusals.
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

#include "tests/support/tiny_model.h"

#define DEADLINE_MS 120000
#define SEED        20261124u

static char folder[] = "/tmp/embedmill-test-XXXXXX";
static char last_err[20000]; /* what the last run said */

static char *path_of(const char *name)
{
    static char paths[8][200];
    static unsigned at;
    char *path = paths[at++ % 8];
    snprintf(path, 200, "%s/%s", folder, name);
    return path;
}

static int open_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? tiny_model_write(path_of("tiny.gguf"), NULL) : -1;
}

static int close_folder(void **state)
{
    (void)state;
    char command[200];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void write_file(const char *name, const char *bytes, size_t n, const char *mode)
{
    FILE *file = fopen(path_of(name), mode);
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

/* "" when there is none. */
static char *read_file(const char *name, size_t *len)
{
    FILE *file = fopen(path_of(name), "r");
    size_t room = 1 << 20, n = 0;
    char *bytes = calloc(1, room);
    assert_non_null(bytes);
    while (file && (n += fread(bytes + n, 1, room - n - 1, file)) == room - 1) {
        bytes = realloc(bytes, room *= 2);
        assert_non_null(bytes);
    }
    if (file)
        fclose(file);
    bytes[n] = '\0';
    if (len)
        *len = n;
    return bytes;
}

static void expect_same(const char *a, const char *b)
{
    size_t len_a, len_b;
    char *bytes_a = read_file(a, &len_a), *bytes_b = read_file(b, &len_b);
    assert_int_equal(len_a, len_b);
    assert_memory_equal(bytes_a, bytes_b, len_a);
    free(bytes_a);
    free(bytes_b);
}

static size_t count_lines(const char *name)
{
    char *bytes = read_file(name, NULL);
    size_t n = 0;
    for (char *at = bytes; (at = strchr(at, '\n')); at++)
        n++;
    free(bytes);
    return n;
}

/* arguments behind `index`, apart by single spaces; names begin with @, which is the folder. */
static pid_t start(const char *line)
{
    char copy[1000], words[40][200];
    char *argv[48] = {EMBEDMILL_BINARY, "index"};
    size_t argc = 2;
    snprintf(copy, sizeof copy, "--threads 2 --model @tiny.gguf %s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "), argc++) {
        argv[argc] = words[argc];
        snprintf(words[argc], sizeof words[argc], "%s%s%s", word[0] == '@' ? folder : "",
                 word[0] == '@' ? "/" : "", word + (word[0] == '@'));
    }
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int err = open(path_of("stderr"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(err, 2);
        dup2(err, 1);
        execv(EMBEDMILL_BINARY, argv);
        _exit(127);
    }
    return pid;
}

/* Exit code, 1000 + signal when killed; kills it itself after the deadline or kill_ms. */
static int finish(pid_t pid, unsigned kill_us)
{
    int status;
    struct timespec pause = {0, 200000};
    for (uint64_t us = 0; waitpid(pid, &status, WNOHANG) == 0; us += 200) {
        if (kill_us && us >= kill_us)
            kill(pid, SIGKILL);
        assert_true(us < DEADLINE_MS * UINT64_C(1000));
        nanosleep(&pause, NULL);
    }
    char *err = read_file("stderr", NULL);
    snprintf(last_err, sizeof last_err, "%s", err);
    free(err);
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int run(const char *line)
{
    return finish(start(line), 0);
}

static void expect_run(const char *line, int code)
{
    int got = run(line);
    if (got != code)
        fprintf(stderr, "index %s: %d and not %d: %s\n", line, got, code, last_err);
    assert_int_equal(got, code);
}

/* Lines with ids; every 50th cannot be embedded, every 7th is like another. */
static void write_corpus(const char *name, size_t n)
{
    char *bytes = malloc(n * 100);
    size_t len = 0;
    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++)
        if (i % 50 == 49)
            len += (size_t)sprintf(bytes + len, "{\"id\":%zu,\"text\":7}\n", i);
        else
            len += (size_t)sprintf(bytes + len,
                                   "{\"id\":%zu,\"text\":\"the text %zu %zu\",\"n\":%zu}\n", i,
                                   i % 7 ? i : 3, i % 5, i * i);
    write_file(name, bytes, len, "w");
    free(bytes);
}

static void forms(void **state)
{
    (void)state;
    size_t len;
    write_corpus("forms.jsonl", 60);
    expect_run("@forms.jsonl -o @forms.out.jsonl", 65);
    assert_int_equal(count_lines("forms.out.jsonl"), 59);
    assert_int_equal(count_lines("forms.out.jsonl.errors.jsonl"), 1);
    char *bytes = read_file("forms.out.jsonl", NULL);
    assert_memory_equal(bytes, "{\"v\":1,\"id\":0,", 14);
    assert_non_null(strstr(bytes, "\"fields\":{\"n\":1}"));
    free(bytes);
    bytes = read_file("forms.out.jsonl.errors.jsonl", NULL);
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
        expect_run(line, 65);
        snprintf(name, sizeof name, "%s.npy", kinds[i].dtype);
        bytes = read_file(name, &len);
        assert_int_equal(len, 128 + 59 * kinds[i].row);
        assert_memory_equal(bytes, "\x93NUMPY\x01\x00\x76\x00{'descr': ", 20);
        assert_memory_equal(bytes + 20, kinds[i].head, strlen(kinds[i].head));
        free(bytes);
        snprintf(name, sizeof name, "%s.npy.ids.jsonl", kinds[i].dtype);
        assert_int_equal(count_lines(name), 59);
    }
    expect_run("@forms.jsonl -o @forms.msgpack", 65);
    bytes = read_file("forms.msgpack", &len);
    assert_true(len > 59 * 256);
    free(bytes);
}

static void plain_lines_and_folders(void **state)
{
    (void)state;
    static const char lines[] = "{\"text\": \"is no JSON here\"}\n\nsecond\n";
    write_file("lines.txt", lines, sizeof lines - 1, "w");
    expect_run("@lines.txt -o @lines.npy", 0);
    char *ids = read_file("lines.npy.ids.jsonl", NULL);
    assert_string_equal(ids, "\"1\"\n\"3\"\n");
    free(ids);

    assert_int_equal(mkdir(path_of("tree"), 0700), 0);
    assert_int_equal(mkdir(path_of("tree/sub"), 0700), 0);
    write_file("tree/b.txt", "bee\n", 4, "w");
    write_file("tree/sub/a.txt", "a\nwhole file\n", 13, "w");
    write_file("tree/.hidden", "not this", 8, "w");
    write_file("tree/empty", "", 0, "w");
    expect_run("@tree -o @tree.npy", 0);
    ids = read_file("tree.npy.ids.jsonl", NULL);
    assert_string_equal(ids, "\"b.txt\"\n\"sub/a.txt\"\n");
    free(ids);
    expect_run("@tree -o @tree/sub/out.npy", 78);
    assert_non_null(strstr(last_err, "would become a part of it"));
    expect_run("@tree -o @tree.lines.npy --file-format lines", 0);
    ids = read_file("tree.lines.npy.ids.jsonl", NULL);
    assert_string_equal(ids, "\"b.txt:1\"\n\"sub/a.txt:1\"\n\"sub/a.txt:2\"\n");
    free(ids);
}

static void expect_equal_outputs(const char *wanted, const char *got)
{
    static const char *const parts[] = {"", ".ids.jsonl", ".errors.jsonl", ".state"};
    for (size_t i = 0; i < 4; i++) {
        char a[120], b[120];
        snprintf(a, sizeof a, "%s%s", wanted, parts[i]);
        snprintf(b, sizeof b, "%s%s", got, parts[i]);
        expect_same(a, b);
    }
}

static unsigned long long records_done(const char *output)
{
    char name[120];
    unsigned long long n = 0;
    snprintf(name, sizeof name, "%s.state", output);
    char *bytes = read_file(name, NULL);
    sscanf(bytes, "embedmill-state 1 records %llu", &n);
    free(bytes);
    return n;
}

/*
 * Kill it again and again, and tear what was not confirmed as a lost power supply might. In the end
 * all is, byte for byte, what one undisturbed run writes.
 */
static void killed(const char *options, const char *output, size_t n, unsigned seed)
{
    static const char *const parts[] = {"", ".ids.jsonl", ".errors.jsonl"};
    char line[300], whole[100], state[120];
    unsigned long long done = 0;
    size_t n_kills = 0;
    struct timespec began, ended;
    srand(seed);
    snprintf(whole, sizeof whole, "whole.%s", output);
    snprintf(line, sizeof line, "%s -o @%s --batch-texts 8 --dtype f2", options, whole);
    clock_gettime(CLOCK_MONOTONIC, &began);
    expect_run(line, 65);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    assert_int_equal(records_done(whole), n);
    unsigned took_us = (unsigned)((ended.tv_sec - began.tv_sec) * 1000000 +
                                  (ended.tv_nsec - began.tv_nsec) / 1000);
    snprintf(state, sizeof state, "%s.state", output);
    snprintf(line, sizeof line, "%s -o @%s --batch-texts 8 --dtype f2", options, output);
    for (;;) {
        /* Ever later, for a build that is slow to start must also get done. */
        unsigned kill_us = (took_us / 3 + 1) * (1 + (unsigned)n_kills / 8);
        int code = finish(start(line), 1 + (unsigned)rand() % kill_us);
        assert_true(records_done(output) >= done);
        done = records_done(output);
        if (code == 65) {
            if (n_kills > 0)
                break;
            unlink(path_of(state));
            unlink(path_of(output)); /* the machine has become faster: once more, and sooner */
            took_us /= 2;
            done = 0;
            continue;
        }
        if (code != 1000 + SIGKILL)
            fail_msg("seed %u: exit code %d: %s", seed, code, last_err);
        assert_true(++n_kills < 500);
        for (size_t i = 0; done > 0 && i < 3; i++) {
            char name[120];
            struct stat about;
            snprintf(name, sizeof name, "%s%s", output, parts[i]);
            if (rand() % 2 && stat(path_of(name), &about) == 0)
                write_file(name, "torn\n", (size_t)(rand() % 6), "a");
        }
    }
    printf("seed %u: %zu kills\n", seed, n_kills);
    expect_equal_outputs(whole, output);
}

static void killed_at_any_time(void **state)
{
    (void)state;
    write_corpus("killed.jsonl", 1500);
    killed("@killed.jsonl", "killed.npy", 1500, SEED);
    killed("@killed.jsonl", "killed.out.jsonl", 1500, SEED + 1);
}

/* Every fifth record is a text of some ten chunks, every 50th cannot be embedded. */
static void killed_with_chunks(void **state)
{
    static const char options[] =
        "@long.jsonl --prompt none --too-long chunk --chunk-tokens 32 --chunk-overlap 4";
    char line[1000];
    (void)state;
    write_file("long.jsonl", "", 0, "w");
    for (size_t i = 0; i < 300; i++) {
        int len = snprintf(line, sizeof line, "{\"id\":%zu,\"text\":%s", i, i % 50 ? "\"" : "7}\n");
        for (size_t n = i % 5 ? 1 : 40; i % 50 && n > 0; n--)
            len += snprintf(line + len, sizeof line - (size_t)len, "the text %zu%s", i + n,
                            n > 1 ? ". " : "\"}\n");
        write_file("long.jsonl", line, (size_t)len, "a");
    }
    killed(options, "chunks.npy", 300, SEED + 2);
    killed(options, "chunks.out.jsonl", 300, SEED + 3);
    assert_true(count_lines("chunks.npy.ids.jsonl") > 294 + 54 * 5);
    char *ids = read_file("chunks.npy.ids.jsonl", NULL);
    assert_memory_equal(ids, "\"1\"\n\"2\"\n", 8);
    assert_non_null(
        strstr(ids, "{\"id\":\"5#0\",\"parent\":\"5\",\"chunk\":0,\"start\":0,\"end\":"));
    free(ids);
    snprintf(line, sizeof line, "%s0 -o @chunks.npy --dtype f2", options); /* 40 of overlap */
    expect_run(line, 78);
    assert_non_null(strstr(last_err, "chunk_tokens: 32, 4 repeated"));
}

/* Told to stop, it finishes what it took and says so; started again, it goes on. */
static void stopped(void **state)
{
    (void)state;
    write_corpus("stopped.jsonl", 3000);
    expect_run("@stopped.jsonl -o @stopped.whole.npy --batch-texts 8", 65);
    pid_t pid = start("@stopped.jsonl -o @stopped.npy --batch-texts 8");
    while (records_done("stopped.npy") == 0)
        usleep(1000);
    kill(pid, SIGTERM);
    int code = finish(pid, 0);
    assert_true(code == 128 + SIGTERM || code == 65);
    assert_int_equal(code, 143);
    expect_run("@stopped.jsonl -o @stopped.npy --batch-texts 8", 65);
    expect_equal_outputs("stopped.whole.npy", "stopped.npy");
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
        all[i] = read_file(name, NULL);
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
    write_corpus("shards.jsonl", 301);
    expect_run("@shards.jsonl -o @all1.jsonl", 65);
    for (int i = 1; i <= 3; i++) {
        char line[100];
        snprintf(line, sizeof line, "@shards.jsonl --shard %d/3 -o @part%d.jsonl", i, i);
        expect_run(line, 65);
    }
    assert_int_equal(count_lines("part1.jsonl") + count_lines("part1.jsonl.errors.jsonl"), 101);
    assert_int_equal(count_lines("part2.jsonl") + count_lines("part2.jsonl.errors.jsonl"), 100);
    char *all = sorted_lines("all%d.jsonl", 1), *parts = sorted_lines("part%d.jsonl", 3);
    assert_string_equal(all, parts);
    free(all);
    free(parts);
    all = sorted_lines("all%d.jsonl.errors.jsonl", 1);
    parts = sorted_lines("part%d.jsonl.errors.jsonl", 3);
    assert_string_equal(all, parts);
    free(all);
    free(parts);
    expect_run("@shards.jsonl --shard 0/3 -o @none.jsonl", 78);
    assert_non_null(strstr(last_err, "expected I/N"));
    expect_run("@shards.jsonl --shard 2/3 -o @part1.jsonl", 78);
    assert_non_null(strstr(last_err, "file.shard: 1/3"));
}

static void refusals(void **state)
{
    (void)state;
    write_corpus("change.jsonl", 40);
    expect_run("@change.jsonl -o @change.npy", 0);
    expect_run("@change.jsonl -o @change.npy", 0);
    expect_run("@change.jsonl -o @change.npy --prompt query", 78);
    assert_non_null(strstr(last_err, "prompt: document"));
    expect_run("@change.jsonl -o @change.npy --dtype i1", 78);
    assert_non_null(strstr(last_err, "dtype: f4"));
    struct tiny_model_options other = TINY_MODEL_DEFAULTS;
    other.seed = 2;
    assert_int_equal(tiny_model_write(path_of("other.gguf"), &other), 0);
    expect_run("--model @other.gguf @change.jsonl -o @change.npy", 78);
}

/* The manifest beside OUT is that of the process that writes OUT, and of nobody who could not. */
static void manifests(void **state)
{
    (void)state;
    static const char bad[] = "{\"id\":1}\n";
    write_corpus("cards.jsonl", 40);
    int fd = open(path_of("held.npy"), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    expect_run("@cards.jsonl -o @held.npy --prompt query", 74);
    assert_non_null(strstr(last_err, "is being written by another process"));
    assert_int_equal(access(path_of("held.npy.index"), F_OK), -1);
    close(fd);
    expect_run("@cards.jsonl -o @held.npy", 0);
    expect_run("@cards.jsonl -o @held.npy --prompt query", 78);

    expect_run("@cards.jsonl -o @cards.npy --too-long chunk --chunk-tokens 1000000", 78);
    expect_run("@cards.jsonl -o @cards.npy --output-format json", 78);
    assert_int_equal(access(path_of("cards.npy.index"), F_OK), -1);
    write_file("cards.npy.index", "mine\n", 5, "w");
    expect_run("@cards.jsonl -o @cards.npy", 78);
    assert_non_null(strstr(last_err, "not the manifest of an index"));
    char *mine = read_file("cards.npy.index", NULL);
    assert_string_equal(mine, "mine\n");
    free(mine);
    write_file("torn.npy.index", "", 0, "w"); /* what a kill left behind is in nobody's way */
    expect_run("@cards.jsonl -o @torn.npy", 0);
    /* Records that came to nothing are done, too, by the options that were given. */
    write_file("dead.jsonl", bad, sizeof bad - 1, "w");
    expect_run("@dead.jsonl -o @dead.out.jsonl", 65);
    expect_run("@dead.jsonl -o @dead.out.jsonl --prompt query", 78);
    assert_non_null(strstr(last_err, "prompt: document"));

    expect_run("@cards.jsonl -o @cards.points.jsonl --output-format qdrant", 0);
    expect_run("--output-collection b @cards.jsonl -o @cards.points.jsonl --output-format qdrant",
               78);
    assert_non_null(strstr(last_err, "output_collection: embeddings"));
}

static void changed_corpus(void **state)
{
    (void)state;
    static const char more[] = "{\"id\":\"new\",\"text\":\"later\"}\n";
    write_corpus("grown.jsonl", 40);
    expect_run("@grown.jsonl -o @grown.npy", 0);
    write_file("grown.jsonl", more, sizeof more - 1, "a"); /* what was added is taken in, too */
    expect_run("@grown.jsonl -o @grown.npy", 0);
    assert_int_equal(count_lines("grown.npy.ids.jsonl"), 41);

    write_file("grown.jsonl", "{\"id\":\"0\"", 9, "r+");
    expect_run("@grown.jsonl -o @grown.npy", 74);
    assert_non_null(strstr(last_err, "the corpus is not what it was"));
    write_file("grown.jsonl", more, sizeof more - 1, "w");
    expect_run("@grown.jsonl -o @grown.npy", 74);
    assert_non_null(strstr(last_err, "the corpus is not what it was"));
    assert_int_equal(count_lines("grown.npy.ids.jsonl"), 41);

    unlink(path_of("grown.npy")); /* then it begins anew */
    expect_run("@grown.jsonl -o @grown.npy", 0);
    assert_int_equal(count_lines("grown.npy.ids.jsonl"), 1);
}

/* What comes to nothing is an array all the same, and does not hinder what comes later. */
static void empty(void **state)
{
    (void)state;
    static const char head[] = "{'descr': '<f2', 'fortran_order': False, 'shape': (0, 64), }";
    static const char bad[] = "{\"id\":1}\n";
    size_t len;
    write_file("empty.jsonl", "", 0, "w");
    for (int i = 0; i < 3; i++) { /* also when it is there, and when all that came is bad */
        expect_run("@empty.jsonl -o @empty.npy --dtype f2", i == 2 ? 65 : 0);
        char *bytes = read_file("empty.npy", &len);
        assert_int_equal(len, 128);
        assert_memory_equal(bytes, "\x93NUMPY\x01\x00\x76\x00", 10);
        assert_memory_equal(bytes + 10, head, sizeof head - 1);
        assert_int_equal(bytes[127], '\n');
        free(bytes);
        if (i == 1)
            write_file("empty.jsonl", bad, sizeof bad - 1, "w");
    }
    write_corpus("more.jsonl", 40);
    char *more = read_file("more.jsonl", &len);
    write_file("empty.jsonl", more, len, "a");
    free(more);
    expect_run("@empty.jsonl -o @empty.npy --dtype f2", 65);
    expect_run("@more.jsonl -o @more.npy --dtype f2", 0);
    expect_same("more.npy", "empty.npy");
    expect_same("more.npy.ids.jsonl", "empty.npy.ids.jsonl");
}

static void rows_of_stores(void **state)
{
    (void)state;
    static const char lines[] = "{\"id\":\"a\",\"text\":\"one\",\"lang\":\"en\"}\n"
                                "{\"id\":2,\"texts\":[\"two\",\"three\"]}\n";
    write_file("rows.jsonl", lines, sizeof lines - 1, "w");
    expect_run("@rows.jsonl -o @rows.csv --dtype i1", 0);
    assert_non_null(strstr(last_err, "gmac_per_second"));
    assert_int_equal(count_lines("rows.csv"), 3);
    char *bytes = read_file("rows.csv", NULL);
    assert_memory_equal(bytes, "\"a\",\"[", 6);
    assert_non_null(strstr(bytes, "]\",\"{\"\"lang\"\":\"\"en\"\"}\"\n\"2/0\",\"["));
    assert_string_equal(bytes + strlen(bytes) - 4, "]\",\n");
    free(bytes);
    expect_run("@rows.jsonl -o @points.jsonl --output-format qdrant --output-collection c", 0);
    assert_int_equal(count_lines("points.jsonl"), 3);
    bytes = read_file("points.jsonl", NULL);
    assert_memory_equal(bytes, "{\"collection_name\":\"c\",\"id\":\"", 29);
    assert_string_equal(bytes + strlen(bytes) - 26, "],\"payload\":{\"id\":\"2/1\"}}\n");
    free(bytes);
    expect_run("@rows.jsonl -o @points.jsonl", 78);
    assert_non_null(strstr(last_err, "output_format: qdrant"));
}

static void hostile(void **state)
{
    (void)state;
    write_corpus("small.jsonl", 10);
    write_file("mine.npy", "precious", 8, "w");
    expect_run("@small.jsonl -o @mine.npy", 74);
    assert_non_null(strstr(last_err, "was not made here"));
    char *bytes = read_file("mine.npy", NULL);
    assert_string_equal(bytes, "precious");
    free(bytes);
    expect_run("@nothing.jsonl -o @x.npy", 74);
    expect_run("@small.jsonl -o @no/such/folder.npy", 74);
    expect_run("@small.jsonl", 64);
    expect_run("-o @x.npy", 64);
    write_file("cut.txt.gz", "\x1f\x8b\x08\0\0\0\0\0", 8, "w");
    expect_run("@cut.txt.gz -o @cut.npy", 74);
    assert_non_null(strstr(last_err, "ends too early"));
    write_file("no.csv", "a,b\n1,2\n", 8, "w");
    expect_run("@no.csv -o @no.npy", 74);
    assert_non_null(strstr(last_err, "--file-column"));
    expect_run("@no.csv --column b -o @no.npy", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(forms),
                                       cmocka_unit_test(plain_lines_and_folders),
                                       cmocka_unit_test(shards),
                                       cmocka_unit_test(refusals),
                                       cmocka_unit_test(manifests),
                                       cmocka_unit_test(changed_corpus),
                                       cmocka_unit_test(hostile),
                                       cmocka_unit_test(stopped),
                                       cmocka_unit_test(killed_at_any_time),
                                       cmocka_unit_test(killed_with_chunks),
                                       cmocka_unit_test(empty),
                                       cmocka_unit_test(rows_of_stores)};
    return cmocka_run_group_tests(tests, open_folder, close_folder);
}
