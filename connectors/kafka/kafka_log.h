/*
 * kafka_log.h: what librdkafka says in its log, kept until the loop reads it.
 *
 * Owns:    the lines that are not read yet; which of them are warnings.
 * Refuses: to act on them: kafka_skips.c reads of offsets that were reset, the rest goes on to
 *          on_notice.
 * Threads: kafka_log_add on any of the library's threads, else the loop thread. One lock.
 * Why:     some of what matters is said in the log only, a jump in offsets above all. The library's
 *          own queue for its log can hang.
 */
#ifndef KAFKA_LOG_H
#define KAFKA_LOG_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "connectors/connector.h"

struct kafka_line {
    struct kafka_line *next;
    int level; /* of syslog: 4 is a warning */
    char facility[24];
    const char *text; /* behind this struct */
};

struct kafka_log {
    uv_mutex_t lock;
    struct kafka_line *first, **last;
    size_t n, n_lost; /* n_lost: for want of memory, or because nobody read */
    bool prints;      /* the user has asked for the library's debug output, on stderr */
    int fd;           /* an eventfd that wakes the loop */
};

/* 0 or negative errno. */
int kafka_log_open(struct kafka_log *log, int fd);
void kafka_log_close(struct kafka_log *log);
void kafka_log_add(struct kafka_log *log, const rd_kafka_t *rk, int level, const char *facility,
                   const char *text);
/* The oldest line, to be freed; NULL: none. */
struct kafka_line *kafka_log_take(struct kafka_log *log);
/* How many were lost since the last call. */
size_t kafka_log_lost(struct kafka_log *log);
/* What a line is worth, by its facility and level. */
enum notice kafka_log_class(int level, const char *facility, const char *text);
/* For handles that nobody watches: warnings go to stderr. A log_cb of the library. */
void kafka_log_print(const rd_kafka_t *rk, int level, const char *facility, const char *text);

#endif
