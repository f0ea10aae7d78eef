/*
 * redis_migration_script.h: the steps of a migration that must be atomic on the server, as Lua.
 *
 * Owns:    the texts and how their arguments are laid out.
 * Threads: no state.
 * Why:     as redis_script.h; see redis_script.c for what lies at the keys of a text.
 */
#ifndef REDIS_MIGRATION_SCRIPT_H
#define REDIS_MIGRATION_SCRIPT_H

/*
 * KEYS: note, owner. ARGV: token. Whoever migrates from now on is token. A note that is held for a
 * comparison becomes what it was. Returns the note (absent: ""), and 1 if it is held for the change
 * of places, which then goes on and has no new owner.
 */
extern const char redis_migration_begin[];
/* KEYS: note, owner. ARGV: token, what the note is, what it becomes. 1, or 0: it is another by now,
 * or somebody else migrates. */
extern const char redis_migration_swap[];
/*
 * KEYS: any one of the prefix. ARGV: prefix, "hash" or "key", ids. For each id: its version, how
 * many chunks it has (0: whole), its vectors (one of whole texts; none: it is not there).
 */
extern const char redis_migration_read[];
/*
 * KEYS: any one of the prefix. ARGV: prefix, side's prefix, "hash" or "key", how long texts live
 * that the output does not have (ms; 0: until they are deleted), ids. For each id: the digest of
 * all that the output has of it ("": nothing), its version there, how many vectors the side has,
 * its version there, and 1 where something of others is in the place of a vector. Keys of the side
 * are given what is left of the life of those of the output.
 */
extern const char redis_migration_compare[];
/* KEYS: any one. ARGV: the side's prefix, ids. Nothing is left of them there. */
extern const char redis_migration_drop[];
/*
 * KEYS: note, journal. ARGV: the first lines of the note, prefix, side's prefix, "hash" or "key",
 * ids. What the side has of each that is in the journal goes to the output, replaces what it had,
 * and is taken off the journal; of a hash, fields of others stay. What neither
 * has any more is taken off it, too. 1; 0: the note is another; or an id: the side has lost it.
 */
extern const char redis_migration_move[];
/* KEYS: owner. ARGV: token. Nobody migrates any more, unless somebody else does. */
extern const char redis_migration_leave[];
/* KEYS: note, owner, the side's note, journal. ARGV: what the note is, what it becomes. 1, or 0. */
extern const char redis_migration_end[];

#endif
