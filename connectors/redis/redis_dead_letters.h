/*
 * redis_dead_letters.h: dead letters that lie in a Redis stream.
 *
 * Threads: as letters.h.
 */
#ifndef REDIS_DEAD_LETTERS_H
#define REDIS_DEAD_LETTERS_H

#include "connectors/dead_letters.h"

extern const struct dead_letters_ops redis_dead_letters;

#endif
