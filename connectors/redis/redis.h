/*
 * redis.h: the Redis Streams connector, among its own files.
 *
 * Owns:    the redis.* options (one table for source and sink) and the settings read from them.
 * Refuses: everything the wire does; see redis_link.h, redis_source.h, redis_sink.c.
 * Threads: the loop thread.
 */
#ifndef REDIS_H
#define REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/check.h"
#include "connectors/connector.h"
#include "connectors/dead_letters.h"
#include "connectors/redis/redis_streams.h"
#include "connectors/redis/redis_url.h"
#include "connectors/tls.h"

extern const struct source_ops redis_source_ops;
extern const struct sink_ops redis_sink_ops;

extern const struct connector_check redis_check;
extern const struct dead_letters_ops redis_dead_letters;

extern const struct option redis_options[];

/* In the order of the choices of redis.output. */
enum redis_output { REDIS_OUTPUT_STREAM, REDIS_OUTPUT_KEY, REDIS_OUTPUT_HASH };
/* The sink's layout. */
enum sink_layout redis_layout(const struct settings *settings);

/* What the options say. Texts are owned. */
struct redis_config {
    struct redis_url url, output_url;
    struct tls_context *tls; /* NULL: neither URL is rediss:// */
    struct redis_streams streams;
    char *group;
    char *consumer; /* NULL: not named by the user */
    char *body;     /* NULL: `body`, else `text` */
    uint64_t claim_idle_ms, timeout_ms;
    enum redis_output output;
    char *output_prefix;
    uint64_t maxlen, expire_ms;
    bool exactly_once;     /* output and ack in one script, or not at all */
    int slot, output_slot; /* of all keys of url and of output_url that are clusters; else -1 */
};

/* 0; -EINVAL with a sentence that begins with the option's name; -ENOMEM. Nothing to clear on
 * failure. */
int redis_config_read(struct redis_config *out, const struct settings *settings, char *err,
                      size_t err_size);
/* The check of source_ops and sink_ops. */
int redis_config_check(const struct settings *settings, const char **bad_option, char *err,
                       size_t err_size);
/* The option by which the worker would read what it writes, if both are the same database; or NULL.
 * *stream: which; REDIS_LOOP_PHRASE takes its name. */
const char *redis_config_loop(const struct redis_config *config, const char **stream);
#define REDIS_LOOP_PHRASE                                                                          \
    "'%.60s' is the input stream itself: the worker would read what it writes; choose another "    \
    "name"
#define REDIS_APART_PHRASE                                                                         \
    "delivery is exactly-once, and this is another server or database than that of redis.url: "    \
    "name the same, or take delivery at-least-once"
void redis_config_clear(struct redis_config *config); /* zeroed ones are fine */

/*
 * The name of this worker in its group: the host's name and the lowest number no other living
 * worker of this machine holds for any of its streams ("mill-1"). It is the same again after a
 * crash, so what was pending is found at once, and two workers never share one. locks: [streams.n]
 * descriptors that hold the number until they are closed, -1 when names cannot be held (then the
 * name ends in the process id).
 */
int redis_consumer_name(const struct redis_config *config, char **out, int *locks);

#endif
