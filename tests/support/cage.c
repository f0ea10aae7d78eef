/*
 * cage.c: see cage.h.
 */
#include "tests/support/cage.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 65536 }; /* the largest of any machine, so that both ends lie on page borders */

int cage_open(struct cage *cage, size_t size)
{
    size = (size + PAGE - 1) / PAGE * PAGE;
    uint8_t *map =
        mmap(NULL, size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return -errno;
    if (mprotect(map + size, PAGE, PROT_NONE)) {
        int rc = -errno;
        munmap(map, size + PAGE);
        return rc;
    }
    *cage = (struct cage){.end = map + size, .size = size};
    return 0;
}

void cage_close(struct cage *cage)
{
    if (cage->end)
        munmap(cage->end - cage->size, cage->size + PAGE);
    *cage = (struct cage){0};
}

uint8_t *cage_put(const struct cage *cage, const void *bytes, size_t len)
{
    assert(len <= cage->size);
    uint8_t *out = cage->end - len;
    if (len)
        memcpy(out, bytes, len);
    return out;
}
