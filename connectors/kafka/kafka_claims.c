/*
 * kafka_claims.c: answers to the library's question which partitions are ours; and where they begin
 * when the sink keeps how far they are done.
 *
 * Owns:    the assignment that waits for the keeper's answers.
 * Refuses: what is kept: see struct keeper.
 * Threads: the loop thread.
 * Why:     the library hears of an assignment only when all its offsets are known, so that nothing
 *          is fetched from where the group's own offsets are. It waits without a limit as long as
 *          it is polled, and the keeper may be away.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "connectors/kafka/kafka_source.h"

static void refuse(struct kafka_source *source, rd_kafka_error_t *error)
{
    char why[300];
    if (!error)
        return;
    snprintf(why, sizeof why, "group %.60s: %.200s", source->config.group,
             rd_kafka_error_string(error));
    if (rd_kafka_error_is_fatal(error))
        endpoint_fail(&source->end, -EACCES, why);
    else
        health_wait(&source->end.health, PART_BROKERS, why);
    rd_kafka_error_destroy(error);
}

void kafka_claims_answer(struct kafka_source *source, bool is_assign,
                         const rd_kafka_topic_partition_list_t *list)
{
    if (source->is_cooperative) {
        refuse(source, is_assign ? rd_kafka_incremental_assign(source->rk, list)
                                 : rd_kafka_incremental_unassign(source->rk, list));
        return;
    }
    /* Eager: an assignment replaces the one before, and a revoke is always of all. */
    rd_kafka_resp_err_t err = rd_kafka_assign(source->rk, is_assign ? list : NULL);
    if (err)
        health_wait(&source->end.health, PART_BROKERS, rd_kafka_err2str(err));
}

void kafka_claims_ask(struct kafka_source *source, const rd_kafka_topic_partition_list_t *list)
{
    const struct keeper *keeper = source->base.keeper;
    /* An assignment that was never answered is replaced by this one. */
    kafka_claims_drop(source);
    if (!list->cnt) {
        kafka_claims_answer(source, true, list);
        return;
    }
    source->claimed = rd_kafka_topic_partition_list_copy(list);
    for (int i = 0; i < list->cnt; i++) {
        struct kafka_partition *part =
            kafka_partition_find(source, list->elems[i].topic, list->elems[i].partition);
        assert(part);
        part->unanswered = true;
        keeper->claim(keeper->ctx, source->config.group, part->name);
    }
}

static bool is_answered(const struct kafka_source *source)
{
    for (const struct kafka_partition *part = source->parts; part; part = part->next)
        if (part->unanswered)
            return false;
    return true;
}

void kafka_claims_begin(struct source *base, const char *name, int64_t order)
{
    struct kafka_source *source = (struct kafka_source *)base;
    struct kafka_partition *part = source->parts;
    while (part && !(part->unanswered && strcmp(part->name, name) == 0))
        part = part->next;
    if (!part || !source->claimed)
        return; /* it has moved on meanwhile */
    part->unanswered = false;
    rd_kafka_topic_partition_t *to =
        rd_kafka_topic_partition_list_find(source->claimed, part->topic, part->partition);
    if (to && order >= 0) {
        to->offset = order; /* that of a message is its offset and one */
        part->begin = order;
    } else {
        /* The keeper knows nothing: the group's own offset counts, and may be out of range. */
        kafka_skips_on_assign(source, part);
    }
    if (!is_answered(source))
        return;
    rd_kafka_topic_partition_list_t *list = source->claimed;
    /* Answered once only: begin_close answers for what is still claimed. */
    source->claimed = NULL;
    kafka_claims_answer(source, true, list);
    rd_kafka_topic_partition_list_destroy(list);
}

void kafka_claims_on_message(struct kafka_source *source, struct kafka_partition *part,
                             int64_t offset)
{
    const struct keeper *keeper = source->base.keeper;
    if (keeper && offset < part->begin)
        keeper->rewind(keeper->ctx, part->name, offset);
    /* Asked of the first message only: behind it the log goes on by itself. */
    part->begin = 0;
}

void kafka_claims_drop(struct kafka_source *source)
{
    if (source->claimed)
        rd_kafka_topic_partition_list_destroy(source->claimed);
    source->claimed = NULL;
    for (struct kafka_partition *part = source->parts; part; part = part->next)
        part->unanswered = false;
}
