/*
 * stages.h: what pool threads do to a batch: decode, split, embed, encode.
 *
 * Owns:    which stage follows which, what is a dead letter, and what a pool thread has for itself.
 * Refuses: sockets, credit and order: pipeline.c, which hands a batch over and sees its jobs end.
 * Threads: stages_begin on the loop thread, all else on pool threads. Nothing in struct stages
 *          changes while a batch is at the pool.
 * Why:     a vector of 768 values takes 90 us to write as JSON, and a text of a megabyte a tenth of
 *          a second to count: on the loop thread every connection would wait for it.
 */
#ifndef STAGES_H
#define STAGES_H

#include "worker/codec/prompt.h"
#include "worker/pipeline/batch.h"
#include "worker/pipeline/pipeline.h"
#include "worker/pipeline/pool.h"
#include "worker/pipeline/split.h"

/* The same for all batches. */
struct stages {
    const struct pipeline_options *options;
    const struct model_info *info;
    const struct embedder *embedder;
    const struct prompt *prompt; /* where the message names none */
    struct encode_options encode;
    enum sink_layout layout;
    struct pool *pool;
    struct pool_user *user;
};

struct pool_thread {
    const struct stages *stages;
    size_t index; /* at the pool */
    struct session *session;
    struct cache_lane *cache; /* NULL: none */
    struct scratch scratch;
    struct splitter splitter;
};

/*
 * Give a batch of messages to the pool. Jobs come back in this order: STAGE_DECODE; STAGE_SPLIT, if
 * batch->is_split; STAGE_EMBED once for each slice; STAGE_ENCODE, which may be seen before the last
 * slices are. A job whose status is not 0 is followed by none.
 */
void stages_begin(const struct stages *stages, struct batch *batch);

/* What is in a batch, in texts; a message that brings none takes the room of one all the same. */
size_t stages_load(size_t n_messages, size_t n_texts);

/* A key without a value: the text that is called by the key is gone. */
bool stages_is_tombstone(const struct message *message);

/* A session_parallel: the sessions share their passes by it. thread: a struct pool_thread. */
size_t stages_share(void *thread, session_part *step, void *arg, size_t n_parts);

#endif
