/*
 * test_kafka_errors.c: every code of Kafka and of librdkafka has a meaning.
 *
 * tests/data/kafka_errors.tsv: code, name, meaning of a refused write, meaning to a consumer; the
 * codes are those that librdkafka 2.16.1 (rd_kafka_get_err_descs) and the clients of Apache Kafka
 * 4.4.0 (org.apache.kafka.common.protocol.Errors) list.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "connectors/kafka/kafka_errors.h"

static const char *const refusals[] = {"too_large", "time",        "record",
                                       "none",      "destination", "unknown"};
static const char *const hindrances[] = {"mends", "topic", "access", "group", "end"};

static void codes_of_the_two_projects(void **state)
{
    (void)state;
    FILE *file = fopen(TESTS_DIR "/data/kafka_errors.tsv", "r");
    char name[80], refusal[20], hindrance[20];
    int code, n = 0;
    assert_non_null(file);
    while (fscanf(file, "%d %79s %19s %19s", &code, name, refusal, hindrance) == 4) {
        const struct kafka_error *error = kafka_error_find(code);
        if (!error)
            fail_msg("%d (%s) is not known", code, name);
        assert_string_equal(error->name, name);
        assert_string_equal(refusals[error->refusal], refusal);
        assert_string_equal(hindrances[error->hindrance], hindrance);
        assert_true(strlen(kafka_error_text((rd_kafka_resp_err_t)code)) > 0);
        n++;
    }
    fclose(file);
    assert_int_equal(n, 201);
}

/* The library that this was built with may be newer than the table. */
static void codes_of_this_library(void **state)
{
    (void)state;
    const struct rd_kafka_err_desc *descs;
    size_t n;
    rd_kafka_get_err_descs(&descs, &n);
    for (size_t i = 0; i < n; i++) {
        if (!descs[i].name || strcmp(descs[i].name, "_BEGIN") == 0 ||
            strcmp(descs[i].name, "_END") == 0)
            continue;
        const struct kafka_error *error = kafka_error_find((int)descs[i].code);
        if (!error)
            fail_msg("this librdkafka has %d (%s): add it to kafka_errors.c and to the list",
                     (int)descs[i].code, descs[i].name);
        assert_string_equal(error->name, descs[i].name);
    }
}

static void codes_to_come(void **state)
{
    (void)state;
    const rd_kafka_resp_err_t err = (rd_kafka_resp_err_t)1234;
    assert_null(kafka_error_find(1234));
    assert_int_equal(kafka_error_refusal(err), REFUSAL_UNKNOWN);
    assert_int_equal(kafka_error_hindrance(err), HINDRANCE_MENDS);
    assert_string_equal(kafka_error_advice(err), "see the broker's log");
    assert_non_null(strstr(kafka_error_text(err), "1234"));
    /* Known here, and to no library before 2.16. */
    assert_non_null(strstr(kafka_error_text((rd_kafka_resp_err_t)136), "CONTROLLER_ID"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_of_the_two_projects),
        cmocka_unit_test(codes_of_this_library),
        cmocka_unit_test(codes_to_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
