/*
 * search.c: see search.h.
 *
 * Why:     a block of rows is brought into the cache once and meets all queries there, sixteen at a
 *          time; each thread has its own part of the rows and its own lists of the best, which are
 *          put together at the end, so that nothing is shared.
 */
#include "worker/index/search.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "worker/pipeline/shares.h"

enum { BLOCK_ROWS = 48 }; /* a multiple of every kernel's tile; of 768 values, 147 kB */
enum { N_PACKS = SEARCH_QUERIES / DOTS_QUERIES };

/* What one pool thread works on: first some queries to embed, then some rows to compare. */
struct task {
    struct share share; /* first member */
    struct search *search;
    struct session *session;
    float *scratch;          /* [BLOCK_ROWS][dim] */
    struct search_hit *best; /* [SEARCH_QUERIES][top], best first, n_best of each */
    size_t n_best[SEARCH_QUERIES];
    float dots[BLOCK_ROWS * DOTS_QUERIES];
};

struct search {
    const struct model *model;
    const struct vectors *vectors;
    size_t n_threads, top, dim;
    struct shares shares;
    struct task *tasks; /* [n_threads] */

    const struct text *queries; /* [n_queries] of this run */
    size_t n_queries;
    struct embed_result *results;
    float *rows;  /* [SEARCH_QUERIES][dim] */
    float *packs; /* [N_PACKS][dim][DOTS_QUERIES] */
    struct search_hit *hits;
    struct search_times times;
};

/* On a pool thread. */
static void embed_some(struct job *job, struct pool_thread *thread)
{
    struct task *task = (struct task *)job;
    struct search *search = task->search;
    (void)thread;
    float *rows[SEARCH_QUERIES];
    for (size_t i = 0; i < task->share.n; i++)
        rows[i] = search->rows + (task->share.first + i) * search->dim;
    session_embed(task->session, search->queries + task->share.first, task->share.n, rows,
                  search->results + task->share.first);
}

/* Keep a hit if it is among the best; of equal scores the earlier row stands first. */
static void keep(struct task *task, size_t query, float score, size_t row)
{
    size_t top = task->search->top, n = task->n_best[query];
    struct search_hit *best = task->best + query * top;
    if (n == top) {
        if (!(score > best[top - 1].score))
            return;
        n--;
    }
    if (!vectors_is_live(task->search->vectors, row))
        return;
    /* A row of NaN, as NumPy makes of zeros, is the farthest: among others it would upset the
     * order. */
    if (isnan(score))
        score = -1;
    size_t at = n;
    for (; at > 0 && best[at - 1].score < score; at--)
        best[at] = best[at - 1];
    best[at] = (struct search_hit){score, (uint32_t)row};
    task->n_best[query] = n + 1;
}

/* On a pool thread. */
static void compare_some(struct job *job, struct pool_thread *thread)
{
    struct task *task = (struct task *)job;
    const struct search *search = task->search;
    (void)thread;
    memset(task->n_best, 0, sizeof task->n_best);
    for (size_t at = task->share.first, end = at + task->share.n; at < end; at += BLOCK_ROWS) {
        size_t n = end - at < BLOCK_ROWS ? end - at : BLOCK_ROWS;
        const float *rows = vectors_rows(search->vectors, at, n, task->scratch);
        for (size_t pack = 0; pack * DOTS_QUERIES < search->n_queries; pack++) {
            size_t first = pack * DOTS_QUERIES, left = search->n_queries - first;
            size_t n_queries = left < DOTS_QUERIES ? left : DOTS_QUERIES;
            model_dots(search->model, task->dots, rows, n, search->packs + first * search->dim,
                       search->dim);
            for (size_t r = 0; r < n; r++)
                for (size_t q = 0; q < n_queries; q++)
                    keep(task, first + q, task->dots[r * DOTS_QUERIES + q], at + r);
        }
    }
}

/* The lists of the threads into one; their rows are in the order of the threads. */
static void merge(struct search *search, size_t n_tasks, size_t query, size_t n_hits)
{
    /* Where each list is read next; `threads` allows no more of them. */
    size_t at[1024] = {0};
    assert(n_tasks <= sizeof at / sizeof *at);
    struct search_hit *hits = search->hits + query * n_hits;
    for (size_t i = 0; i < n_hits; i++) {
        const struct search_hit *next = NULL;
        size_t from = 0;
        for (size_t t = 0; t < n_tasks; t++) {
            const struct task *task = &search->tasks[t];
            const struct search_hit *hit = task->best + query * search->top + at[t];
            if (at[t] < task->n_best[query] && (!next || hit->score > next->score)) {
                next = hit;
                from = t;
            }
        }
        assert(next); /* each list holds `top` rows, or all that count of its share */
        hits[i] = *next;
        at[from]++;
    }
}

void search_run(struct search *search, const struct text *queries, size_t n,
                struct embed_result *results, const struct search_hit **hits, size_t *n_hits)
{
    size_t dim = search->dim, count = vectors_count(search->vectors);
    uint64_t began = uv_hrtime();
    search->queries = queries;
    search->n_queries = n;
    search->results = results;
    /* Returns when all shares are done: the tasks are this thread's again. */
    shares_run(&search->shares, search->tasks, sizeof *search->tasks, n, embed_some);
    uint64_t embedded = uv_hrtime();
    for (size_t first = 0; first < n; first += DOTS_QUERIES)
        model_pack_queries(search->packs + first * dim, search->rows + first * dim,
                           n - first < DOTS_QUERIES ? n - first : DOTS_QUERIES, dim);
    /* A thread that gets no rows this time must not offer the hits of the last. */
    for (size_t t = 0; t < search->n_threads; t++)
        memset(search->tasks[t].n_best, 0, sizeof search->tasks[t].n_best);
    shares_run(&search->shares, search->tasks, sizeof *search->tasks, count, compare_some);
    size_t n_live = vectors_count_live(search->vectors);
    *n_hits = n_live < search->top ? n_live : search->top;
    memset(search->hits, 0, SEARCH_QUERIES * search->top * sizeof *search->hits);
    for (size_t q = 0; q < n; q++)
        merge(search, search->n_threads, q, *n_hits);
    *hits = search->hits;
    search->times.embed_ns += embedded - began;
    search->times.search_ns += uv_hrtime() - embedded;
}

struct search_times search_times(const struct search *search)
{
    return search->times;
}

static int open_tasks(struct search *search)
{
    struct session_options options = {.dim = search->dim};
    for (size_t i = 0; i < search->n_threads; i++) {
        struct task *task = &search->tasks[i];
        task->search = search;
        task->scratch = malloc(BLOCK_ROWS * search->dim * sizeof(float));
        task->best = malloc(SEARCH_QUERIES * search->top * sizeof *task->best);
        if (!task->scratch || !task->best)
            return -ENOMEM;
        int rc = session_open(&task->session, search->model, &options);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int search_open(struct search **out, const struct model *model, const struct vectors *vectors,
                size_t n_threads, size_t top, char *err, size_t err_size)
{
    struct search *search = calloc(1, sizeof *search);
    int rc = -ENOMEM;
    if (!search)
        goto fail;
    search->model = model;
    search->vectors = vectors;
    search->n_threads = n_threads;
    search->top = top;
    search->dim = vectors_dim(vectors);
    search->tasks = calloc(n_threads, sizeof *search->tasks);
    search->rows = malloc(SEARCH_QUERIES * search->dim * sizeof(float));
    search->packs = malloc(SEARCH_QUERIES * search->dim * sizeof(float));
    search->hits = malloc(SEARCH_QUERIES * top * sizeof *search->hits);
    if (!search->tasks || !search->rows || !search->packs || !search->hits)
        goto fail;
    rc = open_tasks(search);
    if (rc == 0)
        rc = shares_open(&search->shares, n_threads, NULL);
    if (rc != 0)
        goto fail;
    *out = search;
    return 0;
fail:
    snprintf(err, err_size, "cannot search with %zu threads in vectors of %zu values: %s",
             n_threads, vectors_dim(vectors), uv_strerror(rc));
    search_close(search);
    return rc;
}

void search_close(struct search *search)
{
    if (!search)
        return;
    shares_close(&search->shares);
    for (size_t i = 0; search->tasks && i < search->n_threads; i++) {
        session_close(search->tasks[i].session);
        free(search->tasks[i].scratch);
        free(search->tasks[i].best);
    }
    free(search->tasks);
    free(search->rows);
    free(search->packs);
    free(search->hits);
    free(search);
}
