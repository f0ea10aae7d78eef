/*
 * test_model_file.c: model files that load but are not what they seem, as the program meets them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/program.h"
#include "tests/support/tiny_model.h"

/* Exit code of `embed` on one text with this file; what it said, to be freed. */
static int embed(const char *model, const char *more, char **said, char **written)
{
    static const char input[] = "{\"id\": 1, \"text\": \"the\"}\n";
    char line[400];
    int in = program_scratch(), out = program_scratch(), err = program_scratch();
    assert_int_equal(write(in, input, strlen(input)), strlen(input));
    assert_int_equal(lseek(in, 0, SEEK_SET), 0);
    int out_copy = dup(out);
    snprintf(line, sizeof line, "embed --output-format json --log-level warn --model %s%s", model,
             more);
    int code = program_wait(program_start(line, NULL, in, out, err));
    *written = program_said(out_copy, NULL);
    *said = program_said(err, NULL);
    return code;
}

/* Its vectors are in another space than the model's: used only on request, and then not quietly. */
static void test_without_dense(void **state)
{
    (void)state;
    const struct tiny_model_options options = {.n_layers = 2, .n_ctx = 64, .seed = 1};
    char path[200], *said, *written;
    snprintf(path, sizeof path, "%s/without.gguf", program_folder);
    assert_int_equal(tiny_model_write(path, &options), 0);
    assert_int_equal(embed(path, "", &said, &written), 66);
    assert_non_null(strstr(said, "lacks the model's two dense layers"));
    assert_non_null(strstr(said, "--sentence-transformers-dense-modules"));
    assert_string_equal(written, "");
    free(said);
    free(written);
    assert_int_equal(embed(path, " --missing-dense allow", &said, &written), 0);
    assert_non_null(strstr(said, "not comparable"));
    assert_non_null(strstr(written, "\"embedding\""));
    free(said);
    free(written);
    unlink(path);
}

/* A prompt that the file does not have is said once; one that it has, and the default, are not. */
static void test_no_such_prompt(void **state)
{
    (void)state;
    static const struct {
        const char *option;
        bool warns;
    } cases[] = {{" --prompt clustering", true},
                 {" --prompt query", false},
                 {" --prompt none", false},
                 {"", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *said, *written;
        assert_int_equal(
            embed(TESTS_DIR "/data/models/tiny-xlm-roberta.gguf", cases[i].option, &said, &written),
            0);
        if ((strstr(said, "no such prompt") != NULL) != cases[i].warns)
            fail_msg("'%s': %s", cases[i].option, said);
        free(said);
        free(written);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_such_prompt),
        cmocka_unit_test(test_without_dense),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
