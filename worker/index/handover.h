/*
 * handover.h: one index takes the name of another, with all files beside it.
 *
 * Owns:    OUT.handover, which says that this has begun and how far it is; what is done after a
 *          death in the middle.
 * Refuses: whether it should: verify.h.
 * Threads: the main thread.
 * Why:     an index is several files, and a system renames one at a time. Every step may be done
 *          again, so a death leaves something that can be finished; until then OUT is not read.
 */
#ifndef HANDOVER_H
#define HANDOVER_H

#include <stdbool.h>
#include <stddef.h>

enum { HANDOVER_PATH = 4200 };

/* "corpus.npy" and "next": "corpus.next.npy". 0 or -ENAMETOOLONG. */
int handover_name(const char *output, const char *word, char out[HANDOVER_PATH]);
/* Is OUT in the middle of one? */
bool handover_is_open(const char *output);
/* The index `fresh` becomes `output`, and what that was becomes `old`, which must not be there when
 * this begins. Goes on with one that was interrupted. 0, or negative errno and a sentence. */
int handover_run(const char *output, const char *fresh, const char *old, char *err,
                 size_t err_size);
/* Remove an index and what lies beside it; what is not there is not an error, nor an
 * empty name. */
void handover_remove(const char *output);

#endif
