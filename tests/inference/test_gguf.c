/*
 * test_gguf.c: sound GGUF files are read back as they were written, and the tiny model is sound.
 * What is not sound is in test_gguf_hostile.c.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "inference/gguf.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/tiny_model.h"

static char folder[] = "/tmp/test_gguf.XXXXXX";
static char path[64];

static int folder_make(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/test.gguf", folder);
    return 0;
}

static int folder_remove(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* Ends the test with the reader's own words when the file is refused. */
static struct gguf *open_written(struct gguf_writer *writer)
{
    char err[512] = "";
    struct gguf *gguf = NULL;
    assert_int_equal(gguf_writer_save(writer, path), 0);
    gguf_writer_free(writer);
    int rc = gguf_open(&gguf, path, err, sizeof err);
    if (rc)
        fail_msg("%s", err);
    return gguf;
}

static bool str_is(struct gguf_str str, const char *text)
{
    return str.len == strlen(text) && !memcmp(str.ptr, text, str.len);
}

static void scalars_put(struct gguf_writer *out)
{
    gguf_put_key(out, "u8", GGUF_U8), gguf_put_u8(out, 255);
    gguf_put_key(out, "i8", GGUF_I8), gguf_put_u8(out, 127);
    gguf_put_key(out, "u16", GGUF_U16), gguf_put_u16(out, 65535);
    gguf_put_key(out, "i16", GGUF_I16), gguf_put_u16(out, 32767);
    gguf_put_key(out, "u32", GGUF_U32), gguf_put_u32(out, UINT32_MAX);
    gguf_put_key(out, "i32", GGUF_I32), gguf_put_u32(out, INT32_MAX);
    gguf_put_key(out, "u64", GGUF_U64), gguf_put_u64(out, UINT64_MAX);
    gguf_put_key(out, "i64", GGUF_I64), gguf_put_u64(out, INT64_MAX);
    gguf_put_key(out, "i8 minus", GGUF_I8), gguf_put_u8(out, 0x80);
    gguf_put_key(out, "i16 minus", GGUF_I16), gguf_put_u16(out, 0xffff);
    gguf_put_key(out, "i32 minus", GGUF_I32), gguf_put_u32(out, 0xfffffffe);
    gguf_put_key(out, "i64 minus", GGUF_I64), gguf_put_u64(out, UINT64_MAX);
    gguf_put_key(out, "f32", GGUF_F32), gguf_put_f32(out, 1e-6f);
    gguf_put_key(out, "f64", GGUF_F64), gguf_put_f64(out, -1.0 / 3);
    gguf_put_key(out, "f32 nan", GGUF_F32), gguf_put_u32(out, 0x7fc00000);
    gguf_put_key_bool(out, "yes", 1);
    gguf_put_key_bool(out, "no", 0);
    gguf_put_key_str(out, "str", "Grüße");
    gguf_put_key_str(out, "str empty", "");
}

enum { N_SCALARS = 19 };

static void test_scalars(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    gguf_put_header(&writer, 3, 0, N_SCALARS);
    scalars_put(&writer);
    struct gguf *gguf = open_written(&writer);
    const struct {
        const char *key;
        uint64_t value;
    } whole[] = {{"u8", 255},         {"i8", 127},        {"u16", 65535},      {"i16", 32767},
                 {"u32", UINT32_MAX}, {"i32", INT32_MAX}, {"u64", UINT64_MAX}, {"i64", INT64_MAX}};
    uint64_t number;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        assert_int_equal(gguf_uint(gguf, whole[i].key, &number), 0);
        assert_true(number == whole[i].value);
    }
    const char *const minus[] = {"i8 minus", "i16 minus", "i32 minus", "i64 minus"};
    for (size_t i = 0; i < sizeof minus / sizeof *minus; i++)
        assert_int_equal(gguf_uint(gguf, minus[i], &number), -EINVAL);
    double real;
    assert_int_equal(gguf_float(gguf, "f32", &real), 0);
    assert_true(real == (double)1e-6f);
    assert_int_equal(gguf_float(gguf, "f64", &real), 0);
    assert_true(real == -1.0 / 3);
    assert_int_equal(gguf_float(gguf, "f32 nan", &real), 0);
    assert_true(isnan(real));
    bool flag = false;
    assert_int_equal(gguf_bool(gguf, "yes", &flag), 0);
    assert_true(flag);
    assert_int_equal(gguf_bool(gguf, "no", &flag), 0);
    assert_false(flag);
    struct gguf_str str;
    assert_int_equal(gguf_string(gguf, "str", &str), 0);
    assert_true(str_is(str, "Grüße"));
    assert_int_equal(gguf_string(gguf, "str empty", &str), 0);
    assert_int_equal(str.len, 0);
    gguf_close(gguf);
}

/* A wrong type and a missing key are told apart, and leave the result alone. */
static void test_keys_of_other_type_and_missing(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    gguf_put_header(&writer, 3, 0, 4);
    gguf_put_key_u32(&writer, "number", 1);
    gguf_put_key_str(&writer, "text", "1");
    gguf_put_key_bool(&writer, "flag", 1);
    gguf_put_key_array(&writer, "list", GGUF_STR, 1);
    gguf_put_str(&writer, "1");
    struct gguf *gguf = open_written(&writer);
    uint64_t number = 77;
    double real = 77;
    bool flag = false;
    struct gguf_str str = {.len = 77};
    struct gguf_array array = {.n = 77};
    assert_int_equal(gguf_uint(gguf, "text", &number), -EINVAL);
    assert_int_equal(gguf_uint(gguf, "flag", &number), -EINVAL);
    assert_int_equal(gguf_float(gguf, "number", &real), -EINVAL);
    assert_int_equal(gguf_bool(gguf, "number", &flag), -EINVAL);
    assert_int_equal(gguf_string(gguf, "list", &str), -EINVAL);
    assert_int_equal(gguf_get_array(gguf, "text", &array), -EINVAL);
    const char *const missing[] = {"", "numbe", "number ", "Number", "zzz"};
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        assert_int_equal(gguf_uint(gguf, missing[i], &number), -ENOENT);
        assert_int_equal(gguf_float(gguf, missing[i], &real), -ENOENT);
        assert_int_equal(gguf_bool(gguf, missing[i], &flag), -ENOENT);
        assert_int_equal(gguf_string(gguf, missing[i], &str), -ENOENT);
        assert_int_equal(gguf_get_array(gguf, missing[i], &array), -ENOENT);
    }
    assert_true(number == 77 && real == 77 && !flag && str.len == 77 && array.n == 77);
    gguf_close(gguf);
}

static void test_arrays(void **state)
{
    (void)state;
    static const struct {
        enum gguf_type type;
        size_t size;
    } types[] = {{GGUF_U8, 1},  {GGUF_I8, 1},  {GGUF_U16, 2}, {GGUF_I16, 2},
                 {GGUF_U32, 4}, {GGUF_I32, 4}, {GGUF_F32, 4}, {GGUF_U64, 8},
                 {GGUF_I64, 8}, {GGUF_F64, 8}, {GGUF_BOOL, 1}};
    enum { N_TYPES = sizeof types / sizeof *types, N = 5 };
    struct gguf_writer writer = {0};
    char name[16];
    gguf_put_header(&writer, 3, 0, 2 * N_TYPES);
    for (size_t i = 0; i < N_TYPES; i++) {
        snprintf(name, sizeof name, "full %zu", i);
        gguf_put_key_array(&writer, name, types[i].type, N);
        for (size_t j = 0; j < N * types[i].size; j++)
            gguf_put_u8(&writer, types[i].type == GGUF_BOOL ? j % 2 : (uint8_t)(200 + j));
        snprintf(name, sizeof name, "empty %zu", i);
        gguf_put_key_array(&writer, name, types[i].type, 0);
    }
    struct gguf *gguf = open_written(&writer);
    struct gguf_array array;
    struct gguf_str str;
    size_t at = 0;
    for (size_t i = 0; i < N_TYPES; i++) {
        snprintf(name, sizeof name, "full %zu", i);
        assert_int_equal(gguf_get_array(gguf, name, &array), 0);
        assert_int_equal(array.type, types[i].type);
        assert_int_equal(array.n, N);
        assert_int_equal(array.size, N * types[i].size);
        for (size_t j = 0; j < array.size; j++)
            assert_int_equal(array.data[j], types[i].type == GGUF_BOOL ? j % 2 : 200 + j);
        assert_false(gguf_array_next(&array, &at, &str));
        snprintf(name, sizeof name, "empty %zu", i);
        assert_int_equal(gguf_get_array(gguf, name, &array), 0);
        assert_int_equal(array.type, types[i].type);
        assert_true(array.n == 0 && array.size == 0);
    }
    gguf_close(gguf);
}

static void test_string_arrays(void **state)
{
    (void)state;
    static const char *const texts[] = {"one", "", "\xe2\x96\x81", "four"};
    struct gguf_writer writer = {0};
    gguf_put_header(&writer, 2, 0, 2); /* version 2 has the same layout */
    gguf_put_key_array(&writer, "list", GGUF_STR, 4);
    for (size_t i = 0; i < 4; i++)
        gguf_put_str(&writer, texts[i]);
    gguf_put_key_array(&writer, "none", GGUF_STR, 0);
    struct gguf *gguf = open_written(&writer);
    struct gguf_array array;
    struct gguf_str str;
    size_t at = 0;
    assert_int_equal(gguf_get_array(gguf, "list", &array), 0);
    assert_int_equal(array.n, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_true(gguf_array_next(&array, &at, &str));
        assert_true(str_is(str, texts[i]));
    }
    assert_int_equal(at, array.size);
    assert_false(gguf_array_next(&array, &at, &str));
    at = SIZE_MAX;
    assert_false(gguf_array_next(&array, &at, &str));
    assert_int_equal(gguf_get_array(gguf, "none", &array), 0);
    at = 0;
    assert_false(gguf_array_next(&array, &at, &str));
    gguf_close(gguf);
}

/* The walk does not trust what open has checked: a file written in place may have changed. */
static void test_string_walk_ends_inside(void **state)
{
    (void)state;
    const uint8_t bytes[64] = {[0] = 8, [16] = 1}; /* of a string of 8, then one that is cut off */
    struct gguf_array array = {.type = GGUF_STR, .n = 2, .data = bytes, .size = 24};
    struct gguf_str str;
    size_t at = 0;
    assert_true(gguf_array_next(&array, &at, &str));
    assert_int_equal(at, 16);
    assert_false(gguf_array_next(&array, &at, &str));
    for (at = 17; at < 48; at++) {
        size_t before = at;
        assert_false(gguf_array_next(&array, &at, &str));
        assert_int_equal(at, before);
    }
}

/* Whether the directory ends at the alignment or anywhere before it. */
static void test_tensor_data_after_any_directory(void **state)
{
    (void)state;
    const uint64_t row[] = {1};
    char name[65] = "";
    for (size_t len = 1; len <= 64; len++) {
        struct gguf_writer writer = {0};
        memset(name, 't', len);
        gguf_put_header(&writer, 3, 1, 0);
        gguf_put_tensor(&writer, name, 1, row, GGUF_TENSOR_F32, 0);
        gguf_put_padding(&writer, 32);
        size_t data_at = writer.len;
        gguf_put_u32(&writer, 0x40490fdb);
        struct gguf *gguf = open_written(&writer);
        assert_int_equal(gguf_metadata(gguf).len, data_at);
        assert_memory_equal(gguf_tensor_find(gguf, name)->data, "\xdb\x0f\x49\x40", 4);
        gguf_close(gguf);
    }
}

/* Sizes of one block by type, as gguf-py's constants give them. */
static void test_tensor_sizes(void **state)
{
    (void)state;
    static const struct {
        uint32_t type, n, bytes;
    } blocks[] = {{0, 1, 4},      {1, 1, 2},      {2, 32, 18},    {3, 32, 20},    {6, 32, 22},
                  {7, 32, 24},    {8, 32, 34},    {10, 256, 84},  {11, 256, 110}, {12, 256, 144},
                  {13, 256, 176}, {14, 256, 210}, {16, 256, 66},  {17, 256, 74},  {18, 256, 98},
                  {19, 256, 50},  {20, 32, 18},   {21, 256, 110}, {22, 256, 82},  {23, 256, 136},
                  {24, 1, 1},     {25, 1, 2},     {26, 1, 4},     {27, 1, 8},     {28, 1, 8},
                  {29, 256, 56},  {30, 1, 2},     {34, 256, 54},  {35, 256, 66},  {39, 32, 17},
                  {40, 64, 36},   {41, 128, 18},  {42, 64, 18}};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        const uint64_t shape[] = {3 * blocks[i].n, 5};
        struct gguf_writer writer = {0};
        gguf_put_header(&writer, 3, 1, 0);
        gguf_put_tensor(&writer, "t", 2, shape, blocks[i].type, 0);
        gguf_put_padding(&writer, 32);
        for (size_t j = 0; j < 15 * blocks[i].bytes; j++)
            gguf_put_u8(&writer, 0);
        struct gguf *gguf = open_written(&writer);
        assert_int_equal(gguf_tensor_find(gguf, "t")->size, 15 * blocks[i].bytes);
        assert_non_null(gguf_type_name(blocks[i].type));
        gguf_close(gguf);
    }
}

/* Data may lie in any order, and at a coarser alignment; what is in it arrives untouched. */
static void test_tensors_in_any_order_at_alignment(void **state)
{
    (void)state;
    const uint64_t matrix[] = {64, 2}, row[] = {3}, four[] = {2, 3, 4, 5}, thin[] = {256, 1};
    struct gguf_writer writer = {0};
    gguf_put_header(&writer, 3, 4, 1);
    gguf_put_key_u32(&writer, "general.alignment", 512);
    gguf_put_tensor(&writer, "matrix", 2, matrix, GGUF_TENSOR_Q8_0, 512);
    gguf_put_tensor(&writer, "row", 1, row, GGUF_TENSOR_F32, 0);
    gguf_put_tensor(&writer, "four", 4, four, GGUF_TENSOR_F16, 1024);
    gguf_put_tensor(&writer, "thin", 2, thin, 12 /* Q4_K */, 1536);
    gguf_put_padding(&writer, 512);
    size_t data_at = writer.len;
    for (size_t i = 0; i < 1536 + 144; i++)
        gguf_put_u8(&writer, (uint8_t)(i / 512 + 1));
    size_t size = writer.len;
    struct gguf *gguf = open_written(&writer);
    assert_int_equal(gguf_file_size(gguf), size);
    assert_int_equal(gguf_metadata(gguf).len, data_at);
    assert_memory_equal(gguf_metadata(gguf).ptr, "GGUF", 4);
    assert_int_equal(gguf_n_tensors(gguf), 4);
    static const char *const names[] = {"matrix", "row", "four", "thin"};
    static const size_t sizes[] = {4 * 34, 12, 240, 144}, offsets[] = {512, 0, 1024, 1536};
    for (size_t i = 0; i < 4; i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        assert_true(str_is(tensor->name, names[i]));
        assert_ptr_equal(gguf_tensor_find(gguf, names[i]), tensor);
        assert_int_equal(tensor->size, sizes[i]);
        assert_ptr_equal(tensor->data, gguf_metadata(gguf).ptr + data_at + offsets[i]);
        assert_int_equal((uintptr_t)tensor->data % 512, 0);
        assert_int_equal(*(const uint8_t *)tensor->data, offsets[i] / 512 + 1);
    }
    const struct gguf_tensor *found = gguf_tensor_find(gguf, "matrix");
    assert_int_equal(found->n_dims, 2);
    assert_true(found->shape[0] == 64 && found->shape[1] == 2 && found->shape[2] == 1);
    assert_null(gguf_tensor_find(gguf, "matri"));
    assert_null(gguf_tensor_find(gguf, ""));
    gguf_close(gguf);
}

/* Types without a known size are listed, but give no data to misread. */
static void test_unknown_tensor_type(void **state)
{
    (void)state;
    static const uint32_t types[] = {4, 5, 9, 31, 33, 36, 43, 999, UINT32_MAX};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const uint64_t shape[] = {7};
        struct gguf_writer writer = {0};
        gguf_put_header(&writer, 3, 1, 0);
        gguf_put_tensor(&writer, "strange", 1, shape, types[i], 0);
        gguf_put_padding(&writer, 32);
        gguf_put_u8(&writer, 0);
        struct gguf *gguf = open_written(&writer);
        const struct gguf_tensor *tensor = gguf_tensor_find(gguf, "strange");
        assert_non_null(tensor);
        assert_int_equal(tensor->type, types[i]);
        assert_null(tensor->data);
        assert_int_equal(tensor->size, 0);
        gguf_close(gguf);
    }
}

static uint64_t uint_of(const struct gguf *gguf, const char *key)
{
    uint64_t value;
    if (gguf_uint(gguf, key, &value))
        fail_msg("no number '%s'", key);
    return value;
}

static void test_tiny_model_keys(void **state)
{
    (void)state;
    struct gguf_writer writer = {0};
    tiny_model_build(&writer, NULL);
    struct gguf *gguf = open_written(&writer);
    struct gguf_str str;
    assert_int_equal(gguf_string(gguf, "general.architecture", &str), 0);
    assert_true(str_is(str, "gemma-embedding"));
    assert_int_equal(gguf_string(gguf, "tokenizer.ggml.model", &str), 0);
    assert_true(str_is(str, "llama"));
    assert_int_equal(uint_of(gguf, "gemma-embedding.block_count"), 2);
    assert_int_equal(uint_of(gguf, "gemma-embedding.context_length"), 64);
    assert_int_equal(uint_of(gguf, "gemma-embedding.attention.sliding_window"), 16);
    assert_int_equal(uint_of(gguf, "gemma-embedding.dense_3_feat_out"), 64);
    assert_int_equal(uint_of(gguf, "tokenizer.ggml.bos_token_id"), TINY_MODEL_BOS);
    bool flag = true;
    assert_int_equal(gguf_bool(gguf, "tokenizer.ggml.add_space_prefix", &flag), 0);
    assert_false(flag);
    struct gguf_array tokens, scores, types;
    assert_int_equal(gguf_get_array(gguf, "tokenizer.ggml.tokens", &tokens), 0);
    assert_int_equal(gguf_get_array(gguf, "tokenizer.ggml.scores", &scores), 0);
    assert_int_equal(gguf_get_array(gguf, "tokenizer.ggml.token_type", &types), 0);
    assert_true(tokens.n == tiny_model_n_vocab() && scores.n == tokens.n && types.n == tokens.n);
    assert_true(scores.type == GGUF_F32 && types.type == GGUF_I32);
    size_t at = 0;
    for (uint32_t id = 0; id < tokens.n; id++) {
        assert_true(gguf_array_next(&tokens, &at, &str));
        assert_true(str_is(str, tiny_model_token(id)));
        assert_int_equal(tiny_model_token_id(tiny_model_token(id)),
                         id); /* no text is there twice */
    }
    assert_int_equal(at, tokens.size);
    assert_null(tiny_model_token(tiny_model_n_vocab()));
    gguf_close(gguf);
}

/* A merge nobody can reach would make tokenizer tests weaker than they look. */
static void test_tiny_model_merges_are_reachable(void **state)
{
    (void)state;
    int32_t first = tiny_model_token_id("\xe2\x96\x81\xe2\x96\x81");
    int32_t end = tiny_model_token_id("\xe2\x96\x81");
    assert_true(first > TINY_MODEL_BYTE_0 + 255 && end > first + 36);
    for (int32_t id = first; id < end; id++) {
        const char *text = tiny_model_token((uint32_t)id);
        bool reachable = false;
        for (size_t cut = 1; cut < strlen(text); cut++) {
            char left[32];
            snprintf(left, sizeof left, "%.*s", (int)cut, text);
            int32_t a = tiny_model_token_id(left), b = tiny_model_token_id(text + cut);
            reachable |= a >= 0 && b >= 0 && (a < id || a >= end) && (b < id || b >= end);
        }
        if (!reachable)
            fail_msg("merge '%s' is not made of two earlier pieces", text);
    }
}

static void tensor_expect(const struct gguf *gguf, const char *name, uint64_t columns,
                          uint64_t rows)
{
    const struct gguf_tensor *tensor = gguf_tensor_find(gguf, name);
    if (!tensor)
        fail_msg("no tensor '%s'", name);
    assert_int_equal(tensor->type, rows ? GGUF_TENSOR_Q8_0 : GGUF_TENSOR_F32);
    assert_int_equal(tensor->n_dims, rows ? 2 : 1);
    assert_int_equal(tensor->shape[0], columns);
    assert_int_equal(tensor->shape[1], rows ? rows : 1);
    const uint8_t *data = tensor->data;
    for (uint64_t i = 0; i < columns && rows == 0; i++) {
        float weight;
        memcpy(&weight, data + i * sizeof weight, sizeof weight);
        assert_true(weight >= 0.75f && weight <= 1.25f);
    }
    for (uint64_t i = 0; i < columns / 32 * rows; i++) {
        uint16_t scale;
        memcpy(&scale, data + i * 34, sizeof scale);
        assert_true(scale >= 0x1418 && scale <= 0x191f); /* 0.001 .. 0.0025 as halves */
    }
}

static void test_tiny_model_tensors(void **state)
{
    (void)state;
    struct tiny_model_options options = TINY_MODEL_DEFAULTS;
    options.n_layers = 7;
    struct gguf_writer writer = {0};
    tiny_model_build(&writer, &options);
    struct gguf *gguf = open_written(&writer);
    assert_int_equal(gguf_n_tensors(gguf), 4 + 7 * 13);
    tensor_expect(gguf, "token_embd.weight", 64, tiny_model_n_vocab());
    tensor_expect(gguf, "output_norm.weight", 64, 0);
    tensor_expect(gguf, "dense_2.weight", 64, 128);
    tensor_expect(gguf, "dense_3.weight", 128, 64);
    tensor_expect(gguf, "blk.0.attn_q.weight", 64, 64);
    tensor_expect(gguf, "blk.3.attn_k.weight", 64, 32);
    tensor_expect(gguf, "blk.6.attn_k_norm.weight", 32, 0);
    tensor_expect(gguf, "blk.6.ffn_down.weight", 96, 64);
    tensor_expect(gguf, "blk.6.post_ffw_norm.weight", 64, 0);
    gguf_close(gguf);
}

static void test_tiny_model_options(void **state)
{
    (void)state;
    struct tiny_model_options options = TINY_MODEL_DEFAULTS;
    struct gguf_writer a = {0}, b = {0}, c = {0};
    tiny_model_build(&a, &options);
    tiny_model_build(&b, NULL);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.bytes, b.bytes, a.len);
    options.seed = 2;
    tiny_model_build(&c, &options);
    assert_int_equal(a.len, c.len);
    assert_memory_not_equal(a.bytes, c.bytes, a.len);
    gguf_writer_free(&a);
    gguf_writer_free(&b);
    gguf_writer_free(&c);
    options = (struct tiny_model_options){.n_layers = 1, .n_ctx = 512, .with_dense = false};
    assert_int_equal(tiny_model_write(path, &options), 0);
    char err[256] = "";
    struct gguf *gguf;
    assert_int_equal(gguf_open(&gguf, path, err, sizeof err), 0);
    uint64_t number;
    assert_int_equal(uint_of(gguf, "gemma-embedding.context_length"), 512);
    assert_int_equal(gguf_uint(gguf, "gemma-embedding.dense_2_feat_in", &number), -ENOENT);
    assert_null(gguf_tensor_find(gguf, "dense_2.weight"));
    assert_int_equal(gguf_n_tensors(gguf), 2 + 13);
    gguf_close(gguf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_keys_of_other_type_and_missing),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_string_arrays),
        cmocka_unit_test(test_string_walk_ends_inside),
        cmocka_unit_test(test_tensor_data_after_any_directory),
        cmocka_unit_test(test_tensor_sizes),
        cmocka_unit_test(test_tensors_in_any_order_at_alignment),
        cmocka_unit_test(test_unknown_tensor_type),
        cmocka_unit_test(test_tiny_model_keys),
        cmocka_unit_test(test_tiny_model_merges_are_reachable),
        cmocka_unit_test(test_tiny_model_tensors),
        cmocka_unit_test(test_tiny_model_options),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
