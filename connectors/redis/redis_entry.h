/*
 * redis_entry.h: stream entries as messages, and the table of those that are with us.
 *
 * Owns:    the one block of memory of an entry; which ids are in flight.
 * Refuses: when an entry is given, acked or forgotten: redis_source.c.
 * Threads: the loop thread.
 * Why:     after a reconnect or a claim the broker offers entries we are still working on; the
 *          table is how they are not worked on twice.
 */
#ifndef REDIS_ENTRY_H
#define REDIS_ENTRY_H

#include "connectors/connector.h"
#include "connectors/intake.h"
#include "connectors/redis/redis_reply.h"
#include "connectors/redis/redis_streams.h"

struct redis_entry {
    struct taken taken;                /* first: a message of this source is its entry */
    const struct redis_stream *stream; /* it is in; of the source's list */
    struct redis_id id;
    struct bytes id_text;       /* the tail of message.position, NUL-terminated */
    const struct bytes *fields; /* [2 * n_fields] names and values as they stand in the stream */
    size_t n_fields;
};

/*
 * Copy fields (an array reply of names and values) into a new entry. body: the field that is the
 * payload, NULL for `body`, else `text`. NULL: no memory or not of that shape.
 */
struct redis_entry *redis_entry_open(struct source *source, const struct redis_stream *stream,
                                     const char *body, struct redis_id id, const redisReply *fields,
                                     uint32_t deliveries);
void redis_entry_close(struct redis_entry *entry); /* accepts NULL */

/* Streams and ids to entries, open addressing, a pointer an entry (uthash: 56 bytes, and it ends
 * the program for want of memory). Zero-initialise to open. */
struct redis_table {
    struct redis_entry **slots; /* [n_slots], a power of two; NULL: free */
    size_t n_slots, n;
};
int redis_table_add(struct redis_table *table, struct redis_entry *entry); /* 0 or -ENOMEM */
struct redis_entry *redis_table_find(const struct redis_table *table,
                                     const struct redis_stream *stream, struct redis_id id);
/* The first entry of that stream from slot *at on, and *at behind it; NULL: there is none. */
struct redis_entry *redis_table_next(const struct redis_table *table,
                                     const struct redis_stream *stream, size_t *at);
void redis_table_remove(struct redis_table *table, struct redis_entry *entry);
/* Frees the slots and, with them, every entry still in it. */
void redis_table_close(struct redis_table *table);

#endif
