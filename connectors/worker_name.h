/*
 * worker_name.h: a name for this worker that is the same after a restart and nobody else has.
 *
 * Owns:    the numbers of the workers on this machine.
 * Threads: the loop thread, at open.
 * Why:     what is bound to a name at the broker (pending entries, an open transaction) is found
 *          again at once after a crash when the name is the same.
 */
#ifndef WORKER_NAME_H
#define WORKER_NAME_H

#include <stddef.h>

/*
 * The host's name and the lowest number that no other living worker of this machine holds for any
 * of the same things (n names of that kind, each in that scope): "mill-1". locks: [n] descriptors
 * that hold the number until they are closed; -1 when names cannot be held (then the name ends in
 * the process id). 0 or -ENOMEM.
 */
int worker_name_hold(const char *kind, const char *const *names, size_t n, const char *scope,
                     char **out, int *locks);

#endif
