/*
 * nats_record.h: what records look like as messages of NATS.
 *
 * Owns:    subjects, headers, the id by which the server drops a double.
 * Threads: no state.
 */
#ifndef NATS_RECORD_H
#define NATS_RECORD_H

#include <nats/nats.h>
#include <stdbool.h>
#include <stddef.h>

#include "connectors/connector.h"
#include "connectors/nats/nats.h"

#define NATS_ID_SIZE 48

/* Whether a header is one that a dead letter adds, or one that tells the server what to do
 * (Nats-...): those of an input are not passed on. */
bool nats_record_is_ours(struct bytes name);
const char *nats_record_subject(const struct nats_config *config, const struct record *record);
/*
 * The same for the same output of the same input, and for nothing else. salt: 0, or what makes it
 * another one, because the server keeps ids longer than messages. 0 or -ENOMEM.
 */
int nats_record_id(const struct nats_config *config, const struct record *record, uint64_t salt,
                   char id[NATS_ID_SIZE]);
/* *size: of headers and payload, as the server counts them. 0 or -ENOMEM. */
int nats_record_message(natsMsg **out, const struct nats_config *config,
                        const struct record *record, const char *id, const char *reply,
                        size_t *size);
/* Add a header to a message; what no header can hold becomes '-' in its name, a space in its value
 * (RFC 9110). 0 or -ENOMEM. *size grows by what it takes. */
int nats_record_add_header(natsMsg *message, struct bytes name, struct bytes value, size_t *size);

#endif
