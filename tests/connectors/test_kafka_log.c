/*
 * What lines of librdkafka's log mean: jumps in offsets, as four versions of the library word them;
 * which lines are warnings; that none is lost unseen.
 */
#include "connectors/kafka/kafka_log.h"
#include "connectors/kafka/kafka_skips.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

static void test_resets(void **state)
{
    static const struct {
        const char *text, *topic;
        int32_t partition;
        int64_t from;
    } lines[] = {
        {"[thrd:main]: texts [0]: offset reset (at offset 500, broker 1) to BEGINNING: fetch "
         "failed "
         "due to requested offset not available on the broker: Broker: Offset out of range", /* 2.0
                                                                                              */
         "texts", 0, 500},
        {"[thrd:main]: a.b-c_d [17]: offset reset (at offset 500 (leader epoch -1), broker 1) to "
         "offset END (leader epoch -1): fetch failed due to requested offset not available on the "
         "broker: Broker: Offset out of range", /* 2.3, 2.8, 2.16 */
         "a.b-c_d", 17, 500},
        {"[thrd:main]: texts [3]: offset reset (at offset INVALID (leader epoch 4), broker 2) to "
         "offset BEGINNING (leader epoch -1): Partition log truncation detected at offset 70 "
         "(leader epoch 4): broker end offset is 60: Local: Partition log truncation detected",
         "texts", 3, -1},
        {"texts [3]: offset reset (at offset 9, broker 2) to cached BEGINNING offset 12: x",
         "texts", 3, 9},
    };
    static const char *const others[] = {"",
                                         "offset reset (at offset 3",
                                         "]: offset reset (at offset ",
                                         "[0]: offset reset (at offset 3",
                                         " [0]: offset reset (at offset 3",
                                         "[thrd:main]: texts [0]: Fetch offset 3"};
    char topic[256];
    int32_t partition;
    int64_t from;
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        assert_true(kafka_skips_parse(lines[i].text, topic, &partition, &from));
        assert_string_equal(topic, lines[i].topic);
        assert_int_equal(partition, lines[i].partition);
        assert_int_equal(from, lines[i].from);
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        assert_false(kafka_skips_parse(others[i], topic, &partition, &from));
}

static void test_classes(void **state)
{
    (void)state;
    assert_int_equal(kafka_log_class(4, "OFFSET", "something of an offset"), NOTICE_WARN);
    assert_int_equal(kafka_log_class(4, "MAXPOLL", "..."), NOTICE_WARN);
    assert_int_equal(kafka_log_class(4, "SESSTMOUT", "..."), NOTICE_WARN);
    assert_int_equal(kafka_log_class(3, "A NEW ONE", "..."), NOTICE_WARN);
    assert_int_equal(kafka_log_class(6, "A NEW ONE", "..."), NOTICE_DETAIL);
    assert_int_equal(kafka_log_class(3, "FAIL", "connection refused"), NOTICE_DETAIL);
    assert_int_equal(kafka_log_class(4, "CONFWARN",
                                     "Configuration property queue.buffering.max.ms is a producer "
                                     "property and will be ignored by this consumer instance"),
                     NOTICE_DETAIL);
    assert_int_equal(kafka_log_class(4, "CONFWARN", "property x is deprecated"), NOTICE_WARN);
}

static void test_order_and_loss(void **state)
{
    struct kafka_log log;
    struct kafka_line *line;
    size_t n = 0;
    int fd = eventfd(0, EFD_NONBLOCK);
    (void)state;
    assert_int_equal(kafka_log_open(&log, fd), 0);
    kafka_log_add(&log, NULL, 7, "FETCH", "debug output is not kept");
    kafka_log_add(&log, NULL, 4, "A FACILITY WITH A NAME THAT IS FAR TOO LONG", "first");
    for (size_t i = 0; i < 5000; i++)
        kafka_log_add(&log, NULL, 6, "MANY", "more");
    while ((line = kafka_log_take(&log))) {
        assert_string_equal(line->text, n == 0 ? "first" : "more");
        assert_int_equal(line->level, n == 0 ? 4 : 6);
        free(line);
        n++;
    }
    assert_int_equal(n + kafka_log_lost(&log), 5001);
    assert_int_equal(kafka_log_lost(&log), 0);
    kafka_log_add(&log, NULL, 4, "OFFSET", "kept until the end");
    kafka_log_close(&log);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resets),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_order_and_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
