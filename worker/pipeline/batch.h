/*
 * batch.h: a box of messages on their way together from decode to confirmation.
 *
 * Owns:    the memory of those messages' texts, vectors and records; the cut into slices of about
 *          equal work; finding equal texts, which are embedded once.
 * Refuses: to know brokers and formats, and to decide anything about a message.
 * Threads: the loop thread until it goes to the pool, then pool threads: the whole of it one at a
 *          time (decode, split, encode), or each the vectors and results of a slice; the loop
 *          thread again once it is encoded. What the loop may touch meanwhile says so.
 * Why:     every array grows to what is needed and is then kept, so that the steady state
 *          allocates nothing.
 */
#ifndef BATCH_H
#define BATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/connector.h"
#include "inference/embed.h"
#include "worker/codec/arena.h"
#include "worker/pipeline/cache.h"
#include "worker/codec/codec.h"
#include "worker/pipeline/pool.h"
#include "worker/codec/prompt.h"

/* One message of a batch. Neither texts nor a dead_code: its text is gone, or is as it was. */
struct entry {
    struct batch *batch;
    struct message *message;
    struct request request;      /* n_items 0 when there is nothing to embed */
    const struct prompt *prompt; /* set when there is something to embed */
    size_t first_item;           /* its items are the batch's [first_item, + request.n_items) */
    const char *dead_code;       /* not NULL: a dead letter */
    const char *dead_reason;
    bool is_of_others;    /* nothing is written for it here: the first pipeline that has it does */
    bool dropped;         /* not even its dead letter can be written: nothing is */
    struct record record; /* set by records_build */
};

/* A text of the batch, and the next one that is equal to it. */
struct text_slot {
    const struct item *item;
    const struct prompt *prompt;
    uint64_t hash;
    uint32_t duplicate; /* index of the next equal slot; NO_SLOT at the end */
};
#define NO_SLOT UINT32_MAX

/* Estimated tokens of so many bytes of text in n texts. */
size_t batch_tokens(size_t n_bytes, size_t n);
/* About as many tokens as gain from being embedded together by one thread. */
enum { BATCH_SLICE_TOKENS = 512 };

/* A text to be embedded, by estimated length. */
struct unique_text {
    uint32_t n_tokens; /* estimated */
    uint32_t slot;
};

/* What is done to a batch at the pool, in this order. */
enum stage { STAGE_DECODE, STAGE_SPLIT, STAGE_EMBED, STAGE_ENCODE };

/* A job of the pool for one stage. */
struct stage_job {
    struct job job; /* first member */
    struct batch *batch;
    enum stage stage;
    int status; /* 0 or -ENOMEM; of STAGE_EMBED in its results */
};

/* What of a slice has a vector, a text that was split once, and what of that was computed: of equal
 * texts or pieces the first, unless a cache had it. */
struct slice_counts {
    size_t n_texts, n_tokens, computed_texts, computed_tokens;
};

/* What one job of STAGE_EMBED embeds. */
struct slice {
    struct stage_job job;        /* first member */
    size_t first, n;             /* of batch->uniques */
    uint64_t began_ns, ended_ns; /* uv_hrtime, by the pool thread */
    struct cache_hits hits;      /* of n; all 0 without a cache */
    struct slice_counts counts;
};

struct batch {
    struct batch *next; /* in the list that holds it */
    bool is_extra;      /* of one message: beside those that the sink keeps (pipeline.c) */
    size_t dim, max_tokens;
    struct arena arena;

    struct entry *entries; /* [n_entries] in the order the messages came */
    size_t n_entries, entries_room;
    size_t n_undecoded; /* entries behind those, for whose texts there was no room */
    size_t n_bytes;     /* payloads of all entries, before any is decoded */
    size_t n_texts, text_bytes, n_tokens; /* in all entries; tokens are estimated */

    struct text_slot *slots; /* [n_texts] in entry order, from batch_slice on, as are the rest */
    struct unique_text *uniques; /* [n_uniques] different texts, longest first */
    struct slice *slices;
    uint32_t *table;              /* open addressing over slots; scratch of batch_slice */
    float *vectors;               /* [n_texts][dim] */
    struct embed_result *results; /* [n_texts] */
    size_t n_uniques, n_slices;
    size_t slots_room, uniques_room, slices_room, table_room, vectors_room, results_room;
    const struct prompt *doubled, *doubled_by; /* of a text that had a prompt's words already, and
                                                  that of its message; NULL: none had */
    const char *missing_prompt; /* one that a message asked for and the model has not, or NULL */
    struct stage_job decode, split, encode;
    bool is_split;                   /* long texts are split before the texts are laid out */
    atomic_size_t slices_unfinished; /* whoever ends the last one lets it be encoded */

    /* For the loop, which sees jobs end some time later. */
    size_t slices_left; /* not yet seen */
    bool is_encoded;

    struct buffer payloads;  /* encoded outputs */
    struct record **records; /* [n_entries] in the arena, once it is encoded */
    size_t records_left;     /* not yet confirmed */
    uint64_t taken_ns;       /* uv_hrtime: its first message was put into it ... */
    uint64_t published_ns;   /* ... and its records were given to the sink */
};

/* Batches by ->next, first in first out. Zero-initialise to open. */
struct batch_list {
    struct batch *first, *last;
    size_t n;
};
void batch_list_add(struct batch_list *list, struct batch *batch);
struct batch *batch_list_take(struct batch_list *list); /* NULL when empty */

/* dim: values of a vector; max_tokens: where the model cuts texts. */
void batch_open(struct batch *batch, size_t dim, size_t max_tokens);
/* Empties it for the next messages, keeps the memory. */
void batch_reset(struct batch *batch);
void batch_close(struct batch *batch);

/* A new last entry for the message, all else zero; its payload is counted. Pointers to entries are
 * good from batch_slice on. NULL when there is no memory. */
struct entry *batch_add(struct batch *batch, struct message *message);
/* Count the texts of an entry, once it has its request. */
void batch_count(struct batch *batch, const struct entry *entry);
/* Count those of all entries anew. */
void batch_recount(struct batch *batch);

/*
 * Lay out the texts of all entries that are not dead letters and cut them into slices, as many as
 * n_threads that wait for work can share evenly; none is the same as one. Sets n_slices (0 when
 * there is nothing to embed), slices_left and slices_unfinished; job.run is for the caller to set.
 * 0 or -ENOMEM.
 */
int batch_slice(struct batch *batch, size_t n_threads);

/* What one thread needs to embed any slice; grows, then stays. Zero-initialise to open. */
struct scratch {
    char *bytes;                  /* prompted texts, one after another */
    struct text *texts;           /* [n] */
    float **rows;                 /* [n] the place of each in the batch */
    struct embed_result *results; /* [n] */
    size_t bytes_room, texts_room, rows_room, results_room;
};
void scratch_close(struct scratch *scratch);

/* Prompt the texts of the slice into scratch->texts; scratch->rows is where their vectors go: into
 * the batch, each to the first of its equals. 0 or -ENOMEM. */
int slice_load(const struct slice *slice, struct scratch *scratch);
/*
 * Copy results and rows to every text of the batch they belong to. A row that is not a unit vector
 * gets status -EDOM. status not 0: nothing was embedded, every text gets this status instead.
 */
void slice_store(const struct slice *slice, const struct scratch *scratch, int status);
/* Once the slice is stored. Tokens are those after the cut at max_tokens. */
struct slice_counts slice_count(const struct slice *slice, size_t max_tokens);

#endif
