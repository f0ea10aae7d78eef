/*
 * serve_files.h: files that are part of the program: what a server answers as it is.
 *
 * Threads: no state.
 */
#ifndef SERVE_FILES_H
#define SERVE_FILES_H

#include "connectors/connector.h"

/* openapi.json: paths, bodies and answers, for generators of clients and for tests. */
struct bytes serve_file_openapi(void);
/* page.html: for a person who wants to see what the model makes of texts. */
struct bytes serve_file_page(void);

#endif
