/*
 * test_codec_dtype.c: vectors as float16, int8 and bits.
 */
#define _GNU_SOURCE /* memmem */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/worker/test_codec.h"
#include "worker/codec/codec_internal.h"

static void halves(void **state)
{
    (void)state;
    static const struct {
        float value;
        uint16_t half;
    } known[] = {
        {0, 0},
        {-0.0f, 0x8000},
        {1, 0x3c00},
        {-1, 0xbc00},
        {0.5f, 0x3800},
        {0.1f, 0x2e66},
        {1 + 0x1p-11f, 0x3c00},     /* a tie, to even */
        {1 + 3 * 0x1p-11f, 0x3c02}, /* a tie, to even, upwards */
        {0x1p-14f, 0x0400},         /* least normal */
        {0x1p-14f - 0x1p-26f, 0x0400},
        {0x1p-24f, 0x0001},
        {0x1p-25f, 0},
        {3 * 0x1p-25f, 0x0002},
        {2047.0f / 2048, 0x3bff},
        {4095.0f / 4096, 0x3c00}, /* rounds up into the next power of two */
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint16_t half;
        codec_dtype_pack(DTYPE_F2, &known[i].value, 1, &half);
        assert_int_equal(half, known[i].half);
    }
    for (uint32_t half = 0; half < 0x7c00; half++) { /* each comes back as it was */
        uint16_t again;
        float value = codec_half_value((uint16_t)half);
        if (value > 1)
            break;
        codec_dtype_pack(DTYPE_F2, &value, 1, &again);
        assert_int_equal(again, half);
    }
}

static void bytes_and_bits(void **state)
{
    (void)state;
    const float row[10] = {0.5f, -0.25f, 0.125f, 0, 1e-9f, -0.5f, 0.49f, 0.01f, 0.3f, -0.3f};
    const int8_t bytes[10] = {127, -64, 32, 0, 0, -127, 124, 3, 76, -76};
    const uint8_t bits[2] = {0xab, 0x80}; /* as numpy.packbits of row > 0 */
    char packed[40];
    assert_int_equal(codec_dtype_bytes(DTYPE_F4, 10), 40);
    assert_int_equal(codec_dtype_bytes(DTYPE_F2, 10), 20);
    assert_int_equal(codec_dtype_bytes(DTYPE_I1, 10), 10);
    assert_int_equal(codec_dtype_bytes(DTYPE_B1, 10), 2);
    codec_dtype_pack(DTYPE_F4, row, 10, packed);
    assert_memory_equal(packed, row, 40);
    codec_dtype_pack(DTYPE_I1, row, 10, packed);
    assert_memory_equal(packed, bytes, 10);
    codec_dtype_pack(DTYPE_B1, row, 10, packed);
    assert_memory_equal(packed, bits, 2);
    const float zero[4] = {0};
    codec_dtype_pack(DTYPE_I1, zero, 4, packed);
    assert_memory_equal(packed, "\0\0\0\0", 4);
}

/* One output for two texts of eight values, in JSON. */
static void expect_json(enum output_dtype dtype, const char *wanted)
{
    static const float vectors[16] = {0.5f, -0.5f, 0.5f,     -0.5f,  0,      0, 0, 0,
                                      1,    0,     0.33333f, -0.25f, 0.125f, 0, 0, -1};
    struct item items[2] = {{.id = {"a", 1}}, {.id = {"b", 1}}};
    struct request request = {.items = items, .n_items = 2, .many = true, .id = {"m", 1}};
    struct message message = {.timestamp_ms = -1, .position = {"p", 1}};
    struct embed_result results[2] = {{.n_tokens = 3}, {.n_tokens = 4}};
    struct encode_options options = {
        .format = OUTPUT_JSON, .model = "m", .fingerprint = "f", .dim = 8, .dtype = dtype};
    struct buffer out = {0};
    assert_int_equal(
        codec_encode(&options, &request, &message, 0, 2, "none", vectors, results, &out), 0);
    assert_int_equal(buffer_reserve(&out, 1), 0);
    out.ptr[out.len] = '\0';
    assert_non_null(strstr(out.ptr, wanted));
    buffer_close(&out);
}

static void in_json(void **state)
{
    (void)state;
    expect_json(DTYPE_F2, "\"dtype\":\"<f2\",\"embedding\":[[0.5,-0.5,0.5,-0.5,0.0,0.0,0.0,0.0],"
                          "[1.0,0.0,0.33325,-0.25,0.125,0.0,0.0,-1.0]],");
    expect_json(DTYPE_I1, "\"dtype\":\"|i1\",\"embedding\":[[127,-127,127,-127,0,0,0,0],"
                          "[127,0,42,-32,16,0,0,-127]],");
    expect_json(DTYPE_B1, "\"dtype\":\"bits\",\"embedding\":[[160],[168]],");
}

static void in_msgpack(void **state)
{
    (void)state;
    static const float vectors[16] = {1, -1, 1, 1};
    struct item items[2] = {{.id = {"a", 1}}, {.id = {"b", 1}}};
    struct request request = {.items = items, .n_items = 2, .many = true, .id = {"m", 1}};
    struct message message = {.timestamp_ms = -1, .position = {"p", 1}};
    struct embed_result results[2] = {{.n_tokens = 3}, {.n_tokens = 4}};
    struct encode_options options = {.model = "m", .fingerprint = "f", .dim = 8, .dtype = DTYPE_I1};
    static const char wanted[] = "\xa3|i1\xa9"
                                 "embedding\xc4\x10\x7f\x81\x7f\x7f\0\0\0\0\0\0\0\0\0\0\0\0\xa6"
                                 "tokens";
    struct buffer out = {0};
    assert_int_equal(
        codec_encode(&options, &request, &message, 0, 2, "none", vectors, results, &out), 0);
    assert_non_null(memmem(out.ptr, out.len, wanted, sizeof wanted - 1));
    buffer_close(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves),
        cmocka_unit_test(bytes_and_bits),
        cmocka_unit_test(in_json),
        cmocka_unit_test(in_msgpack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
