/*
 * metrics_text.c: the metrics in the text format of Prometheus, version 0.0.4.
 *
 * Owns:    names, help and labels. A name, once released, stays.
 * Threads: the loop thread.
 * Why:     every number is read where it lives (pipeline_stats, metrics), never kept twice.
 */
#include <inttypes.h>
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

static void print_stats(const struct pipeline_stats *stats, FILE *to)
{
    static const char *const triggers[N_TRIGGERS] = {"full", "linger", "idle", "drain"};
    metrics_print_counter(to, "embedmill_messages_received_total", "Messages given by the source.",
                          stats->received);
    metrics_print_counter(to, "embedmill_messages_published_total",
                          "Messages whose embeddings are confirmed by the sink.", stats->messages);
    metrics_print_counter(to, "embedmill_texts_embedded_total",
                          "Texts whose embeddings are confirmed.", stats->texts);
    metrics_print_counter(to, "embedmill_tokens_total", "Tokens of those texts, after any cut.",
                          stats->tokens);
    metrics_print_counter(to, "embedmill_truncated_total", "Texts cut to what the model takes.",
                          stats->truncated);
    metrics_print_counter(to, "embedmill_chunks_total",
                          "Pieces of texts that were cut into chunks.", stats->chunks);
    metrics_print_counter(to, "embedmill_texts_deleted_total", "Messages that took a text away.",
                          stats->deleted);
    metrics_print_counter(to, "embedmill_unchanged_total",
                          "Messages that left a text as it was, acknowledged without embedding.",
                          stats->unchanged);
    metrics_print_counter(to, "embedmill_duplicates_total",
                          "Texts whose equal in the same batch was embedded for them.",
                          stats->duplicates);
    metrics_print_head(
        to, "embedmill_cache_hits_total", "counter",
        "Texts whose vector was kept from before, by where; copies in a batch count once.");
    fprintf(to, "embedmill_cache_hits_total{place=\"memory\"} %" PRIu64 "\n", stats->memory_hits);
    fprintf(to, "embedmill_cache_hits_total{place=\"disk\"} %" PRIu64 "\n", stats->disk_hits);
    metrics_print_counter(to, "embedmill_cache_misses_total", "Texts that had to be embedded.",
                          stats->cache_misses);
    metrics_print_counter(to, "embedmill_redelivered_total",
                          "Messages received that had been delivered before.", stats->redelivered);
    metrics_print_counter(
        to, "embedmill_not_ours_total",
        "Messages another worker had finished or taken when they were to be written.",
        stats->not_ours);
    metrics_print_counter(to, "embedmill_undeliverable_total",
                          "Messages given up because not even their dead letter could be written.",
                          stats->undeliverable);
    metrics_print_head(to, "embedmill_batches_total", "counter", "Batches, by what made them go.");
    for (size_t i = 0; i < N_TRIGGERS; i++)
        fprintf(to, "embedmill_batches_total{trigger=\"%s\"} %" PRIu64 "\n", triggers[i],
                stats->batches[i]);
    metrics_print_gauge(to, "embedmill_inflight_texts", "Texts decoded and not yet confirmed.",
                        (double)stats->inflight_texts);
    metrics_print_gauge(to, "embedmill_waiting_messages", "Messages received and not yet decoded.",
                        (double)stats->waiting_messages);
}

static void print_gauges(const struct pipeline_gauges *gauges, FILE *to)
{
    metrics_print_gauge(to, "embedmill_inflight_bytes",
                        "Bytes of text decoded and not yet confirmed.",
                        (double)gauges->inflight_bytes);
    metrics_print_gauge(to, "embedmill_credit_messages",
                        "Messages the source may still give; 0: the worker has all it can hold.",
                        (double)gauges->credit_messages);
    metrics_print_gauge(to, "embedmill_credit_bytes", "Bytes the source may still give.",
                        (double)gauges->credit_bytes);
    metrics_print_gauge(to, "embedmill_inference_threads", "Inference threads.",
                        (double)gauges->n_threads);
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
                            "For each text, from its batch's first message decoded to a thread.",
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
    if (metrics->pipeline) {
        gauges = pipeline_gauges(metrics->pipeline);
        print_stats(pipeline_stats(metrics->pipeline), to);
        print_gauges(&gauges, to);
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
