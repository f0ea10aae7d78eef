/*
 * histogram.c: see histogram.h.
 */
#include "worker/telemetry/histogram.h"

void histogram_observe(struct histogram *histogram, double value, uint64_t n)
{
    size_t i = 0;
    /* Also NaN, and a negative age from a clock that is ahead. */
    if (!(value > 0))
        value = 0;
    while (i < histogram->n && value > histogram->bounds[i])
        i++;
    histogram->counts[i] += n;
    histogram->sum += value * (double)n;
}
