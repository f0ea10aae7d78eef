/*
 * seeds.c: the files that fuzzing of fuzz_gguf starts from. Usage: fuzz_seeds FOLDER
 *
 * The other targets start from what lies in tests/data/fuzz; a sound model is better made than
 * kept.
 */
#include <stdio.h>

#include "tests/support/gguf_writer.h"
#include "tests/support/tiny_bert.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tokenizer_toy.h"

static int save(const struct gguf_writer *writer, const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int rc = gguf_writer_save(writer, path);
    if (rc != 0)
        fprintf(stderr, "cannot write %s\n", path);
    return rc;
}

static void put_directory(struct gguf_writer *out)
{
    const uint64_t shape[] = {32, 2};
    gguf_put_header(out, 3, 1, 4);
    gguf_put_key_u32(out, "general.alignment", 32);
    gguf_put_key_str(out, "general.architecture", "gemma-embedding");
    gguf_put_key_bool(out, "tokenizer.ggml.add_bos_token", 1);
    gguf_put_key_array(out, "tokenizer.ggml.scores", GGUF_F32, 2);
    gguf_put_f32(out, 1);
    gguf_put_f32(out, 2);
    gguf_put_tensor(out, "token_embd.weight", 2, shape, GGUF_TENSOR_Q8_0, 0);
    gguf_put_padding(out, 32);
    for (int i = 0; i < 68; i++)
        gguf_put_u8(out, (uint8_t)i);
}

static int save_bert(uint32_t type, const char *folder, const char *name)
{
    struct tiny_bert bert;
    const struct tiny_bert_options options = {.type = type, .pooling = 1, .seed = 1};
    tiny_bert_make(&bert, &options);
    int rc = save(&bert.file, folder, name);
    tiny_bert_free(&bert);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
        return 64;
    }
    struct gguf_writer directory = {0}, toy_file = {0}, model = {0};
    struct token tokens[N_TOKENS];
    const struct tiny_model_options options = {.n_layers = 1, .n_ctx = 16, .seed = 1};
    put_directory(&directory);
    toy_tokens_make(tokens, 1);
    toy_file_put(&toy_file, tokens, N_TOKENS, true);
    tiny_model_build(&model, &options);
    int rc = save(&directory, argv[1], "directory.gguf") || save(&toy_file, argv[1], "toy.gguf") ||
             save(&model, argv[1], "model.gguf") ||
             save_bert(GGUF_TENSOR_Q4_0, argv[1], "bert_q4_0.gguf") ||
             save_bert(GGUF_TENSOR_F16, argv[1], "bert_f16.gguf");
    gguf_writer_free(&directory);
    gguf_writer_free(&toy_file);
    gguf_writer_free(&model);
    return rc ? 1 : 0;
}
