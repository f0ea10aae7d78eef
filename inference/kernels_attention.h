/*
 * kernels_attention.h: attention in float32. A part of kernels_body.h.
 *
 * Query rows (token, head) that share a key head stand side by side in the lanes of one
 * or two vectors (V, a constant in each use): scores, maximum, exponential and sum are then plain
 * vertical arithmetic, and the scores of a key are just what the product with the values
 * broadcasts. Keys and values are read where they lie, once for all rows of a tile; with two
 * vectors each broadcast serves two multiply-adds, so that loads do not bind.
 */
enum {
    VECS_MAX = 2,
    LANES_MAX = VECS_MAX * VEC,
    KEY_TILE = VEC == 8 ? 6 : 8,    /* keys at once: sums for two vectors fill the registers */
    VALUE_ROWS = VEC == 16 ? 8 : 4, /* lanes by vectors of values at once: as many sums, */
    VALUE_COLUMNS = 2,              /* enough to hide the latency of a multiply-add */
};

struct attention_head {
    const float *k, *v;                /* [n][ld] of one key head */
    size_t ld, head_dim, reach, ahead; /* tokens before and behind a query that it sees */
    const float *bias;                 /* of score i, j at bias[i - j]; or NULL */
    float *query;                      /* [head_dim][V * VEC] */
    float *scores;                     /* [n + KEY_TILE][V * VEC] */
};

/* A tile of query rows: where they lie (beyond n_rows the last one again), the tokens they are of,
 * and the keys any of them sees. */
struct attention_tile {
    float *rows[LANES_MAX];
    size_t n_rows;
    vi token[VECS_MAX];
    size_t first, last;
};

static size_t attention_size(const struct attention_shape *shape)
{
    return (shape->head_dim + KEYS_MAX + KEY_TILE) * LANES_MAX * sizeof(float);
}

/* scores[j][lane] = query[lane] . key[j]; behind the last key it stands again */
INLINE void attention_scores(const struct attention_head *h, size_t first, size_t last,
                             const size_t V)
{
    for (size_t j = first; j < last; j += KEY_TILE) {
        const float *key[KEY_TILE];
        vf sum[KEY_TILE][VECS_MAX] = {0};
        for (size_t c = 0; c < KEY_TILE; c++)
            /* The scores beyond have room (KEY_TILE rows) and are not read. */
            key[c] = h->k + (j + c < last ? j + c : last - 1) * h->ld;
        for (size_t i = 0; i < h->head_dim; i++)
            for (size_t c = 0; c < KEY_TILE; c++)
                for (size_t v = 0; v < V; v++)
                    sum[c][v] += vec_load(h->query + (i * V + v) * VEC) * key[c][i];
        for (size_t c = 0; c < KEY_TILE; c++)
            for (size_t v = 0; v < V; v++)
                vec_store(h->scores + ((j + c) * V + v) * VEC, sum[c][v]);
    }
}

/* scores[j][lane] += bias of the lane's token and j. Lanes are tokens one after another; those
 * beyond the last row get what nobody reads. */
INLINE void attention_bias(const struct attention_head *h, const struct attention_tile *tile,
                           const size_t V)
{
    const float *from = h->bias + tile->token[0][0];
    for (size_t j = tile->first; j < tile->last; j++)
        for (size_t v = 0; v < V; v++) {
            float *score = h->scores + (j * V + v) * VEC;
            vec_store(score, vec_load(score) + vec_load(from - j + v * VEC));
        }
}

/* scores of vector v to exp(score - row's maximum), 0 where out of reach; returns 1 / row sums */
INLINE vf attention_softmax(const struct attention_head *h, const struct attention_tile *tile,
                            size_t v, const size_t V)
{
    vf top = vec_splat(-INFINITY);
    int32_t far = (int32_t)h->reach, ahead = (int32_t)h->ahead;
    for (size_t j = tile->first; j < tile->last; j++) {
        /* A query sees itself, so that top is a score and the sum 1 at least, or both are NaN. */
        vi away = tile->token[v] - (int32_t)j;
        vi sees = (away <= far) & (away >= -ahead);
        float *score = h->scores + (j * V + v) * VEC;
        vf seen = vec_select(sees, vec_load(score), vec_splat(-INFINITY));
        vec_store(score, seen);
        top = vec_max(top, seen);
    }
    vf sum = {0};
    for (size_t j = tile->first; j < tile->last; j++) {
        float *score = h->scores + (j * V + v) * VEC;
        vf seen = vec_load(score);
        /* vec_exp does not go below e^-87: what is not seen must be 0. */
        vf e = vec_select(seen == -INFINITY, (vf){0}, vec_exp(seen - top));
        vec_store(score, e);
        sum += e;
    }
    return 1.0f / sum;
}

/* rows[lane][i ..) = inverse[lane] * sum over j of scores[j][lane] * v[j][i ..), for VALUE_ROWS
 * lanes and VALUE_COLUMNS vectors */
INLINE void attention_values(const struct attention_head *h, const struct attention_tile *tile,
                             const float *inverse, size_t lane, size_t i, const size_t V)
{
    vf sum[VALUE_ROWS][VALUE_COLUMNS] = {0};
    for (size_t j = tile->first; j < tile->last; j++) {
        const float *from = h->v + j * h->ld + i, *score = h->scores + j * V * VEC + lane;
        for (size_t r = 0; r < VALUE_ROWS; r++)
            for (size_t c = 0; c < VALUE_COLUMNS; c++)
                sum[r][c] += vec_load(from + c * VEC) * score[r];
    }
    for (size_t r = 0; r < VALUE_ROWS && lane + r < tile->n_rows; r++)
        for (size_t c = 0; c < VALUE_COLUMNS; c++)
            vec_store(tile->rows[lane + r] + i + c * VEC, sum[r][c] * inverse[lane + r]);
}

/* query[i][lane] = rows[lane][i] */
INLINE void attention_query(const struct attention_head *h, const struct attention_tile *tile,
                            const size_t V)
{
#if VEC >= 8
    for (size_t i = 0; i < h->head_dim; i += VEC)
        for (size_t v = 0; v < V; v++) {
            vf square[VEC];
            for (size_t lane = 0; lane < VEC; lane++)
                square[lane] = vec_load(tile->rows[v * VEC + lane] + i);
            lanes_transpose((void *)square);
            for (size_t c = 0; c < VEC; c++)
                vec_store(h->query + ((i + c) * V + v) * VEC, square[c]);
        }
#else
    for (size_t r = 0; r < V * VEC; r++)
        for (size_t i = 0; i < h->head_dim; i++)
            h->query[i * V * VEC + r] = tile->rows[r][i];
#endif
}

INLINE void attention_run(const struct attention_head *h, const struct attention_tile *tile,
                          const size_t V)
{
    float inverse[LANES_MAX];
    attention_query(h, tile, V);
    attention_scores(h, tile->first, tile->last, V);
    if (h->bias)
        attention_bias(h, tile, V);
    for (size_t v = 0; v < V; v++)
        vec_store(inverse + v * VEC, attention_softmax(h, tile, v, V));
    for (size_t i = 0; i < h->head_dim; i += VALUE_COLUMNS * VEC)
        for (size_t lane = 0; lane < tile->n_rows; lane += VALUE_ROWS)
            attention_values(h, tile, inverse, lane, i, V);
}

static void attention(float *q, const float *k, const float *v, size_t n, size_t reach,
                      const struct attention_shape *shape, struct span tokens, void *scratch)
{
    size_t head_dim = shape->head_dim, group = shape->n_heads / shape->n_kv_heads;
    size_t ahead = shape->is_causal ? 0 : reach;
    assert(n <= KEYS_MAX && tokens.last <= n);
    struct attention_head h = {
        .ld = shape->ld, .head_dim = head_dim, .reach = reach, .ahead = ahead};
    h.query = scratch;
    h.scores = h.query + head_dim * LANES_MAX;
    for (size_t g = 0; g < shape->n_kv_heads; g++) {
        h.k = k + g * head_dim;
        h.v = v + g * head_dim;
        if (shape->bias)
            h.bias = shape->bias + g * shape->bias_ld + shape->bias_ld / 2;
        size_t end = tokens.last * group;
        for (size_t row = tokens.first * group; row < end; row += LANES_MAX) {
            struct attention_tile tile = {.n_rows = end - row < LANES_MAX ? end - row : LANES_MAX};
            int32_t token[LANES_MAX];
            for (size_t r = 0; r < LANES_MAX; r++) {
                /* The heads of a group stand together; lanes beyond the last row repeat it. */
                size_t at = row + (r < tile.n_rows ? r : tile.n_rows - 1);
                token[r] = (int32_t)(at / group);
                tile.rows[r] = q + at / group * shape->ld + (g * group + at % group) * head_dim;
            }
            memcpy(tile.token, token, sizeof token);
            /* Tokens of lanes rise, so the first and the last say which keys any lane sees. */
            size_t t0 = (size_t)token[0], t1 = (size_t)token[LANES_MAX - 1];
            tile.first = t0 > reach ? t0 - reach : 0;
            tile.last = n - 1 - t1 > ahead ? t1 + ahead + 1 : n;
            if (tile.n_rows > VEC)
                attention_run(&h, &tile, 2);
            else
                attention_run(&h, &tile, 1);
        }
    }
}
