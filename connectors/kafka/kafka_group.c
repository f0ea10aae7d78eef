/*
 * kafka_group.c: the part that a consumer has in its group: assignments, their end, offsets, lag.
 *
 * Owns:    the list of partitions assigned, the drain before one is given up, pausing.
 * Refuses: messages; see kafka_source.c.
 * Threads: the loop thread; the library calls on_rebalance from within a poll.
 * Why:     a rebalance may wait: the library keeps the membership alive as long as it is polled, so
 *          a revoke is answered only when what was taken is published, or after revoke_timeout.
 *          Without that every rebalance would repeat whole batches.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "connectors/kafka/kafka_source.h"

/* ---- partitions */

static void drop_held(struct kafka_source *source, const struct kafka_partition *part)
{
    struct taken_list *held = &source->intake.held;
    for (struct taken *taken = held->first, *next; taken; taken = next) {
        struct kafka_message *message = (struct kafka_message *)taken;
        next = taken->next;
        if (message->part != part)
            continue;
        taken_remove(held, taken);
        kafka_message_close(message);
    }
}

/* Off the list; its messages may still be with the pipeline and keep it alive. */
static void part_revoke(struct kafka_source *source, struct kafka_partition *part)
{
    struct kafka_partition **at = &source->parts;
    /* It is on the list: of one partition there is one assignment at a time. */
    while (*at != part)
        at = &(*at)->next;
    *at = part->next;
    kafka_skips_on_revoke(source, part);
    if (source->base.keeper && !kafka_partition_find(source, part->topic, part->partition))
        source->base.keeper->leave(source->base.keeper->ctx, part->name);
    /* Not given to the pipeline yet: they die with the assignment, and nobody acks them. */
    drop_held(source, part);
    /* Acks that still come for it count as late, and are not stored. */
    part->revoked = true;
    if (!part->n_messages)
        kafka_partition_free(part);
}

struct kafka_partition *kafka_group_renew(struct kafka_source *source, struct kafka_partition *part)
{
    kafka_skips_on_regress(source, part);
    struct kafka_partition *renewed = kafka_partition_open(source, part->topic, part->partition);
    if (renewed) {
        /* The log began anew, the assignment did not: what it means for the group is carried
         * over. */
        renewed->seen_end = part->seen_end;
        renewed->reset_from = part->reset_from;
        renewed->commit_back = true;
        renewed->leaving = part->leaving;
        renewed->paused = part->paused;
        renewed->begin = INT64_MAX; /* and so every offset lies before it */
        /* After the new one is on the list: the keeper is not told to leave (part_revoke looks for
         * it). */
        part_revoke(source, part);
    }
    return renewed;
}

void kafka_group_pause(struct kafka_source *source, bool pause)
{
    rd_kafka_topic_partition_list_t *list = NULL;
    for (struct kafka_partition *part = source->parts; part; part = part->next) {
        /* on_revoke has resumed those that leave, so that none comes back paused. */
        if (part->paused == pause || part->leaving)
            continue;
        if (!list)
            list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_list_add(list, part->topic, part->partition);
        /* Noted here, for the library does not tell which are paused. */
        part->paused = pause;
    }
    if (!list)
        return;
    if (pause)
        rd_kafka_pause_partitions(source->rk, list);
    else
        rd_kafka_resume_partitions(source->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
}

/* ---- offsets and lag */

/* By itself the library commits no offset that lies before the group's: after a jump back, to the
 * beginning of a topic that was made again, every restart would begin there once more. */
static void commit_back(struct kafka_source *source, rd_kafka_topic_partition_list_t *list)
{
    if (!list)
        return;
    /* Without waiting: the answer comes to kafka_commits_on_result. */
    rd_kafka_commit(source->rk, list, 1);
    rd_kafka_topic_partition_list_destroy(list);
}

void kafka_group_store(struct kafka_source *source)
{
    if (source->config.exactly_once) /* they go with the outputs */
        return;
    rd_kafka_topic_partition_list_t *list = NULL, *back = NULL;
    for (struct kafka_partition *part = source->parts; part; part = part->next) {
        int64_t lowest = kafka_offsets_lowest(&part->offsets);
        bool is_news = part->dirty && lowest >= 0 && lowest != part->stored;
        part->dirty = false;
        if (!is_news)
            continue;
        if (!list)
            list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_list_add(list, part->topic, part->partition)->offset = lowest;
        /* Before it is known to be taken: a refusal to commit sets it back
         * (kafka_commits_on_result). */
        part->stored = lowest;
        if (!part->commit_back)
            continue;
        if (!back)
            back = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_list_add(back, part->topic, part->partition)->offset = lowest;
    }
    commit_back(source, back);
    if (!list)
        return;
    /* A partition that is lost and of which we were not told yet is refused, as it should be. */
    rd_kafka_offsets_store(source->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
}

static void report_lag(struct kafka_source *source, const struct kafka_partition *part, int64_t lag)
{
    char name[320];
    if (!source->base.events->on_lag || source->end.closing)
        return;
    snprintf(name, sizeof name, "%s/%d", part->topic, (int)part->partition);
    source->base.events->on_lag(source->base.ctx, name, lag);
}

void kafka_group_report_lag(struct kafka_source *source)
{
    for (struct kafka_partition *part = source->parts; part; part = part->next) {
        int64_t low = -1, high = -1, lowest = kafka_offsets_lowest(&part->offsets);
        /* What the last fetch brought: this asks no broker, so it may run on the loop. */
        rd_kafka_get_watermark_offsets(source->rk, part->topic, part->partition, &low, &high);
        if (high >= 0)
            kafka_skips_on_end(source, part, high);
        if (low > lowest && lowest >= 0)
            lowest = low; /* what was deleted waits for nobody */
        if (high < 0 || lowest < 0)
            report_lag(source, part, -1);
        else
            report_lag(source, part, high > lowest ? high - lowest : 0);
    }
}

/* ---- assignments */

static void on_assign(struct kafka_source *source, const rd_kafka_topic_partition_list_t *list)
{
    const char *protocol = rd_kafka_rebalance_protocol(source->rk); /* NULL: closed meanwhile */
    source->is_cooperative = protocol && strcmp(protocol, "COOPERATIVE") == 0;
    /* Each assignment is one, also one of nothing. */
    source_count(&source->base, COUNTER_REBALANCES, 1);
    for (int i = 0; i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *given = &list->elems[i];
        struct kafka_partition *old = kafka_partition_find(source, given->topic, given->partition);
        if (old)
            /* The same partition once more: acks of the old assignment must
             * not count for the new. */
            part_revoke(source, old);
        struct kafka_partition *part = kafka_partition_open(source, given->topic, given->partition);
        if (!part) {
            endpoint_fail(&source->end, -ENOMEM, "out of memory");
            return;
        }
        if (!source->base.keeper)
            kafka_skips_on_assign(source, part);
    }
    if (source->base.keeper)
        /* The sink keeps the offsets: the library is answered when it has said from where to
         * read. */
        kafka_claims_ask(source, list);
    else
        kafka_claims_answer(source, true, list);
    health_good(&source->end.health, PART_BROKERS | PART_GROUP);
    if (list->cnt)
        health_good(&source->end.health, PART_TOPIC | PART_ACCESS);
}

static bool is_finished(const struct kafka_source *source)
{
    for (const struct kafka_partition *part = source->parts; part; part = part->next)
        if (part->leaving && part->n_messages)
            return false;
    return true;
}

void kafka_group_leave(struct kafka_source *source)
{
    rd_kafka_topic_partition_list_t *list = source->leaving;
    if (!list)
        return;
    source->leaving = NULL;
    /* The library commits what is stored when it is answered, and not what comes after. */
    kafka_group_store(source);
    for (int i = 0; i < list->cnt; i++) {
        struct kafka_partition *part =
            kafka_partition_find(source, list->elems[i].topic, list->elems[i].partition);
        if (!part)
            continue;
        /* Whoever has it now reports its lag; ours would stand still. */
        report_lag(source, part, -1);
        part_revoke(source, part);
    }
    kafka_claims_answer(source, false, list);
    rd_kafka_topic_partition_list_destroy(list);
}

void kafka_group_advance(struct kafka_source *source)
{
    if (source->leaving &&
        (source->end.closing || is_finished(source) ||
         uv_now(source->end.loop) >= source->leave_by_ms || rd_kafka_assignment_lost(source->rk)))
        kafka_group_leave(source);
}

static bool is_any_ours(const struct kafka_source *source,
                        const rd_kafka_topic_partition_list_t *list)
{
    for (int i = 0; i < list->cnt; i++)
        if (kafka_partition_find(source, list->elems[i].topic, list->elems[i].partition))
            return true;
    return false;
}

static void on_revoke(struct kafka_source *source, const rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_topic_partition_list_t *resumed = NULL;
    if (source->end.closing && !is_any_ours(source, list))
        return; /* it was given up before, and no answer is waited for: see on_rebalance */
    kafka_group_leave(source); /* of a revoke before, that has come to nothing */
    source->leaving = rd_kafka_topic_partition_list_copy(list);
    source->leave_by_ms = uv_now(source->end.loop) + source->config.revoke_ms;
    for (int i = 0; i < list->cnt; i++) {
        struct kafka_partition *part =
            kafka_partition_find(source, list->elems[i].topic, list->elems[i].partition);
        if (!part)
            continue;
        part->leaving = true;
        /* What the pipeline has is finished; what it does not have yet would only delay that. */
        drop_held(source, part);
        if (!part->paused)
            continue;
        if (!resumed)
            resumed = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_list_add(resumed, part->topic, part->partition);
        part->paused = false;
    }
    if (resumed) { /* or it would be paused still if it comes back */
        rd_kafka_resume_partitions(source->rk, resumed);
        rd_kafka_topic_partition_list_destroy(resumed);
    }
    kafka_group_advance(source);
}

void kafka_group_on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t err,
                              rd_kafka_topic_partition_list_t *list, void *opaque)
{
    struct kafka_source *source = kafka_client_owner(opaque);
    (void)rk;
    /* A revoke can still be in the queue when the library has left the group without our answer. An
     * answer is a question to its thread, which may end with the question unread: we would wait for
     * ever. */
    if (source->end.closing && rd_kafka_consumer_closed(source->rk))
        return;
    if (err == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        on_assign(source, list);
    } else if (err == RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS) {
        on_revoke(source, list);
    } else {
        /* An error in place of an assignment, to be answered with none (rdkafka.h). */
        health_wait(&source->end.health, PART_BROKERS, rd_kafka_err2str(err));
        kafka_group_close(source); /* nothing is ours any more */
        rd_kafka_assign(source->rk, NULL);
    }
}

void kafka_group_close(struct kafka_source *source)
{
    kafka_claims_drop(source);
    if (source->leaving)
        rd_kafka_topic_partition_list_destroy(source->leaving);
    source->leaving = NULL;
    while (source->parts)
        part_revoke(source, source->parts);
}
