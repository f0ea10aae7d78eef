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
 *
 * The command = (before all others, not counted) is the key of the note what vectors are made with,
 * and its digest: with another one there nothing is written and nothing acked, and
 * REDIS_PUBLISH_FOREIGN is returned.
 *
 * The command @ says that those after it are all there is of a text: its head, its key, how many
 * chunks it has (0: it is whole), its version of 19 digits or "", after how many ms the head goes
 * or "", and how many commands they are. They are left out when the head has a later version, which
 * adds one to what is returned.
 */
extern const char redis_script_publish[];
enum { REDIS_PUBLISH_FOREIGN = -1 };

/*
 * KEYS: the stream. ARGV: group, consumer, ids. Renews the lease of those ids that are still this
 * consumer's and were not trimmed; returns how many.
 */
extern const char redis_script_renew[];

/*
 * KEYS: the stream. ARGV: group, consumer, idle time, ids. Those ids that are still this consumer's
 * get that idle time, and their last delivery is taken off the count.
 */
extern const char redis_script_return[];

/*
 * KEYS: the stream. ARGV: group. Returns entries ever added (-1: not counted by this server),
 * entries there, the first one's id ("": none), the last id given out, the last id given to the
 * group, entries that wait for the group (-1: not known), pending ones, entries that are gone and
 * that the group was not given, 1 when that is an upper bound, 0 when the group's counter could not
 * be set over them. Nothing: there is no such group. An error: of XINFO.
 */
extern const char redis_script_survey[];

#endif
