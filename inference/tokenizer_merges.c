/*
 * tokenizer_merges.c: see tokenizer_merges.h.
 *
 * A heap of pairs keeps a word of a megabyte at n log n. A pair that one of its tokens has left
 * stays in it, and is known by its rank: that of the two that stand there now is another.
 */
#include "inference/tokenizer_merges.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "inference/tokenizer_internal.h"

enum { FIRST_ROOM = 64, KEEP_ROOM = 4096, MERGE_BYTES = 1024 };

struct symbol {
    uint32_t id;
    uint32_t prev, next; /* or NO_TOKEN */
    uint32_t rank;       /* of this and the next; NO_TOKEN: they do not merge, or it is gone */
    uint32_t merged;     /* what they become */
};

struct pair {
    uint32_t rank, left;
};

struct merging {
    struct symbol *symbols; /* [room] */
    struct pair *heap;      /* [2 * room]: each merge takes one and adds two at most */
    uint32_t n, room, n_pairs;
};

static uint32_t slot_of(const struct merges *merges, uint32_t left, uint32_t right)
{
    uint64_t mixed = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(mixed >> 32) & merges->slot_mask;
}

static const struct merge_rule *merge_find(const struct merges *merges, uint32_t left,
                                           uint32_t right)
{
    for (uint32_t i = slot_of(merges, left, right);; i = (i + 1) & merges->slot_mask) {
        /* It ends: a third of the slots are free (merges_open). */
        const struct merge_rule *merge = &merges->slots[i];
        if (merge->left == NO_TOKEN)
            return NULL;
        if (merge->left == left && merge->right == right)
            return merge;
    }
}

/* The character that stands for a byte in the texts of tokens: itself if it can be seen, else one
 * from U+0100 on, in order. */
static uint32_t byte_code(unsigned byte)
{
    uint32_t n = 0;
    for (unsigned b = 0; b <= byte; b++) {
        int seen = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        if (b == byte)
            return seen ? byte : 0x100 + n;
        n += !seen;
    }
    return 0;
}

static int read_bytes(struct merges *merges, const struct vocab *vocab, char *err, size_t err_size)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        uint8_t text[4];
        size_t len = utf8_encode(byte_code(byte), text);
        merges->bytes[byte] = vocab_find(vocab, text, len);
        if (merges->bytes[byte] == NO_TOKEN)
            return vocab_refuse(err, err_size, "vocabulary: missing token of byte 0x%02X", byte);
    }
    return 0;
}

/* "left right" to its tokens. */
static int merge_read(const struct vocab *vocab, struct gguf_str text, struct merge_rule *out)
{
    const uint8_t *bytes = (const uint8_t *)text.ptr, *space = memchr(bytes, ' ', text.len);
    uint8_t whole[MERGE_BYTES];
    /* Inside a token a space is written as U+0120: a real one stands between the two. */
    size_t left = space ? (size_t)(space - bytes) : 0;
    if (left == 0 || left + 1 >= text.len || text.len > sizeof whole)
        return -EINVAL;
    memcpy(whole, bytes, left);
    memcpy(whole + left, space + 1, text.len - left - 1);
    out->left = vocab_find(vocab, bytes, left);
    out->right = vocab_find(vocab, space + 1, text.len - left - 1);
    out->id = vocab_find(vocab, whole, text.len - 1);
    return out->left == NO_TOKEN || out->right == NO_TOKEN || out->id == NO_TOKEN ? -EINVAL : 0;
}

static int read_list(struct merges *merges, const struct vocab *vocab,
                     const struct gguf_array *list, char *err, size_t err_size)
{
    struct gguf_str text;
    size_t at = 0;
    for (uint32_t rank = 0; gguf_array_next(list, &at, &text); rank++) {
        struct merge_rule merge = {.rank = rank};
        if (merge_read(vocab, text, &merge))
            return vocab_refuse(err, err_size,
                                "tokenizer.ggml.merges: number %u is not two tokens that make one",
                                rank);
        if (merge_find(merges, merge.left, merge.right))
            continue; /* the first counts */
        uint32_t i = slot_of(merges, merge.left, merge.right);
        while (merges->slots[i].left != NO_TOKEN)
            i = (i + 1) & merges->slot_mask;
        merges->slots[i] = merge;
    }
    return 0;
}

int merges_open(struct merges *merges, const struct vocab *vocab, const struct gguf *gguf,
                char *err, size_t err_size)
{
    struct gguf_array list;
    size_t n_slots = 16;
    if (gguf_get_array(gguf, "tokenizer.ggml.merges", &list) || list.type != GGUF_STR)
        return vocab_refuse(err, err_size, "tokenizer.ggml.merges is not an array of strings");
    if (list.n > INT32_MAX / 2)
        return vocab_refuse(err, err_size, "tokenizer.ggml.merges is too long");
    /* Two thirds full at most. No overflow: this ends at 2^31 slots or before. */
    while (2 * n_slots < 3 * list.n + 16)
        n_slots *= 2;
    merges->slots = malloc(n_slots * sizeof *merges->slots);
    if (!merges->slots)
        return -ENOMEM;
    memset(merges->slots, 0xFF, n_slots * sizeof *merges->slots);
    merges->slot_mask = (uint32_t)n_slots - 1;
    int status = read_bytes(merges, vocab, err, err_size);
    return status ? status : read_list(merges, vocab, &list, err, err_size);
}

void merges_close(struct merges *merges)
{
    free(merges->slots);
    merges->slots = NULL;
}

static int make_room(struct merging *m, uint32_t room)
{
    /* To be smaller: what counts is the smallest buffer, should a realloc fail between two. */
    m->room = room < m->room ? room : m->room;
    void *symbols = realloc(m->symbols, room * sizeof *m->symbols);
    m->symbols = symbols ? symbols : m->symbols;
    void *heap = realloc(m->heap, 2 * (size_t)room * sizeof *m->heap);
    m->heap = heap ? heap : m->heap;
    if (!symbols || !heap)
        return -ENOMEM;
    m->room = room;
    return 0;
}

int merging_open(struct merging **out)
{
    struct merging *m = calloc(1, sizeof *m);
    if (!m)
        return -ENOMEM;
    int rc = make_room(m, FIRST_ROOM);
    if (rc) {
        merging_close(m);
        return rc;
    }
    *out = m;
    return 0;
}

void merging_close(struct merging *m)
{
    if (!m)
        return;
    free(m->symbols);
    free(m->heap);
    free(m);
}

int merging_add(struct merging *m, uint32_t id)
{
    if (m->n == m->room) {
        /* A word of 2^26 bytes ends it: the sizes of make_room are far from an overflow there. */
        int rc = m->room > UINT32_MAX / 64 ? -ENOMEM : make_room(m, 2 * m->room);
        if (rc)
            return rc;
    }
    m->symbols[m->n] = (struct symbol){id, m->n ? m->n - 1 : NO_TOKEN, NO_TOKEN, NO_TOKEN, 0};
    if (m->n)
        m->symbols[m->n - 1].next = m->n;
    m->n++;
    return 0;
}

static int goes_before(struct pair a, struct pair b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.left < b.left;
}

static void heap_push(struct merging *m, struct pair pair)
{
    assert(m->n_pairs < 2 * m->room);
    uint32_t i = m->n_pairs++;
    for (; i > 0 && goes_before(pair, m->heap[(i - 1) / 2]); i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = pair;
}

static struct pair heap_pop(struct merging *m)
{
    /* The last one takes the place of the first and sinks. */
    struct pair top = m->heap[0], last = m->heap[--m->n_pairs];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= m->n_pairs)
            break;
        if (child + 1 < m->n_pairs && goes_before(m->heap[child + 1], m->heap[child]))
            child++;
        if (!goes_before(m->heap[child], last))
            break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = last;
    return top;
}

static void offer(struct merging *m, const struct merges *merges, uint32_t left)
{
    if (left == NO_TOKEN)
        return;
    struct symbol *l = &m->symbols[left];
    const struct merge_rule *merge =
        l->next == NO_TOKEN ? NULL : merge_find(merges, l->id, m->symbols[l->next].id);
    l->rank = merge ? merge->rank : NO_TOKEN;
    if (!merge)
        return;
    l->merged = merge->id;
    heap_push(m, (struct pair){merge->rank, left});
}

int merging_run(struct merging *m, const struct merges *merges, struct id_row *row)
{
    for (uint32_t i = 0; i < m->n; i++)
        offer(m, merges, i);
    while (m->n_pairs) {
        struct pair pair = heap_pop(m);
        struct symbol *l = &m->symbols[pair.left];
        /* The pair is gone: one of the two has merged since, or another rank stands here. */
        if (l->rank != pair.rank)
            continue;
        struct symbol *r = &m->symbols[l->next];
        l->id = l->merged;
        l->next = r->next;
        /* No pair has this rank, so those of the heap that begin with r are passed over. */
        r->rank = NO_TOKEN;
        if (l->next != NO_TOKEN)
            m->symbols[l->next].prev = pair.left;
        offer(m, merges, l->prev);
        offer(m, merges, pair.left);
    }
    /* The first symbol is never merged into another: the list begins with it. */
    for (uint32_t i = 0; m->n && i != NO_TOKEN; i = m->symbols[i].next)
        id_row_add(row, m->symbols[i].id);
    m->n = 0;
    if (m->room > KEEP_ROOM)
        (void)make_room(m, KEEP_ROOM); /* smaller: a failure changes nothing */
    return 0;
}
