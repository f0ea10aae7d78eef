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

/*
 * The host's name and the lowest number that no other living worker of this machine holds for the
 * same kind and purpose: "mill-1". *lock: a descriptor that holds the number until it is closed;
 * -1 when names cannot be held (then the name ends in the process id). 0 or -ENOMEM.
 */
int worker_name_hold(const char *kind, const char *const purpose[2], char **out, int *lock);

#endif
