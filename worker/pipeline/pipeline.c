/*
 * pipeline.c: the story of the program, in the order in which it happens to a message:
 *
 *     on_messages    the source gives it; it waits in the backlog
 *     fill           it is decoded into the batch in hand
 *     dispatch       the batch goes to the pool; split_texts: long texts into chunks, if asked to
 *     embed          cut into slices
 *     embed_slice    a pool thread embeds a slice
 *     on_embedded    the last slice is done
 *     publish        its record is given to the sink
 *     on_published   the sink has confirmed it; the source may forget it
 *
 * and at the end pipeline_drain, end and the closing of everything in turn.
 *
 * Everything runs on the loop thread but split_texts, which has its batch for itself meanwhile, and
 * embed_slice, which touches its slice and its lane only.
 * Nothing here waits: each event does what is possible now (advance) and returns.
 *
 * Batches are published in the order they were dispatched and records in the order their messages
 * came, so that a finite source gives its output in order. A message is acked when its own record
 * is confirmed, whatever became of its neighbours.
 */
#include "worker/pipeline/pipeline_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "worker/pipeline/records.h"

static void dispatch(struct pipeline *p, enum trigger trigger);
static void split_texts(struct job *job, void *thread);
static void embed(struct pipeline *p, struct batch *batch);
static void embed_slice(struct job *job, void *thread);
static void end(struct pipeline *p, enum pipeline_end how);

__attribute__((format(printf, 2, 3))) static void fail(struct pipeline *p, const char *format, ...)
{
    if (p->phase == ENDING)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(p->failure, sizeof p->failure, format, args);
    va_end(args);
    end(p, PIPELINE_FAILED);
}

static void fail_memory(struct pipeline *p)
{
    fail(p,
         "out of memory with %llu texts in flight: give the worker more, or lower the number "
         "of batches, texts per batch or texts per message",
         (unsigned long long)p->stats.inflight_texts);
}

/* 1. In: from the source to the batch in hand. */

static void on_messages(void *ctx, struct message **messages, size_t n)
{
    struct pipeline *p = ctx;
    if (p->phase == ENDING)
        return; /* the source is about to be closed, which releases them */
    for (size_t i = 0; i < n; i++)
        p->stats.redelivered += messages[i]->deliveries > 1;
    credit_given(&p->credit, n);
    p->stats.received += n;
    if (backlog_add(&p->backlog, messages, n))
        return fail_memory(p);
    pipeline_advance(p);
}

/* Mark an entry as a dead letter. 0 or -ENOMEM. */
__attribute__((format(printf, 3, 4))) static int bury(struct entry *entry, const char *code,
                                                      const char *format, ...)
{
    char reason[320];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    entry->dead_code = code;
    entry->dead_reason = arena_copy(&entry->batch->arena, reason, strlen(reason) + 1);
    return entry->dead_reason ? 0 : -ENOMEM;
}

/* Find out what a message asks for, or why that cannot be done. 0 or -ENOMEM. */
static int entry_read(struct pipeline *p, struct entry *entry)
{
    const struct message *message = entry->message;
    if (p->options.max_deliveries && message->deliveries > p->options.max_deliveries)
        return bury(entry, "too_many_deliveries",
                    "this is delivery %u of the message and %u are allowed: workers have died or "
                    "stalled over it",
                    message->deliveries, p->options.max_deliveries);
    if (!message->value.ptr && message->key.ptr)
        return 0; /* a tombstone is passed on, or compaction would keep the embedding for ever */

    if (message->problem)
        return record_problem(message, &entry->batch->arena, &entry->dead_code,
                              &entry->dead_reason);

    struct request request;
    struct refusal why;
    int err = codec_decode(message, &p->options.decode, &entry->batch->arena, &request, &why);
    if (err == -EINVAL)
        return bury(entry, why.code, "%s", why.reason);
    if (err)
        return err;
    entry->prompt = request.prompt.ptr ? prompt_find(p->info, request.prompt) : p->prompt;
    if (!entry->prompt)
        return bury(entry, "unknown_prompt",
                    "the message asks for a prompt there is none of; "
                    "known are %s",
                    prompt_names());
    entry->request = request;
    return 0;
}

static void on_linger(uv_timer_t *timer)
{
    pipeline_advance(timer->data);
}

/* The batch that messages go into; NULL when all are busy. */
static struct batch *take_in_hand(struct pipeline *p)
{
    if (!p->in_hand) {
        p->in_hand = batch_list_take(&p->spare);
        if (p->in_hand) {
            p->in_hand->taken_ns = uv_hrtime();
            uv_timer_start(&p->linger, on_linger, p->options.linger_ms, 0);
        }
    }
    return p->in_hand;
}

/* What is in a batch, in texts; a message that brings none takes the room of one all the same. */
static size_t load_of(const struct batch *batch)
{
    return batch->n_texts > batch->n_entries ? batch->n_texts : batch->n_entries;
}

/* Decode what waits into batches, as long as there are any; full ones go. */
static void fill(struct pipeline *p)
{
    while (p->phase != ENDING && p->backlog.n && take_in_hand(p)) {
        struct batch *batch = p->in_hand;
        struct entry *entry = batch_add(batch, backlog_take(&p->backlog));
        if (!entry || entry_read(p, entry))
            return fail_memory(p);
        batch_count(batch);
        p->stats.inflight_texts += entry->request.n_items;
        if (load_of(batch) >= p->options.batch_texts || batch->text_bytes >= p->options.batch_bytes)
            dispatch(p, TRIGGER_FULL);
    }
}

/* 2. Through the pool. */

static void dispatch(struct pipeline *p, enum trigger trigger)
{
    struct batch *batch = p->in_hand;
    p->in_hand = NULL;
    uv_timer_stop(&p->linger);
    batch_list_add(&p->embedding, batch);
    p->stats.batches[trigger] += batch->n_texts > 0; /* else it is dead letters and tombstones */
    if (!p->options.chunk.wanted || !split_wanted(batch, p->options.chunk.max_tokens))
        return embed(p, batch);
    batch->slices_left = 1;
    batch->split.run = split_texts;
    pool_submit(p->pool, &batch->split);
    p->n_jobs++;
}

/* On a pool thread. */
static void split_texts(struct job *job, void *thread)
{
    struct batch *batch = (struct batch *)((char *)job - offsetof(struct batch, split));
    batch->split_status = split_batch(&((struct lane *)thread)->splitter, batch);
}

static void on_split(struct pipeline *p, struct batch *batch)
{
    if (p->phase == ENDING)
        return;
    if (batch->split_status)
        return fail_memory(p);
    p->stats.inflight_texts -= batch->n_texts;
    batch_recount(batch);
    p->stats.inflight_texts += batch->n_texts;
    embed(p, batch);
}

static void embed(struct pipeline *p, struct batch *batch)
{
    size_t n_idle = p->n_jobs < p->options.n_threads ? p->options.n_threads - p->n_jobs : 0;
    if (batch_cut(batch, n_idle))
        return fail_memory(p);

    p->stats.duplicates += batch->n_texts - batch->n_lots;
    credit_learn(&p->credit, batch);
    for (size_t i = 0; i < batch->n_slices; i++) {
        batch->slices[i].job.run = embed_slice;
        pool_submit(p->pool, &batch->slices[i].job);
        p->n_jobs++;
    }
}

/* On a pool thread. */
static void embed_slice(struct job *job, void *thread)
{
    struct slice *slice = (struct slice *)job;
    struct lane *lane = thread;
    struct scratch *scratch = &lane->scratch;

    slice->began_ns = uv_hrtime();
    int err = slice_load(slice, scratch);
    if (!err && lane->cache)
        cache_embed(lane->cache, scratch->texts, slice->n, scratch->rows, scratch->results,
                    &slice->hits);
    else if (!err)
        lane->embedder->embed(lane->session, scratch->texts, slice->n, scratch->rows,
                              scratch->results);
    slice_store(slice, scratch, err);
    slice->ended_ns = uv_hrtime();
}

/* On a pool thread that has no slice: a share of one that another thread embeds. */
static bool help_embed(void *thread, void *busy, const atomic_bool *leave)
{
    struct lane *lane = thread, *other = busy;
    return lane->embedder->assist(lane->session, other->session, leave);
}

/* On a pool thread. */
void pipeline_invite(void *lane)
{
    pool_invite(((struct lane *)lane)->pool, lane, help_embed);
}

/*
 * On a pool thread. libuv before 1.53 wants a full fence before uv_async_send, which may otherwise
 * find the bell still rung although the loop has already answered it. The pool's lock is enough:
 * either the loop looks at the list after our job was put there, or it looked before, had answered
 * the bell before that, and the lock lets us see so.
 */
void pipeline_ring_bell(void *ctx)
{
    struct pipeline *p = ctx;
    uv_async_send(&p->bell);
}

void pipeline_on_embedded(uv_async_t *bell)
{
    struct pipeline *p = bell->data;
    for (struct job *job = pool_finished(p->pool), *next; job; job = next) {
        next = job->next; /* a batch that was split goes to the pool again */
        p->n_jobs--;
        if (job->run == split_texts) {
            on_split(p, (struct batch *)((char *)job - offsetof(struct batch, split)));
            continue;
        }
        struct slice *slice = (struct slice *)job;
        struct slice_counts counts = slice_count(slice, p->info->max_tokens);
        p->stats.embedded_texts += counts.n_texts;
        p->stats.embedded_tokens += counts.n_tokens;
        p->stats.computed_texts += counts.computed_texts;
        p->stats.computed_tokens += counts.computed_tokens;
        p->stats.memory_hits += slice->hits.memory;
        p->stats.disk_hits += slice->hits.disk;
        p->stats.cache_misses += slice->hits.misses;
        slice->batch->slices_left--;
    }
    if (p->phase == ENDING)
        pipeline_close_source(p);
    else
        pipeline_advance(p);
}

/* 3. Out: to the sink, and back to the source as an ack. */

/* A message of which one text failed is a dead letter as a whole. 0 or -ENOMEM. */
static int entry_judge(const struct pipeline *p, struct entry *entry)
{
    size_t n = entry->request.n_items;
    size_t repeated = record_repeats(entry, p->sink->layout, &p->encode);
    /* What is sent once may be written so many times as the message has texts. */
    if (n > 1 && repeated > PIPELINE_REPEATED_MAX / n)
        return bury(entry, "output_too_large",
                    "%zu bytes of fields would be written for each of %zu texts, and together they "
                    "may be %d MiB; send less beside a text, or cut it into fewer chunks",
                    repeated, n, PIPELINE_REPEATED_MAX >> 20);
    for (size_t i = 0; i < entry->request.n_items; i++) {
        const struct embed_result *result = &entry->batch->results[entry->first_item + i];
        switch (result->status) {
        case 0:
            continue;
        case -E2BIG:
            return bury(entry, "text_too_long",
                        "text %zu of %zu has %u tokens and the model takes %zu", i + 1,
                        entry->request.n_items, result->n_tokens, p->info->max_tokens);
        case -EILSEQ:
            return bury(
                entry, "bad_utf8",
                "text %zu of %zu is not UTF-8 (is it Latin-1, or has it half of a surrogate "
                "pair?); repair it, or set bad_utf8 to replace",
                i + 1, entry->request.n_items);
        case -ENOMEM:
            return -ENOMEM;
        default:
            return bury(entry, "bad_embedding",
                        "the embedding of text %zu of %zu is no unit vector", i + 1,
                        entry->request.n_items);
        }
    }
    return 0;
}

static void publish(struct pipeline *p, struct batch *batch)
{
    int err = 0;
    for (size_t i = 0; i < batch->n_entries && !err; i++)
        err = entry_judge(p, &batch->entries[i]);
    if (!err)
        err = records_build(batch, p->sink->layout, &p->encode);
    struct record **records = arena_alloc(&batch->arena, batch->n_entries * sizeof *records);
    if (err || !records)
        return fail_memory(p);

    for (size_t i = 0; i < batch->n_entries; i++)
        records[i] = &batch->entries[i].record;
    if (p->options.on_embedded)
        p->options.on_embedded(p->ctx, batch);
    batch->published_ns = uv_hrtime();
    batch->records_left = batch->n_entries;
    p->sink->ops->publish(p->sink, records, batch->n_entries);
}

/* What the sink refused is published otherwise: an output as a dead letter, that one cut. */
static void publish_refused(struct pipeline *p, struct entry *entry, enum published how)
{
    char why[600];
    int err = record_refused(entry, how, p->options.drop_undeliverable, why, sizeof why);
    if (err == -ENOMEM)
        return fail_memory(p);
    if (err)
        return fail(p, "%s", why);
    struct record *record = &entry->record;
    p->sink->ops->publish(p->sink, &record, 1);
}

static void count_published(struct pipeline *p, const struct entry *entry)
{
    struct pipeline_stats *stats = &p->stats;
    if (entry->dropped) {
        stats->undeliverable++;
        if (p->options.on_undeliverable)
            p->options.on_undeliverable(p->ctx, entry->message, entry->dead_code,
                                        entry->dead_reason);
        return;
    }
    if (entry->dead_code) {
        stats->dead_letters++;
        if (p->options.on_dead_letter)
            p->options.on_dead_letter(p->ctx, entry->message, entry->dead_code, entry->dead_reason);
        return;
    }
    stats->messages++;
    for (size_t i = 0; i < entry->request.n_items; i++) {
        const struct embed_result *result = &entry->batch->results[entry->first_item + i];
        const struct item *item = &entry->request.items[i];
        size_t max = p->info->max_tokens;
        stats->texts += item_begins_text(item);
        stats->chunks += item->chunk != NULL;
        stats->tokens += result->n_tokens < max ? result->n_tokens : max;
        stats->truncated += result->truncated;
    }
}

static void on_published(void *ctx, struct record *record, enum published how)
{
    struct pipeline *p = ctx;
    struct entry *entry = record_entry(record);
    struct batch *batch = entry->batch;
    if (how == PUBLISH_TOO_LARGE || how == PUBLISH_REFUSED) {
        if (p->phase != ENDING) /* else it stays unacked and comes again */
            publish_refused(p, entry, how);
        return;
    }

    if (how == PUBLISH_NOT_OURS)
        p->stats.not_ours++;
    else
        count_published(p, entry);
    if (how != PUBLISH_NOT_OURS && p->options.on_published)
        p->options.on_published(p->ctx, entry);
    if (how == PUBLISHED && !p->source_failed)
        p->source->ops->ack(p->source, entry->message);
    if (how == PUBLISH_NOT_OURS && !p->source_failed)
        p->source->ops->release(p->source, entry->message);

    if (--batch->records_left == 0) {
        p->stats.inflight_texts -= batch->n_texts;
        batch_reset(batch);
        batch_list_add(&p->spare, batch);
        pipeline_advance(p);
    }
}

/* 4. What keeps it going. */

/*
 * Ask the source for what the threads can use and the batches can take; while anything waits in the
 * backlog there is no such batch.
 */
static void grant(struct pipeline *p)
{
    const struct pipeline_options *o = &p->options;
    struct room room = {0};
    if (p->phase == RUNNING && p->in_hand) { /* never full: it would have gone */
        room.n_texts = o->batch_texts - load_of(p->in_hand);
        room.n_bytes = o->batch_bytes - p->in_hand->text_bytes;
    }
    if (p->phase == RUNNING && p->spare.n) {
        room.n_texts = o->batch_texts;
        room.n_bytes = o->batch_bytes;
    }
    room.n_slices = credit_slices(o->n_threads, p->n_jobs, p->in_hand);
    if (credit_reckon(&p->credit, &room))
        p->source->ops->request(p->source, p->credit.granted, p->credit.granted_bytes);
}

/* The batch in hand goes when a thread is idle, or has waited and no other waits at the pool: to
 * queue there for longer would only keep it from growing. */
static void send_in_hand(struct pipeline *p)
{
    if (p->n_jobs < p->options.n_threads)
        dispatch(p, TRIGGER_IDLE);
    else if (p->phase == DRAINING)
        dispatch(p, TRIGGER_DRAIN);
    else if (!uv_is_active((const uv_handle_t *)&p->linger) && p->n_jobs == p->options.n_threads)
        dispatch(p, TRIGGER_LINGER);
}

/* Whatever just happened: do all that has become possible. */
void pipeline_advance(struct pipeline *p)
{
    fill(p);
    if (p->phase != ENDING && p->in_hand)
        send_in_hand(p);
    while (p->phase != ENDING && p->embedding.first && p->embedding.first->slices_left == 0)
        publish(p, batch_list_take(&p->embedding));
    if (p->phase == ENDING)
        return;
    p->stats.waiting_messages = p->backlog.n;
    grant(p);
    if (p->phase == DRAINING && p->backlog.n == 0 && p->spare.n == p->options.n_batches)
        end(p, PIPELINE_DRAINED);
}

/* 5. The end. */

static void on_deadline(uv_timer_t *timer)
{
    end(timer->data, PIPELINE_DEADLINE);
}

void pipeline_drain(struct pipeline *p)
{
    if (p->phase == ENDING || p->end_by_ms)
        return;
    uint64_t drain_ms = p->options.drain_ms;
    uint64_t close_ms = drain_ms / 4 < CLOSE_MS ? drain_ms / 4 : CLOSE_MS;
    p->end_by_ms = uv_now(p->loop) + drain_ms;
    uv_timer_start(&p->deadline, on_deadline, drain_ms - close_ms, 0);
    p->phase = DRAINING;
    pipeline_advance(p);
}

static void on_end(void *ctx)
{
    struct pipeline *p = ctx;
    if (p->phase != RUNNING)
        return;
    p->phase = DRAINING;
    pipeline_advance(p);
}

static void on_source_failed(void *ctx, int err, const char *why)
{
    struct pipeline *p = ctx;
    p->source_failed = true;
    (void)err;
    if (p->phase == ENDING && p->how == PIPELINE_DRAINED) {
        p->how = PIPELINE_UNFLUSHED;
        snprintf(p->failure, sizeof p->failure, "%s", why);
    }
    fail(p, "the input failed: %s", why);
}

static void on_sink_failed(void *ctx, int err, const char *why)
{
    (void)err;
    fail(ctx, "the output failed: %s", why);
}

static uint64_t time_left(const struct pipeline *p)
{
    uint64_t now = uv_now(p->loop);
    return p->end_by_ms > now ? p->end_by_ms - now : 0;
}

static void on_sink_closed(void *ctx)
{
    struct pipeline *p = ctx;
    p->sink = NULL;
    pipeline_close_source(p);
}

/*
 * Nothing new is begun from here on. The sink is closed first, then the source, which flushes acks
 * and releases every message not taken. Jobs that no thread has begun are taken back; those running
 * read the bytes of messages, so the source stays open until they are done.
 */
static void end(struct pipeline *p, enum pipeline_end how)
{
    if (p->phase == ENDING)
        return;
    p->phase = ENDING;
    p->how = how;
    uv_timer_stop(&p->linger);
    uv_timer_stop(&p->deadline);
    if (how == PIPELINE_FAILED)
        p->end_by_ms = uv_now(p->loop) + CLOSE_MS;
    else if (!p->end_by_ms)
        p->end_by_ms = uv_now(p->loop) + p->options.drain_ms;
    if (!p->source_failed)
        p->source->ops->request(p->source, 0, 0);
    for (struct job *job = pool_cancel(p->pool); job; job = job->next)
        p->n_jobs--;
    if (p->how == PIPELINE_DRAINED)
        p->sink->vector_bytes = codec_dtype_bytes(p->encode.dtype, p->encode.dim);
    p->sink->ops->close(p->sink, time_left(p) / 2, on_sink_closed, p);
}

/* When its turn has come: after the sink, and when no thread reads a message any more. */
void pipeline_close_source(struct pipeline *p)
{
    if (p->sink || p->n_jobs > 0 || p->source_closing)
        return;
    p->source_closing = true;
    uint64_t left = time_left(p);
    p->source->ops->close(p->source, left > CLOSE_LEAST_MS ? left : CLOSE_LEAST_MS,
                          pipeline_on_source_closed, p);
}

const struct source_events pipeline_source_events = {
    .on_messages = on_messages,
    .on_state = pipeline_on_source_state,
    .on_end = on_end,
    .on_failed = on_source_failed,
    .on_lag = pipeline_on_lag,
    .on_count = pipeline_on_count,
    .on_skipped = pipeline_on_skipped,
    .on_notice = pipeline_on_source_notice,
};
const struct sink_events pipeline_sink_events = {
    .on_published = on_published,
    .on_state = pipeline_on_sink_state,
    .on_failed = on_sink_failed,
    .on_count = pipeline_on_count,
    .on_notice = pipeline_on_sink_notice,
};
