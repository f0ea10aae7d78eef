/*
 * tokenizer_utf8.c: UTF-8 in and out, one character at a time.
 *
 * Owns:    what counts as UTF-8: no overlongs, no surrogates, nothing above U+10FFFF; NUL is a
 *          character like any other.
 * Refuses: to read at or past `end`.
 * Threads: any; no state.
 * Why:     a bad part must have one length everywhere: the tokens of a damaged text are then the
 *          tokens other programs give it after the replacement they do by default.
 * Source:  Unicode 15, chapter 3.9, table 3-7 and "U+FFFD substitution of maximal subparts"; the
 *          same as the WHATWG decoder and as Python's errors="replace".
 */
#include "inference/tokenizer_internal.h"

struct utf8_char utf8_decode(const uint8_t *at, const uint8_t *end)
{
    uint8_t lead = at[0];
    uint8_t low = 0x80, high = 0xBF; /* allowed in the second byte */
    uint8_t need;
    uint32_t code;

    if (lead < 0x80)
        return (struct utf8_char){lead, 1, false};
    if (lead >= 0xC2 && lead <= 0xDF) {
        need = 1;
        code = lead & 0x1F;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
        need = 2;
        code = lead & 0x0F;
        low = lead == 0xE0 ? 0xA0 : 0x80;  /* else overlong */
        high = lead == 0xED ? 0x9F : 0xBF; /* else a surrogate */
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        need = 3;
        code = lead & 0x07;
        low = lead == 0xF0 ? 0x90 : 0x80;  /* else overlong */
        high = lead == 0xF4 ? 0x8F : 0xBF; /* else above U+10FFFF */
    } else {
        return (struct utf8_char){REPLACE_CODE, 1, true};
    }
    for (uint8_t k = 1; k <= need; k++) {
        if (at + k >= end || at[k] < low || at[k] > high)
            /* k bytes could have begun a character: together they are one bad part. */
            return (struct utf8_char){REPLACE_CODE, k, true};
        code = code << 6 | (at[k] & 0x3F);
        /* Only the second byte has other bounds. */
        low = 0x80;
        high = 0xBF;
    }
    return (struct utf8_char){code, (uint8_t)(need + 1), false};
}

size_t utf8_encode(uint32_t code, uint8_t out[4])
{
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (uint8_t)(0xC0 | code >> 6);
        out[1] = (uint8_t)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (uint8_t)(0xE0 | code >> 12);
        out[1] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | code >> 18);
    out[1] = (uint8_t)(0x80 | (code >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (code >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (code & 0x3F));
    return 4;
}
