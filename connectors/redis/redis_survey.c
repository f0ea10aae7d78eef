/*
 * redis_survey.c: how much of each stream still waits for the group, and what the group has lost.
 *
 * Owns:    asking for it: when the groups are there, before a read, and every few seconds for the
 *          lag; the reports that come of the answers.
 * Refuses: making a failure of it: without an answer the lag is unknown, the work goes on. What was
 *          deleted while it was pending: redis_claim.c.
 * Threads: the loop thread.
 * Why:     entries that are trimmed before the group has read them are gone without a word: reading
 *          goes on behind them. So it is looked just before a read: is there a gap between the
 *          group and the first entry? Redis 7.0 then reports a lag of what is gone for good, and
 *          no lag at all when the newest entry was deleted; so the lag is made of what is there.
 *          Redis before 7 does not count what was added, and tells neither.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "connectors/redis/redis_fault.h"
#include "connectors/redis/redis_script.h"
#include "connectors/redis/redis_source.h"

#define LAG_EVERY_MS 5000
#define LOOK_MS      100 /* before reads, at most so often: what is trimmed sooner may be missed */

/* The answer of redis_script_survey, in its order. */
struct survey {
    int64_t added, length;        /* entries ever added, and there now; added -1: not known */
    const char *first;            /* entry; "": the stream is empty */
    const char *generated, *read; /* the last id given out, and the last one given to the group */
    int64_t waiting, pending;     /* waiting -1: not known */
    int64_t lost, is_at_most, is_noted;
    const char *deleted; /* "", or the last id that was deleted, when entries around it still are */
};

static bool read_number(const redisReply *reply, size_t i, int64_t *out)
{
    const redisReply *item = redis_reply_at(reply, i);
    if (!item || item->type != REDIS_REPLY_INTEGER)
        return false;
    *out = item->integer;
    return true;
}

static bool read_text(const redisReply *reply, size_t i, const char **out)
{
    const redisReply *item = redis_reply_at(reply, i);
    if (!redis_reply_is_text(item))
        return false;
    *out = item->str;
    return true;
}

static bool survey_read(struct survey *out, const redisReply *reply)
{
    return read_number(reply, 0, &out->added) && read_number(reply, 1, &out->length) &&
           read_text(reply, 2, &out->first) && read_text(reply, 3, &out->generated) &&
           read_text(reply, 4, &out->read) && read_number(reply, 5, &out->waiting) &&
           read_number(reply, 6, &out->pending) && read_number(reply, 7, &out->lost) &&
           read_number(reply, 8, &out->is_at_most) && read_number(reply, 9, &out->is_noted) &&
           read_text(reply, 10, &out->deleted);
}

static struct redis_watch *watch_of(struct redis_source *source, const struct redis_stream *stream)
{
    return &source->watches[stream - source->config.streams.items];
}

/* ---- reports */

static void report_lost(struct redis_source *source, const struct redis_stream *stream,
                        const struct survey *survey)
{
    struct redis_watch *watch = watch_of(source, stream);
    int64_t n = survey->lost;
    /* Where the server could not be made to note it, we do, or it were reported each time. */
    if (!survey->is_noted && survey->added - watch->unnoted < n)
        n = survey->added - watch->unnoted;
    if (!survey->is_noted)
        watch->unnoted = survey->added;
    bool is_inside = survey->deleted[0];
    const struct skipped skipped = {
        .reason = is_inside ? SKIPPED_DELETED : SKIPPED_TRIMMED,
        .part = stream->name,
        .from = survey->read,
        .to = is_inside          ? survey->deleted
              : survey->first[0] ? survey->first
                                 : survey->generated,
        .n = n,
        .is_at_most = survey->is_at_most,
        .why = is_inside
                   ? "entries behind the first of these ids and up to the second were deleted "
                     "(XDEL) before the group had read them"
                   : "entries behind the first of these ids were trimmed or deleted before the "
                     "group had read them: raise MAXLEN where entries are added, or start "
                     "more workers",
    };
    if (n > 0)
        source_skipped(&source->base, &skipped);
}

/* The group was made anew, or the stream is another one than at the last look. */
static void report_anew(struct redis_source *source, const struct redis_stream *stream,
                        bool is_stream)
{
    const struct redis_watch *watch = watch_of(source, stream);
    const struct skipped skipped = {
        .reason = is_stream ? SKIPPED_STREAM_DELETED : SKIPPED_GROUP_DELETED,
        .part = stream->name,
        .from = watch->read,
        .to = "0-0",
        .n = is_stream ? watch->waiting : 0,
        .why = is_stream
                   ? "the stream was deleted, or the server has lost its newest entries: what was "
                     "unread of it, as of the last look, is gone, and reading starts over"
                   : "the group was deleted: it is made again at the beginning of the stream, and "
                     "what is there comes once more",
    };
    source_skipped(&source->base, &skipped);
}

/* Entries are counted on for as long as a stream exists, and its ids only grow. */
static bool is_another(const struct redis_watch *watch, const struct survey *survey)
{
    struct redis_id generated, was, first;
    /* -1 (Redis before 7) or nothing ever added: there is nothing to compare. */
    if (!watch->is_known || survey->added < 0 || !watch->added)
        return false;
    if (!redis_id_parse(&generated, survey->generated, strlen(survey->generated)) ||
        !redis_id_parse(&was, watch->generated, strlen(watch->generated)))
        return false;
    bool is_whole = survey->added == survey->length && survey->first[0] &&
                    redis_id_parse(&first, survey->first, strlen(survey->first)) &&
                    redis_id_compare(first, was) > 0; /* nothing was ever deleted of it */
    return survey->added < watch->added || redis_id_compare(generated, was) < 0 || is_whole;
}

static void take(struct redis_source *source, const struct redis_stream *stream,
                 const struct survey *survey)
{
    struct redis_watch *watch = watch_of(source, stream);
    bool is_stream = is_another(watch, survey);
    /* Of several workers the one that has made the group reports. */
    if (watch->is_remade || (is_stream && !watch->was_missed))
        report_anew(source, stream, is_stream);
    if (survey->lost > 0 && !watch->is_fresh)
        report_lost(source, stream, survey);
    watch->is_known = true;
    watch->is_fresh = watch->is_remade = watch->was_missed = false;
    watch->added = survey->added;
    watch->waiting = survey->waiting;
    snprintf(watch->generated, sizeof watch->generated, "%s", survey->generated);
    snprintf(watch->read, sizeof watch->read, "%s", survey->read);
}

void redis_survey_on_group(struct redis_source *source, const struct redis_stream *stream,
                           bool is_made)
{
    struct redis_watch *watch = watch_of(source, stream);
    /* What was gone before the group was there is not lost. */
    watch->is_fresh |= is_made && !watch->is_known;
    watch->is_remade |= is_made && watch->is_known;
}

/* ---- asking */

/* A user that may not ask is not asked about again. */
static void denied(struct redis_source *source, const struct redis_stream *stream, const char *text)
{
    char why[400];
    snprintf(why, sizeof why,
             "stream %.60s: %.200s: without XINFO STREAM and XINFO GROUPS neither the lag nor lost "
             "entries are known; allow this user both",
             stream->name, text);
    if (source->base.events->on_notice && !source->surveys_denied)
        source->base.events->on_notice(source->base.ctx, NOTICE_WARN, "XINFO", why);
    source->surveys_denied = true;
}

static void on_survey(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_source *source = ctx;
    const struct source_events *events = source->base.events;
    const struct redis_stream *stream = arg;
    struct survey survey = {.waiting = -1};

    source->n_surveys--;
    if (source->end.closing || source->end.failed)
        return;
    if (reply && reply->type == REDIS_REPLY_ERROR &&
        redis_fault_find(reply->str).remedy == REMEDY_FATAL)
        denied(source, stream, reply->str);
    bool is_read = reply && survey_read(&survey, reply);
    if (is_read)
        take(source, stream, &survey);
    if (events->on_lag)
        events->on_lag(source->base.ctx, stream->name,
                       is_read && survey.waiting >= 0 ? survey.waiting + survey.pending : -1);
    /* pump_in waits for the last answer. */
    if (!source->n_surveys)
        endpoint_pump(&source->end);
}

static void ask(struct redis_source *source, struct redis_link *link, struct redis_stream *stream)
{
    struct redis_args *args = &source->args;

    redis_args_reset(args);
    redis_args_text(args, "EVAL");
    redis_args_text(args, redis_script_survey);
    redis_args_text(args, "1");
    redis_args_text(args, stream->name);
    redis_args_text(args, source->config.group);
    source->n_surveys += redis_consumer_send(source, link, 0, on_survey, stream);
}

static bool is_wanted(const struct redis_source *source)
{
    const struct source_events *events = source->base.events;
    return (events->on_lag || events->on_skipped) && !source->surveys_denied;
}

void redis_survey_all(struct redis_source *source)
{
    if (!is_wanted(source) || source->n_surveys)
        return;
    for (size_t i = 0; i < source->config.streams.n; i++)
        ask(source, source->admin, &source->config.streams.items[i]);
}

void redis_survey_before_read(struct redis_source *source, size_t first, size_t n)
{
    const struct redis_streams *streams = &source->config.streams;
    uint64_t now = uv_now(source->end.loop);

    if (!is_wanted(source) || now - source->surveyed_ms < LOOK_MS)
        return;
    source->surveyed_ms = now;
    for (size_t i = 0; i < n; i++)
        ask(source, source->reader, &streams->items[(first + i) % streams->n]);
}

/* What was told last is no longer true. */
static void report_unknown(const struct redis_source *source)
{
    const struct redis_streams *streams = &source->config.streams;

    for (size_t i = 0; i < streams->n; i++)
        source->base.events->on_lag(source->base.ctx, streams->items[i].name, -1);
}

static void on_due(uv_timer_t *timer)
{
    struct redis_source *source = timer->data;

    if (source->end.closing || source->end.failed)
        return;
    if (redis_link_ready(source->admin) && source->groups_are_there)
        redis_survey_all(source);
    else if (!redis_link_ready(source->admin) && source->base.events->on_lag)
        report_unknown(source);
}

void redis_survey_start(struct redis_source *source)
{
    if (is_wanted(source))
        uv_timer_start(&source->lag_timer, on_due, 1000, LAG_EVERY_MS);
}
