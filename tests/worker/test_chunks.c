/*
 * test_chunks.c: where long texts are cut: what holds for any text, by the tiny model's tokenizer
 * and the real one's, and which borders are taken.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "inference/embed.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tokenizer_toy.h"
#include "worker/pipeline/chunks.h"
#include "connectors/utf8.h"

#define SEED 20261125u

static const struct bytes no_lead = {"", 0};

static int count_by_session(void *ctx, struct bytes text, size_t *n_tokens)
{
    struct embed_result result;
    size_t n_ids;
    int err = session_tokenize(ctx, (struct text){text.ptr, text.len}, NULL, 0, &n_ids, &result);
    *n_tokens = result.n_tokens;
    return err;
}

static size_t tokens_of(const struct chunker *chunker, struct bytes lead, const char *text,
                        size_t len)
{
    size_t n = 0;
    char *whole = malloc(lead.len + len + 1);
    assert_non_null(whole);
    memcpy(whole, lead.ptr, lead.len);
    memcpy(whole + lead.len, text, len);
    assert_int_equal(chunker->count(chunker->ctx, (struct bytes){whole, lead.len + len}, &n), 0);
    free(whole);
    return n;
}

static bool is_white(const char *text, size_t start, size_t end)
{
    for (; start < end; start++)
        if (!strchr(" \t\n\v\f\r", text[start]) || text[start] == '\0')
            return false;
    return true;
}

/* Where characters begin, by reading from the beginning. */
static char *find_borders(struct bytes text)
{
    char *is_border = calloc(1, text.len + 1);
    assert_non_null(is_border);
    is_border[text.len] = 1;
    for (size_t at = 0; at < text.len; at += (size_t)abs(utf8_next(text.ptr + at, text.len - at)))
        is_border[at] = 1;
    return is_border;
}

static void check_span(const struct chunker *chunker, struct bytes lead, struct bytes text,
                       size_t i, size_t n_ends)
{
    const struct span *span = &chunker->spans[i], *before = i ? span - 1 : NULL;
    assert_true(span->start < span->end && span->end <= text.len);
    assert_false(is_white(text.ptr, span->start, span->start + 1));
    assert_false(is_white(text.ptr, span->end - 1, span->end));
    assert_true(tokens_of(chunker, lead, text.ptr + span->start, span->end - span->start) <=
                chunker->max_tokens);
    if (!before) {
        assert_true(is_white(text.ptr, 0, span->start));
        return;
    }
    assert_true(span->start > before->start && span->end > before->end);
    if (span->start >= before->end) {
        assert_true(is_white(text.ptr, before->end, span->start));
        return;
    }
    size_t n = tokens_of(chunker, no_lead, text.ptr + span->start, before->end - span->start);
    assert_true(n - n_ends <= chunker->overlap);
}

/* All that chunks.h promises. Returns the number of pieces. */
static size_t check(struct chunker *chunker, struct bytes lead, struct bytes text)
{
    struct chunker fresh = *chunker;
    fresh.spans = NULL;
    fresh.window = NULL;
    fresh.spans_room = fresh.window_room = 0;
    assert_int_equal(chunks_find(chunker, lead, text), 0);
    assert_int_equal(chunks_find(&fresh, lead, text), 0);
    assert_int_equal(fresh.n, chunker->n);
    if (fresh.n > 0)
        assert_memory_equal(fresh.spans, chunker->spans, fresh.n * sizeof *fresh.spans);
    chunks_close(&fresh);

    size_t n_whole = tokens_of(chunker, lead, text.ptr, text.len);
    size_t n_ends = tokens_of(chunker, no_lead, "", 0);
    if (chunker->n == 0) {
        assert_true(n_whole <= chunker->max_tokens);
        return 0;
    }
    assert_true(n_whole > chunker->max_tokens || text.len > 64 * chunker->max_tokens);
    if (is_white(text.ptr, 0, text.len)) { /* has no border: its first character stands for it */
        assert_true(chunker->n == 1 && chunker->spans[0].start == 0 && chunker->spans[0].end == 1);
        return 1;
    }
    char *is_border = find_borders(text);
    for (size_t i = 0; i < chunker->n; i++) {
        check_span(chunker, lead, text, i, n_ends);
        assert_true(is_border[chunker->spans[i].start] && is_border[chunker->spans[i].end]);
    }
    free(is_border);
    assert_true(is_white(text.ptr, chunker->spans[chunker->n - 1].end, text.len));
    return chunker->n;
}

static const char *const pieces[] = {
    "the",
    " weather",
    " in June",
    ". It ",
    "!\n",
    "\n\n",
    " ",
    "      ",
    "\r\n\r\n\t",
    "caf\xc3\xa9",
    "internationalization",
    "1234567890",
    "e.g. ",
    "aaaaaaaaaaaaaaaaaaaaaaaaa",
    "\xe4\xbb\x8a\xe5\xa4\xa9",
    "\xe3\x80\x82",
    "\xe2\x80\x9cQuoted.\xe2\x80\x9d ",
    "\xf0\x9f\x98\x80",
    "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb",
    "\xff",
    "\xe2\x96",
    "\xe2\x96\x81",
    "<table>",
    "{\"key\": [1, 2]}",
    "\xd8\xa7\xd9\x84\xd8\xb3\xd9\x84\xd8\xa7\xd9\x85 ",
    "-----",
    "\x00z",
};
enum { N_PIECES = sizeof pieces / sizeof pieces[0] };

/* Some texts of many kinds of pieces, some of few again and again. */
static struct bytes make_text(char *out, size_t room, uint32_t *random)
{
    size_t len = 0, n_kinds = 1 + random_next(random) % N_PIECES;
    size_t first = random_next(random) % N_PIECES;
    size_t wanted = random_next(random) % (random_next(random) % 4 ? room / 8 : room - 40);
    while (len < wanted) {
        const char *piece = pieces[(first + random_next(random) % n_kinds) % N_PIECES];
        size_t n = piece[0] ? strlen(piece) : 2;
        memcpy(out + len, piece, n);
        len += n;
    }
    return (struct bytes){out, len};
}

static void check_random(const struct model *model, size_t max_tokens, size_t n_texts)
{
    static char room[20000];
    static const char *const leads[] = {"", "title: none | text: ", "title: The tower | text: "};
    struct session *session = NULL;
    assert_int_equal(session_open(&session, model, &(struct session_options){0}), 0);
    struct chunker chunker = {.max_spans = 100000, .count = count_by_session, .ctx = session};
    size_t n_cut = 0, n_whole = 0;
    for (uint32_t i = 0; i < n_texts; i++) {
        uint32_t random = SEED + i;
        const char *lead = leads[random_next(&random) % 3];
        struct bytes text = make_text(room, sizeof room, &random);
        /* Exactly as long as it is, so that reading behind it is seen. */
        char *exact = malloc(text.len + 1);
        assert_non_null(exact);
        memcpy(exact, text.ptr, text.len);
        exact = realloc(exact, text.len ? text.len : 1);
        chunker.max_tokens = max_tokens + random_next(&random) % max_tokens;
        chunker.overlap = random_next(&random) % (chunker.max_tokens / 2 + 1);
        if (check(&chunker, (struct bytes){lead, strlen(lead)}, (struct bytes){exact, text.len}))
            n_cut++;
        else
            n_whole++;
        free(exact);
    }
    assert_true(n_cut > n_texts / 4 && n_whole > 0);
    chunks_close(&chunker);
    session_close(session);
}

static void test_any_text(void **state)
{
    printf("seed %u\n", SEED);
    check_random(*state, 64, 200);
}

static void test_any_text_by_the_real_tokenizer(void **state)
{
    char path[600], err[300];
    struct model *model = NULL;
    (void)state;
    if (!real_model_path(path, sizeof path))
        skip();
    if (model_open(&model, path, NULL, PRECISION_EXACT, err, sizeof err) != 0)
        fail_msg("%s", err);
    check_random(model, 32, 100);
    model_close(model);
}

/* Borders, with a byte for a token. */

static int count_bytes(void *ctx, struct bytes text, size_t *n_tokens)
{
    (void)ctx;
    *n_tokens = text.len;
    return 0;
}

static void expect_pieces(size_t max_tokens, size_t overlap, const char *text, const char *wanted)
{
    struct chunker chunker = {
        .max_tokens = max_tokens, .overlap = overlap, .max_spans = 100, .count = count_bytes};
    char got[1000];
    size_t len = 0;
    check(&chunker, no_lead, (struct bytes){text, strlen(text)});
    for (size_t i = 0; i < chunker.n; i++)
        len += (size_t)snprintf(got + len, sizeof got - len, "%s%.*s", i ? "|" : "",
                                (int)(chunker.spans[i].end - chunker.spans[i].start),
                                text + chunker.spans[i].start);
    got[len] = '\0';
    assert_string_equal(got, wanted);
    chunks_close(&chunker);
}

static void test_borders(void **state)
{
    (void)state;
    expect_pieces(32, 0, "short enough", "");
    /* A paragraph's end before a sentence's, that before a line's, that before a word's. */
    expect_pieces(32, 0, "All that comes first, is.\n\nTo. Be seen here and there.",
                  "All that comes first, is.|To. Be seen here and there.");
    expect_pieces(32, 0, "All that comes to pass is. To be seen here, and there.",
                  "All that comes to pass is.|To be seen here, and there.");
    expect_pieces(32, 0, "All that comes to pass is\nto be seen here, and there",
                  "All that comes to pass is|to be seen here, and there");
    expect_pieces(32, 0, "All that comes to pass, is to be seen here and now and there.",
                  "All that comes to pass, is to|be seen here and now and there.");
    /* An abbreviation ends no sentence, a closing quote belongs to one. */
    expect_pieces(32, 0, "All that comes to us, e.g. to me is to be seen here and there",
                  "All that comes to us, e.g. to|me is to be seen here and there");
    expect_pieces(32, 0, "\"All that comes to pass is.\" To be seen here, and there.",
                  "\"All that comes to pass is.\"|To be seen here, and there.");
    /* Scripts without spaces: at the full stop, else between characters. */
    expect_pieces(32, 0,
                  "\xe4\xbb\x8a\xe5\xa4\xa9\xe4\xbb\x8a\xe5\xa4\xa9\xe4\xbb\x8a\xe5\xa4\xa9\xe4\xbb"
                  "\x8a\xe5\xa4\xa9\xe3\x80\x82\xe4\xbb\x8a\xe5\xa4\xa9\xe4\xbb\x8a",
                  "\xe4\xbb\x8a\xe5\xa4\xa9\xe4\xbb\x8a\xe5\xa4\xa9\xe4\xbb\x8a\xe5\xa4\xa9\xe4\xbb"
                  "\x8a\xe5\xa4\xa9\xe3\x80\x82|\xe4\xbb\x8a\xe5\xa4\xa9\xe4\xbb\x8a");
    /* White space at the ends of pieces is nobody's. */
    expect_pieces(32, 0, "  \n All that comes to pass here is   \n\n  to be seen.  \n",
                  "All that comes to pass here is|to be seen.");
}

static void test_overlap(void **state)
{
    (void)state;
    expect_pieces(32, 8, "All that comes to pass, is to be seen here and now and there.",
                  "All that comes to pass, is to|is to be seen here and now and|now and there.");
    expect_pieces(32, 16, "All of it comes. So be it. To be seen here, and there again.",
                  "All of it comes. So be it.|So be it. To be seen here, and|"
                  "seen here, and there again.");
    /* What is repeated must leave room for something new. */
    expect_pieces(32, 16, "Wholesomenesses abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
                  "Wholesomenesses abcdefghijklmno|abcdefghijklmnopqrstuvwxyzabcde|"
                  "pqrstuvwxyzabcdefghijklmnopqrst|efghijklmnopqrstuvwxyz");
}

static void test_limits(void **state)
{
    struct session *session = NULL;
    assert_int_equal(session_open(&session, *state, &(struct session_options){0}), 0);
    struct chunker chunker = {.max_tokens = 128,
                              .overlap = 16,
                              .max_spans = 1 << 20,
                              .count = count_by_session,
                              .ctx = session};
    static char large[1 << 18];
    static const char bytes[] = {'a', ' ', '\xff', '\n', '\x80', 'x'};
    for (size_t i = 0; i < sizeof bytes; i++) {
        memset(large, bytes[i], sizeof large);
        check(&chunker, no_lead, (struct bytes){large, sizeof large});
        memcpy(large, "at the beginning", 16);
        memcpy(large + sizeof large - 10, "at the end", 10);
        assert_true(check(&chunker, no_lead, (struct bytes){large, sizeof large}) > 1);
    }
    chunker.max_spans = 3;
    memset(large, 'x', sizeof large);
    assert_int_equal(chunks_find(&chunker, no_lead, (struct bytes){large, 100000}), -EOVERFLOW);
    struct bytes lead = {large, 400};
    assert_int_equal(chunks_find(&chunker, lead, (struct bytes){large, 1000}), -E2BIG);
    assert_int_equal(chunks_find(&chunker, no_lead, (struct bytes){large, 0}), 0);
    assert_int_equal(chunker.n, 0);
    chunks_close(&chunker);
    session_close(session);
}

static int model_make(void **state)
{
    struct tiny_model_options options = TINY_MODEL_DEFAULTS;
    options.n_ctx = 256;
    return tiny_model_open((struct model **)state, &options);
}

static int model_end(void **state)
{
    model_close(*state);
    return 0;
}

/* A block that fits into a piece is in one, wherever it lies; one that does not is cut. */
static void test_blocks(void **state)
{
    enum { LEN = 600, MAX = 100 };
    (void)state;
    for (size_t size = 5; size < 150; size += 7)
        for (size_t at = 0; at + size < LEN; at += 13) {
            char text[LEN];
            for (size_t i = 0; i < LEN; i++)
                text[i] = i % 9 == 8 ? (i % 27 == 26 ? '\n' : ' ') : 'a';
            text[0] = text[at] = text[at + size - 2] = text[LEN - 1] = 'b';
            text[at + size - 1] = '\n'; /* blocks are whole lines */
            if (at > 0)
                text[at - 1] = '\n';
            struct span block = {at, at + size};
            struct chunker chunker = {.max_tokens = MAX,
                                      .overlap = at % 2 ? 20 : 0,
                                      .max_spans = 100,
                                      .count = count_bytes,
                                      .blocks = &block,
                                      .n_blocks = 1};
            size_t n_whole = 0;
            assert_int_equal(chunks_find(&chunker, no_lead, (struct bytes){text, LEN}), 0);
            assert_true(chunker.n > 1);
            for (size_t i = 0; i < chunker.n; i++) {
                struct span span = chunker.spans[i];
                assert_true(span.end - span.start <= MAX &&
                            !is_white(text, span.start, span.start + 1));
                n_whole += span.start <= block.start && span.end + 1 >= block.end;
            }
            if (size <= MAX - MAX / 16 && n_whole == 0) /* windows are filled so far */
                fail_msg("a block of %zu at %zu is cut", size, at);
            chunks_close(&chunker);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),   cmocka_unit_test(test_borders),
        cmocka_unit_test(test_overlap),  cmocka_unit_test(test_limits),
        cmocka_unit_test(test_any_text), cmocka_unit_test(test_any_text_by_the_real_tokenizer),
    };
    return cmocka_run_group_tests(tests, model_make, model_end);
}
