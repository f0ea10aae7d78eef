/*
 * test_scrape.c: what `top` reads out of a worker's metrics.
 */
#include "worker/commands/scrape.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char text[] = "# HELP embedmill_build_info What runs here; always 1.\n"
                           "embedmill_build_info{version=\"1\"} 1\n"
                           "embedmill_ready 1\n"
                           "embedmill_texts_embedded_total 12\n"
                           "embedmill_texts_embedded_total_other 999\n"
                           "embedmill_dead_letters_total{code=\"a\"} 2\n"
                           "embedmill_dead_letters_total{code=\"b c\"} 3\n"
                           "embedmill_errors_total{stage=\"input\",code=\"unavailable\"} 4\n"
                           "embedmill_errors_total{stage=\"decode\",code=\"a\"} 2\n"
                           "embedmill_source_lag{part=\"with \\\"quotes\\\" and spaces\"} 7\n"
                           "embedmill_source_lag{part=\"t/1\"} 5\n"
                           "embedmill_embedding_seconds_bucket{le=\"0.1\"} 10\n"
                           "embedmill_embedding_seconds_bucket{le=\"0.2\"} 30\n"
                           "embedmill_embedding_seconds_bucket{le=\"+Inf\"} 40\n"
                           "embedmill_http_wait_seconds_bucket{lane=\"query\",le=\"0.1\"} 1\n"
                           "embedmill_http_wait_seconds_bucket{lane=\"query\",le=\"+Inf\"} 2\n"
                           "embedmill_http_wait_seconds_bucket{lane=\"list\",le=\"0.1\"} 3\n"
                           "embedmill_http_wait_seconds_bucket{lane=\"list\",le=\"+Inf\"} 7\n"
                           "process_cpu_seconds_total 1.5\n"
                           "\n"
                           "a line that is none\n"
                           "embedmill_inflight_texts 3"; /* no line end */

static struct scrape *scrape_make(const char *from)
{
    struct scrape *scrape = malloc(sizeof *scrape);
    assert_non_null(scrape);
    scrape_read(scrape, from);
    return scrape;
}

static void test_read(void **state)
{
    struct scrape *scrape = scrape_make(text);
    (void)state;
    assert_true(scrape->valid && scrape->ready);
    assert_true(scrape->texts == 12 && scrape->dead_letters == 5 && scrape->faults == 4);
    assert_true(scrape->cpu_seconds == 1.5 && scrape->inflight == 3);
    assert_int_equal(scrape->n_parts, 2);
    assert_string_equal(scrape->parts[0].name, "with \"quotes\" and spaces");
    assert_true(scrape->parts[0].lag == 7);
    assert_int_equal(scrape->http_wait.n, 2); /* both lanes together */
    assert_true(scrape->http_wait.counts[0] == 4 && scrape->http_wait.counts[1] == 9);
    free(scrape);
    scrape = scrape_make("<html>not a worker</html>\n");
    assert_false(scrape->valid);
    free(scrape);
}

/* Cut anywhere, and with a table too long, nothing is written beyond its place. */
static void test_hostile(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof text; len++) {
        char *cut = strndup(text, len);
        free(scrape_make(cut));
        free(cut);
    }
    size_t size = 200 * 1000;
    char *many = malloc(size);
    size_t used = 0;
    for (int i = 0; i < SCRAPE_PARTS + 100; i++)
        used += (size_t)snprintf(many + used, size - used,
                                 "embedmill_source_lag{part=\"p%d\"} 1\n"
                                 "embedmill_embedding_seconds_bucket{le=\"%d\"} 1\n",
                                 i, i);
    struct scrape *scrape = scrape_make(many);
    assert_int_equal(scrape->n_parts, SCRAPE_PARTS);
    assert_int_equal(scrape->embedding.n, SCRAPE_BUCKETS);
    free(scrape);
    free(many);
}

static bool is_near(double a, double b)
{
    return fabs(a - b) < 1e-9;
}

static void test_quantile(void **state)
{
    struct scrape_histogram now = {{0.1, 0.2, INFINITY}, {10, 30, 40}, 3};
    struct scrape_histogram before = {{0.1, 0.2, INFINITY}, {10, 10, 10}, 3};
    struct scrape_histogram none = {.n = 0};
    (void)state;
    assert_true(is_near(scrape_quantile(&now, NULL, 0.25), 0.1));
    assert_true(is_near(scrape_quantile(&now, NULL, 0.5), 0.15));
    assert_true(is_near(scrape_quantile(&now, NULL, 0.99), 0.2)); /* above the largest bound */
    assert_true(is_near(scrape_quantile(&now, &before, 1.0 / 3), 0.15));
    assert_true(scrape_quantile(&now, &now, 0.5) == -1);
    assert_true(scrape_quantile(&none, NULL, 0.5) == -1);
    /* After a restart the counters are lower: only what came since counts. */
    assert_true(is_near(scrape_quantile(&before, &now, 0.5), 0.05));
    struct scrape_histogram sum = {.n = 0};
    scrape_add(&sum, &now);
    scrape_add(&sum, &before);
    assert_true(sum.counts[2] == 50);
    scrape_add(&sum, &none);
    assert_true(sum.counts[2] == 50);
}

static void test_lag(void **state)
{
    struct scrape *a = scrape_make("embedmill_source_lag{part=\"s\"} 5\n");
    struct scrape *b = scrape_make("embedmill_source_lag{part=\"s\"} 8\n"
                                   "embedmill_source_lag{part=\"t\"} 1\n");
    struct scrape *c = scrape_make("");
    const struct scrape *all[] = {a, b, c};
    (void)state;
    assert_true(scrape_lag(all, 3) == 9); /* the same stream is counted once */
    assert_true(scrape_lag(&all[2], 1) == -1);
    free(a);
    free(b);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_quantile),
        cmocka_unit_test(test_lag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
