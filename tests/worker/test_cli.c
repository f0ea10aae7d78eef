/*
 * test_cli.c: the program as users meet it: exit codes, standard streams.
 *
 * The model is the tiny one of tiny_model.h, so nothing is fetched.
 */
#define _GNU_SOURCE /* pipe2 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/program.h"
#include "tests/support/tiny_model.h"

/* A finished run. */
struct result {
    int code; /* exit code; 1000 + signal when killed by one */
    char *out, *err;
    size_t out_len;
};

static void run_bytes(struct result *result, const char *line, const char *variable,
                      const char *input, size_t len)
{
    int in = program_scratch(), out = program_scratch(), err = program_scratch();
    assert_int_equal(write(in, input, len), len);
    lseek(in, 0, SEEK_SET);
    result->code = program_wait(program_start(line, variable, in, dup(out), err));
    result->out = program_said(out, &result->out_len);
    result->err = program_said(err, NULL);
}

static void run(struct result *result, const char *line, const char *input)
{
    run_bytes(result, line, NULL, input, strlen(input));
}

static void free_result(struct result *result)
{
    free(result->out);
    free(result->err);
}

#define expect_code(result, wanted)                                                                \
    do {                                                                                           \
        if ((result).code != (wanted))                                                             \
            fail_msg("exit code %d, expected %d; stderr: %s", (result).code, (wanted),             \
                     (result).err);                                                                \
    } while (0)

static void expect_error(const char *line, const char *variable, int code, const char *part)
{
    struct result result;
    run_bytes(&result, line, variable, "", 0);
    expect_code(result, code);
    if (!strstr(result.err, part))
        fail_msg("'%s' is not in: %s", part, result.err);
    assert_int_equal(result.out_len, 0);
    free_result(&result);
}

static void help_goes_to_stdout(void **state)
{
    (void)state;
    static const char *const lines[] = {"--help",     "help",     "-h",
                                        "run --help", "embed -h", "version --help"};
    for (size_t i = 0; i < 6; i++) {
        struct result result;
        run(&result, lines[i], "");
        expect_code(result, 0);
        assert_string_equal(result.err, "");
        assert_non_null(strstr(result.out, "Usage: embedmill"));
        free_result(&result);
    }
}

#ifdef __aarch64__
#define FOREIGN_KERNELS "avx2"
#else
#define FOREIGN_KERNELS "neon"
#endif

static void usage_errors_are_64(void **state)
{
    (void)state;
    expect_error("", NULL, 64, "Usage: embedmill");
    expect_error("rum", NULL, 64, "rum: unknown command");
    expect_error("embed --promt query", NULL, 64, "did you mean --prompt?");
    expect_error("embed --dim 100", NULL, 64, "dim: expected one of 0, 128, 256, 512, 768");
    expect_error("embed --source redis", NULL, 64, "--source: this command reads standard input");
    expect_error("embed --redis-url redis://h", NULL, 64, "--redis-url: this command reads");
    expect_error("embed --help=3", NULL, 64, "--help: takes no value");
    expect_error("search x y --kernels " FOREIGN_KERNELS, NULL, 64,
                 "this CPU or this build has no");
    expect_error("search x y", "EMBEDMILL_KERNELS=" FOREIGN_KERNELS, 78, "EMBEDMILL_KERNELS: ");
    expect_error("search x y", "EMBEDMILL_MODEL=/no/such/file", 66, "scripts/get-model");
    expect_error("embed --prompt nonsense", NULL, 64, "--prompt: unknown prompt 'nonsense'");
    expect_error("embed --input-format msgpack", NULL, 64, "--input-format: expected auto, raw or");
#ifdef __aarch64__
    expect_error("embed --kernels avx2", NULL, 64, "--kernels: this CPU or this build has no");
#else
    expect_error("embed --kernels neon", NULL, 64, "--kernels: this CPU or this build has no");
#endif
    expect_error("run --redis-url redis://h?x=1", NULL, 64, "--redis-url: ? and # options are");
    expect_error("run --redis-stream= --print-config", NULL, 64, "--redis-stream: expected a name");
    expect_error("push /dev/null --to redis://h --stream a,b", NULL, 64,
                 "redis.stream: a push goes to one, and a,b are several");
    expect_error("push /dev/null --to kafka://h/a,b", NULL, 64,
                 "kafka.topic: a push goes to one, and a,b are several");
    expect_error("push /dev/null --to kafka://h", NULL, 64,
                 "--to: expected kafka://HOST:PORT/TOPIC");
    expect_error("push /dev/null --to ftp://me:hidden@h", NULL, 64,
                 "--to: expected redis://HOST:PORT/DB or kafka://HOST:PORT/TOPIC");
    expect_error("pull -o /dev/null", NULL, 64, "--from: expected redis://HOST:PORT/DB or ");
    expect_error("run --source redis --sink kafka --delivery exactly-once --print-config", NULL, 64,
                 "exactly-once is possible from redis to redis, kafka to kafka");
    expect_error("run --chunk-tokens 64 --print-config", NULL, 64,
                 "nothing is cut into chunks without too_long=chunk");
    expect_error("run --too-long error --chunk-overlap 4 --print-config", NULL, 64,
                 "nothing is cut into chunks without too_long=chunk");
    expect_error("run --too-long chunk --chunk-tokens 31 --print-config", NULL, 64,
                 "expected at least 32");
    expect_error("run --too-long chunk --output-format milvus --print-config", NULL, 64,
                 "--too-long: a message of rows is one row");
    expect_error("run --source file --sink redis --redis-output hash --order-by timestamp "
                 "--print-config",
                 NULL, 64, "--order-by: messages of source file have no time; expected field:NAME");
    expect_error("run --source stdin --sink redis --redis-output key --order-by position "
                 "--print-config",
                 NULL, 64, "--order-by: messages of source stdin have no position");
    expect_error("run extra", NULL, 64, "extra: expected a flag");
    expect_error("version --yaml", NULL, 64, "--yaml: unknown flag");
    expect_error("version --redis-url redis://h", NULL, 64, "--redis-url: unknown flag");
    expect_error("search index query more", NULL, 64, "more: one argument too many");
    expect_error("dlq", NULL, 64, "expected list, replay or codes");
    expect_error("dlq lost", NULL, 64, "expected one of list, replay, codes");
    expect_error("top --interval 0", NULL, 64, "--interval: expected seconds");
    expect_error("top --once nowhere", NULL, 64, "nowhere: expected HOST:PORT");
    expect_error("completion fish", NULL, 64, "expected one of bash, zsh");
    expect_error("embed --output-format qdrant --dtype b1", NULL, 64, "--dtype: Qdrant takes");
    expect_error("embed --output-format qdrant --output-collection=", NULL, 64,
                 "--output-collection: expected the name");
}

/* What people read of a command is made of one table: each is in each, and none is left out. */
static void every_command_is_documented(void **state)
{
    (void)state;
    struct result all, manual, bash, zsh, help;
    char line[80], wanted[80];
    run(&all, "--help", "");
    run(&manual, "manual", "");
    run(&bash, "completion bash", "");
    run(&zsh, "completion zsh", "");
    expect_code(manual, 0);
    size_t n = 0;
    for (char *at = all.out; (at = strstr(at, "\n  ")); n++) {
        char name[40];
        assert_int_equal(sscanf(at += 3, "%39s", name), 1);
        snprintf(line, sizeof line, "help %s", name);
        run(&help, line, "");
        expect_code(help, 0);
        snprintf(wanted, sizeof wanted, "Usage: embedmill %s", name);
        assert_ptr_equal(strstr(help.out, wanted), help.out);
        assert_non_null(strstr(help.out, "Exit codes:"));
        snprintf(wanted, sizeof wanted, ".SS %s\n", name);
        assert_non_null(strstr(manual.out, wanted));
        snprintf(wanted, sizeof wanted, "  %s/-*)", name);
        assert_non_null(strstr(bash.out, wanted));
        snprintf(wanted, sizeof wanted, "    %s) _arguments", name);
        assert_non_null(strstr(zsh.out, wanted));
        free_result(&help);
    }
    assert_true(n > 12);
    free_result(&all);
    free_result(&manual);
    free_result(&bash);
    free_result(&zsh);
}

/* Asked by bash itself: words before the cursor, the last one being completed. */
static void expect_completion(const char *words, const char *wanted)
{
    char line[2000], said[8000] = "";
    snprintf(line, sizeof line,
             "bash -c 'source <(\"%s\" completion bash); COMP_WORDS=(embedmill %s); "
             "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _embedmill; echo \"${COMPREPLY[*]}\"'",
             EMBEDMILL_BINARY, words);
    FILE *from = popen(line, "r");
    assert_non_null(from);
    assert_non_null(fgets(said, sizeof said, from));
    assert_int_equal(pclose(from), 0);
    if (strncmp(said, wanted, strlen(wanted)) != 0)
        fail_msg("'%s' gives '%s', expected '%s'", words, said, wanted);
}

static void bash_completes(void **state)
{
    (void)state;
    expect_completion("ru", "run\n");
    expect_completion("run --dty", "--dtype\n");
    expect_completion("run --dtype f", "f4 f2\n");
    expect_completion("run --sink ka", "kafka\n");
    expect_completion("index --sha", "--shard\n");
    expect_completion("version --redis", "\n");
    expect_completion("completion z", "zsh\n");
    expect_completion("dlq re", "replay\n");
    expect_completion("embed --model /et", "/etc\n");
}

static void configuration_errors_are_78(void **state)
{
    (void)state;
    expect_error("embed", "EMBEDMILL_PROMT=query", 78, "did you mean EMBEDMILL_PROMPT?");
    expect_error("embed", "EMBEDMILL_DIM=7", 78, "EMBEDMILL_DIM: expected one of");
    expect_error("embed --config /does/not/exist", NULL, 78, "/does/not/exist: cannot be read");
    expect_error("embed", "EMBEDMILL_PROMPT=nonsense", 78, "EMBEDMILL_PROMPT: unknown prompt");
    expect_error("embed", "EMBEDMILL_INPUT_FORMAT=msgpack", 78, "EMBEDMILL_INPUT_FORMAT: expected");
    expect_error("embed --output-format qdrant", "EMBEDMILL_DTYPE=b1", 78,
                 "EMBEDMILL_DTYPE: Qdrant");
    expect_error("run --print-config", "EMBEDMILL_REDIS_URL=unix:///s?y=1", 78,
                 "EMBEDMILL_REDIS_URL: a unix:// URL knows the option ?db=N only");
    expect_error("run --print-config", "EMBEDMILL_REDIS_OUTPUT_STREAM=texts", 78,
                 "EMBEDMILL_REDIS_OUTPUT_STREAM: 'texts' is the input stream itself");
    char path[150], line[200], message[300];
    snprintf(path, sizeof path, "%s/worker.yaml", program_folder);
    FILE *file = fopen(path, "w");
    fputs("prompt: query\nredis:\n  steam: texts\n", file);
    fclose(file);
    snprintf(line, sizeof line, "run --config %s", path);
    snprintf(message, sizeof message,
             "%s:3:3: redis.steam: unknown option; did you mean redis.stream?", path);
    expect_error(line, NULL, 78, message);
    unlink(path);
}

static void model_errors_are_66(void **state)
{
    (void)state;
    char path[150], line[200];
    expect_error("embed --model /does/not/exist.gguf", NULL, 66, "scripts/get-model");
    expect_error("embed --model /", NULL, 66, "no usable model");
    snprintf(path, sizeof path, "%s/broken.gguf", program_folder);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(write(fd, "GGUF nonsense", 13), 13);
    close(fd);
    snprintf(line, sizeof line, "run --model %s --redis-url redis://127.0.0.1:1", path);
    expect_error(line, NULL, 66, "no usable model");
    unlink(path);
}

static void version(void **state)
{
    (void)state;
    struct result result;
    run(&result, "version --json", "");
    expect_code(result, 0);
    json_t *object = json_loads(result.out, 0, NULL);
    assert_non_null(object);
    assert_non_null(json_string_value(json_object_get(object, "version")));
    assert_true(json_array_size(json_object_get(object, "sources")) >= 2);
    const json_t *libraries = json_object_get(object, "libraries");
    assert_non_null(json_string_value(json_object_get(libraries, "hiredis")));
    const char *kafka = json_string_value(json_object_get(libraries, "librdkafka"));
    assert_non_null(kafka);
    assert_null(strchr(kafka, ' ')); /* the version alone */
    json_decref(object);
    free_result(&result);
    run(&result, "--version", "");
    expect_code(result, 0);
    assert_memory_equal(result.out, "embedmill ", 10);
    assert_non_null(strstr(result.out, "\nlibraries: libuv "));
    assert_non_null(strstr(result.out, ", librdkafka "));
    free_result(&result);
}

/* Ids of the JSON lines, apart by blanks; each has an embedding of the width asked for. */
static char *ids_of(const char *out, size_t dim)
{
    char *ids = calloc(1, strlen(out) + 2);
    for (const char *line = out; *line;) {
        const char *end = strchr(line, '\n');
        assert_non_null(end);
        json_t *object = json_loadb(line, (size_t)(end - line), 0, NULL);
        assert_non_null(object);
        assert_int_equal(json_array_size(json_object_get(object, "embedding")), dim);
        json_t *id = json_object_get(object, "id");
        char number[30];
        snprintf(number, sizeof number, "%lld", json_integer_value(id));
        strcat(ids, json_is_string(id) ? json_string_value(id) : number);
        strcat(ids, " ");
        json_decref(object);
        line = end + 1;
    }
    return ids;
}

static void embed_lines(void **state)
{
    (void)state;
    struct result result;
    run(&result, "embed", "hello\n\nthe end\r\n{\"id\": \"x\", \"text\": \"t\"}\nlast");
    expect_code(result, 0);
    assert_string_equal(result.err, "");
    char *ids = ids_of(result.out, TINY_MODEL_DIM);
    assert_string_equal(ids, "1 3 x 5 ");
    free(ids);
    free_result(&result);
    run(&result, "embed", "");
    expect_code(result, 0);
    assert_int_equal(result.out_len, 0);
    free_result(&result);
}

/* Many batches on two threads: in order, and the same bytes as on one thread. */
static void embed_keeps_the_order(void **state)
{
    (void)state;
    enum { N = 3000 };
    char *input = malloc(N * 64), *expected = malloc(N * 8);
    size_t len = 0, expected_len = 0;
    for (int i = 1; i <= N; i++) {
        len += (size_t)sprintf(input + len, "line %d %.*s\n", i, i % 37,
                               "the more words the longer it takes ....");
        expected_len += (size_t)sprintf(expected + expected_len, "%d ", i);
    }
    struct result two, one;
    run(&two, "embed --batch-texts 16 --batches 9", input);
    run(&one, "embed --threads 1", input);
    expect_code(two, 0);
    expect_code(one, 0);
    char *ids = ids_of(two.out, TINY_MODEL_DIM);
    assert_string_equal(ids, expected);
    assert_string_equal(two.out, one.out);
    free(ids);
    free(input);
    free(expected);
    free_result(&one);
    free_result(&two);
}

static void embed_reports_bad_lines(void **state)
{
    (void)state;
    struct result result;
    const char input[] = "good\n{\"text\": 5}\n{\"text\": \"\"}\nfine\n";
    run(&result, "embed", input);
    expect_code(result, 65);
    char *ids = ids_of(result.out, TINY_MODEL_DIM);
    assert_string_equal(ids, "1 4 ");
    assert_non_null(strstr(result.err, "line 2: bad_field: "));
    assert_non_null(strstr(result.err, "line 3: empty_text: "));
    assert_non_null(strstr(result.err, "\"lines\":2"));
    free(ids);
    free_result(&result);

    char *lines = malloc(5003);
    memset(lines, 'y', 5003);
    memcpy(lines, "a\n", 2);
    lines[5000] = '\n';
    run_bytes(&result, "embed --stdin-max-line 4KiB", NULL, lines, 5003);
    expect_code(result, 65);
    ids = ids_of(result.out, TINY_MODEL_DIM);
    assert_string_equal(ids, "1 3 ");
    assert_non_null(strstr(result.err, "line 2: line_too_long: longer than stdin.max_line, 4096"));
    free(ids);
    free(lines);
    free_result(&result);
}

/* Who pairs lines and outputs has to know which have none. */
static void embed_reports_deletes(void **state)
{
    (void)state;
    struct result result;
    const char input[] = "good\n{\"id\": 7, \"delete\": true}\n{\"delete\": true}\n"
                         "{\"text\": \"__debezium_unavailable_value\"}\nfine\n";
    run(&result, "embed", input);
    expect_code(result, 65);
    char *ids = ids_of(result.out, TINY_MODEL_DIM);
    assert_string_equal(ids, "1 5 ");
    assert_non_null(strstr(result.err, "line 2: deleted: "));
    assert_non_null(strstr(result.err, "line 3: bad_field: a delete has to name its text"));
    assert_non_null(strstr(result.err, "line 4: unchanged: "));
    assert_non_null(strstr(result.err, "\"lines\":3"));
    assert_non_null(strstr(result.err, "\"embedded\":2"));
    free(ids);
    free_result(&result);
}

static void embed_binary_input_and_output(void **state)
{
    (void)state;
    struct result result;
    run_bytes(&result, "embed --format msgpack --input-format raw", NULL, "a\xffz\n\xe4\xfe\n", 7);
    expect_code(result, 0);
    assert_true(result.out_len > 2 * 4 * TINY_MODEL_DIM);
    assert_true(((unsigned char)result.out[0] & 0xf0) == 0x80);
    free_result(&result);
    run_bytes(&result, "embed --bad-utf8 error --input-format raw", NULL, "a\n\xe4\xfe\n", 5);
    expect_code(result, 65);
    assert_non_null(
        strstr(result.err, "line 2: bad_utf8: text 1 of 1 is not UTF-8 (is it Latin-1"));
    free_result(&result);
    run_bytes(&result, "embed --input-format raw", NULL, "a\nb\0c\n", 6);
    expect_code(result, 65);
    assert_non_null(strstr(result.err, "line 2: not_text: the value is binary data"));
    free_result(&result);
}

static void print_config(void **state)
{
    (void)state;
    struct result result;
    run_bytes(&result, "run --print-config", "EMBEDMILL_REDIS_URL=redis://u:hunter2@h", "", 0);
    expect_code(result, 0);
    assert_null(strstr(result.out, "hunter2"));
    assert_non_null(strstr(result.out, "\n# redis.url: \"redis://u:********@h\"  # EMBED"));
    free_result(&result);
    run(&result, "embed --print-config --dim 256", "");
    expect_code(result, 0);
    assert_null(strstr(result.out, "redis."));
    assert_non_null(strstr(result.out, "dim: \"256\"  # --dim\n"));
    assert_non_null(strstr(result.out, "threads: \"2\"  # EMBEDMILL_THREADS\n"));
    assert_non_null(strstr(result.out, "output_format: \"json\"  # default\n"));
    free_result(&result);
}

/* "embed | head": ends at once, without a word, and not with 0. */
static void a_reader_that_leaves(void **state)
{
    (void)state;
    int ends[2], in[2], err = program_scratch();
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    pid_t pid = program_start("embed", NULL, in[0], ends[1], err);
    char line[200], answer[100];
    memset(line, 'x', sizeof line);
    line[199] = '\n';
    assert_int_equal(write(in[1], line, 200), 200);
    assert_true(read(ends[0], answer, sizeof answer) > 0);
    close(ends[0]);
    signal(SIGPIPE, SIG_IGN);
    for (int n = 0; n < PROGRAM_DEADLINE_MS && write(in[1], line, 200) == 200; n++)
        usleep(1000); /* until the program is gone */
    close(in[1]);
    int code = program_wait(pid);
    char *errors = program_said(err, NULL);
    assert_int_equal(code, 74);
    assert_string_equal(errors, "");
    free(errors);
}

static void a_full_disk_is_74(void **state)
{
    (void)state;
    int in = program_scratch(), err = program_scratch();
    assert_int_equal(write(in, "a\n", 2), 2);
    lseek(in, 0, SEEK_SET);
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    int code = program_wait(program_start("embed", NULL, in, full, err));
    char *errors = program_said(err, NULL);
    assert_int_equal(code, 74);
    assert_non_null(strstr(errors, "writing standard output"));
    free(errors);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_goes_to_stdout),
        cmocka_unit_test(usage_errors_are_64),
        cmocka_unit_test(every_command_is_documented),
        cmocka_unit_test(bash_completes),
        cmocka_unit_test(configuration_errors_are_78),
        cmocka_unit_test(model_errors_are_66),
        cmocka_unit_test(version),
        cmocka_unit_test(embed_lines),
        cmocka_unit_test(embed_keeps_the_order),
        cmocka_unit_test(embed_reports_bad_lines),
        cmocka_unit_test(embed_reports_deletes),
        cmocka_unit_test(embed_binary_input_and_output),
        cmocka_unit_test(print_config),
        cmocka_unit_test(a_reader_that_leaves),
        cmocka_unit_test(a_full_disk_is_74),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
