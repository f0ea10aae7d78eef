/*
 * test_config.c: the YAML file: what is read, what is refused and where, hostile bytes.
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

#include "worker/config/config_environment.h"
#include "worker/config/config_file.h"
#include "worker/config/options.h"

static const struct option broker_table[] = {
    {"broker.url", OPTION_SECRET, NULL, NULL, 0, 0, "URL", "Where the broker is."},
    {"broker.stream", OPTION_TEXT, "texts", NULL, 0, 0, "NAME", "What to read."},
    {"broker.port", OPTION_COUNT, "7000", NULL, 1, 65535, NULL, "Its port."},
    {"broker.tls.verify", OPTION_BOOL, "true", NULL, 0, 0, NULL, "Check its certificate."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL}};

static const struct option *const tables[] = {broker_table, NULL};
static char *const environment[] = {"HOST=example", "EMPTY=", "QUOTE=a\"}: [b", "N=3", NULL};

static int parse(struct options **options, const char *yaml, size_t len, char err[1024])
{
    err[0] = '\0';
    assert_int_equal(options_open(options, tables, NULL, environment), 0);
    return config_file_parse(*options, "w.yaml", yaml, len, environment, err, 1024);
}

static void expect(const char *yaml, const char *name, const char *value)
{
    struct options *options;
    char err[1024];
    if (parse(&options, yaml, strlen(yaml), err) != 0)
        fail_msg("%s in %s", err, yaml);
    assert_string_equal(settings_text(options_settings(options), name), value);
    options_close(options);
}

static void expect_refused(const char *yaml, const char *message)
{
    struct options *options;
    char err[1024];
    assert_int_equal(parse(&options, yaml, strlen(yaml), err), -EBADMSG);
    assert_string_equal(err, message);
    options_close(options);
}

static void expect_model(const struct options *options, size_t i, const char *name,
                         const char *path)
{
    struct setting pair = settings_pair(options_settings(options), "models", i);
    assert_string_equal(pair.name, name);
    assert_string_equal(pair.value, path);
    assert_null(settings_pair(options_settings(options), "models", i + 1).name);
}

static int give(struct options *options, const char *name, const char *value, enum origin origin,
                char err[1024])
{
    err[0] = '\0';
    return options_set(options, name, value, origin, "here", err, 1024);
}

/* One model, or some with names: what comes from the stronger place counts. */
static void models_with_names(void **state)
{
    static const char *const paths[] = {"/x=y.gguf", "a b=c.gguf", "=c.gguf", "./m=n.gguf"};
    static const char yaml[] = "models: {b: /x/b=1.gguf}\nmodels.a.2-x: c.gguf\n";
    struct options *options;
    char err[1024];
    (void)state;
    assert_int_equal(parse(&options, yaml, strlen(yaml), err), 0);
    expect_model(options, 1, "a.2-x", "c.gguf");
    assert_int_equal(give(options, "model", "b=d.gguf", ORIGIN_ENVIRONMENT, err), 0);
    assert_int_equal(give(options, "models.b", "e.gguf", ORIGIN_FILE, err), 0); /* is weaker */
    assert_int_equal(give(options, "model", "f.gguf", ORIGIN_FILE, err), 0);    /* is weaker */
    assert_string_equal(settings_pair(options_settings(options), "models", 0).value, "d.gguf");
    assert_int_equal(give(options, "model", "x.gguf", ORIGIN_ENVIRONMENT, err), -EINVAL);
    assert_string_equal(err, "here: expected a name for each model (NAME=FILE), or one model "
                             "without");
    options_close(options);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) { /* no names */
        assert_int_equal(options_open(&options, tables, NULL, environment), 0);
        assert_int_equal(give(options, "model", paths[i], ORIGIN_FLAG, err), 0);
        assert_string_equal(settings_text(options_settings(options), "model"), paths[i]);
        assert_int_equal(give(options, "models.a", "b.gguf", ORIGIN_FILE, err), 0);
        assert_null(settings_pair(options_settings(options), "models", 0).name);
        assert_int_equal(give(options, "model", "a=b.gguf", ORIGIN_FLAG, err), -EINVAL);
        options_close(options);
    }
    expect_refused("models: {'a b': x}",
                   "w.yaml:1:17: a model's name is letters, digits, '.', '_' and '-', at most 63");
    expect_refused("model: x\nmodels: {a: y}",
                   "w.yaml:2:13: expected a name for each model (NAME=FILE), or one model without");
}

/* The order of an environment is by chance; the first model is the one for messages. */
static void models_of_the_environment(void **state)
{
    static const char *const orders[2][4] = {
        {"EMBEDMILL_MODELS_NEW=n", "EMBEDMILL_MODELS_A_Z=a", "EMBEDMILL_MODELS_AB=b", NULL},
        {"EMBEDMILL_MODELS_AB=b", "EMBEDMILL_MODELS_NEW=n", "EMBEDMILL_MODELS_A_Z=a", NULL}};
    static const char *const names[] = {"a.z", "ab", "new"}, *const paths[] = {"a", "b", "n"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct options *options;
        char err[1024] = "";
        assert_int_equal(options_open(&options, tables, NULL, environment), 0);
        assert_int_equal(
            config_environment_read(options, (char *const *)orders[i], err, sizeof err), 0);
        for (size_t j = 0; j < 3; j++) {
            struct setting pair = settings_pair(options_settings(options), "models", j);
            assert_string_equal(pair.name, names[j]);
            assert_string_equal(pair.value, paths[j]);
        }
        options_close(options);
    }
}

static void nested_and_dotted_names(void **state)
{
    (void)state;
    expect("broker:\n  stream: a\n  tls:\n    verify: no\nthreads: 2\n", "broker.tls.verify", "no");
    expect("broker.stream: a\n", "broker.stream", "a");
    expect("broker: {stream: a, tls.verify: off}\nthreads: 7", "threads", "7");
    expect("{\"broker\": {\"tls\": {\"verify\": false}}}", "broker.tls.verify", "false");
    expect("broker:\n  stream: a\nbroker.port: 5\n", "broker.port", "5");
    expect("broker:\n  tls: {verify: off}\n  stream: b\nthreads: 1\n", "broker.stream", "b");
}

static void texts_of_all_styles(void **state)
{
    (void)state;
    expect("broker.stream: 'it''s'", "broker.stream", "it's");
    expect("broker.stream: \"a\\tb\"", "broker.stream", "a\tb");
    expect("broker.stream: \"\"", "broker.stream", "");
    expect("broker.stream: >-\n  a\n  b\n", "broker.stream", "a b");
    expect("broker.stream: 007", "broker.stream", "007");
    expect("\xef\xbb\xbf# comment\r\nbroker.stream: a # b\r\n", "broker.stream", "a");
    expect("---\nbroker.stream: a\n...\n", "broker.stream", "a");
}

static void empty_files_and_groups(void **state)
{
    (void)state;
    expect("", "broker.stream", "texts");
    expect("# nothing\n", "broker.stream", "texts");
    expect("---\n", "broker.stream", "texts");
    expect("broker:\n#  stream: a\n", "broker.stream", "texts");
    expect("broker: {}\n", "broker.stream", "texts");
}

static void variables_in_values(void **state)
{
    (void)state;
    expect("broker.stream: ${HOST}", "broker.stream", "example");
    expect("broker.stream: a-${HOST}-${N}", "broker.stream", "a-example-3");
    expect("broker.port: \"${N}\"", "broker.port", "3");
    expect("broker.stream: ${NONE:-x y}", "broker.stream", "x y");
    expect("broker.stream: ${EMPTY:-x}", "broker.stream", "x");
    expect("broker.stream: ${EMPTY}", "broker.stream", "");
    expect("broker.stream: ${NONE:-}", "broker.stream", "");
    expect("broker.stream: $HOST $ a$$b $${HOST}", "broker.stream", "$HOST $ a$$b ${HOST}");
    expect("broker.stream: ${QUOTE}", "broker.stream", "a\"}: [b"); /* cannot change structure */
    expect_refused("broker.stream: ${NONE}",
                   "w.yaml:1:16: broker.stream: the variable NONE is not set; set it or write "
                   "${NONE:-default}");
    const char *const bad[] = {"${", "${HOST", "${}", "${1A}", "${A B}", "${HOST:x}", "${HOST-x}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char yaml[100];
        snprintf(yaml, sizeof yaml, "broker.stream: '%s'", bad[i]);
        expect_refused(yaml, "w.yaml:1:16: broker.stream: expected ${NAME} or ${NAME:-default} "
                             "(write $${ for a literal ${)");
    }
    expect_refused("${HOST}: 1", "w.yaml:1:1: ${HOST}: unknown option; --help lists all");
}

static void refused_with_place_and_reason(void **state)
{
    (void)state;
    expect_refused("threads: 2\nbroker:\n  prot: 5\n",
                   "w.yaml:3:3: broker.prot: unknown option; did you mean broker.port?");
    expect_refused("brokr:\n  port: 5\n", "w.yaml:1:1: brokr: unknown option; --help lists all");
    expect_refused("stream: a\n",
                   "w.yaml:1:1: stream: unknown option; did you mean broker.stream?");
    expect_refused("batch-texts: 5\n",
                   "w.yaml:1:1: batch-texts: unknown option; did you mean batch_texts?");
    expect_refused("broker:\n    port: x\n", "w.yaml:2:11: broker.port: expected an integer from 1 "
                                             "to 65535, got 'x'");
    expect_refused("config: x\n", "w.yaml:1:1: config: unknown option; --help lists all");
    expect_refused("broker.port:\n", "w.yaml:1:13: broker.port: expected a value; leave the line "
                                     "out for the default, or write \"\"");
    expect_refused("broker: 5\n", "w.yaml:1:9: broker: expected a map of options, such as {name: "
                                  "value}");
    expect_refused("broker:\n  port: {a: 1}\n",
                   "w.yaml:2:9: broker.port: expected a single value, got a map");
    expect_refused("just text\n", "w.yaml:1:1: expected options as `name: value`");
}

static void yaml_beyond_what_is_needed(void **state)
{
    (void)state;
    expect_refused("broker.stream: [a]\n",
                   "w.yaml:1:16: broker.stream: expected a single value, got a list");
    expect_refused("- a\n", "w.yaml:1:1: expected a single value, got a list");
    expect_refused("broker.stream: &x a\n",
                   "w.yaml:1:16: broker.stream: anchors are not read here");
    expect_refused("threads: *x\n", "w.yaml:1:10: threads: aliases are not read here");
    expect_refused("broker.stream: !!str a\n",
                   "w.yaml:1:16: broker.stream: tags are not read here");
    expect_refused("broker: &b {port: 1}\n", "w.yaml:1:9: anchors and tags are not read here");
    expect_refused("? {a: 1}\n: 2\n", "w.yaml:1:3: expected the name of an option, got a map");
    expect_refused("threads: 1\n---\nthreads: 2\n",
                   "w.yaml:2:1: expected one document, got a second");
    expect_refused("<<: {threads: 1}\n", "w.yaml:1:1: <<: unknown option; --help lists all");
    expect_refused("broker.stream: \"a\\0b\"\n", "w.yaml:1:16: broker.stream: holds a NUL byte");
    expect_refused("\"thr\\0eads\": 1\n", "w.yaml:1:1: expected the name of an option");
}

static void duplicates(void **state)
{
    (void)state;
    expect_refused("threads: 1\ndim: 0\nthreads: 1\n",
                   "w.yaml:3:1: threads: given already in line 1; expected each key once");
    expect_refused("broker:\n  port: 1\nbroker:\n  stream: a\n",
                   "w.yaml:3:1: broker: given already in line 1; expected each key once");
    expect_refused("broker:\n  port: 1\nbroker.port: 2\n",
                   "w.yaml:3:1: broker.port: given already in line 2; expected each key once");
}

static void secrets_stay_secret(void **state)
{
    (void)state;
    expect("broker.url: hunter2", "broker.url", "hunter2");
    struct options *options;
    char err[1024];
    const char *yaml = "broker.url: [hunter2]\n";
    assert_int_equal(parse(&options, yaml, strlen(yaml), err), -EBADMSG);
    assert_null(strstr(err, "hunter2"));
    options_close(options);
}

static const char sound[] =
    "# worker\nthreads: 2\nbroker:\n  url: \"redis://u:${N:-p}@h\"\n  stream: 'a''b'\n"
    "  tls: {verify: off}\nlinger: 20ms\nbatch_bytes: >-\n  64KiB\nprompt: \"q\\u00e9 $${x}\"\n";

/* Any bytes: 0 or a refusal that names the place; under sanitizers: no read out of bounds. */
static int expect_answer(const char *bytes, size_t len)
{
    struct options *options;
    char err[1024];
    char *exact = malloc(len ? len : 1);
    memcpy(exact, bytes, len);
    int rc = parse(&options, exact, len, err);
    assert_true(rc == 0 || rc == -EBADMSG);
    if (rc != 0 && strncmp(err, "w.yaml:", 7) != 0)
        fail_msg("no place in: %s", err);
    options_close(options);
    free(exact);
    return rc;
}

static void truncated_at_every_byte(void **state)
{
    (void)state;
    assert_int_equal(expect_answer(sound, strlen(sound)), 0);
    size_t n_refused = 0;
    for (size_t len = 0; len < strlen(sound); len++)
        n_refused += expect_answer(sound, len) != 0;
    assert_true(n_refused > 50);
}

static void mutated_at_random(void **state)
{
    (void)state;
    uint64_t seed = 20240611;
    print_message("seed %llu\n", (unsigned long long)seed);
    static const char spice[] = "{}[]:,&*!|>'\"%@`#?-\n\t \0\xff\x80$~<=";
    for (int round = 0; round < 5000; round++) {
        char bytes[sizeof sound];
        memcpy(bytes, sound, sizeof sound);
        int n = 1 + round % 4;
        while (n-- > 0) {
            seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
            size_t at = (seed >> 33) % strlen(sound);
            seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
            bytes[at] = spice[(seed >> 33) % (sizeof spice - 1)];
        }
        expect_answer(bytes, strlen(sound));
    }
}

static void deep_and_long(void **state)
{
    (void)state;
    size_t len = 100000;
    char *bytes = malloc(len);
    const char fills[] = "{[?-&:'\"";
    for (size_t i = 0; i < strlen(fills); i++) {
        memset(bytes, fills[i], len);
        assert_int_equal(expect_answer(bytes, len), -EBADMSG);
    }
    memset(bytes, 'k', len);
    memcpy(bytes + len - 4, ": 1\n", 4);
    assert_int_equal(expect_answer(bytes, len), -EBADMSG);
    free(bytes);
}

static void files_too_large_and_folders(void **state)
{
    (void)state;
    char path[] = "/tmp/embedmill-test-XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(ftruncate(fd, (1 << 20) + 1), 0);
    close(fd);
    struct options *options;
    char err[1024];
    assert_int_equal(options_open(&options, tables, NULL, environment), 0);
    assert_int_equal(config_file_read(options, path, environment, err, sizeof err), -EBADMSG);
    assert_non_null(strstr(err, "expected a configuration file of at most 1 MiB"));
    unlink(path);
    assert_int_equal(config_file_read(options, "/", environment, err, sizeof err), -EISDIR);
    assert_string_equal(err, "/: cannot be read: Is a directory");
    options_close(options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_with_names),
        cmocka_unit_test(models_of_the_environment),
        cmocka_unit_test(nested_and_dotted_names),
        cmocka_unit_test(texts_of_all_styles),
        cmocka_unit_test(empty_files_and_groups),
        cmocka_unit_test(variables_in_values),
        cmocka_unit_test(refused_with_place_and_reason),
        cmocka_unit_test(yaml_beyond_what_is_needed),
        cmocka_unit_test(duplicates),
        cmocka_unit_test(secrets_stay_secret),
        cmocka_unit_test(truncated_at_every_byte),
        cmocka_unit_test(mutated_at_random),
        cmocka_unit_test(deep_and_long),
        cmocka_unit_test(files_too_large_and_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
