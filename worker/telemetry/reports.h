/*
 * reports.h: what connectors report for people, as lines of the log.
 *
 * Owns:    the words of these lines.
 * Refuses: counting: metrics.h.
 * Threads: the loop thread.
 */
#ifndef REPORTS_H
#define REPORTS_H

#include "connectors/connector.h"
#include "inference/embed.h"
#include "worker/codec/codec.h"
#include "worker/pipeline/observer.h"

/* on_skipped of source_events: always a warning, one line for each part of the input. */
void reports_skipped(const struct skipped *skipped);
/* on_link of an observer, whether it is up or waits. */
void reports_link(enum side side, enum link_state state, const char *why);
/* on_notice of an observer. Details are written at the level debug only. */
void reports_notice(enum side side, enum notice level, const char *code, const char *text);
/* A message became a dead letter, or, as not even that can be written, is dropped. */
void reports_dead_letter(const struct message *message, const char *code, const char *reason,
                         bool is_dropped);
/* At the start: rows for a store that go to a queue are deleted only if what reads them can. */
void reports_deletes(const char *sink, const char *name, enum output_format format);
/* Once: a message asked for a prompt that the model has no words for. As the pipeline calls it; ctx
 * is not read. */
void reports_missing_prompt(void *ctx, const char *name);
/* A text has the words of the prompt `had` already and got those of `given`: a warning, the first
 * time in a process. */
void reports_doubled(const struct prompt *had, const struct prompt *given);

#endif
