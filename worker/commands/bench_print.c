/*
 * bench_print.c: a report of `embedmill bench`, for people and as JSON. See bench.h.
 *
 * JSON is written by hand: numbers and a few names of ours.
 */
#include <stdio.h>
#include <string.h>

#include "worker/commands/bench.h"
#include "connectors/json.h"

static double giga(double x)
{
    return x * 1e-9;
}

/* 0 where the ceiling is not known. */
static double share(double part, double whole)
{
    return whole > 0 ? 100 * part / whole : 0;
}

static void print_stages(const struct bench_report *r)
{
    const struct profile *p = &r->profile;
    printf("\n1 thread, a stage at a time\n%-18s%8s%12s%10s%12s\n", "stage", "share", "us/token",
           "GMAC/s", "of ceiling");
    for (size_t i = 0; i < PROFILE_STAGES; i++) {
        const struct profile_stage *s = &p->stages[i];
        double macs_per_s = s->seconds > 0 ? (double)s->macs / s->seconds : 0;
        printf("%-18s%7.1f%%%12.2f", s->name, share(s->seconds, p->seconds),
               s->seconds * 1e6 / (double)p->n_tokens);
        if (s->macs)
            printf("%10.1f", giga(macs_per_s));
        if (s->is_product && r->peak_macs_per_s > 0)
            printf("%11.0f%%", share(macs_per_s, r->peak_macs_per_s));
        printf("\n");
    }
}

static void print_threads(const struct bench_report *r)
{
    printf("\n%-9s%10s%10s%9s%14s%8s%12s   one text of %u tokens, ms\n", "threads", "tokens/s",
           "texts/s", "speedup", "CPU us/token", "GMAC/s", "of ceiling", r->one_tokens);
    for (size_t i = 0; i < r->n_counts; i++) {
        const struct bench_speed *s = &r->speeds[i];
        const struct bench_latency *l = &r->latencies[i];
        printf("%-9zu%10.0f%10.1f%9.2f%14.0f%8.1f", s->n_threads, s->tokens_per_s, s->texts_per_s,
               s->tokens_per_s / r->speeds[0].tokens_per_s, s->cpu_us_per_token,
               giga(s->macs_per_s));
        if (s->peak_macs_per_s > 0)
            printf("%11.0f%%", share(s->macs_per_s, s->peak_macs_per_s));
        else
            printf("%12s", "");
        printf("   p50 %.2f  p90 %.2f  p99 %.2f\n", l->p50_ms, l->p90_ms, l->p99_ms);
    }
}

void bench_print(const struct bench_report *r)
{
    printf("%s, kernels %s, precision %s, %zu CPUs\n", r->info->name, r->info->kernels,
           r->info->precision, r->n_cpus);
    printf("%zu texts (%s), prompt %s: %u to %u tokens, %.1f on average\n", r->n_texts, r->corpus,
           r->prompt, r->shortest, r->longest, (double)r->n_tokens / (double)r->n_texts);
    if (r->peak_macs_per_s > 0)
        printf("ceiling of one core: %.1f GMAC/s in the way of these kernels\n",
               giga(r->peak_macs_per_s));
    printf("model opened to first vector: %.1f ms, then %.1f ms\n", r->open_first_ms,
           r->open_median_ms);
    print_stages(r);
    print_threads(r);
    printf("\n%-17s%9s%12s%14s\n", "tokens in a text", "threads", "tokens/s", "CPU us/token");
    for (size_t i = 0; i < r->n_lengths; i++)
        printf("%-17.0f%9zu%12.0f%14.0f\n", r->lengths[i].n_tokens, r->lengths[i].n_threads,
               r->lengths[i].tokens_per_s, r->lengths[i].cpu_us_per_token);
}

static void json_string(const char *text)
{
    (void)json_print(bytes_of(text), stdout);
}

static void json_head(const struct bench_report *r)
{
    printf("{\"version\": \"%s\", \"model\": ", EMBEDMILL_VERSION);
    json_string(r->info->name);
    printf(", \"fingerprint\": \"%s\", \"kernels\": \"%s\", \"precision\": \"%s\", \"n_cpus\": "
           "%zu,\n \"corpus\": ",
           r->info->fingerprint, r->info->kernels, r->info->precision, r->n_cpus);
    json_string(r->corpus);
    printf(", \"prompt\": \"%s\",\n"
           " \"n_texts\": %zu, \"n_tokens\": %llu, \"shortest\": %u, \"longest\": %u,\n"
           " \"open_first_ms\": %.3f, \"open_median_ms\": %.3f, \"peak_gmacs\": %.3f,\n",
           r->prompt, r->n_texts, (unsigned long long)r->n_tokens, r->shortest, r->longest,
           r->open_first_ms, r->open_median_ms, giga(r->peak_macs_per_s));
}

static void json_stages(const struct bench_report *r)
{
    const struct profile *p = &r->profile;
    printf(" \"stages\": [");
    for (size_t i = 0; i < PROFILE_STAGES; i++) {
        const struct profile_stage *s = &p->stages[i];
        printf("%s\n  {\"name\": \"%s\", \"share\": %.5f, \"us_per_token\": %.4f, \"calls\": %llu, "
               "\"gmacs\": %.3f, \"is_product\": %s}",
               i ? "," : "", s->name, share(s->seconds, p->seconds) / 100,
               s->seconds * 1e6 / (double)p->n_tokens, (unsigned long long)s->calls,
               s->seconds > 0 ? giga((double)s->macs / s->seconds) : 0,
               s->is_product ? "true" : "false");
    }
    printf("],\n");
}

void bench_print_json(const struct bench_report *r)
{
    json_head(r);
    json_stages(r);
    printf(" \"threads\": [");
    for (size_t i = 0; i < r->n_counts; i++) {
        const struct bench_speed *s = &r->speeds[i];
        printf("%s\n  {\"threads\": %zu, \"passes\": %zu, \"tokens_per_s\": %.3f, "
               "\"texts_per_s\": %.3f, \"cpu_us_per_token\": %.3f, \"gmacs\": %.3f, "
               "\"peak_gmacs\": %.3f}",
               i ? "," : "", s->n_threads, s->n_passes, s->tokens_per_s, s->texts_per_s,
               s->cpu_us_per_token, giga(s->macs_per_s), giga(s->peak_macs_per_s));
    }
    printf("],\n \"one_text\": [");
    for (size_t i = 0; i < r->n_counts; i++) {
        const struct bench_latency *l = &r->latencies[i];
        printf("%s\n  {\"threads\": %zu, \"tokens\": %u, \"calls\": %zu, \"p50_ms\": %.4f, "
               "\"p90_ms\": %.4f, \"p99_ms\": %.4f}",
               i ? "," : "", l->n_threads, r->one_tokens, l->n_calls, l->p50_ms, l->p90_ms,
               l->p99_ms);
    }
    printf("],\n \"lengths\": [");
    for (size_t i = 0; i < r->n_lengths; i++)
        printf("%s\n  {\"tokens\": %.1f, \"threads\": %zu, \"tokens_per_s\": %.3f, "
               "\"cpu_us_per_token\": %.3f}",
               i ? "," : "", r->lengths[i].n_tokens, r->lengths[i].n_threads,
               r->lengths[i].tokens_per_s, r->lengths[i].cpu_us_per_token);
    printf("]}\n");
}
