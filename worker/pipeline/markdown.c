/*
 * markdown.c: see markdown.h. By lines, once over the text; the rules are CommonMark's (0.31,
 * "ATX headings", "Setext headings", "Fenced code blocks") and, of tables, GitHub's.
 */
#include "worker/pipeline/markdown.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A line without its end, and without up to three spaces before it. */
struct line {
    struct bytes bytes; /* len 0: blank */
    size_t start, next; /* where it begins, and the line behind it */
    bool is_indented;   /* by more: code, in which nothing means anything */
};

struct reading {
    struct markdown *out;
    struct bytes text;
    struct span headings[MARKDOWN_LEVELS];
    size_t body;       /* where the section in hand begins */
    size_t paragraph;  /* first line of the paragraph in hand ... */
    bool is_paragraph; /* ... if there is one, which an underline makes a heading */
};

static bool is_white(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct span trimmed(struct bytes text, size_t start, size_t end)
{
    while (start < end && is_white(text.ptr[start]))
        start++;
    while (end > start && is_white(text.ptr[end - 1]))
        end--;
    return (struct span){start, end};
}

static struct line line_at(struct bytes text, size_t start)
{
    const char *newline = memchr(text.ptr + start, '\n', text.len - start);
    size_t end = newline ? (size_t)(newline - text.ptr) : text.len, from = start;
    struct line line = {.start = start, .next = newline ? end + 1 : text.len};
    while (from < end && text.ptr[from] == ' ')
        from++;
    line.is_indented = from - start > 3 || (from < end && text.ptr[from] == '\t');
    struct span span = trimmed(text, from, end);
    line.bytes = (struct bytes){text.ptr + span.start, span.end - span.start};
    return line;
}

/* How many of this character it begins with. */
static size_t count_of(struct bytes bytes, char c)
{
    size_t n = 0;
    while (n < bytes.len && bytes.ptr[n] == c)
        n++;
    return n;
}

static int block_add(struct markdown *markdown, size_t start, size_t end)
{
    if (markdown->n_blocks == markdown->blocks_room) {
        size_t room = markdown->blocks_room ? 2 * markdown->blocks_room : 32;
        struct span *more = realloc(markdown->blocks, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        markdown->blocks = more;
        markdown->blocks_room = room;
    }
    markdown->blocks[markdown->n_blocks++] = (struct span){start, end};
    return 0;
}

/* What stands from reading->body to `end`, under the headings in hand. */
static int section_add(struct reading *reading, size_t end)
{
    struct markdown *markdown = reading->out;
    struct span body = trimmed(reading->text, reading->body, end);
    if (body.start == body.end)
        return 0;
    if (markdown->n_sections == markdown->sections_room) {
        size_t room = markdown->sections_room ? 2 * markdown->sections_room : 32;
        struct section *more = realloc(markdown->sections, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        markdown->sections = more;
        markdown->sections_room = room;
    }
    struct section *section = &markdown->sections[markdown->n_sections++];
    section->body = body;
    memcpy(section->headings, reading->headings, sizeof section->headings);
    return 0;
}

/* The section before it ends at `end`, the next begins at `next`. */
static int heading_add(struct reading *reading, size_t level, struct span text, size_t end,
                       size_t next)
{
    int err = section_add(reading, end);
    reading->headings[level - 1] = text;
    for (size_t i = level; i < MARKDOWN_LEVELS; i++)
        reading->headings[i] = (struct span){0, 0};
    reading->body = next;
    reading->is_paragraph = false;
    return err;
}

/* "## Text ##"; the level, or 0. */
static size_t atx_level(const struct reading *reading, const struct line *line, struct span *text)
{
    struct bytes bytes = line->bytes;
    size_t level = count_of(bytes, '#'), end = bytes.len;
    if (line->is_indented || level == 0 || level > MARKDOWN_LEVELS ||
        (level < bytes.len && !is_white(bytes.ptr[level])))
        return 0;
    while (end > level && bytes.ptr[end - 1] == '#')
        end--;
    if (end > level && !is_white(bytes.ptr[end - 1])) /* "C#" */
        end = bytes.len;
    size_t start = (size_t)(bytes.ptr - reading->text.ptr);
    *text = trimmed(reading->text, start + level, start + end);
    return level;
}

/* "Text" and a line of = or - under it; the level, or 0. */
static size_t setext_level(const struct reading *reading, const struct line *line)
{
    if (!reading->is_paragraph || line->is_indented || line->bytes.len == 0)
        return 0;
    if (count_of(line->bytes, '=') == line->bytes.len)
        return 1;
    return count_of(line->bytes, '-') == line->bytes.len ? 2 : 0;
}

/* Behind the fence that the line opens; 0: it opens none. One that is not closed goes to the end.
 */
static size_t fence_end(const struct reading *reading, const struct line *line)
{
    char c = line->bytes.len > 0 ? line->bytes.ptr[0] : ' ';
    size_t n = c == '`' || c == '~' ? count_of(line->bytes, c) : 0;
    if (n < 3 || line->is_indented ||
        (c == '`' && memchr(line->bytes.ptr + n, '`', line->bytes.len - n)))
        return 0;
    for (size_t at = line->next; at < reading->text.len;) {
        struct line inner = line_at(reading->text, at);
        size_t len = count_of(inner.bytes, c);
        if (!inner.is_indented && len >= n && len == inner.bytes.len)
            return inner.next;
        at = inner.next;
    }
    return reading->text.len;
}

/* "|---|:--:|", below the names of columns. */
static bool is_delimiter_row(struct bytes bytes)
{
    bool has_pipe = false, has_dash = false;
    for (size_t i = 0; i < bytes.len; i++) {
        has_pipe |= bytes.ptr[i] == '|';
        has_dash |= bytes.ptr[i] == '-';
        if (!strchr("|-: \t", bytes.ptr[i]) || bytes.ptr[i] == '\0')
            return false;
    }
    return has_pipe && has_dash;
}

/* Behind the table whose first row the line is; 0: it is none. */
static size_t table_end(const struct reading *reading, const struct line *line)
{
    if (line->is_indented || line->next >= reading->text.len ||
        !memchr(line->bytes.ptr, '|', line->bytes.len))
        return 0;
    struct line next = line_at(reading->text, line->next);
    if (!is_delimiter_row(next.bytes))
        return 0;
    size_t at = next.next;
    while (at < reading->text.len) {
        struct line row = line_at(reading->text, at);
        if (row.bytes.len == 0)
            break;
        at = row.next;
    }
    return at;
}

/* YAML between lines of --- at the beginning, as site generators have it; 0: there is none. */
static size_t front_matter_end(struct bytes text)
{
    struct line line = text.len > 0 ? line_at(text, 0) : (struct line){.start = 0};
    if (line.bytes.len != 3 || line.is_indented || count_of(line.bytes, '-') != 3)
        return 0;
    for (size_t at = line.next; at < text.len;) {
        line = line_at(text, at);
        if (line.bytes.len == 3 && count_of(line.bytes, '-') == 3)
            return line.next;
        at = line.next;
    }
    return 0;
}

/* "- text", "> text", "---": an underline below it is a rule, and no heading. */
static bool is_contained(struct bytes bytes)
{
    char c = bytes.len > 0 ? bytes.ptr[0] : ' ';
    bool is_rule = bytes.len >= 3 && strchr("-*_", c) && count_of(bytes, c) == bytes.len;
    return is_rule || c == '>' || (strchr("-*+", c) && bytes.len > 1 && is_white(bytes.ptr[1]));
}

/* One line, or a whole block. *at: set behind it. */
static int line_read(struct reading *reading, size_t *at)
{
    struct line line = line_at(reading->text, *at);
    struct span heading;
    size_t level = atx_level(reading, &line, &heading), end;
    *at = line.next;
    if (level > 0)
        return heading_add(reading, level, heading, line.start, line.next);
    level = setext_level(reading, &line);
    if (level > 0) {
        heading = trimmed(reading->text, reading->paragraph, line.start);
        return heading_add(reading, level, heading, reading->paragraph, line.next);
    }
    end = fence_end(reading, &line);
    if (end == 0)
        end = table_end(reading, &line);
    if (end > 0) {
        *at = end;
        reading->is_paragraph = false;
        return block_add(reading->out, line.start, end);
    }
    if (line.bytes.len == 0 || (line.is_indented && !reading->is_paragraph))
        reading->is_paragraph = false;
    else if (!reading->is_paragraph && !is_contained(line.bytes)) {
        reading->is_paragraph = true;
        reading->paragraph = line.start;
    }
    return 0;
}

int markdown_read(struct markdown *markdown, struct bytes text)
{
    struct reading reading = {.out = markdown, .text = text};
    size_t at = front_matter_end(text);
    markdown->n_sections = markdown->n_blocks = 0;
    int err = at > 0 ? block_add(markdown, 0, at) : 0;
    while (at < text.len && !err)
        err = line_read(&reading, &at);
    return err ? err : section_add(&reading, text.len);
}

void markdown_close(struct markdown *markdown)
{
    free(markdown->sections);
    free(markdown->blocks);
    memset(markdown, 0, sizeof *markdown);
}

static size_t append(char *out, size_t size, size_t at, struct bytes bytes)
{
    if (at < size && bytes.len > 0)
        memcpy(out + at, bytes.ptr, bytes.len < size - at ? bytes.len : size - at);
    return at + bytes.len;
}

size_t markdown_path(const struct section *section, struct bytes text, struct bytes title,
                     char *out, size_t size)
{
    size_t at = append(out, size, 0, title);
    for (size_t i = 0; i < MARKDOWN_LEVELS; i++) {
        struct span span = section->headings[i];
        struct bytes heading = {text.ptr + span.start, span.end - span.start};
        if (heading.len == 0 ||
            (heading.len == title.len && i == 0 && memcmp(heading.ptr, title.ptr, title.len) == 0))
            continue;
        if (at > 0)
            at = append(out, size, at, (struct bytes){" > ", 3});
        at = append(out, size, at, heading);
    }
    return at;
}
