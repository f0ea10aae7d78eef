/*
 * file_sink.c: the sink `file`: records to the end of a file.
 *
 * Owns:    the records given until they are confirmed; one write at a time.
 * Refuses: what is written: file_output.c.
 * Threads: the loop thread; write_work runs on libuv's threads, and while it does nothing else
 *          touches output, writing, rc and err.
 * Why:     what was published while a write went on goes into the next one as a whole, so a slow
 *          disk costs fewer, larger flushes and not more time.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/endpoint.h"
#include "connectors/file/file.h"
#include "connectors/file/file_output.h"

struct record_list {
    struct record **records; /* [n] */
    size_t n, room;
};

struct file_sink {
    struct sink sink; /* first member */
    struct endpoint end;
    uv_work_t work; /* held while it goes on */
    struct file_output *output;
    struct record_list waiting, writing;
    bool is_writing;
    int rc; /* of the last write, as is err */
    char err[400];
};

/* On one of libuv's threads. */
static void write_work(uv_work_t *work)
{
    struct file_sink *file = work->data;
    file->rc = file_output_write(file->output, file->writing.records, file->writing.n, file->err,
                                 sizeof file->err);
}

static void on_written(uv_work_t *work, int status)
{
    struct file_sink *file = work->data;
    (void)status; /* it is never cancelled */
    file->is_writing = false;
    if (file->rc != 0)
        endpoint_fail(&file->end, file->rc, file->err);
    /* An event may make the pipeline close us, or fail; finished: the rest is nobody's any more. */
    for (size_t i = 0; i < file->writing.n && !file->end.failed && !file->end.finished; i++)
        file->sink.events->on_published(file->sink.ctx, file->writing.records[i], PUBLISHED);
    endpoint_pump(&file->end);
    /* Last: it may free us, when the deadline of close has passed meanwhile. */
    endpoint_drop(&file->end);
}

static void sink_pump(void *owner)
{
    struct file_sink *file = owner;
    if (file->is_writing)
        return;
    if (file->waiting.n > 0 && !file->end.failed) {
        /* The two arrays are used in turn; the thread has one, publish fills the other. */
        struct record_list spare = file->writing;
        file->writing = file->waiting;
        file->waiting = spare;
        file->waiting.n = 0;
        int rc = uv_queue_work(file->end.loop, &file->work, write_work, on_written);
        file->is_writing = rc == 0;
        if (rc == 0)
            endpoint_hold(&file->end);
        else
            endpoint_fail(&file->end, rc, "no thread can be had to write");
    }
    /* All that was given is on the disk, or the sink has failed and nothing more will be. */
    if (file->end.closing && !file->is_writing)
        endpoint_finish(&file->end);
}

static void sink_free(void *owner)
{
    struct file_sink *file = owner;
    /* No row came, as from an empty corpus: readers still find an array, of the model's width. */
    if (!file->end.failed && file->waiting.n == 0 && file->sink.vector_bytes > 0)
        file_output_close_empty(file->output, file->sink.vector_bytes);
    file_output_close(file->output);
    free(file->waiting.records);
    free(file->writing.records);
    free(file);
}

/* A write to a disk cannot be taken back, and ends by itself. */
static const struct endpoint_ops endpoint_ops = {.pump = sink_pump, .free = sink_free};

static enum sink_layout sink_layout_of(const struct settings *settings)
{
    const char *path = settings_text(settings, "file.output");
    return path && file_output_is_npy(path) ? SINK_VECTORS : SINK_LINES;
}

static int sink_open(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                     struct source *peer, const struct sink_events *events, void *ctx, char *err,
                     size_t err_size)
{
    const char *path = settings_text(settings, "file.output");
    const char *dtype = settings_find(settings, "dtype") ? settings_text(settings, "dtype") : "f4";
    if (!path || !*path) {
        snprintf(err, err_size, "file.output: expected the name of a file");
        return -EINVAL;
    }
    struct file_sink *file = calloc(1, sizeof *file);
    if (!file) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    int rc = file_output_open(&file->output, path, dtype, err, err_size);
    if (rc != 0) {
        free(file);
        return rc;
    }
    file->sink = (struct sink){.ops = &file_sink, .events = events, .ctx = ctx};
    file->sink.layout = sink_layout_of(settings);
    file->work.data = file;
    endpoint_open_sink(&file->end, loop, &file->sink, 0, &endpoint_ops, file);
    /* Of another kind of source: then its broker knows how far it is. */
    file_source_resume(peer, file_output_place(file->output));
    *out = &file->sink;
    return 0;
}

static void sink_publish(struct sink *sink, struct record **records, size_t n)
{
    struct file_sink *file = (struct file_sink *)sink;
    struct record_list *list = &file->waiting;
    if (list->room - list->n < n) {
        size_t room = 2 * (list->n + n);
        struct record **more = realloc(list->records, room * sizeof *more);
        if (!more)
            endpoint_fail_soon(&file->end);
        list->records = more ? more : list->records;
        list->room = more ? room : list->room;
    }
    /* Else they stay unconfirmed, and the worker ends. */
    if (list->room - list->n >= n) {
        memcpy(list->records + list->n, records, n * sizeof *records);
        list->n += n;
    }
    endpoint_pump_soon(&file->end);
}

static void sink_close(struct sink *sink, uint64_t deadline_ms, void (*closed)(void *ctx),
                       void *ctx)
{
    endpoint_close(&((struct file_sink *)sink)->end, deadline_ms, closed, ctx);
}

const struct sink_ops file_sink = {
    .open = sink_open,
    .publish = sink_publish,
    .close = sink_close,
    .layout = sink_layout_of,
};
