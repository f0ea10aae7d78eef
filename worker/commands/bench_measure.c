/*
 * bench_measure.c: the measurements of `embedmill bench`. See bench.h.
 *
 * Each figure is the median over passes, or of all calls: a machine that is disturbed now and then
 * does not move it.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#include "worker/commands/bench.h"
#include "worker/commands/bench_rig.h"

enum {
    OPENS = 5,
    PASSES_MAX = 64,
    CALLS_MIN = 20,
    CALLS_MAX = 5000,
    SHORT_TOKENS = 16,
    CALL_TOKENS = 1024, /* in a call, when lengths of text are compared */
};

struct bench {
    struct bench_report *report;
    const struct bench_options *options;
    const struct bench_texts *texts;
    const struct model *model;
};

static double seconds(void)
{
    return (double)uv_hrtime() * 1e-9;
}

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The smallest value that at least this share of the values does not exceed; sorts them. */
static double percentile(double *values, size_t n, double share)
{
    qsort(values, n, sizeof *values, compare);
    size_t rank = (size_t)ceil(share * (double)n);
    return values[rank ? rank - 1 : 0];
}

static const struct prompt *prompt_of(const struct model *model,
                                      const struct bench_options *options)
{
    return prompt_find(model_info(model), bytes_of(options->prompt));
}

/* The rig takes prompts and threads as the worker does. */
static int open_once(const struct bench_options *options, struct model **model,
                     const struct text *text, double *took, char *err, size_t err_size)
{
    struct bench_rig *rig = NULL;
    double began = seconds();
    int rc = model_open(model, options->model, options->kernels, options->precision, err, err_size);
    if (rc == 0 && model_info(*model)->is_reranker) {
        snprintf(err, err_size,
                 "%s: this model is a reranker, and only models of vectors are "
                 "measured",
                 options->model);
        model_close(*model);
        *model = NULL;
        rc = -EINVAL;
    }
    if (rc != 0)
        return rc;
    rc = bench_rig_open(&rig, *model, options->n_threads, prompt_of(*model, options));
    if (rc == 0)
        rc = bench_rig_embed(rig, text, 1);
    *took = seconds() - began;
    bench_rig_close(rig);
    if (rc != 0) {
        snprintf(err, err_size, "the first text cannot be embedded: %s", uv_strerror(rc));
        model_close(*model);
        *model = NULL;
    }
    return rc;
}

/* The model of the last time stays open. */
static int measure_open(struct bench_report *report, struct model **model,
                        const struct bench_options *options, const struct text *text, char *err,
                        size_t err_size)
{
    double took[OPENS];
    for (size_t i = 0; i < OPENS; i++) {
        /* The first time pages of the file may come from the disk; later they are in memory. */
        model_close(*model);
        *model = NULL;
        int rc = open_once(options, model, text, &took[i], err, err_size);
        if (rc != 0)
            return rc;
    }
    report->open_first_ms = took[0] * 1e3;
    report->open_median_ms = percentile(took, OPENS, 0.5) * 1e3;
    return 0;
}

struct passes {
    size_t n;
    double median;      /* seconds of one */
    double cpu_seconds; /* of one, the mean */
    uint64_t n_tokens;
    uint32_t shortest, longest; /* text, in tokens as the model sees them */
};

static void count_tokens(const struct bench *b, const struct embed_result *results, size_t n,
                         struct passes *out)
{
    size_t max = model_info(b->model)->max_tokens;
    out->n_tokens = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t n_tokens = results[i].n_tokens < max ? results[i].n_tokens : (uint32_t)max;
        out->n_tokens += n_tokens;
        out->shortest = i == 0 || n_tokens < out->shortest ? n_tokens : out->shortest;
        out->longest = i == 0 || n_tokens > out->longest ? n_tokens : out->longest;
    }
}

/* Embed all texts again and again. */
static int run_passes(const struct bench *b, const struct bench_texts *texts, size_t n_threads,
                      double at_least, struct passes *out)
{
    struct bench_rig *rig;
    double took[PASSES_MAX];
    size_t n_warm = texts->n < n_threads ? texts->n : n_threads;
    memset(out, 0, sizeof *out);
    int rc = bench_rig_open(&rig, b->model, n_threads, prompt_of(b->model, b->options));
    if (rc != 0)
        return rc;
    /* A text for each thread: caches, pages of the model and scratch memory are warm before the
     * clock starts. */
    rc = bench_rig_embed(rig, texts->texts, n_warm);
    double cpu_began = cpu_seconds();
    for (double began = seconds(); rc == 0 && out->n < PASSES_MAX;) {
        double start = seconds();
        rc = bench_rig_embed(rig, texts->texts, texts->n);
        took[out->n++] = seconds() - start;
        if (seconds() - began >= at_least)
            break;
    }
    if (rc == 0) {
        out->cpu_seconds = (cpu_seconds() - cpu_began) / (double)out->n;
        out->median = percentile(took, out->n, 0.5);
        count_tokens(b, bench_rig_results(rig), texts->n, out);
    }
    bench_rig_close(rig);
    return rc;
}

struct peak_thread {
    uv_thread_t id;
    const struct model *model;
    double at_least, macs_per_s;
};

static void peak_run(void *arg)
{
    struct peak_thread *thread = arg;
    thread->macs_per_s = model_peak(thread->model, thread->at_least);
}

/* All at once: clocks fall when all cores work, and hardware threads share a core. */
static double measure_peak(const struct bench *b, size_t n_threads)
{
    struct peak_thread *threads = calloc(n_threads, sizeof *threads);
    double sum = 0;
    size_t n = 0;
    while (threads && n < n_threads) {
        threads[n].model = b->model;
        threads[n].at_least = b->options->seconds / 10;
        if (uv_thread_create(&threads[n].id, peak_run, &threads[n]) != 0)
            break;
        n++;
    }
    for (size_t i = 0; i < n; i++) {
        uv_thread_join(&threads[i].id);
        sum += threads[i].macs_per_s;
    }
    free(threads);
    return n == n_threads ? sum : 0;
}

static int measure_speed(const struct bench *b, struct bench_speed *speed)
{
    struct passes passes;
    int rc = run_passes(b, b->texts, speed->n_threads, b->options->seconds, &passes);
    if (rc != 0)
        return rc;
    b->report->n_tokens = passes.n_tokens;
    b->report->shortest = passes.shortest;
    b->report->longest = passes.longest;
    speed->n_passes = passes.n;
    speed->texts_per_s = (double)b->texts->n / passes.median;
    speed->tokens_per_s = (double)passes.n_tokens / passes.median;
    speed->cpu_us_per_token = passes.cpu_seconds * 1e6 / (double)passes.n_tokens;
    /* The profile is of one pass over the same texts, so its multiplications are those of a pass
     * here. */
    speed->macs_per_s = (double)b->report->profile.product_macs / passes.median;
    speed->peak_macs_per_s = measure_peak(b, speed->n_threads);
    return 0;
}

static int measure_latency(const struct bench *b, const struct text *text,
                           struct bench_latency *latency)
{
    struct bench_rig *rig;
    double *took = malloc(CALLS_MAX * sizeof *took);
    size_t n = 0;
    if (!took)
        return -ENOMEM;
    int rc = bench_rig_open(&rig, b->model, latency->n_threads, prompt_of(b->model, b->options));
    if (rc == 0) {
        /* Not counted: it warms caches and scratch memory. */
        rc = bench_rig_embed(rig, text, 1);
        double end = seconds() + b->options->seconds;
        while (rc == 0 && n < CALLS_MAX && (n < CALLS_MIN || seconds() < end)) {
            double start = seconds();
            rc = bench_rig_embed(rig, text, 1);
            took[n++] = seconds() - start;
        }
        if (rc == 0)
            b->report->one_tokens = bench_rig_results(rig)[0].n_tokens;
        bench_rig_close(rig);
    }
    latency->n_calls = n;
    latency->p50_ms = rc ? 0 : percentile(took, n, 0.5) * 1e3;
    latency->p90_ms = rc ? 0 : percentile(took, n, 0.9) * 1e3;
    latency->p99_ms = rc ? 0 : percentile(took, n, 0.99) * 1e3;
    free(took);
    return rc;
}

static int measure_length(const struct bench *b, size_t n_tokens, size_t n_threads)
{
    struct bench_report *report = b->report;
    struct bench_texts texts;
    struct passes passes;
    /* As many tokens in each call, whatever the length: only the length differs. */
    size_t n = CALL_TOKENS * n_threads / n_tokens;
    /* At least a text for each thread, so that none is idle. */
    int rc = bench_texts_make(&texts, n > n_threads ? n : n_threads, n_tokens);
    if (rc != 0)
        return rc;
    rc = run_passes(b, &texts, n_threads, b->options->seconds / 4, &passes);
    if (rc == 0)
        report->lengths[report->n_lengths++] = (struct bench_length){
            .n_tokens = (double)passes.n_tokens / (double)texts.n,
            .n_threads = n_threads,
            .tokens_per_s = (double)passes.n_tokens / passes.median,
            .cpu_us_per_token = passes.cpu_seconds * 1e6 / (double)passes.n_tokens,
        };
    bench_texts_close(&texts);
    return rc;
}

static int measure_lengths(const struct bench *b)
{
    size_t counts[2] = {1, b->options->n_threads};
    for (size_t c = 0; c < (counts[1] > 1 ? 2 : 1); c++)
        for (size_t i = 0; i < BENCH_LENGTHS; i++) {
            size_t n_tokens = (size_t)SHORT_TOKENS << i;
            int rc = n_tokens > model_info(b->model)->max_tokens
                         ? 0
                         : measure_length(b, n_tokens, counts[c]);
            if (rc != 0)
                return rc;
        }
    return 0;
}

/* 1, 2, 4, ... and all. */
static void list_counts(struct bench_report *report, size_t n_threads)
{
    report->n_counts = 0;
    for (size_t n = 1; report->n_counts < BENCH_COUNTS; n *= 2) {
        size_t count = n < n_threads ? n : n_threads;
        report->speeds[report->n_counts].n_threads = count;
        report->latencies[report->n_counts++].n_threads = count;
        if (count == n_threads)
            break;
    }
}

/* With prompts, as they are embedded elsewhere; model_profile knows none. */
static int measure_stages(const struct bench *b)
{
    const struct prompt *prompt = prompt_of(b->model, b->options);
    struct bench_texts prompted = {0};
    int rc = 0;
    for (size_t i = 0; i < b->texts->n && rc == 0; i++) {
        struct bytes text = {b->texts->texts[i].ptr, b->texts->texts[i].len}, title = {0};
        size_t len = prompt_render(prompt, title, text, NULL, 0);
        char *to = malloc(len + 1);
        if (!to) {
            rc = -ENOMEM;
            break;
        }
        prompt_render(prompt, title, text, to, len);
        prompted.texts[prompted.n++] = (struct text){to, len};
    }
    if (rc == 0)
        rc = model_profile(b->model, prompted.texts, prompted.n, &b->report->profile);
    bench_texts_close(&prompted);
    return rc;
}

static int measure_all(const struct bench *b, const struct text *one, bench_progress *progress)
{
    struct bench_report *report = b->report;
    report->peak_macs_per_s = measure_peak(b, 1);
    progress("stages");
    int rc = measure_stages(b);
    for (size_t i = 0; rc == 0 && i < report->n_counts; i++) {
        progress("threads");
        rc = measure_speed(b, &report->speeds[i]);
        if (rc == 0)
            rc = measure_latency(b, one, &report->latencies[i]);
    }
    progress("lengths of text");
    return rc == 0 ? measure_lengths(b) : rc;
}

int bench_measure(struct bench_report *report, struct model **model,
                  const struct bench_options *options, const struct bench_texts *texts,
                  bench_progress *progress, char *err, size_t err_size)
{
    struct bench_texts one;
    struct bench b = {report, options, texts, NULL};
    int rc = bench_texts_make(&one, 1, SHORT_TOKENS);
    if (rc != 0)
        return snprintf(err, err_size, "out of memory"), rc;
    *model = NULL;
    list_counts(report, options->n_threads);
    progress("open");
    rc = measure_open(report, model, options, one.texts, err, err_size);
    if (rc == 0) {
        b.model = *model;
        report->info = model_info(*model);
        report->prompt = prompt_of(*model, options)->name;
        report->n_texts = texts->n;
        rc = measure_all(&b, one.texts, progress);
        if (rc != 0)
            snprintf(err, err_size, "a text cannot be embedded: %s", uv_strerror(rc));
    }
    bench_texts_close(&one);
    return rc;
}
