/*
 * compact.h: an index without what was replaced and deleted.
 *
 * Owns:    the copy: vectors and ids that count, in their order, under another name.
 * Refuses: to touch the index itself, which goes on with its corpus.
 */
#ifndef COMPACT_H
#define COMPACT_H

#include <stddef.h>

struct compacted {
    size_t kept, left_out; /* vectors */
};

/*
 * Copy the index at `from` (.npy or .jsonl, with what lies beside it) to `to`, of the same ending,
 * which must not be there. It appears whole or not at all. 0, or negative errno and a sentence.
 */
int compact_copy(const char *from, const char *to, struct compacted *out, char *err,
                 size_t err_size);

#endif
