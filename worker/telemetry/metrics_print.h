/*
 * metrics_print.h: pieces of the text format of Prometheus that several files write.
 *
 * Threads: the loop thread.
 */
#ifndef METRICS_PRINT_H
#define METRICS_PRINT_H

#include <stdint.h>
#include <stdio.h>

#include "worker/telemetry/histogram.h"

void metrics_print_head(FILE *to, const char *name, const char *type, const char *help);
void metrics_print_counter(FILE *to, const char *name, const char *help, uint64_t value);
void metrics_print_gauge(FILE *to, const char *name, const char *help, double value);
void metrics_print_histogram(FILE *to, const char *name, const char *help,
                             const struct histogram *histogram);
/* One of several of a name, whose head is printed already. label: `lane="query"`, or "". */
void metrics_print_buckets(FILE *to, const char *name, const char *label,
                           const struct histogram *histogram);
/* As the value of a label: quotes, backslashes and line ends escaped, not UTF-8 replaced. */
void metrics_print_label(FILE *to, const char *value);

#endif
