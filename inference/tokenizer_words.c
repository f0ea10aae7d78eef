/*
 * tokenizer_words.c: see tokenizer_words.h.
 *
 * Source: GPT-2 (Radford et al. 2019), whose pattern OLMo's tokenizer and so ModernBERT's have:
 *         's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *         and that of Qwen2 and its successors: (?i:'s|'t|'re|'ve|'m|'ll|'d)
 *         |[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 */
#include "inference/tokenizer_words.h"

#include <stdbool.h>

#include "inference/tokenizer_nfc.h"

static size_t run_end(const uint8_t *kinds, size_t at, size_t n, uint8_t kind)
{
    while (at < n && kinds[at] == kind)
        at++;
    return at;
}

/* The character, in lower case if it is a letter of a contraction; long s folds to s. */
static uint32_t fold(uint32_t code)
{
    return code >= 'A' && code <= 'Z' ? code + 'a' - 'A' : code == 0x17F ? 's' : code;
}

/* Length of 's, 't, 're, 've, 'm, 'll or 'd, or 0. */
static size_t contraction(const uint32_t *codes, size_t at, size_t n, bool any_case)
{
    if (codes[at] != '\'' || at + 1 >= n)
        return 0;
    uint32_t first = any_case ? fold(codes[at + 1]) : codes[at + 1], second = 0;
    if (first == 's' || first == 't' || first == 'm' || first == 'd')
        return 2;
    if (at + 2 < n)
        second = any_case ? fold(codes[at + 2]) : codes[at + 2];
    return (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
                   (first == 'l' && second == 'l')
               ? 3
               : 0;
}

/* White space that no word takes with it: but for the last one before a word, which may. */
static size_t space_end(const uint8_t *kinds, size_t at, size_t n)
{
    size_t end = run_end(kinds, at, n, NFC_SPACE);
    return end == n || end == at + 1 ? end : end - 1;
}

size_t words_end_gpt2(const uint32_t *codes, const uint8_t *kinds, size_t at, size_t n)
{
    size_t length = contraction(codes, at, n, false);
    if (length)
        return at + length;
    size_t from = codes[at] == ' ' && at + 1 < n ? at + 1 : at;
    /* " ?" before a run of letters, of numbers or of all else. */
    if (kinds[from] != NFC_SPACE)
        return run_end(kinds, from, n, kinds[from]);
    return space_end(kinds, at, n);
}

static bool is_newline(uint32_t code)
{
    return code == '\r' || code == '\n';
}

/* Behind the last newline of the white space that begins here, or `at`. */
static size_t newlines_end(const uint32_t *codes, const uint8_t *kinds, size_t at, size_t n)
{
    size_t end = run_end(kinds, at, n, NFC_SPACE);
    while (end > at && !is_newline(codes[end - 1]))
        end--;
    return end;
}

size_t words_end_qwen2(const uint32_t *codes, const uint8_t *kinds, size_t at, size_t n)
{
    size_t length = contraction(codes, at, n, true);
    if (length)
        return at + length;
    if (kinds[at] == NFC_LETTER)
        return run_end(kinds, at, n, NFC_LETTER);
    if (kinds[at] == NFC_NUMBER)
        /* \p{N} without a +: each digit by itself. */
        return at + 1;
    /* Whatever else it is, it goes with the letters behind it. */
    if (!is_newline(codes[at]) && at + 1 < n && kinds[at + 1] == NFC_LETTER)
        return run_end(kinds, at + 1, n, NFC_LETTER);
    size_t from = codes[at] == ' ' && at + 1 < n ? at + 1 : at;
    if (kinds[from] == NFC_OTHER) {
        size_t end = run_end(kinds, from, n, NFC_OTHER);
        while (end < n && is_newline(codes[end]))
            end++;
        return end;
    }
    /* \s*[\r\n]+ takes the newlines with the white space before them, and leaves that behind. */
    size_t end = newlines_end(codes, kinds, at, n);
    return end > at ? end : space_end(kinds, at, n);
}
