/*
 * reports.c: see reports.h.
 */
#include "worker/telemetry/reports.h"

#include <inttypes.h>
#include <stdio.h>

#include "worker/telemetry/log.h"

void reports_skipped(const struct skipped *skipped)
{
    char n[48] = "unknown", why[600];
    if (skipped->n >= 0)
        snprintf(n, sizeof n, "%s%" PRId64, skipped->is_at_most ? "at most " : "", skipped->n);
    /* Of a line that is held back, because there was one in the last seconds, only this is told. */
    snprintf(why, sizeof why, "%.60s to %.60s, %s messages: %s", skipped->from, skipped->to, n,
             skipped->why);
    log_event(LOG_WARN, "messages skipped", LOG_TEXT("code", skipped->reason),
              LOG_TEXT("part", skipped->part), LOG_TEXT("from", skipped->from),
              LOG_TEXT("to", skipped->to), LOG_TEXT("skipped", n), LOG_TEXT("why", why));
}

void reports_notice(const char *side, enum notice level, const char *code, const char *text)
{
    char msg[64];
    snprintf(msg, sizeof msg, "%s: the client library says", side);
    log_event(level == NOTICE_WARN ? LOG_WARN : LOG_DEBUG, msg, LOG_TEXT("code", code),
              LOG_TEXT("why", text));
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
