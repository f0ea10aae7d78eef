/*
 * chunks.c: see chunks.h.
 *
 * A window is guessed from the bytes a token had in the one before, counted, and moved until it is
 * nearly full; then the best border in its last quarter is taken. That is about four counts for a
 * piece, each a thousandth of the time it takes to embed it.
 */
#include "worker/pipeline/chunks.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/utf8.h"
#include "worker/pipeline/sentences.h"

enum {
    TOKEN_BYTES = 4, /* in the first guess */
    /* Runs of 31 spaces are tokens, so a window may need to be so large; a text with more bytes
     * than this for each token it may have is not counted as a whole, but cut. */
    TOKEN_MOST_BYTES = 64,
    TRIES = 6, /* to fill a window */
};

/* The text in hand and what is known of it. */
struct chunk_state {
    struct chunker *chunker;
    struct bytes text;
    size_t n_lead;      /* bytes of the lead in chunker->window */
    size_t lead_tokens; /* bos and eos included */
    size_t end_tokens;  /* bos and eos alone */
    size_t start;       /* of the piece in hand */
    size_t new_from;    /* what no piece before it holds */
    size_t guess;       /* bytes of the next window */
    size_t tokens;      /* of the piece in hand, the lead included */
};

void chunks_close(struct chunker *chunker)
{
    free(chunker->spans);
    free(chunker->window);
    chunker->spans = NULL;
    chunker->window = NULL;
    chunker->spans_room = chunker->window_room = chunker->n = 0;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static bool is_white(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static size_t skip_white(struct bytes text, size_t at)
{
    while (at < text.len && is_white(text.ptr[at]))
        at++;
    return at;
}

static size_t trim_white(struct bytes text, size_t start, size_t end)
{
    while (end > start && is_white(text.ptr[end - 1]))
        end--;
    return end;
}

static size_t char_start(struct bytes text, size_t at)
{
    return utf8_start(text.ptr, text.len, at);
}

static size_t char_end(struct bytes text, size_t at)
{
    return at + (size_t)abs(utf8_next(text.ptr + at, text.len - at));
}

/* Of the piece [start, end) as it will be embedded. */
static int count_piece(const struct chunk_state *state, size_t start, size_t end, size_t *n_tokens)
{
    const struct chunker *chunker = state->chunker;
    assert(start <= end && end <= state->text.len);
    assert(state->n_lead + end - start <= chunker->window_room);
    memcpy(chunker->window + state->n_lead, state->text.ptr + start, end - start);
    return chunker->count(chunker->ctx,
                          (struct bytes){chunker->window, state->n_lead + end - start}, n_tokens);
}

/* The end of a piece from state->start that fits and is nearly as long as it may be. */
static int window_fit(struct chunk_state *state, size_t *end)
{
    const size_t max = state->chunker->max_tokens, room = max - state->lead_tokens;
    const size_t most = least(state->text.len - state->start, TOKEN_MOST_BYTES * max);
    size_t fits = 0, over = most + 1, size = state->guess, n = 0;
    /* fits: the longest known to fit; over: the shortest known not to. The answer is between. */
    for (int i = 0; i < TRIES || fits == 0; i++) {
        size = char_start(state->text, state->start + least(size, most)) - state->start;
        /* A guess outside of (fits, over) would teach nothing: the middle instead ... */
        if (size <= fits || size >= over)
            size = char_start(state->text, state->start + fits + (over - fits) / 2) - state->start;
        /* ... and where that is inside the first character behind `fits`, all of this one. */
        if (size <= fits)
            size = char_end(state->text, state->start + fits) - state->start;
        if (size >= over)
            break;
        int err = count_piece(state, state->start, state->start + size, &n);
        if (err)
            return err;
        if (n > max) {
            over = size;
        } else {
            fits = size;
            state->tokens = n;
            /* Less than a sixteenth of the limit is free: full enough. */
            if (size == most || n + max / 16 >= max)
                break;
        }
        /* By the tokens for each byte seen so far, and a little less, so that most often it
         * fits. */
        size = size * (room - room / 32) / (n > state->lead_tokens ? n - state->lead_tokens : 1);
    }
    *end = state->start + fits;
    return fits > 0 ? 0 : -E2BIG;
}

/* Borders. */

enum rank { INSIDE, WORD, LINE, SENTENCE, PARAGRAPH };

/* How good a place to begin a piece: at the first byte of a character, not the first or last of the
 * text. */
static enum rank rank_at(struct bytes text, size_t at)
{
    size_t end = at, n_lines = 0;
    if (is_white(text.ptr[at]))
        return INSIDE;
    for (; end > 0 && is_white(text.ptr[end - 1]); end--)
        n_lines += text.ptr[end - 1] == '\n';
    if (n_lines > 1)
        return PARAGRAPH;
    if (sentence_begins(text, at))
        return SENTENCE;
    return n_lines > 0 ? LINE : end < at ? WORD : INSIDE;
}

/* The block that `at` is inside of, its first byte not counted; NULL: none. */
static const struct span *block_around(const struct chunker *chunker, size_t at)
{
    size_t low = 0, high = chunker->n_blocks;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (chunker->blocks[middle].end <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low < chunker->n_blocks && chunker->blocks[low].start < at ? &chunker->blocks[low]
                                                                      : NULL;
}

/* The last of the best borders in (from, to]; to, when there is not even a word's. */
static size_t border_before(const struct chunk_state *state, size_t from, size_t to,
                            enum rank *rank)
{
    struct bytes text = state->text;
    size_t best = to;
    *rank = INSIDE;
    /* From the end back: of equal borders the last is met first. */
    for (size_t at = to; at > from && *rank < PARAGRAPH; at--) {
        if (char_start(text, at) != at)
            continue;
        const struct span *block = block_around(state->chunker, at);
        /* Inside a block that can go into the next piece as a whole nothing is cut. */
        if (block && block->start > state->new_from)
            continue;
        enum rank here = rank_at(text, at);
        if (here > *rank) {
            *rank = here;
            best = at;
        }
    }
    return best;
}

/* The next piece ends before the border returned; to: where the window ends, not in white space.
 * A block that the window cuts goes into the next piece as a whole, unless one begins with it. */
static size_t border_find(const struct chunk_state *state, size_t to)
{
    enum rank rank;
    const struct span *block = block_around(state->chunker, to);
    if (block && block->start > state->new_from)
        return skip_white(state->text, block->start);
    size_t at = to;
    for (size_t part = 4; part > 1; part /= 2) {
        /* In the last quarter, else in the last half; what has no border there is cut inside a
         * word. */
        size_t from = to - (to - state->start) / part;
        at = border_before(state, from > state->new_from ? from : state->new_from, to, &rank);
        if (rank > INSIDE)
            break;
    }
    return at;
}

/*
 * The piece that begins at state->start. *next: where the text behind it begins. -EAGAIN: it would
 * end before anything new, or cut a block that begins with what is new.
 */
static int piece_find(struct chunk_state *state, struct span *out, size_t *next)
{
    size_t end = 0, counted, n = 0;
    int err = window_fit(state, &end);
    counted = end;
    while (!err) {
        /* Where the next text begins: white space in between is in neither piece. */
        size_t to = skip_white(state->text, end);
        const struct span *block = block_around(state->chunker, to);
        bool is_cut = block && block->start <= state->new_from; /* it may fit without the overlap */
        if (to <= state->new_from || (is_cut && state->start < state->new_from))
            return -EAGAIN;
        *next = to == state->text.len ? to : border_find(state, to);
        *out = (struct span){state->start, trim_white(state->text, state->start, *next)};
        /* As long as what window_fit has counted. */
        if (out->end == counted)
            return 0;
        err = count_piece(state, out->start, out->end, &n);
        if (!err && n <= state->chunker->max_tokens) {
            state->tokens = n;
            return 0;
        }
        /* Fewer bytes were more tokens, because a word is cut in another place: rare. */
        end = char_start(state->text, out->end - (out->end - out->start) / 16 - 1);
        counted = 0;
        if (end <= state->start)
            return -E2BIG;
    }
    return err;
}

/* The first sentence's beginning in the first half of [from, to), or the first word's; else from.
 */
static size_t border_behind(struct bytes text, size_t from, size_t to)
{
    size_t word = to, half = from + (to - from) / 2;
    for (size_t at = from; at < to && (at < half || word == to); at++) {
        if (char_start(text, at) != at)
            continue;
        enum rank rank = rank_at(text, at);
        if (rank >= SENTENCE && at < half)
            return at;
        if (rank >= WORD && word == to)
            word = at;
    }
    return word < to ? word : skip_white(text, from);
}

/* Where the piece behind `span` begins, so that it repeats as much of it as is allowed. */
static int overlap_find(const struct chunk_state *state, struct span span, size_t next,
                        size_t *start)
{
    const struct chunker *chunker = state->chunker;
    size_t n_own = state->tokens > state->lead_tokens ? state->tokens - state->lead_tokens : 1;
    size_t most = least(chunker->overlap, (chunker->max_tokens - state->lead_tokens) / 2);
    /* Bytes in proportion to the tokens that may be repeated; counted below. */
    size_t len = next < state->text.len ? (span.end - span.start) * most / n_own : 0, n = 0;
    *start = next;
    while (len > 0 && len < span.end - span.start) {
        size_t from = char_start(state->text, span.end - len);
        if (from <= span.start)
            from = char_end(state->text, span.start);
        size_t at = border_behind(state->text, from, span.end);
        /* What is repeated does not begin in the middle of a table or of code. */
        if (at >= span.end || block_around(chunker, at))
            break;
        struct bytes piece = {state->text.ptr + at, span.end - at};
        int err = chunker->count(chunker->ctx, piece, &n);
        if (err)
            return err;
        /* Counted with bos and eos, which the overlap does not mean. */
        if (n <= most + state->end_tokens) {
            *start = at;
            break;
        }
        len = least(piece.len * 3 / 4, len - 1); /* char_start may have made the piece longer */
    }
    return 0;
}

static int span_add(struct chunker *chunker, struct span span)
{
    if (chunker->n == chunker->max_spans)
        return -EOVERFLOW;
    if (chunker->n == chunker->spans_room) {
        size_t room = chunker->spans_room ? 2 * chunker->spans_room : 64;
        struct span *more = realloc(chunker->spans, room * sizeof *more);
        if (!more)
            return -ENOMEM;
        chunker->spans = more;
        chunker->spans_room = room;
    }
    chunker->spans[chunker->n++] = span;
    return 0;
}

/* The lead into the window, and room for the largest piece. */
static int window_open(struct chunk_state *state, struct bytes lead)
{
    struct chunker *chunker = state->chunker;
    size_t room = lead.len + least(state->text.len, TOKEN_MOST_BYTES * chunker->max_tokens) + 1;
    if (room > chunker->window_room) {
        char *window = realloc(chunker->window, room);
        if (!window)
            return -ENOMEM;
        chunker->window = window;
        chunker->window_room = room;
    }
    if (lead.len > 0)
        memcpy(chunker->window, lead.ptr, lead.len);
    state->n_lead = lead.len;
    int err = chunker->count(chunker->ctx, (struct bytes){chunker->window, lead.len},
                             &state->lead_tokens);
    if (!err)
        err = chunker->count(chunker->ctx, (struct bytes){chunker->window, 0}, &state->end_tokens);
    return err;
}

/* Of white space alone there is nothing to find a border in: its first character stands for it. */
static int white_find(struct chunk_state *state)
{
    return state->text.len == 0 ? 0 : span_add(state->chunker, (struct span){0, 1});
}

static int chunk_all(struct chunk_state *state)
{
    size_t next = skip_white(state->text, 0);
    int err = next == state->text.len ? white_find(state) : 0;
    state->start = next;
    while (!err && next < state->text.len) {
        struct span span;
        state->new_from = next;
        err = piece_find(state, &span, &next);
        if (err == -EAGAIN) { /* what is repeated takes all the room */
            state->start = state->new_from;
            err = piece_find(state, &span, &next);
        }
        if (!err)
            err = span_add(state->chunker, span);
        if (err)
            break;
        /* The next window is tried as long as this piece was. */
        state->guess = span.end - span.start;
        err = overlap_find(state, span, next, &state->start);
    }
    return err;
}

int chunks_find(struct chunker *chunker, struct bytes lead, struct bytes text)
{
    struct chunk_state state = {.chunker = chunker, .text = text};
    size_t n = 0;
    chunker->n = 0;
    int err = window_open(&state, lead);
    if (!err && text.len <= TOKEN_MOST_BYTES * chunker->max_tokens) {
        err = count_piece(&state, 0, text.len, &n);
        if (!err && n <= chunker->max_tokens)
            return 0;
    }
    /* Only now: a text that fits as a whole may have a lead of any length. */
    if (!err && state.lead_tokens > chunker->max_tokens / 2)
        return -E2BIG;
    state.guess = TOKEN_BYTES * chunker->max_tokens;
    return err ? err : chunk_all(&state);
}
