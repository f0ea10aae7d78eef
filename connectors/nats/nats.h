/*
 * nats.h: the NATS JetStream connector, among its own files.
 *
 * Owns:    the nats.* options (one table for source and sink) and what they mean.
 * Refuses: NATS without JetStream: what nobody stores cannot be delivered again.
 * Threads: the loop thread.
 */
#ifndef EMBEDMILL_NATS_H
#define EMBEDMILL_NATS_H

#include <nats/nats.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/check.h"
#include "connectors/connector.h"
#include "connectors/dead_letters.h"

extern const struct source_ops nats_source_ops;
extern const struct sink_ops nats_sink_ops;

extern const struct connector_check nats_check;
extern const struct dead_letters_ops nats_dead_letters;

extern const struct option nats_options[];

/* What the options say. Texts are owned; NULL: not given. */
struct nats_config {
    char **urls; /* [n_urls] */
    size_t n_urls;
    bool is_secure; /* over TLS */
    char *stream, *consumer, *subject, *output_subject, *dead_letter_subject;
    char *user, *password, *token, *creds;
    char *tls_ca, *tls_cert, *tls_key;
    char *api, *inbox; /* prefixes of subjects, without the last dot */
    uint64_t ack_wait_ms, timeout_ms;
    int64_t max_ack_pending;
};

/* 0; -EINVAL with a sentence that begins with the option's name; -ENOMEM. Nothing to clear on
 * failure. */
int nats_config_read(struct nats_config *out, const struct settings *settings, char *err,
                     size_t err_size);
void nats_config_clear(struct nats_config *config); /* zeroed ones are fine */
/* The check of source_ops and sink_ops. */
int nats_config_check(const struct settings *settings, const char **bad_option, char *err,
                      size_t err_size);

/* Whether something can be published to it. */
bool nats_subject_is_literal(const char *text);
/* Whether a subject is one of those that a pattern with * and > stands for. */
bool nats_subject_matches(const char *pattern, const char *subject);

/*
 * What the library needs to connect once; it does not connect again by itself (nats_client.h says
 * why). name: what the server shows of us. 0; -EINVAL with a sentence: a file that cannot be used,
 * say; -ENOMEM.
 */
int nats_connect_options(natsOptions **out, const struct nats_config *config, const char *name,
                         char *err, size_t err_size);
/* Why the last call of the library on this thread failed, with what to do where that is known. */
void nats_connect_explain(natsStatus status, char *why, size_t size);
/* Trying again does not help. */
bool nats_connect_is_refusal(natsStatus status);

#endif
