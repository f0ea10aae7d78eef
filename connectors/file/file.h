/*
 * file.h: what the source `file` and the sink `file` know of each other.
 *
 * Owns:    the place of a record in its corpus, by which the sink remembers how far it has come.
 * Threads: the loop thread.
 */
#ifndef FILE_CONNECTOR_H
#define FILE_CONNECTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "connectors/connector.h"

extern const struct source_ops file_source;
extern const struct sink_ops file_sink;

/* Where in a corpus: so many records are before it, and their bytes have this digest. */
struct file_place {
    uint64_t records, digest;
};

/* True for a message of the source `file`: *behind is the place behind it. *is_open: its file ends
 * in it without an end of line, so the same place may hold more tomorrow. */
bool file_message_place(const struct message *message, struct file_place *behind, bool *is_open);

/* Before the first request, on any source: begin at that place. Records before it are read and
 * compared, not given. False when it is another kind of source. */
bool file_source_resume(struct source *source, struct file_place from);

/* Does the output hold anything, or has it counted any record in, be it as an error? */
bool file_output_begun(const char *path);

/* Are the records JSON (lines of it, or rows of CSV)? path and format as the options have them. */
bool file_holds_json(const char *path, const char *format);

#endif
