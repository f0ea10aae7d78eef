/*
 * fuzz_gguf.c: any bytes as a model file. Run by scripts/fuzz.
 *
 * Read twice: from memory of exactly that size, so that a read past the end is found; and, when the
 * directory is sound, as a file by model_open, which binds tensors and embeds a text.
 */
#define _GNU_SOURCE /* memfd_create */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "inference/embed.h"
#include "inference/gguf.h"
#include "inference/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ALIGNMENT = 64, DIM_MAX = 4096 };

static void expect(int is_so)
{
    if (!is_so)
        abort();
}

/* The ends and each 64th byte: what is not the file's begins at one of its ends. */
static unsigned sum_of(const void *bytes, size_t size)
{
    unsigned sum = size ? ((const uint8_t *)bytes)[size - 1] : 0;
    for (size_t i = 0; i < size; i += 64)
        sum += ((const uint8_t *)bytes)[i];
    return sum;
}

/* All that the directory points at is touched. */
static void walk(const struct gguf *gguf)
{
    unsigned sum = 0;
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        sum += sum_of(tensor->name.ptr, tensor->name.len);
        if (tensor->data)
            sum += sum_of(tensor->data, tensor->size);
    }
    struct gguf_array tokens;
    struct gguf_str token;
    if (gguf_get_array(gguf, "tokenizer.ggml.tokens", &tokens) == 0 && tokens.type == GGUF_STR)
        for (size_t at = 0; gguf_array_next(&tokens, &at, &token);)
            sum += sum_of(token.ptr, token.len);
    __asm__ volatile("" : : "r"(sum)); /* or the compiler would leave the reading out */
}

static void tokenize(const struct gguf *gguf)
{
    struct tokenizer *tokenizer;
    struct tokenizer_scratch *scratch;
    char err[512] = "";
    int32_t ids[64];
    size_t n_ids, n_total;
    if (tokenizer_open(&tokenizer, gguf, err, sizeof err) != 0) {
        expect(err[0] != 0);
        return;
    }
    expect(tokenizer_scratch_open(&scratch, tokenizer) == 0);
    struct text text = {"the hat\n \xff <table>", 15};
    expect(tokenizer_encode(tokenizer, scratch, text, BAD_UTF8_REPLACE, ids, 64, &n_ids,
                            &n_total) == 0);
    for (size_t i = 0; i < n_ids; i++)
        expect(ids[i] >= 0 && (size_t)ids[i] < tokenizer_n_vocab(tokenizer));
    tokenizer_scratch_close(scratch);
    tokenizer_close(tokenizer);
}

static void embed(const struct model *model)
{
    static float row[DIM_MAX];
    const struct session_options options = {.dim = 0};
    struct text text = {"the", 3};
    struct embed_result result;
    struct session *session;
    if (model_info(model)->dim > DIM_MAX || session_open(&session, model, &options) != 0)
        return;
    session_embed(session, &text, 1, (float *[]){row}, &result);
    session_close(session);
}

static void open_file(const uint8_t *data, size_t size)
{
    struct model *model;
    char path[64], err[512] = "";
    int fd = memfd_create("model", 0);
    expect(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (model_open(&model, path, NULL, PRECISION_EXACT, err, sizeof err) == 0) {
        embed(model);
        model_close(model);
    } else {
        expect(err[0] != 0);
    }
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *gguf;
    char err[512] = "";
    uint8_t *bytes = NULL;
    if (posix_memalign((void **)&bytes, ALIGNMENT, size ? size : 1) != 0)
        abort();
    memcpy(bytes, data, size);
    if (gguf_open_memory(&gguf, bytes, size, "fuzz.gguf", err, sizeof err) == 0) {
        walk(gguf);
        tokenize(gguf);
        gguf_close(gguf);
        open_file(data, size);
    } else {
        expect(err[0] != 0);
    }
    free(bytes);
    return 0;
}
