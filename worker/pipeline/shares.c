/*
 * shares.c: see shares.h.
 */
#include "worker/pipeline/shares.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static void send_wakeup(void *ctx)
{
    uv_sem_post(ctx);
}

int shares_open(struct shares *shares, size_t n_threads, const struct pool_place *places)
{
    *shares = (struct shares){.n_threads = n_threads};
    struct pool_place *none = places ? NULL : calloc(n_threads, sizeof *none);
    int rc = places || none ? uv_sem_init(&shares->wakeup, 0) : -ENOMEM;
    shares->has_wakeup = rc == 0;
    if (rc == 0)
        rc = pool_open(&shares->pool, n_threads, places ? places : none, send_wakeup,
                       &shares->wakeup);
    free(none);
    return rc;
}

void shares_wait(struct shares *shares, size_t n_jobs)
{
    while (n_jobs > 0) {
        /* One post may stand for several jobs, which finished before the list was taken. */
        uv_sem_wait(&shares->wakeup);
        for (struct job *job = pool_finished(shares->pool); job; job = job->next) {
            assert(n_jobs > 0);
            n_jobs--;
        }
    }
}

void shares_run(struct shares *shares, void *all, size_t size, size_t n,
                void (*run)(struct job *job, struct pool_thread *thread))
{
    size_t each = (n + shares->n_threads - 1) / shares->n_threads, n_running = 0;
    for (size_t first = 0; first < n; first += each) {
        struct share *share = (struct share *)((char *)all + n_running++ * size);
        share->first = first;
        share->n = n - first < each ? n - first : each;
        share->job.run = run;
        pool_submit(shares->pool, &share->job);
    }
    shares_wait(shares, n_running);
}

void shares_close(struct shares *shares)
{
    pool_close(shares->pool);
    if (shares->has_wakeup)
        uv_sem_destroy(&shares->wakeup);
    *shares = (struct shares){0};
}
