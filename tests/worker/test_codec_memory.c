/*
 * test_codec_memory.c: what the codec allocates. Nothing in the steady state, little for claims
 * without bytes behind them, and running out leaves everything as it was.
 *
 * Why: malloc is counted by standing in for it; under a sanitizer, which stands there already, by
 *      its hooks. There allocations cannot be made to fail, and that one test says so.
 */
#include "tests/support/assert_between.h"
#include "tests/worker/test_codec.h"

#include <errno.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#endif

static size_t n_allocations, n_bytes;
static size_t fail_in; /* the how manieth allocation from now fails, and all after it; 0: none */

#ifdef SANITIZED

/* Of <sanitizer/allocator_interface.h>, which gcc does not bring along. */
int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void *, size_t),
                                              void (*free_hook)(const volatile void *));

static void on_malloc(const volatile void *ptr, size_t size)
{
    (void)ptr;
    n_allocations++;
    n_bytes += size;
}

static void on_free(const volatile void *ptr)
{
    (void)ptr;
}

static void counting_open(void)
{
    __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
}

#else

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *ptr, size_t size);

static bool allocation_refused(size_t size)
{
    n_allocations++;
    n_bytes += size;
    if (fail_in == 0)
        return false;
    if (fail_in > 1)
        fail_in--;
    return fail_in == 1;
}

void *malloc(size_t size)
{
    return allocation_refused(size) ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return allocation_refused(n * size) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *ptr, size_t size)
{
    return allocation_refused(size) ? NULL : __libc_realloc(ptr, size);
}

static void counting_open(void)
{
}

#endif

enum { DIM = 768, N_TEXTS = 64 };

static float vectors[N_TEXTS * DIM];
static struct embed_result results[N_TEXTS];
static const struct encode_options to_msgpack = {
    .format = OUTPUT_MSGPACK, .model = "model", .fingerprint = "f", .dim = DIM};
static const struct encode_options to_json = {
    .format = OUTPUT_JSON, .model = "model", .fingerprint = "f", .dim = DIM};

/* A batch as the pipeline does it: many messages into one arena and one buffer. */
static void batch_run(const struct message *messages, size_t n, const struct encode_options *encode,
                      struct arena *arena, struct buffer *buffer)
{
    arena_reset(arena);
    buffer->len = 0;
    for (size_t i = 0; i < n; i++) {
        struct request request;
        struct refusal why;
        if (codec_decode(&messages[i], test_options, arena, &request, &why))
            fail_msg("%s: %s", why.code, why.reason);
        assert_int_equal(codec_encode(encode, &request, &messages[i], 0, request.n_items,
                                      "document", vectors, results, buffer),
                         0);
    }
}

static void steady_test(void **state)
{
    (void)state;
    static const char *const json[] = {
        "{\"id\":\"a\",\"text\":\"some text\",\"title\":\"T\",\"lang\":\"en\"}",
        "{\"id\":12,\"text\":\"some text\"}",
        "{\"texts\":[\"one\",\"two\",\"three\",{\"text\":\"four\",\"id\":4}],\"id\":\"m\",\"k\":1}",
    };
    enum { N = 7 };
    struct message messages[N];
    for (size_t i = 0; i < 3; i++) {
        messages[i] = message_of(msgpack_of(json[i]));
        messages[4 + i] = message_of((struct bytes){json[i], strlen(json[i])});
    }
    messages[3] = message_of(BYTES("raw text"));
    const struct encode_options *formats[] = {&to_msgpack, &to_json};
    for (int format = 0; format < 2; format++) {
        struct arena arena = {0};
        struct buffer buffer = {0};
        for (int i = 0; i < 2; i++) /* the arena learns its size in the first batch */
            batch_run(messages, N, formats[format], &arena, &buffer);
        size_t before = n_allocations;
        for (int i = 0; i < 1000; i++)
            batch_run(messages, N, formats[format], &arena, &buffer);
        assert_int_equal(n_allocations, before);
        arena_close(&arena);
        buffer_close(&buffer);
    }
    for (size_t i = 0; i < 3; i++)
        free((void *)messages[i].value.ptr);
}

/* Bytes asked for while a value is decoded, whatever the outcome; its code or "" in *code. */
static size_t decode_cost(struct bytes value, enum input_format format, const char **code)
{
    const struct decode_options options = {
        .format = format, .max_texts = 4096, .max_text_bytes = 1 << 20};
    struct message message = message_of(value);
    struct arena arena = {0};
    struct request request;
    struct refusal why = {.code = ""};
    size_t before = n_bytes;
    codec_decode(&message, &options, &arena, &request, &why);
    size_t cost = n_bytes - before;
    arena_close(&arena);
    *code = why.code;
    return cost;
}

static void claims_test(void **state)
{
    (void)state;
    static const struct bytes claims[] = {
        BYTES("\xdd\xff\xff\xff\xff"),
        BYTES("\xdf\xff\xff\xff\xff"),
        BYTES("\xdf\x05\xf5\xe1\x00\xa4"),
        BYTES("\x81\xa5texts\xdd\xff\xff\xff\xff\xa1x"),
        BYTES("\x81\xa5texts\xdd\x00\x10\x00\x00\xa1x"),
        BYTES("\x81\xa4text\xdb\xff\xff\xff\xff"),
        BYTES("\x81\xa4text\xc6\xff\xff\xff\xff"),
        BYTES("\x82\xa4text\xa1x\xa1k\xdf\x7f\xff\xff\xff"),
        BYTES("\x82\xa4text\xa1x\xa1k\xc9\x7f\xff\xff\xff\x01"),
    };
    const char *code;
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++)
        for (int format = INPUT_AUTO; format <= INPUT_MSGPACK; format += INPUT_MSGPACK) {
            size_t cost = decode_cost(claims[i], format, &code);
            /* the first begins like no map: in auto mode text, one item of it */
            if (i > 0 || format == INPUT_MSGPACK)
                assert_string_equal(code, "bad_msgpack");
            assert_true(cost <= 20000);
        }
}

/* One container in another, as deep as the bytes reach. */
static void deep_test(void **state)
{
    (void)state;
    const size_t len = 1 << 20;
    char *value = malloc(len);
    assert_non_null(value);
    const char *code;
    memset(value, '\x91', len);
    memcpy(value, "\x82\xa4text\xa1x\xa1k", 10);
    assert_true(decode_cost((struct bytes){value, len}, INPUT_MSGPACK, &code) == 0);
    assert_string_equal(code, "too_deep");
    for (size_t i = 10; i + 3 < len; i += 3)
        memcpy(value + i, "\x81\xa1k", 3);
    assert_true(decode_cost((struct bytes){value, len}, INPUT_AUTO, &code) == 0);
    assert_string_equal(code, "too_deep");

    static const char *const openings[] = {"[", "{\"k\":", "{\"k\":[{}, "};
    for (size_t i = 0; i < 3; i++) {
        size_t at = (size_t)snprintf(value, len, "{\"text\":\"x\",\"k\":"), n = strlen(openings[i]);
        while (at + n < 150000) {
            memcpy(value + at, openings[i], n);
            at += n;
        }
        assert_true(decode_cost((struct bytes){value, at}, INPUT_JSON, &code) < 20000);
        assert_true(strcmp(code, "too_deep") == 0 || strcmp(code, "too_many_values") == 0);
        assert_true(decode_cost((struct bytes){value, at}, INPUT_AUTO, &code) < 4 << 20);
        assert_true(strcmp(code, "too_deep") == 0 || strcmp(code, "too_many_values") == 0);
    }
    /* valid JSON, 1,000 deep */
    size_t at = (size_t)snprintf(value, len, "{\"text\":\"x\",\"k\":");
    memset(value + at, '[', 1000);
    memset(value + at + 1000, ']', 1000);
    value[at + 2000] = '}';
    assert_true(decode_cost((struct bytes){value, at + 2001}, INPUT_AUTO, &code) < 1 << 20);
    assert_string_equal(code, "too_deep");
    free(value);
}

/* 10 MB of small integers cost msgpack-c 24 times as much. */
static void small_values_test(void **state)
{
    (void)state;
    const size_t len = 10 * 1000 * 1000;
    char *value = malloc(len);
    assert_non_null(value);
    const char *code;
    memset(value, 1, len);
    memcpy(value, "\x82\xa4text\xa1x\xa1k\xdd", 11);
    uint32_t count = (uint32_t)(len - 15);
    for (int i = 0; i < 4; i++)
        value[11 + i] = (char)(count >> (24 - 8 * i));
    size_t cost = decode_cost((struct bytes){value, len}, INPUT_AUTO, &code);
    assert_string_equal(code, "");
    assert_between(cost, len, len + (2 << 20)); /* the field is kept, once */

    memset(value, 1, len);
    memcpy(value, "\x81\xa5texts\xdd", 8);
    count = (uint32_t)(len - 12);
    for (int i = 0; i < 4; i++)
        value[8 + i] = (char)(count >> (24 - 8 * i));
    assert_true(decode_cost((struct bytes){value, len}, INPUT_AUTO, &code) == 0);
    assert_string_equal(code, "too_many_texts");

    for (size_t i = 0; i < len; i++)
        value[i] = i % 2 ? '0' : ',';
    memcpy(value, "{\"text\":\"x\",\"k\":[", 17);
    value[17] = '0';
    memcpy(value + len - 2, "]}", 2);
    assert_true(decode_cost((struct bytes){value, len}, INPUT_AUTO, &code) == 0);
    assert_string_equal(code, "too_many_values");
    free(value);
}

/* The most values that JSON may have. */
static void json_limit_test(void **state)
{
    (void)state;
    const size_t n = CODEC_JSON_VALUES_MAX + 16 * 4096 - 10;
    char *value = malloc(2 * n + 100);
    assert_non_null(value);
    size_t at = (size_t)sprintf(value, "{\"text\":\"x\",\"k\":[0");
    for (size_t i = 0; i < n; i++, at += 2)
        memcpy(value + at, ",0", 2);
    memcpy(value + at, "]}", 2);
    const char *code;
    size_t cost = decode_cost((struct bytes){value, at + 2}, INPUT_JSON, &code);
    assert_string_equal(code, "");
    print_message("%zu JSON values: %zu bytes asked for\n", n, cost);
    assert_true(cost < 16 << 20);
    free(value);
}

/* Let every allocation fail in turn: -ENOMEM each time, never a refusal, nothing half done. */
static void no_memory_decode_test(void **state)
{
    (void)state;
#ifdef SANITIZED
    print_message("skipped: under a sanitizer malloc cannot be made to fail\n");
    skip();
#endif
    static const char *const json = "{\"id\":7,\"texts\":[\"one\",\"two\"],\"k\":{\"a\":[1,2]}}";
    const struct bytes packed = msgpack_of(json);
    static const char *const many_keys = "{\"text\":\"x\",\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,"
                                         "\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"j\":1,\"k\":1,"
                                         "\"l\":1,\"m\":1,\"n\":1,\"o\":1,\"p\":\"\\ud800\"}";
    static const char *const odd_keys = "\x82\xa4text\xa1x\xa1k\x82\x01\x01\xa1\xff\x02";
    const struct bytes values[] = {{json, strlen(json)},
                                   packed,
                                   BYTES("raw"),
                                   {many_keys, strlen(many_keys)},
                                   {odd_keys, strlen(odd_keys)}};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct message message = message_of(values[i]);
        size_t n = 0;
        int err = -ENOMEM;
        while (err) {
            struct arena arena = {0};
            struct request request = {.n_items = 77};
            struct refusal why = {.code = NULL};
            fail_in = ++n + 1;
            err = codec_decode(&message, test_options, &arena, &request, &why);
            fail_in = 0;
            if (err) {
                if (err != -ENOMEM || why.code)
                    fail_msg("allocation %zu: %d %s", n, err, why.code ? why.reason : "");
                assert_int_equal(request.n_items, 77);
            }
            arena_close(&arena);
            assert_true(n < 200);
        }
        assert_true(n > 1);
    }
    free((void *)packed.ptr);
}

static void no_memory_encode_test(void **state)
{
    (void)state;
#ifdef SANITIZED
    print_message("skipped: under a sanitizer malloc cannot be made to fail\n");
    skip();
#endif
    struct message message = message_of(BYTES("raw"));
    const struct encode_options *formats[] = {&to_msgpack, &to_json};
    for (int format = 0; format < 2; format++) {
        struct arena arena = {0};
        struct request request;
        struct refusal why;
        struct buffer buffer = {0};
        assert_int_equal(codec_decode(&message, test_options, &arena, &request, &why), 0);
        assert_int_equal(codec_encode(formats[format], &request, &message, 0, 1, "none", vectors,
                                      results, &buffer),
                         0);
        size_t before = buffer.len, n_failed = 0;
        for (int err = 0; !err && buffer.len < 1 << 20;) {
            before = buffer.len;
            fail_in = 1;
            err = codec_encode(formats[format], &request, &message, 0, 1, "none", vectors, results,
                               &buffer);
            fail_in = 0;
            if (err) {
                assert_int_equal(err, -ENOMEM);
                assert_int_equal(buffer.len, before);
                n_failed++;
            }
        }
        assert_int_equal(n_failed, 1);
        buffer_close(&buffer);
        arena_close(&arena);
    }
}

int main(void)
{
    counting_open();
    for (size_t i = 0; i < N_TEXTS * DIM; i++)
        vectors[i] = (float)i / (N_TEXTS * DIM) - 0.5f;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steady_test),
        cmocka_unit_test(claims_test),
        cmocka_unit_test(deep_test),
        cmocka_unit_test(small_values_test),
        cmocka_unit_test(json_limit_test),
        cmocka_unit_test(no_memory_decode_test),
        cmocka_unit_test(no_memory_encode_test),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
