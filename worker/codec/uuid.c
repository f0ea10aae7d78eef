/*
 * uuid.c: see uuid.h. SHA-1 is what version 5 asks for; it protects nothing here.
 */
#include "worker/codec/uuid.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>

static bool digest(struct bytes name, unsigned char sum[EVP_MAX_MD_SIZE])
{
    static const unsigned char urls[16] = {0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1,
                                           0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8};
    EVP_MD_CTX *sha1 = EVP_MD_CTX_new();
    bool ok = sha1 && EVP_DigestInit_ex(sha1, EVP_sha1(), NULL) &&
              EVP_DigestUpdate(sha1, urls, sizeof urls) &&
              EVP_DigestUpdate(sha1, name.ptr, name.len) && EVP_DigestFinal_ex(sha1, sum, NULL);
    EVP_MD_CTX_free(sha1);
    return ok;
}

int uuid_of_name(struct bytes name, char out[UUID_TEXT + 1])
{
    unsigned char sum[EVP_MAX_MD_SIZE];
    if (!digest(name, sum))
        return -ENOMEM;
    sum[6] = (sum[6] & 0x0f) | 0x50; /* version 5 */
    sum[8] = (sum[8] & 0x3f) | 0x80; /* variant of RFC 9562 */
    for (size_t i = 0, at = 0; i < 16; i++)
        at += (size_t)snprintf(out + at, UUID_TEXT + 1 - at, "%s%02x",
                               i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", sum[i]);
    return 0;
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
