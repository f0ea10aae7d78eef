/*
 * test_json_reader.c: JSON to msgpack, with jansson and msgpack-c as judges: the same bytes for the
 * same values, and the same opinion on what is JSON wherever the two mean to agree.
 */
#include "tests/worker/test_codec.h"

#include "worker/codec/json_reader.h"

enum { ROUNDS = 30000 };

static uint64_t state_of_random = 1;

static unsigned random_below(unsigned n)
{
    return (unsigned)(random_next(&state_of_random) >> 33) % n;
}

/* Free .ptr; absent: it is no JSON. */
static struct bytes read_all(struct bytes json, enum json_fault *fault)
{
    struct json_reading reading = {.max_depth = 20, .max_values = 100000};
    struct bytes copy = bytes_copy(json), packed = {NULL, 0};
    *fault = json_reader_run(copy, &reading);
    if (!*fault) {
        size_t len = reading.packed_len;
        char *to = malloc(len);
        assert_non_null(to);
        reading.packed = to;
        assert_int_equal(json_reader_run(copy, &reading), JSON_FAULT_NONE);
        assert_int_equal(reading.packed_len, len);
        packed = (struct bytes){to, len};
    }
    assert_true(reading.at >= copy.ptr && reading.at <= copy.ptr + copy.len);
    free((void *)copy.ptr);
    return packed;
}

struct sample {
    char ptr[1 << 16];
    size_t len;
};

static void add(struct sample *text, const char *more)
{
    size_t len = strlen(more);
    if (text->len + len < sizeof text->ptr) {
        memcpy(text->ptr + text->len, more, len);
        text->len += len;
    }
}

static const char *pick(const char *const *from, unsigned n)
{
    return from[random_below(n)];
}
#define PICK(array) pick(array, sizeof(array) / sizeof *(array))

static const char *const spaces[] = {"", "", "", " ", "\n", "\t\r "};
static const char *const scalars[] = {
    "true", "false", "null",       "0",     "-0",          "1",          "-1",
    "31",   "-32",   "-33",        "127",   "128",         "255",        "256",
    "-128", "-129",  "65535",      "65536", "-32768",      "-32769",     "4294967295",
    "1.5",  "-0.0",  "4294967296", "1e300", "-2147483648", "2.5E-3",     "9223372036854775807",
    "1E+2", "0e0",   "5e-324",     "0.1",   "-2147483649", "123456.789", "-9223372036854775808",
};
static const char *const pieces[] = {
    "",
    "a",
    "text",
    "\\n",
    "\\\"",
    "\\\\",
    "\\/",
    "\\u00e4",
    "\\u20ac",
    "\xc3\xa4",
    "\\ud83d\\udea2",
    "\xf0\x9f\x9a\xa2",
    "{[",
    "\\b\\f\\r\\t",
    "0123456789012345678901234567890123456789",
};

static void add_string(struct sample *text, bool is_long)
{
    add(text, "\"");
    for (unsigned n = is_long ? 2000 : random_below(5); n > 0; n--)
        add(text, PICK(pieces));
    add(text, "\"");
}

static void add_value(struct sample *text, unsigned depth)
{
    unsigned kind = random_below(depth > 0 ? 8 : 4);
    add(text, PICK(spaces));
    if (kind < 2) {
        add(text, PICK(scalars));
    } else if (kind < 4) {
        add_string(text, random_below(200) == 0);
    } else {
        bool is_map = kind < 6;
        char key[20];
        add(text, is_map ? "{" : "[");
        unsigned n = random_below(50) == 0 ? 100 : random_below(5);
        for (unsigned i = 0; i < n; i++) {
            add(text, i > 0 ? "," : "");
            if (is_map) { /* the judge keeps one of two equal keys */
                snprintf(key, sizeof key, "\"k%u\"", i);
                add(text, PICK(spaces));
                add(text, key);
                add(text, PICK(spaces));
                add(text, ":");
            }
            add_value(text, n < 100 ? depth - 1 : 0);
        }
        add(text, is_map ? "}" : "]");
    }
    add(text, PICK(spaces));
}

static void same_bytes(void **state)
{
    (void)state;
    static struct sample text;
    for (int round = 0; round < ROUNDS / 10; round++) {
        enum json_fault fault;
        text.len = 0;
        add(&text, "[");
        add_value(&text, 5);
        add(&text, "]");
        text.ptr[text.len] = '\0';
        if (text.len > sizeof text.ptr - 3000)
            continue;
        struct bytes wanted = msgpack_of(text.ptr);
        struct bytes got = read_all((struct bytes){text.ptr, text.len}, &fault);
        if (fault)
            fail_msg("fault %d: %s", fault, text.ptr);
        if (got.len != wanted.len || memcmp(got.ptr, wanted.ptr, got.len) != 0)
            fail_msg("other bytes: %s", text.ptr);
        free((void *)wanted.ptr);
        free((void *)got.ptr);
    }
}

/* Where ours takes more than jansson does, on purpose. */
static bool is_ours_to_take(const char *json, size_t len)
{
    size_t digits = 0;
    for (size_t i = 0; i < len; i++) {
        digits = json[i] >= '0' && json[i] <= '9' ? digits + 1 : 0;
        if (digits >= 19 || (unsigned char)json[i] >= 0x80 ||
            (json[i] == '\\' && i + 2 < len && json[i + 1] == 'u' && (json[i + 2] | 0x20) == 'd'))
            return true;
    }
    return false;
}

static void same_opinion(void **state)
{
    (void)state;
    static struct sample text;
    size_t n_good = 0, n_bad = 0;
    for (int round = 0; round < ROUNDS; round++) {
        enum json_fault fault;
        json_error_t error;
        text.len = 0;
        add(&text, "[");
        add_value(&text, 3);
        add(&text, "]");
        if (text.len > 2000)
            continue;
        for (unsigned n = random_below(3); n > 0; n--) {
            static const char bytes[] = "\"\\{}[],:0-.eEtfnu \n\x01\x7f'aN";
            text.ptr[random_below((unsigned)text.len)] = bytes[random_below(sizeof bytes - 1)];
        }
        if (random_below(5) == 0)
            text.len = random_below((unsigned)text.len + 1);
        text.ptr[text.len] = '\0';
        json_t *root = json_loadb(text.ptr, text.len, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
        struct bytes got = read_all((struct bytes){text.ptr, text.len}, &fault);
        bool is_scalar = root && !json_is_array(root) && !json_is_object(root);
        if (root && fault && !is_scalar) /* a number that ends the input may go on */
            fail_msg("fault %d, and jansson takes it: %s", fault, text.ptr);
        if (!root && !fault && !is_ours_to_take(text.ptr, text.len) &&
            !strstr(text.ptr, "\\u0000")) /* a NUL in a key: jansson has another word for it */
            fail_msg("taken, and jansson does not (%s): %s", error.text, text.ptr);
        n_good += root != NULL;
        n_bad += root == NULL;
        json_decref(root);
        free((void *)got.ptr);
    }
    print_message("%zu good, %zu bad\n", n_good, n_bad);
    assert_true(n_good > 1000 && n_bad > 1000);
}

/* The faults, the place of each, and a whole value that ends with the input. */
static void faults(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        enum json_fault fault;
        size_t at;
    } cases[] = {
        {"", JSON_FAULT_END, 0},
        {"[", JSON_FAULT_END, 1},
        {"[1", JSON_FAULT_END, 2},
        {"[1.5", JSON_FAULT_END, 4},
        {"1.5", JSON_FAULT_END, 3}, /* nothing behind it that says it is whole */
        {"15", JSON_FAULT_NONE, 2},
        {"[tru", JSON_FAULT_END, 4},
        {"\"a", JSON_FAULT_END, 2},
        {"\"\\", JSON_FAULT_END, 2},
        {"\"\\ud83d\\u", JSON_FAULT_END, 9},
        {"{\"a\"", JSON_FAULT_END, 4},
        {"[] x", JSON_FAULT_TRAILING, 3},
        {"[-]", JSON_FAULT_SYNTAX, 2},
        {"[00]", JSON_FAULT_SYNTAX, 2},
        {"[18446744073709551616]", JSON_FAULT_RANGE, 1},
        {"[-9223372036854775809]", JSON_FAULT_RANGE, 1},
        {"[18446744073709551615]", JSON_FAULT_NONE, 22},
        {"[1e400]", JSON_FAULT_RANGE, 1},
        {"[1e-400]", JSON_FAULT_NONE, 8},
        {"[NaN]", JSON_FAULT_NAN, 1},
        {"[-Infinity]", JSON_FAULT_NAN, 2},
        {"[\"\t\"]", JSON_FAULT_CONTROL, 2},
        {"[\"\\'\"]", JSON_FAULT_ESCAPE, 3},
        {"['a']", JSON_FAULT_QUOTE, 1},
        {"{'a':1}", JSON_FAULT_QUOTE, 1},
        {"{\"a\\u0000\":1}", JSON_FAULT_NUL, 10},
        {"{\"a\\\\u0000\":1}", JSON_FAULT_NONE, 14},
        {"[[[[]]]]", JSON_FAULT_DEEP, 3},
        {"[1,2,3,4,5,6]", JSON_FAULT_VALUES, 11},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct json_reading reading = {.max_depth = 3, .max_values = 6};
        struct bytes json = bytes_copy((struct bytes){cases[i].json, strlen(cases[i].json)});
        enum json_fault fault = json_reader_run(json, &reading);
        if (fault != cases[i].fault || (size_t)(reading.at - json.ptr) != cases[i].at)
            fail_msg("%s: fault %d at %zu", cases[i].json, fault, (size_t)(reading.at - json.ptr));
        free((void *)json.ptr);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bytes),
        cmocka_unit_test(same_opinion),
        cmocka_unit_test(faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
