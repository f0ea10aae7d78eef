/*
 * verify.c: see verify.h.
 */
#define _GNU_SOURCE /* qsort_r */
#include "worker/index/verify.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/index/vectors.h"

enum { BLOCK_ROWS = 48 };

/* Rows of an index by what they are called. */
struct listing {
    struct vectors *vectors;
    uint32_t *live; /* [n_live] rows that count, by their texts */
    size_t n_live;
    uint32_t *all; /* [n] all rows, by their ids */
    float *scratch;
};

static int compare_bytes(struct bytes a, struct bytes b)
{
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int by_text(const void *a, const void *b, void *ctx)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    int order = compare_bytes(vectors_text_id(ctx, x), vectors_text_id(ctx, y));
    return order ? order : (x > y) - (x < y);
}

/* What a row is called, whether the index says more of it (where a piece begins and ends) or not:
 * the string of JSON behind {"id": without its quotes. */
static struct bytes name_of(const struct vectors *vectors, size_t row)
{
    struct bytes id = vectors_id(vectors, row);
    if (id.len > 6 && id.ptr[0] == '{')
        id = (struct bytes){id.ptr + 6, id.len - 6};
    if (id.len == 0 || id.ptr[0] != '"')
        return id;
    size_t len = 1;
    while (len < id.len && id.ptr[len] != '"')
        len += id.ptr[len] == '\\' ? 2 : 1;
    return (struct bytes){id.ptr + 1, (len < id.len ? len : id.len) - 1};
}

static int by_id(const void *a, const void *b, void *ctx)
{
    return compare_bytes(name_of(ctx, *(const uint32_t *)a), name_of(ctx, *(const uint32_t *)b));
}

static int listing_open(struct listing *out, const char *path, char *err, size_t err_size)
{
    int rc = vectors_open(&out->vectors, path, err, err_size);
    if (rc != 0)
        return rc;
    /* One more, so that an index without vectors is not taken for a lack of memory. */
    size_t n = vectors_count(out->vectors);
    out->live = malloc((n + 1) * sizeof *out->live);
    out->all = malloc((n + 1) * sizeof *out->all);
    out->scratch = malloc(BLOCK_ROWS * vectors_dim(out->vectors) * sizeof *out->scratch);
    if (!out->live || !out->all || !out->scratch) {
        snprintf(err, err_size, "out of memory for the ids of %s", path);
        return -ENOMEM;
    }
    for (size_t row = 0; row < n; row++) {
        out->all[row] = (uint32_t)row;
        if (vectors_is_live(out->vectors, row))
            out->live[out->n_live++] = (uint32_t)row;
    }
    qsort_r(out->live, out->n_live, sizeof *out->live, by_text, out->vectors);
    qsort_r(out->all, n, sizeof *out->all, by_id, out->vectors);
    return 0;
}

static void listing_close(struct listing *listing)
{
    vectors_close(listing->vectors);
    free(listing->live);
    free(listing->all);
    free(listing->scratch);
}

static struct bytes text_at(const struct listing *listing, size_t i)
{
    return vectors_text_id(listing->vectors, listing->live[i]);
}

/* The first of its rows behind those of the text at i. */
static size_t next_text(const struct listing *listing, size_t i)
{
    struct bytes text = text_at(listing, i);
    while (i < listing->n_live && compare_bytes(text_at(listing, i), text) == 0)
        i++;
    return i;
}

static void compare_texts(const struct listing *old, const struct listing *fresh,
                          struct verified *out)
{
    size_t a = 0, b = 0;
    while (a < old->n_live || b < fresh->n_live) {
        int order = a == old->n_live     ? 1
                    : b == fresh->n_live ? -1
                                         : compare_bytes(text_at(old, a), text_at(fresh, b));
        if (order < 0 && out->missing++ == 0)
            snprintf(out->missing_id, sizeof out->missing_id, "%.*s",
                     (int)(text_at(old, a).len < 79 ? text_at(old, a).len : 79),
                     text_at(old, a).ptr);
        /* A text that both have counts on both sides. */
        out->added += order > 0;
        out->texts_before += order <= 0;
        out->texts_after += order >= 0;
        a = order <= 0 ? next_text(old, a) : a;
        b = order >= 0 ? next_text(fresh, b) : b;
    }
}

static double cosine(const float *a, const float *b, size_t dim)
{
    double dot = 0, of_a = 0, of_b = 0;
    for (size_t i = 0; i < dim; i++) {
        dot += (double)a[i] * (double)b[i];
        of_a += (double)a[i] * (double)a[i];
        of_b += (double)b[i] * (double)b[i];
    }
    return of_a > 0 && of_b > 0 ? dot / sqrt(of_a * of_b) : 0;
}

/* The place in `all` of the first row of that id; n: there is none. */
static size_t find_id(const struct listing *listing, struct bytes id)
{
    size_t low = 0, high = vectors_count(listing->vectors);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_bytes(name_of(listing->vectors, listing->all[middle]), id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* A text that came more than once has several rows of one id, and the sample has one of them. */
static void compare_samples(const struct listing *fresh, const struct listing *sample,
                            struct verified *out)
{
    size_t n = vectors_count(fresh->vectors), dim = vectors_dim(fresh->vectors);
    out->least_cosine = 1;
    for (size_t row = 0; row < vectors_count(sample->vectors); row++) {
        struct bytes id = name_of(sample->vectors, row);
        const float *again = vectors_rows(sample->vectors, row, 1, sample->scratch);
        /* Below any cosine: not found. */
        double best = -2;
        for (size_t i = find_id(fresh, id);
             i < n && compare_bytes(name_of(fresh->vectors, fresh->all[i]), id) == 0; i++) {
            double is =
                cosine(again, vectors_rows(fresh->vectors, fresh->all[i], 1, fresh->scratch), dim);
            best = is > best ? is : best;
        }
        out->sampled++;
        out->not_found += best < -1;
        if (best >= -1 && best < out->least_cosine)
            out->least_cosine = best;
    }
}

/* The nearest texts to one, best first. */
struct nearest {
    struct bytes text; /* that they are near to */
    struct bytes texts[VERIFY_NEIGHBOURS];
    float scores[VERIFY_NEIGHBOURS];
    size_t n;
};

static void keep(struct nearest *nearest, struct bytes text, float score)
{
    size_t n = nearest->n, at;
    score = isnan(score) ? -1 : score; /* it would upset the order of the others */
    /* The cheap test first: nearly every row of the index ends here. */
    if (n == VERIFY_NEIGHBOURS && !(score > nearest->scores[n - 1]))
        return;
    /* A text is its own nearest, and says nothing about the two models. */
    if (compare_bytes(text, nearest->text) == 0)
        return;
    for (at = 0; at < n && compare_bytes(nearest->texts[at], text) != 0;)
        at++;
    if (at < n && !(score > nearest->scores[at]))
        return; /* another piece of it is nearer */
    if (at == n && n < VERIFY_NEIGHBOURS)
        nearest->n++;
    else if (at == n)
        at--;
    /* From its old place, from the end, or over the farthest, up to where it belongs. */
    for (; at > 0 && nearest->scores[at - 1] < score; at--) {
        nearest->texts[at] = nearest->texts[at - 1];
        nearest->scores[at] = nearest->scores[at - 1];
    }
    nearest->texts[at] = text;
    nearest->scores[at] = score;
}

/* The first row of a text, by its place in `live`; n_live: there is none. */
static size_t find_text(const struct listing *listing, struct bytes text)
{
    size_t low = 0, high = listing->n_live;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_bytes(text_at(listing, middle), text) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < listing->n_live && compare_bytes(text_at(listing, low), text) == 0
               ? low
               : listing->n_live;
}

/* Of n <= DOTS_QUERIES texts, by their first rows. 0 or -ENOMEM. */
static int find_nearest(const struct model *model, const struct listing *listing,
                        struct nearest *nearest, size_t n)
{
    size_t dim = vectors_dim(listing->vectors), count = vectors_count(listing->vectors);
    float *queries = calloc(DOTS_QUERIES * dim, sizeof *queries);
    float *packed = calloc(DOTS_QUERIES * dim, sizeof *packed);
    float *dots = malloc(BLOCK_ROWS * DOTS_QUERIES * sizeof *dots);
    int rc = queries && packed && dots ? 0 : -ENOMEM;
    for (size_t q = 0; q < n && rc == 0; q++) {
        uint32_t row = listing->live[find_text(listing, nearest[q].text)];
        memcpy(queries + q * dim, vectors_rows(listing->vectors, row, 1, listing->scratch),
               dim * sizeof *queries);
    }
    if (rc == 0)
        model_pack_queries(packed, queries, n, dim);
    for (size_t at = 0; at < count && rc == 0; at += BLOCK_ROWS) {
        size_t n_rows = count - at < BLOCK_ROWS ? count - at : BLOCK_ROWS;
        model_dots(model, dots, vectors_rows(listing->vectors, at, n_rows, listing->scratch),
                   n_rows, packed, dim);
        for (size_t r = 0; r < n_rows; r++)
            for (size_t q = 0; q < n && vectors_is_live(listing->vectors, at + r); q++)
                keep(&nearest[q], vectors_text_id(listing->vectors, at + r),
                     dots[r * DOTS_QUERIES + q]);
    }
    free(queries);
    free(packed);
    free(dots);
    return rc;
}

static size_t count_common(const struct nearest *a, const struct nearest *b)
{
    size_t n = 0;
    for (size_t i = 0; i < a->n; i++)
        for (size_t j = 0; j < b->n; j++)
            n += compare_bytes(a->texts[i], b->texts[j]) == 0;
    return n;
}

static int compare_neighbours(const struct model *model, const struct listing *old,
                              const struct listing *fresh, const struct listing *sample,
                              struct verified *out)
{
    struct nearest before[DOTS_QUERIES], after[DOTS_QUERIES];
    size_t n = 0, n_common = 0, n_wanted = 0;
    int rc = 0;
    for (size_t i = 0; i < sample->n_live && rc == 0 && out->n_queries < VERIFY_QUERIES;) {
        struct bytes text = text_at(sample, i);
        i = next_text(sample, i);
        if (find_text(old, text) < old->n_live && find_text(fresh, text) < fresh->n_live)
            before[n++] = (struct nearest){.text = text};
        /* The product takes DOTS_QUERIES queries at once: gather as many, or what is left at the
         * end. */
        if (n < DOTS_QUERIES && i < sample->n_live)
            continue;
        /* The same texts in both indexes. */
        memcpy(after, before, sizeof after);
        rc = find_nearest(model, old, before, n);
        if (rc == 0)
            rc = find_nearest(model, fresh, after, n);
        for (size_t q = 0; q < n; q++) {
            n_common += count_common(&before[q], &after[q]);
            /* Small indexes have fewer neighbours than are asked for. */
            n_wanted += before[q].n < after[q].n ? before[q].n : after[q].n;
        }
        out->n_queries += n;
        n = 0;
    }
    out->overlap = n_wanted ? (double)n_common / (double)n_wanted : 1;
    return rc;
}

int verify_index(const struct model *model, const char *old, const char *fresh, const char *sample,
                 struct verified *out, char *err, size_t err_size)
{
    struct listing listings[3];
    memset(listings, 0, sizeof listings);
    const char *const paths[3] = {old, fresh, sample};
    struct verified verified = {.least_cosine = 1};
    int rc = 0;
    for (size_t i = 0; i < 3 && rc == 0; i++)
        rc = listing_open(&listings[i], paths[i], err, err_size);
    if (rc == 0 && vectors_dim(listings[1].vectors) != vectors_dim(listings[2].vectors)) {
        snprintf(err, err_size, "%s and %s have vectors of different lengths", fresh, sample);
        rc = -EBADMSG;
    }
    if (rc == 0) {
        compare_texts(&listings[0], &listings[1], &verified);
        verified.vectors = listings[1].n_live;
        compare_samples(&listings[1], &listings[2], &verified);
        rc = compare_neighbours(model, &listings[0], &listings[1], &listings[2], &verified);
        if (rc != 0)
            snprintf(err, err_size, "out of memory");
    }
    for (size_t i = 0; i < 3; i++)
        listing_close(&listings[i]);
    if (rc == 0)
        *out = verified;
    return rc;
}
