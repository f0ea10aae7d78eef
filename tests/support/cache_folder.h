/*
 * cache_folder.h: a folder for a cache, as setup and teardown of a cmocka test or group.
 *
 * Owns:    its name, the same for all tests of a program until it is removed.
 * Refuses: to know what is in the files.
 * Threads: one.
 */
#ifndef CACHE_FOLDER_H
#define CACHE_FOLDER_H

extern char cache_folder[64], cache_file[80]; /* there is no file until a cache makes it */

int cache_folder_make(void **state);
int cache_folder_remove(void **state);

#endif
