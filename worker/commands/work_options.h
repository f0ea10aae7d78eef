/*
 * work_options.h: what options say of a pipeline: batches, threads, sessions, formats. Its events
 * are for who opens it.
 *
 * Threads: the main thread.
 */
#ifndef WORK_OPTIONS_H
#define WORK_OPTIONS_H

#include "connectors/settings.h"
#include "worker/pipeline/pipeline.h"

struct pipeline_options work_options(const struct settings *settings);

#endif
