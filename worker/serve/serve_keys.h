/*
 * serve_keys.h: who may ask: keys from a file, compared in constant time.
 *
 * Owns:    digests of the keys; the keys themselves are not kept.
 * Threads: read-only after open.
 * Why:     a comparison that ends at the first wrong byte tells a stranger, by its time, how much
 *          of a guess was right; digests of equal length compared to their end tell nothing.
 */
#ifndef SERVE_KEYS_H
#define SERVE_KEYS_H

#include <stdbool.h>
#include <stddef.h>

struct serve_keys;

/* One key a line; empty lines and those that begin with # do not count. 0, -EINVAL: the file cannot
 * be read or holds no usable key, err says which; -ENOMEM. */
int serve_keys_open(struct serve_keys **out, const char *path, char *err, size_t err_size);
void serve_keys_close(struct serve_keys *keys); /* accepts NULL */
/* authorization: the header "Bearer KEY"; NULL: there is none. */
bool serve_keys_allow(const struct serve_keys *keys, const char *authorization);

#endif
