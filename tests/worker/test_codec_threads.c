/*
 * test_codec_threads.c: several threads decode and encode at once, and each gets what one alone
 * gets. The thread sanitizer sees what they would share.
 */
#include "tests/worker/test_codec.h"

#include <pthread.h>

enum { N_THREADS = 4, ROUNDS = 200, DIM = 8 };

static const struct bytes values[] = {
    BYTES("plain"),
    BYTES("{\"id\":-3,\"text\":\"hi\",\"k\":{\"a\":1.5,\"b\":[null,\"\\ud83d\"]}}"),
    BYTES("{\"texts\":[\"a\",\"b\"],\"ids\":[\"x\",18446744073709551615]}"),
    BYTES("\x82\xa4text\xa2hi\xa1k\x82\x01\xc4\1\xff\xa1z\xca\x3f\x80\0\0"),
    BYTES("\0\0\0\0\1{\"text\":\"framed\"}"),
    BYTES("{\"text\":\"cut"),
    BYTES("\x1f\x8b\x08\0"),
    BYTES("{\"text\":\"x\",\"a\":1,\"a\":2}"),
};
static const enum output_format formats[] = {OUTPUT_MSGPACK, OUTPUT_JSON, OUTPUT_QDRANT,
                                             OUTPUT_PGVECTOR};

/* All values in all formats, one after another. */
static void run(struct arena *arena, struct buffer *out)
{
    static const float vectors[2 * DIM] = {0.5f, -0.25f};
    static const struct embed_result results[2];
    out->len = 0;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct message message = message_of(values[i]);
        struct request request;
        struct refusal why;
        int err = codec_decode(&message, test_options, arena, &request, &why);
        if (err == -EINVAL)
            buffer_put_text(out, why.reason);
        for (size_t f = 0; !err && f < sizeof formats / sizeof *formats; f++) {
            const struct encode_options options = {.format = formats[f],
                                                   .model = "model",
                                                   .fingerprint = "f",
                                                   .dim = DIM,
                                                   .collection = "c"};
            err = codec_encode(&options, &request, &message, 0, request.n_items, "none", vectors,
                               results, out);
        }
        if (err && err != -EINVAL)
            buffer_put_text(out, "no memory");
        arena_reset(arena);
    }
}

static struct buffer alone;

static void *run_often(void *n_wrong)
{
    struct arena arena = {0};
    struct buffer out = {0};
    for (int i = 0; i < ROUNDS; i++) {
        run(&arena, &out);
        if (out.len != alone.len || memcmp(out.ptr, alone.ptr, out.len) != 0)
            ++*(size_t *)n_wrong;
    }
    arena_close(&arena);
    buffer_close(&out);
    return NULL;
}

static void threads_test(void **state)
{
    (void)state;
    pthread_t threads[N_THREADS];
    size_t n_wrong[N_THREADS] = {0};
    struct arena arena = {0};
    run(&arena, &alone);
    assert_true(alone.len > 2000);
    for (size_t i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_often, &n_wrong[i]), 0);
    for (size_t i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(n_wrong[i], 0);
    }
    arena_close(&arena);
    buffer_close(&alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_test),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
