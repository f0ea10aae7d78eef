/*
 * serve_queue.c: see serve_queue.h.
 *
 * Requests take turns: one that has had a slice goes behind the others, so that a list of
 * thousands of texts delays nobody by more than one slice of it.
 */
#include "worker/serve/serve_queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/pipeline/batch.h"

enum { SLICE_MIN = 128, SLICE_MAX = BATCH_SLICE_TOKENS, RATE_SECONDS = 5, RETRY_MAX_S = 600 };

size_t serve_estimate(const struct serve_request *request, size_t text)
{
    const struct serve_text *of = &request->texts[text];
    /* By its bytes: counting its tokens would cost what is to be shared out. */
    size_t n = of->ids ? of->n_ids : batch_tokens(request->query.len + of->text.len, 1);
    assert(request->max_tokens > 0);
    return n < request->max_tokens ? n : request->max_tokens;
}

int serve_queue_open(struct serve_queue *queue, struct serve_queue *first, enum pool_lane lane,
                     size_t n_threads, void (*run)(struct job *job, struct pool_thread *thread))
{
    memset(queue, 0, sizeof *queue);
    /* One lock for a lane: a request whose model is not known yet is dropped through any of its
     * queues. */
    queue->lock = first ? first->lock : &queue->own_lock;
    TAILQ_INIT(&queue->waiting);
    TAILQ_INIT(&queue->finished);
    queue->n_threads = n_threads;
    queue->n_takers = 2 * n_threads + 1; /* the loop may be late to give those back that ended */
    queue->takers = calloc(queue->n_takers, sizeof *queue->takers);
    if (!queue->takers || (!first && uv_mutex_init(&queue->own_lock) != 0)) {
        free(queue->takers);
        queue->takers = NULL;
        return -ENOMEM;
    }
    for (size_t i = 0; i < queue->n_takers; i++) {
        queue->takers[i] = (struct serve_taker){{.run = run, .lane = lane, .next = queue->spare}};
        queue->spare = &queue->takers[i].job;
    }
    return 0;
}

void serve_queue_close(struct serve_queue *queue)
{
    if (!queue->takers)
        return;
    assert(TAILQ_EMPTY(&queue->waiting) && TAILQ_EMPTY(&queue->finished));
    if (queue->lock == &queue->own_lock)
        uv_mutex_destroy(&queue->own_lock);
    free(queue->takers);
    queue->takers = NULL;
}

static double rate_of(const struct serve_queue *queue)
{
    return queue->done_seconds > 0 ? queue->done_tokens / queue->done_seconds : 0;
}

bool serve_queue_admit(struct serve_queue *queue, struct serve_request *request, size_t max_tokens,
                       uint64_t max_wait_ns, uint32_t *retry_after_s)
{
    size_t n = batch_tokens(request->n_bytes_in, 1);
    uv_mutex_lock(queue->lock);
    double rate = rate_of(queue), wait_s = rate > 0 ? (double)queue->n_tokens / rate : 0;
    /* What nobody waits before is let in, however large it is. */
    bool is_let_in = queue->n_tokens == 0 ||
                     (queue->n_tokens + n <= max_tokens && wait_s * 1e9 < (double)max_wait_ns);
    if (is_let_in)
        queue->n_tokens += request->n_tokens_admitted = n;
    uv_mutex_unlock(queue->lock);
    /* Also of one that is let in, which does not look at it. */
    *retry_after_s = wait_s < 1 ? 1 : wait_s > RETRY_MAX_S ? RETRY_MAX_S : (uint32_t)(wait_s + 1);
    return is_let_in;
}

/* Under the lock: jobs for what waits, beside those that are on their way. */
static struct job *call_takers(struct serve_queue *queue)
{
    struct job *jobs = NULL;
    size_t n_wanted = 0, n_tokens = 0;
    const struct serve_request *request;
    TAILQ_FOREACH(request, &queue->waiting, link)
    {
        n_tokens += request->n_tokens_admitted;
        n_wanted = (n_tokens + SLICE_MIN - 1) / SLICE_MIN;
        /* More jobs than threads would only wait in the pool. */
        if (n_wanted >= queue->n_threads)
            break;
    }
    n_wanted = n_wanted < queue->n_threads ? n_wanted : queue->n_threads;
    assert(queue->n_submitted <= queue->n_takers);
    while (queue->n_submitted < n_wanted && queue->spare) {
        struct job *job = queue->spare;
        queue->spare = job->next;
        job->next = jobs;
        job->then = NULL;
        jobs = job;
        queue->n_submitted++;
    }
    return jobs;
}

/* Under the lock: no text of it will be taken any more. */
static void stop_waiting(struct serve_queue *queue, struct serve_request *request)
{
    if (request->is_waiting)
        TAILQ_REMOVE(&queue->waiting, request, link);
    request->is_waiting = false;
    assert(queue->n_tokens >= request->n_tokens_admitted);
    queue->n_tokens -= request->n_tokens_admitted;
    request->n_tokens_admitted = 0;
}

static void finish(struct serve_queue *queue, struct serve_request *request)
{
    assert(!request->is_finished);
    request->is_finished = true;
    TAILQ_INSERT_TAIL(&queue->finished, request, link);
}

struct job *serve_queue_add(struct serve_queue *queue, struct serve_request *request)
{
    size_t n_tokens = 0;
    for (size_t i = 0; i < request->n_texts; i++)
        n_tokens += serve_estimate(request, i);
    uv_mutex_lock(queue->lock);
    request->queue = queue;
    /* Let in by the length of its body; from here on its texts are counted. */
    stop_waiting(queue, request); /* which gives back what it was let in with */
    /* Refused, read and answered at once (/tokenize), or dropped meanwhile: nothing to embed. */
    if (request->status || request->is_dropped) {
        finish(queue, request);
    } else {
        request->n_left = request->n_texts;
        queue->n_tokens += request->n_tokens_admitted = n_tokens;
        request->is_waiting = true;
        TAILQ_INSERT_TAIL(&queue->waiting, request, link);
    }
    struct job *jobs = call_takers(queue);
    uv_mutex_unlock(queue->lock);
    return jobs;
}

/* Under the lock: texts of one request into a slice. False: there was no room for one, and its turn
 * is still to come. */
static bool take_from(struct serve_queue *queue, struct serve_request *request,
                      struct serve_slice *out, size_t target, uint64_t now_ns)
{
    size_t before = out->n;
    while (request->n_taken < request->n_texts && out->n < SERVE_SLICE_TEXTS) {
        size_t n = serve_estimate(request, request->n_taken);
        /* Half of it would be over the target: it goes with the next slice. The first is taken
         * however long it is. */
        if (out->n && out->n_tokens + n / 2 >= target)
            break;
        out->picks[out->n++] = (struct serve_pick){request, request->n_taken++};
        out->n_tokens += n;
        assert(queue->n_tokens >= n && request->n_tokens_admitted >= n);
        queue->n_tokens -= n;
        request->n_tokens_admitted -= n;
    }
    if (out->n == before)
        return false;
    if (!request->begun_ns)
        request->begun_ns = now_ns;
    TAILQ_REMOVE(&queue->waiting, request, link);
    request->is_waiting = request->n_taken < request->n_texts;
    if (request->is_waiting)
        TAILQ_INSERT_TAIL(&queue->waiting, request, link);
    else
        assert(request->n_tokens_admitted == 0);
    return true;
}

void serve_queue_take(struct serve_queue *queue, struct serve_slice *out, uint64_t now_ns,
                      struct job **more)
{
    out->n = out->n_tokens = 0;
    uv_mutex_lock(queue->lock);
    assert(queue->n_submitted > 0);
    queue->n_submitted--;
    /* What waits is shared evenly with the threads that have nothing to do. */
    size_t n_free = queue->n_threads > queue->n_working ? queue->n_threads - queue->n_working : 1;
    size_t target = queue->n_tokens / n_free;
    target = target < SLICE_MIN ? SLICE_MIN : target > SLICE_MAX ? SLICE_MAX : target;
    struct serve_request *request;
    const struct serve_request *last = TAILQ_LAST(&queue->waiting, serve_requests);
    while ((request = TAILQ_FIRST(&queue->waiting)) && out->n_tokens < target &&
           take_from(queue, request, out, target, now_ns)) {
        if (request == last) /* everybody had a turn */
            break;
    }
    if (out->n) {
        queue->n_slices++;
        queue->n_texts += out->n;
        if (queue->n_working++ == 0)
            queue->busy_since_ns = now_ns;
    }
    *more = call_takers(queue);
    uv_mutex_unlock(queue->lock);
}

/* Under the lock. Several threads finish in turn, so that tokens and times of all of them sum up
 * to what the queue does in a second. */
static void learn_rate(struct serve_queue *queue, size_t n_tokens, uint64_t now_ns)
{
    /* Threads look at the clock before they wait for the lock: whoever comes second may have looked
     * first. */
    if (now_ns < queue->busy_since_ns)
        now_ns = queue->busy_since_ns;
    double seconds = (double)(now_ns - queue->busy_since_ns) * 1e-9;
    /* A mean that forgets: what is RATE_SECONDS old counts a third or so. */
    double kept = seconds < RATE_SECONDS ? 1 - seconds / RATE_SECONDS : 0;
    queue->done_tokens = queue->done_tokens * kept + (double)n_tokens;
    queue->done_seconds = queue->done_seconds * kept + seconds;
    queue->busy_since_ns = now_ns;
}

size_t serve_queue_done(struct serve_queue *queue, const struct serve_slice *slice, uint64_t now_ns,
                        struct serve_request *done[SERVE_SLICE_TEXTS])
{
    size_t n = 0;
    uv_mutex_lock(queue->lock);
    assert(queue->n_working > 0);
    queue->n_working--;
    learn_rate(queue, slice->n_tokens, now_ns);
    for (size_t i = 0; i < slice->n; i++) {
        struct serve_request *request = slice->picks[i].request;
        assert(request->n_left > 0);
        if (--request->n_left > 0)
            continue;
        if (request->is_dropped)
            finish(queue, request);
        else
            /* The thread that ended its last text answers it. */
            done[n++] = request;
    }
    uv_mutex_unlock(queue->lock);
    return n;
}

void serve_queue_finish(struct serve_queue *queue, struct serve_request *request)
{
    uv_mutex_lock(queue->lock);
    finish(queue, request);
    uv_mutex_unlock(queue->lock);
}

/* Under the lock. */
static bool drop(struct serve_request *request)
{
    struct serve_queue *queue = request->queue; /* NULL: it waits in none yet */
    bool was_waiting = request->is_waiting;
    request->is_dropped = true;
    if (!was_waiting)
        return false;
    /* Texts at threads are finished there; those that wait are not begun. */
    assert(request->n_left >= request->n_texts - request->n_taken);
    request->n_left -= request->n_texts - request->n_taken;
    request->n_taken = request->n_texts;
    stop_waiting(queue, request);
    if (request->n_left > 0)
        return false;
    finish(queue, request);
    return true;
}

bool serve_queue_drop(struct serve_queue *any, struct serve_request *request)
{
    uv_mutex_lock(any->lock);
    bool is_finished = !request->is_finished && drop(request);
    uv_mutex_unlock(any->lock);
    return is_finished;
}

struct serve_request *serve_queue_finished(struct serve_queue *queue)
{
    uv_mutex_lock(queue->lock);
    struct serve_request *request = TAILQ_FIRST(&queue->finished);
    if (request)
        TAILQ_REMOVE(&queue->finished, request, link);
    uv_mutex_unlock(queue->lock);
    return request;
}

struct job *serve_queue_return(struct serve_queue *queue, struct job *taker)
{
    uv_mutex_lock(queue->lock);
    taker->next = queue->spare;
    queue->spare = taker;
    struct job *jobs = call_takers(queue);
    uv_mutex_unlock(queue->lock);
    return jobs;
}

struct serve_request *serve_queue_expire(struct serve_queue *queue, uint64_t now_ns)
{
    uv_mutex_lock(queue->lock);
    struct serve_request *request;
    TAILQ_FOREACH(request, &queue->waiting, link)
    {
        /* Not sorted: a request that has had a turn stands behind younger ones. */
        if (request->deadline_ns <= now_ns)
            break;
    }
    if (request)
        drop(request);
    uv_mutex_unlock(queue->lock);
    return request;
}

struct serve_load serve_queue_load(struct serve_queue *queue)
{
    uv_mutex_lock(queue->lock);
    struct serve_load load = {queue->n_tokens, rate_of(queue), queue->n_slices, queue->n_texts};
    uv_mutex_unlock(queue->lock);
    return load;
}
