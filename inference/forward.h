/*
 * forward.h: the forward pass over a pack of texts.
 *
 * Owns:    the order of operations of the model and the scratch they need.
 * Refuses: texts (it sees token ids) and allocation while running.
 * Threads: one scratch per thread. Between forward_open_crew and forward_shut_crew others may take
 *          part by forward_assist, with the scratch that is theirs.
 */
#ifndef FORWARD_H
#define FORWARD_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "inference/model.h"

/* Texts one after another, no padding: text i is ids[starts[i] .. starts[i + 1]). */
struct pack {
    const int32_t *ids;
    const uint32_t *starts; /* [n_texts + 1], starts[0] = 0 */
    size_t n_texts;
};

struct forward; /* scratch for up to model->info.max_tokens tokens */

int forward_open(struct forward **out, const struct model *model); /* 0 or negative errno */
void forward_close(struct forward *forward); /* accepts NULL; nobody assists any more */

/* out [n_texts][n_out]: one unit vector a text. At most max_tokens tokens in the pack, every text
 * at least one token, every id below n_vocab. */
void forward_run(struct forward *forward, const struct pack *pack, float *out);

void forward_open_crew(struct forward *forward);
void forward_shut_crew(struct forward *forward);
/* Take part in the passes of `other`, with the scratch of `forward` (of the same model), until its
 * crew is shut or *leave. Returns whether it is still open. */
bool forward_assist(struct forward *forward, struct forward *other, const atomic_bool *leave);

#endif
