/*
 * redis_record.h: a record as one Redis command.
 *
 * Owns:    which commands an output is, the fields of an entry and of a dead letter, and the
 *          wrapping into the script when several must happen together.
 * Refuses: connections, retries.
 * Threads: the loop thread.
 */
#ifndef REDIS_RECORD_H
#define REDIS_RECORD_H

#include "connectors/redis/redis.h"
#include "connectors/redis/redis_made_with.h"
#include "connectors/redis/redis_reply.h"
#include "connectors/redis/redis_source.h"

/* Fields beyond this many pairs are left out: Lua passes some 8,000 words to a command at most. */
#define REDIS_FIELDS_MAX 3000

struct redis_record_form {
    const struct redis_config *config;
    struct redis_source *peer;           /* to be acked in the same step; NULL: none */
    const char *script_sha;              /* NULL: send the script itself */
    const struct redis_made_with *guard; /* vectors are written only while it is so; NULL: always */
};

/* Growable memory for built names, reused from record to record. Zero-initialise to open. */
struct redis_scratch {
    struct redis_args command; /* the plain commands, with a count before each */
    char *text;
    size_t len, room;
};
void redis_scratch_close(struct redis_scratch *scratch);

/* The largest single value of the record. */
size_t redis_record_largest(const struct record *record);

/* A stream of ours that an output would overwrite, because prefix and id are its name; NULL: none.
 * is_input: the input streams are in the same database, too. */
const char *redis_record_overwrites(const struct redis_config *config, const struct record *record,
                                    bool is_input);

/* Whether a text's own key would be where the count of another text's chunks is kept: its id ends
 * in #. */
bool redis_record_hides_head(const struct redis_config *config, const struct record *record);

/* Whether an output would overwrite what workers and `migrate` keep in keys of their own: a text
 * there would end every worker, for its note says what the vectors are made with. */
bool redis_record_hides_note(const struct redis_config *config, const struct record *record);

/* The input stream it came from; what comes from elsewhere goes where the first one's goes. */
const struct redis_stream *redis_record_stream(const struct redis_config *config,
                                               const struct record *record);

/* The command for the record into args; its bytes lie in the record, its origin and scratch.
 * 0 or -ENOMEM. */
int redis_record_build(const struct redis_record_form *form, const struct record *record,
                       struct redis_scratch *scratch, struct redis_args *args);

#endif
