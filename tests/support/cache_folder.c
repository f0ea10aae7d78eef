/*
 * cache_folder.c: see cache_folder.h.
 */
#include "tests/support/cache_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char cache_folder[64], cache_file[80];

int cache_folder_make(void **state)
{
    (void)state;
    strcpy(cache_folder, "/tmp/embedmill-cache-XXXXXX");
    if (!mkdtemp(cache_folder))
        return -1;
    snprintf(cache_file, sizeof cache_file, "%s/data.mdb", cache_folder);
    return 0;
}

int cache_folder_remove(void **state)
{
    char lock[80];
    (void)state;
    snprintf(lock, sizeof lock, "%s/lock.mdb", cache_folder);
    unlink(cache_file);
    unlink(lock);
    return rmdir(cache_folder);
}
