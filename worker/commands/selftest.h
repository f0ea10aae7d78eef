/*
 * selftest.h: one embedding of a known text, compared with a stored vector.
 *
 * Owns:    the text, its vector, and what difference is still the same model.
 * Refuses: other architectures, models without the dense layers or of another dimension (-ENOTSUP).
 * Threads: any one.
 * Why:     it warms a worker up before it takes messages, and a damaged file, a faulty kernel or a
 *          broken machine shows before it writes a million wrong vectors.
 */
#ifndef SELFTEST_H
#define SELFTEST_H

#include <stdint.h>

#include "inference/embed.h"

/* Other quantisations of the same model come to about 0.99; another model is far below. */
#define SELFTEST_SAME    0.998
#define SELFTEST_SIMILAR 0.95

struct selftest {
    double cosine; /* to the stored vector */
    uint64_t took_ms;
};

/* 0; -ENOTSUP: there is no vector to compare this model with; -ENOMEM. */
int selftest_run(const struct model *model, struct selftest *out);

#endif
