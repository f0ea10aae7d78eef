/*
 * file_lines.h: where a line ends.
 *
 * Owns:    the choice between LF, with a CR before it or not, and CR alone, as old Macs, terminals
 *          and instruments write it.
 * Refuses: CSV, where both end a row and quotes hide them: file_records.c.
 * Threads: no state.
 */
#ifndef FILE_LINES_H
#define FILE_LINES_H

#include <stdbool.h>
#include <stddef.h>

enum line_ends { ENDS_UNKNOWN, ENDS_LF, ENDS_CR };

/*
 * The first 64 KiB tell, or the first max bytes where that is less: CRs and no LF. A CR in a file
 * that has LFs is a part of its line. n: bytes from the beginning; ended: there are no more.
 * ENDS_UNKNOWN: needs more.
 */
enum line_ends file_lines_ends(const char *bytes, size_t n, size_t max, bool ended);

/*
 * The end of the line in [*at, end), of *len bytes. NULL: it is not there, or a CR comes last and
 * an LF may follow. *at is where to go on then, and the end otherwise.
 */
const char *file_lines_next(enum line_ends ends, const char **at, const char *end, bool ended,
                            size_t *len);

#endif
