/*
 * file_unpack.h: gzip and Zstandard, as a stream.
 *
 * Owns:    whatever the tools of both write: several members or frames, empty ones, skippable
 *          frames, zeros behind the end; and the sentence for what is cut or damaged.
 * Refuses: to tell what is packed (connectors/magic.h), and reading.
 * Threads: one at a time.
 */
#ifndef FILE_UNPACK_H
#define FILE_UNPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "connectors/magic.h"

struct file_unpack;

/* kind: MAGIC_GZIP or MAGIC_ZSTD. 0 or -ENOMEM. */
int file_unpack_open(struct file_unpack **out, enum magic_kind kind);
void file_unpack_close(struct file_unpack *unpack); /* accepts NULL */

/*
 * Unpack from [*at, end) to `to` and move *at. The bytes unpacked; 0: it needs more, unless *at has
 * moved; -EBADMSG: they do not unpack, -ENOMEM: not with this memory, and *why says so for "FILE
 * ..." (static, or good until the next call).
 */
ssize_t file_unpack_read(struct file_unpack *unpack, const unsigned char **at,
                         const unsigned char *end, char *to, size_t size, const char **why);
/* Is what was read so far a whole file? */
bool file_unpack_is_whole(const struct file_unpack *unpack);

#endif
