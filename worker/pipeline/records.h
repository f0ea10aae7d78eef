/*
 * records.h: an embedded batch as the records a sink is given.
 *
 * Owns:    parts, headers and ids of records; where encoded payloads lie while a sink holds them.
 * Refuses: to decide what is a dead letter; the wire format (codec.h).
 * Threads: record_refused and record_entry on the loop thread; the rest on a pool thread, which has
 *          the batch for itself meanwhile.
 */
#ifndef RECORDS_H
#define RECORDS_H

#include "connectors/connector.h"
#include "worker/pipeline/batch.h"
#include "worker/codec/codec.h"

/*
 * Fill in entry->record for every entry of the batch: an output, a dead letter where dead_code is
 * set (the original payload and headers), a tombstone, or nothing where the text is unchanged. An
 * output carries the headers of its message and content-type, embedding-model, embedding-dim,
 * embedding-dtype, which replace input headers of the same names. All of it is good until
 * batch_reset. 0 or -ENOMEM.
 */
int records_build(struct batch *batch, enum sink_layout layout,
                  const struct encode_options *encode);

/* A header costs more than its bytes: words of a command; Redis 6 takes a million of them. */
enum { RECORD_HEADER_COST = 160 };
/* Bytes of an entry that its outputs hold once for each text; 0: once in all. */
size_t record_repeats(const struct entry *entry, enum sink_layout layout,
                      const struct encode_options *encode);

/*
 * The sink refused the record (how: PUBLISH_TOO_LARGE or PUBLISH_REFUSED): make of it what is to be
 * published next. An output becomes a dead letter. Of a dead letter that is too large the largest
 * of payload, key and headers is cut to a sixteenth, again and again; one refused otherwise loses
 * all three at once. Position, code and reason stay, and the reason says what was cut.
 *
 * When even that is refused: with may_drop the record is given up (no parts, entry->dropped), else
 * -E2BIG with a sentence in err. 0; -ENOMEM.
 */
int record_refused(struct entry *entry, enum published how, bool may_drop, char *err,
                   size_t err_size);
/* What the reason of a dead letter that was cut has in it. */
#define RECORD_TRUNCATED_MARK "bytes are kept"

struct entry *record_entry(struct record *record);

#endif
