/*
 * metrics.c: see metrics.h. The names and meanings of all of them are in docs/operations.md.
 */
#include "worker/telemetry/metrics.h"

#include <assert.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "worker/serve/serve.h"
#include <time.h>

/* The bounds hold the limits of the alert rules, so that a quantile at a limit is exact. */
static const double embedding_bounds[] = {0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1,
                                          0.15,  0.25, 0.5,  1,    2.5,  5,    10};
static const double batch_bounds[] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
static const double wait_bounds[] = {0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                     0.5,   1,     2.5,  5,     10,   30,  60};
static const double age_bounds[] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,    2.5,
                                    5,    10,    30,   60,  300,  900, 3600, 21600};
static const double text_token_bounds[] = {8, 16, 32, 64, 128, 256, 512, 1024, 1536, 2048};
static const double batch_text_bounds[] = {1, 2, 4, 8, 16, 32, 64, 96, 128, 256, 512};
static const double batch_token_bounds[] = {16,   64,    256,   1024,  2048,  4096,
                                            8192, 16384, 32768, 65536, 131072};

#define BOUNDS(array)                                                                              \
    (struct histogram)                                                                             \
    {                                                                                              \
        .bounds = (array), .n = sizeof(array) / sizeof(array)[0]                                   \
    }

struct series *series_find(struct series_table *table, const char *name)
{
    for (size_t i = 0; i < table->n; i++)
        /* Names are kept cut, so they are compared as far as they are kept. */
        if (strncmp(table->rows[i].name, name, sizeof table->rows[i].name - 1) == 0)
            return &table->rows[i];
    if (table->n == SERIES_MAX) {
        table->n_dropped++;
        return NULL;
    }
    struct series *row = &table->rows[table->n++];
    memset(row, 0, sizeof *row);
    snprintf(row->name, sizeof row->name, "%s", name);
    return row;
}

void series_drop(struct series_table *table, const char *name)
{
    for (size_t i = 0; i < table->n; i++)
        if (strncmp(table->rows[i].name, name, sizeof table->rows[i].name - 1) == 0) {
            /* The last takes its place: series have no order. */
            table->rows[i] = table->rows[--table->n];
            return;
        }
}

const char *metrics_stage_of(const char *code)
{
    for (size_t i = 0; i < N_DEAD_LETTER_CODES; i++)
        if (strcmp(code, dead_letter_codes[i].name) == 0)
            return dead_letter_codes[i].stage;
    return "decode";
}

void metrics_open(struct metrics *metrics, const struct model_info *model)
{
    memset(metrics, 0, sizeof *metrics);
    metrics->model = model;
    metrics->group_lag = -1;
    metrics_serve_open(&metrics->served);
    metrics->process_start = metrics_process_start();
    metrics->text_tokens = BOUNDS(text_token_bounds);
    metrics->batch_texts = BOUNDS(batch_text_bounds);
    metrics->batch_tokens = BOUNDS(batch_token_bounds);
    metrics->queue_wait = BOUNDS(wait_bounds);
    metrics->embedding = BOUNDS(embedding_bounds);
    metrics->inference = BOUNDS(batch_bounds);
    metrics->publish = BOUNDS(wait_bounds);
    metrics->end_to_end = BOUNDS(age_bounds);
    /* There from the start, so that a rate over their first change is seen. */
    for (size_t i = 0; i < N_DEAD_LETTER_CODES; i++)
        series_find(&metrics->dead_letters, dead_letter_codes[i].name);
}

void metrics_on_link(struct metrics *metrics, enum side side, enum link_state state)
{
    enum link_seen was = metrics->links[side];
    metrics->links[side] = state == LINK_UP ? LINK_SEEN_UP : LINK_SEEN_DOWN;
    if (state != LINK_UP && was != LINK_SEEN_DOWN) /* reported again whenever the reason changes */
        metrics->faults[side]++;
}

void metrics_on_dead_letter(struct metrics *metrics, const char *code)
{
    struct series *row = series_find(&metrics->dead_letters, code);
    if (row)
        row->value++;
}

bool metrics_on_lag(struct metrics *metrics, const char *part, int64_t lag)
{
    if (!part) {
        metrics->group_lag = lag;
        return true;
    }
    if (lag < 0) {
        series_drop(&metrics->lag, part);
        return true;
    }
    struct series *row = series_find(&metrics->lag, part);
    if (row)
        row->value = lag;
    return row != NULL;
}

struct lag metrics_lag(const struct metrics *metrics)
{
    int64_t sum = 0;
    for (size_t i = 0; i < metrics->lag.n; i++)
        sum += metrics->lag.rows[i].value;
    return (struct lag){metrics->lag.n ? sum : -1, metrics->group_lag};
}

void metrics_on_count(struct metrics *metrics, enum counter what, uint64_t n)
{
    assert(what < N_COUNTERS);
    metrics->counts[what] += n;
}

void metrics_on_skipped(struct metrics *metrics, const struct skipped *skipped)
{
    assert(skipped->reason < N_SKIP_REASONS);
    metrics->skipped[skipped->reason] += skipped->n < 0 ? 1 : (uint64_t)skipped->n;
}

static double seconds_between(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) * 1e-9 : 0;
}

static void observe_tokens(struct metrics *metrics, const struct batch *batch)
{
    uint64_t n_tokens = 0;
    for (size_t i = 0; i < batch->n_entries; i++) {
        const struct entry *entry = &batch->entries[i];
        for (size_t j = 0; !entry->dead_code && j < entry->request.n_items; j++) {
            const struct embed_result *result = &batch->results[entry->first_item + j];
            histogram_observe(&metrics->text_tokens, result->n_tokens, 1);
            /* n_tokens of a result is before the cut; batches are measured by what was computed. */
            n_tokens += result->truncated ? batch->max_tokens : result->n_tokens;
        }
    }
    histogram_observe(&metrics->batch_tokens, (double)n_tokens, 1);
}

void metrics_on_embedded(struct metrics *metrics, const struct batch *batch)
{
    uint64_t first_ns = UINT64_MAX, last_ns = 0;
    for (size_t i = 0; i < batch->n_slices; i++) {
        const struct slice *slice = &batch->slices[i];
        double busy = seconds_between(slice->began_ns, slice->ended_ns);
        metrics->busy_ns += slice->ended_ns - slice->began_ns;
        histogram_observe(&metrics->queue_wait, seconds_between(batch->taken_ns, slice->began_ns),
                          slice->n);
        /* What a text costs: its share of the slice it was packed into. */
        histogram_observe(&metrics->embedding, busy / (double)slice->n, slice->n);
        first_ns = slice->began_ns < first_ns ? slice->began_ns : first_ns;
        last_ns = slice->ended_ns > last_ns ? slice->ended_ns : last_ns;
    }
    if (batch->n_slices == 0) /* nothing but dead letters and tombstones */
        return;
    histogram_observe(&metrics->inference, seconds_between(first_ns, last_ns), 1);
    histogram_observe(&metrics->batch_texts, (double)batch->n_texts, 1);
    observe_tokens(metrics, batch);
}

void metrics_on_published(struct metrics *metrics, const struct entry *entry)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    histogram_observe(&metrics->publish, seconds_between(entry->batch->published_ns, uv_hrtime()),
                      1);
    if (entry->message->timestamp_ms >= 0 && !entry->dead_code)
        histogram_observe(&metrics->end_to_end,
                          (double)now.tv_sec + (double)now.tv_nsec * 1e-9 -
                              (double)entry->message->timestamp_ms * 1e-3,
                          1);
}

/*
 * A slice takes up to seconds and is counted when it ends, so the rate of busy_ns jumps; what is
 * sampled once a second does not.
 */
void metrics_tick(struct metrics *metrics)
{
    size_t room = sizeof metrics->busy_samples / sizeof metrics->busy_samples[0];
    size_t n_busy = 0, n_threads = 0;
    if (!metrics->n_pipelines)
        return;
    for (size_t i = 0; i < metrics->n_pipelines; i++) {
        struct pipeline_gauges gauges = pipeline_gauges(metrics->pipelines[i]);
        /* Who helps is of all of them, and counted with the first. */
        size_t n_helping = i > 0 ? gauges.helping_threads : 0;
        n_busy += gauges.busy_threads > n_helping ? gauges.busy_threads - n_helping : 0;
        n_threads = gauges.n_threads; /* which all share */
    }
    metrics->busy_samples[metrics->n_busy_samples++ % room] =
        n_busy < n_threads ? (double)n_busy / (double)n_threads : 1;
    size_t n = metrics->n_busy_samples < room ? metrics->n_busy_samples : room;
    /* Summed anew from ten samples: a running sum would drift. */
    metrics->busy_ratio = 0;
    for (size_t i = 0; i < n; i++)
        metrics->busy_ratio += metrics->busy_samples[i] / (double)n;
}

const char *metrics_not_ready(const struct metrics *metrics)
{
    if (!metrics->n_pipelines && !metrics->serve)
        return "starting";
    if (metrics->serve && serve_is_draining(metrics->serve))
        return "draining";
    if (!metrics->n_pipelines)
        return NULL;
    if (pipeline_gauges(metrics->pipelines[0]).draining)
        return "draining";
    /* Files and pipes tell of no link: there, work done is the proof. */
    const struct pipeline_stats *stats = pipeline_stats(metrics->pipelines[0]);
    const enum link_seen *links = metrics->links;
    if (links[SIDE_INPUT] != LINK_SEEN_UP &&
        (links[SIDE_INPUT] == LINK_SEEN_DOWN || !stats->received))
        return "the input is not joined";
    if (links[SIDE_OUTPUT] != LINK_SEEN_UP &&
        (links[SIDE_OUTPUT] == LINK_SEEN_DOWN || stats->messages + stats->dead_letters == 0))
        return "the output is not joined";
    return NULL;
}
