/*
 * tokenizer_toy.c: see tokenizer_toy.h.
 */
#include "tests/support/tokenizer_toy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const added_texts[] = {"\n", "\n\n", "\n\n\n", "<x>", "<xy",    "<xy>z",
                                          "<<", "[ab]", "\t\t",   SP SP, SP SP SP, SP SP SP SP};
static const char *const chars[] = {
    SP,  "a", "b", "c", "<", "x", "y", ">", "\xc3\xa9", "\xe5\xa5\xbd", "\xf0\x9f\x98\x80",
    "[", "]"};
/* Words that merge with themselves, where the order among equal pairs shows. */
static const char *const words[] = {"aa",  "aaa", "aaaa", "ab",    "ba",
                                    "aba", "bab", "abab", "ababab"};

uint32_t random_next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static bool has_text(const struct token *tokens, size_t n, const char *text)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(tokens[i].text, text) == 0)
            return true;
    return false;
}

static bool holds_added(const char *text)
{
    for (size_t i = 0; i < sizeof(added_texts) / sizeof(*added_texts); i++)
        if (strstr(text, added_texts[i]))
            return true;
    return false;
}

void toy_tokens_make(struct token tokens[N_TOKENS], uint32_t seed)
{
    static const char *const specials[] = {"<pad>", "<eos>", "<bos>", "<unk>"};
    size_t n = 0, first_char;

    memset(tokens, 0, N_TOKENS * sizeof(*tokens));
    for (size_t i = 0; i < 4; i++, n++) {
        strcpy(tokens[n].text, specials[i]);
        tokens[n].type = i == 3 ? UNKNOWN : CONTROL;
    }
    for (int i = 0; i < 256; i++, n++) {
        snprintf(tokens[n].text, sizeof(tokens[n].text), "<0x%02X>", i);
        tokens[n].type = BYTE;
    }
    for (size_t i = 0; i < sizeof(added_texts) / sizeof(*added_texts); i++, n++) {
        strcpy(tokens[n].text, added_texts[i]);
        tokens[n].type = USER_DEFINED;
        tokens[n].score = -1000; /* what converters write */
    }
    first_char = n;
    for (size_t i = 0; i < sizeof(chars) / sizeof(*chars); i++, n++)
        strcpy(tokens[n].text, chars[i]);
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++, n++)
        strcpy(tokens[n].text, words[i]);
    while (n < N_TOKENS) {
        const char *l = tokens[first_char + random_next(&seed) % (n - first_char)].text;
        const char *r = tokens[first_char + random_next(&seed) % (n - first_char)].text;
        char text[64];
        snprintf(text, sizeof(text), "%s%s", l, r);
        if (strlen(text) < sizeof(tokens[n].text) && !holds_added(text) &&
            !has_text(tokens, n, text))
            strcpy(tokens[n++].text, text);
    }
    for (size_t i = first_char; i < N_TOKENS; i++)
        tokens[i].type = NORMAL;
    /* Scores all different, in no order: a merge may rank before the merges it is made of. */
    for (size_t i = first_char; i < N_TOKENS; i++)
        tokens[i].score = -(float)(i - first_char);
    for (size_t i = N_TOKENS - 1; i > first_char; i--) {
        size_t k = first_char + random_next(&seed) % (i - first_char + 1);
        float score = tokens[i].score;
        tokens[i].score = tokens[k].score;
        tokens[k].score = score;
    }
}

void toy_file_put(struct gguf_writer *out, const struct token *tokens, size_t n, bool real_spaces)
{
    gguf_put_header(out, 3, 0, 9);
    gguf_put_key_str(out, "general.architecture", "gemma-embedding");
    gguf_put_key_str(out, "tokenizer.ggml.model", "llama");
    gguf_put_key_u32(out, "tokenizer.ggml.bos_token_id", 2);
    gguf_put_key_u32(out, "tokenizer.ggml.eos_token_id", 1);
    gguf_put_key_bool(out, "tokenizer.ggml.add_bos_token", 1);
    gguf_put_key_bool(out, "tokenizer.ggml.add_eos_token", 1);
    gguf_put_key_array(out, "tokenizer.ggml.tokens", GGUF_STR, n);
    for (size_t i = 0; i < n; i++) {
        bool run = real_spaces && strncmp(tokens[i].text, SP SP, 6) == 0;
        char spaces[8] = "       ";
        spaces[run ? strlen(tokens[i].text) / 3 : 0] = 0;
        gguf_put_str(out, run ? spaces : tokens[i].text);
    }
    gguf_put_key_array(out, "tokenizer.ggml.scores", GGUF_F32, n);
    for (size_t i = 0; i < n; i++)
        gguf_put_f32(out, tokens[i].score);
    gguf_put_key_array(out, "tokenizer.ggml.token_type", GGUF_I32, n);
    for (size_t i = 0; i < n; i++)
        gguf_put_u32(out, (uint32_t)tokens[i].type);
}

void toy_open(struct toy *toy, uint32_t seed, bool real_spaces)
{
    char err[256] = "";

    memset(toy, 0, sizeof(*toy));
    toy_tokens_make(toy->tokens, seed);
    toy_file_put(&toy->file, toy->tokens, N_TOKENS, real_spaces);
    if (gguf_open_memory(&toy->gguf, toy->file.bytes, toy->file.len, "toy", err, sizeof(err)) ||
        tokenizer_open(&toy->tokenizer, toy->gguf, err, sizeof(err)))
        fail_msg("seed %u: %s", seed, err);
    assert_int_equal(tokenizer_scratch_open(&toy->scratch, toy->tokenizer), 0);
    assert_int_equal(tokenizer_n_vocab(toy->tokenizer), N_TOKENS);
}

void toy_close(struct toy *toy)
{
    tokenizer_scratch_close(toy->scratch);
    tokenizer_close(toy->tokenizer);
    gguf_close(toy->gguf);
    gguf_writer_free(&toy->file);
}

int32_t *encode_all(const struct tokenizer *tokenizer, struct tokenizer_scratch *scratch,
                    const char *text, size_t len, size_t *n)
{
    size_t n_total, max = 3 * len + 2; /* U+FFFD for each byte, and three byte tokens for each */
    int32_t *ids = malloc(max * sizeof(*ids));

    assert_non_null(ids);
    assert_int_equal(tokenizer_encode(tokenizer, scratch, (struct text){text, len},
                                      BAD_UTF8_REPLACE, ids, max, n, &n_total),
                     0);
    assert_int_equal(*n, n_total);
    return ids;
}

bool real_model_path(char *out, size_t size)
{
    const char *path = getenv("EMBEDMILL_TEST_MODEL"), *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");

    if (path && *path)
        snprintf(out, size, "%s", path);
    else if (cache && *cache)
        snprintf(out, size, "%s/embedmill/embeddinggemma-300m-q8_0.gguf", cache);
    else
        snprintf(out, size, "%s/.cache/embedmill/embeddinggemma-300m-q8_0.gguf", home ? home : "");
    if (access(out, R_OK) == 0)
        return true;
    fprintf(stderr,
            "SKIPPED: this test needs the real model, and %s is not there;\n"
            "set EMBEDMILL_TEST_MODEL or run scripts/get-model\n",
            out);
    return false;
}
