/*
 * scrape.h: what `embedmill top` reads out of a worker's metrics, and rates between two readings.
 *
 * Owns:    the few numbers it shows. Anything else in the text is passed over.
 * Threads: no state.
 */
#ifndef SCRAPE_H
#define SCRAPE_H

#include <stdbool.h>
#include <stddef.h>

enum { SCRAPE_BUCKETS = 20, SCRAPE_PARTS = 1024 }; /* as many as a worker tells of */

struct scrape_histogram {
    double bounds[SCRAPE_BUCKETS], counts[SCRAPE_BUCKETS]; /* cumulative, as in the text */
    size_t n;
};

struct scrape_part {
    char name[320];
    double lag;
};

/* Large: on the heap. */
struct scrape {
    bool valid; /* the text was that of a worker */
    bool ready;
    double texts, tokens, dead_letters, faults, inflight, busy_ratio, cpu_seconds;
    double private_memory;
    bool serves; /* over HTTP: */
    double requests, refused, waiting_tokens;
    struct scrape_histogram embedding, end_to_end, http_wait, http_took;
    struct scrape_part parts[SCRAPE_PARTS];
    size_t n_parts;
};

void scrape_read(struct scrape *out, const char *text);

/*
 * The q-quantile of what came between two readings (before may be NULL), interpolated within a
 * bucket as Prometheus does; the largest bound when it is above that. -1: nothing came.
 */
double scrape_quantile(const struct scrape_histogram *now, const struct scrape_histogram *before,
                       double q);

/* Add another worker's histogram; with other bounds it is left out. */
void scrape_add(struct scrape_histogram *sum, const struct scrape_histogram *other);

/*
 * Lag of all workers together: the workers of a Redis group all tell the same of the same stream,
 * those of a Kafka group each of its own partitions. -1: none tells.
 */
double scrape_lag(const struct scrape *const *scrapes, size_t n);

#endif
