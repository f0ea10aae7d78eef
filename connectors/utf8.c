/*
 * utf8.c: see utf8.h.
 */
#include "connectors/utf8.h"

#include <stdlib.h>
#include <string.h>

/* How many bytes follow head, and the range of the first of them. -1: nothing begins so. */
static int head_read(unsigned char head, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (head < 0x80)
        return 0;
    if (head < 0xc2 || head > 0xf4)
        return -1;
    if (head < 0xe0)
        return 1;
    if (head == 0xe0) /* shorter forms exist */
        *low = 0xa0;
    if (head == 0xed) /* surrogates */
        *high = 0x9f;
    if (head < 0xf0)
        return 2;
    if (head == 0xf0)
        *low = 0x90;
    if (head == 0xf4) /* above U+10FFFF */
        *high = 0x8f;
    return 3;
}

int utf8_next(const char *ptr, size_t len)
{
    unsigned char low, high;
    int follow = head_read((unsigned char)ptr[0], &low, &high);
    if (follow < 0)
        return -1;
    for (int i = 1; i <= follow; i++) {
        /* A character that the end cuts is bad at the end, as if a 0 followed. */
        unsigned char c = (size_t)i < len ? (unsigned char)ptr[i] : 0;
        if (c < low || c > high)
            return -i;
        /* Only the first byte after the head has a range of its own. */
        low = 0x80;
        high = 0xbf;
    }
    return follow + 1;
}

size_t utf8_start(const char *ptr, size_t len, size_t at)
{
    for (size_t back = 1; back <= 3 && back <= at && at < len; back++) {
        if (((unsigned char)ptr[at - back + 1] & 0xc0) != 0x80)
            break;
        int step = utf8_next(ptr + at - back, len - (at - back));
        /* A character, or the beginning of a damaged one, that reaches across `at`. */
        if ((size_t)abs(step) > back)
            return at - back;
    }
    return at;
}

bool utf8_is_valid(const char *ptr, size_t len)
{
    for (size_t i = 0; i < len;) {
        int step = utf8_next(ptr + i, len - i);
        if (step < 0)
            return false;
        i += (size_t)step;
    }
    return true;
}

size_t utf8_repair(const char *ptr, size_t len, char *to)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        int step = utf8_next(ptr + i, len - i);
        size_t more = step < 0 ? sizeof UTF8_REPLACEMENT - 1 : (size_t)step;
        memcpy(to + n, step < 0 ? UTF8_REPLACEMENT : ptr + i, more);
        n += more;
        i += (size_t)abs(step);
    }
    return n;
}
