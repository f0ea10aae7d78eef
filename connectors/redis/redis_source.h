/*
 * redis_source.h: the inside of a Redis source, for its own files and for a sink on the same
 * server.
 *
 * Owns:    what redis_source.c (connections, what is done next) and the files of its commands
 *          share. Those end in a changed state and endpoint_pump; redis_source.c alone decides what
 *          follows.
 * Threads: the loop thread.
 */
#ifndef REDIS_SOURCE_H
#define REDIS_SOURCE_H

#include "connectors/connector.h"
#include "connectors/endpoint.h"
#include "connectors/intake.h"
#include "connectors/redis/redis.h"
#include "connectors/redis/redis_entry.h"
#include "connectors/redis/redis_link.h"
#include "connectors/redis/redis_reply.h"

#define REDIS_BLOCK_MS   2000 /* a read waits this long; finite, so that silence can be told */
#define REDIS_CLAIM_PAGE 128

/* What can be in trouble, as bits of health. */
#define PART_READER  1u /* its connection */
#define PART_ADMIN   2u
#define PART_READ    4u /* its command was refused */
#define PART_ACK     8u
#define PART_GROUP   16u
#define PART_CLAIM   32u
#define PART_REFUSED (PART_READ | PART_ACK | PART_GROUP | PART_CLAIM)

/* An id out of XPENDING that is to be claimed. */
struct redis_pending {
    struct redis_id id;
    uint64_t deliveries;
    bool returned; /* XCLAIM gave it */
};

/* A pass over the pending entries list: own ones after a (re)connect, abandoned ones on a timer. */
struct redis_claim {
    size_t stream;                  /* the pass goes through one after the other: in this one */
    bool own_due;                   /* what is pending under our name and not with us */
    bool own_first;                 /* ... before anything new is read */
    bool idle_due;                  /* what has been idle too long, whoever has it */
    bool busy;                      /* a page is under way */
    bool own;                       /* it is of the own pass */
    bool restart;                   /* the pass began anew while a page was under way */
    bool last_page;                 /* the list ended with this page */
    char cursor[REDIS_ID_SIZE + 1]; /* "-" or "(id" */
    struct redis_pending page[REDIS_CLAIM_PAGE];
    size_t n_page, n_checks;
    uint64_t n_deleted; /* of this page */
    struct redis_id first_deleted, last_deleted;
};

/* Which streams the read under way goes over: n from the one numbered first on. */
struct redis_turns {
    size_t first, n;
    size_t n_empty; /* were asked since something came, and had nothing */
};

/* What the last look at a stream has shown; see redis_survey.c. */
struct redis_watch {
    bool is_known;   /* there was a look */
    bool is_fresh;   /* the group was made by us, and not looked at since */
    bool is_remade;  /* ... though it had been there */
    bool was_missed; /* a command found stream or group gone since the last look */
    int64_t added, waiting;
    int64_t unnoted; /* entries added up to the last loss that the server did not note */
    char generated[REDIS_ID_SIZE], read[REDIS_ID_SIZE];
};

enum redis_read_phase {
    READ_IDLE,
    READ_SENT,
    READ_WAKING, /* the server was asked to end it */
};

struct redis_source {
    struct source base;
    struct endpoint end;
    struct redis_config config;
    char *consumer;
    int *consumer_locks; /* [config.streams.n] */
    struct redis_link *reader, *admin;
    struct redis_args args;
    struct redis_table table; /* every entry with us: held, given, acked but not confirmed */
    struct intake intake;
    struct taken_list ack_wait, ack_sent;
    struct redis_claim claim;
    size_t mean_bytes;
    size_t n_groups_asked; /* answers still out */
    bool groups_refused;   /* one of them, or it could not be asked for */
    bool groups_are_there; /* all of them, since the connection was made */
    bool group_denied;     /* this user may not make any */
    struct redis_turns turns;
    enum redis_read_phase read;
    unsigned n_wakes;            /* how often the server was asked to end it */
    bool returned;               /* what was unfinished at close has been sent back */
    size_t n_returns;            /* answers to that still out */
    struct redis_watch *watches; /* [config.streams.n] */
    size_t n_surveys;            /* answers still out */
    uint64_t surveyed_ms;        /* before a read */
    bool surveys_denied;
    bool survey_due; /* the groups were made, and are to be looked at before the first read */
    uv_timer_t lease_timer, again_timer, lag_timer;
};

/* ---- redis_consumer.c, for the others */

/* How many more entries it makes sense to take now. */
size_t redis_consumer_want(const struct redis_source *source);
/* Put an entry into the table and the held queue; entries that are already with us are left alone.
 * fields: array, or nil when the entry was deleted. False: a reply of a shape Redis does not send.
 */
bool redis_consumer_take(struct redis_source *source, const struct redis_stream *stream,
                         struct redis_id id, const redisReply *fields, uint32_t deliveries);
/* An error reply to a command of that part: pause, reconnect, make the groups again, or fail.
 * stream: the name of the one it is about, or of all. */
void redis_consumer_fault(struct redis_source *source, struct redis_link *link, unsigned part,
                          const char *stream, const char *text);
/* A command of that part did its work. */
void redis_consumer_good(struct redis_source *source, struct redis_link *link, unsigned part);
/* Sends source->args. False: it could not be sent now. */
bool redis_consumer_send(struct redis_source *source, struct redis_link *link, uint64_t extra_ms,
                         redis_reply_cb cb, void *arg);
/* Take the entry off the table and free it. */
void redis_consumer_forget(struct redis_source *source, struct redis_entry *entry);

/* ---- redis_group.c */

/* Make the group of each stream, unless that is under way; group_ok when all are there. */
void redis_group_make(struct redis_source *source);

/* ---- redis_read.c */

/* There must be something wanted and no read under way. */
void redis_read_send(struct redis_source *source);
/* End the waiting of the read under way. */
void redis_read_wake(struct redis_source *source);

/* ---- redis_ack.c */

/* Send what waits to be acked in one of the streams; no other XACK may be under way. */
void redis_ack_send(struct redis_source *source);
/* At the end: tell on_failed of acks that are not confirmed, if there are any. */
void redis_ack_report_rest(struct redis_source *source);

/* ---- redis_return.c */

/* Give back what is in the table, as if this delivery had not been. */
void redis_return_send(struct redis_source *source);

/* ---- redis_survey.c: lag and losses, if anybody listens */

/* Look from time to time from now on. */
void redis_survey_start(struct redis_source *source);
/* At all streams, unless answers are still out. */
void redis_survey_all(struct redis_source *source);
/* At those that are to be read now, by the connection that reads. */
void redis_survey_before_read(struct redis_source *source, size_t first, size_t n);
/* The group is there; is_made: it was not before. */
void redis_survey_on_group(struct redis_source *source, const struct redis_stream *stream,
                           bool is_made);

/* ---- redis_claim.c */

void redis_claim_start_own(struct redis_source *source, bool first);
void redis_claim_lost(struct redis_source *source);
/* Take the next step of a pass, if one is due and there is credit. */
void redis_claim_step(struct redis_source *source);
/* Tell the server that what is with us is being worked on. */
void redis_claim_renew(struct redis_source *source);

#endif
