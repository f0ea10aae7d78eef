/*
 * notify.h: what systemd hears of this process: ready, a status line, alive, stopping.
 *
 * Owns:    the datagrams of sd_notify(3). Outside of systemd (no NOTIFY_SOCKET) nothing happens.
 * Threads: the loop thread, which is what makes the watchdog mean something.
 * Why:     the protocol is one datagram a message; a library for it is not needed.
 */
#ifndef NOTIFY_H
#define NOTIFY_H

#include <stdint.h>

struct notify {
    int fd; /* -1: nobody listens */
    uint64_t watchdog_ms, last_ms;
};

void notify_open(struct notify *notify);
/* "READY=1", "STATUS=...", "STOPPING=1"; may be several lines. Never blocks. */
void notify_send(const struct notify *notify, const char *message);
/* About once a second, now_ms by the loop's clock: sends WATCHDOG=1 when it is due. */
void notify_tick(struct notify *notify, uint64_t now_ms);
void notify_close(struct notify *notify);

#endif
