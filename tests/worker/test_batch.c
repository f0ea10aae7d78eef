/*
 * test_batch.c: however texts are spread over messages, each is in exactly one unique text or is
 * the duplicate of one, slices cover the lots, and vectors come back to their places.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "inference/architecture.h"
#include "worker/pipeline/batch.h"

enum { DIM = 4, MAX_TOKENS = 2048 };

static struct message nobody;

static struct bytes bytes_or_none(const char *text)
{
    return (struct bytes){text, text ? strlen(text) : 0};
}

static const struct prompt *prompt_named(const char *name)
{
    static const struct model_info info = {.prompts = gemma_prompts};
    return prompt_find(&info, bytes_or_none(name));
}

/* A message of n texts, all of which live longer than the batch. */
static struct entry *add(struct batch *batch, const char *prompt, size_t n,
                         const char *const *texts, const char *title)
{
    struct entry *entry = batch_add(batch, &nobody);
    assert_non_null(entry);
    entry->prompt = prompt_named(prompt);
    entry->request.n_items = n;
    entry->request.items = arena_alloc(&batch->arena, n * sizeof(struct item));
    assert_non_null(entry->request.items);
    for (size_t i = 0; i < n; i++)
        entry->request.items[i] =
            (struct item){.title = bytes_or_none(title), .text = bytes_or_none(texts[i])};
    batch_count(batch, entry);
    return entry;
}

/* A unit vector that says which text it belongs to. */
static void row_of(const struct text *text, float row[DIM])
{
    unsigned sum = 0;
    for (size_t i = 0; i < text->len; i++)
        sum = sum * 31 + (unsigned char)text->ptr[i];
    float angle = (float)(sum % 6283) / 1000;
    row[0] = cosf(angle), row[1] = sinf(angle), row[2] = 0, row[3] = 0;
}

static void embed_all(struct batch *batch, struct scratch *scratch)
{
    for (size_t s = 0; s < batch->n_slices; s++) {
        struct slice *slice = &batch->slices[s];
        assert_int_equal(slice_load(slice, scratch), 0);
        for (size_t i = 0; i < slice->n; i++) {
            row_of(&scratch->texts[i], scratch->rows[i]);
            scratch->results[i] =
                (struct embed_result){.n_tokens = (uint32_t)scratch->texts[i].len};
        }
        slice_store(slice, scratch, 0);
    }
}

static void assert_rows(const struct batch *batch)
{
    char prompted[8192];
    for (size_t e = 0; e < batch->n_entries; e++) {
        const struct entry *entry = &batch->entries[e];
        for (size_t i = 0; i < entry->request.n_items; i++) {
            const struct item *item = &entry->request.items[i];
            size_t at = entry->first_item + i;
            float row[DIM];
            size_t len =
                prompt_render(entry->prompt, item->title, item->text, prompted, sizeof prompted);
            row_of(&(struct text){prompted, len}, row);
            assert_memory_equal(batch->vectors + at * DIM, row, sizeof row);
            assert_int_equal(batch->results[at].n_tokens, len);
            assert_int_equal(batch->results[at].status, 0);
        }
    }
}

/* Lots are sorted, slices follow each other without a gap, none is empty. */
static void assert_covered(const struct batch *batch)
{
    size_t next = 0;
    for (size_t s = 0; s < batch->n_slices; s++) {
        assert_int_equal(batch->slices[s].first, next);
        assert_true(batch->slices[s].n > 0);
        next += batch->slices[s].n;
    }
    assert_int_equal(next, batch->n_uniques);
    for (size_t i = 1; i < batch->n_uniques; i++)
        assert_true(batch->uniques[i - 1].n_tokens >= batch->uniques[i].n_tokens);
    assert_int_equal(batch->slices_left, batch->n_slices);
}

static void test_twins_share_a_row(void **state)
{
    (void)state;
    struct batch batch;
    struct scratch scratch = {0};
    batch_open(&batch, DIM, MAX_TOKENS);
    const char *const some[] = {"a", "b", "a", "a longer text than the others"};
    add(&batch, "document", 4, some, NULL);
    add(&batch, "query", 2, some, NULL);       /* other prompt: other texts */
    add(&batch, "document", 1, some, "title"); /* other title */
    add(&batch, "document", 1, some, NULL);
    assert_int_equal(batch_slice(&batch, 2), 0);
    assert_int_equal(batch.n_texts, 8);
    assert_int_equal(batch.n_uniques, 6);
    assert_covered(&batch);
    embed_all(&batch, &scratch);
    assert_rows(&batch);
    scratch_close(&scratch);
    batch_close(&batch);
}

/* Title and text must not run together: "ab"+"c" is not "a"+"bc". */
static void test_title_and_text_are_told_apart(void **state)
{
    (void)state;
    struct batch batch;
    batch_open(&batch, DIM, MAX_TOKENS);
    const char *const c[] = {"c"}, *const bc[] = {"bc"}, *const abc[] = {"abc"};
    add(&batch, "document", 1, c, "ab");
    add(&batch, "document", 1, bc, "a");
    add(&batch, "document", 1, abc, NULL);
    assert_int_equal(batch_slice(&batch, 1), 0);
    assert_int_equal(batch.n_uniques, 3);
    batch_close(&batch);
}

static void test_many_shapes_and_reuse(void **state)
{
    (void)state;
    static char texts[3000][128];
    const char *pointers[3000];
    struct batch batch;
    struct scratch scratch = {0};
    batch_open(&batch, DIM, MAX_TOKENS);
    for (size_t round = 0; round < 12; round++) {
        size_t n = (size_t[]){1, 3000, 7, 64, 65, 1000, 16, 17, 2999, 2, 500, 128}[round];
        for (size_t i = 0; i < n; i++) {
            snprintf(texts[i], sizeof texts[i], "%zu %.*s", i * 7919 % (n / 2 + 1),
                     (int)(i * 31 % 50), "lorem ipsum dolor sit amet consectetur adipiscing elit");
            pointers[i] = texts[i];
        }
        for (size_t at = 0, step = round + 1; at < n; at += step)
            add(&batch, at % 2 ? "query" : "document", n - at < step ? n - at : step, pointers + at,
                NULL);
        assert_int_equal(batch_slice(&batch, round % 5), 0);
        assert_int_equal(batch.n_texts, n);
        assert_covered(&batch);
        embed_all(&batch, &scratch);
        assert_rows(&batch);
        batch_reset(&batch);
        assert_int_equal(batch.n_texts, 0);
        assert_int_equal(batch.text_bytes, 0);
    }
    scratch_close(&scratch);
    batch_close(&batch);
}

static size_t slices_of(size_t n_texts, size_t text_len, size_t n_threads)
{
    char *text = malloc(n_texts * (text_len + 1));
    const char **pointers = malloc(n_texts * sizeof *pointers);
    assert_true(text && pointers);
    for (size_t i = 0; i < n_texts; i++) {
        char *at = text + i * (text_len + 1);
        memset(at, 'x', text_len);
        snprintf(at, text_len + 1, "%zu", i);
        at[strlen(at)] = 'x';
        at[text_len] = '\0';
        pointers[i] = at;
    }
    struct batch batch;
    batch_open(&batch, DIM, MAX_TOKENS);
    add(&batch, "document", n_texts, pointers, NULL);
    assert_int_equal(batch_slice(&batch, n_threads), 0);
    assert_covered(&batch);
    size_t n = batch.n_slices;
    batch_close(&batch);
    free(pointers);
    free(text);
    return n;
}

static void test_slices_suit_the_threads(void **state)
{
    (void)state;
    assert_int_equal(slices_of(1, 40, 8), 1);
    assert_int_equal(slices_of(4, 40, 2), 1);   /* 88 tokens: not worth two */
    assert_int_equal(slices_of(16, 40, 2), 2);  /* 352 tokens: half each */
    assert_int_equal(slices_of(2, 8000, 2), 2); /* two long ones: one each */
    size_t n = slices_of(64, 160, 2);           /* 3,328 tokens */
    assert_true(n >= 6 && n <= 8);
    n = slices_of(64, 160, 16); /* enough for every thread */
    assert_true(n >= 16 && n <= 22);
}

static void test_nothing_to_embed(void **state)
{
    (void)state;
    struct batch batch;
    batch_open(&batch, DIM, MAX_TOKENS);
    struct entry *entry = batch_add(&batch, &nobody);
    entry->dead_code = "bad_json";
    batch_count(&batch, entry);
    assert_int_equal(batch_slice(&batch, 4), 0);
    assert_int_equal(batch.n_slices, 0);
    assert_int_equal(batch.slices_left, 0);
    batch_close(&batch);
}

static void test_statuses(void **state)
{
    (void)state;
    struct batch batch;
    struct scratch scratch = {0};
    batch_open(&batch, DIM, MAX_TOKENS);
    const char *const some[] = {"aaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccc",
                                "aaaaaaaaaaaaaaaaaaaaaaaa"};
    add(&batch, "none", 4, some, NULL);
    assert_int_equal(batch_slice(&batch, 1), 0);
    assert_int_equal(batch.n_slices, 1);
    assert_int_equal(slice_load(&batch.slices[0], &scratch), 0);
    for (size_t i = 0; i < 3; i++) { /* longest first: a, b, c */
        row_of(&scratch.texts[i], scratch.rows[i]);
        scratch.results[i] = (struct embed_result){.n_tokens = 9};
    }
    scratch.results[0].status = -E2BIG;
    scratch.rows[1][0] = NAN;
    scratch.rows[2][0] *= 1.1f; /* too long by 10 % */
    scratch.rows[2][1] *= 1.1f;
    slice_store(&batch.slices[0], &scratch, 0);
    assert_int_equal(batch.results[0].status, -E2BIG);
    assert_int_equal(batch.results[0].n_tokens, 9);
    assert_int_equal(batch.results[3].status, -E2BIG);
    assert_int_equal(batch.results[1].status, -EDOM);
    assert_int_equal(batch.results[2].status, -EDOM);
    slice_store(&batch.slices[0], &scratch, -ENOMEM);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(batch.results[i].status, -ENOMEM);
    scratch_close(&scratch);
    batch_close(&batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_twins_share_a_row),
        cmocka_unit_test(test_title_and_text_are_told_apart),
        cmocka_unit_test(test_many_shapes_and_reuse),
        cmocka_unit_test(test_slices_suit_the_threads),
        cmocka_unit_test(test_nothing_to_embed),
        cmocka_unit_test(test_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
