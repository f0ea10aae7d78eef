/*
 * file_bytes.h: the bytes of a file, a pipe or standard input as text in UTF-8: unpacked when they
 * are packed, and converted when they are UTF-16 with a byte order mark.
 *
 * Owns:    the descriptor; what the file is, told by its first bytes and not by its name; the
 *          sentence for what is cut, damaged or no text.
 * Refuses: what the text means. Files of other packers, packed twice, and what is not text.
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
 * At most size bytes, size >= 4. 0 at the end; -EAGAIN: a pipe or a terminal has nothing yet (asked
 * for a fifth of a second, so that whoever waits can be told to stop); -EINVAL: the file is not
 * text (nothing of it was given) and -EBADMSG: it is cut or damaged behind what was given, both a
 * fault of this file alone; else negative errno. Each with a sentence.
 */
ssize_t file_bytes_read(struct file_bytes *bytes, char *to, size_t size, char *err,
                        size_t err_size);
/* Read of the file itself, packed: what its size is counted in. */
uint64_t file_bytes_consumed(const struct file_bytes *bytes);

#endif
