/*
 * redis_letters.h: dead letters that lie in a Redis stream.
 *
 * Threads: as letters.h.
 */
#ifndef REDIS_LETTERS_H
#define REDIS_LETTERS_H

#include "connectors/letters.h"

extern const struct letters_ops redis_letters;

#endif
