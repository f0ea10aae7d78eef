/*
 * test_tokenizer.c: the ids are right: against the reference, and against the definition of BPE.
 *
 * Owns:    a slow, obvious tokenizer, and the reference ids of 83 texts.
 * Refuses: to pass silently without the real model: what needs it is skipped with a reason.
 * Threads: one.
 * Why:     the fast way shares no code with the slow one: it has pieces, chains and a count of
 *          spaces where the slow one has the plain list of merges, looked through again every time.
 *
 * `test_tokenizer --dump MODEL` is the other half of check_tokenizer.py: {u32 len; bytes} on stdin,
 * {u32 n; i32 ids[n]} on stdout, in the byte order of the machine.
 */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "inference/tokenizer_internal.h"
#include "tests/support/tokenizer_toy.h"

/* The slow tokenizer: merge_rank and merge_id are [N_TOKENS][N_TOKENS], the list of merges. */
struct merge {
    uint16_t left, right, result;
    float score;
    size_t left_chars, right_chars;
};

static uint32_t merge_rank[N_TOKENS][N_TOKENS]; /* 0: no such merge */
static uint16_t merge_id[N_TOKENS][N_TOKENS];

static size_t count_chars(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += (*text & 0xC0) != 0x80;
    return n;
}

static int compare_merges(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;

    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    if (x->left_chars != y->left_chars)
        return x->left_chars > y->left_chars ? -1 : 1;
    if (x->right_chars != y->right_chars)
        return x->right_chars > y->right_chars ? -1 : 1;
    return 0;
}

static void merges_make(const struct token *tokens)
{
    static struct merge merges[N_TOKENS * 32];
    size_t n = 0;

    memset(merge_rank, 0, sizeof(merge_rank));
    for (size_t t = 0; t < N_TOKENS; t++)
        for (size_t l = 0; l < N_TOKENS; l++) {
            size_t len = strlen(tokens[l].text);
            if (strncmp(tokens[t].text, tokens[l].text, len) != 0)
                continue;
            for (size_t r = 0; r < N_TOKENS; r++) {
                if (strcmp(tokens[t].text + len, tokens[r].text) != 0)
                    continue;
                /* in the published scores every added token stands at 0, before all others */
                merges[n++] = (struct merge){(uint16_t)l,
                                             (uint16_t)r,
                                             (uint16_t)t,
                                             tokens[t].type == NORMAL ? tokens[t].score : 1,
                                             count_chars(tokens[l].text),
                                             count_chars(tokens[r].text)};
            }
        }
    qsort(merges, n, sizeof(*merges), compare_merges);
    for (size_t i = 0; i < n; i++) {
        merge_rank[merges[i].left][merges[i].right] = (uint32_t)i + 1;
        merge_id[merges[i].left][merges[i].right] = merges[i].result;
    }
}

static size_t slow_added(const struct token *tokens, const char *at, int32_t *id)
{
    size_t best = 0;

    for (int32_t t = 0; t < N_TOKENS; t++) {
        size_t len = strlen(tokens[t].text);
        if (tokens[t].type != NORMAL && tokens[t].type != BYTE && len > best &&
            strncmp(at, tokens[t].text, len) == 0) {
            best = len;
            *id = t;
        }
    }
    return best;
}

static size_t slow_merge(int32_t *out, size_t n)
{
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++) {
            uint32_t rank = merge_rank[out[i]][out[i + 1]];
            if (rank && (best == n || rank < merge_rank[out[best]][out[best + 1]]))
                best = i;
        }
        if (best == n)
            return n;
        out[best] = merge_id[out[best]][out[best + 1]];
        memmove(out + best + 1, out + best + 2, (n - best - 2) * sizeof(*out));
        n--;
    }
}

/* What stands between two added tokens, spaces replaced. */
static size_t slow_segment(const struct token *tokens, const char *text, size_t len, int32_t *out)
{
    size_t n = 0;

    for (size_t at = 0; at < len;) {
        size_t step = 1;
        while (at + step < len && (text[at + step] & 0xC0) == 0x80)
            step++;
        int32_t t = N_TOKENS - 1;
        while (t >= 0 && !(tokens[t].type == NORMAL && strlen(tokens[t].text) == step &&
                           strncmp(tokens[t].text, text + at, step) == 0))
            t--;
        for (size_t i = 0; t < 0 && i < step; i++)
            out[n++] = TOY_BYTE_0 + (uint8_t)text[at + i];
        if (t >= 0)
            out[n++] = t;
        at += step;
    }
    return slow_merge(out, n);
}

/* NUL-terminated, valid UTF-8. */
static size_t slow_encode(const struct token *tokens, const char *text, int32_t *out)
{
    char *segment = malloc(3 * strlen(text) + 1);
    size_t n = 0, len = 0;

    assert_non_null(segment);
    out[n++] = TOY_BOS;
    while (*text) {
        int32_t id = -1;
        size_t step = slow_added(tokens, text, &id);
        if (step) {
            n += slow_segment(tokens, segment, len, out + n);
            out[n++] = id;
            len = 0;
        } else {
            step = 1;
            if (*text == ' ') {
                memcpy(segment + len, SP, 3);
                len += 3;
            } else {
                segment[len++] = *text;
            }
        }
        text += step;
    }
    n += slow_segment(tokens, segment, len, out + n);
    out[n++] = TOY_EOS;
    free(segment);
    return n;
}

static void random_text(uint32_t *seed, size_t n_parts, char *out)
{
    static const char *const parts[] = {"a",
                                        "b",
                                        "c",
                                        "a",
                                        "b",
                                        " ",
                                        " ",
                                        "  ",
                                        "   ",
                                        SP,
                                        SP,
                                        "\n",
                                        "\n\n",
                                        "<",
                                        "x",
                                        "y",
                                        ">",
                                        "<x>",
                                        "<xy",
                                        "<xy>",
                                        "<xy>z",
                                        "\xc3\xa9",
                                        "\xe5\xa5\xbd",
                                        "\xf0\x9f\x98\x80",
                                        "[",
                                        "]",
                                        "[ab]",
                                        "z",
                                        "\xc3\xa8",
                                        "\t",
                                        "<unk>",
                                        "<bos>",
                                        "<0x0A>",
                                        "aba",
                                        "bab"};
    size_t span = 1 + random_next(seed) % (sizeof(parts) / sizeof(*parts));
    size_t shift = random_next(seed);

    *out = 0;
    while (n_parts--)
        out = stpcpy(out,
                     parts[(shift + random_next(seed) % span) % (sizeof(parts) / sizeof(*parts))]);
}

static void compare_with_slow(struct toy *toy, const char *text, uint32_t seed)
{
    int32_t *expected = malloc((3 * strlen(text) + 2) * sizeof(*expected));
    size_t n, n_expected;
    int32_t *ids = encode_all(toy->tokenizer, toy->scratch, text, strlen(text), &n);

    assert_non_null(expected);
    n_expected = slow_encode(toy->tokens, text, expected);
    if (n != n_expected || memcmp(ids, expected, n * sizeof(*ids)) != 0)
        fail_msg("seed %u: %zu tokens, expected %zu, for '%.200s'", seed, n, n_expected, text);
    free(expected);
    free(ids);
}

static void test_fast_equals_slow(void **state)
{
    static char text[20 * 60 + 6001];

    (void)state;
    for (uint32_t seed = 1; seed <= 12; seed++) {
        struct toy toy;
        uint32_t random = seed * 77;

        toy_open(&toy, seed, seed % 2);
        merges_make(toy.tokens);
        for (int i = 0; i < 2000; i++) {
            random_text(&random, random_next(&random) % 60, text);
            compare_with_slow(&toy, text, seed);
        }
        for (size_t i = 0; i < 6000; i++) /* one piece longer than the fixed memory */
            text[i] = "abc"[random_next(&random) % (1 + seed % 3)];
        text[6000] = 0;
        compare_with_slow(&toy, text, seed);
        toy_close(&toy);
    }
}

static void test_spaces(void **state)
{
    static const char *const texts[] = {"",
                                        " ",
                                        "  ",
                                        "     ",
                                        "        a",
                                        SP,
                                        SP SP,
                                        " " SP,
                                        " " SP SP,
                                        SP SP SP SP SP,
                                        SP SP SP SP SP " ",
                                        "a  b",
                                        "a " SP " b",
                                        SP " " SP " " SP " " SP,
                                        "a" SP SP " b",
                                        "  \n  ",
                                        " \n\n\n\n "};

    (void)state;
    for (uint32_t seed = 1; seed <= 4; seed++) {
        struct toy toy;

        toy_open(&toy, seed, seed % 2);
        merges_make(toy.tokens);
        for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
            compare_with_slow(&toy, texts[i], seed);
        toy_close(&toy);
    }
}

/*
 * Pieces that do not begin as characters: a text can hardly lead to unequal neighbours that make
 * one token, or to equal pairs found from right to left, and these are where the order is easy to
 * miss.
 */
static void compare_pieces(struct toy *toy, const struct vocab *vocab, uint32_t seed)
{
    struct piece *piece;
    uint32_t random = seed;
    int32_t ids[60], expected[60];

    assert_int_equal(piece_open(&piece), 0);
    for (int i = 0; i < 5000; i++) {
        size_t n = 1 + random_next(&random) % 60, n_expected;
        struct id_row row = {.ids = ids, .max = 60};
        uint32_t first = vocab_find(vocab, (const uint8_t *)"aa", 2);
        uint32_t n_words = 2 + random_next(&random) % 8;
        for (size_t k = 0; k < n; k++) {
            uint32_t id = first + random_next(&random) % n_words;
            const char *text = k % 7 ? toy->tokens[id].text : "a";
            id = vocab_find(vocab, (const uint8_t *)text, strlen(text));
            expected[k] = (int32_t)id;
            assert_int_equal(piece_add(piece, (const uint8_t *)text, strlen(text), id), 0);
        }
        n_expected = slow_merge(expected, n);
        piece_merge(piece, vocab, &row);
        if (row.n != n_expected || memcmp(ids, expected, row.n * sizeof(*ids)) != 0)
            fail_msg("seed %u, piece %d: %zu tokens, expected %zu", seed, i, row.n, n_expected);
    }
    piece_close(piece);
}

static void test_merge_order(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 20; seed++) {
        struct toy toy;
        struct vocab vocab;
        char err[256] = "";

        toy_open(&toy, seed, true);
        merges_make(toy.tokens);
        assert_int_equal(vocab_open(&vocab, toy.gguf, VOCAB_SPM, err, sizeof(err)), 0);
        compare_pieces(&toy, &vocab, seed);
        vocab_close(&vocab);
        toy_close(&toy);
    }
}

/* The real model. */
struct real {
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    struct tokenizer_scratch *scratch;
};

static int real_open(struct real *real, const char *path)
{
    char err[512] = "";

    memset(real, 0, sizeof(*real));
    if (gguf_open(&real->gguf, path, err, sizeof(err)) ||
        tokenizer_open(&real->tokenizer, real->gguf, err, sizeof(err)) ||
        tokenizer_scratch_open(&real->scratch, real->tokenizer)) {
        fprintf(stderr, "%s: %s\n", path, err);
        return -1;
    }
    return 0;
}

static void real_close(struct real *real)
{
    tokenizer_scratch_close(real->scratch);
    tokenizer_close(real->tokenizer);
    gguf_close(real->gguf);
}

static FILE *data_open(const char *name)
{
    char path[512];
    FILE *file;

    snprintf(path, sizeof(path), TESTS_DIR "/data/%s", name);
    file = fopen(path, "r");
    if (!file)
        fail_msg("cannot open %s", path);
    return file;
}

static json_t *line_read(FILE *file)
{
    json_error_t error;
    json_t *line = json_loadf(file, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, &error);

    if (!line)
        fail_msg("not JSON: %s", error.text);
    return line;
}

static void compare_with_reference(struct real *real, json_t *text, json_t *tokens)
{
    static int32_t ids[2048];
    json_t *expected = json_object_get(tokens, "ids"), *string = json_object_get(text, "text");
    size_t n, n_total;

    assert_int_equal(json_integer_value(json_object_get(text, "id")),
                     json_integer_value(json_object_get(tokens, "id")));
    assert_int_equal(
        tokenizer_encode(real->tokenizer, real->scratch,
                         (struct text){json_string_value(string), json_string_length(string)},
                         BAD_UTF8_ERROR, ids, 2048, &n, &n_total),
        0);
    assert_int_equal(n_total, json_integer_value(json_object_get(tokens, "n_tokens_untruncated")));
    assert_int_equal(n, json_array_size(expected));
    for (size_t i = 0; i < n; i++)
        if (ids[i] != json_integer_value(json_array_get(expected, i)))
            fail_msg("text %d, token %zu: %d, expected %d",
                     (int)json_integer_value(json_object_get(text, "id")), i, ids[i],
                     (int)json_integer_value(json_array_get(expected, i)));
}

static void test_reference_ids(void **state)
{
    char path[512];
    struct real real;
    FILE *texts, *tokens;

    (void)state;
    if (!real_model_path(path, sizeof(path)))
        skip();
    assert_int_equal(real_open(&real, path), 0);
    assert_int_equal(tokenizer_n_vocab(real.tokenizer), 262144);
    texts = data_open("texts.jsonl");
    tokens = data_open("tokens.jsonl");
    for (int i = 0; i < 83; i++) {
        json_t *text = line_read(texts), *ids = line_read(tokens);
        compare_with_reference(&real, text, ids);
        json_decref(text);
        json_decref(ids);
    }
    fclose(texts);
    fclose(tokens);
    real_close(&real);
}

static int dump(const char *path)
{
    struct real real;
    uint32_t len;

    if (real_open(&real, path))
        return 1;
    while (fread(&len, sizeof(len), 1, stdin) == 1) {
        char *text = malloc(len + 1);
        size_t n;
        int32_t *ids;
        uint32_t n32;
        if (!text || fread(text, 1, len, stdin) != len)
            return 1;
        ids = encode_all(real.tokenizer, real.scratch, text, len, &n);
        n32 = (uint32_t)n;
        if (fwrite(&n32, sizeof(n32), 1, stdout) != 1 ||
            fwrite(ids, sizeof(*ids), n, stdout) != n || fflush(stdout))
            return 1;
        free(ids);
        free(text);
    }
    real_close(&real);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fast_equals_slow),
        cmocka_unit_test(test_spaces),
        cmocka_unit_test(test_merge_order),
        cmocka_unit_test(test_reference_ids),
    };

    if (argc == 3 && strcmp(argv[1], "--dump") == 0)
        return dump(argv[2]);
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
