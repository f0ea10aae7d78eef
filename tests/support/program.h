/*
 * program.h: embedmill as users start it, with a folder and a tiny model of its own.
 *
 * Owns:    the folder, from setup to teardown; the environment of the program.
 * Threads: one.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stddef.h>
#include <sys/types.h>

/* Of what hangs. The longest takes 25 s under the thread sanitizer, on a machine that is idle. */
#define PROGRAM_DEADLINE_MS 150000

extern char program_folder[];
/* For cmocka, around all tests of a file. */
int program_setup(void **state);
int program_teardown(void **state);

/* A file without a name, for what the program reads or says. */
int program_scratch(void);
/* All of it, ended by a NUL, to be freed; closes it. len may be NULL. */
char *program_said(int fd, size_t *len);
/*
 * Start with these descriptors (in and out are closed here) and, beside HOME, PATH and
 * EMBEDMILL_MODEL, one more variable or NULL. line: arguments apart by single spaces.
 */
pid_t program_start(const char *line, const char *variable, int in, int out, int err);
/* Its exit code; 1000 + signal when killed by one. Fails the test after PROGRAM_DEADLINE_MS. */
int program_wait(pid_t pid);

#endif
