/*
 * worker_name.c: see worker_name.h.
 */
#include "connectors/worker_name.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* FNV-1a: numbers are counted per purpose. */
static uint64_t hash_text(uint64_t hash, const char *text)
{
    for (const char *p = text;; p++) {
        hash = (hash ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
        /* The NUL counts, too, so that "ab" + "c" is another than "a" + "bc". */
        if (!*p)
            return hash;
    }
}

/* An abstract socket is a lock the kernel drops with the process, whatever ends it. */
static int hold_number(const char *kind, uint64_t hash, unsigned number)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* Abstract names are those of a network namespace; containers have hostnames of their own. */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -errno;
    /* At most 53 of the 107 bytes there are; `size` ends the name, no NUL does. */
    int len = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1,
                       "embedmill/%.20s/%016llx/%u", kind, (unsigned long long)hash, number);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
    if (bind(fd, (const struct sockaddr *)&address, size) == 0)
        return fd;
    int rc = -errno;
    close(fd);
    return rc;
}

static void let_go(int *locks, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (locks[i] >= 0)
            close(locks[i]);
        locks[i] = -1;
    }
}

/* The number for each of the names, or for none of them. */
static int hold_all(const char *kind, const char *const *names, size_t n, const char *scope,
                    unsigned number, int *locks)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t hash = hash_text(UINT64_C(0xcbf29ce484222325), names[i]);
        int fd = hold_number(kind, hash_text(hash, scope), number);
        if (fd < 0) {
            let_go(locks, i);
            return fd;
        }
        locks[i] = fd;
    }
    return 0;
}

int worker_name_hold(const char *kind, const char *const *names, size_t n, const char *scope,
                     char **out, int *locks)
{
    char host[256] = "worker", name[300];
    unsigned number = 0;
    int rc = -EADDRINUSE;

    for (size_t i = 0; i < n; i++)
        locks[i] = -1;
    /* One byte is left, for a name that is cut may come without its NUL. */
    gethostname(host, sizeof(host) - 1);
    while (rc == -EADDRINUSE && number < 10000)
        rc = hold_all(kind, names, n, scope, ++number, locks);
    /* No sockets here, or 10000 workers: unique at least until the process is gone. */
    if (rc < 0)
        snprintf(name, sizeof(name), "%s-p%ld", host, (long)getpid());
    else
        snprintf(name, sizeof(name), "%s-%u", host, number);
    *out = strdup(name);
    if (*out)
        return 0;
    let_go(locks, n);
    return -ENOMEM;
}
