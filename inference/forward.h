/*
 * forward.h: the forward pass over a pack of texts.
 *
 * Owns:    the order of operations of the model and the scratch they need.
 * Refuses: texts (it sees token ids) and allocation while running.
 * Threads: one scratch per thread. Parts of a pass may run on others, with the scratch of their own
 *          sessions.
 */
#ifndef FORWARD_H
#define FORWARD_H

#include <stddef.h>
#include <stdint.h>

#include "inference/model.h"
#include "inference/prefix.h"

/* Texts one after another, no padding: text i is ids[starts[i] .. starts[i + 1]). */
struct pack {
    const int32_t *ids;
    const uint32_t *starts; /* [n_texts + 1], starts[0] = 0 */
    const uint8_t *types;   /* of each token, 0 or 1: which of a pair it is of; NULL: all 0 */
    size_t n_texts;
    const struct prefix_use
        *prefixes;       /* [n_texts] what each text has before these; NULL: nothing */
    struct prefix *keep; /* take the keys and values of all tokens along, or NULL */
};

struct forward; /* scratch for up to model->info.max_tokens tokens */

/* session: whose scratch it is; options: how it shares a pass. 0 or negative errno. */
int forward_open(struct forward **out, const struct model *model, struct session *session,
                 const struct session_options *options);
void forward_close(struct forward *forward); /* accepts NULL */

/* out [n_texts][n_out]: one unit vector a text, or of a reranker one score. At most max_tokens
 * tokens in the pack and before its texts, every text at least one token, every id below n_vocab.
 */
void forward_run(struct forward *forward, const struct pack *pack, float *out);

#endif
