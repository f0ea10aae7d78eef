/*
 * kafka_dead_letters.h: dead letters that lie in a Kafka topic.
 *
 * Threads: as letters.h.
 */
#ifndef KAFKA_DEAD_LETTERS_H
#define KAFKA_DEAD_LETTERS_H

#include "connectors/dead_letters.h"

extern const struct dead_letters_ops kafka_dead_letters;

#endif
