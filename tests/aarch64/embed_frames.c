/*
 * embed_frames.c: texts in, token ids or vectors out, for a caller on the other side of an
 * emulator.
 *
 * Usage: embed_frames MODEL KERNELS ids|vectors
 *
 * Input, until it ends: for each text its length (uint32) and its bytes. Output: the name of the
 * kernel table (16 bytes), then for each text the number of its token ids (uint32) and the ids
 * (int32), or its vector (float32). KERNELS is a table's name or "auto". Fails when a text alone
 * has another vector than among the others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/embed.h"
#include "tests/support/embed_rows.h"

enum { TEXTS_MAX = 256 };

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "embed_frames: %s\n", what);
    exit(1);
}

static size_t texts_read(struct text *texts)
{
    size_t n = 0;
    uint32_t len;
    while (fread(&len, sizeof len, 1, stdin) == 1) {
        char *text = malloc(len + 1u);
        if (n == TEXTS_MAX || !text || fread(text, 1, len, stdin) != len)
            give_up("the input is not as the usage says");
        texts[n++] = (struct text){text, len};
    }
    return n;
}

static void ids_write(struct session *session, const struct text *texts, size_t n, size_t max_ids)
{
    int32_t *ids = malloc(max_ids * sizeof *ids);
    if (!ids)
        give_up("out of memory");
    for (size_t i = 0; i < n; i++) {
        struct embed_result result;
        size_t n_ids = 0;
        if (session_tokenize(session, texts[i], ids, max_ids, &n_ids, &result) < 0)
            give_up("a text was refused");
        uint32_t count = (uint32_t)n_ids;
        fwrite(&count, sizeof count, 1, stdout);
        fwrite(ids, sizeof *ids, n_ids, stdout);
    }
    free(ids);
}

static void vectors_write(struct session *session, const struct text *texts, size_t n, size_t dim)
{
    float *all = malloc(n * dim * sizeof *all), *alone = malloc(dim * sizeof *alone);
    struct embed_result results[TEXTS_MAX];
    if (!all || !alone)
        give_up("out of memory");
    embed_rows(session, texts, n, dim, all, results);
    for (size_t i = 0; i < n; i++) {
        if (results[i].status < 0)
            give_up("a text was refused");
        session_embed(session, &texts[i], 1, (float *[]){alone}, results + i);
        if (memcmp(alone, all + i * dim, dim * sizeof *alone) != 0)
            give_up("a text alone has another vector than among others");
    }
    fwrite(all, sizeof *all, n * dim, stdout);
    free(all);
    free(alone);
}

int main(int argc, char **argv)
{
    static struct text texts[TEXTS_MAX];
    struct session_options options = {0};
    struct session *session;
    struct model *model;
    char err[512], name[16] = "";
    if (argc != 4)
        give_up("usage: embed_frames MODEL KERNELS ids|vectors");
    const char *kernels = strcmp(argv[2], "auto") == 0 ? NULL : argv[2];
    if (model_open(&model, argv[1], kernels, PRECISION_EXACT, err, sizeof err) < 0)
        give_up(err);
    if (session_open(&session, model, &options) < 0)
        give_up("out of memory");
    size_t n = texts_read(texts);
    const struct model_info *info = model_info(model);
    snprintf(name, sizeof name, "%s", info->kernels);
    fwrite(name, sizeof name, 1, stdout);
    if (strcmp(argv[3], "ids") == 0)
        ids_write(session, texts, n, info->max_tokens);
    else
        vectors_write(session, texts, n, info->dim);
    for (size_t i = 0; i < n; i++)
        free((void *)(uintptr_t)texts[i].ptr);
    session_close(session);
    model_close(model);
    return fflush(stdout) == 0 ? 0 : 1;
}
