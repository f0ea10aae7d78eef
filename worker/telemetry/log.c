/*
 * log.c: see log.h.
 *
 * Owns:    one line, built in a fixed buffer and written by one write(2), so that lines of several
 *          processes on one terminal or file never mix.
 * Threads: the loop thread. The state is one per process because stderr is.
 */
#include "worker/telemetry/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "connectors/utf8.h"

#define LINE_MAX_BYTES 4096
#define HOLD_MS        10000
#define N_EVENTS       32

/* An event seen lately; full tables forget the oldest. */
struct seen {
    char key[96];
    enum log_level level;
    uint64_t written_ms; /* 0: free */
    uint64_t held_back;
    char why[400]; /* of the last held back */
};

static struct {
    enum log_level level;
    enum log_format format;
    int fd;
    struct seen seen[N_EVENTS];
    char status[400];
} state = {.level = LOG_INFO, .format = LOG_AUTO, .fd = STDERR_FILENO};

struct line {
    size_t len;
    char bytes[LINE_MAX_BYTES];
};

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Room is kept for a closing quote, brace and newline. */
static void put(struct line *line, const char *bytes, size_t len)
{
    /* At most 3 of the 8 are ever used: the closing quote, the brace and the newline. */
    assert(line->len <= sizeof line->bytes - 8);
    size_t room = sizeof line->bytes - 8 - line->len;
    memcpy(line->bytes + line->len, bytes, len < room ? len : room);
    line->len += len < room ? len : room;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

/* As a JSON string; also used by logfmt where a value is not a plain word. */
static void put_quoted(struct line *line, const char *text)
{
    static const char replacement[] = "\xef\xbf\xbd";
    put(line, "\"", 1);
    /* Room for one more escape, the dots and the quote. */
    while (*text && line->len < sizeof line->bytes - 32) {
        int n = utf8_next(text, UTF8_LONGEST);
        unsigned char byte = (unsigned char)*text;
        char escape[8];
        /* utf8_next: the length of a character, or minus that of bytes that are none. */
        if (n < 0)
            put(line, replacement, 3);
        else if (byte == '"' || byte == '\\')
            put(line, (char[]){'\\', *text}, 2);
        else if (byte == '\n')
            put(line, "\\n", 2);
        else if (byte < 0x20 || byte == 0x7f)
            put(line, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", byte));
        else
            put(line, text, (size_t)n);
        text += n < 0 ? -n : n;
    }
    if (*text)
        put_text(line, "...");
    line->bytes[line->len++] = '"'; /* out of the room put() keeps */
}

static bool is_word(const char *text)
{
    if (!*text)
        return false;
    for (; *text; text++)
        if ((unsigned char)*text <= 0x20 || (unsigned char)*text >= 0x7f || *text == '"' ||
            *text == '=' || *text == '\\')
            return false;
    return true;
}

static bool is_json(void)
{
    return state.format == LOG_JSON || (state.format == LOG_AUTO && !log_is_terminal());
}

static void put_field(struct line *line, bool json, const struct log_field *field)
{
    /* Near the end of the line a field is left out whole; a long text is cut by put_quoted. */
    if (line->len > sizeof line->bytes - 200 || (field->type == LOG_FIELD_TEXT && !field->text))
        return;
    char number[64];
    if (line->len > (json ? 1u : 0u))
        put(line, json ? "," : " ", 1);
    if (json)
        put(line, "\"", 1);
    put_text(line, field->key);
    put_text(line, json ? "\":" : "=");
    switch (field->type) {
    case LOG_FIELD_TEXT:
        if (!json && is_word(field->text))
            put_text(line, field->text);
        else
            put_quoted(line, field->text);
        break;
    case LOG_FIELD_INTEGER:
        put(line, number, (size_t)snprintf(number, sizeof number, "%" PRId64, field->integer));
        break;
    case LOG_FIELD_REAL:
        put(line, number,
            (size_t)snprintf(number, sizeof number, "%.6g",
                             isfinite(field->real) ? field->real : 0.0));
        break;
    }
}

static void put_time(struct line *line, bool json)
{
    struct timespec now;
    struct tm parts;
    char text[40];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &parts);
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + n, sizeof text - n, ".%03ldZ", now.tv_nsec / 1000000);
    put_field(line, json, &LOG_TEXT("ts", text));
}

/* Nothing can be done about a stderr that is gone. */
static void write_all(const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(state.fd, bytes, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        bytes += n;
        len -= (size_t)n;
    }
}

static void draw_status(void)
{
    char line[sizeof state.status + 16];
    int n = snprintf(line, sizeof line, "\r%s\x1b[K", state.status);
    if (state.status[0])
        write_all(line, (size_t)n);
}

static void write_line(enum log_level level, const char *msg, const struct log_field *fields,
                       uint64_t repeated)
{
    struct line line = {0};
    bool json = is_json();
    /* Over the status line, which draw_status puts below again. */
    if (state.status[0])
        write_all("\r\x1b[K", 4);
    if (json)
        put(&line, "{", 1);
    put_time(&line, json);
    put_field(&line, json, &LOG_TEXT("level", level_names[level]));
    put_field(&line, json, &LOG_TEXT("msg", msg));
    for (; fields && fields->key; fields++)
        put_field(&line, json, fields);
    if (repeated)
        put_field(&line, json, &LOG_INTEGER("repeated", repeated));
    if (json)
        line.bytes[line.len++] = '}';
    line.bytes[line.len++] = '\n';
    write_all(line.bytes, line.len);
    draw_status();
}

/* What was held back, as a count, and why the last of it was. */
static void report_seen(const struct seen *seen)
{
    const struct log_field fields[] = {LOG_TEXT("why", seen->why[0] ? seen->why : NULL), {0}};
    write_line(seen->level, seen->key, fields, seen->held_back);
}

/* The slot of this event, or the oldest one, emptied. */
static struct seen *find_seen(enum log_level level, const char *key)
{
    struct seen *oldest = &state.seen[0];
    for (size_t i = 0; i < N_EVENTS; i++) {
        struct seen *seen = &state.seen[i];
        if (seen->written_ms && seen->level == level && strcmp(seen->key, key) == 0)
            return seen;
        if (seen->written_ms < oldest->written_ms)
            oldest = seen;
    }
    /* Its place is needed: what it counted is written now, or would never be. */
    if (oldest->held_back)
        report_seen(oldest);
    *oldest = (struct seen){.level = level};
    snprintf(oldest->key, sizeof oldest->key, "%s", key);
    return oldest;
}

void log_open(enum log_level level, enum log_format format, int fd)
{
    memset(&state, 0, sizeof state);
    state.level = level;
    state.format = format;
    state.fd = fd;
}

static const char *find_text(const struct log_field *fields, const char *key)
{
    for (; fields->key; fields++)
        if (strcmp(fields->key, key) == 0 && fields->type == LOG_FIELD_TEXT)
            return fields->text;
    return NULL;
}

void log_write(enum log_level level, const char *msg, const struct log_field *fields)
{
    if (level < state.level)
        return;
    if (level < LOG_WARN) {
        write_line(level, msg, fields, 0);
        return;
    }
    const char *code = find_text(fields, "code"), *why = find_text(fields, "why");
    const char *part = find_text(fields, "part");
    /* Events alike in their first 95 bytes count as the same: the key has a fixed size. */
    char key[sizeof state.seen[0].key];
    snprintf(key, sizeof key, "%s%s%s%s%s", msg, code ? ": " : "", code ? code : "",
             part ? " " : "", part ? part : "");
    struct seen *seen = find_seen(level, key);
    uint64_t now = now_ms();
    /* Ten seconds from the last line that was written, so a storm costs one line in ten seconds. */
    if (seen->written_ms && now - seen->written_ms < HOLD_MS) {
        seen->held_back++;
        snprintf(seen->why, sizeof seen->why, "%s", why ? why : "");
        return;
    }
    write_line(level, msg, fields, seen->held_back);
    seen->written_ms = now;
    seen->held_back = 0;
}

static void report_held_back(uint64_t older_than_ms)
{
    uint64_t now = now_ms();
    for (size_t i = 0; i < N_EVENTS; i++) {
        struct seen *seen = &state.seen[i];
        if (!seen->held_back || now - seen->written_ms < older_than_ms)
            continue;
        report_seen(seen);
        seen->written_ms = now;
        seen->held_back = 0;
    }
}

void log_tick(void)
{
    report_held_back(HOLD_MS);
}

bool log_is_terminal(void)
{
    return isatty(state.fd) == 1;
}

void log_status(const char *line)
{
    if (!log_is_terminal())
        return;
    struct winsize window;
    size_t width = sizeof state.status;
    if (ioctl(state.fd, TIOCGWINSZ, &window) == 0 && window.ws_col > 1 && window.ws_col < width)
        width = window.ws_col; /* a wrapped line could not be erased */
    bool had_one = state.status[0] != '\0';
    snprintf(state.status, width, "%s", line ? line : "");
    if (state.status[0])
        draw_status();
    else if (had_one)
        write_all("\r\x1b[K", 4);
}

void log_close(void)
{
    log_status(NULL);
    report_held_back(0);
}
