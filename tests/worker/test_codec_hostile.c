/*
 * test_codec_hostile.c: cut, overwritten and mutated messages. Whatever comes, the outcome is a
 * request that can be encoded, or a refusal that says why. Built with the address sanitizer this
 * also shows that nothing is read outside the value.
 */
#include "tests/worker/test_codec.h"

#include <errno.h>

#include "worker/codec/msgpack_walk.h"

enum { DIM = 4, N_MUTATIONS = 100000 };

static struct arena arena;
static struct buffer buffer;
static size_t n_served, n_refused;

static const char *const corpus_json[] = {
    "{\"text\":\"hi\"}",
    "{\"id\":\"a\",\"text\":\"na\\u00efve \\ud83d\\ude00\",\"title\":\"T\",\"prompt\":\"query\"}",
    "{\"id\":-70000,\"texts\":[\"one\",\"two\",{\"text\":\"three\",\"id\":1,\"title\":\"t\"}],"
    "\"ids\":[\"a\",2,null],\"titles\":[null,\"b\",\"c\"],\"title\":\"all\"}",
    "{\"text\":\"x\",\"meta\":{\"a\":[1,2.5,true,null,{\"b\":[[\"deep\"]]}],\"n\":4294967296},"
    "\"lang\":\"en\"}",
};
static const struct bytes corpus_other[] = {
    BYTES("plain text, \xe2\x82\xac and \xde\x8b"),
    BYTES("\x83\xa4text\xda\x00\x02hi\xa1"
          "b\xc4\x03\x00\x01\x02\xa1"
          "e\xd6\xff\x01\x02\x03\x04"),
    BYTES("\xde\x00\x02\xa2id\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa5texts\xdd\x00\x00\x00\x01\xd9"
          "\x01x"),
    BYTES("\xdf\x00\x00\x00\x02\xa4text\xa1x\xa1m\x83\x01\xca\x7f\xc0\x00\x00\xc0\xc2\x91\x02\xc3"),
};

enum { N_JSON = sizeof corpus_json / sizeof *corpus_json };
enum { N_OTHER = sizeof corpus_other / sizeof *corpus_other };
enum { N_CORPUS = 2 * N_JSON + N_OTHER };

static struct bytes corpus[N_CORPUS];

static int corpus_open(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_JSON; i++) {
        corpus[i] = bytes_copy((struct bytes){corpus_json[i], strlen(corpus_json[i])});
        corpus[N_JSON + i] = msgpack_of(corpus_json[i]);
    }
    for (size_t i = 0; i < N_OTHER; i++)
        corpus[2 * N_JSON + i] = bytes_copy(corpus_other[i]);
    return 0;
}

static int corpus_close(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CORPUS; i++)
        free((void *)corpus[i].ptr);
    arena_close(&arena);
    buffer_close(&buffer);
    return 0;
}

static void encoded_check(const struct request *request, const struct message *message)
{
    static float vectors[100 * DIM];
    static struct embed_result results[100];
    struct encode_options options = {
        .format = OUTPUT_MSGPACK, .model = "m", .fingerprint = "f", .dim = DIM};
    assert_true(request->n_items <= 100);
    buffer.len = 0;
    assert_int_equal(codec_encode(&options, request, message, 0, request->n_items, "none", vectors,
                                  results, &buffer),
                     0);
    struct bytes output = {buffer.ptr, buffer.len};
    assert_int_equal(msgpack_walk_check(output, CODEC_DEPTH_MAX + 1), WALK_OK);
    options.format = OUTPUT_JSON;
    buffer.len = 0;
    assert_int_equal(codec_encode(&options, request, message, 0, request->n_items, "none", vectors,
                                  results, &buffer),
                     0);
    json_error_t error;
    json_t *root = json_loadb(buffer.ptr, buffer.len, JSON_ALLOW_NUL, &error);
    /* what msgpack allows and jansson does not: integers above 63 bits, NUL in keys */
    if (!root && json_error_code(&error) != json_error_numeric_overflow &&
        json_error_code(&error) != json_error_null_byte_in_key)
        fail_msg("%s: %.*s", error.text, (int)buffer.len, buffer.ptr);
    json_decref(root);
}

static void outcome_check(const struct message *message, enum input_format format)
{
    struct request request;
    struct refusal why = {.code = NULL, .reason = ""};
    int err = codec_decode(message, &test_options[format], &arena, &request, &why);
    if (err) {
        assert_int_equal(err, -EINVAL);
        assert_non_null(why.code);
        assert_true(strlen(why.reason) > 10 && strlen(why.reason) < sizeof why.reason - 1);
        n_refused++;
    } else {
        assert_true(request.n_items >= 1);
        for (size_t i = 0; i < request.n_items; i++) {
            assert_non_null(request.items[i].id.ptr);
            assert_true(request.items[i].text.len >= 1);
        }
        encoded_check(&request, message);
        n_served++;
    }
    arena_reset(&arena);
}

/* In memory of exactly its size, in every format. */
static void value_try(struct bytes value)
{
    struct bytes copy = bytes_copy(value);
    struct message message = message_of(copy);
    for (int format = INPUT_AUTO; format <= INPUT_MSGPACK; format++)
        outcome_check(&message, format);
    free((void *)copy.ptr);
}

static void cut_test(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CORPUS; i++)
        for (size_t len = 0; len <= corpus[i].len; len++)
            value_try((struct bytes){corpus[i].ptr, len});
}

/* A message cut short is never served as if it were whole: no strict prefix of valid JSON or
 * msgpack is valid. */
static void cut_refused_test(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * N_JSON; i++) {
        enum input_format format = i < N_JSON ? INPUT_JSON : INPUT_MSGPACK;
        for (size_t len = 1; len < corpus[i].len; len++) {
            struct message message = message_of((struct bytes){corpus[i].ptr, len});
            struct request request;
            struct refusal why;
            assert_int_equal(codec_decode(&message, &test_options[format], &arena, &request, &why),
                             -EINVAL);
            if (format == INPUT_MSGPACK) /* recognised by its first byte, however short */
                assert_int_equal(
                    codec_decode(&message, &test_options[INPUT_AUTO], &arena, &request, &why),
                    -EINVAL);
            arena_reset(&arena);
        }
    }
}

static void overwritten_test(void **state)
{
    (void)state;
    static const char bytes[] = {'\x00', '\xff', '\xc1', '\xdd', '\xdf', '"', '{', '\x9f'};
    for (size_t i = 0; i < N_CORPUS; i++) {
        struct bytes copy = bytes_copy(corpus[i]);
        for (size_t at = 0; at < copy.len; at++) {
            char was = copy.ptr[at];
            for (size_t k = 0; k < sizeof bytes; k++) {
                ((char *)copy.ptr)[at] = bytes[k];
                value_try(copy);
            }
            ((char *)copy.ptr)[at] = was;
        }
        free((void *)copy.ptr);
    }
}

/* Change, insert, remove, or splice in another message; several times. */
static size_t mutate(char *value, size_t len, size_t room, uint64_t *random)
{
    for (uint64_t n = 1 + random_next(random) % 4; n > 0; n--) {
        size_t at = random_next(random) % (len + 1);
        uint64_t r = random_next(random);
        struct bytes other = corpus[r % N_CORPUS];
        size_t take = random_next(random) % (other.len + 1);
        switch ((r >> 32) % 4) {
        case 0:
            if (at < len)
                value[at] = (char)(r >> 40);
            break;
        case 1:
            if (len < room) {
                memmove(value + at + 1, value + at, len - at);
                value[at] = (char)(r >> 40);
                len++;
            }
            break;
        case 2:
            if (at < len) {
                memmove(value + at, value + at + 1, len - at - 1);
                len--;
            }
            break;
        default:
            if (at + take <= room) {
                memcpy(value + at, other.ptr + other.len - take, take);
                len = at + take > len ? at + take : len;
            }
        }
    }
    return len;
}

static void mutated_test(void **state)
{
    (void)state;
    uint64_t random = 7310;
    n_served = n_refused = 0;
    for (int i = 0; i < N_MUTATIONS; i++) {
        char value[400];
        struct bytes from = corpus[random_next(&random) % N_CORPUS];
        memcpy(value, from.ptr, from.len);
        struct bytes mutant = {value, mutate(value, from.len, sizeof value, &random)};
        struct bytes copy = bytes_copy(mutant);
        struct message message = message_of(copy);
        outcome_check(&message, INPUT_AUTO);
        outcome_check(&message, from.ptr[0] == '{' ? INPUT_JSON : INPUT_MSGPACK);
        free((void *)copy.ptr);
    }
    print_message("%zu served, %zu refused\n", n_served, n_refused);
    assert_true(n_served > N_MUTATIONS / 10 && n_refused > N_MUTATIONS / 10);
}

static void random_test(void **state)
{
    (void)state;
    uint64_t random = 99;
    for (int i = 0; i < 20000; i++) {
        char value[64];
        size_t len = random_next(&random) % sizeof value;
        for (size_t k = 0; k < len; k++)
            value[k] = (char)random_next(&random);
        value_try((struct bytes){value, len});
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_test),         cmocka_unit_test(cut_refused_test),
        cmocka_unit_test(overwritten_test), cmocka_unit_test(mutated_test),
        cmocka_unit_test(random_test),
    };
    return cmocka_run_group_tests(tests, corpus_open, corpus_close);
}
