/*
 * test_gguf_split.c: a model in several files, as gguf-split and llama.cpp's converter write it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "inference/embed.h"
#include "inference/gguf.h"
#include "tests/support/tiny_model.h"

enum { PARTS = 3, KEYS_AT = 24 };

static char folder[] = "/tmp/embedmill-split-XXXXXX";
static char err[600];
static struct gguf_writer whole;

static int setup(void **state)
{
    (void)state;
    tiny_model_build(&whole, NULL);
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[100];
    gguf_writer_free(&whole);
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static const char *path_of(size_t part, size_t n_parts)
{
    static char paths[4][120];
    static size_t at;
    char *path = paths[at++ % 4];
    snprintf(path, 120, "%s/tiny-%05zu-of-%05zu.gguf", folder, part + 1, n_parts);
    return path;
}

static void key_u16_put(struct gguf_writer *out, const char *name, uint16_t value)
{
    gguf_put_key(out, name, GGUF_U16);
    gguf_put_u16(out, value);
}

/* What a part says of itself. */
struct saying {
    uint16_t number, count;
    uint32_t n_tensors;
};

/* Tensors [first, last) of the whole, and in the first part all its keys. */
static void part_write(const char *path, size_t first, size_t last, struct saying saying)
{
    struct gguf_writer out = {0};
    struct gguf *gguf = NULL;
    uint64_t n_keys = 0, offset = 0;
    const char *name = "token_embd.weight"; /* the first tensor: keys end before it */
    uint8_t *end = memmem(whole.bytes, whole.len, name, strlen(name));
    assert_non_null(end);
    assert_int_equal(gguf_open_memory(&gguf, whole.bytes, whole.len, "whole", err, sizeof err), 0);
    gguf_put_header(&out, 3, last - first, 0);
    if (first == 0) {
        memcpy(&n_keys, whole.bytes + 16, sizeof n_keys);
        gguf_put(&out, whole.bytes + KEYS_AT, (size_t)(end - 8 - whole.bytes) - KEYS_AT);
    }
    key_u16_put(&out, "split.no", saying.number);
    key_u16_put(&out, "split.count", saying.count);
    gguf_put_key(&out, "split.tensors.count", GGUF_I32);
    gguf_put_u32(&out, saying.n_tensors);
    gguf_set_u64(&out, 16, n_keys + 3);
    for (size_t i = first; i < last; i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        char text[80];
        snprintf(text, sizeof text, "%.*s", (int)tensor->name.len, tensor->name.ptr);
        gguf_put_tensor(&out, text, tensor->n_dims, tensor->shape, tensor->type, offset);
        offset += (tensor->size + 31) / 32 * 32;
    }
    gguf_put_padding(&out, 32);
    for (size_t i = first; i < last; i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        gguf_put(&out, tensor->data, tensor->size);
        gguf_put_padding(&out, 32);
    }
    gguf_close(gguf);
    assert_int_equal(gguf_writer_save(&out, path), 0);
    gguf_writer_free(&out);
}

static size_t n_tensors(void)
{
    uint64_t n;
    memcpy(&n, whole.bytes + 8, sizeof n);
    return (size_t)n;
}

/* The whole in PARTS files. */
static void parts_write(void)
{
    size_t n = n_tensors();
    for (size_t i = 0; i < PARTS; i++) {
        const struct saying saying = {(uint16_t)i, PARTS, (uint32_t)n};
        part_write(path_of(i, PARTS), n * i / PARTS, n * (i + 1) / PARTS, saying);
    }
}

static void embed(const char *path, float out[TINY_MODEL_DIM], char fingerprint[33])
{
    struct model *model = NULL;
    struct session *session = NULL;
    const struct session_options options = {0};
    struct embed_result result;
    int rc = model_open(&model, path, NULL, PRECISION_EXACT, err, sizeof err);
    if (rc)
        fail_msg("%d %s", rc, err);
    assert_int_equal(session_open(&session, model, &options), 0);
    session_embed(session, &(struct text){"the heat", 8}, 1, (float *[]){out}, &result);
    assert_int_equal(result.status, 0);
    snprintf(fingerprint, 33, "%s", model_info(model)->fingerprint);
    assert_true(model_info(model)->file_bytes >= whole.len); /* all parts */
    assert_true(model_info(model)->session_bytes > 0);
    session_close(session);
    model_close(model);
}

static void test_parts(void **state)
{
    (void)state;
    char path[120], first[33], second[33];
    float expected[TINY_MODEL_DIM], row[TINY_MODEL_DIM];
    snprintf(path, sizeof path, "%s/whole.gguf", folder);
    assert_int_equal(gguf_writer_save(&whole, path), 0);
    parts_write();
    embed(path, expected, first);
    embed(path_of(0, PARTS), row, second);
    assert_memory_equal(row, expected, sizeof row);
    assert_string_not_equal(first, second); /* another file says other things of itself */
}

static void refused(const char *path, int expected, const char *complaint)
{
    struct gguf *gguf = NULL;
    int rc = gguf_open(&gguf, path, err, sizeof err);
    if (rc != expected || !strstr(err, complaint))
        fail_msg("expected %d '%s', got %d '%s'", expected, complaint, rc, err);
    assert_null(gguf);
}

static void test_damaged_parts(void **state)
{
    (void)state;
    size_t n = n_tensors();
    const struct saying last = {PARTS - 1, PARTS, (uint32_t)n};
    parts_write();
    refused(path_of(1, PARTS), -EINVAL, "not the first part");
    assert_int_equal(unlink(path_of(2, PARTS)), 0);
    refused(path_of(0, PARTS), -EINVAL, "tiny-00003-of-00003.gguf: part 3 of 3 of the model is ");
    /* A file of another place, one with a tensor twice, one with too few. */
    part_write(path_of(2, PARTS), n * 2 / PARTS, n, (struct saying){1, PARTS, (uint32_t)n});
    refused(path_of(0, PARTS), -EINVAL, "another part than its name says");
    part_write(path_of(2, PARTS), n * 2 / PARTS, n, (struct saying){2, 4, (uint32_t)n});
    refused(path_of(0, PARTS), -EINVAL, "another part than its name says");
    part_write(path_of(2, PARTS), n / PARTS, n, last);
    refused(path_of(0, PARTS), -EINVAL, "is in part 2, too");
    part_write(path_of(2, PARTS), n * 2 / PARTS, n - 1, last);
    refused(path_of(0, PARTS), -EINVAL, "fetch all parts again");
}

static void test_names(void **state)
{
    (void)state;
    char other[120];
    parts_write();
    snprintf(other, sizeof other, "%s/model.gguf", folder);
    assert_int_equal(rename(path_of(0, PARTS), other), 0);
    refused(other, -EINVAL, "must be NAME-00001-of-00003.gguf");
    snprintf(other, sizeof other, "%s/tiny-00001-of-00004.gguf", folder);
    part_write(other, 0, n_tensors(), (struct saying){0, 3, 0});
    refused(other, -EINVAL, "must be NAME-00001-of-00003.gguf");
    part_write(other, 0, n_tensors(), (struct saying){0, 65535, 0});
    refused(other, -EINVAL, "65535 parts");
}

/* Split into one: an ordinary file under any name. */
static void test_one_part(void **state)
{
    (void)state;
    char path[120], fingerprint[33];
    float row[TINY_MODEL_DIM];
    snprintf(path, sizeof path, "%s/one.gguf", folder);
    part_write(path, 0, n_tensors(), (struct saying){0, 1, (uint32_t)n_tensors()});
    embed(path, row, fingerprint);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_damaged_parts),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_one_part),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
