/*
 * stop_signals.c: see stop_signals.h.
 */
#include "worker/commands/stop_signals.h"

#include <signal.h>

/* A supervisor may signal the process and then its whole group, which is one request. */
enum { SAME_REQUEST_MS = 100 };

static const struct {
    int number;
    const char *name;
} watched[] = {{SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"}, {SIGHUP, "SIGHUP"}};

static uint64_t now_ms(void)
{
    return uv_hrtime() / 1000000;
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct stop_signals *signals = handle->data;
    bool again = signals->number != 0;

    if (again && now_ms() - signals->asked_ms < SAME_REQUEST_MS)
        return;
    if (!again)
        signals->number = number;
    signals->cb(signals->ctx, watched[handle - signals->handles].name, number, again);
    /* The clock starts when all is said and done: the other half of a request may have waited for
     * that in the loop's queue. */
    signals->asked_ms = now_ms();
}

static bool is_ignored(int number)
{
    struct sigaction now;
    return sigaction(number, NULL, &now) == 0 && now.sa_handler == SIG_IGN;
}

void stop_signals_open(struct stop_signals *signals, uv_loop_t *loop, stop_signals_cb *cb,
                       void *ctx)
{
    *signals = (struct stop_signals){.cb = cb, .ctx = ctx};
    for (size_t i = 0; i < 3; i++) {
        uv_signal_t *handle = &signals->handles[i];
        uv_signal_init(loop, handle);
        handle->data = signals;
        if (watched[i].number != SIGHUP || !is_ignored(SIGHUP))
            uv_signal_start(handle, on_signal, watched[i].number);
        uv_unref((uv_handle_t *)handle);
    }
}

void stop_signals_close(struct stop_signals *signals)
{
    for (size_t i = 0; i < 3; i++)
        uv_close((uv_handle_t *)&signals->handles[i], NULL);
}
