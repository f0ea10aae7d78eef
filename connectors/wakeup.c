/*
 * wakeup.c: see wakeup.h.
 */
#include "connectors/wakeup.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct wakeup *wakeup = poll->data;
    uint64_t n;
    (void)status, (void)events;
    /* The count is of no interest: many wake-ups are one. */
    ssize_t got = read(wakeup->fd, &n, sizeof n);
    assert(got == sizeof n || (got < 0 && (errno == EAGAIN || errno == EINTR)));
    (void)got;
    /* Before the owner looks: who sends after this is heard by another round. */
    atomic_exchange(&wakeup->is_sent, false);
    wakeup->woken(wakeup->ctx);
}

int wakeup_open(struct wakeup *wakeup, uv_loop_t *loop, void (*woken)(void *ctx), void *ctx)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    *wakeup = (struct wakeup){.fd = fd, .woken = woken, .ctx = ctx};
    int rc = uv_poll_init(loop, &wakeup->poll, fd);
    if (rc) {
        close(fd);
        return rc;
    }
    wakeup->poll.data = wakeup;
    return uv_poll_start(&wakeup->poll, UV_READABLE, on_readable);
}

void wakeup_send(struct wakeup *wakeup)
{
    static const uint64_t one = 1;
    /* Sent and not answered yet: the loop will look after our change anyway, one system call is
     * saved. */
    if (atomic_exchange(&wakeup->is_sent, true))
        return;
    /* EAGAIN is not possible: it takes 2^64 - 1 unread, and is_sent lets one in. */
    while (write(wakeup->fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void on_closed(uv_handle_t *handle)
{
    struct wakeup *wakeup = handle->data;
    close(wakeup->fd);
    wakeup->closed(wakeup->ctx);
}

void wakeup_close(struct wakeup *wakeup, void (*closed)(void *ctx))
{
    wakeup->closed = closed;
    uv_close((uv_handle_t *)&wakeup->poll, on_closed);
}
