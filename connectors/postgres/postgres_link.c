/*
 * postgres_link.c: see postgres_link.h. Addresses of a host are tried in turn, then the next host;
 * when none is left the whole round has failed and is begun again after a pause.
 */
#include "connectors/postgres/postgres_link.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/health.h"
#include "connectors/postgres/postgres_hosts.h"
#include "connectors/postgres/postgres_refusal.h"

#define WHY_SIZE 640

/* A handle for one socket: libpq closes sockets and opens others with the same number, which a
 * handle that stayed would not notice. */
struct watch {
    uv_poll_t poll;
    struct postgres_link *link; /* NULL: nobody wants to know any more */
};

struct lookup {
    uv_getaddrinfo_t req;
    struct postgres_link *link; /* NULL: given up */
};

enum phase { PHASE_PAUSE, PHASE_LOOKUP, PHASE_CONNECT, PHASE_IDLE, PHASE_BUSY, PHASE_CLOSED };

struct postgres_link {
    uv_loop_t *loop;
    const struct postgres_link_events *events;
    void *ctx;
    struct postgres_hosts hosts;
    char *password;
    uint64_t answer_ms;
    enum phase phase;
    PGconn *conn;
    struct watch *watch;
    struct lookup *lookup;
    struct addrinfo *addresses, *next_address;
    size_t host;                /* that is tried */
    size_t n_statements;        /* of the transaction under way, ... */
    size_t n_results;           /* ... of which so many are answered */
    size_t n_attempts, n_final; /* of this round; refused for good */
    uv_timer_t timer;           /* of the phase */
    struct backoff backoff;
    char why[WHY_SIZE]; /* the last attempt failed */
    size_t n_open;      /* handles still to be closed */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static void connect_next(struct postgres_link *link);
static void on_socket(uv_poll_t *poll, int status, int events);

/* ---- sockets */

static void link_freed(struct postgres_link *link)
{
    void (*closed)(void *) = link->closed;
    void *ctx = link->closed_ctx;
    assert(link->n_open > 0);
    /* The timer alone: watches free themselves, and lookups find that nobody waits. */
    if (--link->n_open)
        return;
    postgres_hosts_close(&link->hosts);
    free(link->password);
    free(link);
    if (closed)
        closed(ctx);
}

static void on_watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void watch_stop(struct postgres_link *link)
{
    struct watch *watch = link->watch;
    link->watch = NULL;
    if (!watch)
        return;
    /* libpq may change its socket at any step of connecting, so a watch is never used again. */
    watch->link = NULL;
    /* Before PQfinish closes the socket: epoll would keep a number that somebody else gets. */
    uv_poll_stop(&watch->poll);
    uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
}

/* 0 or a negative errno. */
static int watch_start(struct postgres_link *link, int events)
{
    struct watch *watch = calloc(1, sizeof *watch);
    int rc = watch ? uv_poll_init(link->loop, &watch->poll, PQsocket(link->conn)) : -ENOMEM;
    if (rc) {
        free(watch);
        return rc;
    }
    watch->poll.data = watch;
    watch->link = link;
    link->watch = watch;
    return uv_poll_start(&watch->poll, events, on_socket);
}

static void drop_conn(struct postgres_link *link)
{
    watch_stop(link);
    if (link->conn)
        PQfinish(link->conn);
    link->conn = NULL;
}

static void drop_lookup(struct postgres_link *link)
{
    if (link->addresses)
        uv_freeaddrinfo(link->addresses);
    link->addresses = link->next_address = NULL;
    if (link->lookup) {
        /* It cannot be cancelled once it runs: its callback finds that nobody waits. */
        link->lookup->link = NULL;
        uv_cancel((uv_req_t *)&link->lookup->req);
        link->lookup = NULL;
    }
}

/* ---- a round of attempts */

static void round_begin(struct postgres_link *link)
{
    link->host = 0;
    link->n_attempts = link->n_final = 0;
    drop_lookup(link);
    connect_next(link);
}

static void on_pause_over(uv_timer_t *timer)
{
    round_begin(timer->data);
}

static void pause_then_connect(struct postgres_link *link)
{
    link->phase = PHASE_PAUSE;
    uv_timer_start(&link->timer, on_pause_over, backoff_next(&link->backoff), 0);
}

/* All that could be tried was. */
static void round_failed(struct postgres_link *link)
{
    /* One host that did not answer may be the one that lets this user in. */
    bool is_final = link->n_attempts && link->n_final == link->n_attempts;
    if (is_final) {
        /* Before the event: nothing is tried any more, and close is what follows. */
        link->phase = PHASE_CLOSED;
        link->events->on_failed(link->ctx, -EACCES, link->why);
        return;
    }
    pause_then_connect(link);
    link->events->on_lost(link->ctx, link->why);
}

/* why: NULL, or what is wrong if libpq does not say it. */
static void attempt_failed(struct postgres_link *link, const char *why)
{
    const struct postgres_host *host = &link->hosts.items[link->host];
    const char *name = host->name ? host->name : host->address ? host->address : "the server";
    char said[400];
    link->n_attempts++;
    if (why)
        snprintf(said, sizeof said, "%.380s", why);
    else
        /* Final only if all hosts refuse this user: one that is a replica, or starting, may take
         * it soon. */
        link->n_final += postgres_refusal_of_login(PQerrorMessage(link->conn), said, sizeof said);
    if (strncmp(said, "connection to", 13) == 0) /* it names the server itself */
        snprintf(link->why, sizeof link->why, "%s", said);
    else
        snprintf(link->why, sizeof link->why, "%.200s: %.400s", name, said);
    /* After its message was read, which goes with it. */
    drop_conn(link);
    /* All addresses of a name are tried before the next host. */
    if (!link->next_address)
        link->host++;
    connect_next(link);
}

static void on_connect_timeout(uv_timer_t *timer)
{
    struct postgres_link *link = timer->data;
    if (link->phase == PHASE_LOOKUP) {
        drop_lookup(link);
        attempt_failed(link, "the name server does not answer");
    } else {
        attempt_failed(link, "no answer to connecting");
    }
}

static void on_connected(struct postgres_link *link)
{
    /* From here on libpq keeps its socket, and one watch is enough. */
    int rc = PQenterPipelineMode(link->conn) && PQsetnonblocking(link->conn, 1) == 0
                 ? watch_start(link, UV_READABLE)
                 : -EIO;
    if (rc) {
        attempt_failed(link, uv_strerror(rc));
        return;
    }
    uv_timer_stop(&link->timer);
    /* The other addresses: after a loss names are looked up anew. */
    drop_lookup(link);
    link->phase = PHASE_IDLE;
    link->n_results = 0;
    link->backoff.attempts = 0;
    link->events->on_ready(link->ctx);
}

static void connect_step(struct postgres_link *link)
{
    watch_stop(link);
    PostgresPollingStatusType next = PQconnectPoll(link->conn);
    if (next == PGRES_POLLING_OK) {
        on_connected(link);
        return;
    }
    /* libpq may wait for the other direction each time (TLS, a login). */
    int events = next == PGRES_POLLING_READING ? UV_READABLE : UV_WRITABLE;
    if (next == PGRES_POLLING_FAILED || watch_start(link, events))
        attempt_failed(link, next == PGRES_POLLING_FAILED ? NULL : "no memory for a connection");
}

/* What a server says beside its answers. */
static void on_notice(void *arg, const PGresult *result)
{
    struct postgres_link *link = arg;
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    char text[300];
    postgres_message(PQresultErrorMessage(result), text, sizeof text);
    if (link->events->on_notice)
        link->events->on_notice(link->ctx, state ? state : "", text);
}

/* address: numeric, or NULL where the host is none that has a name. */
static void connect_to(struct postgres_link *link, const char *address)
{
    link->phase = PHASE_CONNECT;
    link->conn = postgres_hosts_connect(&link->hosts, &link->hosts.items[link->host], address,
                                        link->password);
    if (!link->conn || PQstatus(link->conn) == CONNECTION_BAD) {
        attempt_failed(link, link->conn ? NULL : "no memory for a connection");
        return;
    }
    PQsetErrorVerbosity(link->conn, PQERRORS_VERBOSE); /* the code of a refused login, too */
    PQsetNoticeReceiver(link->conn, on_notice, link);
    /* For each address: libpq's own limit does not count for PQconnectPoll. */
    uv_timer_start(&link->timer, on_connect_timeout, link->hosts.connect_ms, 0);
    if (watch_start(link, UV_WRITABLE))
        attempt_failed(link, "no memory for a connection");
}

static void on_lookup(uv_getaddrinfo_t *req, int status, struct addrinfo *addresses)
{
    struct lookup *lookup = req->data;
    struct postgres_link *link = lookup->link;
    char why[128];
    free(lookup);
    if (!link) {
        uv_freeaddrinfo(addresses);
        return;
    }
    link->lookup = NULL;
    if (status < 0) {
        snprintf(why, sizeof why, "the name cannot be resolved: %s", uv_strerror(status));
        attempt_failed(link, why);
        return;
    }
    link->addresses = link->next_address = addresses;
    connect_next(link);
}

static void look_up(struct postgres_link *link)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    struct lookup *lookup = calloc(1, sizeof *lookup);
    link->phase = PHASE_LOOKUP;
    int rc = -ENOMEM;
    if (lookup) {
        *lookup = (struct lookup){.link = link};
        lookup->req.data = lookup;
        rc = uv_getaddrinfo(link->loop, &lookup->req, on_lookup, link->hosts.items[link->host].name,
                            NULL, &hints);
    }
    if (rc) {
        free(lookup);
        attempt_failed(link, uv_strerror(rc));
        return;
    }
    link->lookup = lookup;
    uv_timer_start(&link->timer, on_connect_timeout, link->hosts.connect_ms, 0);
}

static void connect_next(struct postgres_link *link)
{
    char address[64];
    uv_timer_stop(&link->timer);
    if (link->next_address) {
        const struct addrinfo *found = link->next_address;
        link->next_address = found->ai_next;
        if (found->ai_family == AF_INET6)
            uv_ip6_name((const struct sockaddr_in6 *)found->ai_addr, address, sizeof address);
        else
            uv_ip4_name((const struct sockaddr_in *)found->ai_addr, address, sizeof address);
        connect_to(link, address);
        return;
    }
    drop_lookup(link);
    if (link->host >= link->hosts.n)
        round_failed(link);
    else if (postgres_host_is_name(&link->hosts.items[link->host]))
        look_up(link);
    else
        connect_to(link, NULL);
}

/* ---- a connection at work */

static void link_lost(struct postgres_link *link, const char *why)
{
    snprintf(link->why, sizeof link->why, "%.500s", why);
    drop_conn(link);
    /* Before the event, in which the owner may close the link. */
    pause_then_connect(link);
    link->events->on_lost(link->ctx, link->why);
}

static void on_silence(uv_timer_t *timer)
{
    struct postgres_link *link = timer->data;
    link_lost(link, "the server does not answer");
}

static void lost_by_libpq(struct postgres_link *link)
{
    char said[400];
    postgres_message(PQerrorMessage(link->conn), said, sizeof said);
    link_lost(link, *said ? said : "the server closed the connection");
}

/* One result of the transaction under way; NULL ends those of a statement. False: no more now. */
static bool take_result(struct postgres_link *link)
{
    PGresult *result = PQgetResult(link->conn);
    /* Results are counted by the NULL that ends each statement; one may have several before it. */
    size_t nth = link->n_results;
    if (!result) {
        link->n_results++;
        /* The last NULL is that of the sync, which comes as a result of its own. */
        return link->n_results <= link->n_statements;
    }
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_PIPELINE_SYNC) {
        link->events->on_result(link->ctx, nth, result);
        PQclear(result);
        return link->phase == PHASE_BUSY;
    }
    PQclear(result);
    link->n_results = 0;
    uv_timer_stop(&link->timer);
    link->phase = PHASE_IDLE;
    link->events->on_end(link->ctx);
    return link->phase == PHASE_BUSY;
}

static void read_results(struct postgres_link *link)
{
    if (!PQconsumeInput(link->conn)) {
        lost_by_libpq(link);
        return;
    }
    /* Any byte is a sign of life, as of a transaction with many results. */
    if (link->phase == PHASE_BUSY)
        uv_timer_start(&link->timer, on_silence, link->answer_ms, 0);
    while (link->phase == PHASE_BUSY && !PQisBusy(link->conn))
        if (!take_result(link))
            break;
    /* An event above may have closed the link, and then there is no connection to ask. */
    if (link->conn && PQstatus(link->conn) == CONNECTION_BAD)
        lost_by_libpq(link);
}

/* 0 or -EIO; writes what the kernel takes and asks for the rest. */
static int flush(struct postgres_link *link)
{
    int rc = PQflush(link->conn);
    if (rc < 0)
        return -EIO;
    /* Watched for writing only as long as something waits: else the loop would spin. */
    return uv_poll_start(&link->watch->poll, UV_READABLE | (rc ? UV_WRITABLE : 0), on_socket);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    struct watch *watch = poll->data;
    struct postgres_link *link = watch->link;
    /* Stopped, and its closing is under way. */
    if (!link)
        return;
    if (link->phase == PHASE_CONNECT) {
        connect_step(link);
        return;
    }
    if (status < 0 || (events & UV_READABLE))
        read_results(link);
    if (link->conn && link->phase == PHASE_BUSY && (events & UV_WRITABLE) && flush(link))
        lost_by_libpq(link);
}

bool postgres_link_can_send(const struct postgres_link *link)
{
    return link->phase == PHASE_IDLE;
}

static void on_send_failed(uv_timer_t *timer)
{
    lost_by_libpq(timer->data);
}

int postgres_link_send(struct postgres_link *link, const struct postgres_statement *statements,
                       size_t n)
{
    /* All parameters in binary, 16 at most (asserted below). */
    static const int binary[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    int ok = 1;
    assert(postgres_link_can_send(link) && n > 0);
    for (size_t i = 0; i < n && ok; i++) {
        const struct postgres_statement *s = &statements[i];
        assert(s->n <= 16);
        if (!s->sql)
            ok = PQsendQueryPrepared(link->conn, "", s->n, s->values, s->lengths, binary, 0);
        else if (!s->values)
            ok = PQsendPrepare(link->conn, "", s->sql, s->n, s->types);
        else
            ok = PQsendQueryParams(link->conn, s->sql, s->n, s->types, s->values, s->lengths,
                                   binary, 0);
    }
    /* Also of one that failed: nothing else is sent before its loss was reported. */
    link->phase = PHASE_BUSY;
    link->n_statements = n;
    if (ok && PQpipelineSync(link->conn) && flush(link) == 0) {
        uv_timer_start(&link->timer, on_silence, link->answer_ms, 0);
        return 0;
    }
    uv_timer_start(&link->timer, on_send_failed, 0, 0); /* no event inside a call */
    return -EIO;
}

void postgres_link_renew(struct postgres_link *link, const char *why)
{
    if (link->phase == PHASE_IDLE || link->phase == PHASE_BUSY)
        link_lost(link, why);
}

/* ---- the life of a link */

int postgres_link_open(struct postgres_link **out, uv_loop_t *loop,
                       const struct postgres_link_options *options,
                       const struct postgres_link_events *events, void *ctx, char *err,
                       size_t err_size)
{
    struct postgres_link *link = calloc(1, sizeof *link);
    int rc = -ENOMEM;
    snprintf(err, err_size, "out of memory");
    if (!link)
        return rc;
    *link = (struct postgres_link){
        .loop = loop, .events = events, .ctx = ctx, .answer_ms = options->answer_ms};
    if (options->password && *options->password && !(link->password = strdup(options->password)))
        goto fail;
    rc = postgres_hosts_open(&link->hosts, options->url, err, err_size);
    if (rc)
        goto fail;
    uv_timer_init(loop, &link->timer);
    link->timer.data = link;
    link->n_open = 1;
    uv_timer_start(&link->timer, on_pause_over, 0, 0);
    *out = link;
    return 0;
fail:
    free(link->password);
    free(link);
    return rc;
}

static void on_timer_closed(uv_handle_t *handle)
{
    link_freed(handle->data);
}

void postgres_link_close(struct postgres_link *link, void (*closed)(void *ctx), void *ctx)
{
    if (!link)
        return;
    link->closed = closed;
    link->closed_ctx = ctx;
    link->phase = PHASE_CLOSED;
    drop_lookup(link);
    /* What is under way is rolled back, or committed without us. */
    drop_conn(link);
    uv_close((uv_handle_t *)&link->timer, on_timer_closed);
}
