/*
 * file_utf16.c: see file_utf16.h.
 */
#include "connectors/file/file_utf16.h"

#include <assert.h>
#include <stdint.h>

static uint32_t unit(const char *at, bool big_endian)
{
    unsigned char first = (unsigned char)at[0], second = (unsigned char)at[1];
    return big_endian ? (uint32_t)first << 8 | second : (uint32_t)second << 8 | first;
}

static size_t put(uint32_t c, char *to)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char heads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    /* Six bits for each following byte, from the last; what is left belongs to the head. */
    for (size_t i = n; i-- > 1; c >>= 6)
        to[i] = (char)(0x80 | (c & 0x3f));
    to[0] = (char)(heads[n] | c);
    return n;
}

size_t file_utf16_read(bool big_endian, const char **at, const char *end, bool ended, char *to,
                       size_t room)
{
    size_t len = 0;
    assert(room >= 4);
    while (end - *at >= 2 && room - len >= 4) {
        uint32_t c = unit(*at, big_endian);
        size_t used = 2;
        if (c >= 0xd800 && c < 0xdc00) {
            if (end - *at < 4 && !ended)
                /* The low half may come with the next bytes. */
                break;
            uint32_t low = end - *at >= 4 ? unit(*at + 2, big_endian) : 0;
            if (low >= 0xdc00 && low < 0xe000) {
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                used = 4;
            }
        }
        len += put(c, to + len);
        *at += used;
    }
    return len;
}
