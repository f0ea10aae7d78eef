/*
 * scrape.c: see scrape.h.
 *
 * Threads: no state.
 */
#include "worker/commands/scrape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The text between `key="` and its closing quote, escapes undone. False: no such label. */
static bool label(const char *labels, const char *key, char *out, size_t size)
{
    size_t len = strlen(key), n = 0;
    const char *at = labels;
    for (;; at++) {
        at = strstr(at, key);
        if (!at)
            return false;
        /* at[-1] is there: labels begin with the brace. A key inside another ("le" in "role") is
         * passed over. */
        if ((at[-1] == '{' || at[-1] == ',') && at[len] == '=' && at[len + 1] == '"')
            break;
    }
    for (at += len + 2; *at && *at != '"' && *at != '\n'; at++) {
        if (*at == '\\' && at[1])
            at++;
        if (n + 1 < size)
            out[n++] = *at;
    }
    out[n] = '\0';
    return *at == '"';
}

static void read_bucket(struct scrape_histogram *histogram, const char *labels, double value)
{
    char bound[40];
    size_t i = 0;
    if (!label(labels, "le", bound, sizeof bound))
        return;
    double upper = strcmp(bound, "+Inf") == 0 ? INFINITY : strtod(bound, NULL);
    /* Bounds come in rising order, for each set of labels anew. */
    while (i < histogram->n && histogram->bounds[i] < upper)
        i++;
    if (i < histogram->n) { /* over all labels */
        histogram->counts[i] += value;
    } else if (i < SCRAPE_BUCKETS) {
        histogram->bounds[i] = upper;
        histogram->counts[histogram->n++] = value;
    }
}

static void read_value(struct scrape *out, const char *name, size_t len, const char *labels,
                       double value)
{
    const struct {
        const char *name;
        double *at;
    } numbers[] = {
        {"embedmill_texts_embedded_total", &out->texts},
        {"embedmill_tokens_total", &out->tokens},
        {"embedmill_dead_letters_total", &out->dead_letters},
        {"embedmill_inflight_texts", &out->inflight},
        {"embedmill_inference_busy_ratio", &out->busy_ratio},
        {"embedmill_private_memory_bytes", &out->private_memory},
        {"process_cpu_seconds_total", &out->cpu_seconds},
        {"embedmill_http_requests_total", &out->requests},
        {"embedmill_http_waiting_tokens", &out->waiting_tokens},
    };
#define IS(word) (len == sizeof(word) - 1 && memcmp(name, word, len) == 0)
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (strlen(numbers[i].name) == len && memcmp(name, numbers[i].name, len) == 0)
            *numbers[i].at += value; /* over all labels */
    if (IS("embedmill_build_info"))
        out->valid = true;
    else if (IS("embedmill_http_requests_total") &&
             (strstr(labels, "code=\"429\"") || strstr(labels, "code=\"503\"")))
        out->refused += value;
    else if (IS("embedmill_http_connections"))
        out->serves = true;
    else if (IS("embedmill_http_wait_seconds_bucket"))
        read_bucket(&out->http_wait, labels, value);
    else if (IS("embedmill_http_request_seconds_bucket"))
        read_bucket(&out->http_took, labels, value);
    else if (IS("embedmill_ready"))
        out->ready = value == 1;
    else if (IS("embedmill_errors_total") && strstr(labels, "code=\"unavailable\""))
        out->faults += value;
    else if (IS("embedmill_embedding_seconds_bucket"))
        read_bucket(&out->embedding, labels, value);
    else if (IS("embedmill_end_to_end_seconds_bucket"))
        read_bucket(&out->end_to_end, labels, value);
    else if (IS("embedmill_source_lag") && out->n_parts < SCRAPE_PARTS &&
             label(labels, "part", out->parts[out->n_parts].name, sizeof out->parts[0].name))
        out->parts[out->n_parts++].lag = value;
#undef IS
}

void scrape_read(struct scrape *out, const char *text)
{
    char line[600];
    memset(out, 0, sizeof *out);
    for (const char *at = text; *at; at += *at == '\n') {
        size_t len = strcspn(at, "\n");
        if (*at != '#' && len > 0 && len < sizeof line) {
            memcpy(line, at, len);
            line[len] = '\0';
            size_t name_len = strcspn(line, "{ ");
            const char *value = strrchr(line, ' ');
            if (value)
                read_value(out, line, name_len, line + name_len, strtod(value, NULL));
        }
        at += len;
    }
}

double scrape_quantile(const struct scrape_histogram *now, const struct scrape_histogram *before,
                       double q)
{
    /* Between two bounds values are taken as evenly spread, as histogram_quantile() of Prometheus
     * does. */
    double counts[SCRAPE_BUCKETS], below = 0, lower = 0;
    size_t n = now->n;
    bool has_before = before && before->n == n;
    for (size_t i = 0; i < n; i++) {
        counts[i] = now->counts[i] - (has_before ? before->counts[i] : 0);
        if (counts[i] < 0) /* restarted in between */
            return scrape_quantile(now, NULL, q);
    }
    if (n == 0 || counts[n - 1] <= 0)
        return -1;
    double rank = q * counts[n - 1];
    for (size_t i = 0; i < n; i++) {
        if (counts[i] >= rank && counts[i] > below)
            return isinf(now->bounds[i])
                       ? lower
                       : lower + (now->bounds[i] - lower) * (rank - below) / (counts[i] - below);
        below = counts[i];
        lower = now->bounds[i];
    }
    return lower;
}

void scrape_add(struct scrape_histogram *sum, const struct scrape_histogram *other)
{
    if (sum->n == 0) {
        *sum = *other;
        return;
    }
    for (size_t i = 0; sum->n == other->n && i < sum->n; i++)
        sum->counts[i] += other->counts[i];
}

/* By name, the largest lag first. */
static int compare_parts(const void *a, const void *b)
{
    const struct scrape_part *x = *(const struct scrape_part *const *)a;
    const struct scrape_part *y = *(const struct scrape_part *const *)b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->lag < y->lag) - (x->lag > y->lag);
}

double scrape_lag(const struct scrape *const *scrapes, size_t n)
{
    size_t n_parts = 0;
    for (size_t i = 0; i < n; i++)
        n_parts += scrapes[i]->n_parts;
    const struct scrape_part **parts = malloc(n_parts * sizeof *parts);
    if (n_parts == 0 || !parts) {
        free(parts);
        return -1;
    }
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < scrapes[i]->n_parts; j++)
            parts[at++] = &scrapes[i]->parts[j];
    qsort(parts, n_parts, sizeof *parts, compare_parts);
    double total = 0;
    for (size_t i = 0; i < n_parts; i++)
        if (i == 0 || strcmp(parts[i]->name, parts[i - 1]->name) != 0)
            total += parts[i]->lag;
    free(parts);
    return total;
}
