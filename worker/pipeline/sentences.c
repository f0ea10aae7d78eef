/*
 * sentences.c: see sentences.h. The names of rules (SB3 ...) are those of UAX 29.
 *
 * Every boundary lies behind a terminator, closing marks and spaces, so a place is judged by going
 * back over these. No rule looks further but SB8, and that no further than the next letter.
 */
#include "worker/pipeline/sentences.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/utf8.h"
#include "worker/pipeline/sentences_tables.h"

enum {
    SEARCH_MOST = 400,    /* bytes that are looked at on either side: texts may be hostile */
    WORD_MOST = 12,       /* bytes of an abbreviation */
    SMALL_NUMBER_MOST = 2 /* digits of a day, of an item of a list */
};

#define ELLIPSIS "\xe2\x80\xa6"

/* Words whose full stop ends no sentence as a rule: titles, references, measures. */
static const char *const abbreviations[] = {
    "Mr",   "Mrs",  "Ms",   "Dr",  "Prof", "St",  "Mt",   "Sr",     "Sra", "Hr",  "Fr",
    "Mme",  "Mlle", "Gen",  "Col", "Capt", "Lt",  "Sgt",  "Sen",    "Rep", "Gov", "Rev",
    "Hon",  "No",   "Nr",   "Fig", "Figs", "Abb", "Tab",  "Eq",     "Sec", "Vol", "Ch",
    "Kap",  "Art",  "pp",   "ed",  "eds",  "cf",  "vs",   "vgl",    "viz", "ca",  "bzw",
    "inkl", "exkl", "resp", "sog", "evtl", "ggf", "incl", "approx",
};

/* The text, and whether the rules are those for cutting. */
struct reading {
    struct bytes text;
    bool is_for_cutting;
};

static uint32_t code_at(struct bytes text, size_t at, size_t len)
{
    static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t code = (unsigned char)text.ptr[at] & masks[len];
    for (size_t i = 1; i < len; i++)
        code = code << 6 | ((unsigned char)text.ptr[at + i] & 0x3f);
    return code;
}

static enum sentence_class class_of(uint32_t code)
{
    size_t low = 0, high = n_sentence_ranges;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sentence_ranges[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == n_sentence_ranges || sentence_ranges[low].first > code)
        return OTHER;
    enum sentence_class kind = sentence_ranges[low].kind;
    bool is_first = (code - sentence_ranges[low].first) % 2 == 0;
    if (kind == UPPER_LOWER)
        return is_first ? UPPER : LOWER;
    if (kind == LOWER_UPPER)
        return is_first ? LOWER : UPPER;
    return kind;
}

/* Of the character at `at`, and *next set behind it. */
static enum sentence_class class_at(const struct reading *r, size_t at, size_t *next)
{
    int len = utf8_next(r->text.ptr + at, r->text.len - at);
    *next = at + (size_t)abs(len);
    if (len < 0)
        return OTHER;
    uint32_t code = code_at(r->text, at, (size_t)len);
    enum sentence_class kind = class_of(code);
    if (!r->is_for_cutting)
        return kind;
    if (kind == CR || kind == LF || kind == SEP)
        return SP;
    return code == 0x2026 ? ATERM : kind;
}

static bool is_paragraph_end(enum sentence_class kind)
{
    return kind == SEP || kind == CR || kind == LF;
}

static bool is_attached(enum sentence_class kind)
{
    return kind == EXTEND || kind == FORMAT;
}

static bool is_terminator(enum sentence_class kind)
{
    return kind == ATERM || kind == STERM;
}

/*
 * The character before *at, which becomes its beginning; what is attached to it belongs to it
 * (SB5). At the beginning of the text OTHER, with *at as it was.
 */
static enum sentence_class step_back(const struct reading *r, size_t *at)
{
    size_t to = *at, next;
    while (to > 0 && *at - to < SEARCH_MOST) {
        size_t start = utf8_start(r->text.ptr, r->text.len, to - 1);
        enum sentence_class kind = class_at(r, start, &next);
        if (is_paragraph_end(kind) && to < *at) /* what is attached to nothing stands alone */
            break;
        to = start;
        if (!is_attached(kind)) {
            *at = to;
            return kind;
        }
    }
    *at = to;
    return OTHER;
}

/* SB8: is the first of letters, ends of paragraphs and terminators from here on a small letter? */
static bool is_small_ahead(const struct reading *r, size_t at)
{
    size_t end = r->text.len - at > SEARCH_MOST ? at + SEARCH_MOST : r->text.len;
    while (at < end) {
        enum sentence_class kind = class_at(r, at, &at);
        if (kind == LOWER)
            return true;
        if (kind == UPPER || kind == OLETTER || is_paragraph_end(kind) || is_terminator(kind))
            return false;
    }
    return false;
}

/* The terminator behind which `at` is, with closing marks and spaces between. */
struct ending {
    enum sentence_class kind; /* OTHER: there is none */
    size_t at;
    bool has_space, has_break; /* a space, the end of a paragraph between */
};

static struct ending ending_before(const struct reading *r, size_t at)
{
    struct ending out = {.kind = OTHER, .at = at};
    enum sentence_class kind = step_back(r, &out.at);
    if (is_paragraph_end(kind)) {
        out.has_break = true;
        kind = step_back(r, &out.at);
    }
    for (; kind == SP && at - out.at < SEARCH_MOST; kind = step_back(r, &out.at))
        out.has_space = true;
    while (kind == CLOSE && at - out.at < SEARCH_MOST)
        kind = step_back(r, &out.at);
    if (is_terminator(kind))
        out.kind = kind;
    return out;
}

/* SB6 and SB7, of a terminator right before `at`. */
static bool is_inside_word(const struct reading *r, struct ending ending, size_t at,
                           enum sentence_class next)
{
    size_t before = at;
    if (ending.kind != ATERM || step_back(r, &before) != ATERM)
        return false;
    if (next == NUMERIC)
        return true;
    enum sentence_class letter = step_back(r, &before);
    return next == UPPER && (letter == UPPER || letter == LOWER);
}

/* Does a line begin at `at`, indented or not? */
static bool is_line_start(struct bytes text, size_t at)
{
    size_t end = at > SEARCH_MOST ? at - SEARCH_MOST : 0;
    while (at > end && (text.ptr[at - 1] == ' ' || text.ptr[at - 1] == '\t'))
        at--;
    return at > 0 && text.ptr[at - 1] == '\n';
}

static bool is_boundary(const struct reading *r, size_t at, struct ending *ending)
{
    size_t behind, last = utf8_start(r->text.ptr, r->text.len, at - 1);
    enum sentence_class next = class_at(r, at, &behind), before = class_at(r, last, &behind);
    if (before == CR && next == LF) /* SB3 */
        return false;
    if (is_paragraph_end(before)) /* SB4 */
        return true;
    if (is_attached(next) || (before == CLOSE && next == CLOSE)) /* SB5; SB9 or SB998 */
        return false;
    *ending = ending_before(r, at);
    if (ending->kind == OTHER || is_inside_word(r, *ending, at, next)) /* SB998; SB6, SB7 */
        return false;
    if (r->is_for_cutting ? next == LOWER : ending->kind == ATERM && is_small_ahead(r, at))
        return false;        /* SB8 */
    if (is_terminator(next)) /* SB8a */
        return false;
    if (next == SCONTINUE && !(r->is_for_cutting && is_line_start(r->text, at))) /* SB8a */
        return false;
    if (next == CLOSE && !ending->has_space) /* SB9 */
        return false;
    return next != SP && !is_paragraph_end(next); /* SB9, SB10; else SB11 */
}

bool sentence_boundary(struct bytes text, size_t at)
{
    struct reading r = {text, false};
    struct ending ending;
    return is_boundary(&r, at, &ending);
}

/* Is the word [start, end) one that has a full stop for another reason? */
static bool is_abbreviation(const struct reading *r, size_t start, size_t end, size_t n,
                            enum sentence_class first)
{
    if (first == NUMERIC)
        return n <= SMALL_NUMBER_MOST;
    if (n == 1)
        return true;
    for (size_t i = 0; i < sizeof abbreviations / sizeof *abbreviations; i++)
        if (strlen(abbreviations[i]) == end - start &&
            memcmp(r->text.ptr + start, abbreviations[i], end - start) == 0)
            return true;
    return false;
}

/* The word before the terminator, of letters or of digits. */
static bool is_behind_abbreviation(const struct reading *r, size_t end)
{
    size_t start = end, n = 0;
    enum sentence_class first = OTHER;
    while (start > 0 && end - start <= WORD_MOST) {
        size_t at = start;
        enum sentence_class kind = step_back(r, &at);
        bool is_letter = kind == UPPER || kind == LOWER || kind == OLETTER;
        if ((!is_letter && kind != NUMERIC) || (n > 0 && (kind == NUMERIC) != (first == NUMERIC)))
            break;
        first = kind;
        start = at;
        n++;
    }
    return n > 0 && end - start <= WORD_MOST && is_abbreviation(r, start, end, n, first);
}

bool sentence_begins(struct bytes text, size_t at)
{
    struct reading r = {text, true};
    struct ending ending;
    /* Between two letters of ASCII, the commonest case, there is nothing to look for. */
    unsigned char before = (unsigned char)text.ptr[at - 1] | 0x20;
    if ((before >= 'a' && before <= 'z') || !is_boundary(&r, at, &ending))
        return false;
    /* Marks of ASCII need a space behind them (URLs, "main.c"); those of other scripts do not. */
    if (!ending.has_space && (unsigned char)text.ptr[ending.at] < 0x80)
        return false;
    if (text.len - ending.at >= 3 && memcmp(text.ptr + ending.at, ELLIPSIS, 3) == 0)
        return ending.has_space;
    return ending.kind != ATERM || !is_behind_abbreviation(&r, ending.at);
}
