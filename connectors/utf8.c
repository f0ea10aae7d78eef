/*
 * utf8.c: see utf8.h.
 */
#include "connectors/utf8.h"

bool utf8_is_valid(const char *ptr, size_t len)
{
    const unsigned char *at = (const unsigned char *)ptr, *end = at + len;
    while (at < end) {
        unsigned char head = *at++;
        int more = head < 0x80 ? 0 : head < 0xc2 ? -1 : head < 0xe0 ? 1 : head < 0xf0 ? 2 : 3;
        if (more < 0 || head > 0xf4 || end - at < more)
            return false;
        if (more > 1 && ((head == 0xe0 && *at < 0xa0) || (head == 0xed && *at > 0x9f) ||
                         (head == 0xf0 && *at < 0x90) || (head == 0xf4 && *at > 0x8f)))
            return false;
        for (; more > 0; more--)
            if ((*at++ & 0xc0) != 0x80)
                return false;
    }
    return true;
}
