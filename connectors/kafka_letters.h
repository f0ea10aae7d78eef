/*
 * kafka_letters.h: dead letters that lie in a Kafka topic.
 *
 * Threads: as letters.h.
 */
#ifndef KAFKA_LETTERS_H
#define KAFKA_LETTERS_H

#include "connectors/letters.h"

extern const struct letters_ops kafka_letters;

#endif
