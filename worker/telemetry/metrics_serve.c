/*
 * metrics_serve.c: see metrics_serve.h.
 */
#include "worker/telemetry/metrics_serve.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "worker/pipeline/pool.h"
#include "worker/serve/serve.h"
#include "worker/telemetry/metrics_print.h"

static const double bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                0.25,  0.5,    1,     2.5,  5,     10,   30};

void metrics_serve_open(struct metrics_serve *metrics)
{
    memset(metrics, 0, sizeof *metrics);
    for (size_t i = 0; i < METRICS_LANES; i++) {
        metrics->wait[i].bounds = metrics->took[i].bounds = bounds;
        metrics->wait[i].n = metrics->took[i].n = sizeof bounds / sizeof bounds[0];
    }
}

static struct metrics_route *route_of(struct metrics_serve *metrics, const struct serve_seen *seen)
{
    for (size_t i = 0; i < metrics->n_routes; i++)
        if (metrics->routes[i].status == seen->status &&
            strcmp(metrics->routes[i].path, seen->path) == 0)
            return &metrics->routes[i];
    assert(metrics->n_routes <= METRICS_ROUTES_MAX);
    if (metrics->n_routes == METRICS_ROUTES_MAX)
        return NULL;
    struct metrics_route *route = &metrics->routes[metrics->n_routes++];
    *route = (struct metrics_route){.path = seen->path, .status = seen->status};
    return route;
}

void metrics_serve_seen(struct metrics_serve *metrics, const struct serve_seen *seen)
{
    struct metrics_route *route = route_of(metrics, seen);
    if (route)
        route->n++;
    metrics->n_gone += seen->is_gone;
    metrics->n_cached += seen->n_cached;
    /* Health, models and refusals would drown the times of embeddings. */
    if (seen->n_texts == 0)
        return;
    histogram_observe(&metrics->wait[seen->is_list], seen->wait_s, 1);
    histogram_observe(&metrics->took[seen->is_list], seen->took_s, 1);
}

static const char *const lane_labels[METRICS_LANES] = {"lane=\"query\"", "lane=\"list\""};

static void print_times(const char *name, const char *help, FILE *to,
                        const struct histogram times[METRICS_LANES])
{
    metrics_print_head(to, name, "histogram", help);
    for (size_t i = 0; i < METRICS_LANES; i++)
        metrics_print_buckets(to, name, lane_labels[i], &times[i]);
}

static void print_slices(const struct serve_stats *stats, FILE *to)
{
    const struct serve_lane_stats *lanes[METRICS_LANES] = {&stats->queries, &stats->lists};
    metrics_print_head(to, "embedmill_http_slices_total", "counter",
                       "Slices that threads took of the texts that waited, by lane.");
    for (size_t i = 0; i < METRICS_LANES; i++)
        fprintf(to, "embedmill_http_slices_total{%s} %" PRIu64 "\n", lane_labels[i],
                lanes[i]->slices);
    metrics_print_head(to, "embedmill_http_slice_texts_total", "counter",
                       "Texts in them, of whatever requests waited at that moment.");
    for (size_t i = 0; i < METRICS_LANES; i++)
        fprintf(to, "embedmill_http_slice_texts_total{%s} %" PRIu64 "\n", lane_labels[i],
                lanes[i]->slice_texts);
}

static void print_lanes(const struct serve_stats *stats, FILE *to)
{
    static const char *const names[POOL_LANES] = {
        [POOL_QUEUE] = "queue", [POOL_BULK] = "bulk", [POOL_LIST] = "list", [POOL_QUERY] = "query"};
    metrics_print_head(to, "embedmill_lane_busy_seconds_total", "counter",
                       "Thread time of jobs, by lane.");
    for (size_t i = 0; i < POOL_LANES; i++)
        fprintf(to, "embedmill_lane_busy_seconds_total{lane=\"%s\"} %.15g\n", names[i],
                (double)stats->lanes[i].busy_ns * 1e-9);
    metrics_print_head(to, "embedmill_lane_waiting_jobs", "gauge",
                       "Jobs that wait for a thread, by lane.");
    for (size_t i = 0; i < POOL_LANES; i++)
        fprintf(to, "embedmill_lane_waiting_jobs{lane=\"%s\"} %zu\n", names[i],
                stats->lanes[i].n_waiting);
    metrics_print_head(to, "embedmill_http_waiting_tokens", "gauge",
                       "Tokens of requests that wait for a thread, by lane; estimated.");
    fprintf(to, "embedmill_http_waiting_tokens{lane=\"query\"} %zu\n",
            stats->queries.waiting_tokens);
    fprintf(to, "embedmill_http_waiting_tokens{lane=\"list\"} %zu\n", stats->lists.waiting_tokens);
}

/* A family with a line for each model, of the counter at `offset` in its stats. */
static void print_by_model(const char *name, const char *help, size_t offset, FILE *to,
                           const struct serve_stats *stats)
{
    metrics_print_head(to, name, "counter", help);
    for (size_t i = 0; i < stats->n_models; i++) {
        /* Counters of one type, found by their place. */
        uint64_t n;
        memcpy(&n, (const char *)&stats->models[i] + offset, sizeof n);
        fprintf(to, "%s{model=\"", name);
        metrics_print_label(to, stats->models[i].name);
        fprintf(to, "\"} %" PRIu64 "\n", n);
    }
}

#define BY_MODEL(name, help, member)                                                               \
    print_by_model("embedmill_http_model_" name, help, offsetof(struct serve_model_stats, member), \
                   to, stats)

static void print_models(const struct serve_stats *stats, FILE *to)
{
    metrics_print_head(to, "embedmill_http_model_info", "gauge",
                       "The models that are served, by the names of requests; always 1.");
    for (size_t i = 0; i < stats->n_models; i++) {
        const struct model_info *info = stats->models[i].info;
        fputs("embedmill_http_model_info{model=\"", to);
        metrics_print_label(to, stats->models[i].name);
        fprintf(to, "\",fingerprint=\"%s\",precision=\"%s\",dim=\"%zu\"} 1\n", info->fingerprint,
                info->precision, info->dim);
    }
    BY_MODEL("requests_total", "Requests that were answered, by model.", requests);
    BY_MODEL("texts_total", "Their texts.", texts);
    BY_MODEL("tokens_total", "Their tokens, after any cut.", tokens);
    BY_MODEL("truncated_total", "Texts cut to what the model takes.", truncated);
    BY_MODEL("cached_total", "Texts whose vector was kept from before.", cached);
}

void metrics_serve_print(const struct metrics_serve *metrics, struct serve *serve, FILE *to)
{
    struct serve_stats stats = serve_stats(serve);
    metrics_print_head(to, "embedmill_http_requests_total", "counter",
                       "Requests that have ended, by route and status.");
    for (size_t i = 0; i < metrics->n_routes; i++)
        fprintf(to, "embedmill_http_requests_total{route=\"%s\",code=\"%u\"} %" PRIu64 "\n",
                metrics->routes[i].path, metrics->routes[i].status, metrics->routes[i].n);
    metrics_print_counter(to, "embedmill_http_gone_total",
                          "Requests whose client left before the answer.", metrics->n_gone);
    metrics_print_counter(to, "embedmill_http_texts_total", "Texts that were answered.",
                          stats.texts);
    metrics_print_counter(to, "embedmill_http_tokens_total", "Their tokens, after any cut.",
                          stats.tokens);
    metrics_print_counter(to, "embedmill_http_truncated_total",
                          "Those cut to what the model takes.", stats.truncated);
    metrics_print_counter(to, "embedmill_http_cached_total",
                          "Those whose vector was kept from before.", metrics->n_cached);
    metrics_print_gauge(to, "embedmill_http_open_requests",
                        "Requests with texts, not answered yet.", (double)stats.open_requests);
    metrics_print_gauge(to, "embedmill_http_connections", "Open connections.",
                        (double)stats.connections);
    print_times("embedmill_http_wait_seconds",
                "For each request with texts, until the first was at a thread; by lane.", to,
                metrics->wait);
    print_times("embedmill_http_request_seconds",
                "For each request with texts, from whole to answered; by lane.", to, metrics->took);
    print_models(&stats, to);
    print_slices(&stats, to);
    print_lanes(&stats, to);
}
