/*
 * config_file.h: options from a YAML file.
 *
 * Owns:    the part of YAML that makes sense here: nested maps whose names join by dots, scalars,
 *          ${VAR} and ${VAR:-default} inside scalars ($${ is a literal ${).
 * Refuses: sequences, anchors, aliases, tags, duplicate keys, several documents, files over 1 MiB.
 * Threads: the main thread.
 */
#ifndef CONFIG_FILE_H
#define CONFIG_FILE_H

#include <stddef.h>

#include "worker/config/options.h"

/*
 * Read the file into options with ORIGIN_FILE. 0; -EBADMSG with err starting "file:line:column: ";
 * negative errno of reading it; -ENOMEM.
 */
int config_file_read(struct options *options, const char *path, char *const *environment, char *err,
                     size_t err_size);
/* The same for bytes in memory; path is only named in errors. */
int config_file_parse(struct options *options, const char *path, const char *bytes, size_t len,
                      char *const *environment, char *err, size_t err_size);

#endif
