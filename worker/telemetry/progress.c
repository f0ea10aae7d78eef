/*
 * progress.c: see progress.h.
 *
 * Why:     rates are of the last ten seconds, so that a stall is seen as one; the time left goes by
 *          them too. What counts is what has been embedded: a message of thousands of texts is
 *          published as a whole, minutes later.
 */
#include "worker/telemetry/progress.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/telemetry/log.h"

bool progress_input_count(struct progress_input *input, enum counter what, uint64_t n)
{
    if (what == COUNTER_INPUT_SIZE)
        input->total += n;
    else if (what == COUNTER_INPUT_DONE)
        input->done += n;
    else
        return false;
    return true;
}

#define TICK_MS   1000
#define N_SAMPLES 11 /* ten seconds between the newest and the oldest */

struct sample {
    uint64_t ms, texts, tokens, input;
};

struct progress {
    uv_timer_t timer;
    const struct pipeline_stats *stats;
    struct progress_options options;
    struct sample samples[N_SAMPLES]; /* newest at n_samples - 1 modulo N_SAMPLES */
    uint64_t n_samples;
    uint64_t opened_ms, logged_ms, logged_texts, logged_dead;
};

/* 1234567 is "1,234,567". */
static const char *with_commas(uint64_t value, char out[32])
{
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%" PRIu64, value);
    char *to = out;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            *to++ = ',';
        *to++ = digits[i];
    }
    *to = '\0';
    return out;
}

static void print_duration(double seconds, char *out, size_t size)
{
    uint64_t s = (uint64_t)(seconds + 0.5);
    if (s < 60)
        snprintf(out, size, "%" PRIu64 "s", s);
    else if (s < 3600)
        snprintf(out, size, "%" PRIu64 "m%02" PRIu64 "s", s / 60, s % 60);
    else
        snprintf(out, size, "%" PRIu64 "h%02" PRIu64 "m", s / 3600, s % 3600 / 60);
}

void progress_line(char *out, size_t size, const struct pipeline_stats *stats, uint64_t total,
                   double texts_rate, double tokens_rate)
{
    uint64_t done = stats->embedded_texts;
    uint64_t hits = stats->memory_hits + stats->disk_hits;
    char a[32], b[32], share[64] = "", left[48] = "", dead[64] = "", cached[32] = "";
    if (total > 0)
        snprintf(share, sizeof share, "/%s", with_commas(total, b));
    if (total > 0 && done <= total)
        snprintf(share + strlen(share), sizeof share - strlen(share), " (%d %%)",
                 (int)((double)done * 100.0 / (double)total));
    if (total > done && texts_rate > 0) {
        char time[32];
        print_duration((double)(total - done) / texts_rate, time, sizeof time);
        snprintf(left, sizeof left, "  ETA %s", time);
    }
    if (stats->dead_letters > 0)
        snprintf(dead, sizeof dead, "  %" PRIu64 " dead letter%s", stats->dead_letters,
                 stats->dead_letters == 1 ? "" : "s");
    if (hits > 0)
        snprintf(cached, sizeof cached, "  %d %% cached",
                 (int)((double)hits * 100.0 / (double)(hits + stats->cache_misses)));
    snprintf(out, size, "%s%s texts  %.1f texts/s  %.0f tokens/s  %" PRIu64 " in flight%s%s%s",
             with_commas(done, a), share, texts_rate, tokens_rate, stats->inflight_texts, cached,
             dead, left);
}

void progress_bar(char *out, size_t size, const struct progress_input *input, double rate)
{
    char bar[21], left[48] = "";
    out[0] = '\0';
    if (input->total == 0)
        return;
    double share = (double)input->done / (double)input->total;
    share = share < 1 ? share : 1;
    for (size_t i = 0; i < 20; i++)
        bar[i] = i < (size_t)(share * 20) ? '#' : '.';
    bar[20] = '\0';
    if (rate > 0 && input->done < input->total) {
        char time[32];
        print_duration((double)(input->total - input->done) / rate, time, sizeof time);
        snprintf(left, sizeof left, "  ETA %s", time);
    }
    snprintf(out, size, "[%s] %d %%%s  ", bar, (int)(share * 100), left);
}

void progress_print_lag(char *out, size_t size, const char *before, struct lag lag)
{
    char own[32], group[32];
    out[0] = '\0';
    if (lag.own >= 0)
        with_commas((uint64_t)lag.own, own);
    if (lag.group >= 0)
        with_commas((uint64_t)lag.group, group);
    if (lag.own >= 0 && lag.group >= 0)
        snprintf(out, size, "%slag %s, group %s", before, own, group);
    else if (lag.own >= 0)
        snprintf(out, size, "%slag %s", before, own);
    else if (lag.group >= 0)
        snprintf(out, size, "%sgroup lag %s", before, group);
}

static uint64_t input_done(const struct progress *progress)
{
    return progress->options.input ? progress->options.input->done : 0;
}

static double input_rate(const struct progress *progress)
{
    uint64_t n = progress->n_samples;
    const struct sample *newest = &progress->samples[(n - 1) % N_SAMPLES];
    /* Until the ring is full its oldest is the first. */
    const struct sample *oldest = &progress->samples[n > N_SAMPLES ? n % N_SAMPLES : 0];
    double seconds = (double)(newest->ms - oldest->ms) / 1000.0;
    return seconds > 0 ? (double)(newest->input - oldest->input) / seconds : 0;
}

static const struct pipeline_stats *stats_of(const struct progress *progress)
{
    if (progress->options.count)
        progress->options.count(progress->options.ctx);
    return progress->stats;
}

static void add_sample(struct progress *progress, uint64_t now)
{
    const struct pipeline_stats *stats = stats_of(progress);
    struct sample *sample = &progress->samples[progress->n_samples++ % N_SAMPLES];
    *sample =
        (struct sample){now, stats->embedded_texts, stats->embedded_tokens, input_done(progress)};
}

static void rates(const struct progress *progress, double *texts, double *tokens)
{
    uint64_t n = progress->n_samples;
    const struct sample *newest = &progress->samples[(n - 1) % N_SAMPLES];
    const struct sample *oldest = &progress->samples[n > N_SAMPLES ? n % N_SAMPLES : 0];
    double seconds = (double)(newest->ms - oldest->ms) / 1000.0;
    *texts = seconds > 0 ? (double)(newest->texts - oldest->texts) / seconds : 0;
    *tokens = seconds > 0 ? (double)(newest->tokens - oldest->tokens) / seconds : 0;
}

/* A field that is left out when it is not known. */
static struct log_field known(const char *key, int64_t value)
{
    return value < 0 ? LOG_TEXT(key, NULL) : LOG_INTEGER(key, value);
}

static void log_counters(const struct progress *progress, const char *msg, double texts,
                         double tokens)
{
    const struct pipeline_stats *stats = progress->stats;
    const struct metrics *metrics = progress->options.metrics;
    const struct lag lag = metrics ? metrics_lag(metrics) : (struct lag){-1, -1};
    uint64_t n_batches = 0;
    for (size_t i = 0; i < N_TRIGGERS; i++)
        n_batches += stats->batches[i];
    log_event(
        LOG_INFO, msg, LOG_INTEGER("texts", stats->texts),
        LOG_INTEGER("embedded", stats->embedded_texts), LOG_INTEGER("messages", stats->messages),
        LOG_INTEGER("tokens", stats->tokens), LOG_REAL("texts_per_second", texts),
        LOG_REAL("tokens_per_second", tokens), LOG_INTEGER("inflight", stats->inflight_texts),
        LOG_INTEGER("waiting", stats->waiting_messages), known("lag", lag.own),
        known("group_lag", lag.group), LOG_INTEGER("truncated", stats->truncated),
        LOG_INTEGER("chunks", stats->chunks), LOG_INTEGER("deleted", stats->deleted),
        LOG_INTEGER("unchanged", stats->unchanged), LOG_INTEGER("duplicates", stats->duplicates),
        LOG_INTEGER("cached", stats->memory_hits + stats->disk_hits),
        LOG_INTEGER("redelivered", stats->redelivered), LOG_INTEGER("not_ours", stats->not_ours),
        LOG_INTEGER("dead_letters", stats->dead_letters),
        LOG_INTEGER("undeliverable", stats->undeliverable), LOG_INTEGER("batches", n_batches));
}

static void on_tick(uv_timer_t *timer)
{
    struct progress *progress = timer->data;
    const struct pipeline_stats *stats = progress->stats;
    uint64_t now = uv_now(timer->loop);
    double texts, tokens;
    add_sample(progress, now);
    rates(progress, &texts, &tokens);
    /* Here, because the log has no timer: warnings that were held back come out once a second at
     * best. */
    log_tick();
    if (progress->options.status_line) {
        char line[500];
        size_t n = 0;
        if (progress->options.input)
            progress_bar(line, sizeof line, progress->options.input, input_rate(progress));
        n = progress->options.input ? strlen(line) : 0;
        progress_line(line + n, sizeof line - n, stats, progress->options.total_texts, texts,
                      tokens);
        n = strlen(line);
        if (progress->options.metrics)
            progress_print_lag(line + n, sizeof line - n, "  ",
                               metrics_lag(progress->options.metrics));
        log_status(line);
    }
    /* An idle worker writes no lines; one whose batch takes minutes does. */
    bool changed = stats->embedded_texts != progress->logged_texts ||
                   stats->dead_letters != progress->logged_dead || stats->inflight_texts > 0;
    if (progress->options.log_lines && changed &&
        now - progress->logged_ms >= progress->options.interval_ms) {
        log_counters(progress, "progress", texts, tokens);
        progress->logged_ms = now;
        progress->logged_texts = stats->embedded_texts;
        progress->logged_dead = stats->dead_letters;
    }
}

int progress_open(struct progress **out, uv_loop_t *loop, const struct pipeline_stats *stats,
                  const struct progress_options *options)
{
    struct progress *progress = calloc(1, sizeof *progress);
    if (!progress)
        return -ENOMEM;
    progress->stats = stats;
    progress->options = *options;
    uv_timer_init(loop, &progress->timer);
    progress->timer.data = progress;
    progress->opened_ms = progress->logged_ms = uv_now(loop);
    add_sample(progress, progress->opened_ms);
    uv_timer_start(&progress->timer, on_tick, TICK_MS, TICK_MS);
    /* A worker with nothing left to do ends; it does not stay to draw a line a second. */
    uv_unref((uv_handle_t *)&progress->timer);
    *out = progress;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void progress_close(struct progress *progress)
{
    if (!progress)
        return;
    log_status(NULL);
    uv_close((uv_handle_t *)&progress->timer, on_closed);
}

void progress_log(const struct progress *progress, const char *msg)
{
    uint64_t now = uv_now(progress->timer.loop);
    double seconds = (double)(now - progress->opened_ms) / 1000.0;
    const struct pipeline_stats *stats = stats_of(progress);
    log_counters(progress, msg, seconds > 0 ? (double)stats->texts / seconds : 0,
                 seconds > 0 ? (double)stats->tokens / seconds : 0);
}
