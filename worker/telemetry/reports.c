/*
 * reports.c: see reports.h.
 */
#include "worker/telemetry/reports.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "worker/telemetry/log.h"
#include "worker/telemetry/traceparent.h"

void reports_skipped(const struct skipped *skipped)
{
    char n[48] = "unknown", why[600];
    if (skipped->n >= 0)
        snprintf(n, sizeof n, "%s%" PRId64, skipped->is_at_most ? "at most " : "", skipped->n);
    /* Of a line that is held back, because there was one in the last seconds, only this is told. */
    snprintf(why, sizeof why, "%.60s to %.60s, %s messages: %s", skipped->from, skipped->to, n,
             skipped->why);
    log_event(LOG_WARN, "messages skipped", LOG_TEXT("code", skip_reasons[skipped->reason]),
              LOG_TEXT("part", skipped->part), LOG_TEXT("from", skipped->from),
              LOG_TEXT("to", skipped->to), LOG_TEXT("skipped", n), LOG_TEXT("why", why));
}

void reports_link(enum side side, enum link_state state, const char *why)
{
    static const char *const up[N_SIDES] = {"source is up", "sink is up"};
    static const char *const waits[N_SIDES] = {"source waits", "sink waits"};
    if (state == LINK_UP)
        log_event(LOG_INFO, up[side], LOG_TEXT("why", why));
    else
        log_event(LOG_WARN, waits[side], LOG_TEXT("why", why));
}

void reports_notice(enum side side, enum notice level, const char *code, const char *text)
{
    char msg[64];
    snprintf(msg, sizeof msg, "%s: %s", observer_sides[side],
             level == NOTICE_OWN ? "is this what you want?" : "the client library says");
    log_event(level == NOTICE_DETAIL ? LOG_DEBUG : LOG_WARN, msg, LOG_TEXT("code", code),
              LOG_TEXT("why", text));
}

void reports_dead_letter(const struct message *message, const char *code, const char *reason,
                         bool is_dropped)
{
    char position[200];
    struct traceparent parent;
    bool has_trace = traceparent_read(message, &parent);
    snprintf(position, sizeof position, "%.*s", (int)message->position.len,
             message->position.ptr ? message->position.ptr : "");
    log_event(is_dropped ? LOG_ERROR : LOG_WARN,
              is_dropped ? "message dropped: its dead letter cannot be written" : "dead letter",
              LOG_TEXT("code", code), LOG_TEXT("position", position), LOG_TEXT("reason", reason),
              LOG_TEXT("traceparent", has_trace ? parent.text : NULL));
}

void reports_deletes(const char *sink, const char *name, enum output_format format)
{
    bool is_file = strcmp(sink, "file") == 0 || strcmp(sink, "stdout") == 0;
    if (!codec_format_is_rows(format) || is_file)
        return;
    log_event(LOG_INFO, "deletes go out as tombstones, which not every reader of rows applies",
              LOG_TEXT("sink", sink), LOG_TEXT("output_format", name),
              LOG_TEXT("why", "the connectors of Qdrant up to 1.3 and of Milvus skip them, and the "
                              "vector stays: delete it in the store, see docs/vector-stores.md"));
}

void reports_missing_prompt(void *ctx, const char *name)
{
    static bool is_reported;
    (void)ctx;
    if (is_reported)
        return;
    is_reported = true;
    log_event(LOG_WARN, "a message asks for a prompt that the model does not have",
              LOG_TEXT("code", "missing_prompt"), LOG_TEXT("prompt", name),
              LOG_TEXT("why", "its texts are embedded as they are, and their records say prompt "
                              "none; put what the model wants before a text into the text; "
                              "further such messages are not reported"));
}

void reports_doubled(const struct prompt *had, const struct prompt *given)
{
    static bool is_reported;
    char why[300];
    if (is_reported)
        return;
    is_reported = true;
    snprintf(why, sizeof why,
             "the model sees two prompts and gives another vector; send texts without '%.60s', or "
             "ask for the prompt none; further such texts are not reported",
             had->lead);
    log_event(LOG_WARN, "a text begins with the words of a prompt already",
              LOG_TEXT("code", "doubled_prompt"), LOG_TEXT("begins_with", had->name),
              LOG_TEXT("prompt", given->name), LOG_TEXT("why", why));
}
