/*
 * wakeup.h: waking the loop from another thread.
 *
 * Owns:    one eventfd and its place in the loop; wake-ups that the loop has not answered are one.
 * Refuses: what there is to do: the owner finds out.
 * Threads: the loop thread, but for wakeup_send.
 * Why:     libuv's own, uv_async_send, makes the loop wait until the call has returned on the
 *          thread that made it (libuv 1.44). Where that thread is interrupted by the very loop that
 *          it wakes, as on a machine whose cores all work, the loop spins meanwhile.
 */
#ifndef WAKEUP_H
#define WAKEUP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

/* A member of its owner. */
struct wakeup {
    uv_poll_t poll;
    int fd;
    atomic_bool is_sent; /* and not answered */
    void (*woken)(void *ctx);
    void (*closed)(void *ctx);
    void *ctx;
};

/* woken: from the loop, once or more often after each wakeup_send, with all that came before it
 * visible. 0 or negative errno; then it is not to be closed. */
int wakeup_open(struct wakeup *wakeup, uv_loop_t *loop, void (*woken)(void *ctx), void *ctx);
/* On any thread. */
void wakeup_send(struct wakeup *wakeup);
/* No thread sends any more. closed: from the loop; then its memory may go. */
void wakeup_close(struct wakeup *wakeup, void (*closed)(void *ctx));

#endif
