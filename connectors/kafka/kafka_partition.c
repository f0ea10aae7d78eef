/*
 * kafka_partition.c: one assignment of one partition, for as long as anything points at it.
 *
 * Owns:    the list of those that are ours, the memory of each.
 * Refuses: how a partition comes and goes: kafka_group.c.
 * Threads: the loop thread.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/kafka/kafka_source.h"

struct kafka_partition *kafka_partition_find(const struct kafka_source *source, const char *topic,
                                             int32_t partition)
{
    for (struct kafka_partition *part = source->parts; part; part = part->next)
        if (part->partition == partition && strcmp(part->topic, topic) == 0)
            return part;
    return NULL;
}

struct kafka_partition *kafka_partition_open(struct kafka_source *source, const char *topic,
                                             int32_t partition)
{
    size_t size = strlen(topic) + 1;
    struct kafka_partition *part = calloc(1, sizeof *part);
    char *copy = part ? malloc(2 * size + 16) : NULL; /* the topic, then the name */
    if (!copy) {
        free(part);
        return NULL;
    }
    memcpy(copy, topic, size);
    snprintf(copy + size, size + 16, "%s/%d", topic, (int)partition);
    *part = (struct kafka_partition){.topic = copy,
                                     .name = copy + size,
                                     .partition = partition,
                                     .stored = -1,
                                     .committed = -1,
                                     .seen_end = -1,
                                     .reset_from = -1,
                                     .next = source->parts};
    source->parts = part;
    return part;
}

void kafka_partition_free(struct kafka_partition *part)
{
    kafka_offsets_close(&part->offsets);
    free(part->topic);
    free(part);
}

void kafka_partition_release(struct kafka_partition *part)
{
    assert(part->n_messages > 0);
    /* The list has let go of it in part_revoke; the last message frees it. */
    if (--part->n_messages == 0 && part->revoked)
        kafka_partition_free(part);
}
