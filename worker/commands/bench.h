/*
 * bench.h: what `embedmill bench` measures, and the parts it is made of.
 *
 * Owns:    the shape of a report; command_bench.c fills one and prints it.
 * Refuses: brokers: what is measured is the worker's inference, from texts to vectors.
 * Threads: the main thread; what it starts it also waits for.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inference/embed.h"
#include "worker/codec/prompt.h"

enum {
    BENCH_TEXTS = 128,      /* at most so many are embedded: a batch as the worker makes it */
    BENCH_TEXTS_MAX = 4096, /* ... but when short ones are to fill many threads */
    BENCH_COUNTS = 16,      /* numbers of threads: 1, 2, 4, ... and the last */
    BENCH_LENGTHS = 8,      /* lengths of text: 16, 32, ... 2048 tokens */
};

/* Texts to measure with. ptrs are owned. */
struct bench_texts {
    struct text texts[BENCH_TEXTS_MAX];
    size_t n;
};

/* Words of a fixed list in a fixed random order; about as long as n_tokens says. */
int bench_texts_make(struct bench_texts *out, size_t n, size_t n_tokens);
/* The same, of mixed lengths: most short, a few long, as titles and paragraphs are. */
int bench_texts_make_mixed(struct bench_texts *out);
/* The first lines of a file that are not empty; "-": of standard input. 0, or negative errno. */
int bench_texts_read(struct bench_texts *out, const char *path);
void bench_texts_close(struct bench_texts *texts);

/* Medians over passes. CPU time is that of all threads together: it says more than the clock on a
 * machine that has other things to do. */
struct bench_speed {
    size_t n_threads;
    size_t n_passes;
    double tokens_per_s, texts_per_s;
    double cpu_us_per_token;
    double macs_per_s;      /* of the products */
    double peak_macs_per_s; /* of so many threads at once; 0: not known */
};

struct bench_latency {
    size_t n_threads, n_calls;
    double p50_ms, p90_ms, p99_ms;
};

struct bench_length {
    double n_tokens; /* of a text, the mean */
    size_t n_threads;
    double tokens_per_s, cpu_us_per_token;
};

struct bench_report {
    const struct model_info *info;
    const char *corpus; /* what was embedded, for people */
    const char *prompt;
    size_t n_cpus, n_texts;
    uint64_t n_tokens; /* of all texts, with prompts */
    uint32_t shortest, longest, one_tokens;
    double open_first_ms, open_median_ms; /* from before model_open to the first vector */
    double peak_macs_per_s;               /* of one thread */
    struct profile profile;
    struct bench_speed speeds[BENCH_COUNTS];
    struct bench_latency latencies[BENCH_COUNTS];
    size_t n_counts;
    struct bench_length lengths[2 * BENCH_LENGTHS];
    size_t n_lengths;
};

struct bench_options {
    const char *model, *kernels; /* kernels NULL: the best */
    enum precision precision;
    const char *prompt; /* its name, which is known */
    size_t n_threads;
    double seconds; /* for each figure, about */
};

/* Called before each part, with what it is. */
typedef void bench_progress(const char *part);

/*
 * Open the model (it stays open for report->info, and is the caller's), measure everything.
 * 0; or negative errno, and err says what could not be done.
 */
int bench_measure(struct bench_report *report, struct model **model,
                  const struct bench_options *options, const struct bench_texts *texts,
                  bench_progress *progress, char *err, size_t err_size);

void bench_print(const struct bench_report *report);
void bench_print_json(const struct bench_report *report);

#endif
