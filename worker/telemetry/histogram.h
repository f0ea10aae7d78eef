/*
 * histogram.h: counts of values in fixed buckets.
 *
 * Threads: the loop thread.
 */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

enum { HISTOGRAM_MAX = 16 };

struct histogram {
    const double *bounds;               /* [n] upper, ascending; +Inf is understood */
    size_t n;                           /* at most HISTOGRAM_MAX */
    uint64_t counts[HISTOGRAM_MAX + 1]; /* one bucket each, not yet summed up */
    double sum;
};

/* n observations of the same value; a negative one (clocks differ) counts as 0. */
void histogram_observe(struct histogram *histogram, double value, uint64_t n);

#endif
