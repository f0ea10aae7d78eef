/*
 * command_index.h: the steps of `index` that `migrate` takes, too.
 *
 * Threads: the main thread.
 */
#ifndef COMMAND_INDEX_H
#define COMMAND_INDEX_H

#include <stdbool.h>

#include "worker/config/options.h"
#include "worker/index/manifest.h"
#include "worker/pipeline/pipeline.h"

/* An option that `index` takes. */
bool command_index_wanted(const char *name);
/* Both ends are files, whatever a configuration shared with `run` says. 0, or as options_set. */
int command_index_set_ends(struct options *options, char *err, size_t err_size);
/* What the vectors and the form of OUT depend on. */
void command_index_manifest(struct manifest *manifest, const struct settings *settings,
                            const struct model_info *model, const struct pipeline_options *options);
/* How records are read, unless the options say it: by the name of the corpus. */
void command_index_set_format(const struct settings *settings, struct pipeline_options *options);
/* begin and opened of struct work: the names fit, OUT is not another's and gets its manifest. */
int command_index_begin(const struct settings *settings, const struct model_info *model,
                        struct pipeline_options *options, char *err, size_t err_size);
int command_index_opened(const struct settings *settings, const struct model_info *model,
                         const struct pipeline_options *options, char *err, size_t err_size);

#endif
