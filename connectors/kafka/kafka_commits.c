/*
 * kafka_commits.c: what became of the offsets that the library commits by itself.
 *
 * Owns:    what is reported of refused commits; of a source that closes, the offsets that the group
 *          has not confirmed.
 * Refuses: which offsets may be committed: kafka_group.c. Commits in transactions.
 * Threads: the loop thread; the library calls kafka_commits_on_result from within a poll.
 * Why:     the library commits once a second and when partitions are given up. Only the last commit
 *          has none after it that would make good for it, and whoever stops a worker wants to know
 *          whether all that it did counts.
 */
#include <errno.h>
#include <stdio.h>

#include "connectors/kafka/kafka_errors.h"
#include "connectors/kafka/kafka_source.h"

static void confirm(struct kafka_source *source, const rd_kafka_topic_partition_t *done)
{
    struct kafka_partition *part = kafka_partition_find(source, done->topic, done->partition);
    if (part)
        part->committed = done->offset;
    if (part)
        part->commit_back = false; /* the library goes on from there */
    if (!source->unflushed)
        return;
    const rd_kafka_topic_partition_t *expected =
        rd_kafka_topic_partition_list_find(source->unflushed, done->topic, done->partition);
    if (expected && expected->offset <= done->offset)
        rd_kafka_topic_partition_list_del(source->unflushed, done->topic, done->partition);
}

/* The partitions have moved on, which is told as a rebalance. */
static bool is_rebalance(rd_kafka_resp_err_t err)
{
    return kafka_error_is_rebalance(err) || err == RD_KAFKA_RESP_ERR__STATE;
}

void kafka_commits_on_result(rd_kafka_t *rk, rd_kafka_resp_err_t err,
                             rd_kafka_topic_partition_list_t *offsets, void *opaque)
{
    struct kafka_source *source = kafka_client_owner(opaque);
    char why[300];
    (void)rk;
    if (err == RD_KAFKA_RESP_ERR__NO_OFFSET) /* nothing was to be committed */
        return;
    for (int i = 0; !err && offsets && i < offsets->cnt; i++)
        if (!offsets->elems[i].err)
            confirm(source, &offsets->elems[i]);
    for (int i = 0; !err && offsets && i < offsets->cnt; i++)
        err = offsets->elems[i].err;
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        health_good(&source->end.health, PART_COMMIT);
        return;
    }
    /* Why the last offsets are missing, if it stays so until the end (kafka_commits_settle). */
    source->commit_err = err;
    if (err != RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED &&
        err != RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) { /* tried again with the next one */
        snprintf(why, sizeof why, "committing offsets of group %.60s: %s; it is tried again",
                 source->config.group, kafka_error_text(err));
        endpoint_notice(&source->end, is_rebalance(err) ? NOTICE_DETAIL : NOTICE_WARN, "COMMIT",
                        why);
        return;
    }
    snprintf(why, sizeof why,
             "committing offsets of group %.60s: %s: allow this user to; it is tried again",
             source->config.group, kafka_error_text(err));
    health_wait(&source->end.health, PART_COMMIT, why);
    for (struct kafka_partition *part = source->parts; part; part = part->next) {
        /* Stored again by the next pump, and so committed when the right is there. */
        part->stored = -1;
        part->dirty = true;
    }
}

void kafka_commits_expect(struct kafka_source *source)
{
    if (source->end.failed) /* that was told; what comes now adds nothing */
        return;
    source->commit_err = RD_KAFKA_RESP_ERR_NO_ERROR;
    source->unflushed = rd_kafka_topic_partition_list_new(1);
    for (const struct kafka_partition *part = source->parts; part; part = part->next)
        if (part->stored >= 0 && part->stored != part->committed)
            rd_kafka_topic_partition_list_add(source->unflushed, part->topic, part->partition)
                ->offset = part->stored;
}

void kafka_commits_settle(struct kafka_source *source)
{
    char why[300];
    if (!source->unflushed)
        return;
    int n = source->unflushed->cnt;
    rd_kafka_topic_partition_list_destroy(source->unflushed);
    source->unflushed = NULL;
    if (!n)
        return;
    snprintf(why, sizeof why,
             "group %.60s: the last offsets of %d partition%s are not committed: %s",
             source->config.group, n, n == 1 ? "" : "s",
             source->commit_err ? kafka_error_text(source->commit_err)
                                : "there was no answer in the time left");
    endpoint_unflushed(&source->end, why);
}
