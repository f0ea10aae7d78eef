/*
 * http_listen.c: see http_listen.h.
 */
#include "worker/http/http_listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "worker/config/address.h"

enum { BACKLOG = 1024 };

/* NULL: it is HOST:PORT. */
static const char *unix_path(const char *where)
{
    size_t len = strlen(HTTP_LISTEN_UNIX);
    return strncmp(where, HTTP_LISTEN_UNIX, len) == 0 ? where + len : NULL;
}

/* The address that was bound, for the log and for tests that ask for any port. */
static void read_name(int fd, char *name, size_t size)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    char host[256], port[32];
    name[0] = '\0';
    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0 ||
        getnameinfo((struct sockaddr *)&address, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    bool is_v6 = strchr(host, ':') != NULL;
    snprintf(name, size, "%s%s%s:%s", is_v6 ? "[" : "", host, is_v6 ? "]" : "", port);
}

/* A listening socket, or negative errno. */
static int listen_on(const struct addrinfo *at)
{
    int one = 1, both = 0, defer_s = 1;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* A restart would have to wait for what is in TIME_WAIT else. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    /* Whoever is accepted has sent something: a probe's request is there to be read before anybody
     * else is accepted, and those that send nothing stay with the kernel. */
    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &defer_s, sizeof defer_s);
    if (at->ai_family == AF_INET6) /* "::" is IPv4, too, whatever net.ipv6.bindv6only says */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &both, sizeof both);
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int rc = -errno;
    close(fd);
    return rc;
}

/* The first of these that can be had. A port that is taken is reported: nobody looks for the
 * server at another address of the name. */
static int listen_on_any(const struct addrinfo *found, int family)
{
    int rc = -EADDRNOTAVAIL;
    for (; found && rc < 0 && rc != -EADDRINUSE; found = found->ai_next)
        if (family == AF_UNSPEC || found->ai_family == family)
            rc = listen_on(found);
    return rc;
}

static int listen_tcp(const char *where, char *err, size_t err_size)
{
    char host[256], port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    int rc = address_split(where, host, sizeof host, port, sizeof port, err, err_size);
    if (rc != 0)
        return rc;
    rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
    if (rc != 0) {
        snprintf(err, err_size, "'%.100s': %s; give an address of this machine", where,
                 gai_strerror(rc));
        return -EADDRNOTAVAIL;
    }
    /* All addresses: one socket of IPv6 serves both, where there is IPv6. */
    rc = host[0] ? -EADDRNOTAVAIL : listen_on_any(found, AF_INET6);
    if (rc < 0 && rc != -EADDRINUSE)
        rc = listen_on_any(found, AF_UNSPEC);
    if (rc < 0)
        snprintf(err, err_size, "cannot listen at %.100s: %s%s", where, strerror(-rc),
                 rc == -EADDRINUSE ? "; another worker of this machine may have the port: give "
                                     "each its own"
                                   : "");
    freeaddrinfo(found);
    return rc;
}

static int unix_address(const char *path, struct sockaddr_un *out, char *err, size_t err_size)
{
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len > 0 && len < sizeof out->sun_path) {
        memcpy(out->sun_path, path, len + 1);
        return 0;
    }
    snprintf(err, err_size,
             "'%.120s': expected " HTTP_LISTEN_UNIX "PATH with a path of 1 to %zu "
             "bytes",
             path, sizeof out->sun_path - 1);
    return -EINVAL;
}

/* The file of a worker that was killed is still there, and nobody listens to it. */
static void remove_stale(const struct sockaddr_un *at)
{
    struct stat is;
    if (lstat(at->sun_path, &is) != 0 || !S_ISSOCK(is.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    /* Refused: nobody listens. Any other answer may be that of somebody alive. */
    if (connect(fd, (const struct sockaddr *)at, sizeof *at) != 0 && errno == ECONNREFUSED)
        unlink(at->sun_path);
    close(fd);
}

static int listen_unix(const char *path, char *err, size_t err_size)
{
    struct sockaddr_un at;
    int rc = unix_address(path, &at, err, err_size);
    if (rc != 0)
        return rc;
    remove_stale(&at);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&at, sizeof at) == 0 &&
        listen(fd, BACKLOG) == 0)
        return fd;
    rc = -errno;
    if (fd >= 0)
        close(fd);
    snprintf(err, err_size, "cannot listen at %.108s: %s%s", path, strerror(-rc),
             rc == -EADDRINUSE ? "; the address is taken by another worker or a file" : "");
    return rc;
}

int http_listen(const char *where, char *name, size_t name_size, char *err, size_t err_size)
{
    const char *path = unix_path(where);
    int fd = path ? listen_unix(path, err, err_size) : listen_tcp(where, err, err_size);
    if (fd >= 0 && path)
        snprintf(name, name_size, "%s", where);
    else if (fd >= 0)
        read_name(fd, name, name_size);
    return fd;
}

int http_listen_check(const char *where, char *err, size_t err_size)
{
    const char *path = unix_path(where);
    char host[256], port[16];
    struct sockaddr_un at;
    return path ? unix_address(path, &at, err, err_size)
                : address_split(where, host, sizeof host, port, sizeof port, err, err_size);
}

void http_listen_remove(const char *where)
{
    const char *path = unix_path(where);
    if (path)
        unlink(path);
}
