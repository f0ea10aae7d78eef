/*
 * embed.h: the one inference header the worker sees. Texts in, unit vectors out; or scores of
 * pairs.
 *
 * Owns:    the meaning of `struct text` and the life of models and sessions.
 * Refuses: sockets, loops, threads, message formats. Nothing here blocks on anything but the CPU
 *          (and on page faults of the mapped model), and on what session_parallel waits for.
 * Threads: a model never changes after open and may be used by any number of threads at once.
 *          A session belongs to one thread at a time; who wants more threads for one call hands it
 *          a way to run parts.
 * Why:     the worker can be read, tested and replaced without knowing what a tensor is.
 */
#ifndef EMBED_H
#define EMBED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* UTF-8 bytes, borrowed for the length of a call. ptr may be NULL when len is 0. */
struct text {
    const char *ptr;
    size_t len; /* bytes */
};

struct model;   /* a mapped GGUF file, its tensors bound by name, type and shape */
struct session; /* scratch of one thread */

/* The words around a text that a model was trained with, for one task. */
struct prompt {
    const char *name;    /* of the task: "document", "query", ... */
    const char *lead;    /* before the text, or before the title where there is one */
    const char *between; /* title and text; NULL: this prompt has no place for a title */
};

/* What a model says of itself; every string lives as long as the model. */
struct model_info {
    const char *name;             /* general.name, or the architecture where the file has none */
    const char *architecture;     /* "gemma-embedding", "bert" */
    const char *fingerprint;      /* 32 hex digits: XXH3-128 of metadata and samples of tensors */
    const char *kernels;          /* the kernel table in use: "generic", "avx2", ... */
    const char *precision;        /* "exact", "fast" */
    const char *pooling;          /* "mean", "cls" (the first token), "last_token" */
    size_t dim;                   /* values in a full embedding: 768 */
    size_t max_tokens;            /* longest text the model takes, bos and eos included: 2048 */
    size_t n_vocab;               /* 262144 */
    size_t file_bytes;            /* of all its files, mapped */
    size_t session_bytes;         /* of a session that has embedded a text of max_tokens, about */
    uint64_t macs_per_token;      /* multiply-adds of all products, attention left out */
    uint64_t macs_per_text;       /* ... and of those behind the pooling */
    bool has_dense;               /* false: an EmbeddingGemma without its two dense layers, whose
                                     vectors are in another space than the model's */
    const char *warning;          /* what is odd about the file and was put right, or NULL */
    bool is_reranker;             /* it gives scores of pairs and no vectors; dim is 1 */
    bool is_sigmoid;              /* a reranker whose scores are read through rerank_sigmoid */
    const struct prompt *prompts; /* up to one whose name is NULL; NULL: texts as they are */
};

/*
 * How exactly products are computed. Exact: activations of 15 bits and a sign; what differs from
 * float32 is the file's weights alone. Fast: of 8 bits, some of the error for half the work.
 */
enum precision { PRECISION_EXACT, PRECISION_FAST };

/*
 * Map `path` read-only and bind it. kernels: NULL for the best this CPU has, else a table's name
 * ("generic", "avx2", "avx512", "neon", "neon-i8mm"); naming one the CPU lacks is an error.
 * Returns 0 and sets *out, or a negative errno and a sentence in err: -ENOENT and friends from the
 * file, -EINVAL for a file that is not a usable model, -ENOTSUP for kernels, -ENOMEM.
 */
int model_open(struct model **out, const char *path, const char *kernels, enum precision precision,
               char *err, size_t err_size);
/*
 * Compute once what texts with a prompt of the model begin with, for all sessions to come; none may
 * be open. For causal models with prompts (Qwen3-Embedding); others have nothing to prepare.
 * Vectors are the same bits as without. 0 or -ENOMEM.
 */
int model_prepare_prompts(struct model *model);
/* Does this CPU have the kernel table of that name? known: "avx512, avx2, generic", those it has.
 */
bool model_kernels(const char *name, char *known, size_t known_size);
const struct model_info *model_info(const struct model *model);
void model_close(struct model *model); /* accepts NULL; no session may be left open */

enum too_long { TOO_LONG_TRUNCATE, TOO_LONG_ERROR };
enum bad_utf8 { BAD_UTF8_REPLACE, BAD_UTF8_ERROR }; /* replace: U+FFFD for each maximal bad part */

/* Part `part` of a step of a session's work; mine: a session of the same model, which nothing else
 * uses meanwhile. */
typedef void session_part(void *arg, size_t part, struct session *mine);
/*
 * Run parts 0 .. n_parts - 1 of a step, at most 65535, on any threads, and return when all are
 * done; what they have written can then be read by all parts of the next step. Returns how many
 * threads could share the next step, at least 1: it decides how work is cut, never what comes out.
 * With n_parts 0 there is nothing to do (step is NULL): the thread is between two steps of a part,
 * which it may leave for a while; its session must not be used meanwhile.
 */
typedef size_t session_parallel(void *ctx, session_part *step, void *arg, size_t n_parts);

struct session_options {
    enum too_long too_long;
    enum bad_utf8 bad_utf8;
    size_t dim; /* Matryoshka: 0 for the model's own; else cut to this many and normalised again */
    session_parallel *parallel; /* NULL: the thread that calls does all of it */
    void *parallel_ctx;
};

/* All that ordinary texts will ever need is allocated here. 0, -ENOMEM or -EINVAL. */
int session_open(struct session **out, const struct model *model,
                 const struct session_options *options);
void session_close(struct session *session); /* accepts NULL */

/* What became of one text. */
struct embed_result {
    int status;        /* 0; -E2BIG: too long under TOO_LONG_ERROR; -EILSEQ: not UTF-8 under
                          BAD_UTF8_ERROR; -ENOMEM */
    uint32_t n_tokens; /* the text had, bos and eos included, before any cut */
    bool truncated;    /* only the first max_tokens were embedded (eos kept) */
    bool cached;       /* set by who had the vector already; never by a session */
};

/*
 * Embed n texts of any lengths. rows is [n], in the order of the texts: where each has its place of
 * [dim] values, wherever its owner wants it. Each becomes a unit vector; that of a text whose
 * status is not 0 is all zeros. Rows do not depend on what else is in the call: the same text gives
 * the same bytes on the same kernel table. Never fails as a whole; results[n] says what became of
 * each text.
 */
void session_embed(struct session *session, const struct text *texts, size_t n, float *const *rows,
                   struct embed_result *results);

/*
 * Score how well each of n texts answers the query; the model must be a reranker. scores [n] are
 * what the classification head gives, of any sign and size: the larger, the better. The score of a
 * text whose status is not 0 is 0; results[n].n_tokens counts those of the pair. Of a pair that is
 * too long the longer part is cut (that of the query, too, when both are longer than half). Scores
 * do not depend on what else is in the call. Never fails as a whole.
 */
void session_rerank(struct session *session, struct text query, const struct text *texts, size_t n,
                    float *scores, struct embed_result *results);
/* The logistic function: a score between 0 and 1. */
float rerank_sigmoid(float score);

/*
 * Token ids of one text, bos first and eos last, cut to max_ids (eos kept) as the session's
 * options say. *n_ids is set to the number written, result as in session_embed. ids may be NULL
 * when max_ids is 0: then only counts. Returns result->status.
 */
int session_tokenize(struct session *session, struct text text, int32_t *ids, size_t max_ids,
                     size_t *n_ids, struct embed_result *result);

/*
 * Embed one text that is token ids already, [n], bos and eos among them where the model wants them.
 * out is [dim], zero when the status is not 0: -EINVAL: none, or one that the model has not; else
 * as in session_embed. Returns result->status.
 */
int session_embed_ids(struct session *session, const int32_t *ids, size_t n, float *out,
                      struct embed_result *result);

/* Cut a row to its first dim values and normalise them, as session_options.dim does. */
void model_shorten(const struct model *model, float *row, size_t dim);

enum { DOTS_QUERIES = 16 };

/* n <= DOTS_QUERIES vectors [n][dim] side by side, packed [dim][DOTS_QUERIES]; the rest is zero. */
void model_pack_queries(float *packed, const float *queries, size_t n, size_t dim);
/* out [n_rows][DOTS_QUERIES] = dot products of rows [n_rows][dim] with packed ones, by the model's
 * kernel table. For search: every row costs the same, and is read once for all queries. */
void model_dots(const struct model *model, float *out, const float *rows, size_t n_rows,
                const float *packed, size_t dim);

/* For measuring only; the worker's `bench` command is the one that asks. */

enum { PROFILE_STAGES = 12 };

struct profile_stage {
    const char *name; /* "attention" */
    bool is_product;  /* of quantised activations and Q8_0 weights: what model_peak is about */
    uint64_t calls;
    uint64_t macs;  /* multiply-adds that the model asks for; 0 where they do not matter */
    double seconds; /* of CPU time */
};

struct profile {
    struct profile_stage stages[PROFILE_STAGES];
    double seconds;        /* of all stages */
    uint64_t n_tokens;     /* embedded */
    uint64_t product_macs; /* of the stages that are products */
};

/* Embed n texts on this thread alone and tell where the time went. 0 or -ENOMEM. */
int model_profile(const struct model *model, const struct text *texts, size_t n,
                  struct profile *out);
/*
 * The most multiply-adds a second that one core can do in the way of the model's kernel table, from
 * registers alone: measured on this thread for about at_least seconds.
 */
double model_peak(const struct model *model, double at_least);

#endif
