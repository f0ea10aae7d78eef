/*
 * test_log.c: lines as JSON and logfmt, levels, repeats held back, hostile values; progress lines.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/telemetry/log.h"
#include "worker/telemetry/progress.h"

static int file;

static int open_log(void **state)
{
    (void)state;
    char path[] = "/tmp/embedmill-test-XXXXXX";
    file = mkstemp(path);
    unlink(path);
    return file < 0;
}

static int close_log(void **state)
{
    (void)state;
    log_open(LOG_INFO, LOG_AUTO, STDERR_FILENO);
    return close(file);
}

/* All that was logged so far. */
static const char *logged(void)
{
    static char bytes[200000];
    ssize_t n = pread(file, bytes, sizeof bytes - 1, 0);
    assert_true(n >= 0);
    bytes[n] = '\0';
    return bytes;
}

static size_t count(const char *bytes, const char *what)
{
    size_t n = 0;
    for (; (bytes = strstr(bytes, what)); bytes += strlen(what))
        n++;
    return n;
}

static void json_lines(void **state)
{
    (void)state;
    log_open(LOG_INFO, LOG_AUTO, file); /* not a terminal: JSON */
    log_event(LOG_INFO, "started", LOG_TEXT("source", "redis"), LOG_INTEGER("n", INT64_MIN),
              LOG_REAL("rate", 1.5), LOG_TEXT("none", NULL));
    json_t *line = json_loads(logged(), 0, NULL);
    assert_non_null(line);
    assert_string_equal(json_string_value(json_object_get(line, "msg")), "started");
    assert_string_equal(json_string_value(json_object_get(line, "level")), "info");
    assert_string_equal(json_string_value(json_object_get(line, "source")), "redis");
    assert_null(json_object_get(line, "none"));
    assert_true(json_integer_value(json_object_get(line, "n")) == INT64_MIN);
    assert_true(json_real_value(json_object_get(line, "rate")) == 1.5);
    const char *ts = json_string_value(json_object_get(line, "ts"));
    assert_int_equal(strlen(ts), strlen("2024-01-02T03:04:05.678Z"));
    assert_int_equal(ts[10], 'T');
    assert_int_equal(ts[23], 'Z');
    json_decref(line);
}

static void logfmt_lines(void **state)
{
    (void)state;
    log_open(LOG_INFO, LOG_LOGFMT, file);
    log_event(LOG_ERROR, "cannot start", LOG_TEXT("plain", "a-b:c"), LOG_TEXT("spaced", "a b"),
              LOG_TEXT("quoted", "a\"b\nlevel=info"), LOG_TEXT("empty", ""), LOG_INTEGER("n", 7));
    const char *line = logged();
    assert_memory_equal(line, "ts=2", 4);
    assert_non_null(strstr(line, " level=error msg=\"cannot start\" plain=a-b:c spaced=\"a b\" "
                                 "quoted=\"a\\\"b\\nlevel=info\" empty=\"\" n=7\n"));
    assert_int_equal(count(line, "\n"), 1);
}

static void levels(void **state)
{
    (void)state;
    log_open(LOG_WARN, LOG_LOGFMT, file);
    log_event(LOG_DEBUG, "a");
    log_event(LOG_INFO, "b");
    log_event(LOG_WARN, "c");
    log_event(LOG_ERROR, "d");
    assert_int_equal(count(logged(), "\n"), 2);
    assert_null(strstr(logged(), "msg=a"));
    assert_null(strstr(logged(), "msg=b"));
}

static void repeats_are_counted(void **state)
{
    (void)state;
    log_open(LOG_INFO, LOG_LOGFMT, file);
    for (int i = 0; i < 1000; i++) {
        log_event(LOG_WARN, "source waits", LOG_INTEGER("try", i),
                  LOG_TEXT("why", i < 999 ? "topic" : "group"));
        log_event(LOG_WARN, "dead letter", LOG_TEXT("code", i % 2 ? "bad_json" : "no_text"));
    }
    log_event(LOG_INFO, "progress");
    log_event(LOG_INFO, "progress");
    log_tick();
    assert_int_equal(count(logged(), "\n"), 5);
    assert_int_equal(count(logged(), "source waits"), 1);
    assert_int_equal(count(logged(), "code=bad_json"), 1);
    assert_int_equal(count(logged(), "code=no_text"), 1);
    assert_int_equal(count(logged(), "msg=progress"), 2);
    log_close();
    assert_int_equal(count(logged(), "\n"), 8);
    assert_non_null(strstr(logged(), "msg=\"source waits\" why=group repeated=999\n"));
    assert_non_null(strstr(logged(), "msg=\"dead letter: bad_json\" repeated=499\n"));
    log_close();
    assert_int_equal(count(logged(), "\n"), 8);
}

/* More kinds of events than are remembered: none is lost, counts are told when forgotten. */
static void many_kinds_of_events(void **state)
{
    (void)state;
    log_open(LOG_INFO, LOG_LOGFMT, file);
    char msg[40];
    for (int i = 0; i < 100; i++) {
        snprintf(msg, sizeof msg, "event%d", i);
        log_event(LOG_WARN, msg);
        log_event(LOG_WARN, msg);
    }
    log_close();
    assert_int_equal(count(logged(), "\n"), 200);
    assert_int_equal(count(logged(), "repeated=1\n"), 100);
}

static void hostile_values(void **state)
{
    (void)state;
    static const char *const values[] = {"\xff\xfe", "\x1b[2J", "\xc3", "\xed\xa0\x80", "\xe2\x82",
                                         "a\tb",     "\\",      "\"",   "\x7f",         "\xf4\x90"};
    log_open(LOG_INFO, LOG_JSON, file);
    for (size_t i = 0; i < 10; i++)
        log_event(LOG_INFO, "x", LOG_TEXT("value", values[i]));
    char *huge = malloc(100001);
    memset(huge, '"', 100000);
    huge[100000] = '\0';
    log_event(LOG_INFO, "x", LOG_TEXT("value", huge), LOG_TEXT("after", huge), LOG_INTEGER("n", 1));
    log_event(LOG_INFO, huge, LOG_TEXT("value", huge));
    free(huge);
    const char *line = logged();
    size_t n = 0;
    for (; *line; n++) {
        const char *end = strchr(line, '\n');
        assert_non_null(end);
        assert_true(end - line < 4096);
        json_error_t error;
        json_t *object = json_loadb(line, (size_t)(end - line), 0, &error);
        if (!object)
            fail_msg("%s in %.*s", error.text, 200, line);
        json_decref(object);
        line = end + 1;
    }
    assert_int_equal(n, 12);
}

static void no_status_line_in_files(void **state)
{
    (void)state;
    log_open(LOG_INFO, LOG_LOGFMT, file);
    log_status("50 %");
    assert_false(log_is_terminal());
    log_event(LOG_INFO, "x");
    assert_null(strstr(logged(), "50 %"));
    assert_null(strchr(logged(), '\x1b'));
    log_close();
}

static void progress_lines(void **state)
{
    (void)state;
    char line[400];
    struct pipeline_stats stats = {.embedded_texts = 1234567, .inflight_texts = 128};
    progress_line(line, sizeof line, &stats, 0, 85.25, 3412.4);
    assert_string_equal(line, "1,234,567 texts  85.2 texts/s  3412 tokens/s  128 in flight");
    stats.embedded_texts = 500;
    stats.dead_letters = 1;
    progress_line(line, sizeof line, &stats, 2000, 10, 100);
    assert_string_equal(line, "500/2,000 (25 %) texts  10.0 texts/s  100 tokens/s  128 in flight  "
                              "1 dead letter  ETA 2m30s");
    stats.embedded_texts = 2001; /* more came than were promised */
    progress_line(line, sizeof line, &stats, 2000, 10, 100);
    assert_string_equal(line, "2,001/2,000 texts  10.0 texts/s  100 tokens/s  128 in flight  "
                              "1 dead letter");
    stats.embedded_texts = 0;
    progress_line(line, sizeof line, &stats, 2000, 0, 0); /* nothing to divide by */
    assert_string_equal(line, "0/2,000 (0 %) texts  0.0 texts/s  0 tokens/s  128 in flight  "
                              "1 dead letter");
    progress_line(line, sizeof line, &stats, 1000000, 100, 0);
    assert_non_null(strstr(line, "ETA 2h46m"));
    assert_null(strstr(line, "cached"));
    stats.memory_hits = 20;
    stats.disk_hits = 10;
    stats.cache_misses = 10;
    progress_line(line, sizeof line, &stats, 0, 0, 0);
    assert_non_null(strstr(line, "128 in flight  75 % cached  1 dead letter"));
}

static void progress_bars(void **state)
{
    (void)state;
    char bar[100];
    struct progress_input input = {0};
    progress_bar(bar, sizeof bar, &input, 10);
    assert_string_equal(bar, "");
    input.total = 1000;
    progress_bar(bar, sizeof bar, &input, 0);
    assert_string_equal(bar, "[....................] 0 %  ");
    input.done = 254;
    progress_bar(bar, sizeof bar, &input, 2);
    assert_string_equal(bar, "[#####...............] 25 %  ETA 6m13s  ");
    input.done = 1200; /* it grew while it was read */
    progress_bar(bar, sizeof bar, &input, 2);
    assert_string_equal(bar, "[####################] 100 %  ");
}

static void progress_lags(void **state)
{
    (void)state;
    char text[100];
    progress_print_lag(text, sizeof text, ", ", (struct lag){-1, -1});
    assert_string_equal(text, "");
    progress_print_lag(text, sizeof text, ", ", (struct lag){1234, 5678901});
    assert_string_equal(text, ", lag 1,234, group 5,678,901");
    progress_print_lag(text, sizeof text, "  ", (struct lag){0, -1});
    assert_string_equal(text, "  lag 0");
    progress_print_lag(text, sizeof text, "  ", (struct lag){-1, 7});
    assert_string_equal(text, "  group lag 7");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(json_lines, open_log, close_log),
        cmocka_unit_test_setup_teardown(logfmt_lines, open_log, close_log),
        cmocka_unit_test_setup_teardown(levels, open_log, close_log),
        cmocka_unit_test_setup_teardown(repeats_are_counted, open_log, close_log),
        cmocka_unit_test_setup_teardown(many_kinds_of_events, open_log, close_log),
        cmocka_unit_test_setup_teardown(hostile_values, open_log, close_log),
        cmocka_unit_test_setup_teardown(no_status_line_in_files, open_log, close_log),
        cmocka_unit_test(progress_lines),
        cmocka_unit_test(progress_bars),
        cmocka_unit_test(progress_lags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
