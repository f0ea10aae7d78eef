/*
 * migrate_store.h: `embedmill migrate URL CORPUS`: the vectors in a store, made anew.
 *
 * Owns:    the order: a sample, the side, the comparison, the change of places.
 * Refuses: where the side is and how places are changed: connectors/migration.h.
 * Threads: the main thread.
 */
#ifndef MIGRATE_STORE_H
#define MIGRATE_STORE_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/commands/command.h"

/* Is it the URL of a store whose outputs can be migrated? */
bool migrate_store_is_url(const char *url);
/* The forms of such URLs, for people: "A or B"; "": this build has none. */
void migrate_store_forms(char *out, size_t size);
/* An option of such a store. */
bool migrate_store_wanted(const char *name);
/* As prepare and run of struct command. */
int migrate_store_prepare(const struct invocation *invocation, const char *url);
int migrate_store_run(const struct invocation *invocation, bool (*wanted)(const char *name));

#endif
