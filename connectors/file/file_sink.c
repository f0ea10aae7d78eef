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

#include "connectors/file/file.h"
#include "connectors/file/file_output.h"

struct record_list {
    struct record **records; /* [n] */
    size_t n, room;
};

struct file_sink {
    struct sink sink; /* first member */
    uv_loop_t *loop;
    uv_work_t work;
    uv_timer_t later; /* events must not fire inside publish */
    struct file_output *output;
    struct record_list waiting, writing;
    bool is_writing, closing, failed;
    bool no_memory; /* met inside publish, told from the loop */
    int rc;         /* of the last write, as is err */
    char err[400];
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static void advance(struct file_sink *file);

static void fail(struct file_sink *file, int rc, const char *why)
{
    if (!file->failed && !file->closing)
        file->sink.events->on_failed(file->sink.ctx, rc, why);
    file->failed = true;
}

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
        fail(file, file->rc, file->err);
    for (size_t i = 0; i < file->writing.n && !file->failed; i++)
        file->sink.events->on_published(file->sink.ctx, file->writing.records[i], PUBLISHED);
    advance(file);
}

static void finish_close(uv_handle_t *handle)
{
    struct file_sink *file = handle->data;
    void (*closed)(void *ctx) = file->closed;
    void *ctx = file->closed_ctx;
    if (!file->failed && file->sink.vector_bytes > 0)
        file_output_close_empty(file->output, file->sink.vector_bytes);
    file_output_close(file->output);
    free(file->waiting.records);
    free(file->writing.records);
    free(file);
    closed(ctx);
}

static void advance(struct file_sink *file)
{
    if (file->is_writing)
        return;
    if (file->waiting.n > 0 && !file->failed) {
        struct record_list spare = file->writing;
        file->writing = file->waiting;
        file->waiting = spare;
        file->waiting.n = 0;
        int rc = uv_queue_work(file->loop, &file->work, write_work, on_written);
        file->is_writing = rc == 0;
        if (rc != 0)
            fail(file, rc, "no thread can be had to write");
    }
    if (file->closing && !file->is_writing && !uv_is_closing((uv_handle_t *)&file->later))
        uv_close((uv_handle_t *)&file->later, finish_close);
}

static void on_later(uv_timer_t *timer)
{
    struct file_sink *file = timer->data;
    if (file->no_memory)
        fail(file, -ENOMEM, "out of memory");
    advance(file);
}

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
    file->loop = loop;
    file->work.data = file;
    uv_timer_init(loop, &file->later);
    file->later.data = file;
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
            file->no_memory = true;
        list->records = more ? more : list->records;
        list->room = more ? room : list->room;
    }
    if (list->room - list->n >= n) {
        memcpy(list->records + list->n, records, n * sizeof *records);
        list->n += n;
    }
    uv_timer_start(&file->later, on_later, 0, 0);
}

/* A write to a disk cannot be taken back and ends by itself, so the deadline says nothing here. */
static void sink_close(struct sink *sink, uint64_t deadline_ms, void (*closed)(void *ctx),
                       void *ctx)
{
    (void)deadline_ms;
    struct file_sink *file = (struct file_sink *)sink;
    file->closing = true;
    file->closed = closed;
    file->closed_ctx = ctx;
    uv_timer_start(&file->later, on_later, 0, 0);
}

const struct sink_ops file_sink = {
    .open = sink_open,
    .publish = sink_publish,
    .close = sink_close,
    .layout = sink_layout_of,
};
