/*
 * stop_signals.h: SIGTERM, SIGINT and SIGHUP as requests to stop, the same for every command that
 * has something to finish.
 *
 * Owns:    the handles, and which signals are one request. One at a time in a process.
 * Refuses: how to stop: its user's.
 * Threads: the loop thread.
 */
#ifndef STOP_SIGNALS_H
#define STOP_SIGNALS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

/* again: a second request, to exit at once. */
typedef void stop_signals_cb(void *ctx, const char *name, int number, bool again);

struct stop_signals {
    uv_signal_t handles[3];
    uv_prepare_t polls; /* until the loop looks for signals again */
    stop_signals_cb *cb;
    void *ctx;
    int number; /* of the signal that asked to stop; 0: none yet */
};

/* From here on until the close those signals do not end the process. They keep no loop alive. A
 * SIGHUP that is ignored already stays so: nohup means it. */
void stop_signals_open(struct stop_signals *signals, uv_loop_t *loop, stop_signals_cb *cb,
                       void *ctx);
/* After a request the process may take its time to end: a repetition of the same request does not
 * end it, a second one does, by the signal. */
void stop_signals_close(struct stop_signals *signals);

/* Log a request of whatever finishes what was taken; one that comes again is the end by leave,
 * which does not return. */
void stop_signals_log(const char *name, int number, bool again, uint64_t n_unfinished,
                      void (*leave)(int code));

#endif
