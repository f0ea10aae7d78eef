/*
 * uuid.c: see uuid.h.
 *
 * Why: SHA-1 is what version 5 asks for. It protects nothing here, and the one of OpenSSL would
 *      bring that library into this room for forty lines.
 */
#include "worker/codec/uuid.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>

struct sha1 {
    uint32_t sum[5];
    unsigned char block[64];
    uint64_t len;
};

static uint32_t rotate(uint32_t x, unsigned by)
{
    return x << by | x >> (32 - by);
}

/* FIPS 180-4, 6.1.2. */
static void block_add(uint32_t sum[5], const unsigned char block[64])
{
    uint32_t w[80], a = sum[0], b = sum[1], c = sum[2], d = sum[3], e = sum[4];
    for (size_t i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (size_t i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (size_t i = 0; i < 80; i++) {
        uint32_t mixed = i < 20              ? 0x5a827999 + ((b & c) | (~b & d))
                         : i >= 40 && i < 60 ? 0x8f1bbcdc + ((b & c) | (b & d) | (c & d))
                                             : (i < 40 ? 0x6ed9eba1 : 0xca62c1d6) + (b ^ c ^ d);
        uint32_t next = rotate(a, 5) + mixed + e + w[i];
        e = d;
        d = c;
        c = rotate(b, 30);
        b = a;
        a = next;
    }
    sum[0] += a;
    sum[1] += b;
    sum[2] += c;
    sum[3] += d;
    sum[4] += e;
}

static void add(struct sha1 *sha, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        sha->block[sha->len++ % 64] = ((const unsigned char *)bytes)[i];
        if (sha->len % 64 == 0)
            block_add(sha->sum, sha->block);
    }
}

static void finish(struct sha1 *sha)
{
    uint64_t bits = sha->len * 8;
    add(sha, "\x80", 1);
    while (sha->len % 64 != 56)
        add(sha, "", 1);
    for (int shift = 56; shift >= 0; shift -= 8)
        add(sha, &(unsigned char){(unsigned char)(bits >> shift)}, 1);
}

void uuid_of_name(struct bytes name, char out[UUID_TEXT + 1])
{
    static const unsigned char urls[16] = {0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1,
                                           0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8};
    struct sha1 sha = {.sum = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}};
    add(&sha, urls, sizeof urls);
    add(&sha, name.ptr, name.len);
    finish(&sha);
    uint32_t version = (sha.sum[1] & 0xffff0fff) | 0x5000;
    uint32_t variant = (sha.sum[2] & 0x3fffffff) | 0x80000000;
    snprintf(out, UUID_TEXT + 1, "%08x-%04x-%04x-%04x-%04x%08x", sha.sum[0], version >> 16,
             version & 0xffff, variant >> 16, variant & 0xffff, sha.sum[3]);
}

bool uuid_is(struct bytes text)
{
    for (size_t i = 0; i < text.len; i++) {
        bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
        if (hyphen ? text.ptr[i] != '-' : !isxdigit((unsigned char)text.ptr[i]))
            return false;
    }
    return text.len == UUID_TEXT;
}
