/*
 * log.h: one line per event on stderr, and the status line below them.
 *
 * Owns:    the form (logfmt for people, JSON for collectors), levels, and holding back repeats.
 * Refuses: text of messages and secrets: callers log codes, counts, names and positions.
 * Threads: the loop thread (and main before and after the loop). No locks.
 * Why:     a broker that is away for an hour is one event with a count, not a million lines.
 */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_AUTO, LOG_LOGFMT, LOG_JSON }; /* auto: logfmt on a terminal, else JSON */

struct log_field {
    const char *key; /* a literal of letters and underscores; NULL ends a list */
    enum { LOG_FIELD_TEXT, LOG_FIELD_INTEGER, LOG_FIELD_REAL } type;
    const char *text; /* UTF-8 or not; NULL leaves the field out */
    int64_t integer;
    double real;
};

#define LOG_TEXT(key, value) ((struct log_field){(key), LOG_FIELD_TEXT, (value), 0, 0})
#define LOG_INTEGER(key, value)                                                                    \
    ((struct log_field){(key), LOG_FIELD_INTEGER, NULL, (int64_t)(value), 0})
#define LOG_REAL(key, value) ((struct log_field){(key), LOG_FIELD_REAL, NULL, 0, (value)})

/*
 * log_event(LOG_WARN, "source waits", LOG_TEXT("source", "redis"), LOG_TEXT("why", why));
 *
 * The same event (level, msg, and the fields "code" and "part" where there are) at LOG_WARN and
 * above is written once in 10 s; those held back are counted and told by `repeated` in the next, by
 * log_tick, or by log_close, with the field "why" of the last of them: what one waits for may have
 * changed meanwhile.
 */
#define log_event(level, ...)                                                                      \
    log_event_(level, __VA_ARGS__, (struct log_field){NULL, 0, NULL, 0, 0})
#define log_event_(level, msg, ...) log_write(level, msg, (const struct log_field[]){__VA_ARGS__})

/* Before log_open: LOG_INFO, LOG_AUTO, stderr. */
void log_open(enum log_level level, enum log_format format, int fd);
void log_write(enum log_level level, const char *msg, const struct log_field *fields);
/* Call about once a second: tells of repeats held back for longer than 10 s. */
void log_tick(void);
/*
 * Show line below the log (only on a terminal); NULL removes it. The line is replaced by the next
 * and kept below the events that come in between.
 */
void log_status(const char *line);
bool log_is_terminal(void);
/* Tell of all repeats held back and remove the status line. */
void log_close(void);

#endif
