/*
 * metrics_print.c: see metrics_print.h.
 */
#include "worker/telemetry/metrics_print.h"

#include <inttypes.h>

#include "connectors/utf8.h"

void metrics_print_head(FILE *to, const char *name, const char *type, const char *help)
{
    fprintf(to, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_print_counter(FILE *to, const char *name, const char *help, uint64_t value)
{
    metrics_print_head(to, name, "counter", help);
    fprintf(to, "%s %" PRIu64 "\n", name, value);
}

void metrics_print_gauge(FILE *to, const char *name, const char *help, double value)
{
    metrics_print_head(to, name, "gauge", help);
    fprintf(to, "%s %.15g\n", name, value);
}

void metrics_print_histogram(FILE *to, const char *name, const char *help,
                             const struct histogram *histogram)
{
    metrics_print_head(to, name, "histogram", help);
    metrics_print_buckets(to, name, "", histogram);
}

void metrics_print_buckets(FILE *to, const char *name, const char *label,
                           const struct histogram *histogram)
{
    const char *comma = label[0] ? "," : "", *open = label[0] ? "{" : "",
               *shut = label[0] ? "}" : "";
    /* Prometheus' buckets are cumulative, ours are not. */
    uint64_t total = 0;
    for (size_t i = 0; i < histogram->n; i++) {
        total += histogram->counts[i];
        fprintf(to, "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n", name, label, comma,
                histogram->bounds[i], total);
    }
    total += histogram->counts[histogram->n];
    fprintf(to, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n", name, label, comma, total);
    fprintf(to, "%s_sum%s%s%s %.15g\n", name, open, label, shut, histogram->sum);
    fprintf(to, "%s_count%s%s%s %" PRIu64 "\n", name, open, label, shut, total);
}

void metrics_print_label(FILE *to, const char *value)
{
    while (*value) {
        int n = utf8_next(value, UTF8_LONGEST);
        if (*value == '"' || *value == '\\')
            fprintf(to, "\\%c", *value);
        else if (*value == '\n')
            fputs("\\n", to);
        else if (n < 0)
            fputs("\xef\xbf\xbd", to);
        else
            fwrite(value, 1, (size_t)n, to);
        value += n < 0 ? -n : n;
    }
}
