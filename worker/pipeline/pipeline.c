/*
 * pipeline.c: the story of the program, in the order in which it happens to a message:
 *
 *     on_messages    the source gives it; it waits in the backlog
 *     fill           it is put into the batch in hand
 *     dispatch       the batch goes to the pool, which decodes, splits, embeds and encodes it:
 *                    stages.c
 *     on_decoded     what found no room in the batch waits again, before all else
 *     on_laid_out    how many texts it has is known
 *     on_embedded    a slice of it is done
 *     publish        it is encoded; its record is given to the sink
 *     on_published   the sink has confirmed it; the source may forget it
 *
 * and at the end pipeline_drain, end and the closing of everything in turn.
 *
 * Everything here runs on the loop thread, touches no payload and does not wait: each event does
 * what is possible now (advance) and returns.
 *
 * Batches are published in the order they were dispatched and records in the order their messages
 * came, so that a finite source gives its output in order. A message is acked when its own record
 * is confirmed, whatever became of its neighbours.
 */
#include "worker/pipeline/pipeline_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "worker/pipeline/records.h"

static void dispatch(struct pipeline *p, enum trigger trigger);
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
    /* All go through it, even when a batch has room: their order is kept in one place. */
    if (backlog_add(&p->backlog, messages, n))
        return fail_memory(p);
    pipeline_advance(p);
}

static void on_linger(uv_timer_t *timer)
{
    pipeline_advance(timer->data);
}

/*
 * A batch is kept while one of its records is, and of a record that is refused only others can show
 * whose fault it is. So when all batches are kept, those others come one by one in extra ones.
 */
static bool is_extra_ready(const struct pipeline *p)
{
    size_t batch_texts = p->options.batch_texts;
    size_t most_texts = batch_texts > EXTRAS_MAX ? batch_texts : EXTRAS_MAX;
    return p->wants_extra && !p->spare.n && !p->at_pool.n && p->extras.n &&
           p->extra_texts < most_texts && p->extra_bytes < p->options.batch_bytes;
}

/* The batch that messages go into; NULL when all are busy. */
static struct batch *take_in_hand(struct pipeline *p)
{
    if (!p->in_hand) {
        bool is_extra = is_extra_ready(p);
        p->in_hand = batch_list_take(is_extra ? &p->extras : &p->spare);
        /* The linger counts from the first message of a batch, not from when the batch was free. */
        if (p->in_hand) {
            p->wants_extra = false;
            p->in_hand->taken_ns = uv_hrtime();
            uv_timer_start(&p->linger, on_linger, p->options.linger_ms, 0);
        }
    }
    return p->in_hand;
}

/* Expected texts: how many messages hold is known once they are decoded. */
static size_t load_of(const struct pipeline *p, const struct batch *batch)
{
    return stages_load(batch->n_entries, batch->n_entries * p->credit.texts_per_message);
}

static bool is_full(const struct pipeline *p, const struct batch *batch)
{
    if (batch->is_extra)
        return batch->n_entries > 0;
    return load_of(p, batch) >= p->options.batch_texts || batch->n_bytes >= p->options.batch_bytes;
}

/* Put what waits into batches, as long as there are any; full ones go. */
static void fill(struct pipeline *p)
{
    while (p->phase != ENDING) {
        if (p->in_hand && is_full(p, p->in_hand)) {
            /* One batch is decoded at a time; this one goes when that one is done. */
            if (p->decoding)
                return;
            dispatch(p, TRIGGER_FULL);
        } else if (p->backlog.n == 0 || !take_in_hand(p)) {
            return;
        } else if (!batch_add(p->in_hand, backlog_take(&p->backlog))) {
            return fail_memory(p);
        }
    }
}

/* 2. Through the pool. */

/* One at a time: what finds no room in it comes before all that waits. */
static void dispatch(struct pipeline *p, enum trigger trigger)
{
    struct batch *batch = p->in_hand;
    assert(batch->n_entries > 0 && !p->decoding);
    /* From here on the batch belongs to the pool, until its last job comes back. */
    p->in_hand = NULL;
    uv_timer_stop(&p->linger);
    p->stats.batches[trigger]++;
    p->decoding = batch;
    p->extra_bytes += batch->is_extra ? batch->n_bytes : 0;
    p->decoding_tokens = credit_tokens(&p->credit, batch, p->info->max_tokens);
    batch_list_add(&p->at_pool, batch);
    stages_begin(&p->stages, batch);
}

/* Messages that found no room in the batch, then those that were put into the next one already. */
static int put_back(struct pipeline *p, const struct batch *batch)
{
    int err = 0;
    if (p->in_hand) {
        /* Backwards, for each goes to the front of the backlog: the order of messages stays. */
        for (size_t i = p->in_hand->n_entries; i-- > 0 && !err;)
            err = backlog_put_back(&p->backlog, p->in_hand->entries[i].message);
        batch_reset(p->in_hand);
    }
    for (size_t i = batch->n_undecoded; i-- > 0 && !err;)
        err = backlog_put_back(&p->backlog, batch->entries[batch->n_entries + i].message);
    return err;
}

/* The texts of a batch are what they will be. */
static void on_laid_out(struct pipeline *p, const struct batch *batch)
{
    p->stats.duplicates += batch->n_texts - batch->n_uniques;
    p->stats.inflight_texts += batch->n_texts;
    p->inflight_bytes += batch->text_bytes;
    p->extra_texts += batch->is_extra ? batch->n_texts : 0;
    credit_learn(&p->credit, batch);
}

static void on_decoded(struct pipeline *p, struct batch *batch)
{
    assert(p->decoding == batch);
    p->decoding = NULL;
    if (batch->doubled && p->options.on_doubled)
        p->options.on_doubled(p->ctx, batch->doubled, batch->doubled_by);
    if (batch->missing_prompt && p->options.on_missing_prompt)
        p->options.on_missing_prompt(p->ctx, batch->missing_prompt);
    if (batch->n_undecoded && put_back(p, batch))
        return fail_memory(p);
    /* With long texts, only splitting says how many there are; on_laid_out follows then. */
    if (!batch->is_split)
        on_laid_out(p, batch);
}

static void on_embedded(struct pipeline *p, struct slice *slice)
{
    const struct slice_counts *counts = &slice->counts;
    p->stats.embedded_texts += counts->n_texts;
    p->stats.embedded_tokens += counts->n_tokens;
    p->stats.computed_texts += counts->computed_texts;
    p->stats.computed_tokens += counts->computed_tokens;
    p->stats.memory_hits += slice->hits.memory;
    p->stats.disk_hits += slice->hits.disk;
    p->stats.cache_misses += slice->hits.misses;
    assert(slice->job.batch->slices_left > 0);
    slice->job.batch->slices_left--;
}

/* On a pool thread. */
void pipeline_send_wakeup(void *ctx)
{
    struct pipeline *p = ctx;
    wakeup_send(&p->wakeup);
}

static void on_stage(struct pipeline *p, struct stage_job *job)
{
    struct batch *batch = job->batch;
    if (p->phase == ENDING)
        return;
    /* Nothing but -ENOMEM: what is wrong with a message is in its entry. */
    if (job->status)
        return fail_memory(p);
    switch (job->stage) {
    case STAGE_DECODE:
        return on_decoded(p, batch);
    case STAGE_SPLIT:
        return on_laid_out(p, batch);
    case STAGE_EMBED:
        return on_embedded(p, (struct slice *)job);
    case STAGE_ENCODE:
        /* Not published here: batches before this one may still be at the pool
         * (pipeline_advance). */
        batch->is_encoded = true;
    }
}

void pipeline_on_jobs(void *ctx)
{
    struct pipeline *p = ctx;
    for (struct job *job = pool_user_finished(p->user), *next; job; job = next) {
        next = job->next;
        on_stage(p, (struct stage_job *)job);
    }
    /* The last job that read a message may have come back: only then the source may close. */
    if (p->phase == ENDING)
        pipeline_close_source(p);
    else
        pipeline_advance(p);
}

/* 3. Out: to the sink, and back to the source as an ack. */

static void publish(struct pipeline *p, struct batch *batch)
{
    if (p->options.on_embedded)
        p->options.on_embedded(p->ctx, batch);
    assert(batch->n_entries > 0); /* else no record would ever bring it back */
    assert(batch->is_encoded && batch->slices_left == 0);
    batch->published_ns = uv_hrtime();
    batch->records_left = batch->n_entries;
    p->sink->ops->publish(p->sink, batch->records, batch->n_entries);
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
    /* records_left counts it already: it is confirmed in its new form. */
    p->sink->ops->publish(p->sink, &record, 1);
}

/* This message was to have a version and has none: said once. */
static void note_version(struct pipeline *p, const struct entry *entry)
{
    const struct bytes *position = &entry->message->position;
    enum version_by by = p->options.decode.version_by;
    char text[320];
    bool is_wanted = by == VERSION_POSITION || by == VERSION_TIMESTAMP;
    if (!is_wanted || entry->request.has_version || p->is_version_noted)
        return;
    p->is_version_noted = true;
    snprintf(text, sizeof text,
             "the message at %.*s has no %s, which order_by takes for its version: it is written "
             "whatever is there, and so are others like it. Have senders set it, or order by a "
             "field",
             (int)(position->len < 120 ? position->len : 120), position->ptr,
             by == VERSION_TIMESTAMP ? "timestamp" : "position that orders it");
    observer_on_source_notice(p, NOTICE_WARN, "no_version", text);
}

static void count_published(struct pipeline *p, const struct entry *entry)
{
    struct pipeline_stats *stats = &p->stats;
    /* Exactly one of the three: given up, dead letter, output. */
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
    if (entry->is_of_others)
        return;
    note_version(p, entry);
    stats->messages++;
    stats->deleted += entry->request.is_deleted;
    stats->unchanged += entry->request.is_unchanged;
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

/* All of its records are confirmed. */
static void give_back(struct pipeline *p, struct batch *batch)
{
    assert(p->stats.inflight_texts >= batch->n_texts);
    p->stats.inflight_texts -= batch->n_texts;
    assert(p->inflight_bytes >= batch->text_bytes);
    p->inflight_bytes -= batch->text_bytes;
    if (!batch->is_extra) {
        batch_reset(batch);
        batch_list_add(&p->spare, batch);
        return;
    }
    size_t dim = batch->dim, max_tokens = batch->max_tokens;
    p->extra_texts -= batch->n_texts;
    p->extra_bytes -= batch->n_bytes;
    batch_close(batch); /* the memory, too: it is rarely used */
    batch_open(batch, dim, max_tokens);
    batch->is_extra = true;
    batch_list_add(&p->extras, batch);
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

    /* Before the ack, which ends the message that these read. */
    if (how == PUBLISH_NOT_OURS)
        p->stats.not_ours++;
    else
        count_published(p, entry);
    if (how != PUBLISH_NOT_OURS && p->options.on_published && !entry->is_of_others)
        p->options.on_published(p->ctx, entry);
    /* PUBLISHED_AND_ACKED needs neither: the sink has told the source itself. */
    if (how == PUBLISHED && !p->source_failed)
        p->source->ops->ack(p->source, entry->message);
    if (how == PUBLISH_NOT_OURS && !p->source_failed)
        p->source->ops->release(p->source, entry->message);

    assert(batch->records_left > 0);
    if (--batch->records_left == 0) {
        give_back(p, batch);
        pipeline_advance(p);
    }
}

static void on_doubt(void *ctx)
{
    struct pipeline *p = ctx;
    if (p->phase == ENDING)
        return;
    p->wants_extra = true;
    pipeline_advance(p);
}

/* 4. What keeps it going. */

/* Slices of work at the threads and on the way to them, beside the batch in hand. */
static size_t slices_used(const struct pipeline *p)
{
    size_t n_jobs = pool_user_jobs(p->user), n_tokens = 0;
    /* Its job is decoding, which is no slice of work; what it holds is estimated instead. */
    if (p->decoding) {
        n_jobs--;
        n_tokens += p->decoding_tokens;
    }
    if (p->in_hand)
        n_tokens += credit_tokens(&p->credit, p->in_hand, p->info->max_tokens);
    return credit_slices(n_jobs, n_tokens);
}

/*
 * Ask the source for what the threads can use and the batches can take: nothing while anything
 * waits in the backlog; while a batch is decoded, no more than the one in hand takes behind it.
 */
static void grant(struct pipeline *p)
{
    const struct pipeline_options *o = &p->options;
    struct room room = {0};
    bool is_open = p->phase == RUNNING && p->backlog.n == 0;
    if (is_open && p->in_hand && !is_full(p, p->in_hand)) {
        assert(!p->in_hand->is_extra);
        room.n_texts = o->batch_texts - load_of(p, p->in_hand);
        room.n_bytes = o->batch_bytes - p->in_hand->n_bytes;
    }
    /* A whole batch more is free to take what comes behind the one in hand. */
    if (is_open && p->spare.n && !(p->in_hand && p->decoding)) {
        room.n_texts = o->batch_texts;
        room.n_bytes = o->batch_bytes;
    }
    /* All batches are kept, and one more message may show whose fault it is. */
    if (is_open && !p->in_hand && is_extra_ready(p)) {
        room.n_texts = 1;
        room.n_bytes = o->batch_bytes;
    }
    /* A slice at each thread and one that waits for it: enough that none is ever idle. */
    size_t n_used = slices_used(p), n_wanted = 2 * o->n_threads;
    room.n_slices = n_used < n_wanted ? n_wanted - n_used : 0;
    if (credit_reckon(&p->credit, &room))
        p->source->ops->request(p->source, p->credit.granted, p->credit.granted_bytes);
}

/* The batch in hand goes when a thread is idle, or has waited and no other waits at the pool: to
 * queue there for longer would only keep it from growing. */
static void send_in_hand(struct pipeline *p)
{
    size_t n_jobs = pool_user_jobs(p->user);
    if (n_jobs < p->options.n_threads)
        dispatch(p, TRIGGER_IDLE);
    else if (p->phase == DRAINING)
        dispatch(p, TRIGGER_DRAIN);
    else if (!uv_is_active((const uv_handle_t *)&p->linger) && n_jobs == p->options.n_threads)
        dispatch(p, TRIGGER_LINGER);
}

static bool is_done(const struct batch *batch)
{
    return batch->is_encoded && batch->slices_left == 0;
}

/* Whatever just happened: do all that has become possible. */
void pipeline_advance(struct pipeline *p)
{
    fill(p);
    if (p->phase != ENDING && p->in_hand && !p->decoding)
        send_in_hand(p);
    while (p->phase != ENDING && p->at_pool.first && is_done(p->at_pool.first))
        publish(p, batch_list_take(&p->at_pool));
    if (p->phase == ENDING)
        return;
    p->stats.waiting_messages = p->backlog.n;
    grant(p);
    /* All boxes are back: nothing is in hand, at the pool or at the sink. */
    if (p->phase == DRAINING && p->backlog.n == 0 && p->spare.n == p->options.n_batches &&
        p->extras.n == EXTRAS_MAX)
        end(p, PIPELINE_DRAINED);
}

/* 5. The end. */

static void on_deadline(uv_timer_t *timer)
{
    end(timer->data, PIPELINE_DEADLINE);
}

void pipeline_drain(struct pipeline *p)
{
    /* A source that ended drains without a deadline; a signal sets one then, once. */
    if (p->phase == ENDING || p->end_by_ms)
        return;
    uint64_t drain_ms = p->options.drain_ms;
    uint64_t close_ms = drain_ms / 4 < CLOSE_MS ? drain_ms / 4 : CLOSE_MS;
    /* The last quarter of the time, or less, is for the sink and the source to close in. */
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
    /* All was published, but the last acks did not arrive: those messages come again. */
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
    /* Nothing is waited for: a moment to close in. */
    if (how == PIPELINE_FAILED)
        p->end_by_ms = uv_now(p->loop) + CLOSE_MS;
    else if (!p->end_by_ms)
        p->end_by_ms = uv_now(p->loop) + p->options.drain_ms;
    if (!p->source_failed)
        p->source->ops->request(p->source, 0, 0);
    /* No more is asked for; what the source still gives is dropped by on_messages. */
    pool_user_cancel(p->user);
    if (p->how == PIPELINE_DRAINED)
        p->sink->vector_bytes = codec_dtype_bytes(p->stages.encode.dtype, p->stages.encode.dim);
    p->sink->ops->close(p->sink, time_left(p) / 2, on_sink_closed, p);
}

/* When its turn has come: after the sink, and when no thread reads a message any more. */
void pipeline_close_source(struct pipeline *p)
{
    if (p->sink || pool_user_jobs(p->user) > 0 || p->source_closing)
        return;
    assert(p->phase == ENDING);
    p->source_closing = true;
    uint64_t left = time_left(p);
    p->source->ops->close(p->source, left > CLOSE_LEAST_MS ? left : CLOSE_LEAST_MS,
                          p->on_source_closed, p);
}

const struct source_events pipeline_source_events = {
    .on_messages = on_messages,
    .on_state = observer_on_source_state,
    .on_end = on_end,
    .on_failed = on_source_failed,
    .on_lag = observer_on_lag,
    .on_count = observer_on_count,
    .on_skipped = observer_on_skipped,
    .on_notice = observer_on_source_notice,
};
const struct sink_events pipeline_sink_events = {
    .on_published = on_published,
    .on_state = observer_on_sink_state,
    .on_failed = on_sink_failed,
    .on_doubt = on_doubt,
    .on_count = observer_on_count,
    .on_notice = observer_on_sink_notice,
};
