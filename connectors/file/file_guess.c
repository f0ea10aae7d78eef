/*
 * file_guess.c: see file_guess.h.
 */
#include "connectors/file/file_guess.h"

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

static struct bytes trimmed(struct bytes text)
{
    while (text.len > 0 && isspace((unsigned char)text.ptr[0]))
        text = (struct bytes){text.ptr + 1, text.len - 1};
    while (text.len > 0 && isspace((unsigned char)text.ptr[text.len - 1]))
        text.len--;
    return text;
}

/* Is there a key of that name somewhere in it? */
static bool has_key(struct bytes line, const char *name)
{
    size_t len = strlen(name);
    const char *at = line.ptr, *end = line.ptr + line.len;
    while ((at = memchr(at, '"', (size_t)(end - at)))) {
        /* Behind the quote: a match that fails goes on from there, so every quote is tried once. */
        at++;
        if ((size_t)(end - at) < len + 2 || memcmp(at, name, len) != 0 || at[len] != '"')
            continue;
        const char *behind = at + len + 1;
        while (behind < end && isspace((unsigned char)*behind))
            behind++;
        if (behind < end && *behind == ':')
            return true;
    }
    return false;
}

static bool is_object(struct bytes line, const char *text_field)
{
    /* A comma behind it, as arrays printed one object a line have. */
    if (line.len < 2 || line.ptr[0] != '{' || !memchr("},", line.ptr[line.len - 1], 2))
        return false;
    return has_key(line, text_field) || has_key(line, "text") || has_key(line, "texts");
}

/* A name as columns have them: no spaces, which lines of text have behind their commas. */
static bool is_name(struct bytes cell)
{
    for (size_t i = 0; i < cell.len; i++) {
        unsigned char c = (unsigned char)cell.ptr[i];
        if (!isalnum(c) && c != '_' && c != '-' && c != '.' && c < 0x80)
            return false;
    }
    return cell.len > 0;
}

static bool is_header(struct bytes line, char delimiter, const char *column)
{
    bool has_column = false, has_others = false;
    for (;;) {
        const char *end = memchr(line.ptr, delimiter, line.len);
        struct bytes cell = {line.ptr, end ? (size_t)(end - line.ptr) : line.len};
        if (cell.len > 2 && cell.ptr[0] == '"' && cell.ptr[cell.len - 1] == '"')
            cell = (struct bytes){cell.ptr + 1, cell.len - 2};
        if (!is_name(cell))
            return false;
        bool is_it = cell.len == strlen(column) && strncasecmp(cell.ptr, column, cell.len) == 0;
        has_column |= is_it;
        has_others |= !is_it;
        if (!end)
            /* A single column of that name may just as well be a line with one word. */
            return has_column && has_others;
        line = (struct bytes){end + 1, line.len - (size_t)(end + 1 - line.ptr)};
    }
}

const char *file_guess_format(struct bytes line, const char *text_field, const char *column)
{
    line = trimmed(line);
    if (is_object(line, text_field))
        return "jsonl";
    /* The order of file_csv.c, which reads the file then. */
    for (const char *delimiter = ",;\t|"; *delimiter; delimiter++)
        if (line.len > 0 && is_header(line, *delimiter, column))
            return "csv";
    return NULL;
}
