/*
 * file_bytes.h: the bytes of a file, a pipe or standard input, unpacked when they are packed.
 *
 * Owns:    the descriptor, gzip and Zstandard (told by their first bytes, not by names), and the
 *          sentence for what is cut or damaged.
 * Refuses: what the bytes mean.
 * Threads: one at a time; reads block, so they belong on libuv's threads.
 */
#ifndef FILE_BYTES_H
#define FILE_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct file_bytes;

/* "-" is standard input. 0, or negative errno and a sentence. */
int file_bytes_open(struct file_bytes **out, const char *path, char *err, size_t err_size);
void file_bytes_close(struct file_bytes *bytes); /* accepts NULL */

/*
 * At most size unpacked bytes. 0 at the end; -EAGAIN: a pipe or a terminal has nothing yet (asked
 * for a fifth of a second, so that whoever waits can be told to stop); else negative errno and a
 * sentence; -EIO for a packed file that is cut or damaged.
 */
ssize_t file_bytes_read(struct file_bytes *bytes, char *to, size_t size, char *err,
                        size_t err_size);
/* Read of the file itself, packed: what its size is counted in. */
uint64_t file_bytes_consumed(const struct file_bytes *bytes);

#endif
