/*
 * kernels_avx512_bf16.c: see kernels_bf16.h.
 *
 * Query rows (token, head) that share a key head stand side by side in the lanes of one or two
 * vectors (V, a constant in each use), as in kernels_attention.h. What vdpbf16ps takes in pairs are
 * dimensions for the scores, and keys for the values. Keys and values are rounded once a call.
 * Pairs of keys begin at even tokens of the text wherever a tile begins, so that sums are the same
 * however the queries are shared out.
 */
#include "inference/kernels_bf16.h"

#include <assert.h>
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define VEC    16
#define INLINE static inline __attribute__((always_inline))

#include "inference/kernels_transpose.h"

enum {
    VECS_MAX = 2,
    LANES_MAX = VECS_MAX * VEC,
    KEY_TILE = 8,
    VALUE_ROWS = 8,
    VALUE_COLUMNS = 2,
    COLUMNS = VALUE_COLUMNS * VEC,
    PAIRS_MAX = KEYS_MAX / 2 + 1,
};

struct attention_head {
    size_t head_dim, reach, ahead;
    uint32_t *k;     /* [n][head_dim / 2]: pairs of dimensions of a key */
    uint32_t *v;     /* [head_dim / 32][PAIRS_MAX][32]: values of two keys */
    uint32_t *query; /* [head_dim / 2][V * VEC] */
    float *scores;   /* [n + KEY_TILE][V * VEC]; then weights: uint32_t [n / 2][V * VEC] */
};

struct attention_tile {
    float *rows[LANES_MAX];
    size_t n_rows;
    __m512i token[VECS_MAX];
    size_t first, last;         /* keys any row sees, first of them even */
    size_t all_first, all_last; /* keys all rows see */
};

size_t kernels_bf16_attention_size(const struct attention_shape *shape)
{
    size_t keys = PAIRS_MAX * shape->head_dim * 2 * sizeof(uint32_t); /* and values */
    return keys + (shape->head_dim / 2 + KEYS_MAX + KEY_TILE) * LANES_MAX * sizeof(float);
}

INLINE __m512i bf16_pairs(const float *p) /* 32 floats */
{
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(p + 16), _mm512_loadu_ps(p));
}

/* Keys [first, last) of one head, first even, from rows ld floats apart. */
static void attention_keys(const struct attention_head *h, const float *k, const float *v,
                           size_t ld, size_t first, size_t last)
{
    size_t d = h->head_dim;
    for (size_t j = first; j < last; j++)
        for (size_t i = 0; i < d; i += 32)
            /* A lane has dimensions 2 p and 2 p + 1 of one key, as they lie in memory. */
            _mm512_storeu_si512(h->k + (j * d + i) / 2, bf16_pairs(k + j * ld + i));
    for (size_t j = first; j < last; j += 2)
        for (size_t i = 0; i < d; i += 16) {
            /* A lane has one dimension of two keys: of the even one below, of the odd one above. */
            const float *from = v + j * ld + i;
            /* Its weight will be 0, and 0 times what lies behind the keys might be NaN. */
            __m512 odd = j + 1 < last ? _mm512_loadu_ps(from + ld) : _mm512_setzero_ps();
            __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from)));
            __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
            _mm512_storeu_si512(h->v + i / COLUMNS * COLUMNS * PAIRS_MAX + j / 2 * COLUMNS +
                                    i % COLUMNS,
                                _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
}

INLINE void attention_query(const struct attention_head *h, const struct attention_tile *tile,
                            const size_t V)
{
    for (size_t i = 0; i < h->head_dim; i += 32)
        for (size_t v = 0; v < V; v++) {
            /* 16 queries by 16 pairs of dimensions; turned, a vector is one pair of 16 queries. */
            __m512i r[16];
            for (size_t lane = 0; lane < 16; lane++)
                r[lane] = bf16_pairs(tile->rows[v * VEC + lane] + i);
            lanes_transpose(r);
            for (size_t p = 0; p < 16; p++)
                _mm512_storeu_si512(h->query + ((i / 2 + p) * V + v) * VEC, r[p]);
        }
}

/* *sum += the two products of each lane. Order kept by volatile, as in kernels_avx512_internal.h.
 */
INLINE void dot_pairs(__m512 *sum, __m512i a, __m512i b)
{
    __asm__ volatile("vdpbf16ps %2, %1, %0" : "+v"(*sum) : "v"(a), "v"(b));
}

/* scores[j][lane] = query[lane] . key[j]; behind the last key it stands again */
INLINE void attention_scores(const struct attention_head *h, size_t first, size_t last,
                             const size_t V)
{
    size_t half = h->head_dim / 2;
    for (size_t j = first; j < last; j += KEY_TILE) {
        const uint32_t *key[KEY_TILE];
        __m512 sum[KEY_TILE][VECS_MAX];
        for (size_t c = 0; c < KEY_TILE; c++) {
            key[c] = h->k + (j + c < last ? j + c : last - 1) * half;
            sum[c][0] = sum[c][1] = _mm512_setzero_ps();
        }
        for (size_t p = 0; p < half; p++) {
            const uint32_t *query = h->query + p * V * VEC;
            /* A line (16 words) of each key of the next tile; past the last key it is idle. */
            for (size_t c = 0; p % 16 == 0 && c < KEY_TILE; c++)
                __builtin_prefetch(key[c] + KEY_TILE * half + p);
            for (size_t c = 0; c < KEY_TILE; c++)
                for (size_t v = 0; v < V; v++)
                    dot_pairs(&sum[c][v], _mm512_load_si512(query + v * VEC),
                              _mm512_set1_epi32((int)key[c][p]));
        }
        for (size_t c = 0; c < KEY_TILE; c++)
            for (size_t v = 0; v < V; v++)
                _mm512_store_ps(h->scores + ((j + c) * V + v) * VEC, sum[c][v]);
    }
}

/* 2 to the power x <= 0, to 1e-4 of itself, where bfloat16 keeps 4e-3. */
INLINE __m512 power_of_two(__m512 x)
{
    x = _mm512_max_ps(_mm512_set1_ps(-200.0f), x); /* NaN stays; 2^-200 is 0 */
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_sub_ps(x, n), p = _mm512_set1_ps(5.5171669e-2f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* The score of key j for vector v of a tile, minus infinity where it is not seen. */
INLINE __m512 attention_seen(const struct attention_head *h, const struct attention_tile *tile,
                             size_t v, size_t j, const size_t V)
{
    const __m512 none = _mm512_set1_ps(-INFINITY);
    /* The second key of a last pair. */
    if (j >= tile->last)
        return none;
    __m512 score = _mm512_load_ps(h->scores + (j * V + v) * VEC);
    if (j >= tile->all_first && j < tile->all_last)
        return score;
    __m512i away = _mm512_sub_epi32(tile->token[v], _mm512_set1_epi32((int)j));
    /* Both bounds are below 2^24, so that they fit an int with their signs. */
    __mmask16 sees = _mm512_cmple_epi32_mask(away, _mm512_set1_epi32((int)h->reach)) &
                     _mm512_cmpge_epi32_mask(away, _mm512_set1_epi32(-(int)h->ahead));
    return _mm512_mask_mov_ps(none, sees, score);
}

/* scores of vector v to pairs of weights exp(score - row's maximum), two keys in each; returns
 * 1 / row sums, of the weights as they were rounded */
INLINE __m512 attention_softmax(const struct attention_head *h, const struct attention_tile *tile,
                                size_t v, const size_t V)
{
    static const uint16_t order[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                       21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                       11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i interleave = _mm512_loadu_si512(order);
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    const __m512 log2e = _mm512_set1_ps(1.44269504f);
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (size_t j = tile->first; j < tile->last; j++)
        top = _mm512_max_ps(top, attention_seen(h, tile, v, j, V));
    /* exp(score - top) is 2^(score * log2e - shift): one multiply-subtract. */
    __m512 shift = _mm512_mul_ps(top, log2e);
    for (size_t j = tile->first; j < tile->last; j += 2) {
        __m512 even = attention_seen(h, tile, v, j, V), odd = attention_seen(h, tile, v, j + 1, V);
        even = power_of_two(_mm512_fmsub_ps(even, log2e, shift));
        odd = power_of_two(_mm512_fmsub_ps(odd, log2e, shift));
        __m512i pair = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
        /* From 16 even weights and then 16 odd ones to one of each in a lane. */
        pair = _mm512_permutexvar_epi16(interleave, pair);
        sum = _mm512_add_ps(sum, _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)));
        sum = _mm512_add_ps(sum, _mm512_castsi512_ps(_mm512_and_si512(pair, upper)));
        /* Over scores of this vector that were read already: j / 2 is never behind j. */
        _mm512_store_si512(h->scores + (j / 2 * V + v) * VEC, pair);
    }
    return _mm512_div_ps(_mm512_set1_ps(1.0f), sum);
}

/* rows[lane][i ..) = inverse[lane] * sum over j of weight[j][lane] * v[j][i ..), for VALUE_ROWS
 * lanes and VALUE_COLUMNS vectors */
INLINE void attention_values(const struct attention_head *h, const struct attention_tile *tile,
                             const float *inverse, size_t lane, size_t i, const size_t V)
{
    __m512 sum[VALUE_ROWS][VALUE_COLUMNS];
    for (size_t r = 0; r < VALUE_ROWS; r++)
        for (size_t c = 0; c < VALUE_COLUMNS; c++)
            sum[r][c] = _mm512_setzero_ps();
    for (size_t j = tile->first / 2; j < (tile->last + 1) / 2; j++) {
        /* j counts pairs here; i is a multiple of COLUMNS, each of which has its own PAIRS_MAX
         * rows. */
        const uint32_t *from = h->v + i * PAIRS_MAX + j * COLUMNS;
        const uint32_t *weight = (const uint32_t *)h->scores + j * V * VEC + lane;
        for (size_t r = 0; r < VALUE_ROWS; r++)
            for (size_t c = 0; c < VALUE_COLUMNS; c++)
                dot_pairs(&sum[r][c], _mm512_load_si512(from + c * VEC),
                          _mm512_set1_epi32((int)weight[r]));
    }
    for (size_t r = 0; r < VALUE_ROWS && lane + r < tile->n_rows; r++)
        for (size_t c = 0; c < VALUE_COLUMNS; c++)
            _mm512_storeu_ps(tile->rows[lane + r] + i + c * VEC,
                             _mm512_mul_ps(sum[r][c], _mm512_set1_ps(inverse[lane + r])));
}

INLINE void attention_run(const struct attention_head *h, const struct attention_tile *tile,
                          const size_t V)
{
    float inverse[LANES_MAX];
    attention_query(h, tile, V);
    attention_scores(h, tile->first, tile->last, V);
    for (size_t v = 0; v < V; v++)
        _mm512_storeu_ps(inverse + v * VEC, attention_softmax(h, tile, v, V));
    for (size_t i = 0; i < h->head_dim; i += COLUMNS)
        for (size_t lane = 0; lane < tile->n_rows; lane += VALUE_ROWS)
            attention_values(h, tile, inverse, lane, i, V);
}

/* The tile of query rows [row, row + LANES_MAX) or fewer, before `end`, of one key head. */
static struct attention_tile tile_of(float *q, const struct attention_shape *shape, size_t g,
                                     size_t row, size_t end, size_t n, size_t reach)
{
    size_t group = shape->n_heads / shape->n_kv_heads, ahead = shape->is_causal ? 0 : reach;
    struct attention_tile tile = {.n_rows = end - row < LANES_MAX ? end - row : LANES_MAX};
    int32_t token[LANES_MAX];
    for (size_t r = 0; r < LANES_MAX; r++) {
        /* The heads of a group stand together; lanes beyond the last row repeat it. */
        size_t at = row + (r < tile.n_rows ? r : tile.n_rows - 1);
        token[r] = (int32_t)(at / group);
        tile.rows[r] = q + at / group * shape->ld + (g * group + at % group) * shape->head_dim;
    }
    memcpy(tile.token, token, sizeof token);
    size_t t0 = (size_t)token[0], t1 = (size_t)token[LANES_MAX - 1];
    /* Even, as pairs begin: one key more may be looked at, which the mask hides. */
    tile.first = t0 > reach ? (t0 - reach) & ~(size_t)1 : 0;
    tile.last = n - 1 - t1 > ahead ? t1 + ahead + 1 : n;
    /* In between no lane needs a mask. */
    tile.all_first = t1 > reach ? t1 - reach : 0;
    tile.all_last = n - 1 - t0 > ahead ? t0 + ahead + 1 : n;
    return tile;
}

void kernels_bf16_attention(float *q, const float *k, const float *v, size_t n, size_t reach,
                            const struct attention_shape *shape, struct span tokens, void *scratch)
{
    size_t d = shape->head_dim, group = shape->n_heads / shape->n_kv_heads;
    size_t ahead = shape->is_causal ? 0 : reach;
    assert(n <= KEYS_MAX && tokens.last <= n);
    struct attention_head h = {.head_dim = d, .reach = reach, .ahead = ahead, .k = scratch};
    /* n * d / 2 words of keys fit: n is KEYS_MAX at most. */
    h.v = h.k + PAIRS_MAX * d;
    h.query = h.v + PAIRS_MAX * d;
    h.scores = (float *)(h.query + d / 2 * LANES_MAX);
    size_t first = tokens.first > reach ? (tokens.first - reach) & ~(size_t)1 : 0;
    size_t last = n - tokens.last > ahead ? tokens.last + ahead : n;
    /* What any query of the call sees is rounded once, for all tiles and heads of a group. */
    for (size_t g = 0; g < shape->n_kv_heads; g++) {
        attention_keys(&h, k + g * d, v + g * d, shape->ld, first, last);
        size_t end = tokens.last * group;
        for (size_t row = tokens.first * group; row < end; row += LANES_MAX) {
            struct attention_tile tile = tile_of(q, shape, g, row, end, n, reach);
            if (tile.n_rows > VEC)
                attention_run(&h, &tile, 2);
            else
                attention_run(&h, &tile, 1);
        }
    }
}
