/*
 * fuzz_serve.c: any bytes as the body of a request on every route that reads one, and as what comes
 * beside it: a key, a name of a model. What is read is answered, and what is answered as JSON is
 * JSON. Run by scripts/fuzz.
 *
 * The first byte chooses the route, the second the form of the answer, what became of the texts and
 * whether there are several models; the rest is the body.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/codec/json_reader.h"
#include "worker/codec/prompt.h"
#include "worker/http/http_server.h"
#include "worker/serve/serve_keys.h"
#include "worker/serve/serve_write.h"

enum { DIM = 64, MAX_TEXTS = 48, MAX_TEXT = 600, N_VOCAB = 300, N_MODELS = 3 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct serve_route routes[] = {
    {"/v1/embeddings", "POST", DIALECT_OPENAI, SERVE_EMBED, false},
    {"/embed", "POST", DIALECT_TEI, SERVE_EMBED, false},
    {"/api/embed", "POST", DIALECT_OLLAMA, SERVE_EMBED, false},
    {"/v1/rerank", "POST", DIALECT_OPENAI, SERVE_RERANK, false},
    {"/rerank", "POST", DIALECT_TEI, SERVE_RERANK, false},
    {"/tokenize", "POST", DIALECT_TEI, SERVE_TOKENIZE, false},
};

enum { N_ROUTES = sizeof routes / sizeof routes[0] };

static void expect(int is_so)
{
    if (!is_so)
        abort();
}

/* Three models; the first gives vectors, the second scores. */
static struct serve_rules *all_rules(void)
{
    static const struct prompt prompts[] = {{"query", "query: ", NULL}, {NULL, NULL, NULL}};
    static const struct model_info vectors = {.name = "Model X",
                                              .fingerprint = "f",
                                              .dim = DIM,
                                              .max_tokens = 40,
                                              .n_vocab = N_VOCAB,
                                              .prompts = prompts};
    static const struct model_info scores = {.name = "Model Y",
                                             .fingerprint = "f",
                                             .dim = 1,
                                             .max_tokens = 40,
                                             .n_vocab = N_VOCAB,
                                             .is_reranker = true};
    static const struct model_info short_vectors = {.name = "Model Z",
                                                    .fingerprint = "g",
                                                    .dim = DIM / 2,
                                                    .max_tokens = 20,
                                                    .n_vocab = N_VOCAB / 2};
    static const struct model_info *const infos[N_MODELS] = {&vectors, &scores, &short_vectors};
    static struct serve_rules all[N_MODELS];
    char err[200];
    for (size_t i = 0; i < N_MODELS && !all[i].prompt; i++) {
        all[i] = (struct serve_rules){.info = infos[i],
                                      .dim = infos[i]->dim,
                                      .max_texts = MAX_TEXTS,
                                      .max_text_bytes = MAX_TEXT,
                                      .ends = {2, 1},
                                      .n_ends = 2};
        all[i].prompt = prompt_find(infos[i], (struct bytes){"document", 8});
        expect(all[i].prompt && serve_rules_name(&all[i], "", err, sizeof err) == 0);
    }
    return all;
}

static void keys_try(const char *header)
{
    static struct serve_keys *keys;
    char path[] = "/tmp/embedmill-fuzz-XXXXXX", err[200];
    if (!keys) {
        int fd = mkstemp(path);
        expect(fd >= 0 && write(fd, "the-only-key\n", 13) == 13);
        close(fd);
        expect(serve_keys_open(&keys, path, err, sizeof err) == 0);
        unlink(path);
    }
    if (serve_keys_allow(keys, header))
        expect(strstr(header, "the-only-key") != NULL);
}

static void json_expect(struct bytes json)
{
    struct json_reading reading = {.max_depth = 12, .max_values = SIZE_MAX};
    expect(json_reader_run(json, &reading) == JSON_FAULT_NONE);
}

/* Status and answer belong together. */
static void answer_expect(const struct serve_request *request)
{
    expect(request->status >= 200 && request->status < 600 && request->type);
    expect(request->answer.len > 0 && !request->answer.status);
    if (request->status != HTTP_OK)
        expect(strcmp(request->type, "application/json") == 0);
    if (strcmp(request->type, "application/json") == 0)
        json_expect((struct bytes){request->answer.ptr, request->answer.len});
}

static void model_try(const char *name)
{
    static const struct serve_route route = {"/v1/models/", "GET", DIALECT_OPENAI, SERVE_MODEL,
                                             false};
    struct serve_request request = {.route = &route};
    serve_write_model(&request, all_rules(), N_MODELS, name);
    answer_expect(&request);
    buffer_close(&request.answer);
}

static void text_expect(const struct serve_request *request, const struct serve_text *text)
{
    if (text->ids) {
        expect(request->route->kind != SERVE_RERANK && text->n_ids > 0);
        for (size_t i = 0; i < text->n_ids; i++)
            expect(text->ids[i] >= 0 && (size_t)text->ids[i] < request->rules->info->n_vocab);
    } else {
        expect(text->text.ptr && text->text.len > 0 && text->text.len <= MAX_TEXT);
    }
}

/* What a request may ask for, and what threads make of it. */
static void read_expect(struct serve_request *request, unsigned choice)
{
    static const int statuses[] = {0, 0, 0, 0, -E2BIG, -EILSEQ, -ENOMEM, -EDOM};
    const struct serve_rules *rules = request->rules;
    const struct serve_threads threads = {.rules = rules};
    size_t n = request->n_texts;
    expect(n > 0 && n <= MAX_TEXTS && request->prompt && request->dim == rules->dim);
    if (request->route->kind != SERVE_TOKENIZE)
        expect(rules->info->is_reranker == (request->route->kind == SERVE_RERANK));
    if (request->model.ptr)
        expect(serve_rules_find(rules, request->model) != NULL);
    for (size_t i = 0; i < n; i++) {
        text_expect(request, &request->texts[i]);
        expect(serve_estimate(request, i) > 0);
    }
    if (request->route->kind == SERVE_RERANK)
        expect(request->query.len > 0 && request->query.len <= MAX_TEXT && request->top > 0);
    if (request->route->kind == SERVE_TOKENIZE)
        return;
    request->results = arena_alloc(&request->arena, n * sizeof *request->results);
    request->vectors = arena_alloc(&request->arena, n * rules->dim * sizeof *request->vectors);
    expect(request->results && request->vectors);
    for (size_t i = 0; i < n * rules->dim; i++)
        request->vectors[i] = (float)((int)(i * 7 + choice) % 13 - 6) / 8;
    for (size_t i = 0; i < n; i++)
        request->results[i] =
            (struct embed_result){.status = i == n - 1 ? statuses[choice >> 4 & 7] : 0,
                                  .n_tokens = (uint32_t)(5 + i),
                                  .truncated = i & 1};
    serve_write_results(request, &threads);
    answer_expect(request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct serve_request request = {.route = &routes[data[0] % N_ROUTES]};
    const struct serve_rules *rules = all_rules();
    bool has_one = data[1] & 0x80;
    request.form = request.route->kind == SERVE_EMBED ? data[1] % 3 : FORM_JSON;
    expect(buffer_put(&request.body, data + 2, size - 2) == 0);
    if (has_one)
        serve_read(&request, &rules[request.route->kind == SERVE_RERANK], 1);
    else
        serve_read(&request, rules, N_MODELS);
    if (request.status) {
        expect(request.status >= 400);
        answer_expect(&request);
    } else {
        read_expect(&request, data[1]);
    }
    buffer_close(&request.body);
    buffer_close(&request.answer);
    arena_close(&request.arena);

    char *line = strndup((const char *)data + 2, size - 2);
    expect(line != NULL);
    keys_try(line);
    model_try(line);
    free(line);
    return 0;
}
