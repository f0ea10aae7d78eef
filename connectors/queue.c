/*
 * queue.c: see queue.h.
 */
#include "connectors/queue.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int queue_set(const struct queue_setter *to, const struct queue_option *options, size_t n)
{
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = to->set(to->ctx, options[i].option, options[i].value);
    return rc;
}

int queue_check_single(const char *option, const char *name, char *err, size_t err_size)
{
    if (!strchr(name, ','))
        return 0;
    snprintf(err, err_size, "%s: a push goes to one, and %.200s are several: push to each", option,
             name);
    return -EINVAL;
}
