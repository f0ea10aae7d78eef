/*
 * index_rig.h: `embedmill index` as users meet it, on the tiny model, in a folder of its own.
 *
 * Owns:    the folder, from setup to teardown; starting the command, its exit code, what it said.
 * Threads: one.
 */
#ifndef INDEX_RIG_H
#define INDEX_RIG_H

#include <stddef.h>
#include <sys/types.h>

extern char index_last_err[20000]; /* what the last run said */

/* For cmocka, around all tests of a file. */
int index_open_folder(void **state);
int index_close_folder(void **state);

/* Good for the next seven calls. */
char *index_path_of(const char *name);
void index_write_file(const char *name, const char *bytes, size_t n, const char *mode);
/* To be freed; "" when there is none. len may be NULL. */
char *index_read_file(const char *name, size_t *len);
size_t index_count_lines(const char *name);
void index_expect_same(const char *a, const char *b);

/* line: arguments behind `index`, apart by single spaces; names begin with @, which is the folder.
 */
pid_t index_start(const char *line);
/* Exit code, 1000 + signal when killed; it is killed after kill_us unless that is 0. */
int index_finish(pid_t pid, unsigned kill_us);
int index_run(const char *line);
void index_expect_run(const char *line, int code);

/* Lines with ids; every 50th cannot be embedded, every 7th is like another. */
void index_write_corpus(const char *name, size_t n);
/* All files of an output. */
void index_expect_equal_outputs(const char *wanted, const char *got);
/* By its state. */
unsigned long long index_records_done(const char *output);

#endif
