/*
 * test_codec_rows.c: rows for Qdrant, Milvus and pgvector, and the UUIDs of their ids.
 *
 * What the stores themselves make of them is for check_stores.py.
 */
#include "tests/worker/test_codec.h"

#include "worker/codec/uuid.h"

enum { DIM = 4 };

static struct arena arena;
static struct buffer buffer;

static const float vectors[3 * DIM] = {0.1f,  -0.5f, 0.0f, 1e-7f,  -0.25f, 0.5f,
                                       0.75f, 0.0f,  1.0f, -0.125, 0.5f,   -1.0f};
static const struct embed_result results[3] = {{.n_tokens = 5}, {.n_tokens = 6}, {.n_tokens = 7}};

static const struct chunk *chunk; /* what the text is a piece of; NULL: whole */

static const char *encode(enum output_format format, enum output_dtype dtype,
                          const struct message *message)
{
    struct encode_options options = {.format = format,
                                     .model = "m",
                                     .fingerprint = "f",
                                     .dim = DIM,
                                     .dtype = dtype,
                                     .collection = "my \"texts\""};
    struct request request;
    struct refusal why;
    if (codec_decode(message, &test_options[INPUT_AUTO], &arena, &request, &why))
        fail_msg("refused: %s: %s", why.code, why.reason);
    request.items[0].chunk = chunk;
    buffer.len = 0;
    assert_int_equal(codec_encode(&options, &request, message, 0, request.n_items, "document",
                                  vectors, results, &buffer),
                     0);
    static char text[4096];
    assert_true(buffer.len < sizeof text);
    memcpy(text, buffer.ptr, buffer.len);
    text[buffer.len] = '\0';
    assert_int_equal(strlen(text), buffer.len);
    return text;
}

static void expect(enum output_format format, enum output_dtype dtype, const char *json,
                   const char *expected)
{
    struct message message = message_of((struct bytes){json, strlen(json)});
    assert_string_equal(encode(format, dtype, &message), expected);
}

static void qdrant(void **state)
{
    (void)state;
    expect(OUTPUT_QDRANT, DTYPE_F4, "{\"id\":7,\"text\":\"hi\",\"lang\":\"en\",\"n\":{\"a\":[1]}}",
           "{\"collection_name\":\"my \\\"texts\\\"\",\"id\":7,"
           "\"vector\":[0.100000001,-0.5,0.0,1.00000001e-07],"
           "\"payload\":{\"id\":7,\"lang\":\"en\",\"n\":{\"a\":[1]}}}");
    expect(OUTPUT_QDRANT, DTYPE_I1, "{\"id\":\"doc-7\",\"text\":\"hi\"}",
           "{\"collection_name\":\"my \\\"texts\\\"\","
           "\"id\":\"2383dfb5-0434-5b8e-b143-efd4995bdc4b\",\"vector\":[25,-127,0,0],"
           "\"payload\":{\"id\":\"doc-7\"}}");
}

/* What a point is called, and what it was called before. */
static void expect_point(const char *id, const char *point)
{
    char json[1200], expected[1300];
    snprintf(json, sizeof json, "{\"text\":\"hi\",\"id\":%s}", id);
    snprintf(expected, sizeof expected,
             "{\"collection_name\":\"my \\\"texts\\\"\",\"id\":%s,\"vector\":[25,-127,0,0],"
             "\"payload\":{\"id\":%s}}",
             point, id);
    expect(OUTPUT_QDRANT, DTYPE_I1, json, expected);
}

static void point_ids(void **state)
{
    (void)state;
    expect_point("0", "0");
    expect_point("9007199254740992", "9007199254740992");
    expect_point("9007199254740993", "\"14faa7de-9a99-5d33-a1f5-be26f83ad877\"");
    expect_point("-7", "\"bde9e496-392e-59b2-a266-1374bd4edff6\"");
    expect_point("\"7\"", "\"5bd20866-3478-53f7-bc79-d2aae304b443\"");
    expect_point("\"a10435b5-2a58-427a-a3a0-a5d845b147b7\"",
                 "\"a10435b5-2a58-427a-a3a0-a5d845b147b7\"");
    expect_point("\"a10435b5-2a58-427a-a3a0-a5d845b147bg\"",
                 "\"1c752420-e85a-5675-9466-e67557028f68\"");
}

static void milvus(void **state)
{
    (void)state;
    expect(OUTPUT_MILVUS, DTYPE_F2, "{\"id\":\"x\",\"text\":\"hi\",\"lang\":\"en\"}",
           "{\"id\":\"x\",\"vector\":[0.099976,-0.5,0.0,1.1921e-07],\"lang\":\"en\"}");
    /* packed as in every other output, which is what its BinaryVector holds */
    expect(OUTPUT_MILVUS, DTYPE_B1, "{\"id\":1,\"text\":\"hi\"}", "{\"id\":1,\"vector\":[144]}");
}

/* Our own names win over fields that have them. */
static void names_meet(void **state)
{
    (void)state;
    expect(OUTPUT_MILVUS, DTYPE_I1, "{\"id\":1,\"vector\":[7],\"text\":\"hi\",\"b\":2}",
           "{\"id\":1,\"vector\":[25,-127,0,0],\"b\":2}");
    expect(OUTPUT_MILVUS, DTYPE_I1, "{\"vector\":7,\"text\":\"hi\",\"id\":1}",
           "{\"id\":1,\"vector\":[25,-127,0,0]}");
}

static void pgvector(void **state)
{
    (void)state;
    expect(OUTPUT_PGVECTOR, DTYPE_F4, "{\"id\":7,\"text\":\"hi\"}",
           "7,\"[0.100000001,-0.5,0.0,1.00000001e-07]\",\n");
    expect(OUTPUT_PGVECTOR, DTYPE_B1, "{\"id\":\"a,b \\\"c\\\"\\n\\\\d\",\"text\":\"hi\"}",
           "\"a,b \"\"c\"\"\n\\d\",1001,\n");
    expect(OUTPUT_PGVECTOR, DTYPE_I1,
           "{\"id\":\"x\",\"text\":\"hi\",\"a\":\"q\\\"\\\\u0000\\u0000,\\n\",\"b\":[null]}",
           "\"x\",\"[25,-127,0,0]\","
           "\"{\"\"a\"\":\"\"q\\\"\"\\\\u0000\xef\xbf\xbd,\\n\"\",\"\"b\"\":[null]}\"\n");
    struct message message = message_of(BYTES("hi"));
    message.key = BYTES("a\0b\xff");
    assert_string_equal(encode(OUTPUT_PGVECTOR, DTYPE_I1, &message),
                        "\"a\xef\xbf\xbd"
                        "b\xef\xbf\xbd\",\"[25,-127,0,0]\",\n");
}

/* One below the other; who writes JSON to a file ends the last. */
static void many(void **state)
{
    (void)state;
    static const char json[] = "{\"id\":\"m\",\"texts\":[\"a\",\"b\",\"c\"],\"ids\":[1,\"x\",null],"
                               "\"k\":5}";
    expect(OUTPUT_MILVUS, DTYPE_I1, json,
           "{\"id\":1,\"vector\":[25,-127,0,0],\"k\":5}\n"
           "{\"id\":\"x\",\"vector\":[-42,85,127,0],\"k\":5}\n"
           "{\"id\":\"m/2\",\"vector\":[127,-16,64,-127],\"k\":5}");
    expect(OUTPUT_PGVECTOR, DTYPE_B1, json,
           "1,1001,\"{\"\"k\"\":5}\"\n\"x\",0110,\"{\"\"k\"\":5}\"\n"
           "\"m/2\",1010,\"{\"\"k\"\":5}\"\n");
    expect(OUTPUT_MILVUS, DTYPE_I1, "{\"id\":3,\"texts\":[\"a\"]}",
           "{\"id\":\"3/0\",\"vector\":[25,-127,0,0]}");
}

/* Of a piece the four names are ours, of a whole text they are not. */
static void pieces(void **state)
{
    (void)state;
    static const struct chunk of_number = {BYTES("7"), true, 2, 70, 4000000000};
    static const struct chunk of_name = {BYTES("a\0\""), false, 0, 0, 9};
    static const char json[] = "{\"id\":\"x\",\"text\":\"hi\",\"end\":1,\"b\":2}";
    expect(OUTPUT_MILVUS, DTYPE_I1, json,
           "{\"id\":\"x\",\"vector\":[25,-127,0,0],\"end\":1,\"b\":2}");
    chunk = &of_number;
    expect(OUTPUT_MILVUS, DTYPE_I1, json,
           "{\"id\":\"x\",\"vector\":[25,-127,0,0],\"parent\":7,\"chunk\":2,\"start\":70,"
           "\"end\":4000000000,\"b\":2}");
    expect(OUTPUT_QDRANT, DTYPE_I1, "{\"id\":7,\"text\":\"hi\",\"end\":1,\"b\":2}",
           "{\"collection_name\":\"my \\\"texts\\\"\",\"id\":7,\"vector\":[25,-127,0,0],"
           "\"payload\":{\"id\":7,\"parent\":7,\"chunk\":2,\"start\":70,\"end\":4000000000,"
           "\"b\":2}}");
    chunk = &of_name;
    expect(OUTPUT_PGVECTOR, DTYPE_B1, "{\"id\":7,\"text\":\"hi\"}",
           "7,1001,\"{\"\"parent\"\":\"\"a\xef\xbf\xbd\\\"\"\"\",\"\"chunk\"\":0,"
           "\"\"start\"\":0,\"\"end\"\":9}\"\n");
    chunk = NULL;
}

static void formats(void **state)
{
    (void)state;
    assert_false(codec_format_is_rows(OUTPUT_MSGPACK));
    assert_false(codec_format_is_rows(OUTPUT_JSON));
    assert_true(codec_format_is_rows(OUTPUT_QDRANT));
    assert_true(codec_format_is_rows(OUTPUT_PGVECTOR));
    assert_string_equal(codec_format_type(OUTPUT_MSGPACK), "application/msgpack");
    assert_string_equal(codec_format_type(OUTPUT_MILVUS), "application/json");
    assert_string_equal(codec_format_type(OUTPUT_PGVECTOR), "text/csv");
}

/* Lengths around the ends of a block of SHA-1, which begins with 16 bytes of the namespace. */
static void uuids(void **state)
{
    (void)state;
    static const struct {
        size_t len;
        const char *uuid;
    } names[] = {{0, "1b4db7eb-4057-5ddf-91e0-36dec72071f5"},
                 {38, "f3a13bfb-adc6-59a0-8124-fe6edeaca7ea"},
                 {39, "f4eaee1e-e483-528b-88bd-6b8932ab6e2b"},
                 {40, "f562c38a-a8fe-5cdd-b523-6f30cfb54847"},
                 {47, "b18474ae-5fc6-5d04-aa24-a5be94234955"},
                 {48, "8fa6ffa9-9280-5899-a2d8-b082ccdf6380"},
                 {49, "a7ea6783-dd62-55d7-b23b-9acadffca469"},
                 {1024, "a208bc46-f01f-526e-acd4-e6f97d3208a6"}};
    char name[1024], uuid[UUID_TEXT + 1];
    memset(name, 'x', sizeof name);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        uuid_of_name((struct bytes){name, names[i].len}, uuid);
        assert_string_equal(uuid, names[i].uuid);
        assert_true(uuid_is((struct bytes){uuid, UUID_TEXT}));
    }
    uuid_of_name(BYTES("Z\xc3\xbcrich"), uuid);
    assert_string_equal(uuid, "be523577-b853-52f7-a0ee-e5ffaccfb8fd");
    assert_true(uuid_is(BYTES("A10435B5-2a58-427a-a3a0-a5d845b147b7")));
    assert_false(uuid_is(BYTES("a10435b5-2a58-427a-a3a0-a5d845b147b")));
    assert_false(uuid_is(BYTES("a10435b5-2a58-427a-a3a0-a5d845b147b77")));
    assert_false(uuid_is(BYTES("a10435b5+2a58-427a-a3a0-a5d845b147b7")));
    assert_false(uuid_is(BYTES("")));
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
        cmocka_unit_test(qdrant),     cmocka_unit_test(point_ids), cmocka_unit_test(milvus),
        cmocka_unit_test(names_meet), cmocka_unit_test(pgvector),  cmocka_unit_test(many),
        cmocka_unit_test(pieces),     cmocka_unit_test(formats),   cmocka_unit_test(uuids),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
