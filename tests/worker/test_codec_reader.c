/*
 * test_codec_reader.c: docs/read_embeddings.py reads what codec_encode writes, from a file and from
 * standard input. (test_redis_live.py has it read a stream.)
 */
#include "tests/worker/test_codec.h"

#include <errno.h>
#include <unistd.h>

enum { DIM = 4 };

#define PYTHON "/usr/bin/python3"
#define READER TESTS_DIR "/../docs/read_embeddings.py"

static const float vectors[3 * DIM] = {1, 0, 0, 0, 0.5f, 0.5f, 0.5f, 0.5f, 0, -0.25f, 0, 0};
static const struct embed_result results[3] = {{.n_tokens = 3}, {.n_tokens = 4}, {.n_tokens = 5}};

static void append(struct buffer *out, const struct message *message)
{
    static const struct encode_options options = {
        .format = OUTPUT_MSGPACK, .model = "m", .fingerprint = "f", .dim = DIM};
    struct arena arena = {0};
    struct request request;
    struct refusal why;
    if (codec_decode(message, &test_options[INPUT_AUTO], &arena, &request, &why))
        fail_msg("%s: %s", why.code, why.reason);
    assert_int_equal(codec_encode(&options, &request, message, 0, request.n_items, "document",
                                  vectors, results, out),
                     0);
    arena_close(&arena);
}

/* Every shape an output can have; what the fields hold must not matter to a reader. */
static void outputs_write(struct buffer *out)
{
    struct message message = message_of(BYTES("raw"));
    append(out, &message);
    message.timestamp_ms = 1700000000000;
    message.value = BYTES("{\"id\":-7,\"text\":\"x\",\"lang\":\"en\"}");
    append(out, &message);
    message.value =
        BYTES("{\"id\":\"m\",\"texts\":[\"a\",\"b\",\"c\"],\"ids\":[1,\"zw\xc3\xb6lf\",null]}");
    append(out, &message);
    message.value = BYTES("\x83\xa4text\xa1x\xa1n\x81\x01\x02\xa1s\xa2\xff\xfe");
    append(out, &message);
    message.value = BYTES("raw");
    message.key = BYTES("\x01\xff");
    append(out, &message);
}

static const char expected[] = "texts 1-0\t4\t1.000000\n"
                               "-7\t4\t1.000000\n"
                               "1\t4\t1.000000\n"
                               "zw\xc3\xb6lf\t4\t1.000000\n"
                               "m/2\t4\t0.250000\n"
                               "texts 1-0\t4\t1.000000\n"
                               "b'\\x01\\xff'\t4\t1.000000\n";

static void run(const char *command, const char *wanted)
{
    char got[1024];
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    got[fread(got, 1, sizeof got - 1, pipe)] = '\0';
    assert_int_equal(pclose(pipe), 0);
    assert_string_equal(got, wanted);
}

static void reader_test(void **state)
{
    (void)state;
    if (system(PYTHON " -c 'import msgpack, numpy' 2>/dev/null") != 0) {
        print_message("skipped: " PYTHON " has no msgpack or numpy; install python3-msgpack and "
                      "python3-numpy\n");
        skip();
    }
    struct buffer out = {0};
    outputs_write(&out);
    char path[] = "/tmp/test_codec_reader.XXXXXX", command[4096];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, out.ptr, out.len), out.len);
    close(fd);
    buffer_close(&out);
    setenv("PYTHONIOENCODING", "utf-8", 1);
    snprintf(command, sizeof command, PYTHON " '%s' %s", READER, path);
    run(command, expected);
    snprintf(command, sizeof command, "cat %s | " PYTHON " '%s'", path, READER);
    run(command, expected);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(reader_test)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
