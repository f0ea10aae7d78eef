/*
 * tiny_bert.c: see tiny_bert.h.
 */
#include "tests/support/tiny_bert.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK "\xe2\x96\x81"

enum { DIM = TINY_BERT_DIM, FFN = TINY_BERT_FFN, CONTEXT = TINY_BERT_CONTEXT };
enum { HEADS = TINY_BERT_HEADS, HEAD = DIM / HEADS };

static const char *const TOKENS[] = {
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    MARK "a",
    MARK "b",
    MARK "c",
    MARK "1",
    "a",
    "b",
    "c",
    "1",
    "\xce\xb1",
    MARK "\xce\xb1",
    MARK "ab",
    MARK "abc",
    "bc",
    "ca",
    "cab",
    MARK ".",
    MARK ",",
    MARK "[",
    MARK "]",
    MARK "-",
    MARK "the",
    MARK "cafe",
    "s",
    MARK "\xe4\xb8\x96",
    MARK "\xe1\x84\x80",
    "\xe1\x85\xa1",
    MARK "\xe3\x81\x8b",
    MARK "'",
    MARK ";",
    MARK "i",
    MARK "ss",
    MARK "\xc3\x9f",
    MARK "\xe2\x99\xa5",
};

enum { N_TOKENS = sizeof TOKENS / sizeof *TOKENS };

const char *tiny_bert_token(uint32_t id)
{
    return id < N_TOKENS ? TOKENS[id] : NULL;
}

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static double random_between(uint64_t *state, double low, double high)
{
    return low + (high - low) * (double)(random_next(state) >> 40) / (double)(1 << 24);
}

/* A half of one to two times 2^power, and what it is. */
static double half_put(struct gguf_writer *out, uint64_t *random, int power)
{
    uint16_t bits = (uint16_t)((15 + power) << 10 | (random_next(random) & 0x3ff));
    gguf_put_u16(out, bits);
    return ldexp(1 + (bits & 0x3ff) / 1024.0, power);
}

/* Of either sign, and subnormal now and then. */
static double signed_half_put(struct gguf_writer *out, uint64_t *random)
{
    uint64_t what = random_next(random) % 16;
    double value;
    if (what == 0) {
        uint16_t bits = (uint16_t)(random_next(random) & 0x3ff);
        gguf_put_u16(out, bits);
        value = ldexp(bits, -24);
    } else {
        value = half_put(out, random, -3 - (int)(what % 5));
    }
    if (random_next(random) & 1)
        return value;
    out->bytes[out->len - 1] |= 0x80;
    return -value;
}

static void quants_fill(struct gguf_writer *out, struct tiny_bert_tensor *t, uint64_t *random)
{
    bool is_q4 = t->type == GGUF_TENSOR_Q4_0;
    for (uint64_t block = 0; block < t->columns / 32 * t->rows; block++) {
        double scale = half_put(out, random, is_q4 ? -6 : -10), *to = t->values + block * 32;
        for (int i = 0; i < (is_q4 ? 16 : 32); i++) {
            uint8_t byte = (uint8_t)random_next(random);
            gguf_put_u8(out, byte);
            to[i] = scale * (is_q4 ? (byte & 15) - 8 : (int8_t)byte);
            if (is_q4)
                to[16 + i] = scale * ((byte >> 4) - 8);
        }
    }
}

/* Weights of norms are about 1, all else is about 0. Some rows of floats are a thousand times
 * smaller than others, and some zero. */
static void tensor_fill(struct gguf_writer *out, struct tiny_bert_tensor *t, uint64_t *random)
{
    uint64_t rows = t->rows ? t->rows : 1;
    bool is_norm = strstr(t->name, "norm.weight") != NULL;
    t->values = calloc(rows * t->columns, sizeof *t->values);
    assert(t->values);
    if (t->type == GGUF_TENSOR_Q4_0 || t->type == GGUF_TENSOR_Q8_0)
        quants_fill(out, t, random);
    else
        for (uint64_t i = 0; i < rows * t->columns; i++) {
            double center = is_norm ? 1 : 0, width = i / t->columns % 7 == 3 ? 2e-4 : 0.2;
            double value = center + random_between(random, -width, width);
            if (t->type == GGUF_TENSOR_F16) {
                t->values[i] = signed_half_put(out, random);
            } else {
                gguf_put_f32(out, (float)value);
                t->values[i] = (double)(float)value;
            }
        }
    gguf_put_padding(out, 32);
}

static const struct part {
    const char *name;
    uint64_t columns, rows;
} OUTER[] =
    {
        {"token_embd.weight", DIM, N_TOKENS},   {"token_types.weight", DIM, 2},
        {"position_embd.weight", DIM, CONTEXT}, {"token_embd_norm.weight", DIM, 0},
        {"token_embd_norm.bias", DIM, 0},
},
  LAYER[] =
      {
          {"attn_q.weight", DIM, DIM},          {"attn_q.bias", DIM, 0},
          {"attn_k.weight", DIM, DIM},          {"attn_k.bias", DIM, 0},
          {"attn_v.weight", DIM, DIM},          {"attn_v.bias", DIM, 0},
          {"attn_output.weight", DIM, DIM},     {"attn_output.bias", DIM, 0},
          {"attn_output_norm.weight", DIM, 0},  {"attn_output_norm.bias", DIM, 0},
          {"ffn_up.weight", DIM, FFN},          {"ffn_up.bias", FFN, 0},
          {"ffn_down.weight", FFN, DIM},        {"ffn_down.bias", DIM, 0},
          {"layer_output_norm.weight", DIM, 0}, {"layer_output_norm.bias", DIM, 0},
},
  HEAD_PARTS[] = {
      {"cls.weight", DIM, DIM},
      {"cls.bias", DIM, 0},
      {"cls.output.weight", DIM, 1},
      {"cls.output.bias", 1, 0},
};

static uint64_t bytes_of(const struct tiny_bert_tensor *t)
{
    uint64_t n = t->columns * (t->rows ? t->rows : 1);
    switch (t->type) {
    case GGUF_TENSOR_F32:
        return n * 4;
    case GGUF_TENSOR_F16:
        return n * 2;
    case GGUF_TENSOR_Q4_0:
        return n / 32 * 18;
    case GGUF_TENSOR_Q8_0:
        return n / 32 * 34;
    default: /* I8 */
        return n;
    }
}

static bool is_named(const char *name, const char *wanted)
{
    return wanted && strcmp(name, wanted) == 0;
}

static void tensor_declare(struct tiny_bert *bert, const struct tiny_bert_options *options,
                           const char *name, const struct part *part, uint64_t *offset)
{
    struct tiny_bert_tensor *t = &bert->tensors[bert->n_tensors];
    bool is_matrix = part->rows > 1 && strcmp(name, "token_types.weight") != 0;
    bool is_positions = strcmp(name, "position_embd.weight") == 0;
    if (is_named(name, options->leave_out))
        return;
    *t = (struct tiny_bert_tensor){.columns = part->columns, .rows = part->rows};
    snprintf(t->name, sizeof t->name, "%s", name);
    t->type = is_matrix ? options->type : GGUF_TENSOR_F32;
    if (is_positions && t->type != GGUF_TENSOR_F16) /* that is how older converters have them */
        t->type = GGUF_TENSOR_F32;
    if (is_named(name, options->odd))
        t->columns += 32;
    if (is_named(name, options->other)) /* I8 is a matrix of nobody's */
        t->type = is_matrix ? 24 : GGUF_TENSOR_F16;
    const uint64_t shape[] = {t->columns, t->rows};
    t->entry = gguf_put_tensor(&bert->file, t->name, t->rows ? 2 : 1, shape, t->type, *offset);
    *offset += (bytes_of(t) + 31) / 32 * 32;
    bert->n_tensors++;
}

static uint64_t step_put(struct gguf_writer *out, const char *key, enum tiny_bert_key value)
{
    if (value == TINY_BERT_UNSAID)
        return 0;
    if (value == TINY_BERT_NUMBER)
        gguf_put_key_u32(out, key, 1);
    else
        gguf_put_key_bool(out, key, value == TINY_BERT_YES);
    return 1;
}

static uint64_t keys_put(struct gguf_writer *out, const struct tiny_bert_options *options)
{
    gguf_put_key_str(out, "general.architecture", "bert");
    gguf_put_key_str(out, "general.name", "tiny bert");
    gguf_put_key_u32(out, "bert.block_count", TINY_BERT_LAYERS);
    gguf_put_key_u32(out, "bert.context_length", CONTEXT);
    gguf_put_key_u32(out, "bert.embedding_length", DIM);
    gguf_put_key_u32(out, "bert.feed_forward_length", FFN);
    gguf_put_key_u32(out, "bert.attention.head_count", HEADS);
    gguf_put_key_f32(out, "bert.attention.layer_norm_epsilon", 1e-12f);
    gguf_put_key_bool(out, "bert.attention.causal", 0);
    if (options->pooling <= 4)
        gguf_put_key_u32(out, "bert.pooling_type", options->pooling);
    gguf_put_key_str(out, "tokenizer.ggml.model", "bert");
    gguf_put_key_array(out, "tokenizer.ggml.tokens", GGUF_STR, N_TOKENS);
    for (uint32_t id = 0; id < N_TOKENS; id++)
        gguf_put_str(out, TOKENS[id]);
    gguf_put_key_array(out, "tokenizer.ggml.token_type", GGUF_I32, N_TOKENS);
    for (uint32_t id = 0; id < N_TOKENS; id++)
        gguf_put_u32(out, id < 5 ? 3 : 1); /* control, normal */
    uint64_t n_steps =
        step_put(out, "tokenizer.ggml.normalizer.lowercase", options->lowercase) +
        step_put(out, "tokenizer.ggml.normalizer.strip_accents", options->strip_accents);
    return n_steps + (options->pooling <= 4 ? 13 : 12);
}

void tiny_bert_make(struct tiny_bert *bert, const struct tiny_bert_options *options)
{
    uint64_t offset = 0, random = options->seed;
    char name[64];
    *bert = (struct tiny_bert){.pooling = options->pooling};
    gguf_put_header(&bert->file, 3, 0, 0);
    gguf_set_u64(&bert->file, 16, keys_put(&bert->file, options));
    for (size_t i = 0; i < sizeof OUTER / sizeof *OUTER; i++)
        tensor_declare(bert, options, OUTER[i].name, &OUTER[i], &offset);
    for (unsigned layer = 0; layer < TINY_BERT_LAYERS; layer++)
        for (size_t i = 0; i < sizeof LAYER / sizeof *LAYER; i++) {
            snprintf(name, sizeof name, "blk.%u.%s", layer, LAYER[i].name);
            tensor_declare(bert, options, name, &LAYER[i], &offset);
        }
    for (size_t i = 0; options->pooling >= 4 && i < sizeof HEAD_PARTS / sizeof *HEAD_PARTS; i++)
        tensor_declare(bert, options, HEAD_PARTS[i].name, &HEAD_PARTS[i], &offset);
    gguf_set_u64(&bert->file, 8, bert->n_tensors);
    gguf_put_padding(&bert->file, 32);
    for (size_t i = 0; i < bert->n_tensors; i++)
        tensor_fill(&bert->file, &bert->tensors[i], &random);
}

void tiny_bert_free(struct tiny_bert *bert)
{
    gguf_writer_free(&bert->file);
    for (size_t i = 0; i < bert->n_tensors; i++)
        free(bert->tensors[i].values);
}

/* The definition: double, one loop after another. */

static const double *values_of(const struct tiny_bert *bert, int layer, const char *name)
{
    char full[96];
    if (layer < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    for (size_t i = 0; i < bert->n_tensors; i++)
        if (strcmp(bert->tensors[i].name, full) == 0)
            return bert->tensors[i].values;
    assert(!"no such tensor");
    return NULL;
}

/* out [n_out] = weight x + bias, of the layer's part of that name */
static void linear(const struct tiny_bert *bert, int layer, const char *name, const double *x,
                   size_t n_in, double *out, size_t n_out)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    const double *weight = values_of(bert, layer, full);
    snprintf(full, sizeof full, "%s.bias", name);
    const double *bias = values_of(bert, layer, full);
    for (size_t r = 0; r < n_out; r++) {
        out[r] = bias[r];
        for (size_t i = 0; i < n_in; i++)
            out[r] += weight[r * n_in + i] * x[i];
    }
}

static void norm(const struct tiny_bert *bert, int layer, const char *name, double x[DIM])
{
    char full[64];
    double mean = 0, square = 0;
    snprintf(full, sizeof full, "%s.weight", name);
    const double *weight = values_of(bert, layer, full);
    snprintf(full, sizeof full, "%s.bias", name);
    const double *bias = values_of(bert, layer, full);
    for (size_t i = 0; i < DIM; i++)
        mean += x[i] / DIM;
    for (size_t i = 0; i < DIM; i++)
        square += (x[i] - mean) * (x[i] - mean) / DIM;
    for (size_t i = 0; i < DIM; i++)
        x[i] = (x[i] - mean) / sqrt(square + 1e-12) * weight[i] + bias[i];
}

static void attend(const double (*q)[DIM], const double (*k)[DIM], const double (*v)[DIM], size_t n,
                   size_t token, double out[DIM])
{
    double score[CONTEXT];
    for (size_t h = 0; h < HEADS; h++) {
        double sum = 0;
        for (size_t j = 0; j < n; j++) {
            score[j] = 0;
            for (size_t i = h * HEAD; i < (h + 1) * HEAD; i++)
                score[j] += q[token][i] * k[j][i] / sqrt(HEAD);
            score[j] = exp(score[j]);
            sum += score[j];
        }
        for (size_t i = h * HEAD; i < (h + 1) * HEAD; i++) {
            out[i] = 0;
            for (size_t j = 0; j < n; j++)
                out[i] += score[j] / sum * v[j][i];
        }
    }
}

static void layer_run(const struct tiny_bert *bert, int layer, double (*x)[DIM], size_t n)
{
    static double q[CONTEXT][DIM], k[CONTEXT][DIM], v[CONTEXT][DIM];
    for (size_t t = 0; t < n; t++) {
        linear(bert, layer, "attn_q", x[t], DIM, q[t], DIM);
        linear(bert, layer, "attn_k", x[t], DIM, k[t], DIM);
        linear(bert, layer, "attn_v", x[t], DIM, v[t], DIM);
    }
    for (size_t t = 0; t < n; t++) {
        double seen[DIM], y[DIM], wide[FFN];
        attend((const double(*)[DIM])q, (const double(*)[DIM])k, (const double(*)[DIM])v, n, t,
               seen);
        linear(bert, layer, "attn_output", seen, DIM, y, DIM);
        for (size_t i = 0; i < DIM; i++)
            x[t][i] += y[i];
        norm(bert, layer, "attn_output_norm", x[t]);
        linear(bert, layer, "ffn_up", x[t], DIM, wide, FFN);
        for (size_t i = 0; i < FFN; i++)
            wide[i] *= 0.5 * (1 + erf(wide[i] / sqrt(2)));
        linear(bert, layer, "ffn_down", wide, FFN, y, DIM);
        for (size_t i = 0; i < DIM; i++)
            x[t][i] += y[i];
        norm(bert, layer, "layer_output_norm", x[t]);
    }
}

/* x [n][DIM]: what leaves the last layer. */
static void states_of(const struct tiny_bert *bert, const int32_t *ids, const uint8_t *token_types,
                      size_t n, double (*x)[DIM])
{
    const double *tokens = values_of(bert, -1, "token_embd.weight");
    const double *types = values_of(bert, -1, "token_types.weight");
    const double *positions = values_of(bert, -1, "position_embd.weight");
    assert(n <= CONTEXT);
    for (size_t t = 0; t < n; t++) {
        const double *type = types + (token_types ? token_types[t] : 0) * DIM;
        for (size_t i = 0; i < DIM; i++)
            x[t][i] = tokens[(size_t)ids[t] * DIM + i] + type[i] + positions[t * DIM + i];
        norm(bert, -1, "token_embd_norm", x[t]);
    }
    for (int layer = 0; layer < TINY_BERT_LAYERS; layer++)
        layer_run(bert, layer, x, n);
}

double tiny_bert_score(const struct tiny_bert *bert, const int32_t *ids, const uint8_t *types,
                       size_t n)
{
    static double x[CONTEXT][DIM];
    double hidden[DIM], score;
    states_of(bert, ids, types, n, x);
    linear(bert, -1, "cls", x[0], DIM, hidden, DIM);
    for (size_t i = 0; i < DIM; i++)
        hidden[i] = tanh(hidden[i]);
    linear(bert, -1, "cls.output", hidden, DIM, &score, 1);
    return score;
}

void tiny_bert_embed(const struct tiny_bert *bert, const int32_t *ids, size_t n, double out[DIM])
{
    static double x[CONTEXT][DIM];
    double length = 0;
    states_of(bert, ids, NULL, n, x);
    for (size_t i = 0; i < DIM; i++) {
        out[i] = 0;
        for (size_t t = 0; t < (bert->pooling == 1 ? n : 1); t++)
            out[i] += x[t][i];
        length += out[i] * out[i];
    }
    for (size_t i = 0; i < DIM; i++)
        out[i] /= sqrt(length);
}
