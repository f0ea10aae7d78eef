/*
 * test_pipeline_model.c: the pipeline on real sessions of a tiny model. What comes out for a text
 * is, byte for byte, what one session gives for that text alone: whatever its batch, slice, thread
 * and neighbours.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/pipeline_rig.h"
#include "tests/support/tiny_model.h"
#include "worker/codec/prompt.h"

enum { N_TEXTS = 120 };

static char texts[N_TEXTS][200];

static void texts_make(void)
{
    static const char *const words[] = {"the",         "weather",      "in",     "June", "<table>",
                                        "caf\xc3\xa9", "\xe2\x98\x83", "stream", "and",  "again"};
    unsigned random = 7;
    for (size_t i = 0; i < N_TEXTS; i++) {
        size_t at = (size_t)snprintf(texts[i], sizeof texts[i], "%zu", i % 100); /* some twice */
        random = i == 100 ? 7 : random;
        for (size_t n = i % 9; n-- > 0;) {
            random = random * 1103515245 + 12345;
            at += (size_t)snprintf(texts[i] + at, sizeof texts[i] - at, " %s",
                                   words[random / 65536 % 10]);
        }
    }
}

static void assert_embedded_alone(struct session *session, const struct prompt *prompt,
                                  const char *text, const char *vector, size_t dim)
{
    char prompted[400];
    size_t len = prompt_render(prompt, (struct bytes){NULL, 0}, (struct bytes){text, strlen(text)},
                               prompted, sizeof prompted);
    float row[TINY_MODEL_DIM];
    struct embed_result result;
    session_embed(session, &(struct text){prompted, len}, 1, (float *[]){row}, &result);
    assert_int_equal(result.status, 0);
    if (memcmp(vector, row, dim * sizeof *row) != 0)
        fail_msg("the vector of '%s' is not what a session alone gives", text);
}

static void check_dim(const struct model *model, size_t dim)
{
    struct rig rig;
    rig_open(&rig, N_TEXTS);
    for (size_t i = 0; i < N_TEXTS; i++)
        rig.fake.messages[i].value = texts[i];
    rig.fake.script.finite = true;
    rig.fake.script.shuffle = true;
    rig.fake.script.layout = SINK_PER_TEXT;
    rig.model = model;
    rig.options.embedder = NULL;
    rig.options.n_threads = 3;
    rig.options.batch_texts = 32;
    rig.options.session.dim = dim;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_int_equal(rig.stats.texts, N_TEXTS);
    assert_true(rig.stats.tokens > N_TEXTS * 5);

    struct session *session = NULL;
    assert_int_equal(session_open(&session, model, &rig.options.session), 0);
    const struct prompt *prompt = prompt_find(model_info(model), (struct bytes){"document", 8});
    size_t n = dim ? dim : TINY_MODEL_DIM;
    for (size_t i = 0; i < N_TEXTS; i++) {
        const struct fake_message *message = &rig.fake.messages[i];
        assert_int_equal(message->vector_out_len, n * sizeof(float));
        assert_embedded_alone(session, prompt, texts[i], message->vector_out, n);
    }
    session_close(session);
    rig_close(&rig);
}

static void check_policies(const struct model *model)
{
    struct rig rig;
    rig_open(&rig, 3);
    char too_long[2000];
    memset(too_long, 'z', sizeof too_long);
    too_long[sizeof too_long - 1] = '\0';
    rig.fake.messages[0].value = too_long;
    rig.fake.messages[1].value = "not \xff UTF-8";
    rig.fake.messages[2].value = "fine";
    rig.fake.script.finite = true;
    rig.model = model;
    rig.options.embedder = NULL;
    rig.options.decode.format = INPUT_RAW;
    rig.options.session.too_long = TOO_LONG_ERROR;
    rig.options.session.bad_utf8 = BAD_UTF8_ERROR;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_string_equal(rig.fake.messages[0].dead_code, "text_too_long");
    assert_string_equal(rig.fake.messages[1].dead_code, "bad_utf8");
    assert_int_equal(rig.fake.messages[2].n_outputs, 1);
    assert_int_equal(rig.stats.texts, 1);
    rig_close(&rig);
}

static void test_vectors_are_those_of_a_session_alone(void **state)
{
    const struct model *model = *state;
    texts_make();
    check_dim(model, 0);
    check_dim(model, 32);
}

static void test_policies_of_the_session_make_dead_letters(void **state)
{
    check_policies(*state);
}

static int model_make(void **state)
{
    struct tiny_model_options options = TINY_MODEL_DEFAULTS;
    options.n_layers = 7;
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_are_those_of_a_session_alone),
        cmocka_unit_test(test_policies_of_the_session_make_dead_letters),
    };
    return cmocka_run_group_tests(tests, model_make, model_end);
}
