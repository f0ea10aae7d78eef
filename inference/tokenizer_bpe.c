/*
 * tokenizer_bpe.c: merges one piece, best pair first.
 *
 * Owns:    the order of merges and the scratch it needs.
 * Refuses: to know where pieces come from; bytes that are not a token (they never enter a piece).
 * Threads: a piece belongs to one thread; it holds nothing from one merge to the next.
 * Why:     a heap keeps a word of a million letters at n log n; rescanning would be n squared.
 *
 * The order is that of the list of merges the published tokenizer carries, without the list: it was
 * made from the scores by sorting on (score down, left length down, right length down), and holds
 * every split of every token into two tokens. Verified on all 514,906 merges of EmbeddingGemma: no
 * split is missing, and scores of ordinary tokens are all different, so equal keys only come from
 * one token at several places, where the leftmost goes first. The left length matters: in
 * "ha"+"haha"+"ha" both neighbours make "hahaha", and the pair with the longer left goes first.
 * Lengths are in bytes here and in characters there: within one token both order alike.
 */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "inference/tokenizer_internal.h"

#define FIXED_SYMBOLS 4096
#define NO_SYMBOL     UINT32_MAX
#define NO_PAIR       UINT32_MAX
#define TAIL_BITS     8

/* A token of the piece; the list starts as its characters and shrinks. */
struct symbol {
    uint32_t at;  /* bytes from the start of the piece */
    uint32_t len; /* bytes; 0 once merged into its left neighbour */
    uint32_t prev, next;
    uint32_t id;
};

/* Two neighbours that make a token, as they were when found. */
struct pair {
    uint32_t left; /* symbol */
    uint32_t id;   /* of the token they make */
    uint32_t next; /* in its chain, further right; or the next free one */
};

/*
 * Pairs of equal order form chains from left to right, and only the first of each is in the heap:
 * in a run of one letter a million pairs are one chain, and taking them costs no walk of the heap.
 */
struct chain {
    uint64_t order; /* smaller goes first: score, then length of the left; low bits: of the right */
    uint32_t left;  /* of the first pair; among equals the leftmost goes first */
    uint32_t first; /* pair */
};

/* Where a chain ends, so that it can be continued. Losing one only costs a second chain. */
struct tail {
    uint64_t order;
    uint32_t pair; /* NO_PAIR: none */
};

struct piece {
    struct chain *heap;     /* [capacity * 2] */
    struct pair *pairs;     /* [capacity * 2]: each merge takes one and adds two at most */
    struct symbol *symbols; /* [capacity] */
    uint8_t *bytes;         /* [capacity * 4] */
    uint32_t capacity;
    uint32_t n;
    uint32_t n_bytes;
    uint32_t n_chains;
    uint32_t n_pairs;   /* ever used in this piece */
    uint32_t free_pair; /* or NO_PAIR */
    void *fixed;        /* the memory held from open to close */
    void *block;        /* the memory in use: fixed, or a larger one for a giant piece */
    struct tail tails[(1 << TAIL_BITS)];
};

static void block_divide(struct piece *piece, void *block, uint32_t capacity)
{
    /* From the strictest alignment to none: chains (8 bytes), pairs and symbols (4), bytes. */
    piece->heap = block;
    piece->pairs = (struct pair *)(piece->heap + (size_t)capacity * 2);
    piece->symbols = (struct symbol *)(piece->pairs + (size_t)capacity * 2);
    piece->bytes = (uint8_t *)(piece->symbols + capacity);
    piece->capacity = capacity;
    piece->block = block;
}

static void *block_alloc(uint32_t capacity)
{
    return malloc((size_t)capacity *
                  (2 * (sizeof(struct chain) + sizeof(struct pair)) + sizeof(struct symbol) + 4));
}

int piece_open(struct piece **out)
{
    struct piece *piece = calloc(1, sizeof(*piece));

    if (!piece)
        return -ENOMEM;
    piece->fixed = block_alloc(FIXED_SYMBOLS);
    if (!piece->fixed) {
        free(piece);
        return -ENOMEM;
    }
    block_divide(piece, piece->fixed, FIXED_SYMBOLS);
    /* Once: each merge takes all of its chains, and leaves no tail. */
    for (int i = 0; i < (1 << TAIL_BITS); i++)
        piece->tails[i].pair = NO_PAIR;
    piece->free_pair = NO_PAIR;
    *out = piece;
    return 0;
}

void piece_close(struct piece *piece)
{
    if (!piece)
        return;
    piece_reset(piece);
    free(piece->fixed);
    free(piece);
}

void piece_reset(struct piece *piece)
{
    if (piece->block != piece->fixed) {
        free(piece->block);
        block_divide(piece, piece->fixed, FIXED_SYMBOLS);
    }
    /* Also after a failure in the middle of a text: what was collected is dropped. */
    piece->n = piece->n_bytes = 0;
}

bool piece_is_empty(const struct piece *piece)
{
    return piece->n == 0;
}

static int piece_grow(struct piece *piece)
{
    struct piece old = *piece;
    void *block;

    if (old.capacity > UINT32_MAX / 8) /* offsets are 32 bits, a character 4 bytes */
        return -ENOMEM;
    block = block_alloc(old.capacity * 2);
    if (!block)
        return -ENOMEM;
    block_divide(piece, block, old.capacity * 2);
    /* Pairs and heap are not copied: a piece grows only while its characters are collected. */
    memcpy(piece->symbols, old.symbols, old.n * sizeof(*old.symbols));
    memcpy(piece->bytes, old.bytes, old.n_bytes);
    if (old.block != old.fixed)
        free(old.block);
    return 0;
}

int piece_add(struct piece *piece, const uint8_t *bytes, size_t len, uint32_t id)
{
    uint32_t i = piece->n;

    if (i == piece->capacity) {
        int status = piece_grow(piece);
        if (status)
            return status;
    }
    /* A character has 4 bytes at most, for which the block has room (block_alloc). */
    assert(piece->n < piece->capacity && piece->n_bytes + len <= piece->capacity * 4);
    piece->symbols[i] = (struct symbol){.at = piece->n_bytes,
                                        .len = (uint32_t)len,
                                        .prev = i ? i - 1 : NO_SYMBOL,
                                        .next = NO_SYMBOL,
                                        .id = id};
    if (i)
        piece->symbols[i - 1].next = i;
    memcpy(piece->bytes + piece->n_bytes, bytes, len);
    piece->n_bytes += (uint32_t)len;
    piece->n++;
    return 0;
}

static bool goes_before(const struct chain *a, const struct chain *b)
{
    return a->order != b->order ? a->order < b->order : a->left < b->left;
}

static void heap_push(struct piece *piece, struct chain chain)
{
    struct chain *heap = piece->heap;
    assert(piece->n_chains < piece->capacity * 2);
    uint32_t i = piece->n_chains++;

    while (i > 0) {
        /* Four children a node: half the levels, and they lie in one line of the cache. */
        uint32_t parent = (i - 1) / 4;
        if (!goes_before(&chain, &heap[parent]))
            break;
        heap[i] = heap[parent];
        i = parent;
    }
    heap[i] = chain;
}

/* Put `chain` in the place of the top and let it sink. */
static void heap_replace(struct piece *piece, struct chain chain)
{
    struct chain *heap = piece->heap;
    size_t n = piece->n_chains, i = 0;

    for (;;) {
        /* Children of i: 4 i + 1 to 4 i + 4. */
        size_t child = 4 * i + 1, end = child + 4 < n ? child + 4 : n, best = child;
        if (child >= n)
            break;
        for (size_t k = child + 1; k < end; k++)
            if (goes_before(&heap[k], &heap[best]))
                best = k;
        if (!goes_before(&heap[best], &chain))
            break;
        heap[i] = heap[best];
        i = best;
    }
    heap[i] = chain;
}

static struct tail *tail_of(struct piece *piece, uint64_t order)
{
    /* The upper bits of the product: all bits of the order have a say in them. */
    return &piece->tails[order * 0x9E3779B97F4A7C15u >> (64 - TAIL_BITS)];
}

static void pair_push(struct piece *piece, uint64_t order, uint32_t left, uint32_t id)
{
    struct tail *tail = tail_of(piece, order);
    uint32_t i = piece->free_pair;

    if (i != NO_PAIR)
        piece->free_pair = piece->pairs[i].next;
    else
        i = piece->n_pairs++;
    /* Each of at most capacity - 1 merges frees one and takes two at most. */
    assert(i < piece->capacity * 2);
    piece->pairs[i] = (struct pair){.left = left, .id = id, .next = NO_PAIR};
    /* Only to the right of its end: a chain is sorted by place without ever being sorted. */
    if (tail->pair != NO_PAIR && tail->order == order && piece->pairs[tail->pair].left < left)
        piece->pairs[tail->pair].next = i;
    else
        heap_push(piece, (struct chain){.order = order, .left = left, .first = i});
    *tail = (struct tail){.order = order, .pair = i};
}

static struct pair pair_pop(struct piece *piece, uint64_t *order)
{
    struct chain top = piece->heap[0];
    struct pair pair = piece->pairs[top.first];
    struct tail *tail = tail_of(piece, top.order);

    *order = top.order;
    if (pair.next != NO_PAIR) {
        heap_replace(piece, (struct chain){.order = top.order,
                                           .left = piece->pairs[pair.next].left,
                                           .first = pair.next});
    } else {
        /* The chain is gone, and nothing may be appended to it. */
        if (tail->pair == top.first)
            tail->pair = NO_PAIR;
        if (--piece->n_chains > 0)
            heap_replace(piece, piece->heap[piece->n_chains]);
    }
    /* `pair` is a copy: its place is free for what this merge will offer. */
    piece->pairs[top.first].next = piece->free_pair;
    piece->free_pair = top.first;
    return pair;
}

/* Bits that sort as the scores do, the highest score first. */
static uint32_t score_order(float score)
{
    uint32_t bits;

    score += 0.0f; /* -0 and 0 are one score */
    memcpy(&bits, &score, sizeof(bits));
    /* Bits of a positive float rise with it, and are turned; those of a negative one fall
     * already. */
    return bits & 0x80000000u ? bits : ~bits & 0x7FFFFFFFu;
}

static void pair_offer(struct piece *piece, const struct vocab *vocab, uint32_t left)
{
    const struct symbol *l, *r;
    uint32_t id;

    if (left == NO_SYMBOL || piece->symbols[left].next == NO_SYMBOL)
        return;
    l = &piece->symbols[left];
    r = &piece->symbols[l->next];
    if (l->len + r->len > vocab->longest)
        return;
    id = vocab_find(vocab, piece->bytes + l->at, l->len + r->len);
    /* Minus infinity: a token that no merge of the list makes (read_merges). */
    if (id == NO_TOKEN || vocab_score(vocab, id) == -INFINITY)
        return;
    /* 16 bits for each length: LEN_LIMIT of tokenizer_vocab.c. The right one follows from the
     * token and the left one: it is there for pair_still_stands. */
    pair_push(piece,
              (uint64_t)score_order(vocab_score(vocab, id)) << 32 |
                  (uint64_t)(0xFFFF - l->len) << 16 | r->len,
              left, id);
}

/* Both are as they were: symbols only grow, so a pair of the same lengths is the same pair. */
static bool pair_still_stands(const struct piece *piece, uint32_t left, uint64_t order)
{
    const struct symbol *l = &piece->symbols[left];

    return l->len == 0xFFFF - (order >> 16 & 0xFFFF) && l->next != NO_SYMBOL &&
           piece->symbols[l->next].len == (order & 0xFFFF);
}

void piece_merge(struct piece *piece, const struct vocab *vocab, struct id_row *row)
{
    for (uint32_t i = 0; i + 1 < piece->n; i++)
        pair_offer(piece, vocab, i);
    while (piece->n_chains) {
        uint64_t order;
        struct pair pair = pair_pop(piece, &order);
        struct symbol *l = &piece->symbols[pair.left], *r;

        /* One of the two was merged with another meanwhile. To look is cheaper than to find and
         * remove it then. */
        if (!pair_still_stands(piece, pair.left, order))
            continue;
        r = &piece->symbols[l->next];
        l->len += r->len;
        l->id = pair.id;
        l->next = r->next;
        r->len = 0;
        if (l->next != NO_SYMBOL)
            piece->symbols[l->next].prev = pair.left;
        /* What is new are the pairs on both sides of the merged symbol. */
        pair_offer(piece, vocab, l->prev);
        pair_offer(piece, vocab, pair.left);
    }
    /* The first symbol is never merged into another: the list begins with it. */
    for (uint32_t i = 0; piece->n && i != NO_SYMBOL; i = piece->symbols[i].next)
        id_row_add(row, piece->symbols[i].id);
    piece->n = piece->n_bytes = piece->n_pairs = 0;
    piece->free_pair = NO_PAIR;
}
