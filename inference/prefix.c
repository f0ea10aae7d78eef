/*
 * prefix.c: see prefix.h.
 */
#include "inference/prefix.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int prefix_open(struct prefix *prefix, const int32_t *ids, size_t n, size_t n_layers, size_t width)
{
    assert(n >= 1);
    *prefix = (struct prefix){n, width, malloc(n * sizeof *ids),
                              calloc(n_layers * n * width, sizeof(float))};
    if (!prefix->ids || !prefix->rows) {
        prefix_close(prefix);
        return -ENOMEM;
    }
    memcpy(prefix->ids, ids, n * sizeof *ids);
    return 0;
}

void prefix_close(struct prefix *prefix)
{
    free(prefix->ids);
    free(prefix->rows);
    *prefix = (struct prefix){0};
}

struct prefix_use prefix_find(const struct prefix *prefixes, size_t n, const int32_t *ids,
                              size_t n_ids)
{
    struct prefix_use best = {0};
    for (size_t i = 0; i < n; i++) {
        uint32_t same = 0;
        /* One token is always left: a text without any would have no row to pool. */
        while (same < prefixes[i].n && same + 1 < n_ids && prefixes[i].ids[same] == ids[same])
            same++;
        if (same >= PREFIX_LEAST && same > best.n)
            best = (struct prefix_use){.prefix = &prefixes[i], .n = same};
    }
    return best;
}

float *prefix_rows(const struct prefix *prefix, size_t layer)
{
    return prefix->rows + layer * prefix->n * prefix->width;
}
