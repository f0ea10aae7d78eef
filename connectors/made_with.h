/*
 * made_with.h: what the vectors of an output are made with, as lines "name: value".
 *
 * Owns:    comparing two of them, and the sentence about a difference.
 * Refuses: what is in the lines (the pipeline writes them), and where they are kept.
 * Threads: no state.
 * Why:     vectors of two models in one index cannot be told apart, and every search in it is
 *          wrong without a word. So outputs that store texts by id keep this beside the vectors.
 */
#ifndef MADE_WITH_H
#define MADE_WITH_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/connector.h"

enum { MADE_WITH_SIZE = 600 };

/* What stands there while `embedmill migrate` moves the vectors begins with this line: nobody else
 * writes to them until that is done. Workers of an older release take it for another model. */
#define MADE_WITH_HELD "migrating: yes\n"
bool made_with_is_held(struct bytes there);

/*
 * Whether vectors made with `ours` may go to those made with `there`. The line `model` is for
 * people: the fingerprint says whether two models are one. option: that names the output; place:
 * what it holds; forget: what to do when no vectors are left there. why: a sentence, if not.
 */
bool made_with_fits(struct bytes there, const char *ours, const char *option, const char *place,
                    const char *forget, char *why, size_t size);

#endif
