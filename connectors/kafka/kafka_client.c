/*
 * kafka_client.c: see kafka_client.h.
 */
#include "connectors/kafka/kafka_client.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define TICK_MS   1000
#define ENDING_MS 10

/* What lives as long as the handle, which is destroyed by a thread of its own. The second of the
 * two that are done with it frees it. */
struct kafka_burial {
    rd_kafka_t *rk;
    struct kafka_log log;
    void *owner;
    int fd;
    bool has_helper;
    uv_thread_t helper; /* uses the handle */
    atomic_int n_done;
};

static void burial_leave(struct kafka_burial *burial)
{
    if (atomic_fetch_add(&burial->n_done, 1) == 0)
        return;
    close(burial->fd); /* not before: the library writes to it up to its end */
    kafka_log_close(&burial->log);
    free(burial);
}

/* On any thread of the library, from the moment that it is made until it is destroyed. */
static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    struct kafka_burial *burial = rd_kafka_opaque(rk);
    kafka_log_add(&burial->log, rk, level, facility, text);
}

void *kafka_client_owner(void *opaque)
{
    return ((struct kafka_burial *)opaque)->owner;
}

void kafka_client_note(void *opaque, rd_kafka_resp_err_t err, const char *text)
{
    struct kafka_burial *burial = opaque;
    bool is_network = err == RD_KAFKA_RESP_ERR__TRANSPORT || err == RD_KAFKA_RESP_ERR__RESOLVE;
    kafka_log_add(&burial->log, burial->rk, is_network ? 6 : 4, rd_kafka_err2name(err), text);
}

void kafka_client_read_log(struct kafka_client *client,
                           void (*on_line)(void *ctx, const struct kafka_line *line), void *ctx)
{
    struct kafka_line *line;
    while ((line = kafka_log_take(&client->burial->log))) {
        on_line(ctx, line);
        free(line);
    }
    size_t n_lost = kafka_log_lost(&client->burial->log);
    /* Lines may have told of jumps in offsets: that some are missing has to be said. */
    if (!n_lost)
        return;
    char text[80];
    struct kafka_line lost = {.level = 4, .facility = "LOST", .text = text};
    snprintf(text, sizeof text, "%zu lines of the library's log were lost", n_lost);
    on_line(ctx, &lost);
}

static bool has_debug(const rd_kafka_conf_t *conf)
{
    char text[512] = "";
    size_t size = sizeof text;
    return rd_kafka_conf_get(conf, "debug", text, &size) != RD_KAFKA_CONF_OK || text[0];
}

/* The handle, which knows its callbacks' owner and log from the first moment. */
static int handle_open(struct kafka_burial *burial, rd_kafka_type_t type, rd_kafka_conf_t *conf,
                       char *err, size_t err_size)
{
    burial->log.prints = has_debug(conf);
    rd_kafka_conf_set_opaque(conf, burial);
    rd_kafka_conf_set_log_cb(conf, on_log);
    burial->rk = rd_kafka_new(type, conf, err, err_size);
    if (burial->rk)
        return 0;
    rd_kafka_conf_destroy(conf);
    return -EINVAL;
}

static void destroy(void *arg)
{
    struct kafka_burial *burial = arg;
    /* One that still asks (kafka_lag.c, kafka_skips.c): each of its calls ends
     * after 5 s at most. */
    if (burial->has_helper)
        uv_thread_join(&burial->helper);
    rd_kafka_destroy_flags(burial->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    burial_leave(burial);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct kafka_client *client = poll->data;
    uint64_t n;
    (void)status, (void)events;
    if (read(client->fd, &n, sizeof n) < 0 && errno != EAGAIN)
        uv_poll_stop(poll); /* the tick is left */
    client->on_wake(client->ctx, false);
}

static void on_tick(uv_timer_t *timer)
{
    struct kafka_client *client = timer->data;
    client->on_wake(client->ctx, true);
}

int kafka_client_open(struct kafka_client **out, uv_loop_t *loop, rd_kafka_type_t type,
                      rd_kafka_conf_t *conf, void *owner, void (*on_wake)(void *ctx, bool is_tick),
                      void *ctx, char *err, size_t err_size)
{
    struct kafka_client *client = calloc(1, sizeof *client);
    struct kafka_burial *burial = calloc(1, sizeof *burial);
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int rc = -ENOMEM;
    if (!client || !burial || fd < 0 || kafka_log_open(&burial->log, fd)) {
        snprintf(err, err_size, "out of memory or of file descriptors");
        rd_kafka_conf_destroy(conf);
        goto fail;
    }
    burial->fd = fd;
    burial->owner = owner;
    rc = handle_open(burial, type, conf, err, err_size);
    if (rc) {
        kafka_log_close(&burial->log);
        goto fail;
    }
    client->rk = burial->rk;
    client->burial = burial;
    client->loop = loop;
    client->fd = fd;
    client->on_wake = on_wake;
    client->ctx = ctx;
    uv_poll_init(loop, &client->poll, fd);
    uv_timer_init(loop, &client->tick);
    uv_timer_init(loop, &client->ending);
    client->poll.data = client->tick.data = client->ending.data = client;
    /* Before they start: each counts down in on_handle_closed. */
    client->n_open = 3;
    uv_poll_start(&client->poll, UV_READABLE, on_readable);
    uv_timer_start(&client->tick, on_tick, TICK_MS, TICK_MS);
    *out = client;
    return 0;
fail:
    if (fd >= 0)
        close(fd);
    free(burial);
    free(client);
    return rc;
}

void kafka_client_watch(struct kafka_client *client, rd_kafka_queue_t *queue)
{
    static const uint64_t one = 1;
    rd_kafka_queue_io_event_enable(queue, client->fd, &one, sizeof one);
}

int kafka_client_help(struct kafka_client *client, void (*run)(void *arg), void *arg)
{
    int rc = uv_thread_create(&client->burial->helper, run, arg);
    client->burial->has_helper = rc == 0;
    return rc;
}

void kafka_client_helped(struct kafka_client *client)
{
    uv_thread_join(&client->burial->helper);
    client->burial->has_helper = false;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct kafka_client *client = handle->data;
    assert(client->n_open > 0);
    if (--client->n_open)
        return;
    if (!client
             ->is_abandoned) /* else it stays with the handle, which writes to log and descriptor */
        burial_leave(client->burial);
    if (client->closed)
        client->closed(client->closed_ctx);
    free(client);
}

static void on_ending(uv_timer_t *timer)
{
    struct kafka_client *client = timer->data;
    /* Destroying waits for the library's threads; past the deadline it goes on without us. */
    if (atomic_load(&client->burial->n_done) == 0 && uv_now(client->loop) < client->end_by_ms)
        return;
    uv_close((uv_handle_t *)&client->ending, on_handle_closed);
}

static void close_handles(struct kafka_client *client, uint64_t deadline_ms,
                          void (*closed)(void *ctx), void *ctx)
{
    client->closed = closed;
    client->closed_ctx = ctx;
    client->end_by_ms = uv_now(client->loop) + deadline_ms;
    uv_close((uv_handle_t *)&client->poll, on_handle_closed);
    uv_close((uv_handle_t *)&client->tick, on_handle_closed);
    uv_timer_start(&client->ending, on_ending, ENDING_MS, ENDING_MS);
}

void kafka_client_close(struct kafka_client *client, uint64_t deadline_ms,
                        void (*closed)(void *ctx), void *ctx)
{
    uv_thread_t thread;
    if (uv_thread_create(&thread, destroy, client->burial) == 0)
        pthread_detach(thread);
    else
        /* No thread to be had: better blocked for a moment than a handle left open. */
        destroy(client->burial);
    close_handles(client, deadline_ms, closed, ctx);
}

void kafka_client_abandon(struct kafka_client *client, void (*closed)(void *ctx), void *ctx)
{
    client->is_abandoned = true;
    /* Nobody joins it: destroy, which would, does not run. */
    if (client->burial->has_helper)
        pthread_detach(client->burial->helper);
    close_handles(client, 0, closed, ctx);
}
