/*
 * test_sentences.c: where sentences end: Unicode's own test, and texts in many scripts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "connectors/utf8.h"
#include "worker/pipeline/sentences.h"

/* Of Debian's package unicode-data. */
#define UNICODE_TEST "/usr/share/unicode/auxiliary/SentenceBreakTest.txt"
#define BREAK        "\xc3\xb7"
#define NO_BREAK     "\xc3\x97"

static size_t put_code(char *to, unsigned long code)
{
    if (code < 0x80)
        return to[0] = (char)code, 1;
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char heads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--, code >>= 6)
        to[i] = (char)(0x80 | (code & 0x3f));
    to[0] = (char)(heads[n] | code);
    return n;
}

/* "÷ 0041 × 0042 ÷": text, and a bit for each byte that a boundary is before. */
static size_t line_read(char *line, char text[400], bool is_boundary[400])
{
    size_t len = 0;
    line[strcspn(line, "#\n")] = '\0';
    memset(is_boundary, 0, 400 * sizeof *is_boundary);
    for (char *word = strtok(line, " \t"); word; word = strtok(NULL, " \t")) {
        assert_true(len < 390);
        if (strcmp(word, BREAK) == 0)
            is_boundary[len] = true;
        else if (strcmp(word, NO_BREAK) != 0)
            len += put_code(text + len, strtoul(word, NULL, 16));
    }
    return len;
}

static void unicode_test(void **state)
{
    (void)state;
    char line[2000], text[400];
    bool is_boundary[400];
    size_t n_lines = 0;
    FILE *file = fopen(UNICODE_TEST, "re");
    /* Another Unicode has other classes: Debian 13's is newer than the tables. */
    if (!file || !fgets(line, sizeof line, file) || !strstr(line, "Test-15.0.")) {
        print_message("skipped: no " UNICODE_TEST " of Unicode 15.0 (package unicode-data)\n");
        if (file)
            fclose(file);
        skip();
    }
    while (fgets(line, sizeof line, file)) {
        size_t len = line_read(line, text, is_boundary);
        struct bytes bytes = {text, len};
        n_lines += len > 0;
        for (size_t at = len > 0 ? (size_t)utf8_next(text, len) : 0; at < len;
             at += (size_t)utf8_next(text + at, len - at))
            if (sentence_boundary(bytes, at) != is_boundary[at])
                fail_msg("line %zu: at byte %zu: expected %d", n_lines, at, is_boundary[at]);
    }
    fclose(file);
    assert_true(n_lines > 500);
}

/* "|": a sentence begins. */
static const char *const texts[] = {
    "It rains. |We stay in. |Why? |Because it rains! |Then go.",
    "It rains.\n|We stay in.\r\n|And dry", /* the end of a line is a space */
    "Mr.\nSmith met\nDr. Who",
    "Dr. Who met Mrs. Smith, cf. Fig. 3 below. |They talked.",
    "J. S. Bach wrote it, e.g. in Leipzig. |He died there.",
    "The U.S. Army, at 5 p.m. sharp, left. |So did we.",
    "Version 3.14 of main.c is at http://x.org/?Q=1!Ab. |Load it.",
    "\"Really?\" she said. |\"Yes!\" |He left.",
    "It is done. |`run` waits. |\"all\" is not said.",
    "Three:\n- One.\n|- two.\n  |- Three.\n|The end - it seems. - so.",
    "(It was late.) |Nobody came. |[So it goes.] |The end.",
    "He waited... and waited. |Then... |Nothing.",
    "Er wartete\xe2\x80\xa6 und ging. |Dann\xe2\x80\xa6 |Nichts\xe2\x80\xa6Gar nichts.",
    "Am 3. Mai kam er, vgl. Abb. 2, z. B. Rom. |Dann Nr. 5.",
    "1. First item\n2. Second item",
    "In 1999. |The next year. |In 12. century.",
    "\xe2\x80\x9eKomm!\xe2\x80\x9c |Er kam. |\xc2\xabViens!\xc2\xbb |Il vint.",
    "\xc2\xbfQu\xc3\xa9? |\xc2\xa1Hola! |Bien.",
    /* Japanese, Chinese: no spaces. */
    "\xe9\x9b\xa8\xe3\x81\xa7\xe3\x81\x99\xe3\x80\x82|\xe5\xae\xb6\xe3\x81\xab\xe3\x80\x82",
    "\xe3\x80\x8c\xe3\x81\xaf\xe3\x81\x84\xe3\x80\x82\xe3\x80\x8d|\xe9\x9b\xa8\xef\xbc\x9f",
    "\xe4\xb8\x8b\xe9\x9b\xa8\xe4\xba\x86\xef\xbc\x81|\xe5\xae\xb6\xe3\x80\x82|\xe5\xa5\xbd",
    /* Hindi: danda; Arabic, Urdu: their own question mark and full stop. */
    "\xe0\xa4\xb5\xe0\xa4\xb0\xe0\xa4\xbe\xe0\xa5\xa4 |\xe0\xa4\xb9\xe0\xa4\xae",
    "\xd9\x85\xd8\xa7\xd8\xb0\xd8\xa7\xd8\x9f |\xd9\x84\xd8\xa7. |\xd9\x86\xd8\xb9\xd9\x85",
    "\xda\xaf\xda\xbe\xd8\xb1\xdb\x94 |\xd9\x86\xdb\x81\xdb\x8c\xda\xba",
    /* Thai: sentences are separated by spaces, as parts of them are. */
    "\xe0\xb8\x9d\xe0\xb8\x99\xe0\xb8\x95\xe0\xb8\x81 \xe0\xb9\x80\xe0\xb8\xa3\xe0\xb8\xb2",
    /* Armenian, Ethiopic, Burmese. */
    "\xd4\xb1\xd6\x89 |\xd4\xb2",
    "\xe1\x88\xb0\xe1\x8d\xa2 |\xe1\x88\x88",
    "\xe1\x80\x80\xe1\x81\x8b |\xe1\x80\x81",
    /* Marks that belong to the full stop; what is not UTF-8. */
    "So.\xcc\x81 |Then.",
    "So. |\xff\xfe Then.",
};

static void texts_test(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char text[400];
        bool begins[400] = {false};
        size_t len = 0;
        for (const char *c = texts[i]; *c; c++)
            if (*c == '|')
                begins[len] = true;
            else
                text[len++] = *c;
        for (size_t at = 1; at < len; at++)
            if (utf8_start(text, len, at) == at &&
                sentence_begins((struct bytes){text, len}, at) != begins[at])
                fail_msg("\"%s\": byte %zu: expected %d", texts[i], at, begins[at]);
    }
}

/* Nothing that is looked at on the way grows with the text. */
static void hostile_test(void **state)
{
    (void)state;
    static const char *const parts[] = {")",  " ",         "\xcc\x81", ".",  "\")",  ".)",
                                        ". ", ")\xcc\x81", "1",        "\n", "\xff", "\xe2\x80\xa6",
                                        "A.", " \xcc\x81"};
    enum { LEN = 20000 };
    char *text = malloc(LEN);
    assert_non_null(text);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t n = strlen(parts[i]), found = 0;
        for (size_t at = 0; at < LEN; at++)
            text[at] = at == 0 ? '.' : parts[i][(at - 1) % n];
        for (size_t at = 1; at < LEN; at++)
            found += sentence_begins((struct bytes){text, LEN}, at) +
                     sentence_boundary((struct bytes){text, LEN}, at);
        assert_true(found < 2 * LEN);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unicode_test),
        cmocka_unit_test(texts_test),
        cmocka_unit_test(hostile_test),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
