/*
 * test_index_files.c: `embedmill index` on files as people have them, on the tiny model: what is no
 * text, corpora that grow, CSV of spreadsheets. What is in the bytes is tested in test_file_bytes.c
 * and test_file_records.c; here, what becomes of it in outputs, errors and exit codes.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "tests/support/program.h"

enum { DATA = 65, FAILED = 74, CONFIG = 78 };

static char *said; /* by the last run, on standard error */

static char *path_of(const char *name)
{
    static char paths[8][200];
    static unsigned at;
    char *path = paths[at++ % 8];
    snprintf(path, 200, "%s/d/%s", program_folder, name);
    return path;
}

static int open_folder(void **state)
{
    (void)state;
    char path[200];
    snprintf(path, sizeof path, "%s/d", program_folder);
    return mkdir(path, 0700);
}

static int remove_folder(void **state)
{
    (void)state;
    char command[300];
    free(said);
    said = NULL;
    snprintf(command, sizeof command, "rm -rf %s/d", program_folder);
    return system(command);
}

static void write_bytes(const char *name, const char *bytes, size_t n)
{
    FILE *file = fopen(path_of(name), "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}
#define WRITE(name, literal) write_bytes(name, literal, sizeof(literal) - 1)

static void write_gzip(const char *name, const char *text)
{
    gzFile file = gzopen(path_of(name), "w");
    assert_non_null(file);
    assert_int_equal(gzputs(file, text), strlen(text));
    assert_int_equal(gzclose(file), Z_OK);
}

/* "" when there is none. */
static char *read_all(const char *name, size_t *len)
{
    FILE *file = fopen(path_of(name), "r");
    char *bytes = calloc(1, 100000);
    assert_non_null(bytes);
    size_t n = file ? fread(bytes, 1, 99999, file) : 0;
    if (file)
        fclose(file);
    if (len)
        *len = n;
    return bytes;
}

/* @ in the line is the folder of the test. input: what comes by a pipe, or NULL. */
static void expect_run_on(int code, const char *line, const char *input)
{
    int in = program_scratch();
    char full[900] = "index ";
    int out = program_scratch(), err = program_scratch();
    size_t n = strlen(full);
    for (const char *at = line; *at; at++)
        n += (size_t)(*at == '@' ? snprintf(full + n, sizeof full - n, "%s/d/", program_folder)
                                 : snprintf(full + n, sizeof full - n, "%c", *at));
    if (input)
        assert_int_equal(pwrite(in, input, strlen(input), 0), strlen(input));
    int got = program_wait(program_start(full, NULL, in, out, err));
    free(said);
    said = program_said(err, NULL);
    if (got != code)
        fail_msg("%s: exit code %d, not %d: %s", line, got, code, said);
}

static void expect_run(int code, const char *line)
{
    expect_run_on(code, line, NULL);
}

static void expect_content(const char *name, const char *wanted)
{
    char *bytes = read_all(name, NULL);
    assert_string_equal(bytes, wanted);
    free(bytes);
}

/* Each of the words, up to NULL, in this order, and `lines` lines. */
static void expect_errors(const char *name, size_t lines, ...)
{
    char *bytes = read_all(name, NULL), *at = bytes;
    size_t n = 0;
    va_list words;
    va_start(words, lines);
    for (const char *word; (word = va_arg(words, const char *)); at += strlen(word)) {
        char *found = strstr(at, word);
        if (!found)
            fail_msg("no '%s' in: %s", word, at);
        at = found;
    }
    va_end(words);
    for (at = bytes; (at = strchr(at, '\n')); at++)
        n++;
    assert_int_equal(n, lines);
    free(bytes);
}

static void expect_same(const char *a, const char *b)
{
    size_t len_a, len_b;
    char *bytes_a = read_all(a, &len_a), *bytes_b = read_all(b, &len_b);
    assert_true(len_a > 0);
    assert_int_equal(len_a, len_b);
    assert_memory_equal(bytes_a, bytes_b, len_a);
    free(bytes_a);
    free(bytes_b);
}

#define PNG "\x89PNG\r\n\x1a\n\0\0\0\rIHDR"

/* In a folder, what cannot be read as text is passed over and listed; all else is served. */
static void folder_of_all_sorts(void **state)
{
    (void)state;
    mkdir(path_of("in"), 0700);
    WRITE("in/a.txt", "a ferry");
    write_gzip("in/b.txt.gz", "a boat");
    WRITE("in/c.png", PNG);
    write_gzip("in/d.txt.gz", "a pier that was cut");
    assert_int_equal(truncate(path_of("in/d.txt.gz"), 25), 0);
    WRITE("in/e.txt", "\xff\xfe"
                      "a\0 \0q\0u\0a\0y\0");
    write_gzip("in/f.gz", "BZh91AY&SY\x8c\x22");
    WRITE("in/g.txt", "a harbour");
    for (int round = 0; round < 2; round++) {
        expect_run(DATA, "@in -o @out.npy");
        expect_content("out.npy.ids.jsonl", "\"a.txt\"\n\"b.txt.gz\"\n\"e.txt\"\n\"g.txt\"\n");
        expect_errors("out.npy.errors.jsonl", 3, "c.png\",\"code\":\"not_text\"", "a PNG image",
                      "d.txt.gz\",\"code\":\"damaged_file\"", "it was cut",
                      "f.gz\",\"code\":\"not_text\"", "packed twice", NULL);
    }
    assert_non_null(strstr(said, "out.npy.errors.jsonl"));
}

/* Each is one text, as documented, but rarely what was meant. */
static void folder_of_records(void **state)
{
    (void)state;
    mkdir(path_of("in"), 0700);
    WRITE("in/a.jsonl", "{\"id\":1,\"text\":\"a ferry\"}\n{\"id\":2,\"text\":\"a boat\"}\n");
    WRITE("in/b.txt", "a harbour");
    expect_run(0, "@in -o @whole.npy");
    expect_content("whole.npy.ids.jsonl", "\"a.jsonl\"\n\"b.txt\"\n");
    assert_non_null(strstr(said, "1 files of this folder have lines or rows"));
    assert_int_equal(unlink(path_of("in/b.txt")), 0);
    expect_run(0, "@in -o @records.npy --file-format jsonl");
    expect_content("records.npy.ids.jsonl", "\"1\"\n\"2\"\n");
    assert_null(strstr(said, "files of this folder"));
}

/* Folders so deep that no call takes their path: nobody, not even root, can open what is in them.
 */
static void make_too_deep(const char *folder)
{
    char name[251], here[500];
    assert_non_null(getcwd(here, sizeof here));
    memset(name, 'd', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(chdir(folder), 0);
    for (int i = 0; i < 18; i++) {
        assert_int_equal(mkdir(name, 0700), 0);
        assert_int_equal(chdir(name), 0);
    }
    assert_int_equal(chdir(here), 0);
}

/* Links in circles and pipes are left out; what cannot be opened is an error of its own. */
static void folder_of_odd_files(void **state)
{
    (void)state;
    mkdir(path_of("in"), 0700);
    mkdir(path_of("in/inner"), 0700);
    WRITE("in/inner/a.txt", "a ferry");
    assert_int_equal(symlink(".", path_of("in/here")), 0);
    assert_int_equal(symlink("..", path_of("in/inner/up")), 0);
    assert_int_equal(symlink("itself", path_of("in/itself")), 0);
    assert_int_equal(symlink("nowhere", path_of("in/nowhere")), 0);
    assert_int_equal(symlink("inner", path_of("in/other")), 0);
    assert_int_equal(mkfifo(path_of("in/pipe.txt"), 0600), 0);
    assert_int_equal(symlink("/dev/zero", path_of("in/zero")), 0);
    WRITE("in/z.txt", "a harbour");
    expect_run(0, "@in -o @out.npy");
    expect_content("out.npy.ids.jsonl", "\"inner/a.txt\"\n\"other/a.txt\"\n\"z.txt\"\n");
    make_too_deep(path_of("in/inner"));
    for (int round = 0; round < 2; round++) {
        expect_run(DATA, "@in -o @deep.npy");
        expect_content("deep.npy.ids.jsonl", "\"inner/a.txt\"\n\"other/a.txt\"\n\"z.txt\"\n");
        expect_errors("deep.npy.errors.jsonl", 2, "\"code\":\"unreadable_file\"", NULL);
    }
}

/* A limit on the size of files is like a full disk: it ends the run with a sentence, and once it is
 * lifted the run goes on. */
static void size_limit(void **state)
{
    (void)state;
    struct rlimit before, limit;
    char lines[6000] = "";
    for (int i = 0; i < 300; i++)
        strcat(lines, "a ferry\n");
    write_bytes("in.txt", lines, strlen(lines));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = (struct rlimit){30000, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    expect_run(FAILED, "@in.txt -o @out.jsonl");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_non_null(strstr(said, "File too large"));
    expect_run(0, "@in.txt -o @out.jsonl");
    expect_run(0, "@in.txt -o @whole.jsonl");
    expect_same("out.jsonl", "whole.jsonl");
}

/* A pipe of the file system to which nobody writes yet is waited for. */
static void pipe_without_a_writer(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(path_of("in.jsonl"), 0600), 0);
    char command[500];
    snprintf(command, sizeof command, "(sleep 0.5; echo '{\"id\":1,\"text\":\"a ferry\"}') >%s &",
             path_of("in.jsonl"));
    assert_int_equal(system(command), 0);
    expect_run(0, "@in.jsonl -o @out.npy");
    expect_content("out.npy.ids.jsonl", "\"1\"\n");
}

/* Alone it ends the reading, with its name and without an output. */
static void not_text(void **state)
{
    (void)state;
    WRITE("c.png", PNG);
    WRITE("c.txt", "a ferry\0a boat\n");
    WRITE("c.json", "[\n  {\"text\": \"a ferry\"}\n]\n");
    WRITE("c.jsonl", "{\n  \"text\": \"a ferry\"\n}\n");
    WRITE("c.csv", "id,body\n1,a ferry\n");
    static const char *const cases[][2] = {
        {"c.png", "a PNG image, not text"},
        {"c.txt", "NUL bytes"},
        {"c.json", "c.json: it is a JSON array"},
        {"c.jsonl", "pretty-printed JSON"},
        {"c.csv", "no column 'text'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char line[100];
        snprintf(line, sizeof line, "@%s -o @out%zu.jsonl", cases[i][0], i);
        expect_run(FAILED, line);
        assert_non_null(strstr(said, cases[i][1]));
        snprintf(line, sizeof line, "out%zu.jsonl", i);
        expect_content(line, "");
    }
}

/* A line that was half written is taken when it is whole, and so is one that only lacked its end.
 */
static void grown(void **state)
{
    (void)state;
    static const char *const outputs[] = {"out.npy", "out.jsonl"};
#define FIRST  "{\"id\":1,\"text\":\"a ferry\"}\n"
#define SECOND FIRST "{\"id\":2,\"text\":\"a boat\"}"
    static const char *const stages[] = {
        FIRST "{\"id\":2,\"text\":\"a bo",
        SECOND,
        SECOND,
        SECOND "\n{\"id\":3,\"text\":\"a q",
        SECOND "\n{\"id\":3,\"text\":\"a quay\"}\n",
    };
#undef SECOND
#undef FIRST
    enum { N = sizeof stages / sizeof stages[0] };
    for (size_t o = 0; o < 2; o++) {
        char line[100], errors[60], whole[60];
        snprintf(errors, sizeof errors, "%s.errors.jsonl", outputs[o]);
        for (size_t i = 0; i < N; i++) {
            bool is_cut = i == 0 || i == 3;
            write_bytes("in.jsonl", stages[i], strlen(stages[i]));
            snprintf(line, sizeof line, "@in.jsonl -o @%s", outputs[o]);
            expect_run(is_cut ? DATA : 0, line);
            expect_errors(errors, is_cut, is_cut ? "bad_json" : NULL, NULL);
        }
        snprintf(whole, sizeof whole, "whole.%s", outputs[o]);
        snprintf(line, sizeof line, "@in.jsonl -o @%s", whole);
        expect_run(0, line);
        expect_same(outputs[o], whole);
    }
    expect_same("out.npy.ids.jsonl", "whole.out.npy.ids.jsonl");
    WRITE("in.jsonl", "{\"id\":7,\"text\":\"a ferry\"}\n{\"id\":2,\"text\":\"a boat\"}\n");
    expect_run(FAILED, "@in.jsonl -o @out.npy"); /* what was counted in must not change */
}

/* A row with a quoted cell that was still being written took the end of the file with it. */
static void grown_csv(void **state)
{
    (void)state;
    WRITE("in.csv", "id,text\n1,a ferry\n2,\"a boat,\nand");
    expect_run(DATA, "@in.csv -o @out.npy");
    expect_content("out.npy.ids.jsonl", "\"1\"\n");
    expect_errors("out.npy.errors.jsonl", 1, "in.csv:3", "bad_csv", "lines 3 to 4",
                  "\"value\":\"2,\\\"a boat,\\nand\"", NULL);
    WRITE("in.csv", "id,text\n1,a ferry\n2,\"a boat,\nand oars\"\n3,a quay");
    expect_run(0, "@in.csv -o @out.npy");
    expect_content("out.npy.ids.jsonl", "\"1\"\n\"2\"\n\"3\"\n");
    expect_errors("out.npy.errors.jsonl", 0, NULL);
}

static void csv(void **state)
{
    (void)state;
    mkdir(path_of("in"), 0700);
    WRITE("in/a.csv", "sep=;\r\nid;text\r\n1;a, ferry\r\n");
    WRITE("in/b.csv", "id,body\n2,a boat\n3,a boat\n");
    WRITE("in/c.tsv", "text\na pier, and more\n");
    WRITE("in/d.csv", "ID,Text\n4,\"a quay\n5,a mole\n6,a \"\"dock\"\"\"\n7,an F\xe4hre\n");
    expect_run(DATA, "@in --file-format csv -o @out.npy");
    expect_content("out.npy.ids.jsonl", "\"1\"\n\"c.tsv:2\"\n\"4\"\n\"7\"\n");
    expect_errors("out.npy.errors.jsonl", 1, "b.csv", "bad_csv", "no column 'text'", NULL);
    expect_run(DATA, "@in --file-format csv --bad-utf8 error -o @out.jsonl");
    expect_errors("out.jsonl.errors.jsonl", 2, "b.csv", "d.csv:5", "bad_utf8", "column 'Text'",
                  "value_base64", NULL);

    WRITE("e.csv", "id~text\n1~a, ferry; a boat\n");
    expect_run(FAILED, "@e.csv -o @e.npy");
    expect_run(0, "@e.csv --file-delimiter ~ -o @e.npy");
    WRITE("e.txt", "id\ttext\n1\ta ferry\n");
    expect_run(0, "@e.txt --file-format csv --file-delimiter tab -o @tab.npy");
    expect_content("tab.npy.ids.jsonl", "\"1\"\n");
    expect_run(CONFIG, "@e.csv --file-delimiter \" -o @f.npy");
    assert_non_null(strstr(said, "file.delimiter"));
}

/* A pipe has no name, so each line tells what it is; unless it is said. */
static void standard_input(void **state)
{
    (void)state;
    static const char lines[] = "{\"id\":\"a\",\"text\":\"a ferry\"}\na boat\n{\"id\":\"c\"}\n";
    expect_run_on(DATA, "- -o @out.npy", lines);
    expect_content("out.npy.ids.jsonl", "\"a\"\n\"2\"\n");
    expect_errors("out.npy.errors.jsonl", 1, "-:3", "no_text", NULL);
    expect_run_on(0, "- --file-format lines -o @lines.npy", lines);
    expect_content("lines.npy.ids.jsonl", "\"1\"\n\"2\"\n\"3\"\n");
    expect_run_on(FAILED, "- -o @png.npy", "\x89PNG\r\n\x1a\n");
    assert_non_null(strstr(said, "standard input is a PNG image"));
    expect_run_on(FAILED, "- -o @array.npy", "[\n  {\"text\": \"a ferry\"}\n]\n");
    assert_non_null(strstr(said, "standard input: it is a JSON array"));
}

/* Cut by other rules, "1#1" would be another part of the text than the one that is there. */
static void other_rules(void **state)
{
    static const char command[] =
        "@in.txt -o @out.npy --prompt none --too-long chunk --chunk-tokens 32 --chunk-overlap 4";
    char line[1000] = "";
    size_t len;
    (void)state;
    for (size_t i = 0; i < 20; i++)
        strcat(line, "All that comes to us is here. ");
    write_bytes("in.txt", line, strlen(line));
    expect_run(0, command);
    char *card = read_all("out.npy.index", &len), *rules = strstr(card, ", sentences by ");
    assert_non_null(rules);
    write_bytes("out.npy.index", card, (size_t)(rules - card)); /* as before there were any */
    free(card);
    expect_run(78, command);
    assert_non_null(strstr(said, "chunk_tokens: 32, 4 repeated, and this is chunk_tokens: 32, 4 "
                                 "repeated, sentences by Unicode"));
    assert_non_null(strstr(said, "`embedmill migrate` this one"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(folder_of_all_sorts, open_folder, remove_folder),
        cmocka_unit_test_setup_teardown(folder_of_records, open_folder, remove_folder),
        cmocka_unit_test_setup_teardown(folder_of_odd_files, open_folder, remove_folder),
        cmocka_unit_test_setup_teardown(size_limit, open_folder, remove_folder),
        cmocka_unit_test_setup_teardown(pipe_without_a_writer, open_folder, remove_folder),
        cmocka_unit_test_setup_teardown(not_text, open_folder, remove_folder),
        cmocka_unit_test_setup_teardown(grown, open_folder, remove_folder),
        cmocka_unit_test_setup_teardown(grown_csv, open_folder, remove_folder),
        cmocka_unit_test_setup_teardown(standard_input, open_folder, remove_folder),
        cmocka_unit_test_setup_teardown(other_rules, open_folder, remove_folder),
        cmocka_unit_test_setup_teardown(csv, open_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
