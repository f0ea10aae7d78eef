/*
 * kernels_tiles.h: the loop around a table's tile of a matrix product, written once.
 *
 * Tokens are packed in tiles, so that every broadcast in a tile is one constant offset from one
 * pointer. The including file sets, before the include: PANEL_ROWS (rows of weights in a panel, a
 * part of MATRIX_ROWS), TILE (most tokens in a tile), TOKEN_BLOCK (bytes of one token in a block),
 * PANEL_BLOCK (bytes of a block of an unpacked panel), TILE_STEP where tokens are taken by twos;
 * after it:
 *   panel_unpack    PANEL_ROWS rows of weights, from the mapped file to the panel
 *   tile_functions  [TILE + 1] out[t][0 .. PANEL_ROWS) for a tile of 1 .. TILE tokens and the
 *                   panel; calls block_prefetch for each block
 * After its blocks a tile holds one float scale a token; in precision "fast" the number of its
 * rests, and these.
 */
#ifndef TILE_STEP
#define TILE_STEP 1 /* a tile's tokens are a multiple of it, but for the last tile's */
#endif
#ifdef KERNELS_FAST
#define TOKEN_RESTS sizeof(struct rest) /* bytes of one token's for a block */
#else
#define TOKEN_RESTS 0
#endif

struct tiling {
    size_t n_tiles, small, n_large; /* the first n_large tiles hold small + TILE_STEP tokens */
};

/* Tiles are as equal as can be: of TILE + 1 tokens none stands alone. */
INLINE struct tiling tiling_of(size_t n)
{
    size_t n_tiles = (n + TILE - 1) / TILE, n_steps = (n + TILE_STEP - 1) / TILE_STEP;
    return (struct tiling){n_tiles, n_steps / n_tiles * TILE_STEP, n_steps % n_tiles};
}

INLINE size_t tile_width(struct tiling tiling, bool large, size_t n_left)
{
    size_t width = tiling.small + (large ? TILE_STEP : 0);
    return width < n_left ? width : n_left;
}

INLINE size_t token_size(size_t k)
{
    return k / Q8_BLOCK * (TOKEN_BLOCK + TOKEN_RESTS) + sizeof(float);
}

static size_t packed_size(size_t n, size_t k)
{
    return n * token_size(k);
}

static size_t panel_size(size_t k)
{
    return k / Q8_BLOCK * PANEL_BLOCK;
}

/*
 * Rows that will be unpacked soon are asked for while a tile is computed, a block's share for each
 * block: ahead is their first byte, or NULL. Unpacking reads 16 rows side by side, more streams
 * than the hardware's prefetchers follow: without this a pass over all weights takes four times as
 * long as reading them. Two parts ahead: the one between is another thread's when two share a
 * product.
 */
enum { ROWS_AHEAD = 2 * MATRIX_ROWS };

INLINE const uint8_t *rows_ahead(const struct q8_matrix *w, size_t row)
{
    size_t row_size = w->n_in / Q8_BLOCK * Q8_BLOCK_BYTES;
    return row + ROWS_AHEAD < w->n_out ? w->blocks + (row + ROWS_AHEAD) * row_size : NULL;
}

INLINE void block_prefetch(const uint8_t *ahead, size_t b)
{
    enum { SHARE = PANEL_ROWS * Q8_BLOCK_BYTES, LINE = 64 };
    if (ahead)
        for (size_t i = 0; i < SHARE; i += LINE)
            __builtin_prefetch(ahead + b * SHARE + i, 0, 2);
}

/* The first rows of a product, which nothing before them could ask for: all at once, as the memory
 * they lie in is one piece. */
INLINE void panel_prefetch(const struct q8_matrix *w, size_t row)
{
    size_t size = w->n_in / Q8_BLOCK * Q8_BLOCK_BYTES;
    for (size_t i = 0; i < PANEL_ROWS * size; i += 64)
        __builtin_prefetch(w->blocks + row * size + i, 0, 2);
}

/* Where token t of n lies: in a tile of `width` tokens that begins with token `first`. */
struct place {
    size_t first, width;
};

INLINE struct place place_of(size_t n, size_t t)
{
    struct tiling tiling = tiling_of(n);
    /* Large tiles come first: in_large tokens are in them. */
    size_t width = tiling.small + TILE_STEP, in_large = tiling.n_large * width;
    bool large = t < in_large;
    size_t first =
        large ? t / width * width : in_large + (t - in_large) / tiling.small * tiling.small;
    return (struct place){first, tile_width(tiling, large, n - first)};
}

typedef void tile_function(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                           size_t n_blocks, const uint8_t *ahead);
static tile_function *const tile_functions[TILE + 1];

static void panel_unpack(uint8_t *panel, const struct q8_matrix *w, size_t row);

static void matmul(float *out, size_t ld, const void *packed, size_t n, const struct q8_matrix *w,
                   struct span rows, void *panel)
{
    struct tiling tiling = tiling_of(n);
    assert(n > 0 && n <= TOKENS_MAX && rows.last <= w->n_out);
    size_t n_blocks = w->n_in / Q8_BLOCK, size = token_size(w->n_in);
    for (size_t row = rows.first; row < rows.last; row += PANEL_ROWS) {
        if (row < ROWS_AHEAD)
            panel_prefetch(w, row);
        panel_unpack(panel, w, row);
        const int8_t *tokens = packed;
        const uint8_t *ahead = rows_ahead(w, row);
        float *to = out + row;
        for (size_t i = 0, done = 0; i < tiling.n_tiles; i++) {
            size_t width = tile_width(tiling, i < tiling.n_large, n - done);
            /* Rows ahead are asked for once a panel, by its first tile. */
            tile_functions[width](to, ld, panel, tokens, n_blocks, i ? NULL : ahead);
            tokens += width * size;
            to += width * ld;
            done += width;
        }
    }
}

/* tile_T of the including file's tile_matmul, which takes T as a constant. */
#define TILE_FUNCTION(T)                                                                           \
    static void tile_##T(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,        \
                         size_t n_blocks, const uint8_t *ahead)                                    \
    {                                                                                              \
        tile_matmul(out, ld, panel, tokens, n_blocks, ahead, T);                                   \
    }
