/*
 * notify.c: see notify.h. A socket name that begins with @ is an abstract one.
 *
 * Threads: the loop thread.
 */
#include "worker/telemetry/notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The time of WATCHDOG_USEC in ms; 0 when there is none or it is meant for another process. */
static uint64_t watchdog_ms(void)
{
    const char *text = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!text || (pid && strtol(pid, NULL, 10) != (long)getpid()))
        return 0;
    return strtoull(text, NULL, 10) / 1000;
}

void notify_open(struct notify *notify)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    *notify = (struct notify){.fd = -1};
    /* Started by hand, or under another supervisor: there is nobody to notify. */
    if (len < 2 || len >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(address.sun_path, path, len);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Without a zero behind it, which would be part of an abstract name. */
    if (notify->fd >= 0 && connect(notify->fd, (const struct sockaddr *)&address,
                                   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) != 0)
        notify_close(notify);
    if (notify->fd >= 0)
        notify->watchdog_ms = watchdog_ms();
}

void notify_send(const struct notify *notify, const char *message)
{
    /* A manager that no longer listens is not a reason to fail. */
    if (notify->fd >= 0)
        (void)!send(notify->fd, message, strlen(message), MSG_NOSIGNAL);
}

void notify_tick(struct notify *notify, uint64_t now_ms)
{
    /* A third and not a half: one tick may come late, or one datagram be lost. */
    if (!notify->watchdog_ms || now_ms - notify->last_ms < notify->watchdog_ms / 3)
        return;
    notify->last_ms = now_ms;
    notify_send(notify, "WATCHDOG=1");
}

void notify_close(struct notify *notify)
{
    if (notify->fd >= 0)
        close(notify->fd);
    notify->fd = -1;
}
