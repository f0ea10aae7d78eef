/*
 * postgres_sink_internal.h: the inside of a PostgreSQL sink.
 *
 * Owns:    what the sink remembers between events.
 * Threads: the loop thread.
 */
#ifndef POSTGRES_SINK_INTERNAL_H
#define POSTGRES_SINK_INTERNAL_H

#include "connectors/connector.h"
#include "connectors/endpoint.h"
#include "connectors/made_with.h"
#include "connectors/postgres/postgres.h"
#include "connectors/postgres/postgres_burst.h"
#include "connectors/postgres/postgres_link.h"
#include "connectors/postgres/postgres_parts.h"
#include "connectors/postgres/postgres_refusal.h"
#include "connectors/postgres/postgres_table.h"
#include "connectors/slots.h"

/* What can be in trouble, as bits of a health. */
#define PART_LINK  1u
#define PART_TABLE 2u
#define PART_WRITE 4u

struct postgres_slot {
    struct slot base; /* first member */
    unsigned flight;  /* the transaction that it is in; 0: none */
    int64_t given_us; /* for postgres_burst_add */
    /* Refused alone so often while others passed; how many had passed the last time. */
    unsigned n_doubts;
    uint64_t n_passed;
    bool is_alone;  /* it has no company in a transaction any more */
    bool is_slow;   /* one of several that took too long together, and not judged since */
    bool is_locked; /* the last time somebody else held a lock on its row */
};

/* The first statement of a transaction that was refused. */
struct postgres_refused {
    bool is_set;
    enum postgres_step step;
    char sqlstate[6];
    char text[400];
};

enum doing { DOING_NOTHING, DOING_TABLE, DOING_MADE_WITH, DOING_PARTS, DOING_BURST };

/* What is under way at the server. */
struct postgres_flight {
    enum doing doing; /* DOING_NOTHING: nothing is */
    unsigned id;      /* never 0 */
    uint64_t began_ms;
    unsigned n_shrinks; /* the sink's, when it was sent */
    enum postgres_step steps[POSTGRES_STATEMENTS_MAX];
    size_t n_records, n_rows, n_written;
    bool has_outputs, has_letters;
    bool is_trial; /* it is never committed */
    struct postgres_refused refused;
};

/* A connection, what is known of the server behind it, and its one transaction. */
struct postgres_session {
    struct postgres_sink *sink;
    struct postgres_link *link; /* NULL: not open */
    struct postgres_table table;
    bool has_table;   /* it was looked at on this connection, and after the last refusal */
    bool is_compared; /* what its vectors are made with, and ours; likewise */
    /* What was found there; "": nothing, and writes are not guarded. */
    char noted[2 * MADE_WITH_SIZE];
    struct postgres_burst burst; /* of the flight, or of the one before */
    struct postgres_flight flight;
};

/* The second is open only where records wait behind the first. */
enum { POSTGRES_SESSIONS = 2 };

struct postgres_sink {
    struct sink base; /* first member */
    struct endpoint end;
    struct postgres_config config;
    struct postgres_session sessions[POSTGRES_SESSIONS];
    uint64_t second_ms; /* the second may be opened from then on */
    struct slot_pool pool;
    struct slot_queue slots; /* in the order given */
    int64_t last_us;         /* given_us of the slot that was given last */
    struct slot_queue
        aside; /* refused alone: others show whose fault it is, where they may go first */
    uv_timer_t aside_timer; /* when these are sent again, whatever others do */
    struct backoff aside_backoff;
    size_t n_slow;       /* slots that are */
    size_t n_flying;     /* of those in a transaction */
    size_t limit;        /* records in one transaction; ... */
    unsigned n_shrinks;  /* ... which was made smaller so often */
    struct source *peer; /* whose parts are kept; NULL: none are */
    struct keeper keeper;
    struct postgres_parts parts;
    unsigned last_flight;
    uint64_t n_passed[2]; /* transactions that were accepted, with outputs, with letters; trials */
    uint64_t n_quick;     /* of those with outputs, so quick that the server is not to blame */
    size_t n_refused; /* since outputs were accepted: so many that may be the table's own fault */
    /* Where the order counts nothing may go before a record that is refused: the next one is tried,
     * and taken back, to see whether it is the table that refuses. */
    size_t n_trials; /* to be made, one after another */
    size_t n_tried;  /* that were refused, too */
};

/* ---- postgres_slots.c */

/* Others have their turn. */
void postgres_slots_aside(struct postgres_sink *sink, struct postgres_slot *slot);
/* What is aside is sent again, behind the others; but for what a lock holds, if not all. */
void postgres_slots_again(struct postgres_sink *sink, bool all);
/* All of that transaction took too long together; and one of them was sent alone since. */
void postgres_slots_suspect(struct postgres_sink *sink, unsigned flight);
void postgres_slots_judged(struct postgres_sink *sink, struct postgres_slot *slot);
/* The record leaves the sink. */
void postgres_slots_done(struct postgres_sink *sink, struct postgres_slot *slot,
                         enum published how);
void postgres_slots_refuse(struct postgres_sink *sink, struct postgres_slot *slot, const char *code,
                           const char *why);
/* What was in that transaction is in none any more; the first of it, NULL: there is none. */
struct postgres_slot *postgres_slots_ground(struct postgres_sink *sink, unsigned flight);
/* A transaction was too large, or has one in it that is refused: so many records at most. */
void postgres_sink_shrink(struct postgres_sink *sink, size_t limit);
/* Say what is wrong, and pause. */
void postgres_sink_wait(struct postgres_sink *sink, unsigned part, const char *why);

/* ---- postgres_session.c */

bool postgres_session_is_first(const struct postgres_session *session);
/* Something is under way from here on; the flight is the session's. */
struct postgres_flight *postgres_session_begin(struct postgres_session *session, enum doing doing);
/* Are the tables there, and as they must be? Answer: has_table, and is_compared if there is nothing
 * to be compared. */
void postgres_session_ask_table(struct postgres_session *session);
void postgres_session_read_table(struct postgres_session *session, const PGresult *answer);
/* What are the vectors there made with? Answer, of that statement: is_compared. */
enum { POSTGRES_MADE_WITH_ANSWER = 3 };
void postgres_session_ask_made_with(struct postgres_session *session);
void postgres_session_read_made_with(struct postgres_session *session, const PGresult *answer);

/* ---- postgres_sink_refused.c */

/* A statement of what is under way was refused; the first one counts. */
void postgres_sink_note_refusal(struct postgres_flight *flight, size_t nth, const PGresult *result);
/* Outputs were accepted. */
void postgres_sink_passed(struct postgres_sink *sink, const struct postgres_flight *flight);
/* All of that transaction, which was the session's, is answered now. */
void postgres_sink_refused(struct postgres_session *session, const struct postgres_flight *flight);

#endif
