/*
 * postgres_link.h: one connection to PostgreSQL that comes back, by libpq on our loop.
 *
 * Owns:    which hosts there are, trying one after the other, the wait between attempts, sending a
 *          transaction and reading its results, giving up a server that does not answer.
 * Refuses: what is sent, and what a refusal of the server means.
 * Threads: the loop thread; names are looked up in libuv's thread pool, because libpq would block.
 * Why:     libpq tries several hosts by itself, but without a limit on each when it is driven from
 *          a loop. So each attempt here is of one address.
 */
#ifndef POSTGRES_LINK_H
#define POSTGRES_LINK_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

/* One statement with its parameters, all of them in binary. Borrowed during the call. */
struct postgres_statement {
    const char *sql; /* NULL: the one parsed last in this transaction, with these parameters */
    int n;           /* parameters */
    const Oid *types;
    const char *const *values; /* NULL: only parse it */
    const int *lengths;
};

struct postgres_link_options {
    const char *url;      /* as libpq reads it: a URL or name=value words */
    const char *password; /* NULL: the URL's, PGPASSWORD, or of the password file */
    uint64_t answer_ms;   /* silence that ends a connection on which something is to be answered */
};

struct postgres_link_events {
    void (*on_ready)(void *ctx);
    /* Whatever was sent and is not answered may have been done or not. Connecting again goes on. */
    void (*on_lost)(void *ctx, const char *why);
    /* The result of the nth statement of the transaction under way; borrowed. After one that
     * failed, the others come as PGRES_PIPELINE_ABORTED. */
    void (*on_result)(void *ctx, size_t nth, const PGresult *result);
    /* That transaction is over: committed, if none of its statements failed. */
    void (*on_end)(void *ctx);
    /* Every host refuses this user, password or database. Nothing follows but close. */
    void (*on_failed)(void *ctx, int err, const char *why);
    void (*on_notice)(void *ctx, const char *sqlstate, const char *text);
};

struct postgres_link;

/* 0; -EINVAL: the URL is not one, err says why; -ENOMEM. */
int postgres_link_open(struct postgres_link **out, uv_loop_t *loop,
                       const struct postgres_link_options *options,
                       const struct postgres_link_events *events, void *ctx, char *err,
                       size_t err_size);
/* Connected, and no transaction is under way. */
bool postgres_link_can_send(const struct postgres_link *link);
/* Statements of one transaction, if one can be sent. 0; -EIO: the connection is lost, which
 * on_lost tells later. */
int postgres_link_send(struct postgres_link *link, const struct postgres_statement *statements,
                       size_t n);
/* Begin with a new connection: this server is not the one to write to (any more). */
void postgres_link_renew(struct postgres_link *link, const char *why);
/* What is under way is dropped. closed fires from the loop. Accepts NULL (closed is not called). */
void postgres_link_close(struct postgres_link *link, void (*closed)(void *ctx), void *ctx);

#endif
