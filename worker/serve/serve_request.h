/*
 * serve_request.h: one request on its way from a body to an answer.
 *
 * Owns:    what is asked for, in whatever dialect it came; its memory.
 * Threads: the loop thread until its job is submitted, then the pool thread that reads it, then
 *          whoever has the lock of its queue; the loop thread again once it is finished.
 */
#ifndef SERVE_REQUEST_H
#define SERVE_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "connectors/buffer.h"
#include "connectors/connector.h"
#include "inference/embed.h"
#include "worker/codec/arena.h"
#include "worker/codec/codec.h"
#include "worker/pipeline/pool.h"

struct http_request;
struct serve_lane;
struct serve_queue;
struct serve_rules;

/* Whose fields, errors and answers. */
enum serve_dialect { DIALECT_OPENAI, DIALECT_TEI, DIALECT_OLLAMA };
enum serve_kind {
    SERVE_EMBED,
    SERVE_RERANK, /* scores of texts for a query, by a reranker */
    SERVE_TOKENIZE,
    SERVE_MODELS,
    SERVE_MODEL, /* one of them, by its name in the path */
    SERVE_INFO,
    SERVE_OPENAPI,
    SERVE_PAGE,
    SERVE_HEALTH, /* ready for work */
    SERVE_LIVE,
};

struct serve_route {
    const char *path, *method;
    enum serve_dialect dialect;
    enum serve_kind kind;
    bool is_open; /* without a key */
};

/* What the client takes. */
enum serve_form { FORM_JSON, FORM_MSGPACK, FORM_OCTETS };

/* A text, or the ids of its tokens. */
struct serve_text {
    struct bytes text;
    const int32_t *ids; /* [n_ids]; NULL: text */
    size_t n_ids;
};

struct serve_request {
    TAILQ_ENTRY(serve_request) link; /* of the list that it waits in, or of those finished */
    LIST_ENTRY(serve_request) all;   /* the loop's */
    struct job job;                  /* reads it */
    struct serve_lane *lane;         /* whose threads take its texts */
    struct http_request *http;       /* NULL: that has ended */
    const struct serve_route *route;
    const char *allowed; /* methods that its path takes; NULL: there is no such path */
    struct buffer body;
    size_t n_bytes_in;
    size_t n_bytes_out; /* of an answer that is not taken yet */
    struct arena arena; /* of what was read */
    enum serve_form form;
    enum output_dtype dtype;       /* of FORM_MSGPACK and FORM_OCTETS */
    uint64_t arrived_ns, begun_ns; /* begun: the first of its texts; 0: not yet */
    uint64_t deadline_ns;
    uint64_t gone_ns;         /* since when its client sends no more; 0: it may */
    size_t n_tokens_admitted; /* estimated, as it was let in */

    /* Read from the body. */
    struct bytes model;              /* as the client names it; ptr NULL: not */
    const struct serve_rules *rules; /* of its model, or of that where the client names none */
    const struct prompt *prompt;     /* the server's unless the client names one */
    struct bytes title;
    bool wants_base64;
    struct bytes query;    /* of SERVE_RERANK, and ... */
    bool wants_raw_scores; /* ... not through rerank_sigmoid */
    bool wants_texts;      /* ... with its texts in the answer */
    size_t top;            /* ... so many of the best */
    bool refuses_long;     /* a text that must be cut is an error */
    bool adds_specials;    /* of /tokenize: bos and eos are among the ids */
    size_t dim;
    size_t max_tokens;        /* of a text: a longer one is cut or refused */
    struct serve_text *texts; /* [n_texts] */
    size_t n_texts;

    /* Of its queue, under the lock. */
    struct serve_queue *queue; /* that of its model; NULL: it was not added to one yet */
    size_t n_taken, n_left;    /* texts that are at a thread or further; that are not finished */
    bool is_waiting;           /* in the list of those that have texts to take */
    bool is_dropped;           /* nobody needs the rest */

    float *vectors;               /* [n_texts][full dim], as answered [n_texts][dim]; or scores */
    struct embed_result *results; /* [n_texts] */
    size_t n_cached;

    /* The answer. */
    unsigned status; /* 0: not known yet */
    const char *type;
    struct buffer answer;
    uint32_t retry_after_s; /* 0: does not say */
    bool is_read;           /* its job has come back */
    bool is_finished;       /* status and answer are what they will be */
};

TAILQ_HEAD(serve_requests, serve_request);

/* Tokens of a text before it is tokenised, prompt or query included; at most what the model takes.
 */
size_t serve_estimate(const struct serve_request *request, size_t text);

/* Make it an error in the form of its dialect, unless it is one already. param: the field at fault,
 * or NULL; code: for programs, or NULL. */
__attribute__((format(printf, 5, 6))) void serve_fail(struct serve_request *request,
                                                      unsigned status, const char *param,
                                                      const char *code, const char *format, ...);
/* Too much waits before it. */
void serve_fail_overloaded(struct serve_request *request, uint32_t wait_s);

#endif
