/*
 * kafka_log.c: see kafka_log.h.
 */
#include "connectors/kafka/kafka_log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINES_MAX 4096
#define WARNING   4 /* syslog's levels; smaller is worse */
#define INFO      6

/* Facilities whose level says the wrong thing. All others are warnings from WARNING on. */
static const struct {
    const char *facility, *part; /* part: only lines that have this in them; NULL: all */
    enum notice level;
} classes[] = {
    /* An error event says the same, and becomes the state of the connection. */
    {"FAIL", NULL, NOTICE_DETAIL},
    {"ERROR", NULL, NOTICE_DETAIL},
    /* The result of a transaction's call says the same, and what is done about it. */
    {"TXNERR", NULL, NOTICE_DETAIL},
    {"GETPID", "retrying", NOTICE_DETAIL},
    /* Consumers and producers are given one list of properties; each names what is not its own. */
    {"CONFWARN", "is a producer property", NOTICE_DETAIL},
    {"CONFWARN", "is a consumer property", NOTICE_DETAIL},
    /* What a worker that ends does on purpose. */
    {"TERMINATE", NULL, NOTICE_DETAIL},
    {"PURGE", NULL, NOTICE_DETAIL},
};

enum notice kafka_log_class(int level, const char *facility, const char *text)
{
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (strcmp(classes[i].facility, facility) == 0 &&
            (!classes[i].part || strstr(text, classes[i].part)))
            return classes[i].level;
    return level <= WARNING ? NOTICE_WARN : NOTICE_DETAIL;
}

int kafka_log_open(struct kafka_log *log, int fd)
{
    *log = (struct kafka_log){.fd = fd};
    log->last = &log->first;
    return uv_mutex_init(&log->lock);
}

void kafka_log_close(struct kafka_log *log)
{
    struct kafka_line *line;
    while ((line = kafka_log_take(log)))
        free(line);
    uv_mutex_destroy(&log->lock);
}

void kafka_log_add(struct kafka_log *log, const rd_kafka_t *rk, int level, const char *facility,
                   const char *text)
{
    static const uint64_t one = 1;
    if (log->prints)
        rd_kafka_log_print(rk, level, facility, text);
    /* Debug output is for stderr only: here it would crowd out the rest. */
    if (level > INFO)
        return;
    size_t size = strlen(text) + 1;
    struct kafka_line *line = malloc(sizeof *line + size);
    if (line) {
        line->next = NULL;
        line->level = level;
        snprintf(line->facility, sizeof line->facility, "%s", facility);
        line->text = memcpy(line + 1, text, size);
    }
    uv_mutex_lock(&log->lock);
    if (line && log->n < LINES_MAX) {
        *log->last = line;
        log->last = &line->next;
        log->n++;
        line = NULL;
    } else {
        log->n_lost++;
    }
    /* The line is in the list, or `line` still has it and it is freed. */
    uv_mutex_unlock(&log->lock);
    free(line);
    if (write(log->fd, &one, sizeof one) < 0)
        return; /* the tick is left */
}

struct kafka_line *kafka_log_take(struct kafka_log *log)
{
    uv_mutex_lock(&log->lock);
    struct kafka_line *line = log->first;
    if (line) {
        log->first = line->next;
        assert(log->n > 0);
        log->n--;
    }
    if (!log->first)
        /* Empty: `last` pointed into the line that goes. */
        log->last = &log->first;
    uv_mutex_unlock(&log->lock);
    return line;
}

size_t kafka_log_lost(struct kafka_log *log)
{
    uv_mutex_lock(&log->lock);
    size_t n = log->n_lost;
    log->n_lost = 0;
    uv_mutex_unlock(&log->lock);
    return n;
}

void kafka_log_print(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    if (kafka_log_class(level, facility, text) == NOTICE_WARN)
        rd_kafka_log_print(rk, level, facility, text);
}
