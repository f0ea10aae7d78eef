/*
 * tiny_model.c: see tiny_model.h.
 */
#include "tests/support/tiny_model.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SPACE "\xe2\x96\x81" /* U+2581, SentencePiece's space */

enum token_type { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, BYTE = 6 };
enum { N_SPECIAL = 4, N_BYTES = 256, FIRST_PRINTABLE = 0x20, LAST_PRINTABLE = 0x7e };

static const char *const SPECIAL[N_SPECIAL] = {"<pad>", "<eos>", "<bos>", "<unk>"};
static const char *const ADDED[] = {"<start_of_turn>", "<end_of_turn>", "<table>"};

/* By rank, and each is two earlier pieces or characters put together, as SentencePiece trains. */
static const char *const MERGES[] = {
    SPACE SPACE,
    SPACE "t",
    "he",
    SPACE "a",
    "in",
    SPACE "the",
    "er",
    "on",
    SPACE "s",
    "re",
    "at",
    SPACE "w",
    "en",
    "or",
    SPACE "o",
    "es",
    "is",
    "an",
    "it",
    SPACE "b",
    SPACE "c",
    "ing",
    "nd",
    SPACE "of",
    SPACE "and",
    SPACE "to",
    SPACE "in",
    SPACE "f",
    "ed",
    SPACE "m",
    "ou",
    "ar",
    "al",
    "as",
    SPACE "p",
    SPACE "d",
    "ion",
    "ent",
    SPACE "th",
    SPACE "q",
    SPACE "h",
    "ll",
    "st",
    "ea",
    SPACE "is",
    "\n\n",
    "..",
    "ow",
    "ld",
    "or"
    "ld",
    "el",
    "lo",
    "hel",
    "ell",
    "hello",
    SPACE "hello",
    SPACE "re",
    "ic",
    "ro",
    "us",
    SPACE SPACE SPACE SPACE,
    "00",
    "20",
};

enum {
    N_ADDED = sizeof ADDED / sizeof *ADDED,
    N_MERGES = sizeof MERGES / sizeof *MERGES,
    N_CHARS = 2 + LAST_PRINTABLE - FIRST_PRINTABLE, /* U+2581, newline, ASCII without the space */
    FIRST_ADDED = N_SPECIAL + N_BYTES,
    FIRST_MERGE = FIRST_ADDED + N_ADDED,
    FIRST_CHAR = FIRST_MERGE + N_MERGES,
    N_VOCAB = FIRST_CHAR + N_CHARS
};

uint32_t tiny_model_n_vocab(void)
{
    return N_VOCAB;
}

static const char *byte_text(unsigned byte)
{
    static char texts[N_BYTES][8];
    snprintf(texts[byte], sizeof texts[byte], "<0x%02X>", byte & 0xff);
    return texts[byte];
}

static const char *char_text(unsigned i)
{
    static char texts[N_CHARS][2];
    if (i == 0)
        return SPACE;
    texts[i][0] = i == 1 ? '\n' : (char)(FIRST_PRINTABLE + i - 1);
    return texts[i];
}

const char *tiny_model_token(uint32_t id)
{
    if (id < N_SPECIAL)
        return SPECIAL[id];
    if (id < FIRST_ADDED)
        return byte_text(id - N_SPECIAL);
    if (id < FIRST_MERGE)
        return ADDED[id - FIRST_ADDED];
    if (id < FIRST_CHAR)
        return MERGES[id - FIRST_MERGE];
    return id < N_VOCAB ? char_text(id - FIRST_CHAR) : NULL;
}

int32_t tiny_model_token_id(const char *text)
{
    for (uint32_t id = 0; id < N_VOCAB; id++)
        if (!strcmp(tiny_model_token(id), text))
            return (int32_t)id;
    return -1;
}

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static float random_between(uint64_t *state, float low, float high)
{
    return low + (high - low) * (float)(random_next(state) >> 40) / (float)(1 << 24);
}

/* IEEE half of a positive float in half's normal range, cut. */
static uint16_t half_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    assert(value > 1e-4f && value < 6e4f);
    return (uint16_t)((bits >> 13) - (112u << 10));
}

struct number {
    const char *name;
    uint32_t value;
};

static uint64_t numbers_put(struct gguf_writer *out, const struct number *numbers, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gguf_put_key_u32(out, numbers[i].name, numbers[i].value);
    return n;
}

static uint64_t model_keys_put(struct gguf_writer *out, const struct tiny_model_options *options)
{
    const struct number numbers[] = {
        {"general.file_type", 7},
        {"general.quantization_version", 2},
        {"gemma-embedding.context_length", options->n_ctx},
        {"gemma-embedding.embedding_length", TINY_MODEL_DIM},
        {"gemma-embedding.block_count", options->n_layers},
        {"gemma-embedding.feed_forward_length", TINY_MODEL_FFN},
        {"gemma-embedding.attention.head_count", TINY_MODEL_HEADS},
        {"gemma-embedding.attention.head_count_kv", 1},
        {"gemma-embedding.attention.key_length", TINY_MODEL_HEAD_DIM},
        {"gemma-embedding.attention.value_length", TINY_MODEL_HEAD_DIM},
        {"gemma-embedding.attention.sliding_window", TINY_MODEL_WINDOW},
        {"gemma-embedding.pooling_type", 1},
    };
    const struct number dense[] = {
        {"gemma-embedding.dense_2_feat_in", TINY_MODEL_DIM},
        {"gemma-embedding.dense_2_feat_out", TINY_MODEL_DENSE},
        {"gemma-embedding.dense_3_feat_in", TINY_MODEL_DENSE},
        {"gemma-embedding.dense_3_feat_out", TINY_MODEL_DIM},
    };
    uint64_t n = numbers_put(out, numbers, sizeof numbers / sizeof *numbers);
    if (options->with_dense)
        n += numbers_put(out, dense, sizeof dense / sizeof *dense);
    gguf_put_key_str(out, "general.architecture", "gemma-embedding");
    gguf_put_key_str(out, "general.name", "tiny");
    gguf_put_key_f32(out, "gemma-embedding.attention.layer_norm_rms_epsilon", 1e-6f);
    gguf_put_key_f32(out, "gemma-embedding.rope.freq_base", 1e6f);
    gguf_put_key_f32(out, "gemma-embedding.rope.freq_base_swa", 1e4f);
    return n + 5;
}

static enum token_type token_type(uint32_t id)
{
    if (id < N_SPECIAL)
        return id == TINY_MODEL_UNK ? UNKNOWN : CONTROL;
    if (id < FIRST_ADDED)
        return BYTE;
    if (id < FIRST_MERGE)
        return tiny_model_token(id)[1] == 't' ? USER_DEFINED : CONTROL;
    return NORMAL;
}

static uint64_t tokenizer_keys_put(struct gguf_writer *out)
{
    const struct number numbers[] = {
        {"tokenizer.ggml.bos_token_id", TINY_MODEL_BOS},
        {"tokenizer.ggml.eos_token_id", TINY_MODEL_EOS},
        {"tokenizer.ggml.unknown_token_id", TINY_MODEL_UNK},
        {"tokenizer.ggml.padding_token_id", TINY_MODEL_PAD},
    };
    gguf_put_key_str(out, "tokenizer.ggml.model", "llama");
    gguf_put_key_array(out, "tokenizer.ggml.tokens", GGUF_STR, N_VOCAB);
    for (uint32_t id = 0; id < N_VOCAB; id++)
        gguf_put_str(out, tiny_model_token(id));
    gguf_put_key_array(out, "tokenizer.ggml.scores", GGUF_F32, N_VOCAB);
    for (uint32_t id = 0; id < N_VOCAB; id++)
        gguf_put_f32(out, id < FIRST_MERGE ? 0.0f : -(float)(id - FIRST_MERGE));
    gguf_put_key_array(out, "tokenizer.ggml.token_type", GGUF_I32, N_VOCAB);
    for (uint32_t id = 0; id < N_VOCAB; id++)
        gguf_put_u32(out, token_type(id));
    gguf_put_key_bool(out, "tokenizer.ggml.add_bos_token", 1);
    gguf_put_key_bool(out, "tokenizer.ggml.add_eos_token", 1);
    gguf_put_key_bool(out, "tokenizer.ggml.add_space_prefix", 0);
    return 7 + numbers_put(out, numbers, sizeof numbers / sizeof *numbers);
}

/* A tensor of the model; rows 0: one dimension, a norm weight in F32, else a Q8_0 matrix. */
struct part {
    const char *name;
    uint64_t columns, rows;
};

enum { Q_DIM = TINY_MODEL_HEADS * TINY_MODEL_HEAD_DIM, KV_DIM = TINY_MODEL_HEAD_DIM };

static const struct part OUTER[] = {
    {"token_embd.weight", TINY_MODEL_DIM, N_VOCAB},
    {"output_norm.weight", TINY_MODEL_DIM, 0},
    {"dense_2.weight", TINY_MODEL_DIM, TINY_MODEL_DENSE},
    {"dense_3.weight", TINY_MODEL_DENSE, TINY_MODEL_DIM},
};

static const struct part LAYER[] = {
    {"attn_norm", TINY_MODEL_DIM, 0},
    {"attn_q", TINY_MODEL_DIM, Q_DIM},
    {"attn_k", TINY_MODEL_DIM, KV_DIM},
    {"attn_v", TINY_MODEL_DIM, KV_DIM},
    {"attn_output", Q_DIM, TINY_MODEL_DIM},
    {"attn_q_norm", TINY_MODEL_HEAD_DIM, 0},
    {"attn_k_norm", TINY_MODEL_HEAD_DIM, 0},
    {"post_attention_norm", TINY_MODEL_DIM, 0},
    {"ffn_norm", TINY_MODEL_DIM, 0},
    {"ffn_gate", TINY_MODEL_DIM, TINY_MODEL_FFN},
    {"ffn_up", TINY_MODEL_DIM, TINY_MODEL_FFN},
    {"ffn_down", TINY_MODEL_FFN, TINY_MODEL_DIM},
    {"post_ffw_norm", TINY_MODEL_DIM, 0},
};

enum { N_OUTER = sizeof OUTER / sizeof *OUTER, N_LAYER = sizeof LAYER / sizeof *LAYER };

static uint64_t padded(uint64_t size)
{
    return (size + 31) / 32 * 32;
}

static void part_declare(struct gguf_writer *out, const char *name, const struct part *part,
                         uint64_t *offset)
{
    const uint64_t shape[] = {part->columns, part->rows};
    if (part->rows) {
        gguf_put_tensor(out, name, 2, shape, GGUF_TENSOR_Q8_0, *offset);
        *offset += padded(part->columns / 32 * 34 * part->rows);
    } else {
        gguf_put_tensor(out, name, 1, shape, GGUF_TENSOR_F32, *offset);
        *offset += padded(part->columns * sizeof(float));
    }
}

/* Values of a matrix come to a standard deviation of about 1/8, 1 over the root of the width. */
static void part_fill(struct gguf_writer *out, const struct part *part, uint64_t *random)
{
    for (uint64_t i = 0; part->rows == 0 && i < part->columns; i++)
        gguf_put_f32(out, random_between(random, 0.75f, 1.25f));
    for (uint64_t block = 0; block < part->columns / 32 * part->rows; block++) {
        gguf_put_u16(out, half_of(random_between(random, 0.001f, 0.0025f)));
        for (int i = 0; i < 32; i++)
            gguf_put_u8(out, (uint8_t)(int8_t)((int)(random_next(random) % 255) - 127));
    }
    gguf_put_padding(out, 32);
}

void tiny_model_build(struct gguf_writer *out, const struct tiny_model_options *options)
{
    const struct tiny_model_options defaults = TINY_MODEL_DEFAULTS;
    if (!options)
        options = &defaults;
    size_t n_outer = options->with_dense ? N_OUTER : N_OUTER - 2;
    uint64_t offset = 0, random = options->seed;
    char name[64];
    gguf_put_header(out, 3, n_outer + N_LAYER * options->n_layers, 0);
    uint64_t n_keys = model_keys_put(out, options);
    n_keys += tokenizer_keys_put(out);
    gguf_set_u64(out, 16, n_keys); /* known only now */
    for (size_t i = 0; i < n_outer; i++)
        part_declare(out, OUTER[i].name, &OUTER[i], &offset);
    for (uint32_t layer = 0; layer < options->n_layers; layer++) {
        for (size_t i = 0; i < N_LAYER; i++) {
            snprintf(name, sizeof name, "blk.%u.%s.weight", (unsigned)layer, LAYER[i].name);
            part_declare(out, name, &LAYER[i], &offset);
        }
    }
    gguf_put_padding(out, 32);
    for (size_t i = 0; i < n_outer; i++)
        part_fill(out, &OUTER[i], &random);
    for (uint32_t layer = 0; layer < options->n_layers; layer++)
        for (size_t i = 0; i < N_LAYER; i++)
            part_fill(out, &LAYER[i], &random);
}

int tiny_model_write(const char *path, const struct tiny_model_options *options)
{
    struct gguf_writer writer = {0};
    tiny_model_build(&writer, options);
    int rc = gguf_writer_save(&writer, path);
    gguf_writer_free(&writer);
    return rc;
}

int tiny_model_open(struct model **out, const struct tiny_model_options *options)
{
    char path[] = "/tmp/embedmill-tiny-XXXXXX", err[300] = "";
    int fd = mkstemp(path);
    if (fd < 0)
        return -errno;
    close(fd);
    int rc = tiny_model_write(path, options);
    if (rc == 0)
        rc = model_open(out, path, NULL, PRECISION_EXACT, err, sizeof err);
    unlink(path);
    if (rc != 0)
        fprintf(stderr, "no tiny model: %d %s\n", rc, err);
    return rc;
}
