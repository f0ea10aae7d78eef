/*
 * connector.h: the contract between the pipeline and the brokers.
 *
 * Owns:    what a message and a record are, who owns them when, and which calls and events exist.
 * Refuses: the meaning of payloads, batching, inference.
 * Threads: every call and every event happens on the loop thread.
 * Why:     the pipeline is written once; Kafka, Redis, files and the tests' fake broker are
 *          tables of these functions.
 *
 * Ownership, in three words only:
 *   gives    the callee owns it from now on
 *   takes    the callee ends its life
 *   borrows  valid until the call returns (or until the event named)
 *
 * Rules for both sides:
 *   - Events never fire inside a call the pipeline made; they come from the loop, later.
 *   - Every open accepts failure half way; every close accepts NULL.
 *   - A fault of the environment (broker away, LOADING, READONLY, out of memory over there) is
 *     retried inside the connector with backoff, indefinitely, and reported by on_state. It never
 *     fails a message. What a broker refuses outright is sorted by enum refusal_scope.
 */
#ifndef CONNECTOR_H
#define CONNECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <uv.h>

#include "connectors/bytes.h"
#include "connectors/counters.h"
#include "connectors/settings.h"

/*
 * Whose fault it is that a broker refuses something. Every connector sorts each refusal into one of
 * these, and one message must never stop the workers: what cannot be told apart at first is tried
 * again alone, while others pass, before it is taken for more than the record's own.
 */
enum refusal_scope {
    /* This record: its key holds another type, it is too large, it lacks a key that its topic
     * requires. It comes back as PUBLISH_REFUSED or PUBLISH_TOO_LARGE; its neighbours pass. */
    REFUSES_RECORD,
    /* What this record goes to, whatever is in it: the topic or stream is missing or read-only for
     * now, the server is full. Reported by on_state and retried until somebody mends it. */
    REFUSES_DESTINATION,
    /* Every record, as the worker is configured: no permission, no such database, the output stream
     * holds another type. on_failed: the worker exits and unacked messages are redelivered. */
    REFUSES_EVERYTHING,
};

struct header {
    struct bytes name, value;
};

/* Why something is not read: DEAD_LETTER(...), and a sentence. code NULL: it is. */
struct problem {
    const char *code, *reason;
};

/* One input message. All bytes live until the message is acked or released. */
struct message {
    struct source *source;
    struct bytes key;             /* Kafka's record key; absent on Redis */
    bool key_is_place;            /* nobody gave it: the number of a line */
    struct bytes value;           /* the payload; absent: tombstone, or the body field is missing */
    const struct header *headers; /* [n_headers] what else came with it: headers, other fields */
    size_t n_headers;
    struct bytes position;  /* printable, names it for good: "texts 1700000000000-0" */
    int64_t timestamp_ms;   /* Unix time of the message, -1 when unknown */
    int64_t order;          /* greater than that of every earlier message with this key or of this
                               stream, at least 1: an offset, an entry id; 0: it has none */
    const char *part;       /* where order counts: "topic/3"; NULL: not known, or order is 0 */
    uint32_t deliveries;    /* 1 the first time; more after a crash or a claim */
    struct problem problem; /* why the source could not even read it, if it could not; then it can
                               only be dead-lettered, and the value is what was read of it, if
                               anything */
    /* Of worker/pipeline/fanout.c, which gives it to several pipelines: each writes an output of
     * it, and it is done when so many have finished it. No sink may ack it. */
    bool is_shared, was_released;
    uint32_t n_holders;
};

enum link_state {
    LINK_UP,   /* connected and serving */
    LINK_WAIT, /* not now; retrying with backoff; why says what and for how long */
};

/* Messages of the input that nobody will be given any more, or a jump in what is read. */
struct skipped {
    enum skip_reason reason;
    const char *part;      /* "topic/3" or a stream */
    const char *from, *to; /* positions: the first one missed, and where reading goes on */
    int64_t n;             /* how many messages are missed; -1: nobody can know */
    bool is_at_most;       /* n is an upper bound */
    const char *why;       /* what happened and what to do */
};

/* What a client library, or a connector, says for people, beside what it does. */
enum notice {
    NOTICE_DETAIL, /* an event or a state says the same, or nobody need do anything */
    NOTICE_WARN,
    NOTICE_OWN, /* a warning of the connector itself and not of a library */
};

struct source_events {
    /* Gives n messages, never more than requested. */
    void (*on_messages)(void *ctx, struct message **messages, size_t n);
    void (*on_state)(void *ctx, enum link_state state, const char *why);
    /* A finite source (file, stdin) has given its last message. */
    void (*on_end)(void *ctx);
    /* Gone for good; err is a negative errno, why says what to do. Nothing follows but close. While
     * closing: acks could not be flushed, so what they stand for comes again; closed follows. */
    void (*on_failed)(void *ctx, int err, const char *why);
    /* For people and metrics only; either may be NULL.
     * on_lag, from time to time: how many messages of a part of the input ("topic/3" or a stream)
     * wait to be given or acked; -1: not known, or the part is not read here any more. part NULL:
     * all parts of the input, those of other workers too; a source whose parts are shared tells
     * none.
     * on_count: n more of something only this connector counts. */
    void (*on_lag)(void *ctx, const char *part, int64_t lag);
    void (*on_count)(void *ctx, enum counter what, uint64_t n);
    /* For people and metrics; either may be NULL. skipped and texts: borrowed. code: of the
     * library, short and stable, so that repeats can be held back. */
    void (*on_skipped)(void *ctx, const struct skipped *skipped);
    void (*on_notice)(void *ctx, enum notice level, const char *code, const char *text);
};

/*
 * A sink that keeps how far the input is done, in the same atomic step as what it writes: then each
 * message counts once, whatever dies. For sources whose parts are read in order, by one worker at a
 * time; what such a source commits by itself is for people then, who look at its lag.
 */
struct keeper {
    void *ctx;
    /* A part of the input was given to us: where does it go on? Answered by begin, later. group: of
     * the workers that share the input. */
    void (*claim)(void *ctx, const char *group, const char *part);
    /* It was given to another; no answer is waited for. */
    void (*leave)(void *ctx, const char *part);
    /* The part has begun anew and all messages above order are new, whatever is kept of it. */
    void (*rewind)(void *ctx, const char *part, int64_t order);
};

/* First member of every connector's own source. */
struct source {
    const struct source_ops *ops;
    const struct source_events *events;
    void *ctx;
    const struct keeper *keeper; /* set by the open of a sink that is one; NULL: there is none */
};

struct source_ops {
    /* Checks the settings and starts connecting; being refused by a broker is not an error here. */
    int (*open)(struct source **out, uv_loop_t *loop, const struct settings *settings,
                const struct source_events *events, void *ctx, char *err, size_t err_size);
    /* Credit: from now on up to n more messages of about n_bytes in all may be given, in place of
     * what earlier requests left unused. n = 0 stops giving (drain, backpressure). */
    void (*request)(struct source *source, size_t n, size_t n_bytes);
    /* Takes: its output is confirmed; the broker may forget it. May be batched, is flushed by
     * close, and survives a reconnect. */
    void (*ack)(struct source *source, struct message *message);
    /* Takes: not finished or not ours any more; the broker must deliver it again (or has). */
    void (*release)(struct source *source, struct message *message);
    /* Flush acks (for at most deadline_ms), then end; closed fires once, last, from the loop.
     * Messages not yet taken are released by it. */
    void (*close)(struct source *source, uint64_t deadline_ms, void (*closed)(void *ctx),
                  void *ctx);
    /* Checks the settings without touching anything. 0; -EINVAL: *bad_option is the option to
     * change (static), err what is wrong and what was expected; -ENOMEM. NULL: nothing to check
     * beyond what the table says. */
    int (*check)(const struct settings *settings, const char **bad_option, char *err,
                 size_t err_size);
    /* The keeper's answer: all messages of the part up to that order are done; -1: the keeper knows
     * nothing of it, and it is read from where it would be without one. NULL: no keepers here. */
    void (*begin)(struct source *source, const char *part, int64_t order);
};

/* Which piece of a text that was cut a text is. */
struct chunk {
    struct bytes parent;   /* id of the whole text; numbers as their decimal text ... */
    bool parent_is_number; /* ... which the payload writes as an integer */
    uint32_t number;       /* from 0 */
    size_t start, end;     /* characters (code points) of the whole text */
};

/*
 * A whole text, and what the output is to hold of it from now on: all that it held of this id
 * before goes, chunks that the text does not have any more among it, in the same atomic step where
 * the output has one. An output that keeps versions and holds a later one stays as it is, and the
 * record is confirmed all the same (COUNTER_OUTDATED).
 */
struct document {
    struct bytes id;   /* numbers as their decimal text ... */
    bool id_is_number; /* ... which payloads write as an integer */
    bool is_deleted;   /* nothing of it is to stay */
    bool has_version;  /* false: whichever comes last counts ... */
    int64_t version;   /* ... else the greatest, at least 0; of equal ones the last */
    /* Of a delete whose message has no version where others have one: all that is there goes, and
     * its version is kept. */
    bool lacks_version;
    uint32_t n_chunks; /* it is cut into so many, ids "ID#0", "ID#1" ...; 0: it is one part */
};

/*
 * One output for one message. A record holds one part per text when the sink stores texts
 * one by one (SINK_PER_TEXT, SINK_VECTORS, SINK_ROWS), else one part for all of them. All bytes
 * live until on_published.
 */
struct part {
    struct bytes id; /* of the text (or of the message, when one part holds all); of a dead letter
                        the message's key, or what is left of it: absent when there was none */
    struct bytes value;        /* encoded output; absent: tombstone, SINK_VECTORS, or no fields */
    struct bytes vector;       /* of a text alone: the raw vector, in its dtype ... */
    const struct chunk *chunk; /* ... and of a piece, what of; NULL: a whole text */
    /* The text it is or is a piece of; NULL: one part holds several, or it is a dead letter. */
    const struct document *document;
};

struct record {
    struct message *origin;           /* borrowed until on_published */
    const struct part *parts;         /* [n_parts] */
    size_t n_parts;                   /* at least 1; 0: there is nothing to write. Confirm it */
    const struct document *documents; /* [n_documents] in the order of the parts, those of one text
                                         side by side; of a dead letter none */
    size_t n_documents;
    const struct header *headers; /* [n_headers] to store beside the value, in order */
    size_t n_headers;
    const char *dead_code;   /* NULL: an output. Else a dead letter: stable code ... */
    const char *dead_reason; /* ... and a sentence; parts[0].value is the original payload */
    /* Set by the sink for PUBLISH_REFUSED: the code of the dead letter that becomes of it, static,
     * and what the broker said and of what (the key, the topic), until on_published returns. */
    const char *refused_code, *refused_reason;
};

/* SINK_LINES: per message, and payloads of several lines are as good as several payloads.
 * SINK_VECTORS: per text, and nothing is encoded: ids and vectors are all it stores.
 * SINK_ROWS: as SINK_VECTORS, and a value is the message's other fields as an object of JSON. */
enum sink_layout { SINK_PER_MESSAGE, SINK_LINES, SINK_PER_TEXT, SINK_VECTORS, SINK_ROWS };

/* How publishing one record ended. */
enum published {
    PUBLISHED,           /* confirmed by the broker; the pipeline acks the origin */
    PUBLISHED_AND_ACKED, /* confirmed, and the origin acked in the same atomic step; the sink takes
                            the origin when on_published has returned */
    PUBLISH_NOT_OURS,    /* atomic step found the message finished or claimed by another worker:
                            nothing was written; the pipeline releases the origin */
    PUBLISH_TOO_LARGE,   /* can never be written at this size; the pipeline dead-letters it */
    PUBLISH_REFUSED,     /* can never be written for another reason of its own: refused_code and
                            refused_reason; the pipeline dead-letters it */
};

struct sink_events {
    /* The sink is done with the record; once for each published. One that was refused is given
     * again later: as a dead letter, as a smaller one, or with no parts. */
    void (*on_published)(void *ctx, struct record *record, enum published how);
    void (*on_state)(void *ctx, enum link_state state, const char *why);
    void (*on_failed)(void *ctx, int err, const char *why);
    /* A record is refused, and only others can show whether it is its own fault (refusal_scope): it
     * is kept, and one more is wanted, at each attempt. May be NULL. */
    void (*on_doubt)(void *ctx);
    /* As the source's; either may be NULL. */
    void (*on_count)(void *ctx, enum counter what, uint64_t n);
    void (*on_notice)(void *ctx, enum notice level, const char *code, const char *text);
};

struct sink {
    const struct sink_ops *ops;
    const struct sink_events *events;
    void *ctx;
    enum sink_layout layout; /* set by open */
    size_t vector_bytes;     /* of each vector, set before close once all is done; else 0 */
    /* What its vectors are made with (made_with.h), set before the loop runs on. A sink that stores
     * texts by id keeps it beside them, and fails before it writes others to them. NULL: it writes
     * whatever comes. */
    const char *made_with;
};

struct sink_ops {
    /* peer: borrows the already opened source, so that a sink on the same system can publish and
     * ack in one atomic step. */
    int (*open)(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                struct source *peer, const struct sink_events *events, void *ctx, char *err,
                size_t err_size);
    /* Gives n records; each comes back by on_published, in any order. Kept over reconnects. */
    void (*publish)(struct sink *sink, struct record **records, size_t n);
    /* Stop at once or when all is confirmed, at the latest after deadline_ms; records not yet
     * confirmed are dropped without an event (their origins stay unacked). closed fires last. */
    void (*close)(struct sink *sink, uint64_t deadline_ms, void (*closed)(void *ctx), void *ctx);
    int (*check)(const struct settings *settings, const char **bad_option, char *err,
                 size_t err_size); /* as the source's */
    /* The layout that open will set, which the settings tell. NULL: SINK_PER_MESSAGE. */
    enum sink_layout (*layout)(const struct settings *settings);
};

struct connector_check;  /* check.h */
struct dead_letters_ops; /* dead_letters.h */
struct queue_ops;        /* queue.h */
struct migration_ops;    /* migration.h */

/* All that the worker knows of a broker. Any pointer but name may be NULL: it has none. */
struct connector {
    const char *name;             /* what the options source and sink call it: "redis" */
    const struct option *options; /* of source and sink, ended by name NULL */
    const struct source_ops *source;
    const struct sink_ops *sink;
    const struct connector_check *check;
    const struct dead_letters_ops *dead_letters;
    const struct queue_ops *queue;
    const struct migration_ops *migration; /* its sink's outputs can be made anew, by `migrate` */
    /* Print the statements that create what the sink writes into, for vectors of dim values. 0, or
     * as open; NULL: it creates what it needs, or a broker's own tools do. */
    int (*schema)(const struct settings *settings, size_t dim, FILE *to, char *err,
                  size_t err_size);
    /* The option that says where outputs of its sink go, as the settings are: where several models
     * write, it has {model} in it. NULL: only one can. */
    const char *(*names_output)(const struct settings *settings);
    /* The option that says what its source reads: with {model} in all the names in it, which commas
     * part, each model has a source of its own. NULL: one source is for all. */
    const char *(*names_input)(const struct settings *settings);
    bool
        keeps_versions; /* a sink that stores texts one by one leaves newer ones: struct document */
    bool gives_order, gives_times; /* its source gives messages that have an order; that have, or
                                      may have, a timestamp_ms */
    bool exactly_once; /* its sink publishes and acks in one step when the source is its own too */
    bool is_keeper;    /* ... or when the source has `begin` (struct keeper) */
};

/* The registry (registry.c): all connectors of this build in the order of --help, ended by NULL. */
extern const struct connector *const all_connectors[];
/* NULL when none has that name, or it has no source or no sink. */
const struct connector *connector_find(const char *name);
const struct source_ops *source_find(const char *name);
const struct sink_ops *sink_find(const char *name);
/* Options that several connectors read, ended by name NULL: delivery. */
extern const struct option shared_options[];

/* on_count, where somebody listens and n is not 0; on_skipped likewise. */
static inline void source_count(const struct source *source, enum counter what, uint64_t n)
{
    if (source->events->on_count && n > 0)
        source->events->on_count(source->ctx, what, n);
}

static inline void sink_count(const struct sink *sink, enum counter what, uint64_t n)
{
    if (sink->events->on_count && n > 0)
        sink->events->on_count(sink->ctx, what, n);
}

static inline void source_skipped(const struct source *source, const struct skipped *skipped)
{
    if (source->events->on_skipped)
        source->events->on_skipped(source->ctx, skipped);
}

#endif
