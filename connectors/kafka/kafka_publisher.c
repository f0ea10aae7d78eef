/*
 * kafka_publisher.c: see kafka_publisher.h.
 *
 * Errors of transactions come in three kinds: try the same call again; abort; or the producer is
 * finished. Anything the library does not class is taken for the last.
 */
#include "connectors/kafka/kafka_publisher.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/kafka/kafka_client.h"

#define CALL_MS 10000 /* one call, where the library keeps to its timeout */

/* FINISHING: the burst is done and the loop is being told. LEFT: the loop waits no more. */
enum state { IDLE, BUSY, FINISHING, LEFT };

struct kafka_publisher {
    const struct kafka_config *config;
    rd_kafka_t *consumer, *producer;
    bool is_ready; /* the producer's transactions are initialised */
    void (*done)(void *ctx);
    void *ctx;
    uv_thread_t thread;
    uv_sem_t wake;
    atomic_int state;
    atomic_bool stop, reading; /* reading: records and config are looked at */
    _Atomic(const char *) call;
    atomic_uint_fast64_t call_since; /* uv_hrtime */
    uv_mutex_t news_lock;            /* of the two below, which either thread's polling writes */
    bool has_news;
    char trouble[240]; /* what keeps the brokers away; "": one is up */
    struct kafka_burst burst;
};

/* ---- on the thread */

enum step { STEP_OK, STEP_AGAIN, STEP_ABORT, STEP_RENEW };

static void enter(struct kafka_publisher *publisher, const char *call)
{
    /* The time first: whoever sees the call must not take its age from the one before. */
    atomic_store(&publisher->call_since, uv_hrtime());
    atomic_store(&publisher->call, call);
}

/* What a call came to; an error is noted in the burst. */
static enum step leave(struct kafka_publisher *publisher, rd_kafka_error_t *error)
{
    struct kafka_burst *burst = &publisher->burst;
    assert(burst->n <= KAFKA_BURST_MAX);
    const char *call = atomic_exchange(&publisher->call, NULL);
    enum step step = STEP_RENEW;
    if (!error)
        return STEP_OK;
    /* In this order: what is fatal needs a new producer, whatever else is said of it. */
    if (rd_kafka_error_is_fatal(error))
        step = STEP_RENEW;
    else if (rd_kafka_error_txn_requires_abort(error))
        step = STEP_ABORT;
    else if (rd_kafka_error_is_retriable(error))
        step = STEP_AGAIN;
    burst->err = rd_kafka_error_code(error);
    snprintf(burst->why, sizeof burst->why, "%s: %s", call, rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
    return step;
}

static bool is_stopped(const struct kafka_publisher *publisher)
{
    return atomic_load(&publisher->stop);
}

static enum step make_ready(struct kafka_publisher *publisher)
{
    if (publisher->is_ready)
        return STEP_OK;
    /* Fences who had this transactional.id before, and aborts what it left open. */
    enter(publisher, "initialising transactions");
    enum step step = leave(publisher, rd_kafka_init_transactions(publisher->producer, CALL_MS));
    publisher->is_ready = step == STEP_OK;
    return step;
}

/* A fatal error that came while records were handed over; other calls tell of theirs. */
static enum step end_of_producer(struct kafka_publisher *publisher)
{
    struct kafka_burst *burst = &publisher->burst;
    char text[200];
    burst->err = rd_kafka_fatal_error(publisher->producer, text, sizeof text);
    snprintf(burst->why, sizeof burst->why, "producing: %s", text);
    return STEP_RENEW;
}

static enum step produce(struct kafka_publisher *publisher)
{
    struct kafka_burst *burst = &publisher->burst;
    enum step step = STEP_OK;
    atomic_store(&publisher->reading, true);
    for (size_t i = 0; i < burst->n && step == STEP_OK && !is_stopped(publisher); i++) {
        struct kafka_item *item = &burst->items[i];
        if (!item->record->n_parts)
            continue; /* given up: only its offset is committed */
        do {
            item->err = kafka_record_produce(publisher->producer, publisher->config, item->record,
                                             &item->form, item);
        } while (item->err == RD_KAFKA_RESP_ERR__QUEUE_FULL && !is_stopped(publisher) &&
                 rd_kafka_poll(publisher->producer, 10) >= 0);
        if (item->err == RD_KAFKA_RESP_ERR__FATAL)
            step = end_of_producer(publisher);
        /* One refused record spoils the transaction: the others would be committed without it. */
        else if (item->err)
            step = STEP_ABORT;
    }
    atomic_store(&publisher->reading, false);
    /* Whoever waits for `reading` to be false may free the records now. */
    return is_stopped(publisher) ? STEP_ABORT : step;
}

/* What became of the records is known when they are delivered; then nothing of it is to count. */
static enum step try_only(struct kafka_publisher *publisher)
{
    enter(publisher, "trying whether records pass");
    /* Delivery reports say of each record whether it passed; the abort takes all of them back. */
    rd_kafka_flush(publisher->producer, CALL_MS);
    atomic_store(&publisher->call, NULL);
    return STEP_ABORT;
}

static enum step send_offsets(struct kafka_publisher *publisher)
{
    struct kafka_burst *burst = &publisher->burst;
    enum step step;
    do {
        /* With the membership of the burst: a broker that knows of a newer one
         * refuses all of it. */
        enter(publisher, "sending offsets to the transaction");
        step = leave(publisher, rd_kafka_send_offsets_to_transaction(
                                    publisher->producer, burst->offsets, burst->group, CALL_MS));
    } while (step == STEP_AGAIN && !is_stopped(publisher));
    return step;
}

/* A commit that ran out of time goes on where it was when called again. */
static enum step commit(struct kafka_publisher *publisher)
{
    enum step step;
    do {
        enter(publisher, "committing the transaction");
        step = leave(publisher, rd_kafka_commit_transaction(publisher->producer, CALL_MS));
    } while (step == STEP_AGAIN && !is_stopped(publisher));
    return step;
}

static enum step undo(struct kafka_publisher *publisher)
{
    char why[sizeof publisher->burst.why];
    rd_kafka_resp_err_t err = publisher->burst.err;
    enum step step;
    memcpy(why, publisher->burst.why, sizeof why);
    do {
        enter(publisher, "aborting the transaction");
        step = leave(publisher, rd_kafka_abort_transaction(publisher->producer, CALL_MS));
    } while (step == STEP_AGAIN && !is_stopped(publisher));
    memcpy(publisher->burst.why, why, sizeof why); /* the cause says more than its consequence */
    publisher->burst.err = err;
    return step;
}

/*
 * Was the commit made that failed? Nothing is pending any more, since the producer is a new one.
 * Committed as far as ours or further: either it was, or another member has done the same inputs
 * meanwhile. Less: it was not. No loss of input moves a committed offset: not retention, not
 * the deletion of records, not a new leader that is behind the old one. Only with the topic itself
 * are they deleted; when one of that name is made again under a running worker, what was in doubt
 * may come out twice, of a topic that was deleted (docs/reliability.md says so).
 */
static enum step look_up(struct kafka_publisher *publisher)
{
    struct kafka_burst *burst = &publisher->burst;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_copy(burst->offsets);
    rd_kafka_resp_err_t err;
    do {
        enter(publisher, "looking up committed offsets");
        err = rd_kafka_committed(publisher->consumer, list, CALL_MS);
        atomic_store(&publisher->call, NULL);
    } while (err && !is_stopped(publisher));
    burst->outcome = err ? OUTCOME_UNKNOWN : OUTCOME_COMMITTED;
    for (int i = 0; !err && i < list->cnt; i++)
        if (list->elems[i].err || list->elems[i].offset < burst->offsets->elems[i].offset)
            burst->outcome = OUTCOME_ABORTED;
    rd_kafka_topic_partition_list_destroy(list);
    return STEP_OK;
}

static void run_burst(struct kafka_publisher *publisher)
{
    struct kafka_burst *burst = &publisher->burst;
    burst->outcome = burst->in_doubt ? OUTCOME_UNKNOWN : OUTCOME_ABORTED;
    burst->err = RD_KAFKA_RESP_ERR_NO_ERROR;
    burst->renew = false;
    burst->why[0] = '\0';
    enum step step = make_ready(publisher);
    /* No transaction in this one: only ready to make, or in doubt to be settled. */
    if (step != STEP_OK || burst->n == 0 || burst->in_doubt) {
        burst->renew = step == STEP_RENEW || step == STEP_ABORT;
        if (step == STEP_OK && burst->in_doubt)
            look_up(publisher);
        else if (step == STEP_OK)
            burst->outcome = OUTCOME_COMMITTED;
        return;
    }
    enter(publisher, "beginning a transaction");
    step = leave(publisher, rd_kafka_begin_transaction(publisher->producer));
    if (step == STEP_OK)
        step = produce(publisher);
    if (step == STEP_OK && burst->is_trial)
        step = try_only(publisher);
    if (step == STEP_OK)
        step = send_offsets(publisher);
    if (step == STEP_OK) {
        step = commit(publisher);
        if (step == STEP_OK)
            burst->outcome = OUTCOME_COMMITTED;
        /* The broker may have written the commit although its answer did not come. */
        else if (step != STEP_ABORT)
            burst->outcome = OUTCOME_UNKNOWN;
    }
    if (step == STEP_ABORT)
        step = undo(publisher);
    burst->renew = step != STEP_OK;
}

static void run(void *arg)
{
    struct kafka_publisher *publisher = arg;
    while (uv_sem_wait(&publisher->wake), !is_stopped(publisher)) {
        int busy = BUSY;
        run_burst(publisher);
        if (!atomic_compare_exchange_strong(&publisher->state, &busy, FINISHING))
            return; /* the loop may be gone */
        /* While FINISHING the loop waits for us, so its memory is there to be called. */
        publisher->done(publisher->ctx);
        atomic_store(&publisher->state, IDLE);
    }
}

/* ---- on whichever thread polls: this one during a burst */

static void on_delivered(rd_kafka_t *rk, const rd_kafka_message_t *native, void *opaque)
{
    (void)rk, (void)opaque;
    struct kafka_item *item = native->_private;
    item->err = native->err;
    item->passed = !native->err;
}

static void note_trouble(struct kafka_publisher *publisher, const char *text)
{
    uv_mutex_lock(&publisher->news_lock);
    snprintf(publisher->trouble, sizeof publisher->trouble, "%s", text);
    publisher->has_news = true;
    uv_mutex_unlock(&publisher->news_lock);
}

static void on_error(rd_kafka_t *rk, int code, const char *text, void *opaque)
{
    (void)rk;
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || code == RD_KAFKA_RESP_ERR__AUTHENTICATION ||
        code == RD_KAFKA_RESP_ERR__SSL)
        note_trouble(kafka_client_owner(opaque), text);
    else
        kafka_client_note(opaque, (rd_kafka_resp_err_t)code, text);
}

/* There is no event for a broker that is back: see kafka_source.c. */
static int on_statistics(rd_kafka_t *rk, char *json, size_t len, void *opaque)
{
    (void)rk, (void)len;
    if (strstr(json, "\"state\":\"UP\""))
        note_trouble(kafka_client_owner(opaque), "");
    return 0;
}

/* ---- on the loop */

int kafka_publisher_open(struct kafka_publisher **out, const struct kafka_config *config,
                         rd_kafka_t *consumer, void (*done)(void *ctx), void *ctx)
{
    struct kafka_publisher *publisher = calloc(1, sizeof *publisher);
    if (!publisher)
        return -ENOMEM;
    publisher->config = config;
    publisher->consumer = consumer;
    publisher->done = done;
    publisher->ctx = ctx;
    int rc = uv_mutex_init(&publisher->news_lock);
    if (rc)
        goto fail;
    rc = uv_sem_init(&publisher->wake, 0);
    if (rc == 0 && (rc = uv_thread_create(&publisher->thread, run, publisher)) != 0)
        uv_sem_destroy(&publisher->wake);
    if (rc) {
        uv_mutex_destroy(&publisher->news_lock);
        goto fail;
    }
    *out = publisher;
    return 0;
fail:
    free(publisher);
    return rc;
}

void kafka_publisher_configure(rd_kafka_conf_t *conf)
{
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivered);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_stats_cb(conf, on_statistics);
}

bool kafka_publisher_news(struct kafka_publisher *publisher, char *text, size_t size)
{
    uv_mutex_lock(&publisher->news_lock);
    bool is_news = publisher->has_news;
    publisher->has_news = false;
    snprintf(text, size, "%s", publisher->trouble);
    uv_mutex_unlock(&publisher->news_lock);
    return is_news;
}

struct kafka_burst *kafka_publisher_burst(struct kafka_publisher *publisher)
{
    return &publisher->burst;
}

bool kafka_publisher_is_idle(const struct kafka_publisher *publisher)
{
    int state;
    while ((state = atomic_load(&publisher->state)) == FINISHING) /* for some microseconds */
        sched_yield();
    return state == IDLE;
}

void kafka_publisher_use(struct kafka_publisher *publisher, rd_kafka_t *producer)
{
    publisher->producer = producer;
    publisher->is_ready = false;
}

void kafka_publisher_submit(struct kafka_publisher *publisher)
{
    atomic_store(&publisher->state, BUSY);
    uv_sem_post(&publisher->wake);
}

const char *kafka_publisher_call(const struct kafka_publisher *publisher, uint64_t *ms)
{
    const char *call = atomic_load(&publisher->call);
    uint64_t since = atomic_load(&publisher->call_since), now = uv_hrtime();
    *ms = now > since ? (now - since) / 1000000 : 0;
    return call;
}

bool kafka_publisher_close(struct kafka_publisher *publisher)
{
    int busy = BUSY;
    atomic_store(&publisher->stop, true);
    while (atomic_load(&publisher->reading)) /* which is a matter of microseconds */
        uv_sleep(1);
    if (atomic_compare_exchange_strong(&publisher->state, &busy, LEFT)) {
        pthread_detach(publisher->thread);
        return false;
    }
    /* Idle, or about to be: it wakes, sees stop and returns. */
    uv_sem_post(&publisher->wake);
    uv_thread_join(&publisher->thread);
    uv_sem_destroy(&publisher->wake);
    uv_mutex_destroy(&publisher->news_lock);
    free(publisher);
    return true;
}
