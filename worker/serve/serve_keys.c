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

/* The next line, or its beginning: *is_cut, and the rest is left out. False at the end. */
static bool line_next(FILE *file, char line[KEY_MAX + 2], bool *is_cut)
{
    *is_cut = false;
    line[KEY_MAX + 1] = 1; /* fgets ends there only what fills it, whatever bytes it has */
    if (!fgets(line, KEY_MAX + 2, file))
        return false;
    /* Else the end of a long comment would be read as a line of its own: a key that nobody gave. */
    int c = line[KEY_MAX + 1] == '\0' ? (unsigned char)line[KEY_MAX] : '\n';
    for (; c != '\n' && c != EOF; c = getc(file))
        *is_cut = true;
    return true;
}

static int read_keys(struct serve_keys *keys, FILE *file, const char *path, char *err,
                     size_t err_size)
{
    char line[KEY_MAX + 2] = "";
    bool is_cut;
    int rc = 0;
    for (size_t number = 1; line_next(file, line, &is_cut); number++) {
        const char *key = trim(line);
        size_t len = strlen(key);
        if ((len == 0 && !is_cut) || key[0] == '#')
            continue;
        if (len < KEY_MIN || len >= KEY_MAX || is_cut || keys->n == KEYS_MAX) {
            snprintf(err, err_size,
                     "%s:%zu: expected one key on each line, of %d to %d characters, and at most "
                     "%d keys",
                     path, number, KEY_MIN, KEY_MAX - 1, KEYS_MAX);
            rc = -EINVAL;
            break;
        }
        SHA256((const unsigned char *)key, len, keys->digests[keys->n++]);
    }
    /* However it ended: a key must not stay on the stack. */
    OPENSSL_cleanse(line, sizeof line);
    if (rc != 0 || (keys->n > 0 && !ferror(file)))
        return rc;
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
    /* All of them whatever is found, so that the time does not say which one it was. */
    for (size_t i = 0; i < keys->n; i++)
        n_equal += CRYPTO_memcmp(digest, keys->digests[i], sizeof digest) == 0;
    return n_equal > 0;
}
