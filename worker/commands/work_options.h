/*
 * work_options.h: what options say of a pipeline: batches, threads, sessions, formats. Its events
 * are for who opens it.
 *
 * Threads: the main thread.
 */
#ifndef WORK_OPTIONS_H
#define WORK_OPTIONS_H

#include <stdbool.h>

#include "connectors/settings.h"
#include "worker/pipeline/pipeline.h"

struct pipeline_options work_options(const struct settings *settings);
/* Does the sink's output have the name of a model in it, so that each has one of its own? */
bool work_options_have_outputs(const struct settings *settings);
/* ... and the source's input, so that each reads its own? */
bool work_options_have_inputs(const struct settings *settings);

#endif
