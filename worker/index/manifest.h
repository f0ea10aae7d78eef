/*
 * manifest.h: OUT.index, what the vectors of an index were made with.
 *
 * Owns:    the form of that file ("name: value" lines), and refusing to go on with anything else.
 * Refuses: how far the index has come: that is the sink's OUT.state.
 * Threads: the main thread.
 * Why:     vectors of two models, prompts or dimensions in one file cannot be told apart and cannot
 *          be searched together.
 */
#ifndef MANIFEST_H
#define MANIFEST_H

#include <stdbool.h>
#include <stddef.h>

enum { MANIFEST_BYTES = 4096 };

struct manifest {
    char text[MANIFEST_BYTES];
    size_t len;
};

/* Add a line; a value is cut at its first newline. */
void manifest_add(struct manifest *manifest, const char *name, const char *value);
/* The value of a name into out; false when there is none. */
bool manifest_get(const struct manifest *manifest, const char *name, char *out, size_t size);

/* 0; -ENOENT; negative errno and a sentence. output: the name of OUT. */
int manifest_read(struct manifest *manifest, const char *output, char *err, size_t err_size);
/*
 * May OUT be made with this manifest? begun: there is something in it, which the manifest beside it
 * must be the same for. 0; -EEXIST: another manifest, and err says in what; negative errno and a
 * sentence.
 */
int manifest_compare(const struct manifest *manifest, const char *output, bool begun, char *err,
                     size_t err_size);
/* Put it beside an OUT that is this process's own. 0, or negative errno and a sentence. */
int manifest_write(const struct manifest *manifest, const char *output, char *err, size_t err_size);

#endif
