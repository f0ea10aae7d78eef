/*
 * kafka_errors.h: what each error code of Kafka and of librdkafka means for the worker.
 *
 * Owns:    the table of codes: of a write that was refused, whose fault it is; of reading, who
 *          mends it; what to do.
 * Refuses: trying again, and reporting: the sources and sinks.
 * Threads: any.
 * Why:     codes are added with every release, and a library knows those of its own time only. A
 *          code that nobody has looked at must not be taken for a fault that passes by itself.
 */
#ifndef KAFKA_ERRORS_H
#define KAFKA_ERRORS_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>

/* What a refusal means. A broker refuses all records that were sent together for one of them. */
enum kafka_refusal {
    REFUSAL_TOO_LARGE, /* this record, or those sent together with it */
    REFUSAL_TIME,      /* this record or one sent together with it: try with plain_time */
    REFUSAL_RECORD,    /* this record or one sent together with it, for another reason */
    REFUSAL_NONE,      /* it was given up for the sake of others */
    REFUSAL_TOPIC,     /* its destination: nothing can be written before somebody mends it */
    REFUSAL_UNKNOWN,   /* no answer to a write that Kafka documents: whose fault it is shows when
                          others pass and it does not */
};

/* What an error of a consumer means. */
enum kafka_hindrance {
    HINDRANCE_MENDS,  /* the library mends it itself, or tries again */
    HINDRANCE_TOPIC,  /* there is no such topic yet */
    HINDRANCE_ACCESS, /* a right is missing */
    HINDRANCE_GROUP,  /* the group takes no member with these settings */
    HINDRANCE_END,    /* reading cannot go on: the worker ends */
};

struct kafka_error {
    int code;
    const char *name;
    enum kafka_refusal refusal;
    enum kafka_hindrance hindrance;
    const char *advice; /* NULL: none of its own */
};

/* Of all codes of librdkafka 2.16 and Apache Kafka 4.4. NULL: a newer one. */
const struct kafka_error *kafka_error_find(int code);
/* REFUSAL_UNKNOWN and HINDRANCE_MENDS for codes that are not in the table. */
enum kafka_refusal kafka_error_refusal(rd_kafka_resp_err_t err);
enum kafka_hindrance kafka_error_hindrance(rd_kafka_resp_err_t err);
/* What to do about it; "see the broker's log" when nothing better is known. */
const char *kafka_error_advice(rd_kafka_resp_err_t err);
/* The library's sentence, or the name of a code that is newer than the library. */
const char *kafka_error_text(rd_kafka_resp_err_t err);
/* No more than that the partitions have moved on to other members, which mends itself. */
bool kafka_error_is_rebalance(rd_kafka_resp_err_t err);

#endif
