/*
 * redis_detour.h: one command after the other by the node that an ASK names.
 *
 * Owns:    a second connection, from the first ASK until the link is lost, which it is when the
 *          cluster has finished moving the slot; ASKING before each command.
 * Refuses: to send anything there that the owner of the slot was not asked for first: a key that
 *          has not been moved would be made a second time.
 * Threads: the loop thread.
 */
#ifndef REDIS_DETOUR_H
#define REDIS_DETOUR_H

#include "connectors/redis/redis_link.h"

/* For redis_link_options; a link calls it, so it cannot be called by name from there. */
extern const struct redis_detour_ops redis_detour_ops;

#endif
