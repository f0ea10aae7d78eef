/*
 * serve_keys.c: see serve_keys.h.
 */
#include "worker/serve/serve_keys.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { KEY_MIN = 8, KEY_MAX = 4096, KEYS_MAX = 1024 };

struct serve_keys {
    size_t n;
    unsigned char digests[KEYS_MAX][SHA256_DIGEST_LENGTH];
};

/* Without blanks and the mark that some editors put before UTF-8. */
static char *trim(char *line)
{
    if (memcmp(line, "\xef\xbb\xbf", 3) == 0)
        line += 3;
    size_t len = strlen(line);
    while (len > 0 && isspace((unsigned char)line[len - 1]))
        line[--len] = '\0';
    return line + strspn(line, " \t");
}

static int read_keys(struct serve_keys *keys, FILE *file, const char *path, char *err,
                     size_t err_size)
{
    char line[KEY_MAX + 2] = "";
    for (size_t number = 1; fgets(line, sizeof line, file); number++) {
        const char *key = trim(line);
        size_t len = strlen(key);
        if (len == 0 || key[0] == '#')
            continue;
        if (len < KEY_MIN || len >= KEY_MAX || keys->n == KEYS_MAX) {
            snprintf(err, err_size,
                     "%s:%zu: expected one key on each line, of %d to %d characters, and at most "
                     "%d keys",
                     path, number, KEY_MIN, KEY_MAX - 1, KEYS_MAX);
            return -EINVAL;
        }
        SHA256((const unsigned char *)key, len, keys->digests[keys->n++]);
    }
    OPENSSL_cleanse(line, sizeof line);
    if (keys->n > 0 && !ferror(file))
        return 0;
    snprintf(err, err_size, "%s: %s", path,
             ferror(file) ? strerror(errno) : "the file holds no key; put one on each line");
    return -EINVAL;
}

int serve_keys_open(struct serve_keys **out, const char *path, char *err, size_t err_size)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        snprintf(err, err_size, "%s: %s", path, strerror(errno));
        return -EINVAL;
    }
    struct serve_keys *keys = calloc(1, sizeof *keys);
    snprintf(err, err_size, "out of memory");
    int rc = keys ? read_keys(keys, file, path, err, err_size) : -ENOMEM;
    fclose(file);
    if (rc == 0)
        *out = keys;
    else
        serve_keys_close(keys);
    return rc;
}

void serve_keys_close(struct serve_keys *keys)
{
    free(keys);
}

bool serve_keys_allow(const struct serve_keys *keys, const char *authorization)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    const char *key = "";
    int n_equal = 0;
    if (authorization && strncasecmp(authorization, "Bearer ", 7) == 0)
        key = authorization + 7 + strspn(authorization + 7, " ");
    SHA256((const unsigned char *)key, strlen(key), digest);
    for (size_t i = 0; i < keys->n; i++)
        n_equal += CRYPTO_memcmp(digest, keys->digests[i], sizeof digest) == 0;
    return n_equal > 0;
}
