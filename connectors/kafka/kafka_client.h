/*
 * kafka_client.h: a librdkafka handle on a loop.
 *
 * Owns:    the handle, the descriptor by which it wakes the loop, its end.
 * Refuses: what consumers and producers do with it.
 * Threads: the loop thread, but for the destruction of the handle, which waits for the library's
 *          threads and therefore happens on a thread of its own.
 * Why:     the descriptor tells only that a queue was empty and is not any more, so everything must
 *          be polled until nothing is left, and once a second whatever it says: a consumer that is
 *          not polled is expelled from its group.
 */
#ifndef KAFKA_CLIENT_H
#define KAFKA_CLIENT_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/kafka/kafka_log.h"

struct kafka_client {
    rd_kafka_t *rk;
    uv_loop_t *loop;
    int fd;
    uv_poll_t poll;
    uv_timer_t tick, ending;
    void (*on_wake)(void *ctx, bool is_tick);
    void *ctx;
    struct kafka_burial *burial;
    bool is_abandoned;
    uint64_t end_by_ms;
    size_t n_open; /* handles */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/*
 * Takes conf, also on failure. owner: what the callbacks in conf find by kafka_client_owner.
 * on_wake comes from the loop whenever there may be something to poll. 0; -EINVAL with a sentence.
 */
int kafka_client_open(struct kafka_client **out, uv_loop_t *loop, rd_kafka_type_t type,
                      rd_kafka_conf_t *conf, void *owner, void (*on_wake)(void *ctx, bool is_tick),
                      void *ctx, char *err, size_t err_size);
/* In a callback of the library, by the opaque that it brings. */
void *kafka_client_owner(void *opaque);
/* In an error callback that does nothing else about the error: it becomes a line of the log. */
void kafka_client_note(void *opaque, rd_kafka_resp_err_t err, const char *text);
/* The lines of the log that are not read yet; the caller says what it does with each. */
void kafka_client_read_log(struct kafka_client *client,
                           void (*on_line)(void *ctx, const struct kafka_line *line), void *ctx);
/* Let this queue wake the loop too. */
void kafka_client_watch(struct kafka_client *client, rd_kafka_queue_t *queue);
/* A thread that makes blocking calls with the handle: run is called on it, and the handle is
 * destroyed only when it has returned. One at a time. 0 or negative errno. */
int kafka_client_help(struct kafka_client *client, void (*run)(void *arg), void *arg);
/* It has returned, or is about to. */
void kafka_client_helped(struct kafka_client *client);
/*
 * Takes client; no event follows but closed (may be NULL), at the latest after deadline_ms: then
 * the handle is left to its thread. A consumer must have been closed, or leaves without a word.
 */
void kafka_client_close(struct kafka_client *client, uint64_t deadline_ms,
                        void (*closed)(void *ctx), void *ctx);
/* The same, but the handle is left as it is: a thread hangs in it. */
void kafka_client_abandon(struct kafka_client *client, void (*closed)(void *ctx), void *ctx);

#endif
