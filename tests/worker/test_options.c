/*
 * test_options.c: the table, flags, environment, precedence, help and effective values.
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

#include "connectors/connector.h"
#include "worker/config/config_environment.h"
#include "worker/config/config_file.h"
#include "worker/config/config_flags.h"
#include "worker/config/config_print.h"
#include "worker/config/options.h"

static const struct option broker_table[] = {
    {"broker.url", OPTION_SECRET, NULL, NULL, 0, 0, "URL", "Where the broker is."},
    {"broker.stream", OPTION_TEXT, "texts", NULL, 0, 0, "NAME", "What to read."},
    {"broker.port", OPTION_COUNT, "7000", NULL, 1, 65535, NULL, "Its port."},
    {"broker.create", OPTION_BOOL, "true", NULL, 0, 0, NULL, "Create what is missing."},
    {"broker.tls.verify", OPTION_BOOL, "true", NULL, 0, 0, NULL, "Check its certificate."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL}};

static const struct option *const tables[] = {broker_table, NULL};
static char *const no_environment[] = {NULL};

struct reading {
    struct options *options;
    struct flags flags;
    int rc;
    char err[1024];
};

static void read_all(struct reading *reading, char *const *environment, int argc, char *const *argv)
{
    memset(reading, 0, sizeof *reading);
    assert_int_equal(options_open(&reading->options, tables, NULL, environment), 0);
    reading->rc = config_read(reading->options, NULL, argc, argv, environment, &reading->flags,
                              reading->err, sizeof reading->err);
}

#define READ(reading, environment, ...)                                                            \
    do {                                                                                           \
        char *const argv_[] = {__VA_ARGS__, NULL};                                                 \
        read_all(reading, environment, (int)(sizeof argv_ / sizeof argv_[0]) - 1, argv_);          \
    } while (0)

static const char *text(const struct reading *reading, const char *name)
{
    return settings_text(options_settings(reading->options), name);
}

static void expect_flag_error(char *flag, char *value, const char *message)
{
    struct reading r;
    READ(&r, no_environment, flag, value);
    assert_int_equal(r.rc, -EINVAL);
    assert_string_equal(r.err, message);
    options_close(r.options);
}

static void expect_variable_error(char *variable, const char *message)
{
    struct reading r;
    char *const environment[] = {"HOME=/h", variable, NULL};
    READ(&r, environment, "--threads=1");
    assert_int_equal(r.rc, -EBADMSG);
    assert_string_equal(r.err, message);
    options_close(r.options);
}

static void flags_in_every_form(void **state)
{
    (void)state;
    struct reading r;
    READ(&r, no_environment, "--broker-stream", "a", "--broker-port=81", "--no-broker-create",
         "--threads", "3", "--broker-tls-verify=no", "--dim=256");
    assert_string_equal(r.err, "");
    assert_int_equal(r.rc, 0);
    assert_string_equal(text(&r, "broker.stream"), "a");
    assert_int_equal(settings_number(options_settings(r.options), "broker.port"), 81);
    assert_false(settings_bool(options_settings(r.options), "broker.create"));
    assert_false(settings_bool(options_settings(r.options), "broker.tls.verify"));
    assert_string_equal(options_where(r.options, "broker.port"), "--broker-port");
    assert_string_equal(options_where(r.options, "broker.create"), "--no-broker-create");
    assert_int_equal(options_origin(r.options, "dim"), ORIGIN_FLAG);
    options_close(r.options);

    READ(&r, no_environment, "--broker-create", "--broker-stream=", "--broker-stream", "-x");
    assert_int_equal(r.rc, 0);
    assert_true(settings_bool(options_settings(r.options), "broker.create"));
    assert_string_equal(text(&r, "broker.stream"), "-x"); /* the last one wins */
    options_close(r.options);
}

static const struct flag_alias aliases[] = {
    {"-o", "broker.stream"}, {"--out", "broker.stream"}, {"--make", "broker.create"}, {NULL, NULL}};
static const char *const two_words[] = {"model", "prompt", NULL};

/* The rest of argv by a syntax of its own. */
static void read_syntax(struct reading *reading, const struct flag_syntax *syntax,
                        char *const *environment, char *const *argv)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    memset(reading, 0, sizeof *reading);
    assert_int_equal(options_open(&reading->options, tables, NULL, environment), 0);
    reading->rc = config_read(reading->options, syntax, argc, argv, environment, &reading->flags,
                              reading->err, sizeof reading->err);
}

static void short_names_and_words(void **state)
{
    (void)state;
    const struct flag_syntax syntax = {.aliases = aliases, .positionals = two_words};
    static char *const forms[][4] = {{"-o", "a"}, {"-oa"}, {"-o=a"}, {"--out", "a"}, {"--out=a"}};
    struct reading r;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        read_syntax(&r, &syntax, no_environment, forms[i]);
        assert_string_equal(r.err, "");
        assert_string_equal(text(&r, "broker.stream"), "a");
        assert_int_equal(options_origin(r.options, "broker.stream"), ORIGIN_FLAG);
        options_close(r.options);
    }
    char *const words[] = {"first", "--no-make", "-", "--threads", "2", NULL};
    read_syntax(&r, &syntax, no_environment, words);
    assert_int_equal(r.rc, 0);
    assert_string_equal(text(&r, "model"), "first");
    assert_string_equal(text(&r, "prompt"), "-");
    assert_false(settings_bool(options_settings(r.options), "broker.create"));
    options_close(r.options);

    char *const dashed[] = {"--", "--first", NULL};
    read_syntax(&r, &syntax, no_environment, dashed);
    assert_string_equal(text(&r, "model"), "--first");
    options_close(r.options);

    char *const many[] = {"a", "b", "c", NULL};
    read_syntax(&r, &syntax, no_environment, many);
    assert_int_equal(r.rc, -EINVAL);
    assert_string_equal(r.err, "c: one argument too many; --help lists all");
    options_close(r.options);

    char *const bare[] = {"-o", NULL};
    read_syntax(&r, &syntax, no_environment, bare);
    assert_string_equal(r.err, "-o: expected a value: -o NAME");
    options_close(r.options);
}

static void the_last_word_repeats(void **state)
{
    (void)state;
    const struct flag_syntax syntax = {.positionals = two_words, .repeats = true};
    char *const words[] = {"a", "b", "c", "d", NULL};
    struct reading r;
    read_syntax(&r, &syntax, no_environment, words);
    assert_int_equal(r.rc, 0);
    assert_string_equal(text(&r, "model"), "a");
    assert_string_equal(text(&r, "prompt"), "b,c,d");
    options_close(r.options);
}

static void flags_only_reads_nothing_else(void **state)
{
    (void)state;
    const struct flag_syntax syntax = {.flags_only = true};
    char *const environment[] = {"EMBEDMILL_THREADS=7", "EMBEDMILL_NO_SUCH=1", NULL};
    char *const plain[] = {"--dim=256", NULL}, *const file[] = {"--config", "x.yaml", NULL};
    struct reading r;
    read_syntax(&r, &syntax, environment, plain);
    assert_int_equal(r.rc, 0);
    assert_int_equal(options_origin(r.options, "threads"), ORIGIN_DEFAULT);
    options_close(r.options);
    read_syntax(&r, &syntax, environment, file);
    assert_int_equal(r.rc, -EINVAL);
    assert_string_equal(r.err, "--config: unknown flag; --help lists all");
    options_close(r.options);
}

static void bad_flags_are_refused(void **state)
{
    (void)state;
    expect_flag_error("--broker-prot", "1",
                      "--broker-prot: unknown flag; did you mean --broker-port?");
    expect_flag_error("--stream", "x", "--stream: unknown flag; did you mean --broker-stream?");
    expect_flag_error("--xyzzy-foo", "x", "--xyzzy-foo: unknown flag; --help lists all");
    expect_flag_error("--broker-port", "x",
                      "--broker-port: expected an integer from 1 to 65535, got 'x'");
    expect_flag_error("--thread", "2", "--thread: unknown flag; did you mean --threads?");
    expect_flag_error("file.txt", "x", "file.txt: expected a flag; --help lists all");
    expect_flag_error("-c", "x", "-c: unknown flag; --help lists all");
    expect_flag_error("--", "x", "--: unknown flag; --help lists all");
    expect_flag_error("--threads", "--dim", "--threads: expected a value: --threads N");
    expect_flag_error("--no-broker-create=1", "x", "--no-broker-create: takes no value");
    expect_flag_error("--help=3", "x", "--help: takes no value");
    expect_flag_error("--print-config=1", "x", "--print-config: takes no value");
    expect_flag_error("--no-threads", "x", "--no-threads: unknown flag; did you mean --threads?");
    struct reading r;
    READ(&r, no_environment, "--broker-url");
    assert_string_equal(r.err, "--broker-url: expected a value: --broker-url URL");
    options_close(r.options);
    READ(&r, no_environment, "--config");
    assert_string_equal(r.err, "--config: expected a value: --config FILE");
    options_close(r.options);
}

static void variables(void **state)
{
    (void)state;
    struct reading r;
    char *const environment[] = {"EMBEDMILL_BROKER_STREAM=env",
                                 "EMBEDMILL_BROKER_TLS_VERIFY=off",
                                 "EMBEDMILL_KERNELS=generic",
                                 "EMBEDMILL_THREADS=",
                                 "EMBEDMILLER=1",
                                 "EMBEDMILL_TEST_SEED=1",
                                 "PATH=/bin",
                                 NULL};
    READ(&r, environment, "--dim=128");
    assert_string_equal(r.err, "");
    assert_string_equal(text(&r, "broker.stream"), "env");
    assert_string_equal(text(&r, "kernels"), "generic");
    assert_false(settings_bool(options_settings(r.options), "broker.tls.verify"));
    assert_string_equal(options_where(r.options, "kernels"), "EMBEDMILL_KERNELS");
    assert_int_equal(options_origin(r.options, "threads"), ORIGIN_DEFAULT);
    options_close(r.options);
}

static void bad_variables_are_refused(void **state)
{
    (void)state;
    expect_variable_error("EMBEDMILL_BROKER_STREEM=x",
                          "EMBEDMILL_BROKER_STREEM: unknown option; did you mean "
                          "EMBEDMILL_BROKER_STREAM?");
    expect_variable_error("EMBEDMILL_XYZZY_FOO=x",
                          "EMBEDMILL_XYZZY_FOO: unknown option; --help lists all");
    expect_variable_error("EMBEDMILL_THREADS=many",
                          "EMBEDMILL_THREADS: expected an integer from 0 to 1024, got "
                          "'many'");
    expect_variable_error("EMBEDMILL_CONFIG=x",
                          "EMBEDMILL_CONFIG: the file is named by the flag --config only");
    expect_variable_error("EMBEDMILL_BROKER_STREAM_FILE=/x",
                          "EMBEDMILL_BROKER_STREAM_FILE: broker.stream is not a secret; expected "
                          "its value in EMBEDMILL_BROKER_STREAM");
    expect_variable_error("EMBEDMILL_BROKER_URL_FILE=/does/not/exist",
                          "EMBEDMILL_BROKER_URL_FILE: cannot read /does/not/exist: No such file "
                          "or directory");
}

/* What Kubernetes sets for services embedmill and embedmill-broker. */
static void service_variables_are_let_alone(void **state)
{
    (void)state;
    struct reading r;
    char *const environment[] = {"EMBEDMILL_SERVICE_HOST=10.0.0.1",
                                 "EMBEDMILL_SERVICE_PORT=80",
                                 "EMBEDMILL_SERVICE_PORT_HTTP=80",
                                 "EMBEDMILL_BROKER_PORT=tcp://10.0.0.2:7000",
                                 "EMBEDMILL_BROKER_PORT_7000_TCP=tcp://10.0.0.2:7000",
                                 "EMBEDMILL_BROKER_PORT_7000_TCP_ADDR=10.0.0.2",
                                 NULL};
    READ(&r, environment, "--dim=128");
    assert_string_equal(r.err, "");
    assert_int_equal(settings_number(options_settings(r.options), "broker.port"), 7000);
    options_close(r.options);
}

static char *write_file(const char *bytes, size_t len)
{
    char *path = strdup("/tmp/embedmill-test-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    close(fd);
    return path;
}

static void secrets_from_files(void **state)
{
    (void)state;
    struct reading r;
    char *path = write_file("s3cret\n", 7);
    char variable[100];
    snprintf(variable, sizeof variable, "EMBEDMILL_BROKER_URL_FILE=%s", path);
    char *const environment[] = {variable, NULL};
    READ(&r, environment, "--dim=128");
    assert_string_equal(r.err, "");
    assert_string_equal(text(&r, "broker.url"), "s3cret");
    options_close(r.options);

    char *const both[] = {variable, "EMBEDMILL_BROKER_URL=x", NULL};
    READ(&r, both, "--dim=128");
    assert_int_equal(r.rc, -EBADMSG);
    assert_string_equal(r.err, "EMBEDMILL_BROKER_URL_FILE: EMBEDMILL_BROKER_URL is set too; "
                               "expected only one of them");
    options_close(r.options);
    unlink(path);
    free(path);

    path = write_file("a\0b", 3);
    snprintf(variable, sizeof variable, "EMBEDMILL_BROKER_URL_FILE=%s", path);
    READ(&r, environment, "--dim=128");
    assert_int_equal(r.rc, -EBADMSG);
    assert_non_null(strstr(r.err, "does not hold a secret"));
    options_close(r.options);
    unlink(path);
    free(path);
}

/* Every subset of flag, variable and file: the strongest that is there wins. */
static void precedence(void **state)
{
    (void)state;
    const char yaml[] = "broker: {stream: file}\n";
    char *path = write_file(yaml, strlen(yaml));
    for (int given = 0; given < 8; given++) {
        char *environment[] = {given & 2 ? "EMBEDMILL_BROKER_STREAM=env" : "X=1", NULL};
        char *argv[3];
        char config[100];
        int argc = 0;
        snprintf(config, sizeof config, "--config=%s", path);
        if (given & 4)
            argv[argc++] = "--broker-stream=flag";
        if (given & 1)
            argv[argc++] = config;
        struct reading r;
        read_all(&r, environment, argc, argv);
        assert_string_equal(r.err, "");
        assert_string_equal(text(&r, "broker.stream"), given & 4   ? "flag"
                                                       : given & 2 ? "env"
                                                       : given & 1 ? "file"
                                                                   : "texts");
        options_close(r.options);
    }
    unlink(path);
    free(path);
}

static void a_bad_weaker_value_is_still_refused(void **state)
{
    (void)state;
    struct reading r;
    const char yaml[] = "\nbroker:\n  port: 0\n";
    char *path = write_file(yaml, strlen(yaml));
    READ(&r, no_environment, "--broker-port=1", "--config", path);
    assert_int_equal(r.rc, -EBADMSG);
    char message[200];
    snprintf(message, sizeof message,
             "%s:3:9: broker.port: expected an integer from 1 to 65535, got '0'", path);
    assert_string_equal(r.err, message);
    options_close(r.options);
    unlink(path);
    free(path);
    READ(&r, no_environment, "--config", "/does/not/exist.yaml");
    assert_int_equal(r.rc, -EBADMSG);
    assert_string_equal(r.err, "/does/not/exist.yaml: cannot be read: No such file or directory");
    options_close(r.options);
}

static char *print(void (*how)(const struct options *, FILE *), const struct options *options)
{
    char *out = NULL;
    size_t len;
    FILE *to = open_memstream(&out, &len);
    how(options, to);
    fclose(to);
    return out;
}

static void print_all_effective(const struct options *options, FILE *to)
{
    config_print_effective(options, NULL, to);
}

static void print_all_help(const struct options *options, FILE *to)
{
    config_print_help(options, NULL, NULL, to);
}

static void help_lists_every_option_aligned(void **state)
{
    (void)state;
    struct options *options;
    char *const environment[] = {"HOME=/home/u", NULL};
    assert_int_equal(options_open(&options, NULL, NULL, environment), 0);
    char *help = print(print_all_help, options);
    const struct option *option;
    size_t n = 0;
    for (size_t i = 0; (option = options_at(options, i)); i++, n++) {
        char flag[128], shown[160];
        assert_non_null(option->help);
        if (option->type == OPTION_MAP && !option->arg)
            continue; /* told of by the one above it */
        options_flag_name(option->name, flag, sizeof flag);
        if (option->type == OPTION_MAP)
            snprintf(shown, sizeof shown, "  -%s NAME=VALUE", option->arg);
        else
            snprintf(shown, sizeof shown, option->type == OPTION_BOOL ? "  --[no-]%s" : "  --%s ",
                     flag);
        if (!strstr(help, shown))
            fail_msg("--help does not list %s", option->name);
    }
    assert_true(n > 20);
    assert_non_null(strstr(help, "/home/u/.cache/embedmill/embeddinggemma-300m-q8_0.gguf)"));
    for (char *line = strtok(help, "\n"); line; line = strtok(NULL, "\n"))
        if (strlen(line) > 100 && !strstr(line, "/home/u"))
            fail_msg("longer than 100: %s", line);
    free(help);
    options_close(options);
}

/* Names of flags and variables are unique although dots and underscores fold. */
static void names_do_not_collide(void **state)
{
    (void)state;
    struct options *options;
    assert_int_equal(options_open(&options, NULL, NULL, no_environment), 0);
    const struct option *a, *b;
    for (size_t i = 0; (a = options_at(options, i)); i++)
        for (size_t j = i + 1; (b = options_at(options, j)); j++) {
            char first[128], second[128];
            options_flag_name(a->name, first, sizeof first);
            options_flag_name(b->name, second, sizeof second);
            assert_string_not_equal(first, second);
        }
    options_close(options);
}

static void effective_values_can_be_read_back(void **state)
{
    (void)state;
    struct reading r;
    char *const environment[] = {"EMBEDMILL_BROKER_URL=hunter2", "HOME=/h", NULL};
    READ(&r, environment, "--broker-stream", "a\"b\\c ${X} $${Y} \xc3\xa9\t#: \n x",
         "--print-config", "--no-broker-create");
    assert_string_equal(r.err, "");
    assert_true(r.flags.print_config);
    char *printed = print(print_all_effective, r.options);
    assert_null(strstr(printed, "hunter2"));
    assert_non_null(strstr(printed, "# broker.url: \"********\"  # EMBEDMILL_BROKER_URL\n"));
    assert_non_null(strstr(printed, "broker.create: \"false\"  # --no-broker-create\n"));
    assert_non_null(strstr(printed, "broker.port: \"7000\"  # default\n"));

    struct options *again;
    char err[1024] = "";
    assert_int_equal(options_open(&again, tables, NULL, environment), 0);
    if (config_file_parse(again, "printed", printed, strlen(printed), environment, err,
                          sizeof err) != 0)
        fail_msg("%s in\n%s", err, printed);
    const struct option *option;
    for (size_t i = 0; (option = options_at(r.options, i)); i++) {
        const char *value = text(&r, option->name);
        if (option->type != OPTION_SECRET && value)
            assert_string_equal(settings_text(options_settings(again), option->name), value);
    }
    free(printed);
    options_close(again);
    options_close(r.options);
}

static void expect_masked(char *url, const char *line)
{
    struct reading r;
    char *const environment[] = {url, NULL};
    READ(&r, environment, "--print-config");
    assert_int_equal(r.rc, 0);
    char *printed = print(print_all_effective, r.options);
    if (!strstr(printed, line))
        fail_msg("'%s' is not in\n%s", line, printed);
    free(printed);
    options_close(r.options);
}

static void of_a_url_the_password_is_masked(void **state)
{
    (void)state;
    expect_masked("EMBEDMILL_BROKER_URL=x://h:1/0", "\nbroker.url: \"x://h:1/0\"  # EMBED");
    expect_masked("EMBEDMILL_BROKER_URL=x://u:p@h/0", "\n# broker.url: \"x://u:********@h/0\"  #");
    expect_masked("EMBEDMILL_BROKER_URL=x://:p@s@h", "\n# broker.url: \"x://:********@h\"  #");
    expect_masked("EMBEDMILL_BROKER_URL=x://secret@h", "\n# broker.url: \"x://********@h\"  #");
    expect_masked("EMBEDMILL_BROKER_URL=u:p@x://h", "\n# broker.url: \"********\"  #");
}

static void the_model_lies_in_the_cache(void **state)
{
    (void)state;
    const char *file = "embedmill/embeddinggemma-300m-q8_0.gguf";
    char expected[200];
    struct options *options;
    char *const with_cache[] = {"HOME=/h", "XDG_CACHE_HOME=/c", NULL};
    assert_int_equal(options_open(&options, NULL, NULL, with_cache), 0);
    snprintf(expected, sizeof expected, "/c/%s", file);
    assert_string_equal(settings_text(options_settings(options), "model"), expected);
    options_close(options);
    char *const relative[] = {"HOME=/h", "XDG_CACHE_HOME=c", NULL};
    assert_int_equal(options_open(&options, NULL, NULL, relative), 0);
    snprintf(expected, sizeof expected, "/h/.cache/%s", file);
    assert_string_equal(settings_text(options_settings(options), "model"), expected);
    options_close(options);
    assert_int_equal(options_open(&options, NULL, NULL, no_environment), 0);
    assert_null(settings_text(options_settings(options), "model"));
    options_close(options);
}

/* The field of the messages that names the model may be called as one of them. */
static void a_field_is_no_model(void **state)
{
    (void)state;
    struct options *options;
    char err[300] = "";
    char *const with_cache[] = {"HOME=/h", "XDG_CACHE_HOME=/c", NULL};
    static const char *const names[] = {"model", "model_field"};
    assert_int_equal(options_open(&options, NULL, NULL, with_cache), 0);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(options_set(options, names[i], "bge-small-en-v1.5", ORIGIN_FLAG, names[i],
                                     err, sizeof err),
                         0);
    const struct settings *settings = options_settings(options);
    assert_string_equal(settings_text(settings, "model"),
                        "/c/embedmill/bge-small-en-v1.5-q8_0.gguf");
    assert_string_equal(settings_text(settings, "model_field"), "bge-small-en-v1.5");
    options_close(options);
}

static void presets_are_defaults_of_a_command(void **state)
{
    (void)state;
    static const struct preset presets[] = {
        {"source", "stdin"}, {"output_format", "json"}, {NULL, NULL}};
    struct options *options;
    assert_int_equal(options_open(&options, NULL, presets, no_environment), 0);
    assert_string_equal(settings_text(options_settings(options), "source"), "stdin");
    assert_string_equal(settings_text(options_settings(options), "output_format"), "json");
    assert_int_equal(options_origin(options, "source"), ORIGIN_DEFAULT);
    options_close(options);
    options_close(NULL);
}

static void help_reads_nothing_else(void **state)
{
    (void)state;
    struct reading r;
    char *const environment[] = {"EMBEDMILL_NONSENSE=1", NULL};
    READ(&r, environment, "--help");
    assert_int_equal(r.rc, 0);
    assert_true(r.flags.help);
    options_close(r.options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_in_every_form),
        cmocka_unit_test(short_names_and_words),
        cmocka_unit_test(the_last_word_repeats),
        cmocka_unit_test(flags_only_reads_nothing_else),
        cmocka_unit_test(bad_flags_are_refused),
        cmocka_unit_test(variables),
        cmocka_unit_test(bad_variables_are_refused),
        cmocka_unit_test(service_variables_are_let_alone),
        cmocka_unit_test(secrets_from_files),
        cmocka_unit_test(precedence),
        cmocka_unit_test(a_bad_weaker_value_is_still_refused),
        cmocka_unit_test(help_lists_every_option_aligned),
        cmocka_unit_test(names_do_not_collide),
        cmocka_unit_test(effective_values_can_be_read_back),
        cmocka_unit_test(of_a_url_the_password_is_masked),
        cmocka_unit_test(the_model_lies_in_the_cache),
        cmocka_unit_test(a_field_is_no_model),
        cmocka_unit_test(presets_are_defaults_of_a_command),
        cmocka_unit_test(help_reads_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
