/*
 * counters.c: see counters.h.
 */
#include "connectors/counters.h"

const struct counter_text counters[N_COUNTERS] = {
    [COUNTER_REBALANCES] = {"rebalances", "Changes of the partitions assigned."},
    [COUNTER_RECLAIMED] = {"reclaimed", "Messages taken over from a silent worker."},
    [COUNTER_LATE_ACKS] = {"late_acks",
                           "Messages done after their partition, channel or consumer was lost."},
    [COUNTER_DELETED] = {"deleted", "Messages deleted after they were given to a worker."},
    [COUNTER_REPLACED_TIMESTAMPS] = {"replaced_timestamps",
                                     "Outputs with the time of writing in place of the input's."},
    [COUNTER_OUTDATED] = {"outdated", "Texts not written: the output has a later version."},
};

const char *const skip_reasons[N_SKIP_REASONS] = {
    [SKIPPED_RETENTION] = "retention",
    [SKIPPED_OFFSET_BEYOND_END] = "offset_beyond_end",
    [SKIPPED_TRUNCATED] = "truncated",
    [SKIPPED_NO_OFFSET] = "no_offset",
    [SKIPPED_TOPIC_RECREATED] = "topic_recreated",
    [SKIPPED_UNREADABLE] = "unreadable",
    [SKIPPED_TRIMMED] = "trimmed",
    [SKIPPED_DELETED] = "deleted",
    [SKIPPED_STREAM_DELETED] = "stream_deleted",
    [SKIPPED_GROUP_DELETED] = "group_deleted",
};
