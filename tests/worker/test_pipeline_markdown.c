/*
 * test_pipeline_markdown.c: long Markdown through the pipeline, on real sessions of a tiny model:
 * pieces are sections, their vectors know the headings, and where they say they are is the text.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "connectors/utf8.h"
#include "tests/support/pipeline_rig.h"
#include "tests/support/tiny_model.h"
#include "worker/codec/prompt.h"

enum { MAX_TOKENS = 80 }; /* the tiny tokenizer makes about one of each byte */

#define TABLE "| one | two |\n|-----|-----|\n| a | b |\n| c | d |\n"
/* é: characters and bytes are not the same. */
static const char text[] =
    "Caf\xc3\xa9 first.\n\n# Boats\n\nThe ferry leaves at seven.\n\n## Rates\n\n" TABLE
    "\n# Bread\n\nYeast and water and flour.\n\n## Empty\n\n## Rye\n\nRye.\n";

static const struct {
    const char *path, *body;
} pieces[] = {
    {"Doc", "Caf\xc3\xa9 first."},
    {"Doc > Boats", "The ferry leaves at seven."},
    {"Doc > Boats > Rates", "| one | two |\n|-----|-----|\n| a | b |\n| c | d |"},
    {"Doc > Bread", "Yeast and water and flour."},
    {"Doc > Bread", "Empty"}, /* a heading with nothing under it */
    {"Doc > Bread > Rye", "Rye."},
};
enum { N_PIECES = sizeof pieces / sizeof pieces[0] };

static size_t count_chars(const char *from, const char *to)
{
    size_t n = 0;
    for (; from < to; n++)
        from += abs(utf8_next(from, (size_t)(to - from)));
    return n;
}

static void expect_vector(struct session *session, const struct prompt *prompt, const char *title,
                          const char *body, const char *vector)
{
    char prompted[1000];
    struct bytes title_bytes = {title, title ? strlen(title) : 0};
    size_t len = prompt_render(prompt, title_bytes, (struct bytes){body, strlen(body)}, prompted,
                               sizeof prompted);
    float row[TINY_MODEL_DIM];
    struct embed_result result;
    session_embed(session, &(struct text){prompted, len}, 1, (float *[]){row}, &result);
    assert_int_equal(result.status, 0);
    assert_memory_equal(vector, row, sizeof row);
}

static void run_text(struct rig *rig, const struct model *model, const char *prompt)
{
    static char json[2000];
    size_t len = (size_t)snprintf(json, sizeof json, "{\"id\":\"m\",\"title\":\"Doc\",\"text\":\"");
    for (const char *at = text; *at; at++)
        len += (size_t)snprintf(json + len, sizeof json - len, *at == '\n' ? "\\n" : "%c", *at);
    snprintf(json + len, sizeof json - len, "\",\"prompt\":\"%s\"}", prompt);
    rig_open(rig, 1);
    rig->fake.script.finite = true;
    rig->fake.messages[0].value = json;
    rig->model = model;
    rig->options.embedder = NULL;
    rig->options.chunk = (struct chunk_options){true, MAX_TOKENS, 8, true};
    rig->options.session.too_long = TOO_LONG_ERROR;
    rig_start(rig);
    rig_finish(rig, PIPELINE_DRAINED);
    assert_string_equal(rig->fake.messages[0].dead_code, "");
}

/* knows_title: the prompt has a place for the path of headings; else it stands before the text. */
static void check_pieces(const struct model *model, const char *prompt_name, bool knows_title)
{
    struct rig rig;
    struct session *session = NULL;
    struct codec_output output;
    struct refusal why;
    const struct prompt *prompt =
        prompt_find(model_info(model), (struct bytes){prompt_name, strlen(prompt_name)});
    assert_int_equal(prompt->between != NULL, knows_title);
    run_text(&rig, model, prompt_name);
    assert_int_equal(session_open(&session, model, &rig.options.session), 0);
    const struct fake_message *message = &rig.fake.messages[0];
    assert_int_equal(codec_output_read((struct bytes){message->value_out, message->value_out_len},
                                       &output, &why),
                     0);
    assert_int_equal(output.n, N_PIECES);
    const char *at[4];
    memcpy(at, output.chunked, sizeof at);
    for (size_t i = 0; i < N_PIECES; i++) {
        const char *vector = output.vectors + i * TINY_MODEL_DIM * sizeof(float);
        const char *body = strstr(text, pieces[i].body), *path = pieces[i].path;
        struct chunk chunk;
        char number[32], whole[500];
        assert_true(codec_output_chunk(&output, at, number, &chunk));
        assert_int_equal(chunk.number, i);
        assert_int_equal(chunk.start, count_chars(text, body));
        assert_int_equal(chunk.end, count_chars(text, body + strlen(pieces[i].body)));
        const char *headings = strstr(path, " > "); /* without the title, which has no place */
        snprintf(whole, sizeof whole, "%s%s%s", headings ? headings + 3 : "",
                 headings ? "\n\n" : "", pieces[i].body);
        expect_vector(session, prompt, knows_title ? path : NULL,
                      knows_title ? pieces[i].body : whole, vector);
    }
    session_close(session);
    rig_close(&rig);
}

static void test_sections(void **state)
{
    check_pieces(*state, "document", true);
    check_pieces(*state, "none", false);
}

static int model_make(void **state)
{
    struct tiny_model_options options = TINY_MODEL_DEFAULTS;
    options.n_ctx = 256;
    return tiny_model_open((struct model **)state, &options);
}

static int model_end(void **state)
{
    model_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sections)};
    return cmocka_run_group_tests(tests, model_make, model_end);
}
