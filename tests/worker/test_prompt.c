/*
 * test_prompt.c: the strings of the model card, found by every name they go by.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "inference/architecture.h"
#include "worker/codec/prompt.h"

static const struct model_info gemma = {.prompts = gemma_prompts}, bare = {.prompts = NULL};

static struct bytes bytes_or_none(const char *text)
{
    return (struct bytes){text, text ? strlen(text) : 0};
}

static void assert_rendered(const char *name, const char *title, const char *expected)
{
    const struct prompt *prompt = prompt_find(&gemma, bytes_or_none(name));
    if (!prompt)
        fail_msg("no prompt '%s'", name);
    char out[200];
    memset(out, '#', sizeof out);
    size_t len = strlen(expected);
    assert_int_equal(prompt_render(prompt, bytes_or_none(title), bytes_or_none("Mars"), NULL, 0),
                     len);
    assert_int_equal(
        prompt_render(prompt, bytes_or_none(title), bytes_or_none("Mars"), out, sizeof out), len);
    assert_memory_equal(out, expected, len);
    assert_int_equal(out[len], '#'); /* no NUL, nothing beyond */
}

static void test_strings_of_the_model_card(void **state)
{
    (void)state;
    assert_rendered("document", NULL, "title: none | text: Mars");
    assert_rendered("document", "", "title: none | text: Mars");
    assert_rendered("document", "Planets", "title: Planets | text: Mars");
    assert_rendered("query", "Planets", "task: search result | query: Mars");
    assert_rendered("question_answering", NULL, "task: question answering | query: Mars");
    assert_rendered("fact_checking", NULL, "task: fact checking | query: Mars");
    assert_rendered("classification", NULL, "task: classification | query: Mars");
    assert_rendered("clustering", NULL, "task: clustering | query: Mars");
    assert_rendered("sentence_similarity", NULL, "task: sentence similarity | query: Mars");
    assert_rendered("code_retrieval", NULL, "task: code retrieval | query: Mars");
    assert_rendered("summarization", NULL, "task: summarization | query: Mars");
    assert_rendered("none", "Planets", "Mars");
}

/* The table "prompts" of the model's config_sentence_transformers.json. */
static void test_names_of_sentence_transformers(void **state)
{
    (void)state;
    assert_rendered("BitextMining", NULL, "task: search result | query: Mars");
    assert_rendered("Clustering", NULL, "task: clustering | query: Mars");
    assert_rendered("Classification", NULL, "task: classification | query: Mars");
    assert_rendered("InstructionRetrieval", NULL, "task: code retrieval | query: Mars");
    assert_rendered("MultilabelClassification", NULL, "task: classification | query: Mars");
    assert_rendered("PairClassification", NULL, "task: sentence similarity | query: Mars");
    assert_rendered("Reranking", NULL, "task: search result | query: Mars");
    assert_rendered("Retrieval", NULL, "task: search result | query: Mars");
    assert_rendered("Retrieval-query", NULL, "task: search result | query: Mars");
    assert_rendered("Retrieval-document", NULL, "title: none | text: Mars");
    assert_rendered("STS", NULL, "task: sentence similarity | query: Mars");
    assert_rendered("Summarization", NULL, "task: summarization | query: Mars");
}

static void test_spellings(void **state)
{
    (void)state;
    assert_ptr_equal(prompt_find(&gemma, bytes_or_none("code-retrieval")),
                     prompt_find(&gemma, bytes_or_none("code_retrieval")));
    assert_ptr_equal(prompt_find(&gemma, bytes_or_none("QUERY")),
                     prompt_find(&gemma, bytes_or_none("query")));
    assert_null(prompt_find(&gemma, bytes_or_none("")));
    assert_null(prompt_find(&gemma, bytes_or_none(NULL)));
    assert_null(prompt_find(&gemma, bytes_or_none("quer")));
    assert_null(prompt_find(&gemma, bytes_or_none("query ")));
    assert_null(prompt_find(&gemma, (struct bytes){"query\0", 6}));
}

/* A model that was trained without prompts takes texts as they are, under every name there is. */
static void test_model_without_prompts(void **state)
{
    (void)state;
    for (size_t i = 0; gemma_prompts[i].name; i++) {
        const struct prompt *prompt = prompt_find(&bare, bytes_or_none(gemma_prompts[i].name));
        assert_non_null(prompt);
        assert_string_equal(prompt->name, "none");
        assert_int_equal(prompt_render(prompt, bytes_or_none("T"), bytes_or_none("Mars"), NULL, 0),
                         4);
    }
    assert_null(prompt_find(&bare, bytes_or_none("quer")));
    assert_true(prompt_is_known(bytes_or_none("STS")) && !prompt_is_known(bytes_or_none("quer")));
}

/* Every name that help shows is one that works, under that same name. */
static void test_names_are_complete(void **state)
{
    (void)state;
    char names[400];
    snprintf(names, sizeof names, "%s", prompt_names());
    size_t n = 0;
    for (char *name = strtok(names, ", "); name; name = strtok(NULL, ", "), n++) {
        const struct prompt *prompt = prompt_find(&gemma, bytes_or_none(name));
        assert_non_null(prompt);
        assert_string_equal(prompt->name, name);
    }
    assert_int_equal(n, 10);
}

static void test_cut_at_every_size(void **state)
{
    (void)state;
    const char whole[] = "title: Planets | text: Mars";
    const struct prompt *prompt = prompt_find(&gemma, bytes_or_none("document"));
    for (size_t size = 0; size <= sizeof whole; size++) {
        char out[64];
        memset(out, '#', sizeof out);
        assert_int_equal(
            prompt_render(prompt, bytes_or_none("Planets"), bytes_or_none("Mars"), out, size),
            sizeof whole - 1);
        size_t written = size < sizeof whole - 1 ? size : sizeof whole - 1;
        assert_memory_equal(out, whole, written);
        assert_int_equal(out[written], '#');
    }
}

/* A text that has a prompt's words already, of a model with places for titles and of one without.
 */
static void test_doubled(void **state)
{
    (void)state;
    static const struct prompt e5_prompts[] = {
        {"document", "passage: ", NULL}, {"query", "query: ", NULL}, {NULL, NULL, NULL}};
    static const struct model_info e5 = {.prompts = e5_prompts};
    static const struct {
        const struct model_info *info;
        const char *asked, *text, *had;
    } cases[] = {
        {&e5, "query", "query: Mars", "query"},
        {&e5, "query", "query:Mars", "query"},
        {&e5, "query", "query:", "query"},
        {&e5, "query", "passage: Mars", "document"}, /* with the wrong one besides */
        {&e5, "document", "query: Mars", "query"},
        {&e5, "none", "query: Mars", NULL}, /* as it should be */
        {&e5, "query", "query", NULL},
        {&e5, "query", "query Mars", NULL},
        {&e5, "query", "what is query: Mars", NULL},
        {&e5, "query", "", NULL},
        {&gemma, "query", "task: search result | query: Mars", "query"},
        {&gemma, "document", "task: search result | query: Mars", "query"},
        {&gemma, "document", "title: none | text: Mars", "document"},
        {&gemma, "query", "title: Planets | text: Mars", "document"},
        {&gemma, "document", "title: Planets", NULL}, /* a title, and no prompt */
        {&gemma, "document", "title: Planets\ntext: Mars", NULL},
        {&gemma, "none", "title: none | text: Mars", NULL},
        {&bare, "query", "query: Mars", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct model_info *info = cases[i].info;
        const struct prompt *had = prompt_doubled(
            info, prompt_find(info, bytes_or_none(cases[i].asked)), bytes_or_none(cases[i].text));
        const char *name = had ? had->name : NULL;
        if (!name != !cases[i].had || (name && strcmp(name, cases[i].had) != 0))
            fail_msg("'%s' as %s: %s, not %s", cases[i].text, cases[i].asked, name ? name : "none",
                     cases[i].had ? cases[i].had : "none");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strings_of_the_model_card),
        cmocka_unit_test(test_names_of_sentence_transformers),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_model_without_prompts),
        cmocka_unit_test(test_names_are_complete),
        cmocka_unit_test(test_cut_at_every_size),
        cmocka_unit_test(test_doubled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
