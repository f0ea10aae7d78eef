/*
 * lines.h: what the source `stdin` and the sink `stdout` know of each other.
 *
 * Owns:    the place of a line's output: batches finish in any order, yet the output of line 7
 *          stands before that of line 8.
 * Threads: the loop thread.
 */
#ifndef LINES_H
#define LINES_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/connector.h"

extern const struct source_ops stdin_source;
extern const struct sink_ops stdout_sink;

/*
 * True for a message of the source stdin: *place is 0 for the first message given, 1 for the
 * second, ...
 */
bool lines_place(const struct message *message, uint64_t *place);

/*
 * Watch fd by poll where that works (pipes, terminals, sockets), which it does not for files and
 * most devices: *pollable says so. The descriptor's flags are left as they were found, for they are
 * shared with the shell and its other children, which do not expect O_NONBLOCK.
 */
int lines_watch(uv_loop_t *loop, uv_poll_t *poll, int fd, bool *pollable);

#endif
