/*
 * metrics_text.c: the metrics in the text format of Prometheus, version 0.0.4.
 *
 * Owns:    names, help and labels. A name, once released, stays.
 * Threads: the loop thread.
 * Why:     every number is read where it lives (pipeline_stats, metrics), never kept twice.
 */
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "worker/telemetry/metrics.h"
#include "worker/telemetry/metrics_print.h"

static void print_series(FILE *to, const char *name, const char *type, const char *help,
                         const char *label, const struct series_table *table)
{
    metrics_print_head(to, name, type, help);
    for (size_t i = 0; i < table->n; i++) {
        fprintf(to, "%s{%s=\"", name, label);
        metrics_print_label(to, table->rows[i].name);
        fprintf(to, "\"} %" PRId64 "\n", table->rows[i].value);
    }
}

static void print_info(const struct metrics *metrics, FILE *to)
{
    const struct model_info *model = metrics->model;
    metrics_print_head(to, "embedmill_build_info", "gauge", "What runs here; always 1.");
    fprintf(to, "embedmill_build_info{version=\"%s\",model=\"", EMBEDMILL_VERSION);
    metrics_print_label(to, model ? model->name : "");
    fprintf(to, "\",fingerprint=\"%s\",kernels=\"%s\",precision=\"%s\",dim=\"%zu\"} 1\n",
            model ? model->fingerprint : "", model ? model->kernels : "",
            model ? model->precision : "", model ? model->dim : 0);
}

/* A number of each pipeline. */
struct family {
    const char *name, *type, *help;
    size_t at; /* in pipeline_stats */
};

#define COUNTER(name, member, help)                                                                \
    {                                                                                              \
        "embedmill_" name, "counter", help, offsetof(struct pipeline_stats, member)                \
    }
#define GAUGE(name, member, help)                                                                  \
    {                                                                                              \
        "embedmill_" name, "gauge", help, offsetof(struct pipeline_stats, member)                  \
    }

static const struct family families[] = {
    COUNTER("messages_received_total", received, "Messages given by the source."),
    COUNTER("messages_published_total", messages,
            "Messages whose embeddings are confirmed by the sink."),
    COUNTER("texts_embedded_total", texts, "Texts whose embeddings are confirmed."),
    COUNTER("tokens_total", tokens, "Tokens of those texts, after any cut."),
    COUNTER("truncated_total", truncated, "Texts cut to what the model takes."),
    COUNTER("chunks_total", chunks, "Pieces of texts that were cut into chunks."),
    COUNTER("texts_deleted_total", deleted, "Messages that took a text away."),
    COUNTER("unchanged_total", unchanged,
            "Messages that left a text as it was, acknowledged without embedding."),
    COUNTER("duplicates_total", duplicates,
            "Texts whose equal in the same batch was embedded for them."),
    COUNTER("cache_misses_total", cache_misses, "Texts that had to be embedded."),
    COUNTER("redelivered_total", redelivered, "Messages received that had been delivered before."),
    COUNTER("not_ours_total", not_ours,
            "Messages another worker had finished or taken when they were to be written."),
    COUNTER("undeliverable_total", undeliverable,
            "Messages given up because not even their dead letter could be written."),
    GAUGE("inflight_texts", inflight_texts, "Texts decoded and not yet confirmed."),
    GAUGE("waiting_messages", waiting_messages, "Messages received and not yet decoded."),
};

/* The name of a series of pipeline i. more: a label of its own, or "". */
static void print_name(const struct metrics *metrics, size_t i, const char *name, const char *more,
                       FILE *to)
{
    bool is_named = metrics->n_pipelines > 1;
    fprintf(to, "%s%s", name, is_named || *more ? "{" : "");
    if (is_named) {
        fputs("model=\"", to);
        metrics_print_label(to, metrics->names[i]);
        fputs(*more ? "\"," : "\"", to);
    }
    fprintf(to, "%s%s", more, is_named || *more ? "} " : " ");
}

static void print_stats(const struct metrics *metrics, FILE *to)
{
    static const char *const triggers[N_TRIGGERS] = {"trigger=\"full\"", "trigger=\"linger\"",
                                                     "trigger=\"idle\"", "trigger=\"drain\""};
    const char *name = "embedmill_cache_hits_total";
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
        const struct family *family = &families[f];
        metrics_print_head(to, family->name, family->type, family->help);
        for (size_t i = 0; i < metrics->n_pipelines; i++) {
            const char *stats = (const char *)pipeline_stats(metrics->pipelines[i]);
            /* All of pipeline_stats are uint64_t, found by their place. */
            uint64_t value;
            memcpy(&value, stats + family->at, sizeof value);
            print_name(metrics, i, family->name, "", to);
            fprintf(to, "%" PRIu64 "\n", value);
        }
    }
    metrics_print_head(
        to, name, "counter",
        "Texts whose vector was kept from before, by where; copies in a batch count once.");
    for (size_t i = 0; i < metrics->n_pipelines; i++) {
        const struct pipeline_stats *stats = pipeline_stats(metrics->pipelines[i]);
        print_name(metrics, i, name, "place=\"memory\"", to);
        fprintf(to, "%" PRIu64 "\n", stats->memory_hits);
        print_name(metrics, i, name, "place=\"disk\"", to);
        fprintf(to, "%" PRIu64 "\n", stats->disk_hits);
    }
    name = "embedmill_batches_total";
    metrics_print_head(to, name, "counter", "Batches, by what made them go.");
    for (size_t i = 0; i < metrics->n_pipelines * N_TRIGGERS; i++) {
        size_t trigger = i % N_TRIGGERS;
        print_name(metrics, i / N_TRIGGERS, name, triggers[trigger], to);
        fprintf(to, "%" PRIu64 "\n",
                pipeline_stats(metrics->pipelines[i / N_TRIGGERS])->batches[trigger]);
    }
}

/* at: in pipeline_gauges. */
static void print_gauge(const struct metrics *metrics, const char *name, const char *help,
                        size_t at, FILE *to)
{
    metrics_print_head(to, name, "gauge", help);
    for (size_t i = 0; i < metrics->n_pipelines; i++) {
        struct pipeline_gauges gauges = pipeline_gauges(metrics->pipelines[i]);
        size_t value;
        memcpy(&value, (const char *)&gauges + at, sizeof value);
        print_name(metrics, i, name, "", to);
        fprintf(to, "%zu\n", value);
    }
}

static void print_gauges(const struct metrics *metrics, const struct pipeline_gauges *first,
                         FILE *to)
{
    print_gauge(metrics, "embedmill_inflight_bytes", "Bytes of text decoded and not yet confirmed.",
                offsetof(struct pipeline_gauges, inflight_bytes), to);
    print_gauge(metrics, "embedmill_credit_messages",
                "Messages the source may still give; 0: the worker has all it can hold.",
                offsetof(struct pipeline_gauges, credit_messages), to);
    print_gauge(metrics, "embedmill_credit_bytes", "Bytes the source may still give.",
                offsetof(struct pipeline_gauges, credit_bytes), to);
    metrics_print_gauge(to, "embedmill_inference_threads", "Inference threads.",
                        (double)first->n_threads);
}

static void print_errors(const struct metrics *metrics, FILE *to)
{
    metrics_print_head(to, "embedmill_errors_total", "counter",
                       "Messages that failed and links that went away, by stage and code.");
    for (size_t i = 0; i < metrics->dead_letters.n; i++) {
        const struct series *row = &metrics->dead_letters.rows[i];
        fprintf(to, "embedmill_errors_total{stage=\"%s\",code=\"", metrics_stage_of(row->name));
        metrics_print_label(to, row->name);
        fprintf(to, "\"} %" PRId64 "\n", row->value);
    }
    for (size_t i = 0; i < N_SIDES; i++)
        fprintf(to, "embedmill_errors_total{stage=\"%s\",code=\"unavailable\"} %" PRIu64 "\n",
                observer_sides[i], metrics->faults[i]);
    print_series(to, "embedmill_dead_letters_total", "counter",
                 "Messages put aside because they cannot be embedded.", "code",
                 &metrics->dead_letters);
}

static void print_links(const struct metrics *metrics, FILE *to)
{
    metrics_print_head(to, "embedmill_messages_skipped_total", "counter",
                       "Messages of the input that were removed before the group had read them.");
    for (size_t i = 0; i < N_SKIP_REASONS; i++)
        fprintf(to, "embedmill_messages_skipped_total{reason=\"%s\"} %" PRIu64 "\n",
                skip_reasons[i], metrics->skipped[i]);
    metrics_print_head(to, "embedmill_connected", "gauge",
                       "1: this side is connected and serving.");
    for (size_t i = 0; i < N_SIDES; i++)
        fprintf(to, "embedmill_connected{side=\"%s\"} %d\n", observer_sides[i],
                metrics->links[i] == LINK_SEEN_UP);
    metrics_print_gauge(to, "embedmill_ready", "1: /readyz says yes.", !metrics_not_ready(metrics));
    print_series(
        to, "embedmill_source_lag", "gauge",
        "Messages of the input waiting to be given or acknowledged, where the broker reports them.",
        "part", &metrics->lag);
    if (metrics->group_lag >= 0)
        metrics_print_gauge(to, "embedmill_group_lag",
                            "Messages of all parts of the input that the group has not acked.",
                            (double)metrics->group_lag);
    for (size_t i = 0; i < N_COUNTERS; i++) {
        char name[80];
        snprintf(name, sizeof name, "embedmill_%s_total", counters[i].name);
        metrics_print_counter(to, name, counters[i].help, metrics->counts[i]);
    }
}

static void print_histograms(const struct metrics *metrics, FILE *to)
{
    metrics_print_histogram(to, "embedmill_text_tokens", "Tokens a text had, before any cut.",
                            &metrics->text_tokens);
    metrics_print_histogram(to, "embedmill_batch_texts", "Texts a batch.", &metrics->batch_texts);
    metrics_print_histogram(to, "embedmill_batch_tokens", "Tokens a batch.",
                            &metrics->batch_tokens);
    metrics_print_histogram(to, "embedmill_queue_wait_seconds",
                            "For each text, from its batch's first message taken to a thread.",
                            &metrics->queue_wait);
    metrics_print_histogram(
        to, "embedmill_embedding_seconds",
        "Thread time a text: of its slice of a batch, divided by the texts; of the "
        "thread that has the slice, helpers not included.",
        &metrics->embedding);
    metrics_print_histogram(to, "embedmill_inference_seconds",
                            "For each batch, from the first thread on it to its last embedding.",
                            &metrics->inference);
    metrics_print_histogram(to, "embedmill_publish_seconds",
                            "For each message, from given to the sink to confirmed.",
                            &metrics->publish);
    metrics_print_histogram(to, "embedmill_end_to_end_seconds",
                            "For each message, from its own timestamp to confirmed.",
                            &metrics->end_to_end);
}

void metrics_print(const struct metrics *metrics, FILE *to)
{
    struct pipeline_gauges gauges = {0};
    print_info(metrics, to);
    if (metrics->n_pipelines) {
        gauges = pipeline_gauges(metrics->pipelines[0]);
        print_stats(metrics, to);
        print_gauges(metrics, &gauges, to);
    }
    metrics_print_head(
        to, "embedmill_inference_busy_seconds_total", "counter",
        "Time of inference threads in finished slices, their own and those they helped.");
    fprintf(to, "embedmill_inference_busy_seconds_total %.15g\n",
            (double)(metrics->busy_ns + gauges.help_ns) * 1e-9);
    metrics_print_gauge(
        to, "embedmill_inference_busy_ratio",
        "Share of the inference threads that have a slice or help another, mean of the last "
        "ten seconds.",
        metrics->busy_ratio);
    metrics_print_counter(to, "embedmill_series_dropped_total",
                          "Values not reported, because their table of series is full.",
                          metrics->lag.n_dropped + metrics->dead_letters.n_dropped);
    print_errors(metrics, to);
    print_links(metrics, to);
    print_histograms(metrics, to);
    if (metrics->serve)
        metrics_serve_print(&metrics->served, metrics->serve, to);
    metrics_print_process(to, metrics->process_start);
}
