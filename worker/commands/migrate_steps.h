/*
 * migrate_steps.h: what a migration of files and one of a store have in common.
 *
 * Owns:    the sample and what it says of all; what of the old vectors' options stays; what follows
 *          from a comparison.
 * Threads: the main thread.
 */
#ifndef MIGRATE_STEPS_H
#define MIGRATE_STEPS_H

#include "worker/commands/command.h"
#include "worker/index/verify.h"
#include "worker/pipeline/pipeline.h"

/* Every how many-th record is in the sample. */
size_t migrate_sample_every(size_t texts);
/* Log an error; returns code. */
int migrate_fail(int code, const char *why);
/* Set an option as a flag does: COMMAND_OK, or the exit code and all is said. */
int migrate_set(struct options *options, const char *name, const char *value);
/* Set what the user has not given. place: where the value comes from. 0, or as options_set. */
int migrate_set_default(struct options *options, const char *name, const char *value,
                        const char *place, char *err, size_t err_size);
/* "256, 32 repeated, by headings, ..." or "256 tokens, 32 repeated, by headings, ...". */
int migrate_set_chunks(struct options *options, const char *line, const char *place, char *err,
                       size_t err_size);
/* How long all takes, by its sample. */
void migrate_log_estimate(size_t texts, const struct pipeline_stats *stats, double seconds);
/* old, fresh: what they are called; errors: where it is said why a text was not embedded. */
int migrate_judge(const char *old, const char *fresh, const char *errors,
                  const struct verified *is);

#endif
