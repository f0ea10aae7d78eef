/*
 * test_metrics.c: histograms, series, the text format, what makes a worker ready, and what systemd
 * is told.
 */
#include "connectors/dead_letter_codes.h"
#include "worker/telemetry/metrics.h"
#include "worker/telemetry/metrics_print.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "worker/config/address.h"
#include "worker/telemetry/monitor.h"
#include "worker/telemetry/notify.h"

static char *print_all(const struct metrics *metrics)
{
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    assert_non_null(to);
    metrics_print(metrics, to);
    assert_int_equal(fclose(to), 0);
    return text;
}

static struct metrics *metrics_make(void)
{
    static const struct model_info info = {.name = "a \"quoted\" \\ name\nof two lines",
                                           .fingerprint = "0123",
                                           .precision = "exact",
                                           .kernels = "generic",
                                           .max_tokens = 100};
    struct metrics *metrics = malloc(sizeof *metrics);
    assert_non_null(metrics);
    metrics_open(metrics, &info);
    return metrics;
}

static void test_histogram(void **state)
{
    static const double bounds[] = {1, 2, 4};
    struct histogram histogram = {.bounds = bounds, .n = 3};
    char *text = NULL;
    size_t len = 0;
    (void)state;
    histogram_observe(&histogram, 1, 1); /* a bound belongs to its bucket */
    histogram_observe(&histogram, 1.5, 2);
    histogram_observe(&histogram, -3, 1); /* clocks differ */
    histogram_observe(&histogram, 100, 1);
    FILE *to = open_memstream(&text, &len);
    metrics_print_histogram(to, "x", "Help.", &histogram);
    fclose(to);
    assert_string_equal(text, "# HELP x Help.\n# TYPE x histogram\n"
                              "x_bucket{le=\"1\"} 2\nx_bucket{le=\"2\"} 4\nx_bucket{le=\"4\"} 4\n"
                              "x_bucket{le=\"+Inf\"} 5\nx_sum 104\nx_count 5\n");
    free(text);
}

static void test_series(void **state)
{
    struct series_table *table = calloc(1, sizeof *table);
    char name[400];
    (void)state;
    for (int i = 0; i < SERIES_MAX + 50; i++) {
        snprintf(name, sizeof name, "part/%d", i);
        struct series *row = series_find(table, name);
        assert_true((row != NULL) == (i < SERIES_MAX));
        if (row)
            row->value = i;
    }
    assert_int_equal(series_find(table, "part/7")->value, 7);
    series_drop(table, "part/7");
    series_drop(table, "no such part");
    assert_int_equal(table->n_dropped, 50);
    assert_int_equal(table->n, SERIES_MAX - 1);
    assert_int_equal(series_find(table, "part/255")->value, 255);
    assert_int_equal(series_find(table, "part/7")->value, 0);
    /* A name longer than a row is cut, and found again. */
    series_drop(table, "part/8");
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    struct series *row = series_find(table, name);
    assert_non_null(row);
    assert_ptr_equal(series_find(table, name), row);
    /* As long as a topic of Kafka may be, and two of its partitions. */
    series_drop(table, "part/9");
    series_drop(table, "part/10");
    snprintf(name + 249, sizeof name - 249, "/10");
    row = series_find(table, name);
    snprintf(name + 249, sizeof name - 249, "/11");
    assert_ptr_not_equal(series_find(table, name), row);
    free(table);
}

static void test_lag_of_more_parts_than_there_is_room_for(void **state)
{
    struct metrics *metrics = metrics_make();
    char name[40];
    (void)state;
    for (int i = 0; i < SERIES_MAX; i++) {
        snprintf(name, sizeof name, "texts/%d", i);
        assert_true(metrics_on_lag(metrics, name, i));
    }
    assert_false(metrics_on_lag(metrics, "one more", 1));
    assert_true(metrics_on_lag(metrics, "texts/7", 8)); /* those that are there go on */
    assert_true(metrics_on_lag(metrics, "texts/7", -1));
    assert_true(metrics_on_lag(metrics, "one more", 1));
    free(metrics);
}

static void test_text(void **state)
{
    struct metrics *metrics = metrics_make();
    (void)state;
    metrics_on_dead_letter(metrics, "bad_json");
    metrics_on_dead_letter(metrics, "text_too_long");
    metrics_on_dead_letter(metrics, "bad_json");
    metrics_on_count(metrics, COUNTER_RECLAIMED, 4);
    metrics_on_lag(metrics, "topic\"\xff/3", 12);
    metrics_on_lag(metrics, "gone", 5);
    assert_int_equal(metrics_lag(metrics).own, 17);
    metrics_on_lag(metrics, "gone", -1);
    metrics_on_lag(metrics, NULL, 34);
    assert_int_equal(metrics_lag(metrics).own, 12);
    assert_int_equal(metrics_lag(metrics).group, 34);
    metrics_on_link(metrics, SIDE_INPUT, LINK_WAIT);
    metrics_on_link(metrics, SIDE_OUTPUT, LINK_UP);
    metrics_on_link(metrics, SIDE_OUTPUT, LINK_WAIT);
    metrics_on_link(metrics, SIDE_OUTPUT, LINK_WAIT); /* the same outage, for another reason */
    metrics_on_link(metrics, SIDE_OUTPUT, LINK_UP);
    metrics_on_link(metrics, SIDE_OUTPUT, LINK_WAIT);
    metrics_on_link(metrics, SIDE_OUTPUT, LINK_UP);
    char *text = print_all(metrics);
    static const char *const wanted[] = {
        "model=\"a \\\"quoted\\\" \\\\ name\\nof two lines\",fingerprint=\"0123\"",
        "embedmill_errors_total{stage=\"decode\",code=\"bad_json\"} 2\n",
        "embedmill_errors_total{stage=\"embed\",code=\"text_too_long\"} 1\n",
        "embedmill_errors_total{stage=\"input\",code=\"unavailable\"} 1\n",
        "embedmill_errors_total{stage=\"output\",code=\"unavailable\"} 2\n",
        "embedmill_errors_total{stage=\"receive\",code=\"too_many_deliveries\"} 0\n",
        "embedmill_dead_letters_total{code=\"bad_json\"} 2\n",
        "embedmill_reclaimed_total 4\n",
        "embedmill_rebalances_total 0\n",
        "embedmill_late_acks_total 0\n",
        "embedmill_source_lag{part=\"topic\\\"\xef\xbf\xbd/3\"} 12\n",
        "embedmill_group_lag 34\n",
        "embedmill_connected{side=\"input\"} 0\n",
        "embedmill_connected{side=\"output\"} 1\n",
        "embedmill_ready 0\n",
        "process_resident_memory_bytes ",
        "process_open_fds ",
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (!strstr(text, wanted[i]))
            fail_msg("not there: %s\nin:\n%s", wanted[i], text);
    assert_null(strstr(text, "gone"));
    free(text);
    free(metrics);
}

/* A rate over the first burst of a code is only seen when its counter was there before. */
static void test_every_code_is_there_from_the_start(void **state)
{
    struct metrics *metrics = metrics_make();
    char wanted[120];
    (void)state;
    char *text = print_all(metrics);
    for (size_t i = 0; i < N_DEAD_LETTER_CODES; i++) {
        snprintf(wanted, sizeof wanted, "embedmill_dead_letters_total{code=\"%s\"} 0\n",
                 dead_letter_codes[i].name);
        if (!strstr(text, wanted))
            fail_msg("not there: %s", wanted);
    }
    free(text);
    free(metrics);
}

/* The documentation shows the table that the program has, line by line. */
static void test_codes_are_documented(void **state)
{
    char line[600], wanted[600];
    size_t i = 0;
    (void)state;
    FILE *from = fopen(TESTS_DIR "/../docs/wire-format.md", "r");
    assert_non_null(from);
    while (fgets(line, sizeof line, from) && strncmp(line, "| `no_body`", 11) != 0)
        ;
    do {
        assert_true(i < N_DEAD_LETTER_CODES);
        const struct dead_letter_code *code = &dead_letter_codes[i++];
        snprintf(wanted, sizeof wanted, "| `%s` | %s | %s |\n", code->name, code->meaning,
                 code->remedy);
        assert_string_equal(line, wanted);
        assert_string_equal(metrics_stage_of(code->name), code->stage);
    } while (fgets(line, sizeof line, from) && line[0] == '|');
    assert_int_equal(i, N_DEAD_LETTER_CODES);
    fclose(from);
}

static char *read_page(const char *path)
{
    FILE *from = fopen(path, "r");
    assert_non_null(from);
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    assert_in_range(fread(text, 1, (1 << 20) - 1, from), 1, (1 << 20) - 2);
    fclose(from);
    return text;
}

/* Each series is in the table of the documentation, by name and type, and so is each reason. */
static void test_series_are_documented(void **state)
{
    struct metrics *metrics = metrics_make();
    char *text = print_all(metrics), *place = text, name[100], type[20], wanted[200];
    char *page = read_page(TESTS_DIR "/../docs/operations.md");
    size_t n = 0;
    (void)state;
    for (; (place = strstr(place, "# TYPE ")); place++, n++) {
        assert_int_equal(sscanf(place, "# TYPE %99s %19s", name, type), 2);
        if (strncmp(name, "process_", 8) == 0)
            continue;
        snprintf(wanted, sizeof wanted, "`%s", name);
        const char *row = strstr(page, wanted);
        for (; row && row[strlen(wanted)] != '`' && row[strlen(wanted)] != '{';)
            row = strstr(row + 1, wanted);
        if (!row)
            fail_msg("not documented: %s", name);
        snprintf(wanted, sizeof wanted, "| %s |", type);
        const char *end = strchr(row, '\n'), *kind = strstr(row, wanted);
        if (!kind || kind > end)
            fail_msg("documented, but not as %s: %s", type, name);
    }
    assert_true(n > N_COUNTERS);
    free(page);
    page = read_page(TESTS_DIR "/../docs/reliability.md");
    for (size_t i = 0; i < N_SKIP_REASONS; i++) {
        snprintf(wanted, sizeof wanted, "`%s`", skip_reasons[i]);
        if (!strstr(page, wanted))
            fail_msg("not documented: %s", wanted);
    }
    free(page);
    free(text);
    free(metrics);
}

static void test_batch(void **state)
{
    struct metrics *metrics = metrics_make();
    struct embed_result results[3] = {
        {.n_tokens = 10}, {.n_tokens = 200, .truncated = true}, {.n_tokens = 3000}};
    struct message message = {.timestamp_ms = -1};
    struct entry entries[2] = {{.request = {.n_items = 2}, .message = &message},
                               {.request = {.n_items = 1}, .first_item = 2, .dead_code = "x"}};
    struct slice slices[2] = {
        {.n = 2, .began_ns = 1000000000, .ended_ns = 1080000000}, /* 40 ms a text */
        {.n = 1, .began_ns = 1100000000, .ended_ns = 1500000000}, /* 400 ms */
    };
    struct batch batch = {.entries = entries,
                          .max_tokens = 50, /* of another model than the first */
                          .n_entries = 2,
                          .n_texts = 3,
                          .slices = slices,
                          .n_slices = 2,
                          .results = results,
                          .taken_ns = 990000000};
    (void)state;
    metrics_on_embedded(metrics, &batch);
    assert_true(metrics->embedding.sum > 0.4799 && metrics->embedding.sum < 0.4801);
    assert_int_equal(metrics->embedding.counts[4], 2); /* (0.03, 0.04] */
    assert_int_equal(metrics->busy_ns, 480000000);
    assert_true(metrics->inference.sum > 0.4999 && metrics->inference.sum < 0.5001);
    assert_true(metrics->text_tokens.sum == 210); /* the dead letter's text is none of them */
    assert_true(metrics->batch_tokens.sum == 60); /* after the cut */
    assert_true(metrics->batch_texts.sum == 3);
    assert_true(metrics->queue_wait.sum > 0.1299 && metrics->queue_wait.sum < 0.1301);

    entries[0].batch = &batch;
    metrics_on_published(metrics, &entries[0]);
    assert_true(metrics->end_to_end.sum == 0 && metrics->end_to_end.counts[0] == 0);
    message.timestamp_ms = 1000; /* 1970: in the last bucket */
    metrics_on_published(metrics, &entries[0]);
    assert_int_equal(metrics->end_to_end.counts[metrics->end_to_end.n], 1);

    /* Nothing but dead letters: no batch of texts. */
    batch.n_slices = 0;
    metrics_on_embedded(metrics, &batch);
    assert_true(metrics->batch_texts.sum == 3);
    free(metrics);
}

static void test_not_ready_before_the_pipeline(void **state)
{
    struct metrics *metrics = metrics_make();
    (void)state;
    assert_string_equal(metrics_not_ready(metrics), "starting");
    free(metrics);
}

static void test_address(void **state)
{
    static const struct {
        const char *text, *host, *port;
    } good[] = {{"127.0.0.1:9464", "127.0.0.1", "9464"},
                {":0", "", "0"},
                {"[::1]:80", "::1", "80"},
                {"localhost:65535", "localhost", "65535"}};
    static const char *const bad[] = {"",           "9464",     "host",    "host:", "host:x",
                                      "host:65536", "::1:80",   "host:-1", "[::1]", "h:80x",
                                      "host:+80",   "host: 80", "[::1]80"};
    char host[64], port[8], err[300];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(
            address_split(good[i].text, host, sizeof host, port, sizeof port, err, sizeof err), 0);
        assert_string_equal(host, good[i].host);
        assert_string_equal(port, good[i].port);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err[0] = '\0';
        if (address_split(bad[i], host, sizeof host, port, sizeof port, err, sizeof err) == 0)
            fail_msg("'%s' was taken", bad[i]);
        assert_non_null(strstr(err, "expected HOST:PORT"));
    }
}

static int listen_as_systemd(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    size_t len = strlen(path);
    memcpy(address.sun_path, path, len);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
                     0);
    return fd;
}

static void expect_datagram(int fd, const char *text)
{
    char got[200];
    ssize_t n = recv(fd, got, sizeof got - 1, 0);
    assert_true(n >= 0);
    got[n] = '\0';
    assert_string_equal(got, text);
}

static void test_notify(void **state)
{
    char path[64], got[8];
    struct notify notify;
    (void)state;
    snprintf(path, sizeof path, "@embedmill-test-%ld", (long)getpid());
    int fd = listen_as_systemd(path);
    setenv("NOTIFY_SOCKET", path, 1);
    setenv("WATCHDOG_USEC", "3000000", 1);
    unsetenv("WATCHDOG_PID");
    notify_open(&notify);
    assert_int_equal(notify.watchdog_ms, 3000);
    notify_send(&notify, "READY=1");
    expect_datagram(fd, "READY=1");
    notify_tick(&notify, 5000);
    expect_datagram(fd, "WATCHDOG=1");
    notify_tick(&notify, 5500); /* not due */
    assert_true(recv(fd, got, sizeof got, 0) < 0);
    notify_tick(&notify, 6001);
    expect_datagram(fd, "WATCHDOG=1");
    notify_close(&notify);
    close(fd);

    setenv("WATCHDOG_PID", "1", 1); /* meant for another */
    setenv("NOTIFY_SOCKET", "relative", 1);
    notify_open(&notify);
    assert_int_equal(notify.fd, -1);
    assert_int_equal(notify.watchdog_ms, 0);
    notify_send(&notify, "READY=1");
    notify_tick(&notify, 100000);
    notify_close(&notify);
    unsetenv("NOTIFY_SOCKET");
    notify_open(&notify);
    assert_int_equal(notify.fd, -1);
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* A scrape that came while the server of embeddings ended is answered by the closing endpoint, and
 * the server is freed by then: here a page that nobody may read. */
static void test_scrape_after_the_server(void **state)
{
    static const char scrape[] = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    static const struct model_info info = {.name = "m", .fingerprint = "f", .precision = "exact"};
    size_t page = (size_t)sysconf(_SC_PAGESIZE), len = 0;
    void *freed = mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char listen[80], err[300] = "";
    static char got[1 << 20];
    struct monitor *monitor;
    ssize_t n;
    uv_loop_t loop;
    (void)state;
    assert_ptr_not_equal(freed, MAP_FAILED);
    snprintf(listen, sizeof listen, "unix:/tmp/embedmill-metrics-%ld", (long)getpid());
    uv_loop_init(&loop);
    if (monitor_open(&monitor, &loop, listen, &info, err, sizeof err) != 0)
        fail_msg("%s", err);
    monitor_serves(monitor, freed);
    int fd = connect_to(listen + strlen("unix:"));
    assert_int_equal(write(fd, scrape, strlen(scrape)), strlen(scrape));
    monitor_close(monitor);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    while (len < sizeof got - 1 && (n = read(fd, got + len, sizeof got - 1 - len)) > 0)
        len += (size_t)n;
    assert_non_null(strstr(got, " 200 OK\r\n"));
    assert_non_null(strstr(got, "\nembedmill_ready 0\n"));
    close(fd);
    assert_int_equal(uv_loop_close(&loop), 0);
    munmap(freed, page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_series),
        cmocka_unit_test(test_lag_of_more_parts_than_there_is_room_for),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_every_code_is_there_from_the_start),
        cmocka_unit_test(test_codes_are_documented),
        cmocka_unit_test(test_series_are_documented),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_not_ready_before_the_pipeline),
        cmocka_unit_test(test_address),
        cmocka_unit_test(test_notify),
        cmocka_unit_test(test_scrape_after_the_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
