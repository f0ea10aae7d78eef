/*
 * kafka_skips.h: records of the input that this group will never read, as they are found out.
 *
 * Owns:    questions about partitions whose reading jumped, or may have; the reports that come of
 *          their answers; what is remembered of partitions that were ours before.
 * Refuses: to change what is read: librdkafka and auto.offset.reset decide that.
 * Threads: the loop thread; the questions to the brokers block and are asked on a helper.
 * Why:     librdkafka says in its log, and only there, that an offset was out of range, and not how
 *          much was lost by it: the partition's limits tell. A topic that was deleted and made
 *          again is reported by nobody: its end lies before what we have seen of it, or what we had
 *          committed is gone.
 */
#ifndef KAFKA_SKIPS_H
#define KAFKA_SKIPS_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>

struct kafka_source;
struct kafka_partition;

/* auto.offset.reset */
enum kafka_reset { RESET_EARLIEST, RESET_LATEST, RESET_ERROR };

struct kafka_skips {
    enum kafka_reset reset;
    struct kafka_question *questions; /* not asked yet */
    struct kafka_inquiry *inquiry;    /* under way; NULL: none */
    struct kafka_memory *memories;    /* of partitions that were ours */
};

/* conf: what the consumer is made of. */
void kafka_skips_open(struct kafka_skips *skips, const rd_kafka_conf_t *conf);
void kafka_skips_close(struct kafka_source *source);
/* "[thrd:main]: TOPIC [N]: offset reset (at offset N, ...": a line of the facility OFFSET. from: -1
 * when it is not a number. False: it is another line. */
bool kafka_skips_parse(const char *text, char topic[256], int32_t *partition, int64_t *from);
/* Such a line was read. False: it says of no jump. */
bool kafka_skips_on_line(struct kafka_source *source, const char *text);
/* Assigned just now. */
void kafka_skips_on_assign(struct kafka_source *source, const struct kafka_partition *part);
/* Not ours any more, or about to start over. */
void kafka_skips_on_revoke(struct kafka_source *source, const struct kafka_partition *part);
/* What was read is not the log that it was: its offsets went back to this one. */
void kafka_skips_on_regress(struct kafka_source *source, struct kafka_partition *part);
/* What the library could not decode. */
void kafka_skips_on_unreadable(struct kafka_source *source, const rd_kafka_message_t *native);
/* The end of the partition, as the library has seen it last. */
void kafka_skips_on_end(struct kafka_source *source, struct kafka_partition *part, int64_t high);
/* About once a second: ask what is to be asked, report what was answered. */
void kafka_skips_tick(struct kafka_source *source);

#endif
