/*
 * tokenizer_fold.c: see tokenizer_fold.h.
 *
 * The published tokenizer also puts combining characters in their canonical order. Nearly all of
 * them are accents, which it drops; the few that stay (vowel signs of some scripts, tone marks) are
 * read here in the order of the text, in which they are written by all but the perverse.
 */
#include "inference/tokenizer_fold.h"

/* The last of n entries, `size` bytes each and led by a code, whose code is not above; or NULL. */
static const void *entry_find(const void *entries, size_t n, size_t size, uint32_t code)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const uint32_t *first = (const void *)((const char *)entries + mid * size);
        if (*first <= code)
            low = mid + 1;
        else
            high = mid;
    }
    return low ? (const char *)entries + (low - 1) * size : NULL;
}

static bool is_within(const struct fold_range *ranges, size_t n, uint32_t code)
{
    const struct fold_range *found = entry_find(ranges, n, sizeof *ranges, code);
    return found && code <= found->last;
}

/* Unicode 15, 3.12: leading consonant, vowel, perhaps a trailing consonant. */
static bool hangul_fold(struct folded *out, uint32_t code)
{
    enum { FIRST = 0xAC00, LAST = 0xD7A3, TRAILS = 28, PAIRS = 21 * TRAILS };
    if (code < FIRST || code > LAST)
        return false;
    uint32_t index = code - FIRST, trail = index % TRAILS;
    out->codes[0] = 0x1100 + index / PAIRS;
    out->codes[1] = 0x1161 + index % PAIRS / TRAILS;
    out->codes[2] = 0x11A7 + trail;
    out->n = trail ? 3 : 2;
    return true;
}

static void letters_fold(struct folded *out, uint32_t code)
{
    const struct fold_run *run = entry_find(fold_runs, fold_runs_n, sizeof *run, code);
    out->codes[0] = code;
    out->n = 1;
    if (run) {
        uint32_t offset = code - run->first;
        if (offset % run->step == 0 && offset / run->step < run->n) {
            out->codes[0] = run->to + offset * run->slope;
            return;
        }
    }
    const struct fold_alone *alone = entry_find(fold_alone, fold_alone_n, sizeof *alone, code);
    if (alone && alone->code == code)
        for (out->n = 0; out->n < FOLD_LONGEST && alone->to[out->n]; out->n++)
            out->codes[out->n] = alone->to[out->n];
}

struct folded fold_char(uint32_t code)
{
    struct folded out = {.n = 0};
    if (is_within(fold_dropped, fold_dropped_n, code))
        return out;
    out.is_space = is_within(fold_spaces, fold_spaces_n, code);
    if (out.is_space || hangul_fold(&out, code))
        return out;
    letters_fold(&out, code);
    /* Punctuation is looked for in what a character has become: U+037E is a semicolon. */
    out.is_apart = is_within(fold_apart, fold_apart_n, code) ||
                   is_within(fold_punctuation, fold_punctuation_n, out.codes[0]);
    return out;
}
