/*
 * test_codec_encode.c: what goes out, read back by msgpack-c and jansson.
 */
#define _GNU_SOURCE /* memmem */
#include "tests/worker/test_codec.h"

#include <errno.h>
#include <math.h>

enum { DIM = 6 };

static struct arena arena;
static struct buffer buffer;

/* Numbers whose shortest decimal form is easy to get wrong. */
static const float vectors[3 * DIM] = {
    0.1f,  -0.33333334f, 1.17549435e-38f, 1e-45f,     0.0f, -0.0f, 3.4028235e38f, 0.99999994f,
    -1.0f, 16777217.0f,  1e-7f,           0.7071068f, 0.2f, 0.3f,  0.4f,          0.5f,
    0.6f,  0.70000005f,
};
static const struct embed_result results[3] = {
    {.n_tokens = 5}, {.n_tokens = 4000, .truncated = true}, {.n_tokens = 70000}};

static struct encode_options options_of(enum output_format format)
{
    return (struct encode_options){.format = format,
                                   .model = "EmbeddingGemma \"300M\"",
                                   .fingerprint = "0123456789abcdef0123456789abcdef",
                                   .dim = DIM};
}

static struct request request_of(const struct message *message)
{
    struct request request;
    struct refusal why;
    if (codec_decode(message, &test_options[INPUT_AUTO], &arena, &request, &why))
        fail_msg("refused: %s: %s", why.code, why.reason);
    return request;
}

static struct bytes encode(const struct encode_options *options, const struct message *message,
                           size_t first, size_t n)
{
    struct request request = request_of(message);
    buffer.len = 0;
    assert_int_equal(codec_encode(options, &request, message, first, n ? n : request.n_items,
                                  "document", vectors + first * DIM, results + first, &buffer),
                     0);
    return (struct bytes){buffer.ptr, buffer.len};
}

/* The map but for the vectors, whose bytes are compared here; order of keys included. */
static void expect_msgpack(struct bytes output, const float *rows, size_t n, const char *expected)
{
    msgpack_unpacked unpacked;
    size_t used = 0;
    char got[2048];
    int at = 0;
    bool vectors_seen = false;
    msgpack_unpacked_init(&unpacked);
    assert_int_equal(msgpack_unpack_next(&unpacked, output.ptr, output.len, &used),
                     MSGPACK_UNPACK_SUCCESS);
    assert_int_equal(used, output.len);
    assert_int_equal(unpacked.data.type, MSGPACK_OBJECT_MAP);
    for (uint32_t i = 0; i < unpacked.data.via.map.size; i++) {
        const msgpack_object_kv *pair = &unpacked.data.via.map.ptr[i];
        assert_int_equal(pair->key.type, MSGPACK_OBJECT_STR);
        at += snprintf(got + at, sizeof got - at, "%s%.*s=", i ? " " : "",
                       (int)pair->key.via.str.size, pair->key.via.str.ptr);
        if (pair->val.type == MSGPACK_OBJECT_BIN && !vectors_seen && rows) {
            vectors_seen = pair->val.via.bin.size == n * DIM * sizeof(float);
            assert_true(vectors_seen);
            assert_memory_equal(pair->val.via.bin.ptr, rows, n * DIM * sizeof(float));
        } else {
            at += msgpack_object_print_buffer(got + at, sizeof got - at, pair->val);
        }
    }
    assert_true(vectors_seen || !rows);
    msgpack_unpacked_destroy(&unpacked);
    assert_string_equal(got, expected);
}

static void msgpack_one_test(void **state)
{
    (void)state;
    struct encode_options options = options_of(OUTPUT_MSGPACK);
    struct message message = message_of(BYTES("hi"));
    expect_msgpack(encode(&options, &message, 0, 0), vectors, 1,
                   "v=1 id=\"texts 1-0\" model=\"EmbeddingGemma \"300M\"\" "
                   "model_fingerprint=\"0123456789abcdef0123456789abcdef\" prompt=\"document\" "
                   "dim=6 dtype=\"<f4\" embedding= tokens=5 truncated=false source=\"texts 1-0\"");
    options.precision = "fast";
    expect_msgpack(encode(&options, &message, 0, 0), vectors, 1,
                   "v=1 id=\"texts 1-0\" model=\"EmbeddingGemma \"300M\"\" "
                   "model_fingerprint=\"0123456789abcdef0123456789abcdef\" precision=\"fast\" "
                   "prompt=\"document\" dim=6 dtype=\"<f4\" embedding= tokens=5 truncated=false "
                   "source=\"texts 1-0\"");
    options.precision = NULL;
    message.timestamp_ms = 1700000000123;
    message.value = BYTES("{\"id\":-7,\"text\":\"hi\",\"a\":[1,{\"b\":null}],\"c\":0.5}");
    expect_msgpack(encode(&options, &message, 0, 0), vectors, 1,
                   "v=1 id=-7 model=\"EmbeddingGemma \"300M\"\" "
                   "model_fingerprint=\"0123456789abcdef0123456789abcdef\" prompt=\"document\" "
                   "dim=6 dtype=\"<f4\" embedding= tokens=5 truncated=false source=\"texts 1-0\" "
                   "timestamp_ms=1700000000123 fields={\"a\"=>[1, {\"b\"=>nil}], "
                   "\"c\"=>0.500000}");
}

static void msgpack_many_test(void **state)
{
    (void)state;
    struct encode_options options = options_of(OUTPUT_MSGPACK);
    struct message message = message_of(
        BYTES("{\"texts\":[\"a\",\"b\",\"c\"],\"ids\":[\"x\",2,null],\"id\":\"m\",\"k\":1}"));
    expect_msgpack(encode(&options, &message, 0, 0), vectors, 3,
                   "v=1 id=\"m\" ids=[\"x\", 2, \"m/2\"] model=\"EmbeddingGemma \"300M\"\" "
                   "model_fingerprint=\"0123456789abcdef0123456789abcdef\" prompt=\"document\" "
                   "dim=6 dtype=\"<f4\" embedding= tokens=[5, 4000, 70000] "
                   "truncated=[false, true, false] source=\"texts 1-0\" fields={\"k\"=>1}");
    /* one record per text */
    options.per_text = true;
    expect_msgpack(encode(&options, &message, 1, 1), vectors + DIM, 1,
                   "v=1 id=2 model=\"EmbeddingGemma \"300M\"\" "
                   "model_fingerprint=\"0123456789abcdef0123456789abcdef\" prompt=\"document\" "
                   "dim=6 dtype=\"<f4\" embedding= tokens=4000 truncated=true "
                   "source=\"texts 1-0\" fields={\"k\"=>1}");
    /* `texts` of one: an array, unless texts are stored one by one */
    message.value = BYTES("{\"texts\":[\"a\"],\"id\":18}");
    expect_msgpack(encode(&options, &message, 0, 1), vectors, 1,
                   "v=1 id=\"18/0\" model=\"EmbeddingGemma \"300M\"\" "
                   "model_fingerprint=\"0123456789abcdef0123456789abcdef\" prompt=\"document\" "
                   "dim=6 dtype=\"<f4\" embedding= tokens=5 truncated=false source=\"texts 1-0\"");
    options.per_text = false;
    expect_msgpack(encode(&options, &message, 0, 1), vectors, 1,
                   "v=1 id=18 ids=[\"18/0\"] model=\"EmbeddingGemma \"300M\"\" "
                   "model_fingerprint=\"0123456789abcdef0123456789abcdef\" prompt=\"document\" "
                   "dim=6 dtype=\"<f4\" embedding= tokens=[5] truncated=[false] "
                   "source=\"texts 1-0\"");
}

/* Every integer id comes out as it came in; a key that is not UTF-8 comes out as bin. */
static void ids_test(void **state)
{
    (void)state;
    static const char *const numbers[] = {
        "0", "-1", "127", "-129", "9223372036854775807", "-9223372036854775808"};
    struct encode_options options = options_of(OUTPUT_MSGPACK);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char json[80], start[64];
        int len = snprintf(json, sizeof json, "{\"id\":%s,\"text\":\"t\"}", numbers[i]);
        struct message message = message_of((struct bytes){json, len});
        struct bytes output = encode(&options, &message, 0, 0);
        msgpack_unpacked unpacked;
        msgpack_unpacked_init(&unpacked);
        assert_int_equal(msgpack_unpack_next(&unpacked, output.ptr, output.len, NULL),
                         MSGPACK_UNPACK_SUCCESS);
        msgpack_object_print_buffer(start, sizeof start, unpacked.data.via.map.ptr[1].val);
        assert_string_equal(start, numbers[i]);
        msgpack_unpacked_destroy(&unpacked);
    }
    struct message natural =
        message_of(BYTES("\x82\xa2id\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa4text\xa2hi"));
    struct bytes output = encode(&options, &natural, 0, 0);
    assert_memory_equal(output.ptr, "\x8b\xa1v\x01\xa2id\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 15);

    struct message message = message_of(BYTES("hi"));
    message.key = BYTES("\x00\xff\x10");
    output = encode(&options, &message, 0, 0);
    assert_memory_equal(output.ptr, "\x8b\xa1v\x01\xa2id\xc4\x03\x00\xff\x10\xa5model", 17);
    message.key = BYTES("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    output = encode(&options, &message, 0, 0);
    assert_memory_equal(output.ptr, "\x8b\xa1v\x01\xa2id\xa9\xc3\xa9\xe2\x82\xac", 13);
}

static void expect_vector(json_t *array, const float *row)
{
    assert_int_equal(json_array_size(array), DIM);
    for (size_t i = 0; i < DIM; i++) {
        float got = (float)json_number_value(json_array_get(array, i));
        assert_memory_equal(&got, &row[i], sizeof got); /* to the bit, -0 too */
    }
}

static json_t *json_of(struct bytes output)
{
    json_error_t error;
    json_t *root =
        json_loadb(output.ptr, output.len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    if (!root)
        fail_msg("not JSON: %s: %.*s", error.text, (int)output.len, output.ptr);
    assert_null(memchr(output.ptr, '\n', output.len));
    return root;
}

/* Everything but `embedding`, in the order it was written. Both go through this jansson, whose
 * versions print numbers differently. */
static void expect_json(json_t *root, const char *expected)
{
    json_t *wanted = json_loads(expected, 0, NULL);
    assert_non_null(wanted);
    json_object_del(root, "embedding");
    char *got = json_dumps(root, JSON_COMPACT), *want = json_dumps(wanted, JSON_COMPACT);
    assert_string_equal(got, want);
    free(got);
    free(want);
    json_decref(wanted);
    json_decref(root);
}

static void json_test(void **state)
{
    (void)state;
    struct encode_options options = options_of(OUTPUT_JSON);
    struct message message = message_of(BYTES("hi"));
    json_t *root = json_of(encode(&options, &message, 0, 0));
    expect_vector(json_object_get(root, "embedding"), vectors);
    expect_json(root, "{\"v\":1,\"id\":\"texts 1-0\",\"model\":\"EmbeddingGemma \\\"300M\\\"\","
                      "\"model_fingerprint\":\"0123456789abcdef0123456789abcdef\","
                      "\"prompt\":\"document\",\"dim\":6,\"dtype\":\"<f4\",\"tokens\":5,"
                      "\"truncated\":false,\"source\":\"texts 1-0\"}");

    options.precision = "fast";
    root = json_of(encode(&options, &message, 0, 0));
    assert_string_equal(json_string_value(json_object_get(root, "precision")), "fast");
    json_decref(root);
    options.precision = NULL;

    message.timestamp_ms = 0;
    message.value = BYTES("{\"texts\":[\"a\",\"b\",\"c\"],\"ids\":[\"x\",2,null],\"k\":[0.1,1]}");
    root = json_of(encode(&options, &message, 0, 0));
    for (size_t i = 0; i < 3; i++)
        expect_vector(json_array_get(json_object_get(root, "embedding"), i), vectors + i * DIM);
    expect_json(root, "{\"v\":1,\"id\":\"texts 1-0\",\"ids\":[\"x\",2,\"texts 1-0/2\"],"
                      "\"model\":\"EmbeddingGemma \\\"300M\\\"\","
                      "\"model_fingerprint\":\"0123456789abcdef0123456789abcdef\","
                      "\"prompt\":\"document\",\"dim\":6,\"dtype\":\"<f4\","
                      "\"tokens\":[5,4000,70000],\"truncated\":[false,true,false],"
                      "\"source\":\"texts 1-0\",\"timestamp_ms\":0,"
                      "\"fields\":{\"k\":[0.1,1]}}");
    assert_non_null(memmem(buffer.ptr, buffer.len, "\"k\":[0.1,1]", 11)); /* as it was written */
    options.per_text = true;
    root = json_of(encode(&options, &message, 2, 1));
    expect_vector(json_object_get(root, "embedding"), vectors + 2 * DIM);
    json_decref(root);
}

/* What msgpack can say and JSON cannot. */
static const struct {
    struct bytes packed; /* the value, or key and value, after \xa1k */
    const char *json;
} converted[] = {
    {BYTES("\xc4\x00"), "\"k\":\"\""},
    {BYTES("\xc4\x01\x00"), "\"k\":\"AA==\""},
    {BYTES("\xc4\x02\xff\xfe"), "\"k\":\"//4=\""},
    {BYTES("\xc4\x03\x01\x02\x03"), "\"k\":\"AQID\""},
    {BYTES("\xd6\xff\x00\x00\x00\x01"), "\"k\":{\"ext\":-1,\"data\":\"AAAAAQ==\"}"},
    {BYTES("\xca\x7f\xc0\x00\x00"), "\"k\":null"},                 /* NaN */
    {BYTES("\xcb\x7f\xf0\x00\x00\x00\x00\x00\x00"), "\"k\":null"}, /* infinity */
    {BYTES("\xcb\x3f\xd5\x55\x55\x55\x55\x55\x55"), "\"k\":0.33333333333333331"},
    {BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), "\"k\":18446744073709551615"},
    {BYTES("\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), "\"k\":-9223372036854775808"},
    {BYTES("\xa4\x00\x1f\"\\"), "\"k\":\"\\u0000\\u001f\\\"\\\\\""},
    {BYTES("\xa6\n\r\t\b\f\v"), "\"k\":\"\\n\\r\\t\\b\\f\\u000b\""},
    {BYTES("\xa3\xff\xe2\x82"), "\"k\":\"\xef\xbf\xbd\xef\xbf\xbd\""}, /* one for each bad part */
    {BYTES("\xa3\xed\xa0\x80"), "\"k\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* surrogate */
    {BYTES("\xa3\xe0\x80\x80"), "\"k\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* overlong */
    {BYTES("\xa4\xf0\x8f\x80\x80"), "\"k\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
    {BYTES("\xa4\xf4\x90\x80\x80"),
     "\"k\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* above U+10FFFF */
    {BYTES("\xa4\xf4\x8f\xbf\xbf"), "\"k\":\"\xf4\x8f\xbf\xbf\""},
    {BYTES("\x84\x01\x02\xc3\xc0\xc0\xc2\xcb\x3f\xe0\x00\x00\x00\x00\x00\x00\xa1x"),
     "\"k\":{\"1\":2,\"true\":null,\"null\":false,\"0.5\":\"x\"}"},
    {BYTES("\x82\x92\x01\xa1\"\x01\xc4\x01\x00\x02"),
     "\"k\":{\"[1,\\\"\\\\\\\"\\\"]\":1,\"AA==\":2}"},
};

static void json_fields_test(void **state)
{
    (void)state;
    struct encode_options options = options_of(OUTPUT_JSON);
    for (size_t i = 0; i < sizeof converted / sizeof *converted; i++) {
        char value[128] = "\x82\xa4text\xa1t\xa1k";
        size_t len = strlen(value);
        memcpy(value + len, converted[i].packed.ptr, converted[i].packed.len);
        struct message message = message_of((struct bytes){value, len + converted[i].packed.len});
        struct bytes output = encode(&options, &message, 0, 0);
        const char *want = converted[i].json;
        if (!memmem(output.ptr, output.len, want, strlen(want)))
            fail_msg("case %zu: no %s in %.*s", i, want, (int)output.len, output.ptr);
        if (!strstr(want, "18446744073709551615")) /* jansson has no such integer */
            json_decref(json_of(output));
    }
}

/* A key that is written as JSON and then quoted in the same buffer, which has to grow for it. */
static void json_long_key_test(void **state)
{
    (void)state;
    enum { N = 3000 };
    struct encode_options options = options_of(OUTPUT_JSON);
    static char value[2 * N + 64] = "\x82\xa4text\xa1t\xa1k\x81\xdc";
    size_t len = strlen(value);
    value[len++] = (char)(N >> 8);
    value[len++] = (char)(N & 255);
    for (size_t i = 0; i < N; i++, len += 2)
        memcpy(value + len, "\xa1\"", 2);
    value[len++] = 1;
    struct message message = message_of((struct bytes){value, len});
    buffer_close(&buffer); /* so that there is no room yet */
    json_t *root = json_of(encode(&options, &message, 0, 0));
    void *pair = json_object_iter(json_object_get(json_object_get(root, "fields"), "k"));
    const char *key = json_object_iter_key(pair);
    assert_int_equal(strlen(key), 5 * N + 1);
    assert_memory_equal(key, "[\"\\\"\",\"\\\"\",", 11);
    assert_memory_equal(key + 5 * N - 9, "\"\\\"\",\"\\\"\"]", 10);
    json_decref(root);
}

static void json_ids_test(void **state)
{
    (void)state;
    struct encode_options options = options_of(OUTPUT_JSON);
    struct message message = message_of(BYTES("hi"));
    message.key = BYTES("a\"\\\n\x00\xffz");
    message.position = BYTES("st\xc0ream 1-0");
    json_t *root = json_of(encode(&options, &message, 0, 0));
    json_t *id = json_object_get(root, "id");
    assert_int_equal(json_string_length(id), 9);
    assert_memory_equal(json_string_value(id), "a\"\\\n\0\xef\xbf\xbdz", 9);
    assert_string_equal(json_string_value(json_object_get(root, "source")),
                        "st\xef\xbf\xbdream 1-0");
    json_decref(root);
}

/* Whole float32 range by stride: %.9g brings every one back. */
static void json_floats_test(void **state)
{
    (void)state;
    struct encode_options options = options_of(OUTPUT_JSON);
    struct message message = message_of(BYTES("hi"));
    struct request request = request_of(&message);
    for (uint32_t bits = 1; bits < 0x7f800000u - DIM * 99991u;) {
        float row[DIM];
        for (size_t i = 0; i < DIM; i++, bits += 99991)
            memcpy(&row[i], &bits, sizeof bits);
        buffer.len = 0;
        assert_int_equal(
            codec_encode(&options, &request, &message, 0, 1, "none", row, results, &buffer), 0);
        json_t *root = json_of((struct bytes){buffer.ptr, buffer.len});
        expect_vector(json_object_get(root, "embedding"), row);
        json_decref(root);
    }
}

/* Payloads stand one after another in a buffer. */
static void append_test(void **state)
{
    (void)state;
    struct encode_options options = options_of(OUTPUT_MSGPACK);
    struct message message = message_of(BYTES("hi"));
    struct request request = request_of(&message);
    struct buffer many = {0};
    size_t one = encode(&options, &message, 0, 0).len;
    for (size_t i = 1; i <= 100; i++) {
        assert_int_equal(
            codec_encode(&options, &request, &message, 0, 1, "document", vectors, results, &many),
            0);
        assert_int_equal(many.len, i * one);
        assert_memory_equal(many.ptr + (i - 1) * one, buffer.ptr, one);
    }
    buffer_close(&many);
    assert_null(many.ptr);
}

static int end(void **state)
{
    (void)state;
    arena_close(&arena);
    buffer_close(&buffer);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(msgpack_one_test), cmocka_unit_test(msgpack_many_test),
        cmocka_unit_test(ids_test),         cmocka_unit_test(json_test),
        cmocka_unit_test(json_fields_test), cmocka_unit_test(json_long_key_test),
        cmocka_unit_test(json_ids_test),    cmocka_unit_test(json_floats_test),
        cmocka_unit_test(append_test),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
