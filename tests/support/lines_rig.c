/*
 * lines_rig.c: see lines_rig.h.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/lines_rig.h"

#define DEADLINE_MS 20000

static void on_messages(void *ctx, struct message **messages, size_t n)
{
    struct lines_rig *rig = ctx;
    assert_false(rig->in_call);
    if (rig->n_messages + n > rig->room) {
        rig->room = (rig->n_messages + n) * 2;
        rig->messages = realloc(rig->messages, rig->room * sizeof rig->messages[0]);
    }
    memcpy(rig->messages + rig->n_messages, messages, n * sizeof messages[0]);
    rig->n_messages += n;
    if (n > rig->most_at_once)
        rig->most_at_once = n;
    if (rig->credit_each)
        rig->source->ops->request(rig->source, rig->credit_each, rig->credit_bytes);
}

static void on_state(void *ctx, enum link_state state, const char *why)
{
    (void)ctx;
    (void)state;
    (void)why;
}

static void on_end(void *ctx)
{
    struct lines_rig *rig = ctx;
    assert_false(rig->in_call || rig->ended);
    rig->ended = true;
}

static void on_failed(void *ctx, int err, const char *why)
{
    struct lines_rig *rig = ctx;
    assert_false(rig->in_call);
    assert_int_equal(rig->failed, 0);
    rig->failed = err;
    snprintf(rig->why, sizeof rig->why, "%s", why);
}

static void on_published(void *ctx, struct record *record, enum published how)
{
    struct lines_rig *rig = ctx;
    assert_false(rig->in_call);
    assert_int_equal(how, PUBLISHED);
    rig->published[rig->n_published++] = record;
}

static const struct source_events source_events = {
    .on_messages = on_messages, .on_state = on_state, .on_end = on_end, .on_failed = on_failed};
static const struct sink_events sink_events = {
    .on_published = on_published, .on_state = on_state, .on_failed = on_failed};

static void on_watchdog(uv_timer_t *timer)
{
    ((struct lines_rig *)timer->data)->timed_out = true;
}

static void on_closed(void *ctx)
{
    ((struct lines_rig *)ctx)->closed = true;
}

void lines_rig_open(struct lines_rig *rig, const char *max_line)
{
    static const struct option *tables[2];
    char err[200];
    memset(rig, 0, sizeof *rig);
    tables[0] = connector_find("stdin")->options;
    assert_int_equal(settings_open(&rig->settings, tables), 0);
    if (max_line)
        assert_int_equal(settings_set(rig->settings, "stdin.max_line", max_line, err, sizeof err),
                         0);
    uv_loop_init(&rig->loop);
    uv_timer_init(&rig->loop, &rig->watchdog);
    rig->watchdog.data = rig;
    uv_timer_start(&rig->watchdog, on_watchdog, DEADLINE_MS, 0);
    rig->credit_each = 1000;
    rig->credit_bytes = 1 << 30;
    for (int fd = 0; fd < 3; fd++)
        rig->saved[fd] = dup(fd);
}

void lines_rig_redirect(int fd, int to)
{
    fflush(stdout);
    assert_int_equal(dup2(fd, to), to);
    close(fd);
}

void lines_rig_restore(struct lines_rig *rig)
{
    fflush(stdout);
    for (int fd = 0; fd < 3; fd++)
        dup2(rig->saved[fd], fd);
}

void lines_rig_open_source(struct lines_rig *rig)
{
    char err[200] = "";
    rig->in_call = true;
    int rc = stdin_source.open(&rig->source, &rig->loop, rig->settings, &source_events, rig, err,
                               sizeof err);
    assert_int_equal(rc, 0);
    if (rig->credit_each)
        rig->source->ops->request(rig->source, rig->credit_each, rig->credit_bytes);
    rig->in_call = false;
}

void lines_rig_open_sink(struct lines_rig *rig)
{
    char err[200] = "";
    int rc = stdout_sink.open(&rig->sink, &rig->loop, rig->settings, rig->source, &sink_events, rig,
                              err, sizeof err);
    assert_int_equal(rc, 0);
}

void lines_rig_publish(struct lines_rig *rig, struct record *record)
{
    rig->in_call = true;
    rig->sink->ops->publish(rig->sink, &record, 1);
    rig->in_call = false;
}

void lines_rig_turn(struct lines_rig *rig, const bool *done)
{
    for (int i = 0; done ? !*done && !rig->timed_out && !rig->failed : i < 30; i++) {
        uv_run(&rig->loop, done ? UV_RUN_ONCE : UV_RUN_NOWAIT);
        if (!done)
            usleep(2000);
    }
}

void lines_rig_close(struct lines_rig *rig)
{
    if (rig->sink) {
        rig->closed = false;
        rig->in_call = true;
        rig->sink->ops->close(rig->sink, 1000, on_closed, rig);
        rig->in_call = false;
        while (!rig->closed && !rig->timed_out)
            uv_run(&rig->loop, UV_RUN_ONCE);
    }
    if (rig->source) {
        rig->closed = false;
        rig->in_call = true;
        rig->source->ops->close(rig->source, 1000, on_closed, rig);
        rig->in_call = false;
        while (!rig->closed && !rig->timed_out)
            uv_run(&rig->loop, UV_RUN_ONCE);
    }
    lines_rig_restore(rig);
    bool timed_out = rig->timed_out;
    for (int fd = 0; fd < 3; fd++)
        close(rig->saved[fd]);
    uv_close((uv_handle_t *)&rig->watchdog, NULL);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    settings_close(rig->settings);
    free(rig->messages);
    assert_false(timed_out);
}

int lines_rig_file(const char *bytes, size_t len)
{
    char path[] = "/tmp/embedmill-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    for (size_t at = 0; at < len;) {
        ssize_t n = write(fd, bytes + at, len - at);
        assert_true(n > 0);
        at += (size_t)n;
    }
    lseek(fd, 0, SEEK_SET);
    return fd;
}

void lines_rig_wait_published(struct lines_rig *rig, size_t n)
{
    while (rig->n_published < n && !rig->timed_out && !rig->failed)
        uv_run(&rig->loop, UV_RUN_ONCE);
}
