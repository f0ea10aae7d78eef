/*
 * findings.h: what `check` and `doctor` have found, for people or as JSON.
 *
 * Owns:    the lines, and the exit code of the worst that was found first.
 * Threads: the main thread.
 */
#ifndef FINDINGS_H
#define FINDINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "connectors/check.h"

struct findings {
    FILE *to;
    bool json;
    const char *area; /* what is looked at now: "model", "input redis" */
    int bad_code;     /* exit code should anything be bad in this area */
    int exit_code;    /* 0, or bad_code of the first that was bad */
    size_t n, n_warn, n_bad;
};

void findings_begin(struct findings *findings, FILE *to, bool json);
void findings_area(struct findings *findings, const char *area, int bad_code);
__attribute__((format(printf, 4, 5))) void findings_add(struct findings *findings, enum finding how,
                                                        const char *what, const char *format, ...);
/* For connectors: ctx is the findings. */
void findings_report(void *ctx, enum finding how, const char *what, const char *said);
/* The last line; returns the exit code. */
int findings_end(struct findings *findings);

#endif
