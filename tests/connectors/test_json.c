/*
 * test_json.c: the one JSON writer and its buffer, judged by jansson and by published vectors.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>

#include "connectors/json.h"

#define BYTES(literal) ((struct bytes){(literal), sizeof(literal) - 1})

static struct buffer buffer;

static void expect(const char *written)
{
    buffer_put(&buffer, "", 1);
    assert_int_equal(buffer_settle(&buffer, 0), 0);
    assert_string_equal(buffer.ptr, written);
    buffer.len = 0;
}

static void strings(void **state)
{
    (void)state;
    json_put_string(&buffer, BYTES("a \"b\" \\ \b\t\n\v\f\r\x7f\0z \xc3\xbc \xf0\x9f\x9a\xa2"));
    expect("\"a \\\"b\\\" \\\\ \\b\\t\\n\\u000b\\f\\r\\u007f\\u0000z \xc3\xbc \xf0\x9f\x9a\xa2\"");
    json_put_string(&buffer, BYTES("F\xe4hre \xed\xa0\xbd \xe2\x82"));
    expect("\"F\xef\xbf\xbdhre \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \xef\xbf\xbd\"");
    json_put_bytes(&buffer, BYTES("F\xe4hre \xe2\x82 \""));
    expect("\"F\xe4hre \xe2\x82 \\\"\"");
    json_put_string(&buffer, (struct bytes){NULL, 0});
    expect("\"\"");
}

/* Any bytes become a string that another reader takes. */
static void any_bytes(void **state)
{
    (void)state;
    uint64_t random = 1;
    char bytes[40];
    for (int round = 0; round < 20000; round++) {
        for (size_t i = 0; i < sizeof bytes; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            bytes[i] = (char)(random >> (random >> 63 ? 56 : 58));
        }
        json_put_string(&buffer, (struct bytes){bytes, (size_t)round % sizeof bytes});
        json_t *read = json_loadb(buffer.ptr, buffer.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_non_null(read);
        json_decref(read);
        buffer.len = 0;
    }
}

static void base64(void **state)
{
    (void)state;
    /* RFC 4648, section 10 */
    static const char *const pairs[][2] = {
        {"", "\"\""},
        {"f", "\"Zg==\""},
        {"fo", "\"Zm8=\""},
        {"foo", "\"Zm9v\""},
        {"foob", "\"Zm9vYg==\""},
        {"fooba", "\"Zm9vYmE=\""},
        {"foobar", "\"Zm9vYmFy\""},
        {"\xff\xfe\xfd", "\"//79\""},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        json_put_base64(&buffer, (struct bytes){pairs[i][0], strlen(pairs[i][0])});
        expect(pairs[i][1]);
    }
    /* longer than what is handed to the library at once */
    const size_t len = (3 << 20) + 4;
    char *zeros = calloc(1, len);
    assert_non_null(zeros);
    json_put_base64(&buffer, (struct bytes){zeros, len});
    assert_int_equal(buffer_settle(&buffer, 0), 0);
    assert_int_equal(buffer.len, 2 + (len + 2) / 3 * 4);
    assert_int_equal(strspn(buffer.ptr + 1, "A"), buffer.len - 2 - 2);
    assert_memory_equal(buffer.ptr + buffer.len - 3, "==\"", 3);
    free(zeros);
    buffer.len = 0;
}

static void numbers(void **state)
{
    (void)state;
    json_put_integer(&buffer, INT64_MIN);
    expect("-9223372036854775808");
    json_put_natural(&buffer, UINT64_MAX);
    expect("18446744073709551615");
    json_put_double(&buffer, 0.1);
    expect("0.1");
    json_put_double(&buffer, -0.0);
    expect("-0.0");
    json_put_double(&buffer, 1e22);
    expect("1e+22");
    json_put_double(&buffer, 0.1 + 0.2);
    expect("0.30000000000000004");
    json_put_double(&buffer, (double)NAN);
    expect("null");
    json_put_double(&buffer, (double)-INFINITY);
    expect("null");
}

static void quoted(void **state)
{
    (void)state;
    buffer_close(&buffer); /* so that it has to grow for it */
    buffer_put_text(&buffer, "{");
    size_t start = buffer.len;
    buffer_put_text(&buffer, "[\"a\",1]");
    json_quote(&buffer, start);
    buffer_put_text(&buffer, ":0}");
    expect("{\"[\\\"a\\\",1]\":0}");
}

/* A failure is remembered, drops what follows, and is over when it was asked for. */
static void no_memory(void **state)
{
    (void)state;
    buffer_put_text(&buffer, "kept");
    assert_int_not_equal(buffer_reserve(&buffer, SIZE_MAX - 1), 0);
    json_put_text(&buffer, "dropped");
    assert_null(buffer_extend(&buffer, 1));
    assert_int_not_equal(buffer_settle(&buffer, 4), 0);
    buffer_put_text(&buffer, " on");
    expect("kept on");
}

static int close_all(void **state)
{
    (void)state;
    buffer_close(&buffer);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings), cmocka_unit_test(any_bytes), cmocka_unit_test(base64),
        cmocka_unit_test(numbers), cmocka_unit_test(quoted),    cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, close_all);
}
