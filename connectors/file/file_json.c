/*
 * file_json.c: see file_json.h.
 */
#include "connectors/file/file_json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int file_json_put(struct file_buffer *to, const char *bytes, size_t n)
{
    if (to->room - to->len < n) {
        size_t room = to->room ? to->room : 4096;
        while (room - to->len < n)
            room *= 2;
        char *ptr = realloc(to->ptr, room);
        if (!ptr)
            return -ENOMEM;
        to->ptr = ptr;
        to->room = room;
    }
    if (n > 0)
        memcpy(to->ptr + to->len, bytes, n);
    to->len += n;
    return 0;
}

int file_json_word(struct file_buffer *to, const char *word)
{
    return file_json_put(to, word, strlen(word));
}

int file_json_string(struct file_buffer *to, struct bytes string)
{
    int rc = file_json_put(to, "\"", 1);
    size_t begun = 0;
    for (size_t i = 0; i < string.len && rc == 0; i++) {
        unsigned char c = (unsigned char)string.ptr[i];
        char escape[8];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        int n = snprintf(escape, sizeof escape, c < 0x20 ? "\\u%04x" : "\\%c", c);
        rc = file_json_put(to, string.ptr + begun, i - begun);
        if (rc == 0)
            rc = file_json_put(to, escape, (size_t)n);
        begun = i + 1;
    }
    if (rc == 0)
        rc = file_json_put(to, string.ptr + begun, string.len - begun);
    return rc ? rc : file_json_put(to, "\"", 1);
}

/* RFC 4648, with padding. */
int file_json_base64(struct file_buffer *to, struct bytes bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    int rc = file_json_put(to, "\"", 1);
    for (size_t i = 0; i < bytes.len && rc == 0; i += 3) {
        size_t n = bytes.len - i < 3 ? bytes.len - i : 3;
        unsigned char in[3] = {0};
        memcpy(in, bytes.ptr + i, n);
        char out[4] = {digits[in[0] >> 2], digits[(in[0] & 3) << 4 | in[1] >> 4],
                       n > 1 ? digits[(in[1] & 15) << 2 | in[2] >> 6] : '=',
                       n > 2 ? digits[in[2] & 63] : '='};
        rc = file_json_put(to, out, sizeof out);
    }
    return rc ? rc : file_json_put(to, "\"", 1);
}
