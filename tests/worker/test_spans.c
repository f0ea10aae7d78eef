/*
 * test_spans.c: what is a trace context, and what the span of a batch says.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "worker/telemetry/log.h"
#include "worker/telemetry/spans.h"
#include "worker/telemetry/traceparent.h"

#define TRACE  "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN   "00f067aa0ba902b7"
#define PARENT "00-" TRACE "-" SPAN "-01"

static bool reads(const char *value, struct traceparent *out)
{
    const struct header headers[] = {{bytes_of("lang"), bytes_of("de")},
                                     {bytes_of("traceparent"), bytes_of(value)}};
    struct message message = {.headers = headers, .n_headers = 2};
    return traceparent_read(&message, out);
}

static void traceparent_test(void **state)
{
    (void)state;
    struct traceparent parent;
    assert_true(reads(PARENT, &parent));
    assert_string_equal(parent.text, PARENT);
    assert_string_equal(parent.trace_id, TRACE);
    assert_string_equal(parent.span_id, SPAN);
    assert_int_equal(parent.flags, 1);
    assert_true(reads("00-" TRACE "-" SPAN "-00", &parent));
    assert_int_equal(parent.flags, 0);
    /* A later version may have more behind it. */
    assert_true(reads("cc-" TRACE "-" SPAN "-ff-what the future brings", &parent));
    assert_string_equal(parent.text, "cc-" TRACE "-" SPAN "-ff");
    static const char *const bad[] = {
        "",
        "00-" TRACE "-" SPAN "-0",
        PARENT "-x",
        PARENT " ",
        "cc-" TRACE "-" SPAN "-01x",
        "ff-" TRACE "-" SPAN "-01",
        "0g-" TRACE "-" SPAN "-01",
        "00-00000000000000000000000000000000-" SPAN "-01",
        "00-" TRACE "-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01",
        "00-" TRACE "-" SPAN "--1",
        "00_" TRACE "-" SPAN "-01",
        "00-" TRACE SPAN "-01-----------",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (reads(bad[i], &parent))
            fail_msg("%s", bad[i]);
    assert_false(traceparent_read(&(struct message){.n_headers = 0}, &parent));
    /* Of equal headers the last counts, as everywhere. */
    const struct header twice[] = {{bytes_of("traceparent"), bytes_of("x")},
                                   {bytes_of("traceparent"), bytes_of(PARENT)}};
    assert_true(traceparent_read(&(struct message){.headers = twice, .n_headers = 2}, &parent));
}

static const char *text_at(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    assert_non_null(text);
    return text;
}

/* Of an attribute, as a string whatever its type. */
static const char *attribute(const json_t *holder, const char *name)
{
    size_t i;
    json_t *pair;
    json_array_foreach(json_object_get(holder, "attributes"), i, pair)
    {
        json_t *value = json_object_get(pair, "value");
        if (strcmp(text_at(pair, "key"), name) == 0)
            return json_string_value(json_object_iter_value(json_object_iter(value)));
    }
    fail_msg("no attribute %s", name);
    return NULL;
}

static void id_check(const char *id, size_t len)
{
    assert_int_equal(strlen(id), len);
    assert_int_equal(strspn(id, "0123456789abcdef"), len);
    assert_true(strspn(id, "0") < len);
}

static json_t *first_of(const json_t *holder, const char *name)
{
    json_t *array = json_object_get(holder, name);
    assert_int_equal(json_array_size(array), 1);
    return json_array_get(array, 0);
}

/* The only span of a line, after what is around it was looked at. */
static json_t *span_of(const json_t *root)
{
    json_t *resource_spans = first_of(root, "resourceSpans");
    json_t *resource = json_object_get(resource_spans, "resource");
    assert_string_equal(attribute(resource, "service.name"), "embedmill");
    json_t *span = first_of(first_of(resource_spans, "scopeSpans"), "spans");
    id_check(text_at(span, "traceId"), 32);
    id_check(text_at(span, "spanId"), 16);
    assert_string_equal(attribute(span, "messaging.system"), "kafka");
    assert_string_equal(attribute(span, "gen_ai.request.model"), "a \"model\"");
    return span;
}

static void times_check(const json_t *span, uint64_t took_ns)
{
    uint64_t begin = strtoull(text_at(span, "startTimeUnixNano"), NULL, 10);
    uint64_t end = strtoull(text_at(span, "endTimeUnixNano"), NULL, 10);
    assert_int_equal(end - begin, took_ns);
    double ago = (double)time(NULL) - (double)end / 1e9;
    assert_true(ago > -5 && ago < 600);
}

static char folder[] = "/tmp/embedmill-spans-XXXXXX", path[200];

static void add_batch(struct spans *spans, size_t n)
{
    static const struct header parents[] = {{{"traceparent", 11}, {PARENT, 55}}};
    static const struct header bad[] = {{{"traceparent", 11}, {"sesame", 6}}};
    struct message messages[] = {{.headers = parents, .n_headers = 1},
                                 {.headers = bad, .n_headers = 1},
                                 {.n_headers = 0},
                                 {.headers = parents, .n_headers = 1}};
    struct entry entries[] = {{.message = &messages[0]},
                              {.message = &messages[1], .dead_code = "bad_json"},
                              {.message = &messages[2]},
                              {.message = &messages[3]}};
    struct slice slices[3] = {{.n = 1}, {.n = 1}, {.n = 1}};
    struct batch batch = {
        .entries = entries, .n_entries = n, .n_texts = 3, .slices = slices, .n_slices = 3};
    batch.taken_ns = uv_hrtime() - 2000000; /* it has waited since for the batch before it */
    for (size_t i = 0; i < 3; i++)
        slices[i].ended_ns = batch.taken_ns + (i == 1 ? 1500000 : 700000);
    spans_add(spans, &batch);
}

static void spans_test(void **state)
{
    (void)state;
    enum { LINES = 50 };
    uv_loop_t here;
    struct spans *spans = NULL;
    const struct spans_about about = {.source = "kafka", .model = "a \"model\""};
    char err[200], line[4000], seen[LINES][33];
    assert_int_equal(uv_loop_init(&here), 0);
    for (int run = 0; run < 2; run++) { /* the second one appends */
        assert_int_equal(spans_open(&spans, &here, path, &about, err, sizeof err), 0);
        for (size_t i = 0; i < LINES / 2; i++) {
            add_batch(spans, run == 0 ? 4 : 3);
            if (i % 5 == 0)
                uv_run(&here, UV_RUN_NOWAIT);
        }
        spans_close(spans);
        assert_int_equal(uv_run(&here, UV_RUN_DEFAULT), 0);
    }
    assert_int_equal(uv_loop_close(&here), 0);
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    size_t n = 0;
    for (; fgets(line, sizeof line, file); n++) {
        json_t *root = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        if (!root)
            fail_msg("not JSON: %s", line);
        json_t *span = span_of(root), *links = json_object_get(span, "links");
        bool is_first_run = n < LINES / 2;
        assert_int_equal(json_array_size(links), is_first_run ? 2 : 1);
        json_t *link = json_array_get(links, 0);
        assert_string_equal(text_at(link, "traceId"), TRACE);
        assert_string_equal(text_at(link, "spanId"), SPAN);
        assert_int_equal(json_integer_value(json_object_get(link, "flags")), 1);
        assert_string_equal(attribute(span, "messaging.batch.message_count"),
                            is_first_run ? "4" : "3");
        assert_string_equal(attribute(span, "embedmill.texts"), "3");
        assert_string_equal(attribute(span, "embedmill.dead_letters"), "1");
        times_check(span, 1500000);
        snprintf(seen[n], sizeof seen[n], "%s", text_at(span, "traceId"));
        for (size_t i = 0; i < n; i++)
            assert_string_not_equal(seen[i], seen[n]);
        json_decref(root);
    }
    assert_int_equal(n, LINES);
    fclose(file);
}

static uv_loop_t loop;
static char log_path[220];
static FILE *log_file;

static struct spans *open_to(const char *to)
{
    struct spans *spans = NULL;
    const struct spans_about about = {.source = "kafka", .model = "a \"model\""};
    char err[200];
    assert_int_equal(uv_loop_init(&loop), 0);
    snprintf(log_path, sizeof log_path, "%s.log", path);
    log_file = fopen(log_path, "w+e");
    assert_non_null(log_file);
    log_open(LOG_WARN, LOG_JSON, fileno(log_file));
    assert_int_equal(spans_open(&spans, &loop, to, &about, err, sizeof err), 0);
    return spans;
}

/* n_lost: what the log says; 0: nothing. */
static void close_all(struct spans *spans, unsigned n_lost)
{
    char line[1000] = "", lost[40];
    spans_close(spans);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    log_close();
    rewind(log_file);
    snprintf(lost, sizeof lost, "\"lost\":%u,", n_lost);
    if (n_lost == 0) {
        assert_null(fgets(line, sizeof line, log_file));
    } else {
        assert_non_null(fgets(line, sizeof line, log_file));
        assert_non_null(strstr(line, "spans are lost"));
        if (!strstr(line, lost))
            fail_msg("not %s: %s", lost, line);
    }
    fclose(log_file);
    unlink(log_path);
}

/* A disk that is full: the worker goes on, and says how many are lost. */
static void full_test(void **state)
{
    (void)state;
    struct spans *spans = open_to("/dev/full"), *none;
    const struct spans_about about = {.source = "kafka", .model = "m"};
    char err[200];
    add_batch(spans, 4);
    uv_run(&loop, UV_RUN_DEFAULT);
    close_all(spans, 1);
    assert_true(spans_open(&none, &loop, "/nonexistent/x", &about, err, sizeof err) < 0);
    assert_non_null(strstr(err, "/nonexistent/x cannot be written"));
}

/* wanted: for each line, is it whole? */
static void lines_check(const char *wanted)
{
    char line[4000];
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    for (; fgets(line, sizeof line, file); wanted++) {
        json_t *root = json_loads(line, 0, NULL);
        if (*wanted != (root ? 'y' : 'n'))
            fail_msg("%.1s wanted: %s", wanted, line);
        if (root)
            span_of(root);
        json_decref(root);
    }
    assert_string_equal(wanted, "");
    fclose(file);
}

static void limit_file(rlim_t size)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = size == RLIM_INFINITY ? limit.rlim_max : size;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* Cut in the middle of the fourth line: only it and the fifth are lost. A limit cuts as a full disk
 * does. */
static void torn_test(void **state)
{
    (void)state;
    struct stat first;
    unlink(path);
    signal(SIGXFSZ, SIG_IGN);
    struct spans *spans = open_to(path);
    add_batch(spans, 4);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(stat(path, &first), 0);
    limit_file((rlim_t)first.st_size * 7 / 2);
    for (size_t i = 0; i < 4; i++) /* the first is written, the others then at once */
        add_batch(spans, 4);
    uv_run(&loop, UV_RUN_DEFAULT);
    limit_file(RLIM_INFINITY);
    add_batch(spans, 4);
    add_batch(spans, 4);
    close_all(spans, 2);
    lines_check("yyynyy");
    /* And by a worker that has ended since. */
    assert_int_equal(truncate(path, first.st_size * 3 / 2), 0);
    spans = open_to(path);
    add_batch(spans, 4);
    add_batch(spans, 4);
    close_all(spans, 0);
    lines_check("ynyy");
}

/* A pipe that holds less than one write: what its reader has not taken yet waits. */
static void pipe_test(void **state)
{
    (void)state;
    enum { LINES = 500 }; /* of more than 500 bytes; a pipe holds 64 KiB */
    char bytes[1000];
    size_t n_lines = 0;
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    assert_true(reader >= 0);
    struct spans *spans = open_to(path);
    for (size_t i = 0; i < LINES; i++)
        add_batch(spans, 4);
    for (size_t i = 0; i < 5; i++) /* it is full */
        uv_run(&loop, UV_RUN_ONCE);
    for (uint64_t began = uv_hrtime(); n_lines < LINES && uv_hrtime() - began < 20000000000u;) {
        ssize_t n = read(reader, bytes, sizeof bytes);
        for (ssize_t i = 0; i < n; i++)
            n_lines += bytes[i] == '\n';
        if (n < (ssize_t)sizeof bytes)
            uv_run(&loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(n_lines, LINES);
    close_all(spans, 0);
    /* A reader that takes nothing does not keep a worker from ending. */
    spans = open_to(path);
    for (size_t i = 0; i < LINES; i++)
        add_batch(spans, 4);
    int n_taken = 0;
    uint64_t began = uv_hrtime();
    spans_close(spans);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_true(uv_hrtime() - began < 20000000000u);
    for (ssize_t n; (n = read(reader, bytes, sizeof bytes)) > 0; n_taken += (int)n)
        ;
    assert_in_range(n_taken, 1, 500 * LINES);
    log_close();
    fclose(log_file);
    unlink(log_path);
    assert_int_equal(uv_loop_close(&loop), 0);
    close(reader);
}

static int begin(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/spans.jsonl", folder);
    return 0;
}

static int end(void **state)
{
    (void)state;
    unlink(path);
    rmdir(folder);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(traceparent_test), cmocka_unit_test(spans_test),
        cmocka_unit_test(full_test),        cmocka_unit_test(torn_test),
        cmocka_unit_test(pipe_test),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
