/*
 * npy.c: see npy.h.
 */
#include "connectors/npy.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void npy_header(char out[NPY_HEADER], const char *descr, uint64_t rows, size_t columns)
{
    char text[NPY_HEADER];
    int n = snprintf(text, sizeof text,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (%" PRIu64 ", %zu), }",
                     descr, rows, columns);
    /* 128 bytes whatever the shape is, so that it can be written over when rows are added. */
    assert(n > 0 && 10 + n < NPY_HEADER);
    memset(out, ' ', NPY_HEADER);
    memcpy(out, "\x93NUMPY\x01\x00\x76\x00", 10); /* version 1.0, 118 bytes follow */
    memcpy(out + 10, text, (size_t)n);
    out[NPY_HEADER - 1] = '\n';
}
