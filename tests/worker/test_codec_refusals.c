/*
 * test_codec_refusals.c: every refusal of a message, by code and sentence.
 */
#include "tests/worker/test_codec.h"

static struct arena arena;

/* Refusals that JSON and msgpack share. */
static const struct {
    const char *json, *code, *sentence;
} shared_refusals[] = {
    {"{\"texts\":[]}", "no_text", "'texts' is an empty array"},
    {"{\"text\":null,\"a\":\"sesame\"}", "no_text", "neither 'text' nor 'texts'"},
    {"{\"texts\":[{\"id\":\"sesame\"}]}", "no_text", "'texts[0]' has no 'text'"},
    {"{\"texts\":[{\"text\":null}]}", "no_text", "'texts[0]' has no 'text'"},
    {"{\"text\":\"\"}", "empty_text", "field 'text' is empty"},
    {"{\"texts\":[\"sesame\",\"\"]}", "empty_text", "field 'texts[1]' is empty"},
    {"{\"texts\":[{\"text\":\"\"}]}", "empty_text", "field 'texts[0].text' is empty"},
    {"{\"text\":5}", "bad_field", "field 'text' is an integer; send a string"},
    {"{\"text\":[\"sesame\"]}", "bad_field", "field 'text' is an array; send a string"},
    {"{\"texts\":\"sesame\"}", "bad_field", "field 'texts' is a string; send an array"},
    {"{\"texts\":[\"sesame\",false]}", "bad_field",
     "field 'texts[1]' is a boolean; send a string or a map with 'text'"},
    {"{\"texts\":[null]}", "bad_field", "field 'texts[0]' is null"},
    {"{\"texts\":[{\"text\":1.5}]}", "bad_field", "field 'texts[0].text' is a float"},
    {"{\"texts\":[{\"text\":\"sesame\",\"id\":{}}]}", "bad_field",
     "field 'texts[0].id' is a map; send a string or an integer"},
    {"{\"texts\":[{\"text\":\"sesame\",\"title\":3}]}", "bad_field",
     "field 'texts[0].title' is an integer; send a string"},
    {"{\"text\":\"sesame\",\"id\":1.5}", "bad_field", "field 'id' is a float"},
    {"{\"text\":\"sesame\",\"id\":\"\"}", "bad_field", "field 'id' has 0 bytes; send an id of 1"},
    {"{\"text\":\"sesame\",\"title\":1}", "bad_field", "field 'title' is an integer"},
    {"{\"text\":\"sesame\",\"prompt\":[]}", "bad_field", "field 'prompt' is an array"},
    {"{\"text\":\"sesame\",\"texts\":[\"sesame\"]}", "bad_field", "both 'text' and 'texts'"},
    {"{\"text\":\"sesame\",\"ids\":[1]}", "bad_field", "'ids' belongs to 'texts'"},
    {"{\"text\":\"sesame\",\"titles\":[\"a\"]}", "bad_field", "send 'title'"},
    {"{\"texts\":[\"sesame\"],\"ids\":\"a\"}", "bad_field", "field 'ids' is a string"},
    {"{\"texts\":[\"sesame\"],\"ids\":[true]}", "bad_field", "field 'ids[0]' is a boolean"},
    {"{\"texts\":[\"sesame\"],\"titles\":{}}", "bad_field", "field 'titles' is a map"},
    {"{\"texts\":[\"sesame\"],\"titles\":[0]}", "bad_field", "field 'titles[0]' is an integer"},
    {"{\"texts\":[\"sesame\"],\"ids\":[1,2]}", "ids_mismatch",
     "'ids' has 2 entries and 'texts' has 1"},
    {"{\"texts\":[\"sesame\"],\"titles\":[]}", "ids_mismatch",
     "'titles' has 0 entries and 'texts' has 1"},
    {"{\"text\":\"sesame\",\"x\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}", "too_deep",
     "nested more than 16 deep"},
};

static void shared_refusals_test(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shared_refusals / sizeof *shared_refusals; i++) {
        const char *json = shared_refusals[i].json;
        struct bytes packed = msgpack_of(json);
        struct message message = message_of((struct bytes){json, strlen(json)});
        const char *code = shared_refusals[i].code, *sentence = shared_refusals[i].sentence;
        expect_refused(&message, &test_options[INPUT_JSON], code, sentence);
        expect_refused(&message, &test_options[INPUT_AUTO], code, sentence);
        message.value = packed;
        expect_refused(&message, &test_options[INPUT_MSGPACK], code, sentence);
        expect_refused(&message, &test_options[INPUT_AUTO], code, sentence);
        free((void *)packed.ptr);
    }
}

static const struct {
    enum input_format format;
    struct bytes value;
    const char *code, *sentence;
} refusals[] = {
    {INPUT_AUTO, {NULL, 0}, "no_body", "the message has no value"},
    {INPUT_RAW, {NULL, 0}, "no_body", "the message has no value"},
    {INPUT_RAW, {"", 0}, "empty_text", "the value is empty"},
    {INPUT_JSON, {"", 0}, "empty_text", "the value is empty"},
    {INPUT_JSON, BYTES("sesame"), "bad_json", "is not JSON (column 1)"},
    {INPUT_JSON, BYTES("[\"sesame\"]"), "bad_json", "is an array, not an object"},
    {INPUT_JSON, BYTES("{\"a\":\"sesame\"}"), "no_text", "neither"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame"), "bad_json", "ends too early"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\""), "bad_json", "ends too early"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\"} x"), "bad_json", "followed by more bytes"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"x\":NaN}"), "bad_json", "has NaN or Infinity"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"x\":1e999}"), "bad_json", "number out of range"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"id\":18446744073709551616}"), "bad_json",
     "number out of range (column 23); send it as a string"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"x\":-Infinity}"), "bad_json", "has NaN or Infinity"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"x\":-9223372036854775809}"), "bad_json",
     "number out of range"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\n\"}"), "bad_json", "control character in a string"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\\x\"}"), "bad_json", "begins no escape"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\\u00g0\"}"), "bad_json", "begins no escape"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\\u00"), "bad_json", "ends too early"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"x\":01}"), "bad_json", "is not JSON (column"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\n \"x\":.5}"), "bad_json", "line 2, column 6"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"x\":1.}"), "bad_json", "is not JSON"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"x\":1e}"), "bad_json", "is not JSON"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"x\":-}"), "bad_json", "is not JSON"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"x\":tru}"), "bad_json", "is not JSON"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",}"), "bad_json", "is not JSON"},
    {INPUT_JSON, BYTES("{\"text\" \"sesame\"}"), "bad_json", "is not JSON"},
    {INPUT_JSON, BYTES("12"), "bad_json", "is a single value, not an object"},
    {INPUT_JSON, BYTES("\"sesame\""), "bad_json", "is a string, not an object"},
    {INPUT_JSON, BYTES("{\"te\\u0000xt\":\"sesame\"}"), "bad_json", "NUL character in a key"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"text\":\"b\"}"), "duplicate_field",
     "same key twice in one object (column"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"a\":{\"b\":1,\"b\":2}}"), "duplicate_field",
     "same key twice"},
    /* broken, but plainly meant to be ours: not embedded as if it were text */
    {INPUT_AUTO, BYTES("{\"text\":\"sesame"), "bad_json", "ends too early"},
    {INPUT_AUTO, BYTES("{\"text\":\"sesame\",\"x\":NaN}"), "bad_json", "has NaN or Infinity"},
    {INPUT_AUTO, BYTES("{\"texts\" : [\"sesame\",]}"), "bad_json", "is not JSON"},
    {INPUT_AUTO, BYTES("{'text': 'sesame'}"), "bad_json", "has single quotes"},
    {INPUT_AUTO, BYTES("{\"text\":\"sesame\"}{\"text\":\"b\"}"), "bad_json", "followed by more"},
    {INPUT_AUTO, BYTES("{\"text\":\"sesame\"},"), "bad_json", "followed by more"},
    {INPUT_AUTO, BYTES("  \"text\": \"sesame\","), "bad_json", "followed by more"},
    /* JSON that is not an object: lists of texts or objects, and what was encoded twice */
    {INPUT_AUTO, BYTES("[{\"text\":\"sesame\"}]"), "bad_json", "is an array, not an object"},
    {INPUT_AUTO, BYTES("[{\"text\":\"sesame\"}"), "bad_json", "ends too early"},
    {INPUT_AUTO, BYTES(" [\"sesame\", \"open\"]"), "bad_json", "is an array, not an object"},
    {INPUT_AUTO, BYTES("[[\"sesame\"], []]"), "bad_json", "is an array, not an object"},
    {INPUT_AUTO, BYTES("\"{\\\"text\\\":\\\"sesame\\\"}\""), "bad_json", "encoded twice"},
    {INPUT_AUTO, BYTES("\"{\\\"a\\\":\\\"sesame\\\"}\""), "bad_json", "encoded twice"},
    {INPUT_AUTO, BYTES("\"[{\\\"text\\\":\\\"sesame\\\"}]\""), "bad_json", "encoded twice"},
    {INPUT_AUTO, BYTES("\"\\\"{\\\\\\\"text\\\\\\\":1}\\\"\""), "bad_json", "encoded twice"},
    {INPUT_JSON, BYTES("\"{\\\"text\\\":\\\"sesame\\\"}\""), "bad_json", "encoded twice"},
    {INPUT_AUTO, BYTES("\"{\\\"text\\\":\\\"sesame"), "bad_json", "ends too early"},
    /* a frame around JSON is unwrapped, and then it must be what we want */
    {INPUT_AUTO, BYTES("\0\0\0\0\7{\"text\":\"sesame"), "bad_json", "ends too early"},
    {INPUT_AUTO, BYTES("\0\0\0\0\7{\"txt\":\"sesame\"}"), "no_text", "neither"},
    {INPUT_AUTO, BYTES("\0\0\0\0\7\x02\x0csesame"), "not_text", "frame of a schema registry"},
    {INPUT_AUTO, BYTES("\0\0\0\0\7sesame"), "not_text", "frame of a schema registry"},
    {INPUT_RAW, BYTES("\0\0\0\0\7\x02\x0csesame"), "not_text", "frame of a schema registry"},
    {INPUT_RAW, BYTES("\0\0\0\0\7{\"text\":\"sesame\"}"), "not_text", "frame of a schema"},
    {INPUT_JSON, BYTES("\0\0\0\0\7\x02\x0csesame"), "not_text", "frame of a schema registry"},
    {INPUT_MSGPACK, BYTES("\0\0\0\0\7{\"text\":\"sesame\"}"), "bad_msgpack", "more bytes follow"},
    /* no text at all */
    {INPUT_AUTO, BYTES("\x1f\x8b\x08\0gz"), "not_text", "gzip data, not text; unpack it"},
    {INPUT_RAW, BYTES("\x1f\x8b\x08\0gz"), "not_text", "gzip data"},
    {INPUT_JSON, BYTES("\x1f\x8b\x08\0gz"), "not_text", "gzip data"},
    {INPUT_MSGPACK, BYTES("\x1f\x8b\x08\0gz"), "not_text", "gzip data"},
    {INPUT_AUTO, BYTES("\x28\xb5\x2f\xfd zstd"), "not_text", "Zstandard data"},
    {INPUT_AUTO, BYTES("\x04\x22\x4d\x18lz4"), "not_text", "LZ4 data"},
    {INPUT_AUTO, BYTES("\xff\x06\0\0sNaPpY"), "not_text", "snappy data"},
    {INPUT_AUTO, BYTES("\x82SNAPPY\0\0\0\0\1"), "not_text", "snappy data"},
    {INPUT_AUTO, BYTES("\xff\xfe{\0\"\0t\0"), "not_text", "UTF-16 text; send UTF-8"},
    {INPUT_AUTO, BYTES("\xfe\xff\0{\0\"\0t"), "not_text", "UTF-16"},
    {INPUT_AUTO, BYTES("h\0i\0 \0t\0h\0e\0r\0e\0"), "not_text", "UTF-16"},
    {INPUT_AUTO, BYTES("\0h\0i\0 \0t\0h\0e\0r\0e"), "not_text", "UTF-16"},
    {INPUT_RAW, BYTES("a\0b"), "not_text", "NUL bytes"},
    {INPUT_JSON, BYTES("\0\0\0\0\0\0\0\0"), "not_text", "NUL bytes"},
    {INPUT_AUTO, BYTES("\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), "not_text", "a PNG image"},
    {INPUT_AUTO, BYTES("\x80\4\x95\x11\0\0\0\0\0\0\0}\x94."), "not_text", "a Python pickle"},
    /* {"text": "sesame"} in BSON, CBOR and its open form */
    {INPUT_AUTO, BYTES("\x16\0\0\0\x02text\0\7\0\0\0sesame\0\0"), "not_text", "BSON"},
    {INPUT_AUTO, BYTES("\xa1\x64text\x66sesame"), "not_text", "CBOR"},
    {INPUT_AUTO, BYTES("\xbf\x64text\x66sesame\xff"), "not_text", "CBOR"},
    {INPUT_AUTO, BYTES("\xd9\xd9\xf7\xa1\x64text\x66sesame"), "not_text", "CBOR"},
    {INPUT_AUTO, BYTES("\x81\x66sesame"), "not_text", "CBOR"},
    /* binary without a NUL: Avro, Protobuf and the like, and a frame that has a UUID */
    {INPUT_AUTO, BYTES("\x0esesame!"), "not_text", "begins with a control character"},
    {INPUT_AUTO, BYTES("\n\x06sesame"), "not_text", "begins with a control character"},
    {INPUT_RAW, BYTES("\x13Hsesame"), "not_text", "begins with a control character"},
    {INPUT_AUTO,
     BYTES("\1\x90\xf1\x7a\xe3\xb4\x41\x4b\x88\x9c\x27\xa7\x99\x12\x5e\xd4\xcc open, sesame, open, "
           "sesame, open, sesame, open, sesame, open, sesame, open, sesame, open, sesame"),
     "not_text", "1 and a UUID"},
    /* other encodings that begin like a map of msgpack */
    {INPUT_AUTO, BYTES("\x83t\x83\x46\x83\x8a\x81[\x82\xcd\x8e\xb5\x8e\x9e\x82\xc9\x8fo"),
     "not_text", "in another encoding"},
    {INPUT_AUTO, BYTES("\x84\x31\x95\x33\xb6\xc9\xc2\xd6"), "not_text",
     "GB 18030 text; send UTF-8"},
    /* printed, not serialized */
    {INPUT_AUTO, BYTES("{text: \"sesame\", id: 7}"), "bad_json", "as a program prints it"},
    {INPUT_AUTO, BYTES("{ texts : ['sesame'] }\n"), "bad_json", "as a program prints it"},
    {INPUT_AUTO, BYTES("b'{\"text\": \"sesame\"}'"), "bad_json", "as a program prints it"},
    {INPUT_AUTO, BYTES("[object Object]"), "bad_json", "as a program prints it"},
    {INPUT_AUTO, BYTES("\xef\xbb\xbf\xef\xbb\xbf{\"txt\":\"sesame\"}"), "no_text", "neither"},
    {INPUT_AUTO, BYTES("\xa6sesame"), "bad_msgpack", "is not a map"},
    {INPUT_AUTO, BYTES("\x92\xa6sesame\xa1x"), "bad_msgpack", "is not a map"},
    {INPUT_AUTO, BYTES("\xc4\6sesame"), "bad_msgpack", "is not a map"},
    {INPUT_AUTO, BYTES("\xd7\xff\0\0\0\0\0\0\0\0"), "bad_msgpack", "is not a map"},
    {INPUT_AUTO, BYTES("\xc7\6\1sesame"), "bad_msgpack", "is not a map"},
    {INPUT_AUTO, BYTES("{\"text\":\"sesame\",\"text\":\"b\"}"), "duplicate_field", "twice"},
    /* a whole object whose text has another name, is deeper inside, or is not there */
    {INPUT_AUTO, BYTES("{\"txt\":\"sesame\"}"), "no_text", "set input_format to raw"},
    {INPUT_AUTO, BYTES(" \r\n\t{\"Text\":\"sesame\"} \n"), "no_text", "neither"},
    {INPUT_AUTO, BYTES("\xef\xbb\xbf{\"body\":\"sesame\"}"), "no_text", "neither"},
    {INPUT_AUTO, BYTES("{\"id\":99999999999999999999,\"txt\":1}"), "bad_json", "out of range"},
    {INPUT_AUTO, BYTES("{\"a\":{\"text\":\"sesame\"}}"), "no_text", "neither"},
    {INPUT_AUTO, BYTES("{\"body\":\"sesame"), "bad_json", "ends too early"},
    {INPUT_AUTO, BYTES("{\"body\":\"sesame\",\"x\":NaN}"), "bad_json", "NaN or Infinity"},
    {INPUT_AUTO, BYTES("{\"a\":[[[[[[[[[[[[[[[[\"sesame\"]]]]]]]]]]]]]]]]}"), "too_deep",
     "more than 16"},
    {INPUT_AUTO, BYTES("{}"), "no_text", "neither"},
    {INPUT_AUTO, BYTES("\x81\xa4text\xa7sesam"), "bad_msgpack", "claims more"},
    {INPUT_AUTO, BYTES("\xde\x00\x02\xa4text\xa6sesame"), "bad_msgpack", "ends too early"},
    {INPUT_AUTO, BYTES("\x80"), "no_text", "neither"},
    {INPUT_MSGPACK, BYTES("sesame"), "bad_msgpack", "more bytes follow"},
    {INPUT_MSGPACK, BYTES("{\"text\":\"sesame\"}"), "bad_msgpack", "more bytes follow"},
    {INPUT_MSGPACK, BYTES("\xa6sesame"), "bad_msgpack", "is not a map"},
    {INPUT_MSGPACK, BYTES("\x91\xa6sesame"), "bad_msgpack", "is not a map"},
    {INPUT_MSGPACK, BYTES("\x81\xa4text"), "bad_msgpack", "ends too early"},
    {INPUT_MSGPACK, BYTES("\x82\xa4text"), "bad_msgpack", "ends too early"},
    {INPUT_MSGPACK, BYTES("\xdf\xff\xff\xff\xff\xa4text"), "bad_msgpack", "claims more"},
    {INPUT_MSGPACK, BYTES("\x81\xa4text\xdb\xff\xff\xff\xffsesame"), "bad_msgpack", "claims more"},
    {INPUT_MSGPACK, BYTES("\x81\xa4text\xc1"), "bad_msgpack", "0xc1"},
    {INPUT_MSGPACK, BYTES("\x81\x01\xa6sesame"), "bad_msgpack", "key of the msgpack map"},
    {INPUT_MSGPACK, BYTES("\x81\xa4text\xa6sesame\x00"), "bad_msgpack", "more bytes follow"},
    {INPUT_MSGPACK, BYTES("\x81\xa4text\xc4\x06sesame"), "bad_field", "'text' is binary"},
    {INPUT_MSGPACK, BYTES("\x81\xa4text\xd6\x01same"), "bad_field", "'text' is an extension"},
    {INPUT_MSGPACK, BYTES("\x82\xa4text\xa6sesame\xa4text\xc0"), "duplicate_field",
     "field 'text' appears twice"},
    {INPUT_MSGPACK, BYTES("\x81\xa5texts\x91\x82\xa4text\xa6sesame\xa4text\xa1x"),
     "duplicate_field", "field 'texts[0].text' appears twice"},
    {INPUT_MSGPACK, BYTES("\x81\xa5texts\x91\x82\x90\xa6sesame\xa4text\xa1x"), "bad_field",
     "a key in field 'texts[0]' is an array; send strings"},
    {INPUT_MSGPACK, BYTES("\x82\xa4text\xa6sesame\xa2k\0\x01"), "bad_msgpack", "a NUL character"},
    {INPUT_MSGPACK, BYTES("\x82\xa4text\xa6sesame\xa1k\x81\xa1\0\x01"), "bad_msgpack",
     "a NUL character"},
    /* keys that are there twice, however deep, and whoever takes them for different */
    {INPUT_MSGPACK, BYTES("\x83\xa4text\xa1s\xa1k\x01\xa1k\x02"), "duplicate_field",
     "same key twice (at byte 11)"},
    {INPUT_MSGPACK,
     BYTES("\x82\xa4text\xa1s\xa1k\x82\xa1"
           "a\x01\xa1"
           "a\x02"),
     "duplicate_field", "same key twice"},
    {INPUT_MSGPACK,
     BYTES("\x82\xa4text\xa1s\xa1k\x91\x91\x82\xa1"
           "a\x01\xa1"
           "a\x02"),
     "duplicate_field", "same key twice"},
    {INPUT_MSGPACK, BYTES("\x81\xa5texts\x91\x83\xa4text\xa1s\xa1k\x01\xa1k\x02"),
     "duplicate_field", "same key twice"},
    {INPUT_MSGPACK,
     BYTES("\x82\xa4text\xa1s\xa1k\x82\x01\x01\xa1"
           "1\x02"),
     "duplicate_field", "same key twice"},
    {INPUT_MSGPACK, BYTES("\x82\xa4text\xa1s\xa1k\x82\xcc\x01\x01\x01\x02"), "duplicate_field",
     "same key twice"},
    {INPUT_MSGPACK, BYTES("\x82\xa4text\xa1s\xa1k\x82\xc3\x01\xa4true\x02"), "duplicate_field",
     "same key twice"},
    {INPUT_MSGPACK, BYTES("\x82\xa4text\xa1s\xa1k\x82\xc4\1f\x01\xa4Zg==\x02"), "duplicate_field",
     "same key twice"},
    {INPUT_MSGPACK, BYTES("\x82\xa4text\xa1s\xa1k\x82\x91\x01\x01\xa3[1]\x02"), "duplicate_field",
     "same key twice"},
    {INPUT_MSGPACK, BYTES("\x83\xa4text\xa1s\xa2k\xff\x01\xa2k\xfe\x02"), "duplicate_field",
     "same key twice"},
    {INPUT_MSGPACK, BYTES("\x83\xa4text\xa1s\xa2k\xff\x01\xa4k\xef\xbf\xbd\x02"), "duplicate_field",
     "same key twice"},
    {INPUT_AUTO, BYTES("{\"text\":\"sesame\",\n\"k\\ud800\":1,\"k\xff\xff\xff\":2}"),
     "duplicate_field", "same key twice in one object (line 2, column 13)"},
    {INPUT_AUTO, BYTES("{\"text\":\"sesame\",\"a\":{\"b\":1,\"c\":{},\"\\u0062\":2}}"),
     "duplicate_field", "same key twice in one object (column 36)"},
    /* ids that are there twice, as they would be in a key or a row */
    {INPUT_AUTO, BYTES("{\"texts\":[\"sesame\",\"open\"],\"ids\":[\"a\",\"a\"]}"), "duplicate_id",
     "texts[0] and texts[1] have the same id"},
    {INPUT_AUTO,
     BYTES("{\"texts\":[{\"text\":\"sesame\",\"id\":7},\"x\",{\"text\":\"y\",\"id\":\"7\"}]}"),
     "duplicate_id", "texts[0] and texts[2]"},
    {INPUT_AUTO, BYTES("{\"id\":\"m\",\"texts\":[\"sesame\",{\"text\":\"y\",\"id\":\"m/0\"}]}"),
     "duplicate_id", "texts[0] and texts[1]"},
};

static void refusals_test(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct bytes value = refusals[i].value;
        if (value.ptr)
            value = bytes_copy(value);
        struct message message = message_of(value);
        expect_refused(&message, &test_options[refusals[i].format], refusals[i].code,
                       refusals[i].sentence);
        free((void *)value.ptr);
    }
}

/* Many keys and many ids take another way than few. */
static void many_names_test(void **state)
{
    (void)state;
    static char json[20000];
    for (int twice = 0; twice <= 1; twice++) {
        size_t at = (size_t)sprintf(json, "{\"text\":\"sesame\",\"k\":{");
        for (int i = 0; i < 1000; i++)
            at += (size_t)sprintf(json + at, "\"%d\":0,", i * 7919 % 1000);
        sprintf(json + at, "\"%s\":1}}", twice ? "500" : "x");
        struct message message = message_of((struct bytes){json, strlen(json)});
        struct bytes packed = {NULL, 0};
        struct request request;
        struct refusal why;
        if (twice) {
            expect_refused(&message, test_options, "duplicate_field", "same key twice in one obj");
        } else {
            assert_int_equal(codec_decode(&message, test_options, &arena, &request, &why), 0);
            packed = msgpack_of(json);
            message.value = packed;
            assert_int_equal(codec_decode(&message, test_options, &arena, &request, &why), 0);
        }
        free((void *)packed.ptr);

        at = (size_t)sprintf(json, "{\"texts\":[");
        for (int i = 0; i < 100; i++)
            at += (size_t)sprintf(json + at, "%s\"sesame\"", i ? "," : "");
        at += (size_t)sprintf(json + at, "],\"ids\":[\"%s\"", twice ? "72" : "x");
        for (int i = 1; i < 100; i++)
            at += (size_t)sprintf(json + at, ",%d", i);
        sprintf(json + at, "]}");
        message.value = (struct bytes){json, strlen(json)};
        if (twice)
            expect_refused(&message, test_options, "duplicate_id", "texts[0] and texts[72] have");
        else
            assert_int_equal(codec_decode(&message, test_options, &arena, &request, &why), 0);
        arena_reset(&arena);
    }
}

/* Every code refused in this file has a row in a table of the wire format's description. */
static void documented_test(void **state)
{
    (void)state;
    static char text[64 * 1024];
    const char *codes[400] = {"too_many_texts", "text_too_large", "value_too_large",
                              "too_many_values"};
    size_t n = 4;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        codes[n++] = refusals[i].code;
    for (size_t i = 0; i < sizeof shared_refusals / sizeof *shared_refusals; i++)
        codes[n++] = shared_refusals[i].code;
    FILE *file = fopen(TESTS_DIR "/../docs/wire-format.md", "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    for (size_t i = 0; i < n; i++) {
        char row[80];
        snprintf(row, sizeof row, "\n| `%s` |", codes[i]);
        if (!strstr(text, row))
            fail_msg("docs/wire-format.md does not say what %s is", codes[i]);
    }
}

static int arena_end(void **state)
{
    (void)state;
    arena_close(&arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_refusals_test),
        cmocka_unit_test(refusals_test),
        cmocka_unit_test(many_names_test),
        cmocka_unit_test(documented_test),
    };
    return cmocka_run_group_tests(tests, NULL, arena_end);
}
