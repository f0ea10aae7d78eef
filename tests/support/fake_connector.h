/*
 * fake_connector.h: a broker in memory behind the real tables of connector.h, with scripted faults.
 *
 * Owns:    the messages of a test, what became of each, and copies of what was published for it.
 * Refuses: to be lenient: a call the contract forbids fails the test where it happens. A message is
 *          one piece of heap memory that is freed when it is taken, so that a use after that is
 *          seen by AddressSanitizer.
 * Threads: the loop thread.
 *
 * Everything random comes from script.seed. Events fire from timers only.
 */
#ifndef FAKE_CONNECTOR_H
#define FAKE_CONNECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/connector.h"

/* What publishing the record of a message comes to. */
enum fake_fate {
    FATE_PUBLISHED,
    FATE_ACKED,          /* PUBLISHED_AND_ACKED */
    FATE_NOT_OURS,       /* PUBLISH_NOT_OURS */
    FATE_TOO_LARGE,      /* the output is; its dead letter is not */
    FATE_DEAD_TOO_LARGE, /* its dead letter is too, until 4 bytes of payload are left */
    FATE_NEVER_SMALL,    /* and even then */
    FATE_DEAD_OVER_400,  /* it is above 400 bytes of key, value and headers */
    FATE_REFUSED,        /* the output is refused for its own sake; its dead letter is not */
    FATE_DEAD_REFUSED,   /* its dead letter is too, while anything of the message is in it */
    FATE_NEVER,          /* and even then */
    FATE_DOUBTED,        /* refused as FATE_REFUSED once DOUBTED_PASSES others are published */
    FATE_UNANSWERED,     /* neither confirmed nor refused */
};

enum { DOUBTED_PASSES = 3 };

enum fake_state { FAKE_WAITING, FAKE_GIVEN, FAKE_ACKED, FAKE_RELEASED };

/* One message of the test and its ledger. */
struct fake_message {
    const char *value, *key; /* C strings; NULL: absent */
    size_t len;              /* of value; 0: strlen */
    const char *header;      /* a C string: value of its second header; NULL: text/plain */
    const char *header_name; /* ... and its name; NULL: content-type */
    uint32_t deliveries;     /* before this one */
    enum fake_fate fate;

    enum fake_state state;
    struct message *given;    /* while FAKE_GIVEN */
    bool published;           /* a record was given to the sink for it, in this run */
    size_t n_outputs, n_dead; /* confirmed */
    size_t n_given_up;        /* confirmed without parts */
    bool confirmed;           /* something was, in this run */
    size_t n_unackable;       /* runs in which it was confirmed after the source had failed */
    /* Copies of the last record confirmed. */
    char dead_code[40], dead_reason[500];
    size_t n_parts, n_headers;
    char *value_out, *vector_out, *id_out; /* parts one after another; ids with a NUL each */
    size_t value_out_len, vector_out_len, id_out_len;
    char *headers_out;   /* "name=value\n"... */
    char *documents_out; /* "id[ deleted][ chunks=N][ version=N][ [part]]...\n"... */
};

struct fake_script {
    uint64_t seed;
    size_t burst_max;                   /* messages per on_messages, 1 to this many */
    size_t confirm_max;                 /* records confirmed per turn of the loop, 0 to this many */
    unsigned tick_ms;                   /* between turns: 1 to this many and one */
    bool shuffle;                       /* confirm in any order */
    bool finite;                        /* on_end after the last message */
    bool doubts;                        /* the sink says in each turn that it wants others */
    bool sink_stalls;                   /* nothing is ever confirmed; may be changed at any time */
    unsigned link_waits_percent;        /* of turns that report LINK_WAIT and LINK_UP */
    size_t source_fails_after;          /* messages given; 0: never */
    size_t sink_fails_after;            /* records confirmed; 0: never */
    bool unflushed;                     /* the source closes with acks that it could not flush */
    int source_open_err, sink_open_err; /* negative: open fails with it */
    enum sink_layout layout;
    size_t max_unfinished; /* more credit than leaves this many messages given is a failure */
};

struct fake {
    struct fake_script script;
    struct fake_message *messages; /* [n] */
    size_t n;

    /* Seen by tests. */
    size_t n_given, n_acked, n_released, n_confirmed, n_unfinished, n_link_events;
    size_t max_seen_unfinished;
    size_t n_passed; /* outputs confirmed */
    size_t credit, credit_bytes;
    size_t n_requests;
    uint64_t sink_close_ms, source_close_ms; /* deadlines given to close */
    bool source_open, sink_open;

    /* Its own. */
    uint64_t random;
    size_t next, last_published;
    bool any_published;
};

/* The tables. One fake at a time: fake_use says which one open will use. */
extern const struct source_ops fake_source_ops;
extern const struct sink_ops fake_sink_ops;
void fake_use(struct fake *fake);

/* n waiting messages with values of the test's choosing to be set by it. */
void fake_open(struct fake *fake, size_t n);
void fake_close(struct fake *fake);
/* A new run over the same messages: those released wait again, delivered once more. */
void fake_again(struct fake *fake);
size_t fake_count(const struct fake *fake, enum fake_state state);
uint64_t fake_random(struct fake *fake, uint64_t below);

#endif
