/*
 * queue_target.c: see queue_target.h.
 */
#include "worker/commands/queue_target.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct pointing {
    struct options *options;
    const struct connector *connector;
    const char *flag;
    char *err;
    size_t err_size;
};

static int set_option(void *ctx, const char *name, const char *value)
{
    const struct pointing *at = ctx;
    bool is_place = strcmp(name, at->connector->queue->place) == 0;
    if (!is_place && options_origin(at->options, name) == ORIGIN_FLAG)
        return 0;
    return options_set(at->options, name, value, ORIGIN_FLAG, at->flag, at->err, at->err_size);
}

/* Does url begin with one of them and "://"? */
static bool has_scheme(const char *url, const char *const *schemes)
{
    size_t n = strcspn(url, ":");
    if (strncmp(url + n, "://", 3) != 0)
        return false;
    for (; *schemes; schemes++)
        if (strlen(*schemes) == n && strncasecmp(url, *schemes, n) == 0)
            return true;
    return false;
}

void queue_target_forms(char *out, size_t size)
{
    size_t n = 0;
    out[0] = '\0';
    for (size_t i = 0; all_connectors[i]; i++)
        if (all_connectors[i]->queue)
            n += (size_t)snprintf(out + n, n < size ? size - n : 0, "%s%s", n > 0 ? " or " : "",
                                  all_connectors[i]->queue->form);
    assert(n < size);
}

const struct connector *queue_target_find(const struct queue_target *target, char *err,
                                          size_t err_size)
{
    char forms[400];
    for (size_t i = 0; target->url && all_connectors[i]; i++)
        if (all_connectors[i]->queue && has_scheme(target->url, all_connectors[i]->queue->schemes))
            return all_connectors[i];
    queue_target_forms(forms, sizeof forms);
    snprintf(err, err_size, "%s: expected %s", target->flag, forms);
    return NULL;
}

int queue_target_set(struct options *options, const struct connector *connector,
                     const struct queue_target *target, const struct queue_option *more, size_t n,
                     char *err, size_t err_size)
{
    struct pointing at = {options, connector, target->flag, err, err_size};
    const struct queue_setter setter = {set_option, &at};
    const char *place = connector->queue->place, *name = target->name;
    char why[700] = "";
    if (!name && options_origin(options, place) == ORIGIN_FLAG)
        name = settings_text(options_settings(options), place);
    char *kept = name ? strdup(name) : NULL; /* the option changes while the name is in use */
    if (name && !kept)
        return -ENOMEM;
    int rc = queue_set(&setter, more, n);
    if (rc == 0)
        rc = (target->is_pull ? connector->queue->pull : connector->queue->push)(
            target->url, kept, &setter, why, sizeof why);
    if (why[0])
        snprintf(err, err_size, "%s: %s", target->flag, why);
    free(kept);
    return rc;
}
