/*
 * vectors_memory.c: where vectors and ids lie: mapped files and memory that grows.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/index/vectors_internal.h"

int vectors_map(struct bytes *out, const char *path, char *err, size_t err_size)
{
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    *out = (struct bytes){NULL, 0};
    /* An empty file cannot be mapped: it is absent bytes, as the header says. */
    if (fd < 0 || fstat(fd, &about) != 0) {
        rc = -errno;
    } else if (about.st_size > 0) {
        void *map = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
            rc = -errno;
        else
            *out = (struct bytes){map, (size_t)about.st_size};
    }
    /* The map holds the file by itself. */
    if (fd >= 0)
        close(fd);
    if (rc != 0)
        snprintf(err, err_size, "%s cannot be read: %s", path, strerror(-rc));
    return rc;
}

void vectors_unmap(struct bytes *map)
{
    if (map->ptr)
        munmap((char *)map->ptr, map->len);
    *map = (struct bytes){NULL, 0};
}

int vectors_grow_ids(struct vectors *vectors)
{
    if (vectors->n < vectors->ids_room)
        return 0;
    size_t room = vectors->ids_room ? vectors->ids_room * 2 : 1024;
    struct bytes *ids = realloc(vectors->ids, room * sizeof *ids);
    if (!ids)
        return -ENOMEM;
    vectors->ids = ids;
    vectors->ids_room = room;
    return 0;
}
