/*
 * findings.c: see findings.h. Each is written as it is found, for a broker that is away takes a
 * while to be found so.
 *
 * Threads: the main thread.
 */
#include "worker/commands/findings.h"

#include <stdarg.h>
#include <string.h>

#include "connectors/json.h"

static const char *const names[] = {"ok", "warn", "bad"};

static void put_json(FILE *to, const char *text)
{
    (void)json_print(bytes_of(text), to);
}

void findings_begin(struct findings *findings, FILE *to, bool json)
{
    *findings = (struct findings){.to = to, .json = json, .area = ""};
    if (json)
        fputs("{\"findings\": [", to);
}

void findings_area(struct findings *findings, const char *area, int bad_code)
{
    findings->area = area;
    findings->bad_code = bad_code;
}

void findings_report(void *ctx, enum finding how, const char *what, const char *said)
{
    struct findings *findings = ctx;
    FILE *to = findings->to;
    if (findings->json) {
        fprintf(to, "%s\n  {\"result\": \"%s\", \"area\": ", findings->n ? "," : "", names[how]);
        put_json(to, findings->area);
        fputs(", \"what\": ", to);
        put_json(to, what);
        fputs(", \"said\": ", to);
        put_json(to, said);
        fputc('}', to);
    } else {
        fprintf(to, "%-5s %-14s %-14s %s\n", names[how], findings->area, what, said);
        fflush(to);
    }
    findings->n++;
    findings->n_warn += how == FINDING_WARN;
    findings->n_bad += how == FINDING_BAD;
    if (how == FINDING_BAD && findings->exit_code == 0)
        findings->exit_code = findings->bad_code;
}

void findings_add(struct findings *findings, enum finding how, const char *what, const char *format,
                  ...)
{
    char said[900];
    va_list args;
    va_start(args, format);
    vsnprintf(said, sizeof said, format, args);
    va_end(args);
    findings_report(findings, how, what, said);
}

int findings_end(struct findings *findings)
{
    if (findings->json)
        fprintf(findings->to, "\n], \"warnings\": %zu, \"bad\": %zu, \"exit_code\": %d}\n",
                findings->n_warn, findings->n_bad, findings->exit_code);
    else if (findings->n_bad)
        fprintf(findings->to, "bad: %zu, warnings: %zu; exit code %d\n", findings->n_bad,
                findings->n_warn, findings->exit_code);
    else
        fprintf(findings->to, "nothing bad, warnings: %zu\n", findings->n_warn);
    return findings->exit_code;
}
