/*
 * tokenizer_fold.c: see tokenizer_fold.h.
 *
 * Where the published tokenizer takes accents off it also puts combining characters in their
 * canonical order. Nearly all of them are accents, which it drops; the few that stay (vowel signs
 * of some scripts, tone marks) are read here in the order of the text, which is nearly always the
 * same.
 */
#include "inference/tokenizer_fold.h"

#include <assert.h>

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

struct map {
    const struct fold_run *runs;
    const uint32_t (*alone)[1 + FOLD_LONGEST];
    const size_t *n_runs, *n_alone;
};

static const struct map strip = {fold_strip_runs, fold_strip_alone, &fold_strip_runs_n,
                                 &fold_strip_alone_n};
static const struct map lower = {fold_lower_runs, fold_lower_alone, &fold_lower_runs_n,
                                 &fold_lower_alone_n};

/* What one character becomes, added to out. */
static void letter_map(const struct map *map, uint32_t code, struct folded *out)
{
    const struct fold_run *run = entry_find(map->runs, *map->n_runs, sizeof *run, code);
    const uint32_t *alone = entry_find(map->alone, *map->n_alone, sizeof *map->alone, code);
    uint32_t offset = run ? code - run->first : 0;

    /* Characters that a run steps over are none of it: lower-case ones between upper-case ones. */
    if (run && offset % run->step == 0 && offset / run->step < run->n)
        code = run->to + offset * run->slope;
    else if (alone && alone[0] == code) {
        for (size_t i = 1; i <= FOLD_LONGEST && alone[i]; i++) {
            assert(out->n < FOLD_LONGEST);
            out->codes[out->n++] = alone[i];
        }
        return;
    }
    assert(out->n < FOLD_LONGEST);
    out->codes[out->n++] = code;
}

struct folded fold_char(uint32_t code, struct fold_steps steps)
{
    struct folded out = {.n = 0}, parts = {.n = 0};
    if (is_within(fold_dropped, fold_dropped_n, code))
        return out;
    out.is_space = is_within(fold_spaces, fold_spaces_n, code);
    if (out.is_space || (steps.strip_accents && is_within(fold_accents, fold_accents_n, code)))
        return out;
    /* Without it a character is not taken apart, and only its case may change. */
    if (!steps.strip_accents)
        parts.codes[parts.n++] = code;
    else if (!hangul_fold(&parts, code))
        letter_map(&strip, code, &parts);
    for (size_t i = 0; i < parts.n; i++)
        if (steps.lowercase)
            letter_map(&lower, parts.codes[i], &out);
        else
            out.codes[out.n++] = parts.codes[i];
    /* Punctuation is looked for in what a character has become: U+037E is a semicolon. */
    out.is_apart = is_within(fold_apart, fold_apart_n, code) ||
                   is_within(fold_punctuation, fold_punctuation_n, out.codes[0]);
    return out;
}
