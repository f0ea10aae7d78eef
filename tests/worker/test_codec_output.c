/*
 * test_codec_output.c: outputs read again, which `pull` does with whatever is in a queue: whole
 * ones bring back what was written, damaged ones are refused or read without harm.
 */
#include "tests/worker/test_codec.h"

enum { DIM = 8, N = 3 };
#define SEED 20261126u

static struct arena arena;
static struct buffer payload;
static const float vectors[N * DIM] = {1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0,
                                       0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0};
static const struct embed_result results[N] = {{.n_tokens = 5}, {.n_tokens = 6}, {.n_tokens = 7}};
static const struct chunk of_number = {BYTES("7"), true, 0, 0, 4000000000};
static const struct chunk of_name = {BYTES("b"), false, 300, 70, 90};

/* Two texts of three are pieces, or the only one is. */
static void write_output(bool many, bool is_cut)
{
    static const char one[] = "{\"id\":7,\"text\":\"a\",\"lang\":\"en\"}";
    static const char three[] =
        "{\"id\":\"m\",\"texts\":[\"a\",\"b\",\"c\"],\"ids\":[7,\"x\",null]}";
    const struct encode_options options = {
        .format = OUTPUT_MSGPACK, .model = "m", .fingerprint = "f", .dim = DIM};
    struct message message = message_of(many ? BYTES(three) : BYTES(one));
    struct request request;
    struct refusal why;
    arena_reset(&arena);
    assert_int_equal(codec_decode(&message, &test_options[INPUT_JSON], &arena, &request, &why), 0);
    request.items[0].chunk = is_cut ? &of_number : NULL;
    if (many)
        request.items[2].chunk = is_cut ? &of_name : NULL;
    payload.len = 0;
    assert_int_equal(codec_encode(&options, &request, &message, 0, request.n_items, "none", vectors,
                                  results, &payload),
                     0);
}

static void expect_chunk(const struct codec_output *output, const char *at[4],
                         const struct chunk *wanted)
{
    char number[32];
    struct chunk got;
    assert_int_equal(codec_output_chunk(output, at, number, &got), wanted != NULL);
    if (!wanted)
        return;
    assert_int_equal(got.parent.len, wanted->parent.len);
    assert_memory_equal(got.parent.ptr, wanted->parent.ptr, got.parent.len);
    assert_int_equal(got.parent_is_number, wanted->parent_is_number);
    assert_int_equal(got.number, wanted->number);
    assert_int_equal(got.start, wanted->start);
    assert_int_equal(got.end, wanted->end);
}

static void expect_id(const struct codec_output *output, const char **at, const char *wanted)
{
    char number[32];
    struct bytes id = codec_output_id(output, at, number);
    assert_int_equal(id.len, strlen(wanted));
    assert_memory_equal(id.ptr, wanted, id.len);
}

static void whole(void **state)
{
    struct codec_output output;
    struct refusal why;
    (void)state;
    for (int is_cut = 0; is_cut < 2; is_cut++) {
        write_output(true, is_cut);
        assert_int_equal(codec_output_read((struct bytes){payload.ptr, payload.len}, &output, &why),
                         0);
        assert_int_equal(output.n, N);
        assert_int_equal(output.has_chunks, is_cut);
        const char *at = output.ids, *at_chunk[4];
        memcpy(at_chunk, output.chunked, sizeof at_chunk);
        expect_id(&output, &at, "7");
        expect_id(&output, &at, "x");
        expect_id(&output, &at, "m/2");
        expect_chunk(&output, at_chunk, is_cut ? &of_number : NULL);
        expect_chunk(&output, at_chunk, NULL);
        expect_chunk(&output, at_chunk, is_cut ? &of_name : NULL);

        write_output(false, is_cut);
        assert_int_equal(codec_output_read((struct bytes){payload.ptr, payload.len}, &output, &why),
                         0);
        at = output.ids;
        memcpy(at_chunk, output.chunked, sizeof at_chunk);
        expect_id(&output, &at, "7");
        expect_chunk(&output, at_chunk, is_cut ? &of_number : NULL);
        assert_int_equal(output.n_fields, 1);
    }
}

/* In memory of exactly its size, so that reading behind it is seen. */
static bool read_damaged(const char *bytes, size_t len, struct buffer *text)
{
    struct codec_output output;
    struct refusal why;
    char *exact = malloc(len ? len : 1), number[32];
    assert_non_null(exact);
    memcpy(exact, bytes, len);
    int rc = codec_output_read((struct bytes){exact, len}, &output, &why);
    if (rc == 0) {
        struct chunk chunk;
        const char *at = output.ids, *at_chunk[4];
        memcpy(at_chunk, output.chunked, sizeof at_chunk);
        for (size_t i = 0; i < output.n; i++) {
            assert_true(codec_output_id(&output, &at, number).len <= len + sizeof number);
            if (codec_output_chunk(&output, at_chunk, number, &chunk))
                assert_true(chunk.parent.len <= len + sizeof number);
        }
        text->len = 0;
        assert_int_equal(codec_output_json(&output, text), 0);
        text->len = 0;
        assert_int_equal(codec_output_csv(&output, text), 0);
    } else {
        assert_int_equal(rc, -EINVAL);
    }
    free(exact);
    return rc == 0;
}

static void damaged(void **state)
{
    struct buffer text = {0};
    uint32_t random = SEED;
    size_t n_read = 0, n = 30000;
    (void)state;
    printf("seed %u\n", SEED);
    for (size_t i = 0; i < n; i++) {
        char bytes[1000];
        random = random * 1103515245 + 12345;
        write_output(random >> 16 & 1, true);
        assert_true(payload.len < sizeof bytes);
        memcpy(bytes, payload.ptr, payload.len);
        size_t len = payload.len;
        for (unsigned change = 0; change <= (random >> 17 & 1); change++) {
            random = random * 1103515245 + 12345;
            bytes[(random >> 8) % len] = (char)(random >> 3);
        }
        random = random * 1103515245 + 12345;
        if ((random >> 16) % 8 == 0)
            len = (random >> 4) % len;
        n_read += read_damaged(bytes, len, &text);
    }
    assert_true(n_read > n / 20 && n_read < n);
    buffer_close(&text);
}

static int end(void **state)
{
    (void)state;
    arena_close(&arena);
    buffer_close(&payload);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole),
        cmocka_unit_test(damaged),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
