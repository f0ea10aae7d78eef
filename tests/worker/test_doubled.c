/*
 * test_doubled.c: `embedmill embed` of texts that have the prompt of the model already, and of
 * messages that ask for one it does not have: one warning, whatever the number of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/program.h"

/* Its prompt for a query is "the query: ". */
#define MODEL TESTS_DIR "/data/models/tiny-xlm-roberta.gguf"

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part))
        n++;
    return n;
}

/* How many warnings of this code there are; every line of the input must have its record. */
static size_t warnings_of(const char *code, const char *prompt, const char *input)
{
    char line[400];
    int in = program_scratch(), out = program_scratch(), err = program_scratch();
    assert_int_equal(write(in, input, strlen(input)), strlen(input));
    lseek(in, 0, SEEK_SET);
    snprintf(line, sizeof line,
             "embed --model %s --prompt %s --output-format json --log-format json "
             "--batch-texts 2",
             MODEL, prompt);
    assert_int_equal(program_wait(program_start(line, NULL, in, dup(out), err)), 0);
    char *records = program_said(out, NULL), *said = program_said(err, NULL);
    assert_int_equal(count(records, "\n"), count(input, "\n"));
    snprintf(line, sizeof line, "\"code\":\"%s\"", code);
    size_t n = count(said, line);
    bool is_doubled = n && strcmp(code, "doubled_prompt") == 0;
    if (is_doubled &&
        (!strstr(said, "\"begins_with\":\"query\"") || !strstr(said, "'the query: '")))
        fail_msg("%s", said);
    free(records);
    free(said);
    return n;
}

static size_t warnings(const char *prompt, const char *input)
{
    return warnings_of("doubled_prompt", prompt, input);
}

static void test_missing(void **state)
{
    (void)state;
    static const char code[] = "missing_prompt";
    char many[4000] = "";
    for (int i = 0; i < 20; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many),
                 "{\"text\": \"fox %d\", \"prompt\": \"fact_checking\"}\n", i);
    assert_int_equal(warnings_of(code, "query", many), 1);
    assert_int_equal(warnings_of(code, "query",
                                 "fox\n{\"text\": \"a\", \"prompt\": \"query\"}\n"
                                 "{\"text\": \"b\", \"prompt\": \"none\"}\n"
                                 "{\"text\": \"c\", \"prompt\": \"document\"}\n"),
                     0);
}

static void test_once(void **state)
{
    (void)state;
    char many[4000] = "";
    for (int i = 0; i < 50; i++) /* in many batches, on all threads */
        snprintf(many + strlen(many), sizeof many - strlen(many), "the query: fox %d\n", i);
    assert_int_equal(warnings("query", many), 1);
    assert_int_equal(warnings("query", "fox\n{\"texts\": [\"a\", \"the query: b\"]}\nc\n"), 1);
}

static void test_never(void **state)
{
    (void)state;
    assert_int_equal(warnings("query", "a query: fox\nthe query\n"), 0);
    assert_int_equal(warnings("none", "the query: fox\n"), 0);
    assert_int_equal(warnings("document", "the query: fox\n"), 0); /* it has no such prompt */
    assert_int_equal(warnings("query", "{\"text\": \"the query: fox\", \"prompt\": \"none\"}\n"),
                     0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_once),
        cmocka_unit_test(test_never),
        cmocka_unit_test(test_missing),
    };
    return cmocka_run_group_tests_name("doubled prompts", tests, program_setup, program_teardown);
}
