/*
 * nats_skips.c: messages of the stream that the consumer will never give any more.
 *
 * Owns:    what the last look at the consumer has shown.
 * Refuses: consumers with a filter: what they leave out cannot be told from what is gone.
 * Threads: the loop thread.
 * Why:     a stream that reaches max_age, max_msgs or max_bytes deletes what nobody has read, and
 *          says nothing. But a consumer counts its deliveries beside their sequences in the stream:
 *          when these have grown by more, those between were gone. What was delivered again counts
 *          too, so the difference is the least that is missed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "connectors/nats/nats_json.h"
#include "connectors/nats/nats_source.h"

static void tell(struct nats_source *source, struct skipped *skipped, const char *why)
{
    skipped->part = nats_source_part(source);
    skipped->why = why;
    if (!source->end.closing)
        source_skipped(&source->base, skipped);
}

static void report_gap(struct nats_source *source, int64_t from, int64_t to, int64_t n)
{
    char first[24], next[24];
    snprintf(first, sizeof first, "%" PRId64, from);
    snprintf(next, sizeof next, "%" PRId64, to);
    struct skipped skipped = {.reason = SKIPPED_RETENTION, .from = first, .to = next, .n = n};
    tell(source, &skipped,
         "the stream deleted messages that the consumer had not given: raise its max_age, "
         "max_msgs, max_msgs_per_subject or max_bytes, or start more workers");
}

void nats_skips_on_made(struct nats_source *source)
{
    struct nats_skips *skips = &source->skips;
    char last[24];
    snprintf(last, sizeof last, "%" PRId64, skips->sequence);
    struct skipped skipped = {.reason = SKIPPED_GROUP_DELETED, .from = last, .to = "1", .n = 0};
    /* Else this is the first one, as for any new group. */
    if (skips->is_known)
        tell(
            source, &skipped,
            "the consumer was deleted and is created again: all that the stream holds comes again");
    skips->is_known = false;
}

void nats_skips_look(struct nats_source *source, struct bytes info)
{
    struct nats_skips *skips = &source->skips;
    char created[sizeof skips->created];
    int64_t sequence = nats_json_number(info, "delivered.stream_seq", 0);
    int64_t n_given = nats_json_number(info, "delivered.consumer_seq", 0);
    bool is_filtered = nats_json_find(info, "config.filter_subject").len > 2 ||
                       nats_json_find(info, "config.filter_subjects").ptr;
    nats_json_text(info, "created", created, sizeof created);
    bool is_same = strcmp(created, skips->created) == 0;
    if (skips->is_known && !is_same)
        /* Another consumer of the same name: sequences of the old one mean nothing to it. */
        nats_ack_forget(source);
    if (skips->is_known && is_same && !is_filtered) {
        /* Further in the stream than deliveries account for: so many were gone. */
        int64_t n = sequence - skips->sequence - (n_given - skips->n_given);
        if (n > 0 && sequence > skips->sequence)
            report_gap(source, skips->sequence + 1, sequence, n);
    }
    skips->is_known = true;
    skips->sequence = sequence;
    skips->n_given = n_given;
    snprintf(skips->created, sizeof skips->created, "%s", created);
}
