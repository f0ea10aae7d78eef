/*
 * redis_script.h: the steps that must be atomic on the server, as Lua.
 *
 * Owns:    the texts and how their arguments are laid out.
 * Threads: no state.
 */
#ifndef REDIS_SCRIPT_H
#define REDIS_SCRIPT_H

/*
 * KEYS: the source stream (or the output, when there is no message to ack), then the outputs.
 * ARGV: group, consumer, id, then commands, each as its number of words and the words.
 * group "" : nothing to check and nothing to ack. Returns 1, or 0: not pending for this consumer,
 * nothing was written. Or the number of the command that failed, from 1, and its error: those
 * before it were done (Lua does not roll back), the message is not acked.
 */
extern const char redis_script_publish[];

/*
 * KEYS: the stream. ARGV: group, consumer, ids. Renews the lease of those ids that are still this
 * consumer's; returns how many.
 */
extern const char redis_script_renew[];

/*
 * KEYS: the stream. ARGV: group, consumer, idle time, ids. Those ids that are still this consumer's
 * get that idle time, and their last delivery is taken off the count.
 */
extern const char redis_script_return[];

#endif
