/*
 * test_codec_decode.c: every form of input, every refusal, every limit, the precedence of ids.
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

static void expect_refused(const struct message *message, const struct decode_options *options,
                           const char *code, const char *sentence)
{
    struct request request = {.n_items = 77};
    struct refusal why = {.code = "none"};
    int err = codec_decode(message, options, &arena, &request, &why);
    if (err != -EINVAL)
        fail_msg("format %d: returned %d, expected refusal %s: %s", options->format, err, code,
                 sentence);
    if (strcmp(why.code, code) != 0 || !strstr(why.reason, sentence))
        fail_msg("format %d: %s: %s; expected %s: ...%s...", options->format, why.code, why.reason,
                 code, sentence);
    assert_int_equal(request.n_items, 77);
    assert_null(strstr(why.reason, "sesame")); /* the tests' texts all hold it */
    if (!strpbrk(why.reason, ";?"))            /* what happened; what to do */
        fail_msg("'%s' does not say what to do", why.reason);
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
    {BYTES("[\"text\"]"), "id=texts 1-0 | texts 1-0 [\"text\"]"},
    {BYTES("{broken"), "id=texts 1-0 | texts 1-0 {broken"},
    {BYTES("if (x) { \"text\": y }"), "id=texts 1-0 | texts 1-0 if (x) { \"text\": y }"},
    /* Thaana begins with 0xde, the head of a msgpack map */
    {BYTES("\xde\x8b\xde\xa8"), "id=texts 1-0 | texts 1-0 \xde\x8b\xde\xa8"},
    {BYTES("\xdf\x80"), "id=texts 1-0 | texts 1-0 \xdf\x80"},
    {BYTES("\xde\x00\x01\xa4text\xa2hi"), "id=texts 1-0 | texts 1-0 hi"},
    {BYTES("\xdf\x00\x00\x00\x01\xa4text\xa2hi"), "id=texts 1-0 | texts 1-0 hi"},
    /* a msgpack string or array is not a map: text, whatever the tokenizer makes of it */
    {BYTES("\xa2hi"), "id=texts 1-0 | texts 1-0 \xa2hi"},
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
    message.value = BYTES("a\0b");
    assert_int_equal(codec_decode(&message, test_options, &arena, &request, &why), 0);
    assert_int_equal(request.items[0].text.len, 3);
    assert_ptr_equal(request.items[0].text.ptr, message.value.ptr); /* borrowed, not copied */
    message.value = BYTES("{\"text\":\"a\\u0000b\"}");
    assert_int_equal(codec_decode(&message, test_options, &arena, &request, &why), 0);
    assert_int_equal(request.items[0].text.len, 3);
    assert_memory_equal(request.items[0].text.ptr, "a\0b", 3);
    arena_reset(&arena);
}

/* A 64-bit natural number as id comes only in msgpack. */
static void natural_id_test(void **state)
{
    (void)state;
    struct message message =
        message_of(BYTES("\x82\xa2id\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa4text\xa2hi"));
    expect(&message, INPUT_MSGPACK, "id=18446744073709551615# | 18446744073709551615# hi");
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
    {"{\"text\":\"sesame\",\"x\":[[[[[[[[1]]]]]]]]}", "too_deep", "nested more than 8 deep"},
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
    {INPUT_JSON, BYTES("sesame"), "bad_json", "is not JSON: line 1, column 6"},
    {INPUT_JSON, BYTES("[\"sesame\"]"), "bad_json", "is not an object"},
    {INPUT_JSON, BYTES("{\"a\":\"sesame\"}"), "no_text", "neither"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame"), "bad_json", "ends too early"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\""), "bad_json", "ends too early"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\"} x"), "bad_json", "followed by more bytes"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"x\":NaN}"), "bad_json", "is not JSON"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"x\":1e999}"), "bad_json", "number out of range"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"id\":18446744073709551616}"), "bad_json",
     "number out of range (send it as a string)"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\xff\"}"), "bad_json", "is not UTF-8"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\\ud800\"}"), "bad_json", "is not JSON"},
    {INPUT_JSON, BYTES("{\"te\\u0000xt\":\"sesame\"}"), "bad_json", "NUL character in a key"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"text\":\"b\"}"), "duplicate_field",
     "same key twice in one object (line 1, column"},
    {INPUT_JSON, BYTES("{\"text\":\"sesame\",\"a\":{\"b\":1,\"b\":2}}"), "duplicate_field",
     "same key twice"},
    /* broken, but plainly meant to be ours: not embedded as if it were text */
    {INPUT_AUTO, BYTES("{\"text\":\"sesame"), "bad_json", "ends too early"},
    {INPUT_AUTO, BYTES("{\"text\":\"sesame\",\"x\":NaN}"), "bad_json", "is not JSON"},
    {INPUT_AUTO, BYTES("{\"texts\" : [\"sesame\",]}"), "bad_json", "is not JSON"},
    {INPUT_AUTO, BYTES("{\"text\":\"sesame\",\"text\":\"b\"}"), "duplicate_field", "twice"},
    /* a whole object whose text has another name, is deeper inside, or is not there */
    {INPUT_AUTO, BYTES("{\"txt\":\"sesame\"}"), "no_text", "set input_format to raw"},
    {INPUT_AUTO, BYTES(" \r\n\t{\"Text\":\"sesame\"} \n"), "no_text", "neither"},
    {INPUT_AUTO, BYTES("\xef\xbb\xbf{\"body\":\"sesame\"}"), "no_text", "neither"},
    {INPUT_AUTO, BYTES("{\"id\":99999999999999999999,\"txt\":1}"), "bad_json", "out of range"},
    {INPUT_AUTO, BYTES("{\"a\":{\"text\":\"sesame\"}}"), "no_text", "neither"},
    {INPUT_AUTO, BYTES("{\"a\":[[[[[[[[[\"sesame\"]]]]]]]]]}"), "too_deep", "more than 8"},
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
     "field 'text' is there twice"},
    {INPUT_MSGPACK, BYTES("\x81\xa5texts\x91\x82\xa4text\xa6sesame\xa4text\xa1x"),
     "duplicate_field", "field 'texts[0].text' is there twice"},
    {INPUT_MSGPACK, BYTES("\x81\xa5texts\x91\x82\x90\xa6sesame\xa4text\xa1x"), "bad_field",
     "a key in field 'texts[0]' is an array; send strings"},
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
    const struct decode_options options = {INPUT_MSGPACK, SIZE_MAX, 10};
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
    struct message message = message_of((struct bytes){value, CODEC_VALUE_BYTES_MAX + 1});
    expect_refused(&message, &test_options[INPUT_MSGPACK], "value_too_large", "67108865 bytes");
    expect_refused(&message, &test_options[INPUT_JSON], "value_too_large", "67108865 bytes");
    free(value);
    const size_t len = 200000;
    char *numbers = malloc(len);
    assert_non_null(numbers);
    for (size_t i = 0; i < len; i++)
        numbers[i] = i % 2 ? '0' : ',';
    memcpy(numbers, "{\"text\":\"sesame\",\"x\":[", 22);
    memcpy(numbers + len - 2, "]}", 2);
    message.value = (struct bytes){numbers, len};
    expect_refused(&message, test_options, "too_many_values", "the limit is 67136");
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

/* Every code refused in this file has a row in a table of the wire format's description. */
static void documented_test(void **state)
{
    (void)state;
    static char text[64 * 1024];
    const char *codes[200] = {"too_many_texts", "text_too_large", "value_too_large",
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
        cmocka_unit_test(forms_test),      cmocka_unit_test(auto_test),
        cmocka_unit_test(raw_test),        cmocka_unit_test(natural_id_test),
        cmocka_unit_test(precedence_test), cmocka_unit_test(shared_refusals_test),
        cmocka_unit_test(refusals_test),   cmocka_unit_test(max_texts_test),
        cmocka_unit_test(text_bytes_test), cmocka_unit_test(id_bytes_test),
        cmocka_unit_test(value_size_test), cmocka_unit_test(depth_test),
        cmocka_unit_test(documented_test),
    };
    return cmocka_run_group_tests(tests, NULL, arena_end);
}
