/*
 * test_models_command.c: `embedmill models`, and --model by short name.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/gguf_writer.h"
#include "tests/support/program.h"
#include "tests/support/tiny_bert.h"
#include "worker/config/catalog.h"

static char cache[200], cached[300], variable[300];

struct result {
    int code;
    char *out, *err;
};

static struct result run(const char *line)
{
    struct result result;
    int in = program_scratch(), out = program_scratch(), err = program_scratch();
    assert_int_equal(write(in, "a b\n", 4), 4);
    lseek(in, 0, SEEK_SET);
    result.code = program_wait(program_start(line, variable, in, dup(out), err));
    result.out = program_said(out, NULL);
    result.err = program_said(err, NULL);
    return result;
}

static void free_result(struct result result)
{
    free(result.out);
    free(result.err);
}

/* The cache holds a tiny model by the name of a published one. */
static int setup(void **state)
{
    if (program_setup(state) != 0)
        return -1;
    struct tiny_bert bert;
    const struct tiny_bert_options options = {.type = GGUF_TENSOR_F32, .pooling = 1, .seed = 9};
    tiny_bert_make(&bert, &options);
    snprintf(cache, sizeof cache, "%s/embedmill", program_folder);
    snprintf(cached, sizeof cached, "%s/bge-small-en-v1.5-q8_0.gguf", cache);
    snprintf(variable, sizeof variable, "XDG_CACHE_HOME=%s", program_folder);
    int rc = mkdir(cache, 0700);
    if (rc == 0)
        rc = gguf_writer_save(&bert.file, cached);
    tiny_bert_free(&bert);
    return rc;
}

static int teardown(void **state)
{
    unlink(cached);
    rmdir(cache);
    return program_teardown(state);
}

static void lists_what_there_is(void **state)
{
    (void)state;
    struct result lines = run("models"), objects = run("models --json");
    assert_int_equal(lines.code, 0);
    assert_non_null(strstr(lines.out, cached));
    assert_non_null(strstr(lines.out, "scripts/get-model --model embeddinggemma-2"));
    size_t n = 0, n_rerankers = 0;
    for (const char *line = objects.out; *line; n++) {
        const char *end = strchr(line, '\n');
        json_t *object = json_loadb(line, (size_t)(end - line), 0, NULL);
        assert_non_null(object);
        const char *name = json_string_value(json_object_get(object, "name"));
        int is_here = json_is_true(json_object_get(object, "cached"));
        assert_int_equal(is_here, strcmp(name, "bge-small-en-v1.5") == 0);
        assert_true(is_here || json_is_string(json_object_get(object, "get")));
        char row[60];
        snprintf(row, sizeof row, "\n%s ", name);
        const char *shown = strstr(lines.out, row);
        assert_non_null(shown);
        const json_t *dim = json_object_get(object, "dim");
        int is_reranker =
            strcmp(json_string_value(json_object_get(object, "kind")), "reranker") == 0;
        n_rerankers += (size_t)is_reranker;
        assert_true(is_reranker ? json_is_null(dim) : json_integer_value(dim) > 0);
        /* The columns: a name of up to 38 characters, a space, 5 for the values of a vector. */
        assert_int_equal(shown[1 + 43] == '-', is_reranker);
        json_decref(object);
        line = end + 1;
    }
    assert_true(n > 10 && n_rerankers > 0 && n_rerankers < n);
    free_result(lines);
    free_result(objects);
}

static void takes_short_names(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int code;
        const char *said;
    } cases[] = {
        {"embed --model bge-small-en-v1.5", 0, ""},
        {"embed --model BGE-small-en-v1.5", 0, ""},
        {"embed --model bge-m3", 66, "run scripts/convert-model.py FOLDER"},
        {"embed --model embeddinggemma-2", 66, "scripts/get-model --model embeddinggemma-2"},
        {"embed --model no-such-name", 66, "`embedmill models` lists"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct result result = run(cases[i].line);
        if (result.code != cases[i].code || !strstr(result.err, cases[i].said))
            fail_msg("%s: %d %s", cases[i].line, result.code, result.err);
        free_result(result);
    }
    struct result result = run("run --model bge-m3 --print-config");
    assert_int_equal(result.code, 0);
    assert_non_null(strstr(result.out, "embedmill/bge-m3-q8_0.gguf"));
    free_result(result);
}

static void names_are_whole(void **state)
{
    (void)state;
    for (const struct catalog_model *model = catalog; model->name; model++) {
        assert_ptr_equal(catalog_find(model->name), model);
        assert_ptr_equal(catalog_of_file(model->file), model);
        assert_memory_equal(model->file, model->name, strlen(model->name));
        assert_null(strchr(model->name, '/'));
        assert_true(model->dim && model->max_tokens && model->megabytes);
    }
    assert_null(catalog_find("none"));
    assert_null(catalog_of_file("/some/where/none.gguf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_what_there_is),
        cmocka_unit_test(takes_short_names),
        cmocka_unit_test(names_are_whole),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
