/*
 * stages.c: see stages.h. Each stage is a job, which says by its `then` what follows.
 *
 * As many messages are decoded as have room in the batch; the rest goes back to the loop, for how
 * many texts a message holds is known only now. The next batch is decoded after this one, so that
 * the order of messages stays; all that follows decoding may run beside it.
 */
#include "worker/pipeline/stages.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "worker/pipeline/records.h"

static void decode(struct job *job, struct pool_thread *thread);
static void split(struct job *job, struct pool_thread *thread);
static void embed(struct job *job, struct pool_thread *thread);
static void encode(struct job *job, struct pool_thread *thread);

/* Decoding and encoding are short and others wait for them: the next batch, and the sink. */
void stages_begin(const struct stages *stages, struct batch *batch)
{
    enum pool_lane lane = stages->options->lane;
    batch->decode =
        (struct stage_job){{.run = decode, .lane = lane, .urgent = true}, batch, STAGE_DECODE, 0};
    batch->split = (struct stage_job){{.run = split, .lane = lane}, batch, STAGE_SPLIT, 0};
    batch->encode =
        (struct stage_job){{.run = encode, .lane = lane, .urgent = true}, batch, STAGE_ENCODE, 0};
    pool_user_submit(stages->user, &batch->decode.job);
}

static struct batch *batch_of(struct job *job)
{
    return ((struct stage_job *)job)->batch;
}

/* 1. Decode. */

/* Mark an entry as a dead letter. model: the one of several that cannot embed it; NULL: none can,
 * or there is only one. 0 or -ENOMEM. */
__attribute__((format(printf, 4, 5))) static int
dead_letter(struct entry *entry, const char *model, const char *code, const char *format, ...)
{
    char reason[400];
    int len = model ? snprintf(reason, sizeof reason, "%.63s: ", model) : 0;
    va_list args;
    va_start(args, format);
    vsnprintf(reason + len, sizeof reason - (size_t)len, format, args);
    va_end(args);
    entry->dead_code = code;
    entry->dead_reason = arena_copy(&entry->batch->arena, reason, strlen(reason) + 1);
    return entry->dead_reason ? 0 : -ENOMEM;
}

/* For a warning; one text of a batch is enough. */
static void doubled_find(const struct stages *stages, const struct entry *entry)
{
    struct batch *batch = entry->batch;
    for (size_t i = 0; i < entry->request.n_items && !batch->doubled; i++) {
        batch->doubled = prompt_doubled(stages->info, entry->prompt, entry->request.items[i].text);
        batch->doubled_by = entry->prompt;
    }
}

/* Others may have a problem beside: whose model is not known, say. */
bool stages_is_tombstone(const struct message *message)
{
    const char *problem = message->problem.code;
    return !message->value.ptr && message->key.ptr &&
           (!problem || strcmp(problem, DEAD_LETTER(no_body)) == 0);
}

/* Find out what a message asks for, or why that cannot be done. 0 or -ENOMEM. */
static int entry_read(const struct stages *stages, struct entry *entry)
{
    const struct message *message = entry->message;
    /* Before anything is read of it: a message that kills workers must not get so far again. */
    if (stages->options->max_deliveries && message->deliveries > stages->options->max_deliveries)
        return dead_letter(
            entry, NULL, DEAD_LETTER(too_many_deliveries),
            "this is delivery %u of the message and %u are allowed: workers have died or "
            "stalled over it",
            message->deliveries, stages->options->max_deliveries);
    bool is_tombstone = stages_is_tombstone(message);
    /* The connector has found it unreadable: it becomes a dead letter, as it is. */
    if (message->problem.code && !is_tombstone) {
        entry->dead_code = message->problem.code;
        entry->dead_reason = message->problem.reason;
        return 0;
    }

    struct request request;
    struct refusal why;
    int err = (is_tombstone ? codec_tombstone : codec_decode)(message, &stages->options->decode,
                                                              &entry->batch->arena, &request, &why);
    if (err == -EINVAL)
        return dead_letter(entry, NULL, why.code, "%s", why.reason);
    if (err)
        return err;
    /* The prompt is looked up last, because a deleted text needs none. */
    if (request.n_items == 0) { /* gone, or as it was */
        entry->request = request;
        return 0;
    }
    entry->prompt = request.prompt.ptr ? prompt_find(stages->info, request.prompt) : stages->prompt;
    if (!entry->prompt)
        return dead_letter(entry, NULL, DEAD_LETTER(unknown_prompt),
                           "unknown prompt; "
                           "known are %s",
                           prompt_names());
    entry->request = request;
    if (request.prompt.ptr && !entry->batch->missing_prompt)
        entry->batch->missing_prompt = prompt_missing(stages->info, request.prompt);
    doubled_find(stages, entry);
    return 0;
}

size_t stages_load(size_t n_messages, size_t n_texts)
{
    return n_texts > n_messages ? n_texts : n_messages;
}

static void lay_out(struct stage_job *job, const struct stages *stages);

static void decode(struct job *job, struct pool_thread *thread)
{
    const struct stages *stages = thread->stages;
    const struct pipeline_options *o = stages->options;
    struct batch *batch = batch_of(job);
    int status = 0;
    size_t n = 0;
    while (n < batch->n_entries && !status && stages_load(n, batch->n_texts) < o->batch_texts &&
           batch->text_bytes < o->batch_bytes) {
        struct entry *entry = &batch->entries[n++];
        status = entry_read(stages, entry);
        /* What is wrong with a message by itself, the first of the pipelines that have it says. */
        if (entry->dead_code && entry->message->is_shared && !o->is_first) {
            entry->dead_code = NULL;
            entry->is_of_others = true;
        }
        batch_count(batch, entry);
    }
    /* The first is always decoded, however large, so that every dispatch makes progress. */
    assert(n <= batch->n_entries);
    /* These stay behind the decoded ones until pipeline.c puts them back. */
    batch->n_undecoded = batch->n_entries - n;
    batch->n_entries = n;
    batch->decode.status = status;
    batch->is_split = !status && o->chunk.wanted && split_wanted(batch, o->chunk.max_tokens);
    if (batch->is_split)
        job->then = &batch->split.job;
    else if (!status)
        lay_out(&batch->decode, stages);
}

/* 2. Split. */

static void split(struct job *job, struct pool_thread *thread)
{
    struct batch *batch = batch_of(job);
    assert(batch->is_split);
    batch->split.status = split_batch(&thread->splitter, batch);
    batch_recount(batch);
    if (!batch->split.status)
        lay_out(&batch->split, thread->stages);
}

/* Cut into slices, which follow the job; without any its encoding does. */
static void lay_out(struct stage_job *job, const struct stages *stages)
{
    struct batch *batch = job->batch;
    assert(batch->n_slices == 0); /* as batch_reset left it */
    job->status = batch_slice(batch, pool_spare(stages->pool));
    if (job->status)
        return;
    for (size_t i = 0; i < batch->n_slices; i++) {
        struct job *slice = &batch->slices[i].job.job;
        slice->run = embed;
        slice->lane = stages->options->lane;
        /* A list, which job_finish hands to the threads one by one. */
        slice->next = i + 1 < batch->n_slices ? &batch->slices[i + 1].job.job : NULL;
    }
    job->job.then = batch->n_slices ? &batch->slices[0].job.job : &batch->encode.job;
}

/* 3. Embed. */

static void embed(struct job *job, struct pool_thread *thread)
{
    struct slice *slice = (struct slice *)job;
    struct batch *batch = slice->job.batch;
    struct scratch *scratch = &thread->scratch;

    slice->began_ns = uv_hrtime();
    int err = slice_load(slice, scratch);
    if (!err && thread->cache)
        cache_embed(thread->cache, scratch->texts, slice->n, scratch->rows, scratch->results,
                    &slice->hits);
    else if (!err)
        thread->stages->embedder->embed(thread->session, scratch->texts, slice->n, scratch->rows,
                                        scratch->results);
    /* Failed or not, each text of the slice gets a result: entry_judge reads all of them. */
    slice_store(slice, scratch, err);
    slice->counts = slice_count(slice, thread->stages->info->max_tokens);
    slice->ended_ns = uv_hrtime();
    /* Whichever thread ends the last slice adds the encoding; no thread waits for others. */
    if (atomic_fetch_sub(&batch->slices_unfinished, 1) == 1)
        job->then = &batch->encode.job;
}

size_t stages_share(void *arg, session_part *step, void *step_arg, size_t n_parts)
{
    const struct pool_thread *thread = arg;
    return pool_share(thread->stages->pool, thread->index, step, step_arg, n_parts);
}

/* 4. Encode. */

/* A message of which one text failed is a dead letter as a whole. 0 or -ENOMEM. */
static int entry_judge(const struct stages *stages, struct entry *entry)
{
    const char *model = stages->options->model_name;
    size_t n = entry->request.n_items;
    size_t repeated = record_repeats(entry, stages->layout, &stages->encode);
    /* What is sent once may be written so many times as the message has texts. */
    if (n > 1 && repeated > PIPELINE_REPEATED_MAX / n)
        return dead_letter(
            entry, model, DEAD_LETTER(output_too_large),
            "%zu bytes of fields would be written for each of %zu texts, and together they "
            "may be %d MiB; send less beside a text, or cut it into fewer chunks",
            repeated, n, PIPELINE_REPEATED_MAX >> 20);
    for (size_t i = 0; i < entry->request.n_items; i++) {
        const struct embed_result *result = &entry->batch->results[entry->first_item + i];
        switch (result->status) {
        case 0:
            continue;
        case -E2BIG:
            return dead_letter(entry, model, DEAD_LETTER(text_too_long),
                               "text %zu of %zu has %u tokens and the model takes %zu", i + 1,
                               entry->request.n_items, result->n_tokens, stages->info->max_tokens);
        case -EILSEQ:
            return dead_letter(
                entry, model, DEAD_LETTER(bad_utf8),
                "text %zu of %zu is not UTF-8 (is it Latin-1, or has it half of a surrogate "
                "pair?); repair it, or set bad_utf8 to replace",
                i + 1, entry->request.n_items);
        /* Not the text's fault: the batch fails, and with it the worker. */
        case -ENOMEM:
            return -ENOMEM;
        default:
            return dead_letter(entry, model, DEAD_LETTER(bad_embedding),
                               "the embedding of text %zu of %zu is not a unit vector", i + 1,
                               entry->request.n_items);
        }
    }
    return 0;
}

static void encode(struct job *job, struct pool_thread *thread)
{
    const struct stages *stages = thread->stages;
    struct batch *batch = batch_of(job);
    int err = 0;
    for (size_t i = 0; i < batch->n_entries && !err; i++)
        err = entry_judge(stages, &batch->entries[i]);
    /* Nothing but -ENOMEM: what is wrong with a text has made its message a dead letter. */
    if (!err)
        err = records_build(batch, stages->layout, &stages->encode);
    if (!err) {
        batch->records = arena_alloc(&batch->arena, batch->n_entries * sizeof(struct record *));
        err = batch->records ? 0 : -ENOMEM;
    }
    for (size_t i = 0; i < batch->n_entries && !err; i++)
        batch->records[i] = &batch->entries[i].record;
    batch->encode.status = err;
}
