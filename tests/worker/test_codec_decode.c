/*
 * test_codec_decode.c: every form of input, every limit, the precedence of ids. What is refused:
 * test_codec_refusals.c.
 */
#include "tests/worker/test_codec.h"

#include <errno.h>

static struct arena arena;

/* What was understood, as a line: "many id=m prompt=query fields={...} | id [title] text | ...". */
static void request_print(const struct request *request, char *out, size_t size)
{
    int at = snprintf(out, size, "%sid=%.*s%s", request->many ? "many " : "", (int)request->id.len,
                      request->id.ptr, request->id_is_number ? "#" : "");
    if (request->prompt.ptr)
        at += snprintf(out + at, size - at, " prompt=%.*s", (int)request->prompt.len,
                       request->prompt.ptr);
    struct bytes rest = request->fields;
    for (uint32_t i = 0; i < request->n_fields; i++) {
        msgpack_unpacked pair[2];
        for (int half = 0; half < 2; half++) {
            size_t used = 0;
            msgpack_unpacked_init(&pair[half]);
            assert_int_equal(msgpack_unpack_next(&pair[half], rest.ptr, rest.len, &used),
                             MSGPACK_UNPACK_SUCCESS);
            rest = (struct bytes){rest.ptr + used, rest.len - used};
            at += snprintf(out + at, size - at, half ? "=" : " ");
            at += msgpack_object_print_buffer(out + at, size - at, pair[half].data);
            msgpack_unpacked_destroy(&pair[half]);
        }
    }
    assert_int_equal(rest.len, 0);
    for (size_t i = 0; i < request->n_items; i++) {
        const struct item *item = &request->items[i];
        at += snprintf(out + at, size - at, " | %.*s%s", (int)item->id.len, item->id.ptr,
                       item->id_is_number ? "#" : "");
        if (item->title.ptr)
            at += snprintf(out + at, size - at, " [%.*s]", (int)item->title.len, item->title.ptr);
        at += snprintf(out + at, size - at, " %.*s", (int)item->text.len, item->text.ptr);
    }
}

static void expect(const struct message *message, enum input_format format, const char *expected)
{
    struct request request;
    struct refusal why = {.code = "none"};
    char got[4096];
    int err = codec_decode(message, &test_options[format], &arena, &request, &why);
    if (err)
        fail_msg("format %d: refused: %s: %s, expected: %s", format, why.code, why.reason,
                 expected);
    request_print(&request, got, sizeof got);
    assert_string_equal(got, expected);
    arena_reset(&arena);
}

/* The same in JSON and msgpack, asked for and detected. */
static const struct {
    const char *json, *expected;
} forms[] = {
    {"{\"text\":\"hi\"}", "id=texts 1-0 | texts 1-0 hi"},
    {"{\"id\":\"a\",\"text\":\"hi\"}", "id=a | a hi"},
    {"{\"id\":7,\"text\":\"hi\"}", "id=7# | 7# hi"},
    {"{\"id\":-9223372036854775808,\"text\":\"hi\"}",
     "id=-9223372036854775808# | -9223372036854775808# hi"},
    {"{\"id\":null,\"title\":null,\"prompt\":null,\"texts\":null,\"ids\":null,\"text\":\"hi\"}",
     "id=texts 1-0 | texts 1-0 hi"},
    {"{\"text\":\"hi\",\"title\":\"T\",\"prompt\":\"query\"}",
     "id=texts 1-0 prompt=query | texts 1-0 [T] hi"},
    {"{\"title\":\"\",\"text\":\"hi\"}", "id=texts 1-0 | texts 1-0 [] hi"},
    {"{\"a\":1,\"text\":\"hi\",\"b\":[true,null,-2.5],\"id\":\"x\",\"c\":{\"d\":\"e\"}}",
     "id=x \"a\"=1 \"b\"=[true, nil, -2.500000] \"c\"={\"d\"=>\"e\"} | x hi"},
    {"{\"text\":\"hi\",\"a\":9223372036854775807,\"b\":-129,\"c\":1e-3,\"d\":{}}",
     "id=texts 1-0 \"a\"=9223372036854775807 \"b\"=-129 \"c\"=0.001000 \"d\"={} | texts 1-0 hi"},
    {"{\"texts\":[\"one\"]}", "many id=texts 1-0 | texts 1-0/0 one"},
    {"{\"texts\":[\"one\",\"two\"],\"id\":\"m\"}", "many id=m | m/0 one | m/1 two"},
    {"{\"texts\":[\"one\",\"two\"],\"id\":5}", "many id=5# | 5/0 one | 5/1 two"},
    {"{\"texts\":[\"one\",\"two\",\"three\"],\"ids\":[\"a\",8,null],\"id\":\"m\"}",
     "many id=m | a one | 8# two | m/2 three"},
    {"{\"texts\":[\"one\",{\"text\":\"two\",\"id\":9,\"title\":\"T2\",\"lang\":\"en\"}],"
     "\"titles\":[\"T1\",\"no\"],\"ids\":[null,\"no\"],\"k\":\"v\"}",
     "many id=texts 1-0 \"k\"=\"v\" | texts 1-0/0 [T1] one | 9# [T2] two"},
    {"{\"texts\":[\"one\",\"two\"],\"titles\":[null,\"B\"],\"title\":\"all\"}",
     "many id=texts 1-0 | texts 1-0/0 [all] one | texts 1-0/1 [B] two"},
};

static void forms_test(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct bytes json = bytes_copy((struct bytes){forms[i].json, strlen(forms[i].json)});
        struct bytes packed = msgpack_of(forms[i].json);
        struct message message = message_of(json);
        expect(&message, INPUT_JSON, forms[i].expected);
        expect(&message, INPUT_AUTO, forms[i].expected);
        message.value = packed;
        expect(&message, INPUT_MSGPACK, forms[i].expected);
        expect(&message, INPUT_AUTO, forms[i].expected);
        free((void *)json.ptr);
        free((void *)packed.ptr);
    }
}

/* What INPUT_AUTO takes a value for. */
static const struct {
    struct bytes value;
    const char *expected;
} detected[] = {
    {BYTES("plain text"), "id=texts 1-0 | texts 1-0 plain text"},
    {BYTES(" {\r\n\t\"text\" :\"hi\" } \n"), "id=texts 1-0 | texts 1-0 hi"},
    {BYTES("\xef\xbb\xbf{\"text\":\"hi\"}"), "id=texts 1-0 | texts 1-0 hi"},
    {BYTES("{"), "id=texts 1-0 | texts 1-0 {"},
    {BYTES("{\"t\\u0065xt\":\"hi\"}"), "id=texts 1-0 | texts 1-0 hi"},
    {BYTES("{\"a\":1} and more"), "id=texts 1-0 | texts 1-0 {\"a\":1} and more"},
    {BYTES("{ x = 1; }"), "id=texts 1-0 | texts 1-0 { x = 1; }"},
    /* arrays and strings that may as well be prose */
    {BYTES("[1] See below."), "id=texts 1-0 | texts 1-0 [1] See below."},
    {BYTES("[1, 2.5, null]"), "id=texts 1-0 | texts 1-0 [1, 2.5, null]"},
    {BYTES("[\"a\", said he"), "id=texts 1-0 | texts 1-0 [\"a\", said he"},
    {BYTES("\"To be or not to be\""), "id=texts 1-0 | texts 1-0 \"To be or not to be\""},
    {BYTES("\"{\""), "id=texts 1-0 | texts 1-0 \"{\""},
    /* one value of a sequence, RFC 7464 */
    {BYTES("\x1e{\"text\":\"hi\"}\n"), "id=texts 1-0 | texts 1-0 hi"},
    /* the frames of schema registries around JSON */
    {BYTES("\0\0\0\0\7{\"text\":\"hi\"}"), "id=texts 1-0 | texts 1-0 hi"},
    {BYTES("\0\x12\x34\x56\x78 {\"text\":\"hi\"}"), "id=texts 1-0 | texts 1-0 hi"},
    {BYTES("\0\0\0\0\0\0\0\0\7{\"id\":1,\"text\":\"hi\"}"), "id=1# | 1# hi"},
    {BYTES("\1"
           "0123456789abcdef{\"text\":\"hi\"}"),
     "id=texts 1-0 | texts 1-0 hi"},
    {BYTES("\3\0"
           "0123456789abcdef{\"text\":\"hi\"}"),
     "id=texts 1-0 | texts 1-0 hi"},
    /* not UTF-8, and of no other format: bad_utf8 judges it */
    {BYTES("F\xe4hre"), "id=texts 1-0 | texts 1-0 F\xe4hre"},
    {BYTES("\xa7 823 I"), "id=texts 1-0 | texts 1-0 \xa7 823 I"},
    {BYTES("{broken"), "id=texts 1-0 | texts 1-0 {broken"},
    {BYTES("if (x) { \"text\": y }"), "id=texts 1-0 | texts 1-0 if (x) { \"text\": y }"},
    /* Thaana begins with 0xde, the head of a msgpack map */
    {BYTES("\xde\x8b\xde\xa8"), "id=texts 1-0 | texts 1-0 \xde\x8b\xde\xa8"},
    {BYTES("\xdf\x80"), "id=texts 1-0 | texts 1-0 \xdf\x80"},
    {BYTES("\xde\x00\x01\xa4text\xa2hi"), "id=texts 1-0 | texts 1-0 hi"},
    {BYTES("\xdf\x00\x00\x00\x01\xa4text\xa2hi"), "id=texts 1-0 | texts 1-0 hi"},
};

static void auto_test(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof detected / sizeof *detected; i++) {
        struct bytes value = bytes_copy(detected[i].value);
        struct message message = message_of(value);
        expect(&message, INPUT_AUTO, detected[i].expected);
        free((void *)value.ptr);
    }
}

static void raw_test(void **state)
{
    (void)state;
    struct message message = message_of(BYTES("{\"text\":\"hi\"}"));
    expect(&message, INPUT_RAW, "id=texts 1-0 | texts 1-0 {\"text\":\"hi\"}");
    message.value = BYTES("\x81\xa4text\xa2hi");
    expect(&message, INPUT_RAW, "id=texts 1-0 | texts 1-0 \x81\xa4text\xa2hi");

    struct request request;
    struct refusal why;
    message.value = BYTES("a b");
    assert_int_equal(codec_decode(&message, test_options, &arena, &request, &why), 0);
    assert_int_equal(request.items[0].text.len, 3);
    assert_ptr_equal(request.items[0].text.ptr, message.value.ptr); /* borrowed, not copied */
    message.value = BYTES("{\"text\":\"a\\u0000b\"}");
    assert_int_equal(codec_decode(&message, test_options, &arena, &request, &why), 0);
    assert_int_equal(request.items[0].text.len, 3);
    assert_memory_equal(request.items[0].text.ptr, "a\0b", 3);
    arena_reset(&arena);
}

/* Integers above 2^63, in both. */
static void natural_test(void **state)
{
    (void)state;
    static const struct bytes values[] = {
        BYTES("\x83\xa2id\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa4text\xa2hi\xa1n"
              "\xcf\x80\x00\x00\x00\x00\x00\x00\x00"),
        BYTES("{\"id\":18446744073709551615,\"text\":\"hi\",\"n\":9223372036854775808}"),
    };
    for (size_t i = 0; i < 2; i++) {
        struct message message = message_of(values[i]);
        expect(&message, INPUT_AUTO,
               "id=18446744073709551615# \"n\"=9223372036854775808 | 18446744073709551615# hi");
    }
}

/* What is not UTF-8 is the same in JSON and in msgpack: texts and ids pass, fields are repaired or
 * refused. */
static void bad_utf8_test(void **state)
{
    (void)state;
    static const struct bytes values[][2] = {
        {BYTES("{\"text\":\"hi \\ud83d\"}"), BYTES("\x81\xa4text\xa6hi \xed\xa0\xbd")},
        {BYTES("{\"text\":\"hi F\xe4hre\"}"), BYTES("\x81\xa4text\xa8hi F\xe4hre")},
        {BYTES("{\"text\":\"hi \\udc80\\ud83d\\ud83d\\udea2\"}"),
         BYTES("\x81\xa4text\xadhi \xed\xb2\x80\xed\xa0\xbd\xf0\x9f\x9a\xa2")},
        {BYTES("{\"text\":\"hi\",\"id\":\"\xff\"}"), BYTES("\x82\xa4text\xa2hi\xa2id\xa1\xff")},
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct request requests[2];
        struct refusal why;
        for (int form = 0; form < 2; form++) {
            struct message message = message_of(values[i][form]);
            const struct decode_options options = {.format = INPUT_AUTO,
                                                   .max_texts = 100,
                                                   .max_text_bytes = 1000,
                                                   .refuse_bad_utf8 = i % 2};
            assert_int_equal(codec_decode(&message, &options, &arena, &requests[form], &why), 0);
        }
        assert_int_equal(requests[0].items[0].text.len, requests[1].items[0].text.len);
        assert_memory_equal(requests[0].items[0].text.ptr, requests[1].items[0].text.ptr,
                            requests[0].items[0].text.len);
        assert_int_equal(requests[0].id.len, requests[1].id.len);
        assert_memory_equal(requests[0].id.ptr, requests[1].id.ptr, requests[0].id.len);
        arena_reset(&arena);
    }
    static const struct bytes fields[] = {
        BYTES("{\"text\":\"hi\",\"a\":\"x\\ud83dy\",\"b\\udc00\":[{\"c\":\"\xe4\"}]}"),
        BYTES("\x83\xa4text\xa2hi\xa1"
              "a\xa5x\xed\xa0\xbdy\xa4"
              "b\xed\xb0\x80\x91\x81\xa1"
              "c\xa1\xe4"),
    };
    static const struct decode_options strict = {
        .format = INPUT_AUTO, .max_texts = 100, .max_text_bytes = 1000, .refuse_bad_utf8 = true};
    for (size_t i = 0; i < 2; i++) {
        struct message message = message_of(fields[i]);
        struct request request;
        struct refusal why;
        assert_int_equal(codec_decode(&message, test_options, &arena, &request, &why), 0);
        static const char repaired[] = "\xa1"
                                       "a\xd9\x0bx\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdy"
                                       "\xd9\x0a"
                                       "b\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\x91\x81\xa1"
                                       "c\xd9\x03\xef\xbf\xbd";
        assert_int_equal(request.n_fields, 2);
        assert_int_equal(request.fields.len, sizeof repaired - 1);
        assert_memory_equal(request.fields.ptr, repaired, sizeof repaired - 1);
        expect_refused(&message, &strict, "bad_utf8", "a field beside the texts is not UTF-8");
    }
}

static void precedence_test(void **state)
{
    (void)state;
    const struct header headers[] = {
        {BYTES("id"), BYTES("old")},    {BYTES("title"), BYTES("HT")},
        {BYTES("prompt"), BYTES("HP")}, {BYTES("id"), BYTES("new")},
        {BYTES("id"), {NULL, 0}},       {BYTES("id "), BYTES("other name")},
    };
    struct message message = message_of(BYTES("hi"));
    message.headers = headers;
    message.n_headers = sizeof headers / sizeof *headers;
    message.key = BYTES("K");
    expect(&message, INPUT_AUTO, "id=new prompt=HP | new [HT] hi");
    message.value = BYTES("{\"text\":\"hi\"}");
    expect(&message, INPUT_AUTO, "id=new prompt=HP | new [HT] hi");
    message.value = BYTES("{\"text\":\"hi\",\"id\":1,\"title\":\"T\",\"prompt\":\"P\"}");
    expect(&message, INPUT_AUTO, "id=1# prompt=P | 1# [T] hi");
    message.n_headers = 0;
    expect(&message, INPUT_AUTO, "id=1# prompt=P | 1# [T] hi");
    message.value = BYTES("hi");
    expect(&message, INPUT_AUTO, "id=K | K hi");
    message.value = BYTES("{\"texts\":[\"a\",\"b\"]}");
    expect(&message, INPUT_AUTO, "many id=K | K/0 a | K/1 b");
    message.key = (struct bytes){NULL, 0};
    expect(&message, INPUT_AUTO, "many id=texts 1-0 | texts 1-0/0 a | texts 1-0/1 b");
}

/* A message of n texts "x". Free .ptr. */
static struct bytes many_of(size_t n, bool as_json)
{
    json_t *texts = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(texts, json_string("x"));
    json_t *root = json_pack("{s:o}", "texts", texts);
    char *json = json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (as_json)
        return (struct bytes){json, strlen(json)};
    struct bytes packed = msgpack_of(json);
    free(json);
    return packed;
}

static void max_texts_test(void **state)
{
    (void)state;
    for (int format = INPUT_JSON; format <= INPUT_MSGPACK; format++) {
        struct bytes fits = many_of(100, format == INPUT_JSON);
        struct bytes more = many_of(101, format == INPUT_JSON);
        struct message message = message_of(fits);
        struct request request;
        struct refusal why;
        assert_int_equal(codec_decode(&message, &test_options[format], &arena, &request, &why), 0);
        assert_int_equal(request.n_items, 100);
        message.value = more;
        expect_refused(&message, &test_options[format], "too_many_texts",
                       "'texts' has 101 entries and the limit is 100");
        expect_refused(&message, &test_options[INPUT_AUTO], "too_many_texts", "101");
        free((void *)fits.ptr);
        free((void *)more.ptr);
    }
    /* however large the option */
    struct bytes value = many_of(CODEC_TEXTS_MAX + 1, false);
    struct message message = message_of(value);
    const struct decode_options options = {
        .format = INPUT_MSGPACK, .max_texts = SIZE_MAX, .max_text_bytes = 10};
    expect_refused(&message, &options, "too_many_texts", "65537 entries and the limit is 65536");
    free((void *)value.ptr);
}

static void text_bytes_test(void **state)
{
    (void)state;
    char text[1001], json[1100];
    memset(text, 'x', sizeof text);
    for (int more = 0; more <= 1; more++) {
        int len = snprintf(json, sizeof json, "{\"text\":\"%.*s\"}", 1000 + more, text);
        struct bytes packed = msgpack_of(json);
        const struct bytes values[] = {{text, 1000 + more}, {json, len}, packed};
        for (int i = 0; i < 3; i++) {
            struct message message = message_of(values[i]);
            struct request request;
            struct refusal why;
            if (more)
                expect_refused(&message, test_options, "text_too_large",
                               "1001 bytes and the limit is 1000");
            else
                assert_int_equal(codec_decode(&message, test_options, &arena, &request, &why), 0);
        }
        free((void *)packed.ptr);
    }
}

/* Too long an id is refused wherever it comes from; the longest is not. */
static void id_bytes_test(void **state)
{
    (void)state;
    char id[CODEC_ID_BYTES_MAX + 1], json[1200];
    memset(id, 'i', sizeof id);
    for (int more = 0; more <= 1; more++) {
        const struct bytes long_id = {id, CODEC_ID_BYTES_MAX + more};
        const struct header header = {BYTES("id"), long_id};
        int len =
            snprintf(json, sizeof json, "{\"text\":\"hi\",\"id\":\"%.*s\"}", (int)long_id.len, id);
        struct message messages[3] = {message_of((struct bytes){json, len}),
                                      message_of(BYTES("hi")), message_of(BYTES("hi"))};
        messages[1].headers = &header;
        messages[1].n_headers = 1;
        messages[2].key = long_id;
        const char *from[] = {"'id' has 1025", "header 'id' has 1025", "key of the message has"};
        for (int i = 0; i < 3; i++) {
            struct request request;
            struct refusal why;
            if (more) {
                expect_refused(&messages[i], test_options, "bad_field", from[i]);
            } else {
                assert_int_equal(codec_decode(&messages[i], test_options, &arena, &request, &why),
                                 0);
                assert_int_equal(request.id.len, CODEC_ID_BYTES_MAX);
            }
        }
    }
}

static void value_size_test(void **state)
{
    (void)state;
    char *value = calloc(1, CODEC_VALUE_BYTES_MAX + 1);
    assert_non_null(value);
    value[0] = '{';
    struct message message = message_of((struct bytes){value, CODEC_VALUE_BYTES_MAX + 1});
    expect_refused(&message, &test_options[INPUT_MSGPACK], "value_too_large", "67108865 bytes");
    expect_refused(&message, &test_options[INPUT_JSON], "value_too_large", "67108865 bytes");
    free(value);
    const size_t len = 200000;
    char *numbers = malloc(len);
    assert_non_null(numbers);
    for (size_t i = 0; i < len; i++)
        numbers[i] = i % 2 ? '0' : ',';
    memcpy(numbers, "{\"text\":\"sesame\", \"x\":[", 23);
    memcpy(numbers + len - 2, "]}", 2);
    message.value = (struct bytes){numbers, len};
    expect_refused(&message, test_options, "too_many_values", "than the limit is, 67136");
    free(numbers);
}

static void depth_test(void **state)
{
    (void)state;
    struct message message = message_of(BYTES("{\"text\":\"hi\",\"x\":[[[[[[[1]]]]]]]}"));
    expect(&message, INPUT_AUTO, "id=texts 1-0 \"x\"=[[[[[[[1]]]]]]] | texts 1-0 hi");
    struct bytes packed = msgpack_of(message.value.ptr);
    message.value = packed;
    expect(&message, INPUT_AUTO, "id=texts 1-0 \"x\"=[[[[[[[1]]]]]]] | texts 1-0 hi");
    free((void *)packed.ptr);
    /* braces inside strings are not nesting */
    message.value = BYTES("{\"text\":\"[[[[[[[[[[\\\"[[[[\"}");
    expect(&message, INPUT_JSON, "id=texts 1-0 | texts 1-0 [[[[[[[[[[\"[[[[");
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
        cmocka_unit_test(forms_test),     cmocka_unit_test(auto_test),
        cmocka_unit_test(raw_test),       cmocka_unit_test(natural_test),
        cmocka_unit_test(bad_utf8_test),  cmocka_unit_test(precedence_test),
        cmocka_unit_test(max_texts_test), cmocka_unit_test(text_bytes_test),
        cmocka_unit_test(id_bytes_test),  cmocka_unit_test(value_size_test),
        cmocka_unit_test(depth_test),
    };
    return cmocka_run_group_tests(tests, NULL, arena_end);
}
