/*
 * test_markdown.c: headings and what stands under them, fences and tables that are not cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "worker/pipeline/markdown.h"

/* "path: body" of each section, a bar between them; line ends in bodies as /. */
static const char *sections_of(const char *text, const char *title)
{
    static char out[4000];
    struct markdown markdown = {.n_blocks = 0};
    struct bytes bytes = {text, strlen(text)};
    size_t len = 0;
    char path[400];
    assert_int_equal(markdown_read(&markdown, bytes), 0);
    out[0] = '\0';
    for (size_t i = 0; i < markdown.n_sections; i++) {
        const struct section *section = &markdown.sections[i];
        size_t n =
            markdown_path(section, bytes, (struct bytes){title, strlen(title)}, path, sizeof path);
        assert_true(n < sizeof path);
        len += (size_t)snprintf(out + len, sizeof out - len, "%s%.*s: %.*s", i ? "|" : "", (int)n,
                                path, (int)(section->body.end - section->body.start),
                                text + section->body.start);
    }
    for (char *at = out; *at; at++)
        *at = *at == '\n' ? '/' : *at;
    markdown_close(&markdown);
    return out;
}

static const struct {
    const char *text, *sections;
} cases[] = {
    {"just text\nin lines\n", ": just text/in lines"},
    {"# A\none\n## B\ntwo\n## C\n\nthree\n# D\nfour", "A: one|A > B: two|A > C: three|D: four"},
    {"before\n# A\n\n## B\ntext", ": before|A > B: text"},
    {"# A #\nx\n## C# ##\ny\n### C#\nz", "A: x|A > C#: y|A > C# > C#: z"},
    {"Title\n=====\nx\n\nSub\nlines\n---\ny\n", "Title: x|Title > Sub\nlines: y"},
    {"#no heading\n\n####### seven\n\n    # code\n\n\\# text\n",
     ": #no heading//####### seven//    # code//\\# text"},
    {"a\n\n---\n\nb\n", ": a//---//b"}, /* a rule */
    {"- item\n---\n> quote\n---\n", ": - item/---/> quote/---"},
    {"#\nx", ": x"},
    {"# A\r\none\r\n# B\r\ntwo\r\n", "A: one|B: two"},
    {"# A\n```sh\n# comment\n## more\n```\nend\n", "A: ```sh/# comment/## more/```/end"},
    {"# A\n~~~\n# in\n```\n~~~\n# B\nx", "A: ~~~/# in/```/~~~|B: x"},
    {"# A\n````\n```\n# in\n````\n# B\nx", "A: ````/```/# in/````|B: x"},
    {"# A\n```\n# never closed\n", "A: ```/# never closed"},
    {"---\ntitle: x\n# y: z\n---\n# A\ntext\n", ": ---/title: x/# y: z/---|A: text"},
    {"# A\n### C\nx\n## B\ny\n", "A > C: x|A > B: y"},
    {"", ""},
    /* A heading with nothing under it is text, unless it is in the path of another. */
    {"# A\n## B\n", "A: B"},
    {"# A\n## B\n## C\nx\n# D\n# E\n", "A: B|A > C: x|: D|: E"},
    {"x\n# A\n\nB\n---\n\n", ": x|A: B"},
    /* Lists and quotes take lines without their marks; an underline there is a rule. */
    {"text\n- a\n- b\n---\nc\n", ": text/- a/- b/---/c"},
    {"1. a\n---\n# B\nx", ": 1. a/---|B: x"},
    {"- a\nlazy\n===\n> q\nlazy\n---\n", ": - a/lazy/===/> q/lazy/---"},
    {"in\n1986. a\n===\nx", "in\n1986. a: x"},
    {"***\nA\n===\nx\n* * *\nB\n---\ny", ": ***|A: x/* * *|A > B: y"},
    {"text\n***\nA\n---\nx", ": text/***|A: x"},
    {"1. do:\n   ```\n   # in\n   ```\n# A\nx", ": 1. do:/   ```/   # in/   ```|A: x"},
    {"1. do:\n   ```\n# A\nx", ": 1. do:/   ```|A: x"},
    {"- a\n\n  # in\n\n  in\n  ---\n\n# A\nx", ": - a//  # in//  in/  ---|A: x"},
    {"- a\n\n # A\nx\n", ": - a|A: x"},
    {"    ```\n  # A\nx", ": ```|A: x"},
    {"1. ```sh\n   # in\n   ```\n# A\nx", ": 1. ```sh/   # in/   ```|A: x"},
    {"10. a\n\n    ```\n    # in\n    ```\n# A\nx", ": 10. a//    ```/    # in/    ```|A: x"},
    {"- ```\n  # in\n# A\nx", ": - ```/  # in|A: x"},
    /* HTML. */
    {"<!-- x\n# no\n\n# no -->\n# A\nx", ": <!-- x/# no//# no -->|A: x"},
    {"<PRE class=a>\n# no\n\n# no\n</pre>\n# A\nx", ": <PRE class=a>/# no//# no/</pre>|A: x"},
    {"<p>\n# no\n</p>\n\n# A\nx", ": <p>/# no/</p>|A: x"},
    {"<my-tag>\n# no\n\n# A\n<b>x</b>\n===\ny", ": <my-tag>/# no|: A|<b>x</b>: y"},
    {"<https://a.b>\n# A\n<!-- x -->\n# B\ny", ": <https://a.b>|A: <!-- x -->|B: y"},
    {"<!DOCTYPE\n# no>\n<![CDATA[\n# no]]>\n<?x\n# no?>\n# A\nx",
     ": <!DOCTYPE/# no>/<![CDATA[/# no]]>/<?x/# no?>|A: x"},
    {"# A\n<!-- never closed\n# no", "A: <!-- never closed/# no"},
    {"- a\n<x-y>\n# A\ny\n\n1)\n===\n---\nz", ": - a/<x-y>|A: y//1)|A > ===: z"},
    {"x\n\n</pre>\n# A\ny", ": x//</pre>|A: y"},
    {"# A\n|a|\n|-|\n|1|\n# B\nx", "A: |a|/|-|/|1||B: x"},
};

static void headings(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char wanted[400];
        snprintf(wanted, sizeof wanted, "%s", cases[i].sections);
        for (char *at = wanted; *at; at++)
            *at = *at == '\n' ? '/' : *at;
        assert_string_equal(sections_of(cases[i].text, ""), wanted);
    }
}

static void titles(void **state)
{
    (void)state;
    assert_string_equal(sections_of("x\n# A\ny\n## B\nz", "Doc"),
                        "Doc: x|Doc > A: y|Doc > A > B: z");
    assert_string_equal(sections_of("# Doc\ny\n## B\nz", "Doc"), "Doc: y|Doc > B: z");
}

static const char *blocks_of(const char *text)
{
    static char out[1000];
    struct markdown markdown = {.n_blocks = 0};
    size_t len = 0;
    assert_int_equal(markdown_read(&markdown, (struct bytes){text, strlen(text)}), 0);
    out[0] = '\0';
    for (size_t i = 0; i < markdown.n_blocks; i++)
        len += (size_t)snprintf(out + len, sizeof out - len, "%s%.*s", i ? "|" : "",
                                (int)(markdown.blocks[i].end - markdown.blocks[i].start),
                                text + markdown.blocks[i].start);
    for (char *at = out; *at; at++)
        *at = *at == '\n' ? '/' : *at;
    markdown_close(&markdown);
    return out;
}

static void blocks(void **state)
{
    (void)state;
    assert_string_equal(blocks_of("a\n```\nx\n\ny\n```\nb\n"), "```/x//y/```/");
    assert_string_equal(blocks_of("a\n\n| a | b |\n|---|:-:|\n| 1 | 2 |\n| 3 | 4 |\n\nb\n"),
                        "| a | b |/|---|:-:|/| 1 | 2 |/| 3 | 4 |/");
    assert_string_equal(blocks_of("a|b\n-|-\n1|2"), "a|b/-|-/1|2");
    assert_string_equal(blocks_of("a | b\nno table\n"), "");
    assert_string_equal(blocks_of("|a|\n|-|\n|1|\n> q"), "|a|/|-|/|1|/");
    assert_string_equal(blocks_of("|a|\n|-|\n|1|\n```\nx"), "|a|/|-|/|1|/|```/x");
    assert_string_equal(blocks_of("|a|\n|-|\n- b"), "|a|/|-|/");
    assert_string_equal(blocks_of("- ```\n  x\n\n  ```\n  y"), "- ```/  x//  ```/");
    assert_string_equal(blocks_of("- a\n\n    ~~~\n    x\n\nb"), "    ~~~/    x//");
    assert_string_equal(blocks_of("`a` b\n``` c ``` d\n"), "");
    assert_string_equal(blocks_of("```\na\n```\n```\nb\n```\n"), "```/a/```/|```/b/```/");
}

/* Rows that might begin HTML which ends nowhere: looked for in each to the end of the text, it
 * would take minutes. */
static void many_tables(void **state)
{
    (void)state;
    static const char table[] = "<!--|\n|-|\n";
    enum { N = 100000, LEN = sizeof table - 1 };
    char *text = malloc((size_t)N * LEN);
    struct markdown markdown = {.n_blocks = 0};
    assert_non_null(text);
    for (size_t i = 0; i < N; i++)
        memcpy(text + i * LEN, table, LEN);
    assert_int_equal(markdown_read(&markdown, (struct bytes){text, (size_t)N * LEN}), 0);
    assert_true(markdown.n_sections == 1);
    markdown_close(&markdown);
    free(text);
}

/* Any bytes: spans lie in the text, in order. */
static void any_bytes(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "#",   "## ",  "\n", "```", "---", "===",  "|",   "|--|", " ",      "text",  "    ", "\r\n",
        "~~~", "\xff", "\t", "- ",  "1. ", "<!--", "-->", "<p>",  "</pre>", "<pre>", "<"};
    unsigned random = 1;
    for (int run = 0; run < 3000; run++) {
        char text[200], *exact;
        size_t len = 0, at = 0;
        while (len < 150) {
            random = random * 1103515245 + 12345;
            const char *part = parts[random / 65536 % (sizeof parts / sizeof parts[0])];
            memcpy(text + len, part, strlen(part));
            len += strlen(part);
        }
        exact = malloc(len); /* for the address sanitizer */
        assert_non_null(exact);
        memcpy(exact, text, len);
        struct markdown markdown = {.n_blocks = 0};
        assert_int_equal(markdown_read(&markdown, (struct bytes){exact, len}), 0);
        for (size_t i = 0; i < markdown.n_sections; i++) {
            struct span body = markdown.sections[i].body;
            assert_true(body.start >= at && body.start < body.end && body.end <= len);
            at = body.end;
        }
        at = 0;
        for (size_t i = 0; i < markdown.n_blocks; i++) {
            struct span block = markdown.blocks[i];
            assert_true(block.start >= at && block.start < block.end && block.end <= len);
            at = block.end;
        }
        markdown_close(&markdown);
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headings),    cmocka_unit_test(titles),    cmocka_unit_test(blocks),
        cmocka_unit_test(many_tables), cmocka_unit_test(any_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
