/*
 * test_pipeline_chunks.c: long texts through the pipeline, on real sessions of a tiny model: each
 * piece is what the output says of it, and its vector is, byte for byte, that of the same
 * characters embedded alone.
 */
#define _GNU_SOURCE /* memmem */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "tests/support/pipeline_rig.h"
#include "tests/support/tiny_model.h"
#include "worker/pipeline/cache.h"
#include "worker/codec/prompt.h"
#include "connectors/utf8.h"

enum { MAX_TOKENS = 64, OVERLAP = 8 };

static char long_text[3000]; /* no quotes and no line ends: it goes into JSON as it is */
static const char short_text[] = "the weather in June";

static void make_long_text(void)
{
    static const char *const words[] = {"the",
                                        "weather",
                                        "in",
                                        "June.",
                                        "caf\xc3\xa9",
                                        "It",
                                        "is",
                                        "\xe2\x98\x83\xe2\x98\x83",
                                        "\xf0\x9f\x98\x80!",
                                        "and"};
    unsigned random = 7;
    size_t len = 0;
    while (len < sizeof long_text - 40) {
        random = random * 1103515245 + 12345;
        len += (size_t)snprintf(long_text + len, sizeof long_text - len, "%s%s", len ? " " : "",
                                words[random / 65536 % 10]);
    }
}

static void open_rig(struct rig *rig, const struct model *model, size_t n)
{
    rig_open(rig, n);
    rig->fake.script.finite = true;
    rig->model = model;
    rig->options.embedder = NULL;
    rig->options.n_threads = 3;
    rig->options.chunk = (struct chunk_options){true, MAX_TOKENS, OVERLAP, false};
    rig->options.session.too_long = TOO_LONG_ERROR;
}

static const char *skip_chars(const char *text, size_t n)
{
    for (; n > 0; n--)
        text += abs(utf8_next(text, strlen(text)));
    return text;
}

static const struct prompt *document; /* of the model of all tests here */

static void expect_vector(struct session *session, const char *title, const char *text, size_t len,
                          const char *vector)
{
    static char prompted[8000];
    struct bytes title_bytes = {title, title ? strlen(title) : 0};
    len =
        prompt_render(document, title_bytes, (struct bytes){text, len}, prompted, sizeof prompted);
    float row[TINY_MODEL_DIM];
    struct embed_result result;
    session_embed(session, &(struct text){prompted, len}, 1, (float *[]){row}, &result);
    assert_int_equal(result.status, 0);
    assert_true(result.n_tokens <= MAX_TOKENS);
    assert_memory_equal(vector, row, sizeof row);
}

/*
 * The vectors of one payload: pieces `from` and so on of long_text, whose id is parent, or
 * short_text with the id "a". Returns how many pieces there were.
 */
static size_t check_payload(struct session *session, struct bytes payload, const char *parent,
                            const char *title, size_t from, bool many)
{
    struct codec_output output;
    struct refusal why;
    if (codec_output_read(payload, &output, &why) != 0)
        fail_msg("%s", why.reason);
    assert_int_equal(output.many, many);
    const char *at = output.ids, *at_chunk[4];
    memcpy(at_chunk, output.chunked, sizeof at_chunk);
    size_t n_pieces = 0;
    for (size_t i = 0; i < output.n; i++) {
        char number[32], parent_number[32], wanted[60];
        struct chunk chunk;
        const char *vector = output.vectors + i * TINY_MODEL_DIM * sizeof(float);
        struct bytes id = codec_output_id(&output, &at, number);
        if (!codec_output_chunk(&output, at_chunk, parent_number, &chunk)) {
            assert_int_equal(id.len, 1);
            assert_memory_equal(id.ptr, "a", 1);
            expect_vector(session, title, short_text, strlen(short_text), vector);
            continue;
        }
        assert_int_equal(chunk.number, from + n_pieces);
        assert_int_equal(chunk.parent_is_number, strcmp(parent, "7") == 0);
        int len = snprintf(wanted, sizeof wanted, "%s#%zu", parent, from + n_pieces++);
        assert_int_equal(id.len, len);
        assert_memory_equal(id.ptr, wanted, (size_t)len);
        assert_int_equal(chunk.parent.len, strlen(parent));
        assert_memory_equal(chunk.parent.ptr, parent, chunk.parent.len);
        const char *start = skip_chars(long_text, chunk.start);
        const char *end = skip_chars(start, chunk.end - chunk.start);
        expect_vector(session, title, start, (size_t)(end - start), vector);
    }
    return n_pieces;
}

static void write_messages(struct rig *rig)
{
    static char json[2][sizeof long_text + 200];
    snprintf(json[0], sizeof json[0], "{\"id\":7,\"text\":\"%s\"}", long_text);
    snprintf(json[1], sizeof json[1],
             "{\"id\":\"m\",\"title\":\"T\",\"texts\":[\"%s\",\"%s\"],\"ids\":[\"a\",\"b\"]}",
             short_text, long_text);
    rig->fake.messages[0].value = json[0];
    rig->fake.messages[1].value = json[1];
    rig->fake.messages[2].value = short_text;
    rig->fake.messages[2].key = "a";
}

static struct bytes whole_output(const struct rig *rig, size_t i)
{
    const struct fake_message *message = &rig->fake.messages[i];
    assert_int_equal(message->n_outputs, 1);
    return (struct bytes){message->value_out, message->value_out_len};
}

static void test_a_payload_for_each_message(void **state)
{
    struct rig rig;
    struct session *session = NULL;
    open_rig(&rig, *state, 3);
    assert_int_equal(session_open(&session, *state, &rig.options.session), 0);
    write_messages(&rig);
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    size_t n = check_payload(session, whole_output(&rig, 0), "7", NULL, 0, true);
    size_t n_second = check_payload(session, whole_output(&rig, 1), "b", "T", 0, true);
    assert_true(n > 25 && n_second > 25);
    assert_int_equal(check_payload(session, whole_output(&rig, 2), "", NULL, 0, false), 0);
    char documents[200];
    snprintf(documents, sizeof documents, "7 chunks=%zu [0]\n", n);
    assert_string_equal(rig.fake.messages[0].documents_out, documents);
    snprintf(documents, sizeof documents, "a\nb chunks=%zu\n", n_second);
    assert_string_equal(rig.fake.messages[1].documents_out, documents);
    assert_string_equal(rig.fake.messages[2].documents_out, "a [0]\n");
    assert_int_equal(rig.stats.messages, 3);
    assert_int_equal(rig.stats.texts, 4);
    assert_int_equal(rig.stats.embedded_texts, 4);
    assert_int_equal(rig.stats.chunks, n + n_second);
    assert_int_equal(rig.stats.truncated, 0);
    assert_int_equal(rig.stats.inflight_texts, 0);
    session_close(session);
    rig_close(&rig);
}

/* Of `n` pieces that JSON tells of, as read by another library. */
static void check_json(const struct rig *rig, size_t i, const char *parent)
{
    struct bytes payload = whole_output(rig, i);
    json_error_t error;
    json_t *root = json_loadb(payload.ptr, payload.len, 0, &error);
    if (!root)
        fail_msg("%s", error.text);
    size_t n = json_array_size(json_object_get(root, "ids")), n_whole = 0;
    assert_true(n > 25);
    assert_int_equal(json_array_size(json_object_get(root, "parent")), n);
    for (size_t at = 0, number = 0; at < n; at++) {
        json_t *got = json_array_get(json_object_get(root, "parent"), at);
        json_t *chunk = json_array_get(json_object_get(root, "chunk"), at);
        json_t *start = json_array_get(json_object_get(root, "start"), at);
        json_t *end = json_array_get(json_object_get(root, "end"), at);
        if (json_is_null(got)) {
            assert_true(json_is_null(chunk) && json_is_null(start) && json_is_null(end));
            n_whole++;
            continue;
        }
        assert_true(json_is_integer(got) ? json_integer_value(got) == atoi(parent)
                                         : strcmp(json_string_value(got), parent) == 0);
        assert_int_equal(json_integer_value(chunk), number++);
        assert_true(json_integer_value(start) < json_integer_value(end));
    }
    assert_int_equal(n_whole, i);
    json_decref(root);
}

static void test_json_says_the_same(void **state)
{
    struct rig rig;
    open_rig(&rig, *state, 3);
    write_messages(&rig);
    rig.options.output_format = OUTPUT_JSON;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    check_json(&rig, 0, "7");
    check_json(&rig, 1, "b");
    struct bytes whole = whole_output(&rig, 2); /* nothing new where nothing was cut */
    assert_null(memmem(whole.ptr, whole.len, "\"parent\"", 8));
    rig_close(&rig);
}

static void test_a_payload_for_each_piece(void **state)
{
    struct rig rig;
    struct session *session = NULL;
    open_rig(&rig, *state, 3);
    assert_int_equal(session_open(&session, *state, &rig.options.session), 0);
    write_messages(&rig);
    rig.fake.script.layout = SINK_PER_TEXT;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    const struct fake_message *message = &rig.fake.messages[0];
    assert_true(message->n_parts > 25);
    assert_int_equal(message->vector_out_len, message->n_parts * TINY_MODEL_DIM * sizeof(float));
    /* All maps are of nearly one length, so the next one is found by its beginning. */
    const char *at = message->value_out, *end = at + message->value_out_len, *id = message->id_out;
    for (size_t i = 0; i < message->n_parts; i++) {
        char wanted[40];
        snprintf(wanted, sizeof wanted, "7#%zu", i);
        assert_string_equal(id, wanted);
        id += strlen(id) + 1;
        const char *next = memmem(at + 1, (size_t)(end - at) - 1, at, 4);
        struct bytes payload = {at, (size_t)((next ? next : end) - at)};
        assert_int_equal(check_payload(session, payload, "7", NULL, i, false), 1);
        at = next;
    }
    session_close(session);
    rig_close(&rig);
}

static void test_dead_letters(void **state)
{
    struct rig rig;
    static char title[sizeof long_text + 600], raw[sizeof long_text];
    open_rig(&rig, *state, 4);
    snprintf(title, sizeof title, "{\"title\":\"%.*s\",\"text\":\"%s\"}",
             (int)(skip_chars(long_text, 200) - long_text), long_text, long_text);
    memcpy(raw, long_text, sizeof raw);
    raw[100] = '\xff';
    rig.fake.messages[0].value = title;
    rig.fake.messages[1].value = raw;
    rig.fake.messages[2].value = long_text; /* more than 20 pieces */
    rig.fake.messages[3].value = short_text;
    rig.options.decode.max_texts = 20;
    rig.options.session.bad_utf8 = BAD_UTF8_ERROR;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_string_equal(rig.fake.messages[0].dead_code, "text_too_long");
    assert_string_equal(rig.fake.messages[1].dead_code, "bad_utf8");
    assert_string_equal(rig.fake.messages[2].dead_code, "too_many_texts");
    assert_int_equal(rig.fake.messages[3].n_outputs, 1);
    assert_int_equal(rig.stats.chunks, 0);
    assert_int_equal(rig.stats.inflight_texts, 0);
    rig_close(&rig);
}

/* Many batches at once, some with long texts and some without: in order, and nothing is left. */
static void test_many_batches(void **state)
{
    struct rig rig;
    static char texts[120][700];
    open_rig(&rig, *state, 120);
    for (size_t i = 0; i < 120; i++) {
        snprintf(texts[i], sizeof texts[i], "%zu %.*s.", i, i % 3 ? 12 : 600, long_text);
        rig.fake.messages[i].value = texts[i];
    }
    rig.options.decode.format = INPUT_RAW;
    rig.options.session.bad_utf8 = BAD_UTF8_REPLACE; /* a text may end inside a character */
    rig.fake.script.shuffle = true;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_int_equal(rig.fake.n_acked, 120);
    assert_int_equal(rig.stats.texts, 120);
    assert_true(rig.stats.chunks >= 4 * 40);
    assert_int_equal(rig.stats.inflight_texts, 0);
    rig_close(&rig);
}

static const char bad_piece[] = "\xe2\x98\x83 in"; /* in some of long_text and no other */

static void embed_badly(struct session *session, const struct text *texts, size_t n,
                        float *const *rows, struct embed_result *results)
{
    session_embed(session, texts, n, rows, results);
    for (size_t i = 0; i < n; i++)
        if (memmem(texts[i].ptr, texts[i].len, bad_piece, sizeof bad_piece - 1))
            rows[i][0] = NAN;
}

/* A message is a dead letter as a whole: nobody gets some of its pieces. */
static void test_one_piece_fails(void **state)
{
    struct embedder bad = embedder_sessions;
    bad.embed = embed_badly;
    assert_non_null(strstr(long_text, bad_piece));
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        open_rig(&rig, *state, 3);
        write_messages(&rig);
        rig.fake.messages[1].value = "{\"id\":\"m\",\"text\":\"It is short.\"}";
        rig.fake.script.layout = i ? SINK_PER_TEXT : SINK_PER_MESSAGE;
        rig.options.embedder = &bad;
        rig_start(&rig);
        rig_finish(&rig, PIPELINE_DRAINED);
        assert_string_equal(rig.fake.messages[0].dead_code, "bad_embedding");
        assert_int_equal(rig.fake.messages[0].n_dead, 1);
        assert_int_equal(rig.fake.messages[0].n_outputs, 0);
        assert_int_equal(rig.fake.messages[1].n_outputs, 1);
        assert_int_equal(rig.fake.n_acked, 3);
        assert_int_equal(rig.stats.messages, 2);
        assert_int_equal(rig.stats.dead_letters, 1);
        assert_int_equal(rig.stats.chunks, 0);
        assert_int_equal(rig.stats.inflight_texts, 0);
        rig_close(&rig);
    }
}

/*
 * A piece is known to the cache by its own characters, and the text it is of is not. Runs: nothing
 * is known; everything is; shorter pieces are other texts.
 */
static void test_cached(void **state)
{
    const struct cache_options options = {.memory_bytes = 4 << 20};
    const struct session_options strict = {.too_long = TOO_LONG_ERROR};
    struct cache *cache = NULL;
    struct session *session = NULL;
    char err[300];
    uint64_t known = 0;
    assert_int_equal(
        cache_open(&cache, &options, *state, &embedder_sessions, &strict, err, sizeof err), 0);
    assert_int_equal(session_open(&session, *state, &strict), 0);
    for (size_t run = 0; run < 3; run++) {
        struct rig rig;
        open_rig(&rig, *state, 3);
        write_messages(&rig);
        rig.options.cache = cache;
        rig.options.chunk.max_tokens -= run == 2 ? 8 : 0;
        rig_start(&rig);
        rig_finish(&rig, PIPELINE_DRAINED);
        size_t n = check_payload(session, whole_output(&rig, 0), "7", NULL, 0, true);
        n += check_payload(session, whole_output(&rig, 1), "b", "T", 0, true);
        assert_int_equal(rig.stats.chunks, n);
        assert_int_equal(check_payload(session, whole_output(&rig, 2), "", NULL, 0, false), 0);
        assert_int_equal(rig.stats.memory_hits + rig.stats.cache_misses + rig.stats.duplicates,
                         n + 2);
        if (run == 0)
            known = rig.stats.cache_misses;
        if (run < 2)
            assert_int_equal(rig.stats.memory_hits, run ? known : 0);
        else /* the short text twice; a few pieces happen to be the same */
            assert_true(rig.stats.memory_hits >= 2 && rig.stats.cache_misses > known * 3 / 4);
        rig_close(&rig);
    }
    session_close(session);
    cache_close(cache);
}

static void never_ends(void *ctx, enum pipeline_end how)
{
    (void)ctx;
    fail_msg("a pipeline that was not opened ended: %d", how);
}

static void test_options(void **state)
{
    static const struct chunk_options wrong[] = {{true, CHUNK_TOKENS_MIN - 1, 0, false},
                                                 {true, 257, 0, false}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct rig rig;
        char err[300] = "";
        open_rig(&rig, *state, 0);
        rig.options.chunk = wrong[i];
        fake_use(&rig.fake);
        assert_int_equal(pipeline_open(&rig.pipeline, &rig.loop, *state, &fake_source_ops,
                                       &fake_sink_ops, NULL, &rig.options, never_ends, &rig, err,
                                       sizeof err),
                         -EINVAL);
        assert_non_null(strstr(err, "expected 32 to 256"));
        uv_run(&rig.loop, UV_RUN_DEFAULT);
        rig_close(&rig);
    }
}

static int model_make(void **state)
{
    struct tiny_model_options options = TINY_MODEL_DEFAULTS;
    options.n_ctx = 256;
    make_long_text();
    int rc = tiny_model_open((struct model **)state, &options);
    if (rc == 0)
        document = prompt_find(model_info(*state), (struct bytes){"document", 8});
    return rc;
}

static int model_end(void **state)
{
    model_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_payload_for_each_message),
        cmocka_unit_test(test_json_says_the_same),
        cmocka_unit_test(test_a_payload_for_each_piece),
        cmocka_unit_test(test_dead_letters),
        cmocka_unit_test(test_one_piece_fails),
        cmocka_unit_test(test_cached),
        cmocka_unit_test(test_many_batches),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, model_make, model_end);
}
