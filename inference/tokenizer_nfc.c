/*
 * tokenizer_nfc.c: see tokenizer_nfc.h.
 */
#include "inference/tokenizer_nfc.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    HANGUL = 0xAC00,
    HANGUL_N = 11172,
    LEADS = 0x1100,
    LEADS_N = 19,
    VOWELS = 0x1161,
    VOWELS_N = 21,
    TAILS = 0x11A7, /* one before the first: no tail */
    TAILS_N = 28,
    FIRST_ROOM = 32,
};

/* Place of the last of n rows of `size` bytes whose first value is at most code; n: none. */
static size_t row_find(const void *rows, size_t n, size_t size, uint32_t code)
{
    size_t from = 0, to = n;
    while (from < to) {
        size_t middle = (from + to) / 2;
        uint32_t first;
        memcpy(&first, (const uint8_t *)rows + middle * size, sizeof first);
        if (first <= code)
            from = middle + 1;
        else
            to = middle;
    }
    return from ? from - 1 : n;
}

enum nfc_kind_of nfc_kind(uint32_t code)
{
    size_t at = row_find(nfc_kinds, nfc_kinds_n, sizeof *nfc_kinds, code);
    return at < nfc_kinds_n && code <= nfc_kinds[at].last ? (enum nfc_kind_of)nfc_kinds[at].kind
                                                          : NFC_OTHER;
}

static uint8_t class_of(uint32_t code)
{
    size_t at = row_find(nfc_classes, nfc_classes_n, sizeof *nfc_classes, code);
    return at < nfc_classes_n && code <= nfc_classes[at].last ? nfc_classes[at].combining : 0;
}

/* What two characters become, or 0. */
static uint32_t compose(uint32_t first, uint32_t second)
{
    size_t from = 0, to = nfc_made_n;
    /* Unsigned: what is below a range wraps and is not in it either. */
    if (first - LEADS < LEADS_N && second - VOWELS < VOWELS_N)
        return HANGUL + ((first - LEADS) * VOWELS_N + (second - VOWELS)) * TAILS_N;
    if (first - HANGUL < HANGUL_N && (first - HANGUL) % TAILS_N == 0 && second > TAILS &&
        second - TAILS < TAILS_N)
        return first + (second - TAILS);
    while (from < to) {
        size_t middle = (from + to) / 2;
        /* nfc_pairs is in order of what they make; nfc_made lists it by what is put together. */
        const struct nfc_pair *pair = &nfc_pairs[nfc_made[middle]];
        if (pair->first == first && pair->second == second)
            return pair->code;
        if (pair->first < first || (pair->first == first && pair->second < second))
            from = middle + 1;
        else
            to = middle;
    }
    return 0;
}

/* Marks in order of their classes, those of one class as they came. */
static void sort_marks(struct nfc *nfc, size_t first)
{
    enum { FEW = 16 };
    uint32_t *codes = nfc->codes;
    uint8_t *classes = nfc->classes;
    size_t n = nfc->n;
    bool swapped = true;
    if (n - first > FEW) { /* a pass for each class that there is */
        uint32_t *copy = malloc((n - first) * (sizeof *copy + 1));
        uint8_t *copied = (uint8_t *)(copy + (n - first));
        if (!copy) {
            nfc->status = -ENOMEM;
            return;
        }
        memcpy(copy, codes + first, (n - first) * sizeof *copy);
        memcpy(copied, classes + first, n - first);
        /* Counted, then summed up: counts[c] becomes the place of the first mark of class c. */
        size_t counts[257] = {0};
        for (size_t i = 0; i < n - first; i++)
            counts[copied[i] + 1]++;
        for (size_t c = 1; c < 257; c++)
            counts[c] += counts[c - 1];
        for (size_t i = 0; i < n - first; i++) {
            size_t to = first + counts[copied[i]]++;
            codes[to] = copy[i];
            classes[to] = copied[i];
        }
        free(copy);
        return;
    }
    /* A few: neighbours change places only when out of order, so equal ones keep theirs. */
    while (swapped) {
        swapped = false;
        for (size_t i = first; i + 1 < n; i++)
            if (classes[i] > classes[i + 1]) {
                uint32_t code = codes[i];
                uint8_t combining = classes[i];
                codes[i] = codes[i + 1];
                classes[i] = classes[i + 1];
                codes[i + 1] = code;
                classes[i + 1] = combining;
                swapped = true;
            }
    }
}

/* Put in order and together what stands there. */
static void settle(struct nfc *nfc)
{
    size_t starts = nfc->n && nfc->classes[0] == 0, kept = starts;
    sort_marks(nfc, starts);
    uint8_t last = 0;
    for (size_t i = starts; i < nfc->n; i++) {
        /* Kept marks are in order: one of the same or a higher class before it blocks a mark. */
        uint32_t made = starts && (kept == 1 || last < nfc->classes[i])
                            ? compose(nfc->codes[0], nfc->codes[i])
                            : 0;
        if (made) {
            nfc->codes[0] = made;
            continue;
        }
        last = nfc->classes[i];
        nfc->codes[kept] = nfc->codes[i];
        nfc->classes[kept++] = last;
    }
    nfc->n = kept;
}

static void flush(struct nfc *nfc)
{
    for (size_t i = 0; i < nfc->n && nfc->put; i++)
        nfc->put(nfc->ctx, nfc->codes[i]);
    nfc->n = 0;
}

static void push(struct nfc *nfc, uint32_t code, uint8_t combining)
{
    if (nfc->n == nfc->room) {
        size_t room = nfc->room ? 2 * nfc->room : FIRST_ROOM;
        uint32_t *codes = realloc(nfc->codes, room * sizeof *codes);
        nfc->codes = codes ? codes : nfc->codes;
        uint8_t *classes = realloc(nfc->classes, room);
        nfc->classes = classes ? classes : nfc->classes;
        /* One may have grown alone; `room` is that of the smaller. */
        if (!codes || !classes) {
            nfc->status = -ENOMEM;
            return;
        }
        nfc->room = room;
    }
    assert(nfc->n < nfc->room);
    nfc->codes[nfc->n] = code;
    nfc->classes[nfc->n++] = combining;
}

/* One that is not taken apart any further. */
static void add_part(struct nfc *nfc, uint32_t code)
{
    uint8_t combining = code < NFC_PLAIN ? 0 : class_of(code);
    /* A starter ends what stands there, but joins a starter that has no marks left. */
    if (combining == 0 && nfc->n) {
        if (nfc->n > 1)
            settle(nfc);
        uint32_t made = nfc->n == 1 && nfc->classes[0] == 0 ? compose(nfc->codes[0], code) : 0;
        if (made) {
            nfc->codes[0] = made;
            return;
        }
        flush(nfc);
    }
    push(nfc, code, combining);
}

void nfc_add(struct nfc *nfc, uint32_t code)
{
    if (code < NFC_PLAIN && nfc->n <= 1) {
        flush(nfc);
        push(nfc, code, 0);
        return;
    }
    if (code - HANGUL < HANGUL_N) { /* its parts would only come together again */
        add_part(nfc, code);
        return;
    }
    size_t at = row_find(nfc_singles, nfc_singles_n, sizeof *nfc_singles, code);
    if (at < nfc_singles_n && nfc_singles[at].code == code) {
        /* What it becomes may come apart again; the tables end after a few steps. */
        nfc_add(nfc, nfc_singles[at].to);
        return;
    }
    at = row_find(nfc_pairs, nfc_pairs_n, sizeof *nfc_pairs, code);
    if (at < nfc_pairs_n && nfc_pairs[at].code == code) {
        nfc_add(nfc, nfc_pairs[at].first);
        nfc_add(nfc, nfc_pairs[at].second);
        return;
    }
    add_part(nfc, code);
}

void nfc_end(struct nfc *nfc)
{
    if (nfc->n > 1)
        settle(nfc);
    flush(nfc);
}

void nfc_close(struct nfc *nfc)
{
    free(nfc->codes);
    free(nfc->classes);
    nfc->codes = NULL;
    nfc->classes = NULL;
    nfc->n = nfc->room = 0;
}
