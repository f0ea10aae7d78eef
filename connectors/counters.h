/*
 * counters.h: what connectors count and why messages are skipped: the one table of each.
 *
 * Owns:    names and meanings. Metrics begin with all of them at 0; docs/operations.md lists them.
 * Refuses: the counting: worker/telemetry/metrics.h.
 * Threads: constant tables.
 * Why:     alerts name these series: one that is not in the table does not compile.
 */
#ifndef COUNTERS_H
#define COUNTERS_H

enum counter {
    COUNTER_REBALANCES,
    COUNTER_RECLAIMED,
    COUNTER_LATE_ACKS,
    COUNTER_DELETED,
    COUNTER_REPLACED_TIMESTAMPS,
    COUNTER_OUTDATED,
    N_COUNTERS,
    /* Of a source that knows its size; for progress, and no series of metrics. */
    COUNTER_INPUT_SIZE = N_COUNTERS, /* bytes there are */
    COUNTER_INPUT_DONE,              /* bytes that are done */
};

/* The series is embedmill_NAME_total. */
struct counter_text {
    const char *name, *help;
};

extern const struct counter_text counters[N_COUNTERS];

/* Why messages of the input are given to nobody; docs/reliability.md explains. */
enum skip_reason {
    SKIPPED_RETENTION,
    SKIPPED_OFFSET_BEYOND_END,
    SKIPPED_TRUNCATED,
    SKIPPED_NO_OFFSET,
    SKIPPED_TOPIC_RECREATED,
    SKIPPED_UNREADABLE,
    SKIPPED_TRIMMED,
    SKIPPED_DELETED,
    SKIPPED_STREAM_DELETED,
    SKIPPED_GROUP_DELETED,
    N_SKIP_REASONS
};

/* As the label `reason` of embedmill_messages_skipped_total. */
extern const char *const skip_reasons[N_SKIP_REASONS];

#endif
