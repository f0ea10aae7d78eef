/*
 * spans.h: a span of tracing for each batch, as lines of OTLP's JSON.
 *
 * Owns:    what a span says, its ids, the file it is written to.
 * Refuses: to send it anywhere: a collector reads the file (docs/operations.md, "Tracing").
 * Threads: the loop thread; the file is written in libuv's.
 * Why:     Debian has no library for OTLP in C, and who collects spans runs a collector that reads
 *          files. A batch is of many messages of as many traces, so its span is in a trace of its
 *          own, with a link to the span that sent each message.
 */
#ifndef SPANS_H
#define SPANS_H

#include <stdint.h>
#include <uv.h>

#include "inference/embed.h"
#include "worker/pipeline/batch.h"

struct spans;

/* What is the same in all spans; borrowed until close. */
struct spans_about {
    const char *source; /* "kafka" */
    const char *model;  /* unless spans_model names another one */
};

/* path: appended to, made if it is not there; "-": standard error. 0, or negative errno and a
 * sentence. */
int spans_open(struct spans **out, uv_loop_t *loop, const char *path,
               const struct spans_about *about, char *err, size_t err_size);
/* The model of the spans that are added from now on. */
void spans_model(struct spans *spans, const char *name);
/* A batch whose texts are embedded: its span ends when the last of its slices did, or now if there
 * was nothing to embed. */
void spans_add(struct spans *spans, const struct batch *batch);
/* Writes what is left; the loop has to run until it has nothing to do. Accepts NULL. */
void spans_close(struct spans *spans);

#endif
