/*
 * test_settings.c: every type reads what it should, refuses the rest, and says why.
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

#include "connectors/settings.h"

static const struct option redis_table[] = {
    {"redis.url", OPTION_SECRET, NULL, NULL, 0, 0, "URL", "where"},
    {"redis.port", OPTION_COUNT, "6379", NULL, 1, 65535, "N", "port"},
    {"redis.stream", OPTION_TEXT, "texts", NULL, 0, 0, "NAME", "stream"},
    {"redis.output", OPTION_CHOICE, "stream", "stream|key|hash", 0, 0, "KIND", "output"},
    {"redis.create", OPTION_BOOL, "true", NULL, 0, 0, NULL, "create"},
    {.name = NULL}};

static const struct option core_table[] = {
    {"linger", OPTION_DURATION, "5ms", NULL, 0, 60000, "TIME", "linger"},
    {"batch_bytes", OPTION_SIZE, "64KiB", NULL, 1024, 1 << 30, "SIZE", "bytes"},
    {"offset", OPTION_COUNT, NULL, NULL, -5, 5, "N", "offset"},
    {"any", OPTION_COUNT, NULL, NULL, 0, 0, "N", "any"},
    {.name = NULL}};

static const struct option *const tables[] = {redis_table, core_table, NULL};

static int open_all(void **state)
{
    return settings_open((struct settings **)state, tables);
}

static int close_all(void **state)
{
    settings_close(*state);
    return 0;
}

static void expect_refused(struct settings *settings, const char *name, const char *value,
                           const char *message)
{
    char err[512] = "";
    assert_int_equal(settings_set(settings, name, value, err, sizeof err), -EINVAL);
    assert_string_equal(err, message);
}

static void choices_have_numbers(void **state)
{
    struct settings *settings = *state;
    static const char *const names[] = {"stream", "key", "hash"};
    char err[200];
    assert_int_equal(settings_choice(settings, "redis.output"), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(settings_set(settings, "redis.output", names[i], err, sizeof err), 0);
        assert_int_equal(settings_choice(settings, "redis.output"), i);
    }
}

static void expect_number(struct settings *settings, const char *name, const char *value,
                          int64_t number)
{
    char err[512] = "";
    if (settings_set(settings, name, value, err, sizeof err) != 0)
        fail_msg("%s", err);
    assert_true(settings_number(settings, name) == number);
    assert_string_equal(settings_text(settings, name), value);
}

static void defaults_are_read_but_not_given(void **state)
{
    struct settings *settings = *state;
    assert_int_equal(settings_number(settings, "redis.port"), 6379);
    assert_int_equal(settings_number(settings, "linger"), 5);
    assert_int_equal(settings_number(settings, "batch_bytes"), 65536);
    assert_true(settings_bool(settings, "redis.create"));
    assert_string_equal(settings_text(settings, "redis.stream"), "texts");
    assert_null(settings_text(settings, "redis.url"));
    assert_int_equal(settings_number(settings, "offset"), 0);
    assert_string_equal(settings_find(settings, "linger")->help, "linger");
    assert_null(settings_find(settings, "lingers"));
}

static void the_last_value_wins(void **state)
{
    char err[64];
    assert_int_equal(settings_set(*state, "redis.stream", "a", err, sizeof err), 0);
    assert_int_equal(settings_set(*state, "redis.stream", "\xc3\xa9", err, sizeof err), 0);
    assert_string_equal(settings_text(*state, "redis.stream"), "\xc3\xa9");
    assert_int_equal(settings_set(*state, "redis.stream", "", err, sizeof err), 0);
    assert_string_equal(settings_text(*state, "redis.stream"), "");
}

static void counts(void **state)
{
    expect_number(*state, "redis.port", "1", 1);
    expect_number(*state, "redis.port", "65535", 65535);
    expect_number(*state, "offset", "-5", -5);
    expect_number(*state, "any", "9223372036854775807", INT64_MAX);
    const char *const bad[] = {"",   "x",    "0",  "65536", "1x", " 1",
                               "1 ", "0x10", "+1", "1.5",   "-1", "99999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char message[200];
        snprintf(message, sizeof message,
                 "redis.port: expected an integer from 1 to 65535, got '%s'", bad[i]);
        expect_refused(*state, "redis.port", bad[i], message);
    }
    expect_refused(*state, "any", "-1", "any: expected an integer, at least 0, got '-1'");
    assert_int_equal(settings_number(*state, "redis.port"), 65535); /* kept after refusals */
}

static void durations(void **state)
{
    expect_number(*state, "linger", "0", 0);
    expect_number(*state, "linger", "15ms", 15);
    expect_number(*state, "linger", "7s", 7000);
    expect_number(*state, "linger", "1m", 60000);
    expect_refused(*state, "linger", "5",
                   "linger: expected a duration such as 500ms, 5s, 2m or 1h, from 0ms to 1m, "
                   "got '5'");
    const char *const bad[] = {"1h", "2m", "s", "1S", "1 s", "-1s", "1sm", "9223372036854775807h"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char err[256];
        assert_int_equal(settings_set(*state, "linger", bad[i], err, sizeof err), -EINVAL);
    }
}

static void sizes(void **state)
{
    expect_number(*state, "batch_bytes", "4096", 4096);
    expect_number(*state, "batch_bytes", "4096B", 4096);
    expect_number(*state, "batch_bytes", "64KiB", 65536);
    expect_number(*state, "batch_bytes", "64kB", 64000);
    expect_number(*state, "batch_bytes", "2MB", 2000000);
    expect_number(*state, "batch_bytes", "1GiB", 1 << 30);
    expect_refused(*state, "batch_bytes", "2GiB",
                   "batch_bytes: expected a size such as 512, 64KiB or 16MiB, from 1KiB to 1GiB, "
                   "got '2GiB'");
    const char *const bad[] = {"", "1023", "64K", "64kib", "KiB", "8589934592GiB"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char err[256];
        assert_int_equal(settings_set(*state, "batch_bytes", bad[i], err, sizeof err), -EINVAL);
    }
}

static void bools_and_choices(void **state)
{
    char err[256];
    const char *const yes[] = {"true", "yes", "on", "1", "TRUE", "Yes"};
    const char *const no[] = {"false", "no", "off", "0", "False"};
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(settings_set(*state, "redis.create", yes[i], err, sizeof err), 0);
        assert_true(settings_bool(*state, "redis.create"));
    }
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(settings_set(*state, "redis.create", no[i], err, sizeof err), 0);
        assert_false(settings_bool(*state, "redis.create"));
    }
    expect_refused(*state, "redis.create", "maybe",
                   "redis.create: expected true or false, got 'maybe'");
    assert_int_equal(settings_set(*state, "redis.output", "hash", err, sizeof err), 0);
    const char *const bad[] = {"", "has", "hashh", "stream|key", "|", "Hash"};
    for (size_t i = 0; i < 6; i++) {
        char message[200];
        snprintf(message, sizeof message,
                 "redis.output: expected one of stream, key, hash, got '%s'", bad[i]);
        expect_refused(*state, "redis.output", bad[i], message);
    }
}

static void only_utf8(void **state)
{
    const char *const bad[] = {"\x80",
                               "\xc3",
                               "a\xc0\x80",
                               "\xed\xa0\x80",
                               "\xf4\x90\x80\x80",
                               "\xe0\x80\x80",
                               "\xf5\x80\x80\x80",
                               "\xe2\x82"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        expect_refused(*state, "redis.stream", bad[i], "redis.stream: expected valid UTF-8");
    char err[64];
    assert_int_equal(
        settings_set(*state, "redis.stream", "\xf0\x9f\x98\x80 \xed\x9f\xbf", err, sizeof err), 0);
}

static void secrets_are_never_echoed(void **state)
{
    char err[256] = "";
    assert_int_equal(settings_set(*state, "redis.url", "hunter2\xff", err, sizeof err), -EINVAL);
    assert_null(strstr(err, "hunter2"));
    assert_int_equal(settings_set(*state, "redis.url", "hunter2", err, sizeof err), 0);
    assert_string_equal(settings_text(*state, "redis.url"), "hunter2");
}

static void echoes_are_short_and_printable(void **state)
{
    char value[500], err[512];
    memset(value, 'y', sizeof value);
    value[0] = '\x1b';
    value[sizeof value - 1] = '\0';
    assert_int_equal(settings_set(*state, "redis.port", value, err, sizeof err), -EINVAL);
    assert_true(strlen(err) < 150);
    assert_null(strchr(err, '\x1b'));
    assert_non_null(strstr(err, "...'"));
    char tiny[8]; /* a small err is cut, never overrun */
    assert_int_equal(settings_set(*state, "redis.port", value, tiny, sizeof tiny), -EINVAL);
    assert_int_equal(strlen(tiny), 7);
}

static void unknown_names(void **state)
{
    char err[128];
    assert_int_equal(settings_set(*state, "redis.prot", "1", err, sizeof err), -ENOENT);
    assert_string_equal(err, "redis.prot: unknown option");
    settings_close(NULL);
}

static int read_port(void *config, const struct settings *settings, const char **bad_option,
                     char *err, size_t err_size)
{
    int64_t port = settings_number(settings, "redis.port");
    *bad_option = "redis.port";
    if (port == 1)
        return -ENOMEM;
    if (port != 2)
        return *(int64_t *)config = port, 0;
    snprintf(err, err_size, "expected another one");
    return -EINVAL;
}

static void a_reader_names_the_bad_option(void **state)
{
    int64_t port = 0;
    char err[64] = "";
    assert_int_equal(settings_read(read_port, &port, *state, err, sizeof err), 0);
    assert_int_equal(port, 6379);
    assert_string_equal(err, "");
    assert_int_equal(settings_set(*state, "redis.port", "2", err, sizeof err), 0);
    assert_int_equal(settings_read(read_port, &port, *state, err, sizeof err), -EINVAL);
    assert_string_equal(err, "redis.port: expected another one");
    assert_int_equal(settings_set(*state, "redis.port", "1", err, sizeof err), 0);
    assert_int_equal(settings_read(read_port, &port, *state, err, sizeof err), -ENOMEM);
    assert_string_equal(err, "out of memory");
    assert_int_equal(port, 6379);
}

static void a_sentence_is_taken_apart(void **state)
{
    char named[] = "redis.port: expected another one", bare[] = "certificate expired",
         other[] = "redis.url: it is no URL", property[] = "redis.port is not to be set";
    assert_string_equal(settings_blame(*state, "redis.url", named), "redis.port");
    assert_string_equal(named, "expected another one");
    assert_string_equal(settings_blame(*state, "redis.url", bare), "redis.url");
    assert_string_equal(bare, "certificate expired");
    assert_string_equal(settings_blame(*state, "redis.url", other), "redis.url");
    assert_string_equal(other, "it is no URL");
    assert_string_equal(settings_blame(*state, "redis.url", property), "redis.port");
    assert_string_equal(property, "redis.port is not to be set");
}

static void copies_of_texts(void **state)
{
    char *copy, err[64];
    assert_int_equal(settings_copy(*state, "redis.stream", &copy), 0);
    assert_string_equal(copy, "texts");
    free(copy);
    assert_int_equal(settings_copy(*state, "redis.url", &copy), 0);
    assert_null(copy);
    assert_int_equal(settings_set(*state, "redis.stream", "", err, sizeof err), 0);
    assert_int_equal(settings_copy(*state, "redis.stream", &copy), 0);
    assert_null(copy);
}

/* redis.url stands here for a name that is made of that of the stream where it is not set. */
static void names_of_models(void **state)
{
    struct settings *settings = *state, *own;
    char err[200];
    assert_false(settings_has_model(settings, "redis.stream"));
    assert_false(settings_has_model(settings, "redis.url"));
    assert_string_equal(settings_model_from(settings, "redis.url", "redis.stream"), "redis.url");
    assert_int_equal(settings_set(settings, "redis.stream", "a:{model},{model}", err, sizeof err),
                     0);
    assert_true(settings_has_model(settings, "redis.stream"));
    assert_string_equal(settings_model_from(settings, "redis.url", "redis.stream"), "redis.stream");
    assert_int_equal(settings_set(settings, "redis.url", "all", err, sizeof err), 0);
    assert_string_equal(settings_model_from(settings, "redis.url", "redis.stream"), "redis.url");
    assert_int_equal(settings_of_model(&own, settings, "old"), 0);
    assert_string_equal(settings_text(own, "redis.stream"), "a:old,old");
    assert_false(settings_has_model(own, "redis.stream"));
    settings_close(own);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(choices_have_numbers, open_all, close_all),
        cmocka_unit_test_setup_teardown(defaults_are_read_but_not_given, open_all, close_all),
        cmocka_unit_test_setup_teardown(the_last_value_wins, open_all, close_all),
        cmocka_unit_test_setup_teardown(counts, open_all, close_all),
        cmocka_unit_test_setup_teardown(durations, open_all, close_all),
        cmocka_unit_test_setup_teardown(sizes, open_all, close_all),
        cmocka_unit_test_setup_teardown(bools_and_choices, open_all, close_all),
        cmocka_unit_test_setup_teardown(only_utf8, open_all, close_all),
        cmocka_unit_test_setup_teardown(secrets_are_never_echoed, open_all, close_all),
        cmocka_unit_test_setup_teardown(echoes_are_short_and_printable, open_all, close_all),
        cmocka_unit_test_setup_teardown(unknown_names, open_all, close_all),
        cmocka_unit_test_setup_teardown(a_reader_names_the_bad_option, open_all, close_all),
        cmocka_unit_test_setup_teardown(a_sentence_is_taken_apart, open_all, close_all),
        cmocka_unit_test_setup_teardown(copies_of_texts, open_all, close_all),
        cmocka_unit_test_setup_teardown(names_of_models, open_all, close_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
