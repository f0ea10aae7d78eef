/*
 * markdown.c: see markdown.h. By lines, once over the text; the rules are CommonMark's (0.31,
 * "ATX headings", "Setext headings", "Fenced code blocks", "HTML blocks") and, of tables, GitHub's.
 * Lists and quotes are not taken apart: it is enough to know which lines are theirs.
 */
#include "worker/pipeline/markdown.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A line without its end, and without white space around it. */
struct line {
    struct bytes bytes; /* len 0: blank */
    size_t start, next; /* where it begins, and the line behind it */
    size_t indent;      /* columns of white space before it; a tab goes to the next fourth */
    bool is_indented;   /* by more than three: code, in which nothing means anything */
};

/* What the next line may go on with. */
enum open {
    OPEN_NOTHING,
    OPEN_PARAGRAPH, /* an underline makes it a heading */
    OPEN_CONTAINER, /* text in a list or a quote, also on lines without their marks: no heading */
};

struct reading {
    struct markdown *out;
    struct bytes text;
    struct span headings[MARKDOWN_LEVELS];
    size_t level;     /* of the heading above the section in hand; 0: none */
    size_t body;      /* where that section begins */
    size_t paragraph; /* first line of OPEN_PARAGRAPH */
    enum open open;
    size_t list_indent; /* lines from this column on belong to the entry of a list; 0: to none */
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
    size_t end = newline ? (size_t)(newline - text.ptr) : text.len;
    struct line line = {.start = start, .next = newline ? end + 1 : text.len};
    for (size_t at = start; at < end && (text.ptr[at] == ' ' || text.ptr[at] == '\t'); at++)
        /* A tab goes on to the next multiple of four columns (CommonMark 2.2). */
        line.indent += text.ptr[at] == ' ' ? 1 : 4 - line.indent % 4;
    line.is_indented = line.indent > 3;
    struct span span = trimmed(text, start, end);
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

static struct section *section_more(struct markdown *markdown)
{
    if (markdown->n_sections == markdown->sections_room) {
        size_t room = markdown->sections_room ? 2 * markdown->sections_room : 32;
        struct section *more = realloc(markdown->sections, room * sizeof *more);
        if (!more)
            return NULL;
        markdown->sections = more;
        markdown->sections_room = room;
    }
    return &markdown->sections[markdown->n_sections++];
}

/*
 * What stands from reading->body to `end`, under the headings in hand. next_level: of the heading
 * behind it; 0: the text ends. A heading with nothing under it, not even a deeper heading, which
 * names it in its path, is text itself: else it would be in no piece.
 */
static int section_add(struct reading *reading, size_t end, size_t next_level)
{
    struct span body = trimmed(reading->text, reading->body, end);
    bool is_leaf = body.start == body.end && reading->level > 0 && next_level <= reading->level;
    if (is_leaf)
        body = reading->headings[reading->level - 1];
    if (body.start == body.end)
        return 0;
    struct section *section = section_more(reading->out);
    if (!section)
        return -ENOMEM;
    section->body = body;
    memcpy(section->headings, reading->headings, sizeof section->headings);
    /* The heading is the text of this section, so it is not in its path too. */
    if (is_leaf)
        section->headings[reading->level - 1] = (struct span){0, 0};
    return 0;
}

/* The section before it ends at `end`, the next begins at `next`. */
static int heading_add(struct reading *reading, size_t level, struct span text, size_t end,
                       size_t next)
{
    int err = section_add(reading, end, level);
    reading->headings[level - 1] = text;
    /* Deeper headings end with this one. */
    for (size_t i = level; i < MARKDOWN_LEVELS; i++)
        reading->headings[i] = (struct span){0, 0};
    reading->level = level;
    reading->body = next;
    reading->open = OPEN_NOTHING;
    reading->list_indent = 0;
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
    if (reading->open != OPEN_PARAGRAPH || line->is_indented || line->bytes.len == 0)
        return 0;
    if (count_of(line->bytes, '=') == line->bytes.len)
        return 1;
    return count_of(line->bytes, '-') == line->bytes.len ? 2 : 0;
}

/* "---", "* * *": a rule, where it is no underline. */
static bool is_rule(const struct line *line)
{
    struct bytes bytes = line->bytes;
    char c = bytes.len > 0 ? bytes.ptr[0] : ' ';
    size_t n = 0;
    if (line->is_indented || (c != '-' && c != '*' && c != '_'))
        return false;
    for (size_t i = 0; i < bytes.len; i++) {
        n += bytes.ptr[i] == c;
        if (bytes.ptr[i] != c && !is_white(bytes.ptr[i]))
            return false;
    }
    return n >= 3;
}

/* Bytes of "- " or "12. " at the beginning; 0: it is no entry of a list. Below a paragraph without
 * a blank line only text behind a bullet or "1." begins one. */
static size_t bullet_len(const struct reading *reading, struct bytes bytes)
{
    bool is_below = reading->open == OPEN_PARAGRAPH;
    size_t n = 0, digits = 0;
    while (digits < bytes.len && bytes.ptr[digits] >= '0' && bytes.ptr[digits] <= '9')
        digits++;
    /* At most nine digits (CommonMark). strchr finds the zero of its string, too. */
    if (digits > 0 && digits < 10 && digits < bytes.len && strchr(".)", bytes.ptr[digits]) &&
        bytes.ptr[digits] && (!is_below || (digits == 1 && bytes.ptr[0] == '1')))
        n = digits + 1;
    else if (bytes.len > 0 && (bytes.ptr[0] == '-' || bytes.ptr[0] == '*' || bytes.ptr[0] == '+'))
        n = 1;
    if (n == 0 || n == bytes.len)
        return n > 0 && !is_below ? n : 0;
    if (!is_white(bytes.ptr[n]))
        return 0;
    while (n < bytes.len && is_white(bytes.ptr[n]))
        n++;
    return n;
}

/* Within an entry of a list, whose headings are not those of the text. */
static bool is_inside(const struct reading *reading, const struct line *line)
{
    return reading->list_indent > 0 && line->indent >= reading->list_indent;
}

/* From which column on lines belong to the entry that the line begins. */
static size_t entry_indent(const struct line *line, size_t bullet)
{
    return line->indent + bullet + (bullet == line->bytes.len);
}

/* How many ` or ~ open a fence; 0: none. */
static size_t fence_len(struct bytes bytes)
{
    char c = bytes.len > 0 ? bytes.ptr[0] : ' ';
    size_t n = c == '`' || c == '~' ? count_of(bytes, c) : 0;
    /* With a backtick behind it, it is code in a line: ```like this```. */
    return n < 3 || (c == '`' && memchr(bytes.ptr + n, '`', bytes.len - n)) ? 0 : n;
}

/* Behind the fence that the line opens, perhaps in an entry of a list; 0: it opens none. One that
 * is not closed goes to the end, or as far as the entry. */
static size_t fence_end(const struct reading *reading, const struct line *line)
{
    bool is_within = is_inside(reading, line);
    size_t bullet = bullet_len(reading, line->bytes), at = line->next;
    size_t indent = is_within ? reading->list_indent : bullet ? entry_indent(line, bullet) : 0;
    struct bytes open = {line->bytes.ptr + bullet, line->bytes.len - bullet};
    size_t n = line->is_indented && !is_within ? 0 : fence_len(open);
    while (n > 0 && at < reading->text.len) {
        struct line inner = line_at(reading->text, at);
        size_t len = count_of(inner.bytes, open.ptr[0]);
        /* As many or more of the same, alone in a line, close it. */
        if ((indent > 0 || !inner.is_indented) && len >= n && len == inner.bytes.len)
            return inner.next;
        /* Text left of the entry ends the entry, and the fence with it. */
        if (inner.bytes.len > 0 && inner.indent < indent)
            return at;
        at = inner.next;
    }
    return n > 0 ? reading->text.len : 0;
}

/* Where `what` begins, from byte `from` on, whatever its letter case; the length: nowhere. */
static size_t find(struct bytes text, size_t from, const char *what)
{
    size_t len = strlen(what);
    for (; from + len <= text.len; from++)
        if (strncasecmp(text.ptr + from, what, len) == 0)
            return from;
    return text.len;
}

static bool begins(struct bytes bytes, const char *what)
{
    return bytes.len >= strlen(what) && strncasecmp(bytes.ptr, what, strlen(what)) == 0;
}

/* Letters and digits behind "<" or "</", and what follows is the end of a name; "": it is none. */
static struct bytes tag_name(struct bytes bytes)
{
    size_t from = begins(bytes, "</") ? 2 : 1, at = from;
    if (bytes.len < 2 || bytes.ptr[0] != '<')
        return (struct bytes){"", 0};
    while (at < bytes.len && (isalnum((unsigned char)bytes.ptr[at]) || bytes.ptr[at] == '-'))
        at++;
    bool is_ended =
        at == bytes.len || is_white(bytes.ptr[at]) || bytes.ptr[at] == '>' || bytes.ptr[at] == '/';
    bool is_name = at > from && isalpha((unsigned char)bytes.ptr[from]) && is_ended;
    return (struct bytes){is_name ? bytes.ptr + from : "", is_name ? at - from : 0};
}

static bool is_one_of(struct bytes name, const char *const *names)
{
    for (; *names; names++)
        if (name.len == strlen(*names) && strncasecmp(name.ptr, *names, name.len) == 0)
            return true;
    return false;
}

/* Behind the line in which `what` comes from byte `at` on; without it the end of the text. */
static size_t line_end_with(struct bytes text, size_t at, const char *what)
{
    at = find(text, at, what);
    const char *newline = at < text.len ? memchr(text.ptr + at, '\n', text.len - at) : NULL;
    return newline ? (size_t)(newline - text.ptr) + 1 : text.len;
}

/* Behind the HTML that begins in the line; 0: none does. In it nothing is a heading. */
static size_t html_end(const struct reading *reading, const struct line *line)
{
    static const char *const raw[] = {"pre", "script", "style", "textarea", NULL};
    static const char *const ends[][2] = {
        {"<!--", "-->"}, {"<?", "?>"}, {"<![CDATA[", "]]>"}, {"<!", ">"}};
    static const char *const blocks[] = {
        "address", "article",  "aside",   "base",     "basefont", "blockquote", "body",
        "caption", "center",   "col",     "colgroup", "dd",       "details",    "dialog",
        "dir",     "div",      "dl",      "dt",       "fieldset", "figcaption", "figure",
        "footer",  "form",     "frame",   "frameset", "h1",       "h2",         "h3",
        "h4",      "h5",       "h6",      "head",     "header",   "hr",         "html",
        "iframe",  "legend",   "li",      "link",     "main",     "menu",       "menuitem",
        "nav",     "noframes", "ol",      "optgroup", "option",   "p",          "param",
        "search",  "section",  "summary", "table",    "tbody",    "td",         "tfoot",
        "th",      "thead",    "title",   "tr",       "track",    "ul",         NULL};
    struct bytes bytes = line->bytes, name = tag_name(bytes), text = reading->text;
    if (line->is_indented || bytes.len < 2 || bytes.ptr[0] != '<')
        return 0;
    size_t start = (size_t)(bytes.ptr - text.ptr), at = line->next;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (begins(bytes, ends[i][0]) &&
            (i < 3 || (bytes.len > 2 && isalpha((unsigned char)bytes.ptr[2]))))
            return line_end_with(text, start + strlen(ends[i][0]), ends[i][1]);
    if (bytes.ptr[1] != '/' && is_one_of(name, raw)) {
        /* The longest name in `raw`, textarea, fits. */
        char end[16];
        snprintf(end, sizeof end, "</%.*s>", (int)name.len, name.ptr);
        return line_end_with(text, start, end);
    }
    /* A tag alone in its line, of any other name, where no text could go on. */
    bool is_alone = name.len > 0 && !is_one_of(name, raw) && reading->open == OPEN_NOTHING &&
                    memchr(bytes.ptr, '>', bytes.len) == bytes.ptr + bytes.len - 1;
    if (!is_one_of(name, blocks) && !is_alone)
        return 0;
    while (at < text.len) {
        struct line inner = line_at(text, at);
        if (inner.bytes.len == 0)
            break;
        at = inner.next;
    }
    return at;
}

/* "|---|:--:|", below the names of columns. */
static bool is_delimiter_row(struct bytes bytes)
{
    bool has_pipe = false, has_dash = false;
    for (size_t i = 0; i < bytes.len; i++) {
        has_pipe |= bytes.ptr[i] == '|';
        has_dash |= bytes.ptr[i] == '-';
        /* strchr finds the zero of its string, too. */
        if (!strchr("|-: \t", bytes.ptr[i]) || bytes.ptr[i] == '\0')
            return false;
    }
    return has_pipe && has_dash;
}

/* Behind the table whose first row the line is; 0: it is none. It ends at a blank line, and where
 * something else begins. */
static size_t table_end(const struct reading *reading, const struct line *line)
{
    struct span heading;
    if (line->is_indented || line->next >= reading->text.len ||
        !memchr(line->bytes.ptr, '|', line->bytes.len))
        return 0;
    struct line next = line_at(reading->text, line->next);
    if (!is_delimiter_row(next.bytes))
        return 0;
    size_t at = next.next;
    /* Asked is whether HTML begins in a row, and not how far it goes: that would be looked for to
     * the end of the text, for each row anew. */
    struct reading in_row = *reading;
    while (at < reading->text.len) {
        struct line row = line_at(reading->text, at);
        in_row.text.len = row.next;
        if (row.bytes.len == 0 || atx_level(reading, &row, &heading) || fence_len(row.bytes) ||
            is_rule(&row) || row.bytes.ptr[0] == '>' || bullet_len(reading, row.bytes) ||
            html_end(&in_row, &row))
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

/* What a line that is no heading and no block leaves open. */
static void line_note(struct reading *reading, const struct line *line)
{
    size_t bullet = bullet_len(reading, line->bytes);
    if (line->bytes.len == 0) {
        reading->open = OPEN_NOTHING;
    } else if (is_inside(reading, line)) {
        reading->open = OPEN_CONTAINER;
    } else if (is_rule(line)) {
        reading->open = OPEN_NOTHING;
        reading->list_indent = 0;
    } else if (!line->is_indented && (bullet > 0 || line->bytes.ptr[0] == '>')) {
        /* An entry without text has none that could go on. */
        reading->open = bullet == line->bytes.len ? OPEN_NOTHING : OPEN_CONTAINER;
        reading->list_indent = bullet > 0 ? entry_indent(line, bullet) : 0;
    } else if (reading->open == OPEN_NOTHING) {
        reading->list_indent = 0;
        reading->paragraph = line->start;
        reading->open = line->is_indented ? OPEN_NOTHING : OPEN_PARAGRAPH;
    }
}

/* One line, or a whole block. *at: set behind it. */
static int line_read(struct reading *reading, size_t *at)
{
    struct line line = line_at(reading->text, *at);
    struct span heading;
    bool is_within = is_inside(reading, &line);
    size_t level = is_within ? 0 : atx_level(reading, &line, &heading), end;
    *at = line.next;
    if (level > 0)
        return heading_add(reading, level, heading, line.start, line.next);
    level = is_within ? 0 : setext_level(reading, &line);
    if (level > 0) {
        /* All lines of the paragraph are the heading (CommonMark 4.3). */
        heading = trimmed(reading->text, reading->paragraph, line.start);
        return heading_add(reading, level, heading, reading->paragraph, line.next);
    }
    end = fence_end(reading, &line);
    if (end == 0)
        end = table_end(reading, &line);
    if (end > 0) {
        *at = end;
        reading->open = OPEN_NOTHING;
        return block_add(reading->out, line.start, end);
    }
    end = is_within ? 0 : html_end(reading, &line);
    if (end > 0) {
        *at = end;
        reading->open = OPEN_NOTHING;
        reading->list_indent = 0;
    } else {
        line_note(reading, &line);
    }
    return 0;
}

int markdown_read(struct markdown *markdown, struct bytes text)
{
    struct reading reading = {.out = markdown, .text = text};
    size_t at = front_matter_end(text);
    markdown->n_sections = markdown->n_blocks = 0;
    /* Front matter is text, but not cut where it fits, and its --- underlines nothing. */
    int err = at > 0 ? block_add(markdown, 0, at) : 0;
    while (at < text.len && !err)
        err = line_read(&reading, &at);
    return err ? err : section_add(&reading, text.len, 0);
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
