/*
 * tokenizer_charsmap.h: the normalisation map of a SentencePiece model, as a tokenizer.json and a
 * GGUF file carry it: a double-array trie of byte strings, and what they become.
 *
 * Owns:    the checks of that map; which characters are looked up together.
 * Refuses: to read outside the map, whatever it says.
 * Threads: any; a map never changes.
 * Why:     the judge is the Hugging Face normaliser, which does not look for the longest match, as
 *          SentencePiece does, but for the shortest at the beginning of each cluster of up to 5
 *          bytes, and then takes the whole cluster for that match.
 * Source:  Darts-clone (S. Yata) for the trie; Unicode UAX 29 for clusters.
 */
#ifndef TOKENIZER_CHARSMAP_H
#define TOKENIZER_CHARSMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct charsmap {
    const uint8_t *units; /* [n_units] u32 of the trie, unaligned */
    size_t n_units;
    const char *texts; /* [n_texts] bytes; strings end at a NUL */
    size_t n_texts;
};

/* False: these bytes are not such a map. */
bool charsmap_open(struct charsmap *map, const uint8_t *bytes, size_t size);

/* What stands for the shortest beginning of these bytes that the map has; NULL: nothing does. *len
 * is that of the replacement, which may be 0. */
const char *charsmap_find(const struct charsmap *map, const uint8_t *bytes, size_t n, size_t *len);

/* Is this character read together with the one before it? */
bool charsmap_joins(uint32_t code);
/* Can it be followed by one that is? Control characters cannot. */
bool charsmap_is_joined(uint32_t code);

struct joiner_range {
    uint16_t first, last;
};
extern const struct joiner_range joiner_ranges[]; /* in order; of characters up to 3 bytes */
extern const size_t joiner_ranges_n;

#endif
