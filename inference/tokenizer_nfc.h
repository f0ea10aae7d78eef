/*
 * tokenizer_nfc.h: canonical composition (NFC), and what kind a character is.
 *
 * Owns:    the form of a text that byte-level tokenizers see, character by character.
 * Threads: tables are constant; a struct nfc belongs to one thread.
 * Why:     the judge is the published tokenizer, whose parts know one version of Unicode or
 *          another, so the tables are made by asking it, and no Unicode library is needed.
 * Source:  Unicode Standard Annex 15; Hangul by arithmetic, chapter 3.12.
 */
#ifndef TOKENIZER_NFC_H
#define TOKENIZER_NFC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum nfc_kind_of { NFC_OTHER, NFC_LETTER, NFC_NUMBER, NFC_SPACE };

enum nfc_kind_of nfc_kind(uint32_t code);

/* Characters below this are not taken apart, and never made of what stands before them. */
enum { NFC_PLAIN = 0xC0 };

/* A text on its way through. Zero-initialise to open. */
struct nfc {
    /* A character that starts, or none, and marks that belong to it, not yet in order. */
    uint32_t *codes; /* [room] */
    uint8_t *classes;
    size_t n, room;
    void (*put)(void *ctx, uint32_t code); /* each character of the result */
    void *ctx;
    int status; /* 0, or -ENOMEM: what came after it is lost */
};

void nfc_add(struct nfc *nfc, uint32_t code);
void nfc_end(struct nfc *nfc);   /* all that was added is put; another text may follow */
void nfc_close(struct nfc *nfc); /* gives the memory back */

/* The tables, each in order of its first column. */
struct nfc_class {
    uint32_t first, last;
    uint8_t combining;
};
struct nfc_single {
    uint32_t code, to;
};
struct nfc_pair {
    uint32_t code, first, second; /* first may be taken apart itself */
};
struct nfc_kind {
    uint32_t first, last;
    uint8_t kind;
};

extern const struct nfc_class nfc_classes[];
extern const struct nfc_single nfc_singles[];
extern const struct nfc_pair nfc_pairs[];
extern const struct nfc_kind nfc_kinds[];
extern const uint16_t nfc_made[]; /* pairs that are put together, in order of first, second */
extern const size_t nfc_classes_n, nfc_singles_n, nfc_pairs_n, nfc_kinds_n, nfc_made_n;

#endif
