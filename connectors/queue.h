/*
 * queue.h: a connector as a queue that `embedmill push` fills and `embedmill pull` empties.
 *
 * Owns:    which URLs name such a queue, and the options of the connector that a URL stands for.
 * Refuses: to open anything. Whether a flag overrides an option is the command's business.
 * Threads: no state.
 * Why:     only a connector knows its options; only the command knows what the user gave as flags.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include <stddef.h>

/* Where options go. set: 0, or a negative errno, which push and pull hand on. */
struct queue_setter {
    int (*set)(void *ctx, const char *option, const char *value);
    void *ctx;
};

struct queue_ops {
    const char *const *schemes; /* of its URLs, ended by NULL: "redis", "rediss" */
    const char *form;           /* of its URLs, for people: "redis://HOST:PORT/DB" */
    /* The option that names what workers read: "redis.stream". What the user gives for it is `name`
     * below; push and pull always set it, and other options give way to flags. */
    const char *place;
    /*
     * Set the options by which the sink writes where workers read (push), or the source reads what
     * workers wrote (pull). url begins with one of the schemes. name: of the stream, topic, queue
     * or table; NULL: what the URL names, else the default. A pull reads for itself: it takes
     * nothing from the workers' group. 0; -EINVAL: err says what was expected; what set returned.
     */
    int (*push)(const char *url, const char *name, const struct queue_setter *to, char *err,
                size_t err_size);
    int (*pull)(const char *url, const char *name, const struct queue_setter *to, char *err,
                size_t err_size);
};

/* For connectors: one option and its value. */
struct queue_option {
    const char *option, *value;
};
/* Set n options in their order, up to the first that fails. */
int queue_set(const struct queue_setter *to, const struct queue_option *options, size_t n);
/* 0; -EINVAL when name is a list and a push goes to one. */
int queue_check_single(const char *option, const char *name, char *err, size_t err_size);

#endif
