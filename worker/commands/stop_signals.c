/*
 * stop_signals.c: see stop_signals.h.
 */
#include "worker/commands/stop_signals.h"

#include <errno.h>
#include <signal.h>

#include "worker/telemetry/log.h"

/* A supervisor may signal the process and then its whole group, which is one request. */
enum { SAME_REQUEST_MS = 100 };

static const struct {
    int number;
    const char *name;
} watched[] = {{SIGTERM, "SIGTERM"}, {SIGINT, "SIGINT"}, {SIGHUP, "SIGHUP"}};

/* When the last request came, for on_late_signal, which has no other way to know. */
static volatile uint64_t last_asked_ms;

static uint64_t now_ms(void)
{
    return uv_hrtime() / 1000000;
}

/* The loop looks for signals again only now: whatever it did since the last one, what waits for it
 * was sent meanwhile. */
static void on_poll(uv_prepare_t *polls)
{
    last_asked_ms = now_ms();
    uv_prepare_stop(polls);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct stop_signals *signals = handle->data;
    bool again = signals->number != 0;

    if (again && now_ms() - last_asked_ms < SAME_REQUEST_MS)
        return;
    if (!again)
        signals->number = number;
    last_asked_ms = now_ms();
    signals->cb(signals->ctx, watched[handle - signals->handles].name, number, again);
    /* The clock starts when all is said and done: the other half of a request may have waited for
     * that in the loop's queue. */
    last_asked_ms = now_ms();
    if (!uv_is_closing((uv_handle_t *)&signals->polls))
        uv_prepare_start(&signals->polls, on_poll);
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
    uv_prepare_init(loop, &signals->polls);
    uv_unref((uv_handle_t *)&signals->polls);
    for (size_t i = 0; i < 3; i++) {
        uv_signal_t *handle = &signals->handles[i];
        uv_signal_init(loop, handle);
        handle->data = signals;
        if (watched[i].number != SIGHUP || !is_ignored(SIGHUP))
            uv_signal_start(handle, on_signal, watched[i].number);
        uv_unref((uv_handle_t *)handle);
    }
}

/* No loop hears it any more. The other half of a request is still no reason to end by the signal; a
 * second request is, should the end take its time. */
static void on_late_signal(int number)
{
    int saved = errno;

    if (now_ms() - last_asked_ms >= SAME_REQUEST_MS) {
        signal(number, SIG_DFL);
        raise(number);
    }
    errno = saved;
}

void stop_signals_close(struct stop_signals *signals)
{
    struct sigaction late = {.sa_handler = on_late_signal, .sa_flags = SA_RESTART};
    sigset_t all, before;

    /* libuv restores the default in between, and a signal must not come just then. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (size_t i = 0; i < 3; i++)
        uv_close((uv_handle_t *)&signals->handles[i], NULL);
    uv_close((uv_handle_t *)&signals->polls, NULL);
    for (size_t i = 0; signals->number != 0 && i < 3; i++)
        if (!is_ignored(watched[i].number))
            sigaction(watched[i].number, &late, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void stop_signals_log(const char *name, int number, bool again, uint64_t n_unfinished,
                      void (*leave)(int code))
{
    if (!again) {
        log_event(LOG_INFO, "stopping: finishing what was taken; a second signal exits at once",
                  LOG_TEXT("signal", name));
        return;
    }
    log_event(LOG_WARN, "second signal: exiting at once", LOG_TEXT("signal", name),
              LOG_INTEGER("unfinished", n_unfinished));
    log_close();
    leave(128 + number);
}
