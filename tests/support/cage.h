/*
 * cage.h: memory that ends right before a page that traps.
 *
 * Owns:    one mapping, and the trap behind it.
 * Refuses: to catch reads before the bytes; it is about ends.
 * Threads: one.
 * Why:     one byte too far is a SIGSEGV in every build, not only under a sanitizer, and also in
 *          memory that a sanitizer knows nothing of.
 */
#ifndef CAGE_H
#define CAGE_H

#include <stddef.h>
#include <stdint.h>

struct cage {
    uint8_t *end; /* size bytes before it may be touched, none from it on */
    size_t size;
};

/* Room for at least size bytes. 0 or negative errno. */
int cage_open(struct cage *cage, size_t size);
void cage_close(struct cage *cage);

/* Copies len bytes, at most size, so that the last one touches the trap. Until the next put. */
uint8_t *cage_put(const struct cage *cage, const void *bytes, size_t len);

#endif
