/*
 * redis_consumer.c: what the commands of a Redis source have in common.
 *
 * Owns:    sending with the source's arguments, what an answer means for its health, credit, the
 *          entries that are with us.
 * Refuses: what is sent when: redis_source.c.
 * Threads: the loop thread.
 */
#include <errno.h>
#include <stdio.h>

#include "connectors/redis/redis_fault.h"
#include "connectors/redis/redis_source.h"

void redis_consumer_fault(struct redis_source *source, struct redis_link *link, unsigned part,
                          const char *stream, const char *text)
{
    struct redis_fault fault = redis_fault_find(text);
    char why[HEALTH_WHY_SIZE];

    snprintf(why, sizeof(why), "stream %.60s, group %.60s: %.200s (%s)", stream,
             source->config.group, text, fault.advice);
    if (fault.remedy == REMEDY_GROUP && source->group_denied) {
        snprintf(why, sizeof(why),
                 "group %.60s of stream %.60s does not exist and this user may not make it; make "
                 "it (XGROUP CREATE) or allow the user to",
                 source->config.group, stream);
        fault.remedy = REMEDY_FATAL;
    }
    if (fault.remedy == REMEDY_FATAL) {
        endpoint_fail(&source->end, -EACCES, why);
        return;
    }
    if (fault.remedy == REMEDY_GROUP) {
        source->groups_are_there = false;
        for (size_t i = 0; i < source->config.streams.n; i++)
            source->watches[i].was_missed = true;
    }
    if (fault.remedy == REMEDY_RECONNECT) {
        redis_link_drop(link, why); /* which is told as the loss of the connection */
        return;
    }
    health_wait(&source->end.health, part, why);
    endpoint_pause(&source->end);
}

void redis_consumer_good(struct redis_source *source, struct redis_link *link, unsigned part)
{
    health_good(&source->end.health, part);
    if (!(source->end.health.troubles & PART_REFUSED))
        source->end.backoff.attempts = 0;
    redis_link_good(link);
}

bool redis_consumer_send(struct redis_source *source, struct redis_link *link, uint64_t extra_ms,
                         redis_reply_cb cb, void *arg)
{
    const struct redis_args *args = &source->args;
    int rc =
        args->failed ? -ENOMEM : redis_link_send(link, args->items, args->n, extra_ms, cb, arg);

    if (rc == -ENOMEM)
        endpoint_pause(&source->end);
    return rc == 0;
}

/* ---- credit and entries */

size_t redis_consumer_want(const struct redis_source *source)
{
    const struct credit_left *credit = &source->intake.credit;
    size_t n_held = source->intake.held.n, held_bytes = n_held * source->mean_bytes;
    size_t want = credit->n > n_held ? credit->n - n_held : 0;
    size_t bytes = credit->n_bytes > held_bytes ? credit->n_bytes - held_bytes : 0;

    if (!want || !bytes)
        return 0;
    /* One at least: an entry larger than the credit has to come, too. */
    size_t fits = bytes / source->mean_bytes + 1;
    return want < fits ? want : fits;
}

bool redis_consumer_take(struct redis_source *source, const struct redis_stream *stream,
                         struct redis_id id, const redisReply *fields, uint32_t deliveries)
{
    struct redis_entry *entry;

    /* Offered again, after a reconnect or by a claim: it is being worked on. */
    if (redis_table_find(&source->table, stream, id))
        return true;
    entry = redis_entry_open(&source->base, stream, source->config.body, id, fields, deliveries);
    if (!entry)
        return false;
    if (redis_table_add(&source->table, entry)) {
        redis_entry_close(entry);
        return false;
    }
    source->mean_bytes = (7 * source->mean_bytes + entry->taken.size) / 8 + 1;
    taken_push(&source->intake.held, &entry->taken);
    return true;
}

void redis_consumer_forget(struct redis_source *source, struct redis_entry *entry)
{
    redis_table_remove(&source->table, entry);
    redis_entry_close(entry);
}
