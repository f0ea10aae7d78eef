/*
 * pipeline_rig.h: a pipeline between a fake broker and a fake embedder.
 *
 * Owns:    the loop of a test, its deadline, and an embedder whose vectors are a function of the
 *          prompted text alone, so that every output can be checked against its input.
 * Threads: the loop thread; the embedder runs on pool threads.
 *
 * What a text says the embedder does: "@long" is too long, "@bytes" is not UTF-8, "@nan" gives a
 * vector of NaN, "@memory" finds no memory; each anywhere in the text.
 */
#ifndef PIPELINE_RIG_H
#define PIPELINE_RIG_H

#include "tests/support/fake_connector.h"
#include "worker/pipeline/pipeline.h"

enum { RIG_DIM = 8, RIG_MAX_TOKENS = 2048 };

struct rig {
    struct fake fake;
    uv_loop_t loop;
    struct pipeline_options options;
    const struct model *model; /* NULL; set it, and options.embedder to NULL, for a real one */
    struct pipeline *pipeline;
    bool ended;
    enum pipeline_end how;
    struct pipeline_stats stats; /* after rig_finish, as is failure */
    char failure[400];
    size_t n_dead_reported, n_undeliverable_reported, n_link_reported;
    size_t n_embedded_reported, n_published_reported; /* texts, messages */
};

/* n messages to be set by the test, sound options: 2 threads, 3 batches of 8 texts. */
void rig_open(struct rig *rig, size_t n);
void rig_close(struct rig *rig);
/* Messages of one short text each, all different: "text 17". */
void rig_number_texts(struct rig *rig);

void rig_start(struct rig *rig);
/* Turn the loop until done says so; fails the test after 20 s. */
void rig_until(struct rig *rig, bool (*done)(struct rig *rig), const char *what);
/* Turn it for about that long. */
void rig_turn(struct rig *rig, unsigned ms);
/* Until the pipeline has ended; checks the fake's ledger and closes it. */
void rig_finish(struct rig *rig, enum pipeline_end how);

/* Hold every embed call that begins from now on, or let all go. */
void rig_hold(bool hold);
size_t rig_held(void);     /* calls that are held */
size_t rig_embedded(void); /* texts, since rig_open */

/* The vector of a text that was asked for with the prompt of that name. */
void rig_vector(const char *prompt, const char *title, const char *text, float out[RIG_DIM]);
/* Does the record confirmed for message i hold that vector? */
bool rig_output_has(const struct rig *rig, size_t i, const float vector[RIG_DIM]);

#endif
